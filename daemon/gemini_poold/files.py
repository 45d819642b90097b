"""Private files: read only if nobody else could have read or written them, written so that no crash loses them.

What is in the files is not this module's business. Everything here blocks: call it from a thread where it matters.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shlex
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from .errors import FileRefused

MAX_BYTES = 16 << 20  # nothing that we read whole is larger; a mistyped path must not fill the memory
LOCK_POLL_S = 0.02


def read_private(path: Path, *, limit: int = MAX_BYTES) -> bytes:
    """The content of a file that is ours alone. `FileRefused` for a symbolic link, a foreign owner, any group or
    other permission, a folder that others may write to, anything that is no regular file, or a file that is missing
    (`.missing`)."""
    fd = _open_private(path)
    with os.fdopen(fd, "rb") as file:
        return _read(file.read(limit + 1), path, limit)


def check_private(path: Path) -> None:
    """Raise what `read_private` would raise, without reading."""
    os.close(_open_private(path))


def create_private(path: Path) -> None:
    """Make an empty file of mode 0600, whatever the umask; raises FileExistsError when there is one already."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))


def read_trusted(path: Path, *, limit: int = MAX_BYTES) -> bytes:
    """The content of a configuration file: it may be a link (stow, Nix) and readable by others, but the file behind
    it belongs to us or root, and nobody else may write to it. Raises `FileRefused` like `read_private`."""
    fd = _open_checked(path, os.O_RDONLY, forbidden=0o022, mend="chmod go-w", root_too=True)
    with os.fdopen(fd, "rb") as file:
        return _read(file.read(limit + 1), path, limit)


def ensure_private_dir(path: Path) -> None:
    """Make the folder (0700, its missing parents too), or make sure that it is ours and closed to others.

    Never mends by itself: a folder that was open may have been read or changed; the user should know.
    """
    with contextlib.suppress(FileExistsError):
        _make_dirs(path)
    info = os.lstat(path)
    if stat.S_ISLNK(info.st_mode):
        raise FileRefused(f"{path} is a symbolic link", path=str(path), hint=f"rm {_q(path)}")
    if not stat.S_ISDIR(info.st_mode):
        raise FileRefused(f"{path} is not a folder", path=str(path), hint=f"mv {_q(path)} {_q(path)}.old")
    _check_owner(info, path, root_too=False)
    if info.st_mode & 0o077:
        raise FileRefused(
            f"folder {path} is open to others (mode {stat.S_IMODE(info.st_mode):04o})",
            path=str(path),
            hint=f"chmod 700 {_q(path)}",
        )


def atomic_write(path: Path, data: bytes, *, mode: int = 0o600, generations: int = 0) -> None:
    """Replace the file as one step that is on the disk when this returns.

    A temporary file in the same folder, fsync, rename, fsync of the folder; all under the lock of `path`. With
    `generations`, that many previous contents stay as PATH.1 (newest), PATH.2 … . At every instant `path` is whole:
    the old content or the new. Raises `FileRefused` when `path` is a symbolic link, OSError when the disk refuses.
    """
    path = Path(path)
    with locked(path):
        atomic_write_locked(path, data, mode=mode, generations=generations)


def atomic_write_locked(path: Path, data: bytes, *, mode: int = 0o600, generations: int = 0) -> None:
    """`atomic_write` for a caller that holds `locked(path)`, because it read before it writes."""
    if path.is_symlink():
        raise FileRefused(f"{path} is a symbolic link", path=str(path), hint=f"rm {_q(path)}")
    _sweep(path)
    temporary = _write_temporary(path, data, mode)
    try:
        _keep_generations(path, generations)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_dir(path.parent)


@contextlib.contextmanager
def locked(path: Path, *, timeout_s: float = 10.0) -> Iterator[None]:
    """Hold the lock that belongs to `path` (flock on PATH.lock: replacing PATH changes its inode), against threads
    and processes alike. Raises `FileRefused` when another holder keeps it for longer than `timeout_s`."""
    lock = path.with_name(path.name + ".lock")
    fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        _wait_flock(fd, lock, timeout_s)
        yield
    finally:
        os.close(fd)  # ends the lock; the file stays, because removing it would let two holders in


def sync_file(path: Path) -> None:
    """Make the file's content durable, for those who wrote it by other means."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_dir(path: Path) -> None:
    """Make the folder's names durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _wait_flock(fd: int, lock: Path, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                hint = f"fuser {_q(lock)}"
                raise FileRefused(f"{lock} is held by another process", path=str(lock), hint=hint) from None
            time.sleep(LOCK_POLL_S)


def _temporary_prefix(path: Path) -> str:
    return f".{path.name}.tmp-"


