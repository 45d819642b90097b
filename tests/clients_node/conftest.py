"""JavaScript runtimes for the tests of the TypeScript client: Node as installed, Bun, tsc and opencode from npm.

What cannot be had is skipped, or fails where GEMINI_POOL_REQUIRE_EDITORS is set.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from tests.fakes.daemon import DaemonProcess, api_key_account, fake_google

from gemini_poold.fake import FakeGoogle, World

PACKAGES = ("bun@1.3.14", "typescript@5.9", "@types/node@20", "opencode-ai@1.18.33")
MODEL = "gemini-2.5-flash"


def unavailable(reason: str) -> NoReturn:
    """Skip, unless editors are required."""
    if os.environ.get("GEMINI_POOL_REQUIRE_EDITORS"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def node() -> str:
    return shutil.which("node") or unavailable("node is not installed")


@pytest.fixture(scope="session")
def packages() -> Path:
    """`node_modules` with what comes from npm, kept between runs."""
    if shutil.which("npm") is None:
        unavailable("npm is not installed")
    cache = os.environ.get("GEMINI_POOL_CLIENTS_CACHE") or str(
        Path(tempfile.gettempdir()) / "gemini-pool-clients"
    )
    folder = Path(cache) / "editors-node"
    done = folder / "complete"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        install = ["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--no-package-lock"]
        ran = subprocess.run([*install, *PACKAGES], capture_output=True, text=True, timeout=400, check=False)
        if ran.returncode:
            unavailable(f"npm install failed: {ran.stderr[-500:]}")
        done.touch()
    return folder / "node_modules"


@pytest.fixture
def google() -> Iterator[FakeGoogle]:
    world = World()
    world.add_api_key("key-a")
    with fake_google(world) as fake:
        yield fake


@pytest.fixture
def daemon(google: FakeGoogle, tmp_path: Path) -> Iterator[DaemonProcess]:
    accounts = api_key_account("key-a", lend=True)
    with DaemonProcess(tmp_path / "pool", fake=google, accounts=accounts) as running:
        yield running
