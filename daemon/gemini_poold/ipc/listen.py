"""Binding the RPC sockets: one daemon per socket, no socket of another's, nothing left behind.

Also taking over sockets that a service manager holds. What is said on them is `server.py`'s business.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

from gemini_pool.errors import PoolError

from ..errors import FileRefused
from ..files import ensure_private_dir

BACKLOG = 1024
_MAX_PATH = 103  # sun_path of macOS; Linux has 107


class AlreadyRunning(PoolError):
    """Another daemon serves this socket. Both would answer half of the clients each."""

    def __init__(self, path: Path, pid: int | None) -> None:
        who = f"another daemon (pid {pid})" if pid else "another daemon"
        stop = f"kill {pid}" if pid else f"the process that `fuser {shlex.quote(str(path))}` names"
        super().__init__(
            "already_running",
            f"{who} serves {path}",
            hint=f"stop it first: `systemctl --user stop gemini-pool`, or {stop}",
        )
        self.pid = pid


@dataclass(slots=True)
class Listening:
    """A listening socket and what to tidy up behind it. `close` is idempotent.

    An inherited socket belongs to the service manager: its file stays, so that connections wait for the next daemon.
    """

    sock: socket.socket
    path: Path
    inherited: bool = False
    _identity: tuple[int, int] | None = None
    _lock_fd: int = -1

    def close(self) -> None:
        """Stop accepting; remove our own socket file if it is still the one we made; let the next daemon in."""
        self.sock.close()
        if self._identity is not None and _identity(self.path) == self._identity:
            self.path.unlink(missing_ok=True)
        self._identity = None
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1


def inherit(sock: socket.socket, path: Path) -> Listening:
    """Take over a listening socket that a service manager made at `path`."""
    sock.setblocking(False)
    return Listening(sock, path, inherited=True)


def bind(path: Path) -> Listening:
    """Listen at `path` as the only daemon that does.

    Lock first (two daemons that start together), then ask whoever may be there (one that holds no lock of ours), then
    remove what a killed one left. Raises `AlreadyRunning`, or `FileRefused` for a folder or file that is not ours
    alone, with the command that mends it.
    """
    if len(os.fsencode(path)) > _MAX_PATH:
        raise FileRefused(
            f"the socket's path has more than {_MAX_PATH} bytes, which the system does not take: {path}",
            path=str(path),
            hint="set GEMINI_POOL_SOCKET to a shorter one, in a folder of your own",
        )
    _check_folder(path)
    lock_fd = _lock(path)
    try:
        _clear(path)
        sock = _bind(path)
    except BaseException:
        os.close(lock_fd)
        raise
    return Listening(sock, path, _identity=_identity(path), _lock_fd=lock_fd)


def _check_folder(path: Path) -> None:
    with contextlib.suppress(OSError):
        info = path.parent.lstat()
        if stat.S_ISDIR(info.st_mode) and info.st_mode & stat.S_ISVTX:
            raise FileRefused(
                f"{path.parent} is a folder that everybody uses: whoever is first could pose as the daemon",
                path=str(path.parent),
                hint=f"mkdir -m 700 {_q(path.parent / 'gemini-pool')}, and point GEMINI_POOL_SOCKET into it",
            )
    ensure_private_dir(path.parent)


def _lock(path: Path) -> int:
    """Hold the lock of the socket for as long as this process lives. Its file stays, with our pid in it."""
    lock = path.with_name(path.name + ".lock")
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise FileRefused(
            f"{lock} cannot be opened: {error.strerror}", path=str(lock), hint=f"rm {_q(lock)}"
        ) from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.pread(fd, 32, 0).strip()
        os.close(fd)
        raise AlreadyRunning(path, int(pid) if pid.isdigit() else None) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, b"%d\n" % os.getpid(), 0)
    return fd


def _clear(path: Path) -> None:
    """Make sure that nothing is at `path`: a socket nobody answers on is removed, anything else refused."""
    try:
        info = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(info.st_mode):
        what = "a symbolic link" if stat.S_ISLNK(info.st_mode) else "no socket"
        raise FileRefused(f"{path} is {what}", path=str(path), hint=f"rm {_q(path)}")
    if info.st_uid != os.geteuid():
        raise FileRefused(
            f"{path} belongs to user id {info.st_uid}", path=str(path), hint=f"sudo rm {_q(path)}"
        )
    if _answers(path):
        raise AlreadyRunning(path, None)
    path.unlink(missing_ok=True)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except BlockingIOError:  # its backlog is full: it lives
            return True
        except OSError:
            return False
        return True


def _bind(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)  # the file is 0600 from its first instant; no other thread runs yet
    try:
        sock.bind(os.fspath(path))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise FileRefused(f"{path} cannot be bound: {error.strerror}", path=str(path)) from None
    finally:
        os.umask(before)
    return sock


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        info = path.lstat()
    except OSError:
        return None
    return info.st_dev, info.st_ino


def _q(path: Path) -> str:
    return shlex.quote(str(path))