def _sweep(path: Path) -> None:
    """Remove what killed writers left: we hold the lock, so nobody is writing one now."""
    prefix = _temporary_prefix(path)
    with os.scandir(path.parent) as entries:
        stale = [entry.path for entry in entries if entry.name.startswith(prefix)]
    for name in stale:
        Path(name).unlink(missing_ok=True)


def _write_temporary(path: Path, data: bytes, mode: int) -> Path:
    temporary = path.with_name(_temporary_prefix(path) + secrets.token_hex(8))
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(fd, mode)
            os.fsync(fd)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _keep_generations(path: Path, generations: int) -> None:
    """Shift PATH.1 to PATH.2 and so on, then link PATH as PATH.1, so that PATH itself never vanishes."""
    if generations < 1 or not path.exists():
        return
    names = [path.with_name(f"{path.name}.{number}") for number in range(1, generations + 1)]
    for older, newer in zip(reversed(names), reversed(names[:-1]), strict=False):
        if newer.exists():
            newer.replace(older)
    link = path.with_name(_temporary_prefix(path) + secrets.token_hex(8))
    try:
        os.link(path, link)
    except OSError:  # a file system without hard links: a copy does, it only costs the write
        link = _write_temporary(path, path.read_bytes(), stat.S_IMODE(path.stat().st_mode))
    link.replace(names[0])


def _make_dirs(path: Path) -> None:
    """Like makedirs, but every folder made is 0700 whatever the umask."""
    if not path.parent.is_dir():
        with contextlib.suppress(FileExistsError):
            _make_dirs(path.parent)
    path.mkdir(mode=0o700)
    path.chmod(0o700)


def _open_private(path: Path) -> int:
    fd = _open_checked(path, os.O_RDONLY | os.O_NOFOLLOW, forbidden=0o077, mend="chmod 600")
    folder = os.stat(path.parent)  # noqa: PTH116 - as the kernel follows it
    if (
        folder.st_mode & 0o022 and not folder.st_mode & stat.S_ISVTX
    ):  # another's file may be moved to this name
        os.close(fd)
        raise FileRefused(
            f"folder {path.parent} is writable to others (mode {stat.S_IMODE(folder.st_mode):04o})",
            path=str(path),
            hint=f"chmod go-w {_q(path.parent)}",
        )
    return fd


def _open_checked(path: Path, flags: int, *, forbidden: int, mend: str, root_too: bool = False) -> int:
    """Open first, then judge what was opened: nobody can exchange it in between. O_NONBLOCK: a pipe must not hang."""
    try:
        fd = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _refused_open(path, error) from None
    try:
        _check(os.fstat(fd), path, forbidden=forbidden, mend=mend, root_too=root_too)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check(info: os.stat_result, path: Path, *, forbidden: int, mend: str, root_too: bool) -> None:
    if not stat.S_ISREG(info.st_mode):
        raise FileRefused(f"{path} is not a regular file", path=str(path))
    _check_owner(info, path, root_too=root_too)
    if info.st_mode & forbidden:
        what = "writable" if forbidden == 0o022 else "open"
        raise FileRefused(
            f"{path} is {what} to others (mode {stat.S_IMODE(info.st_mode):04o})",
            path=str(path),
            hint=f"{mend} {_q(path)}",
        )


def _check_owner(info: os.stat_result, path: Path, *, root_too: bool) -> None:
    uid = os.geteuid()
    if info.st_uid == uid or (root_too and info.st_uid == 0):
        return
    raise FileRefused(
        f"{path} belongs to user id {info.st_uid}, not to us ({uid})",
        path=str(path),
        hint=f"sudo chown {uid} {_q(path)}",
    )


def _refused_open(path: Path, error: OSError) -> FileRefused:
    if isinstance(error, FileNotFoundError):
        if path.is_symlink():  # somebody meant there to be a file: as good as one that does not read
            hint = f"ls -l {_q(path)}"
            return FileRefused(f"{path} is a link to what does not exist", path=str(path), hint=hint)
        return FileRefused(f"{path} does not exist", path=str(path), missing=True)
    if path.is_symlink() and not isinstance(error, PermissionError):
        hint = f"cp -p {_q(path)} {_q(path)}.new && mv {_q(path)}.new {_q(path)}"  # the file itself, in its place
        return FileRefused(f"{path} is a symbolic link", path=str(path), hint=hint)
    return FileRefused(f"{path} cannot be read: {error.strerror}", path=str(path))


def _read(data: bytes, path: Path, limit: int) -> bytes:
    if len(data) > limit:
        raise FileRefused(f"{path} is larger than {limit} bytes", path=str(path))
    return data


def _q(path: Path) -> str:
    return shlex.quote(str(path))
