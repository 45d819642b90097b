"""A child dies at every write, fsync, rename and SQL statement of a change: what it left is whole, old or new."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gemini_poold.accounts.schema import parse
from gemini_poold.clock import SystemClock
from gemini_poold.core.model import AccountState
from gemini_poold.files import locked
from gemini_poold.store import Store

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
OLD = '# mine\n[[account]]\nid = "a"\nbackend = "developer-api"\ncredential = { type = "api-key", secret = { env = "A" } }\n'
LOGIN = {
    "type": "authorized_user", "client_id": "fake-client", "client_secret": "fake-client-secret",
    "refresh_token": "fake-refresh-0", "mine": "kept",
}  # fmt: skip


def prepare(folder: Path) -> None:
    """The state before the change."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "secrets").mkdir(mode=0o700, parents=True)
    folder.chmod(0o700)
    for path, text in (
        (folder / "secrets" / "work.json", json.dumps(LOGIN)),
        (folder / "accounts.toml", OLD),
    ):
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600)


def die(what: str, folder: Path, at: int) -> subprocess.CompletedProcess[str]:
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "daemon"), str(ROOT / "client" / "python")]),
    }
    return subprocess.run(
        [sys.executable, str(HERE / "dying.py"), what, str(folder), str(at)], env=env, text=True,
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip


def check_rotation(folder: Path, said: str) -> None:
    """The file holds a whole login: the old token, or the new one; the new one once a token was handed out."""
    login = json.loads((folder / "secrets" / "work.json").read_bytes())
    assert login["refresh_token"] in ("fake-refresh-0", "fake-refresh-1")
    assert login["mine"] == "kept"
    if "handed out" in said:
        assert login["refresh_token"] == "fake-refresh-1"
    for older in (folder / "secrets").glob("work.json.[0-9]"):
        assert json.loads(older.read_bytes())["refresh_token"] == "fake-refresh-0"


def check_account(folder: Path, said: str) -> None:
    """The file parses: with the new account, or as it was; with it once that was acknowledged."""
    text = (folder / "accounts.toml").read_text(encoding="utf-8")
    ids = [entry.id for entry in parse(text, "accounts.toml")]
    assert ids == ["a", "b"] if "done" in said else ids in (["a"], ["a", "b"])
    assert text.startswith("# mine")


def check_state(folder: Path, said: str) -> None:
    """The database opens without loss: both rows, or none; both once that was acknowledged."""
    store = Store.open(folder / "state.db", SystemClock())
    try:
        saved = store.load()
        assert not [warning for warning in saved.warnings if "could not be read" in warning]
        assert len(saved.cooldowns) == len(saved.accounts) <= 1
        if "done" in said:
            assert saved.accounts[0].state is AccountState.DEAD
    finally:
        store._writer.close()


@pytest.mark.parametrize(
    ("what", "check"), [("rotation", check_rotation), ("account", check_account), ("state", check_state)]
)
def test_every_step(tmp_path: Path, what: str, check: Callable[[Path, str], None]) -> None:
    """Killed at each step in turn: never a lost refresh token, never a half file, never a lock that stays held; and the
    same change goes through afterwards."""
    folder = tmp_path / "home"
    at = 0
    while True:
        at += 1
        prepare(folder)
        died = die(what, folder, at)
        check(folder, died.stdout)
        if died.returncode == 0:
            break
        assert died.returncode == 9, died.stderr
        for lock in folder.rglob("*.lock"):
            with locked(lock.with_suffix(""), timeout_s=1.0):
                pass
        again = die(what, folder, 0)
        assert again.returncode == 0, again.stderr
        check(folder, again.stdout)
        assert not list(folder.rglob(".*.tmp-*")), "what the killed writer left is swept by the next one"
    print(f"{what}: killed at each of {at - 1} steps")
    assert at > 5
