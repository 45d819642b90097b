"""What every client's test stands on: the real daemon, a fake Google, and one account that answers 429.

`hot` is preferred and always refused, `cool` is the next best, `work` (Code Assist) the last resort. A client of ours
must not notice. Each client gets its settings from `gemini-pool env`, so what that prints is tested as well.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.clients import installed
from tests.fakes.daemon import DaemonProcess, api_key_account, fake_google

from gemini_poold.fake import GENERATION, FakeGoogle, Fault, Match, World, replies
from gemini_poold.fake.faults import Rule

MODEL = "gemini-2.5-flash"
GEMINI_CLI = "@google/gemini-cli@0.61.0"
LANGCHAIN = ("langchain-google-genai==4.4.2", "msgspec>=0.19")
GOOGLE = "generativelanguage.googleapis.com"  # the name that a client without a setting for it asks for
CONFIG = f"""
[gateway]
listen = "127.0.0.1:0"
allowed_hosts = ["{GOOGLE}"]

[models]
aliases = {{ "gemini-3-flash" = "gemini-3-flash-preview" }}  # gemini-cli's own name for it, as a Code Assist user
"""
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

    def settings(self, name: str) -> dict[str, str]:
        """What `gemini-pool env NAME` prints, as an environment."""
        done = self.daemon.command("env", name, "--format", "json")
        assert done.returncode == 0, done.stderr
        return {key: value for key, value in json.loads(done.stdout).items() if value is not None}

    def files(self, name: str, action: str, home: Path) -> str:
        """`gemini-pool env NAME --write` or `--undo`, as the user with this home."""
        done = subprocess.run(
            [sys.executable, "-m", "gemini_pool.cli", "env", name, action],
            env={**self.daemon.env, **at_home(home)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refuse(self, account: str) -> None:
        """From now on Google answers this account's generation with 429 and a delay."""
        body = replies.rate_limited("27s", model=MODEL)
        self.google.faults.add(
            Fault.status(429, body=body), when=Match(kind=GENERATION, credential=account), times=None
        )

    def cut(self, times: int | None = 1) -> Rule:
        """The next streams of the model (None: all of them) are broken in the middle."""
        when = Match(kind="stream", model=MODEL, check=lambda call: call.caller.name != "hot")
        return self.google.faults.add(Fault.cut(2), when=when, times=times)

    def bodies(self) -> list[str]:
        """What Google was sent in the streams and calls that it answered."""
        return [call.body.decode() for call in self.google.record.calls if call.kind in GENERATION]

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
    with staged(tmp_path) as running:
        yield running


@contextlib.contextmanager
def staged(folder: Path, *, env: Mapping[str, str] | None = None, config: str = CONFIG) -> Iterator[Stage]:
    """The same with more variables in the daemon's environment, or another configuration."""
    world = World()
    world.add_api_key("hot")
    world.add_api_key("cool")
    alice = world.add_user("alice", projects=["alice-project"])
    accounts = api_key_account("hot", priority=10) + api_key_account("cool") + WORK
    with fake_google(world) as google:
        daemon = DaemonProcess(folder / "pool", fake=google, accounts=accounts, config=config, env=env)
        daemon.write_secret("work.json", json.dumps(world.authorized_user(alice, world.add_client())))
        with daemon:
            running = Stage(daemon, google)
            running.refuse("hot")
            yield running


def at_home(home: Path) -> dict[str, str]:
    """An environment in which everything of the user's is in `home`."""
    return {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "XDG_DATA_HOME": str(home / ".local" / "share"),
        "XDG_STATE_HOME": str(home / ".local" / "state"),
        "XDG_CACHE_HOME": str(home / ".cache"),
    }


def run_client(
    command: Sequence[str | Path], home: Path, env: Mapping[str, str], *, timeout_s: float = 120
) -> subprocess.CompletedProcess[str]:
    """The client as its user would run it, with nothing of this machine's settings."""
    home.mkdir(exist_ok=True)
    return subprocess.run(
        [str(word) for word in command],
        env={"PATH": os.environ["PATH"], **at_home(home), "NO_COLOR": "1", "TERM": "dumb", **env},
        cwd=home, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, check=False,
    )  # fmt: skip


def assert_noticed(done: subprocess.CompletedProcess[str], rule: Rule, whole: str) -> None:
    """A stream was broken: the client asked again and has the whole answer, or it failed and says so."""
    assert rule.hits >= 1
    if done.returncode == 0:
        assert whole in done.stdout, done.stdout + done.stderr
    else:
        assert done.stderr.strip() or done.stdout.strip()


@pytest.fixture(scope="session")
def gemini_cli() -> Path:
    """The real gemini-cli."""
    return installed.npm("gemini-cli", GEMINI_CLI) / "node_modules" / ".bin" / "gemini"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What installing the clients took."""
    for name, seconds in installed.seconds.items():
        terminalreporter.write_line(f"installed {name} in {seconds:.0f} s")
