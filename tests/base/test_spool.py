"""Files for large bodies: private, without a name, gone with their last descriptor."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from gemini_poold import spool as module
from gemini_poold.errors import PoolError
from gemini_poold.spool import Spool, sweep


@pytest.mark.parametrize("named", [False, True])
def test_it_has_no_name_and_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool) -> None:
    """Also where the system cannot make nameless files: nothing stands in the folder, whose mode is 0700."""
    if named:
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    folder = tmp_path / "spool"
    spool = Spool(folder)
    spool.append(b"x" * 100)
    assert list(folder.iterdir()) == []
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    info = os.fstat(spool._fd)
    assert (stat.S_IMODE(info.st_mode), info.st_nlink, info.st_size) == (0o600, 0, 100)
    spool.close()


def test_what_was_written_is_read_as_often_as_wanted(tmp_path: Path) -> None:
    """From any place, whatever was read before; nothing at the end."""
    spool = Spool(tmp_path / "spool")
    spool.append(b"abc")
    spool.append(b"defgh")
    assert spool.size == 8
    assert [spool.read(0), spool.read(2, 3), spool.read(0), spool.read(8)] == [
        b"abcdefgh",
        b"cde",
        b"abcdefgh",
        b"",
    ]
    spool.close()


def test_after_close_nothing_is_read_or_written(tmp_path: Path) -> None:
    """A thread that comes late must not meet another file under the old number."""
    spool = Spool(tmp_path / "spool")
    spool.append(b"abc")
    spool.close()
    with (tmp_path / "other").open("wb") as other:
        spool.append(b"secret")
        assert spool.read(0) == b""
        spool.close()
        assert os.fstat(other.fileno()).st_size == 0


def test_one_that_nobody_knows_of_is_closed(tmp_path: Path) -> None:
    """As when a request is cancelled while a thread makes its file."""
    fd = Spool(tmp_path / "spool")._fd
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """The request is shed like any other for which there is no room."""

    def full(fd: int, data: bytes) -> int:
        raise OSError(code, os.strerror(code))

    spool = Spool(tmp_path / "spool")
    monkeypatch.setattr(module.os, "write", full)
    with pytest.raises(PoolError, match="disk is full") as caught:
        spool.append(b"abc")
    assert caught.value.code == "overloaded"
    spool.close()


def test_an_open_folder_is_refused(tmp_path: Path) -> None:
    """Bodies are prompts: they go to no folder that others can read."""
    folder = tmp_path / "spool"
    folder.mkdir()
    folder.chmod(0o755)
    with pytest.raises(PoolError):
        Spool(folder)


def test_the_sweep_takes_bodies_alone(tmp_path: Path) -> None:
    """What a crash left between making a file and taking its name away."""
    (tmp_path / "body-abc").write_bytes(b"x")
    (tmp_path / "other").write_bytes(b"x")
    sweep(tmp_path)
    sweep(tmp_path / "missing")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
