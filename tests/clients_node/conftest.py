"""JavaScript runtimes for the tests of the TypeScript client: Node as installed, Bun, tsc and opencode from npm.

What cannot be had is skipped, or fails where GEMINI_POOL_REQUIRE_EDITORS is set.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.clients import installed
from tests.fakes.daemon import DaemonProcess, api_key_account, fake_google

from gemini_poold.fake import FakeGoogle, World

PACKAGES = ("bun@1.3.14", "typescript@5.9", "@types/node@20", "opencode-ai@1.18.33")
MODEL = "gemini-2.5-flash"


@pytest.fixture(scope="session")
def node() -> str:
    return shutil.which("node") or installed.unavailable("node is not installed")


@pytest.fixture(scope="session")
def packages() -> Path:
    """`node_modules` with what comes from npm, kept between runs."""
    return installed.npm("editors-node", *PACKAGES, scripts=True) / "node_modules"


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
