"""What every client's test stands on: the real daemon, a fake Google, and one account that answers 429.

`hot` is preferred and always refused, `cool` is the next best, `work` (Code Assist) the last resort. A client of ours
must not notice. Clients that cannot be had are skipped, or fail where GEMINI_POOL_REQUIRE_CLIENTS is set.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest
from tests.fakes.daemon import DaemonProcess, api_key_account, fake_google

from gemini_poold.fake import GENERATION, FakeGoogle, Fault, Match, World, replies

MODEL = "gemini-2.5-flash"
GEMINI_CLI = "@google/gemini-cli@0.61.0"
WORK = """
[[account]]
id = "work"
backend = "code-assist"
credential = { type = "oauth", secret = { file = "secrets/work.json" } }
priority = -10
"""


@dataclass
class Stage:
    """A running daemon, its Google, and how to make an account refuse."""

    daemon: DaemonProcess
    google: FakeGoogle

    @property
    def url(self) -> str:
        return self.daemon.url

    def refuse(self, account: str) -> None:
        """From now on Google answers this account's generation with 429 and a delay."""
        body = replies.rate_limited("27s", model=MODEL)
        self.google.faults.add(
            Fault.status(429, body=body), when=Match(kind=GENERATION, credential=account), times=None
        )

    def assert_rotated(self, *refused: str) -> None:
        """Google really refused these accounts, and the pool absorbed it."""
        for account in refused:
            assert self.google.record.count(credential=account, status=429) >= 1
        with self.daemon.pool() as pool:
            counters = pool.status().counters
        assert counters.absorbed >= len(refused)
        assert counters.failed == 0


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """The daemon with its three accounts; `hot` refuses."""
    world = World()
    world.add_api_key("hot")
    world.add_api_key("cool")
    alice = world.add_user("alice", projects=["alice-project"])
    accounts = api_key_account("hot", priority=10) + api_key_account("cool") + WORK
    with fake_google(world) as google:
        daemon = DaemonProcess(tmp_path / "pool", fake=google, accounts=accounts)
        daemon.write_secret("work.json", json.dumps(world.authorized_user(alice, world.add_client())))
        with daemon:
            running = Stage(daemon, google)
            running.refuse("hot")
            yield running


@pytest.fixture(scope="session")
def gemini_cli() -> Path:
    """The real gemini-cli from the npm registry, kept between runs."""
    if shutil.which("npm") is None:
        unavailable("npm is not installed")
    cache = os.environ.get("GEMINI_POOL_CLIENTS_CACHE") or str(
        Path(tempfile.gettempdir()) / "gemini-pool-clients"
    )
    folder = Path(cache) / GEMINI_CLI.replace("/", "-")
    command = folder / "node_modules" / ".bin" / "gemini"
    if not command.exists():
        folder.mkdir(parents=True, exist_ok=True)
        install = ["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--ignore-scripts"]
        done = subprocess.run(
            [*install, GEMINI_CLI], capture_output=True, text=True, timeout=300, check=False
        )
        if done.returncode:
            unavailable(f"npm install failed: {done.stderr[-500:]}")
    return command


def unavailable(reason: str) -> NoReturn:
    """Skip, unless clients are required."""
    if os.environ.get("GEMINI_POOL_REQUIRE_CLIENTS"):
        pytest.fail(reason)
    pytest.skip(reason)
