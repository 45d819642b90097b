"""What the VS Code tests share: packages from npm, a daemon with two keys and a user who may log in, running a module."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.clients import installed
from tests.fakes.daemon import DaemonProcess, api_key_account, fake_google

from gemini_poold.fake import FakeGoogle, World

ROOT = Path(__file__).parents[3]
CLIENTS = ROOT / "client"
EXTENSION = CLIENTS / "vscode"
MODEL = "gemini-2.5-flash"
# The types of the oldest VS Code that the manifest names.
PACKAGES = ("@types/vscode@~1.104.0", "@types/node@20", "typescript@5.9", "@vscode/vsce@~3.9.1")


@pytest.fixture(scope="session", autouse=True)
def _node() -> None:
    if shutil.which("node") is None:
        installed.unavailable("node is not installed")


@pytest.fixture(scope="session")
def packages() -> Path:
    """`node_modules` with what comes from npm, kept between runs."""
    return installed.npm("editors-vscode", *PACKAGES) / "node_modules"


@pytest.fixture
def google() -> Iterator[FakeGoogle]:
    world = World()
    for name in ("a", "b"):
        world.add_api_key(name)
    world.add_user("ann", projects=["proj"])
    world.add_client()
    with fake_google(world) as fake:
        yield fake


@pytest.fixture
def daemon(google: FakeGoogle, tmp_path: Path) -> Iterator[DaemonProcess]:
    accounts = api_key_account("a") + api_key_account("b")
    with DaemonProcess(tmp_path / "pool", fake=google, accounts=accounts) as running:
        yield running


def run(daemon: DaemonProcess, module: Path, code: str) -> list[Any]:
    """Run a module that prints JSON lines; what it printed."""
    module.write_text(f"const say = (value) => console.log(JSON.stringify(value))\n{code}", encoding="utf-8")
    done = subprocess.run(
        ["node", str(module)], env={**daemon.env, "PATH": os.environ["PATH"]}, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
