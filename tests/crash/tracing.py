"""Runs a function in a forked child and kills it with SIGKILL right before its N-th step, a step being a system call that
changes something on the disk, of any thread, SQLite's and the interpreter's own included (Linux, by ptrace).

The child's memory that is shared with the parent (`Notes`) is what "the rest of the world" remembers of it.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import platform
import signal
import struct
import sys
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

# asm/unistd_64.h, asm-generic/unistd.h
_X86 = {
    "write": 1, "pwrite64": 18, "writev": 20, "pwritev": 296, "open": 2, "openat": 257, "fsync": 74, "fdatasync": 75,
    "rename": 82, "renameat": 264, "renameat2": 316, "link": 86, "linkat": 265, "unlink": 87, "unlinkat": 263,
    "ftruncate": 77, "truncate": 76, "fchmod": 91, "chmod": 90, "fchmodat": 268, "mkdir": 83, "mkdirat": 258,
    "flock": 73, "bind": 49, "listen": 50, "fcntl": 72,
}  # fmt: skip
_ARM = {
    "write": 64, "pwrite64": 68, "writev": 66, "pwritev": 70, "openat": 56, "fsync": 82, "fdatasync": 83,
    "renameat": 38, "renameat2": 276, "linkat": 37, "unlinkat": 35, "ftruncate": 46, "truncate": 45, "fchmod": 52,
    "fchmodat": 53, "mkdirat": 34, "flock": 32, "bind": 200, "listen": 201, "fcntl": 25,
}  # fmt: skip
TABLE = {"x86_64": _X86, "aarch64": _ARM}.get(platform.machine(), {})
NAMES = {number: name for name, number in TABLE.items()}
_BY_FD = {"write", "pwrite64", "writev", "pwritev"}  # to sockets and pipes they change no disk
_OPENS = {"open": 1, "openat": 2}  # which argument holds the flags
_LOCKING = {6, 7}  # F_SETLK, F_SETLKW: SQLite's locks

_TRACEME, _CONT, _KILL, _SETOPTIONS, _SYSCALL, _GET_SYSCALL_INFO = 0, 7, 8, 0x4200, 24, 0x420E
_SYSGOOD, _FORK, _CLONE, _EXITKILL = 0x1, 0x2, 0x8, 0x100000
_WALL = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


class Notes:
    """A dictionary in memory that parent and children share: writing to it is no step, and a kill loses nothing."""

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, 1 << 16)
        self.clear()

    def clear(self) -> None:
        self._save({})

    def __getitem__(self, name: str) -> Any:
        return self._load().get(name)

    def __setitem__(self, name: str, value: Any) -> None:
        self._save({**self._load(), name: value})

    def _load(self) -> dict[str, Any]:
        (size,) = struct.unpack_from("<I", self._map)
        found: dict[str, Any] = json.loads(self._map[4 : 4 + size])
        return found

    def _save(self, values: dict[str, Any]) -> None:
        data = json.dumps(values).encode()
        self._map[4 : 4 + len(data)] = data
        struct.pack_into("<I", self._map, 0, len(data))


class Ran(NamedTuple):
    """`steps`: what was done, in order. `killed`: whether the child was killed before the last one named."""

    steps: list[str]
    killed: bool


def can_trace() -> bool:
    """Whether this machine lets us (some containers do not)."""
    if not TABLE or not sys.platform.startswith("linux"):
        return False
    try:
        return not run(lambda: None).killed
    except OSError:
        return False


def run(work: Callable[[], None], kill_at: int = 0) -> Ran:
    """Run `work` in a child; with `kill_at`, kill it before that step (from 1). Raises when it ends otherwise than by
    that kill or in order."""
    pid = os.fork()
    if pid == 0:
        _child(work)
    _, status = os.waitpid(pid, _WALL)
    if not os.WIFSTOPPED(status):
        raise OSError("tracing is not allowed here")
    _ptrace(_SETOPTIONS, pid, _SYSGOOD | _CLONE | _FORK | _EXITKILL)
    _ptrace(_SYSCALL, pid, 0)
    return _follow(pid, kill_at)


def _child(work: Callable[[], None]) -> None:
    code = 1
    try:
        if _libc.ptrace(_TRACEME, 0, None, None) != 0:
            os._exit(3)
        os.kill(os.getpid(), signal.SIGSTOP)
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _follow(pid: int, kill_at: int) -> Ran:
    steps: list[str] = []
    while True:
        tid, status = os.waitpid(-1, _WALL)
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            if tid != pid:
                continue
            if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0:
                raise RuntimeError(f"the child failed with {os.WEXITSTATUS(status)}")
            return Ran(steps, os.WIFSIGNALED(status))
        pass_on = 0
        if os.WSTOPSIG(status) == signal.SIGTRAP | 0x80:
            if step := _entered(pid, tid):
                steps.append(step)
                if len(steps) == kill_at:
                    os.kill(pid, signal.SIGKILL)
                    _reap(pid)
                    return Ran(steps, True)
        elif not (status >> 16) and os.WSTOPSIG(status) not in {signal.SIGSTOP, signal.SIGTRAP}:
            pass_on = os.WSTOPSIG(status)
        _ptrace(_SYSCALL, tid, pass_on, gone_is_fine=True)


def _reap(pid: int) -> None:
    """Take every thread's end, the process's last."""
    while True:
        try:
            tid, status = os.waitpid(-1, _WALL)
        except ChildProcessError:
            return
        if os.WIFSTOPPED(status):
            _ptrace(_SYSCALL, tid, 0, gone_is_fine=True)
        elif tid == pid:
            return


def _entered(pid: int, tid: int) -> str:
    """The step that this thread is about to do; "" when it is none (or the call is just over)."""
    info = ctypes.create_string_buffer(96)
    size = _libc.ptrace(_GET_SYSCALL_INFO, tid, ctypes.c_void_p(96), ctypes.addressof(info))
    if size < 32 or info.raw[0] != 1:
        return ""
    number, *arguments = struct.unpack_from("<7Q", info.raw, 24)
    name = NAMES.get(number, "")
    if name in _OPENS and not arguments[_OPENS[name]] & (os.O_CREAT | os.O_WRONLY | os.O_RDWR | os.O_TRUNC):
        return ""
    if name == "fcntl" and arguments[1] not in _LOCKING:
        return ""
    if name in _BY_FD and not _is_file(pid, arguments[0]):
        return ""
    return name


def _is_file(pid: int, fd: int) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/fd/{fd}").startswith("/") and fd > 2
    except OSError:
        return False


def _ptrace(request: int, tid: int, data: int, *, gone_is_fine: bool = False) -> None:
    if _libc.ptrace(request, tid, None, ctypes.c_void_p(data)) == -1:
        number = ctypes.get_errno()
        if not (gone_is_fine and number == 3):  # ESRCH: it ended meanwhile
            raise OSError(number, os.strerror(number))
