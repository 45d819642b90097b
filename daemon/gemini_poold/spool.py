"""Bodies too large for the memory, on the disk: private files that have no name, so that nothing is left of them whatever
happens. Everything here blocks: call it from a thread.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
import threading
from pathlib import Path

from .errors import PoolError
from .files import ensure_private_dir

PIECE = 128 << 10  # what is in the memory of a body, at any time
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Spool:
    """One body: written once from its beginning to its end, read as often as wanted. Threads may share it.

    A lock keeps `close` from giving the descriptor's number to another file while a thread still uses it.
    """

    def __init__(self, folder: Path) -> None:
        """Make the file in `folder`, which is made as well. Raises PoolError `overloaded` where there can be none."""
        self.size = 0
        self._lock = threading.Lock()
        self._fd = -1
        try:
            ensure_private_dir(folder)
            self._fd = _nameless(folder)
        except OSError as error:
            raise _no_room(error) from None

    def append(self, piece: bytes | memoryview) -> None:
        """Write it behind the rest. Raises PoolError `overloaded` when the disk is full."""
        view = memoryview(piece)
        with self._lock:
            try:
                while view and self._fd >= 0:
                    written = os.write(self._fd, view)
                    self.size += written
                    view = view[written:]
            except OSError as error:
                raise _no_room(error) from None

    def read(self, offset: int, most: int = PIECE) -> bytes:
        """Bytes from `offset` on; none at the end, and none after `close`."""
        with self._lock:
            return os.pread(self._fd, most, offset) if self._fd >= 0 else b""

    def close(self) -> None:
        """The room on the disk is free again. Safe to call again."""
        with self._lock:
            fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        """A request that was cancelled while its file was made has nobody who knows of it."""
        self.close()


def sweep(folder: Path) -> None:
    """Remove what a crash may have left where files cannot be made without a name."""
    with contextlib.suppress(OSError):
        for path in folder.glob("body-*"):
            path.unlink()


def _nameless(folder: Path) -> int:
    """A descriptor of a file of mode 0600 that stands in no folder: the kernel removes it with its last descriptor."""
    flag = getattr(os, "O_TMPFILE", 0)
    if flag:
        try:
            return os.open(folder, flag | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:  # a file system that knows no such files
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL):
                raise
    fd, path = tempfile.mkstemp(prefix="body-", dir=folder)
    Path(path).unlink()
    return fd


def _no_room(error: OSError) -> PoolError:
    where = "the disk is full" if error.errno in _FULL else error.strerror or type(error).__name__
    return PoolError("overloaded", f"a large body cannot be kept for repeating: {where}")
