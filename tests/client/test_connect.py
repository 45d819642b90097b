"""Where the daemon is looked for, and what is told when it is not there."""

import errno
import sys

import pytest

from gemini_pool import connect
from gemini_pool.errors import NotRunning


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "GEMINI_POOL_SOCKET", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(connect, "_UNIT_FOLDERS", ())
    return tmp_path


def test_socket_path(home, monkeypatch, tmp_path):
    """As given; else as the environment says; else the contract's place."""
    assert connect.socket_path(tmp_path / "x") == str(tmp_path / "x")
    monkeypatch.setenv("GEMINI_POOL_SOCKET", "/a/b")
    assert connect.socket_path() == "/a/b"


@pytest.mark.skipif(sys.platform != "linux", reason="systemd")
def test_start_hint(home, monkeypatch):
    """With a unit installed systemctl starts it, else the command does."""
    assert "gemini-pool run" in connect.start_hint()
    for folder in (home / ".config/systemd/user", home / ".local/share/systemd/user"):
        folder.mkdir(parents=True)
        (folder / "gemini-pool.service").touch()
        assert "systemctl --user start gemini-pool" in connect.start_hint()
        (folder / "gemini-pool.service").unlink()


def test_failures(home):
    """Nobody there, not ours, or something else: each in words, and all mean exit code 3."""
    for number, words in (
        (errno.ENOENT, "no daemon answers"),
        (errno.ECONNREFUSED, "no daemon answers"),
        (errno.EACCES, "may not be opened"),
        (errno.ENOTSOCK, "cannot be reached"),
    ):
        error = connect.failure(OSError(number, "why"), "/x")
        assert isinstance(error, NotRunning)
        assert words in error.message
        assert "/x" in error.message
        assert error.hint
        assert error.exit_code == 3


def test_greeting(monkeypatch):
    """The program's own name, unless it gives another."""
    monkeypatch.setattr(sys, "argv", ["/usr/bin/tool", "x"])
    assert connect.greeting("").client.name == "tool"
    assert connect.greeting("mine").client.name == "mine"
    monkeypatch.setattr(sys, "argv", [""])
    assert connect.greeting("").client.name == "python"
