"""Noticing that a watched file's content changed, however it was saved. What is done about it is not decided here.

Folders are watched, not files: a file that an editor replaces is another file afterwards. A link's target lies in a
folder that is watched, too. Events only say when to look; what counts is the digest of the content.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from pathlib import Path

from gemini_poold.files import MAX_BYTES

from .store import digest_of

# How often the watching thread wakes up. A change is seen within two of these, which keeps a save well below the
# second that users were promised; each step is a wake-up of an idle machine.
STEP_MS = 350
DEBOUNCE_MS = 500  # somebody who writes to the folder all the time may not hold back our news for longer
# Some changes make no event in the folders that are watched (a link further up was turned, a network file system).
LOOK_ANYWAY_MS = 5_000
POLL_MS = 500  # where the system gives no events
MAX_HOPS = 40

log = logging.getLogger(__name__)

Folder = tuple[str, int, int]  # path, device, inode: a folder that was removed and made again is another one


async def watch(
    paths: Iterable[Path], stop: asyncio.Event, *, known: Mapping[Path, str] | None = None
) -> AsyncIterator[set[Path]]:
    """Yield the set of paths whose content changed, files made and removed included, until `stop` is set.

    `known`: digests of what the caller has read already (a `Loaded.digest`, or `content_digest` taken before
    reading); what differs from them is yielded at once, so that no change falls between reading and watching.
    Files and folders need not exist.
    """
    watched = [Path(path) for path in paths]
    seen = {path: content_digest(path) for path in watched} | dict(known or {})
    polling = False
    while not stop.is_set():
        folders = _folders(watched)
        try:
            async with contextlib.aclosing(_looks(folders, stop, polling=polling)) as looks:
                async for _ in looks:
                    now = {path: content_digest(path) for path in watched}
                    changed = {path for path in watched if now[path] != seen[path]}
                    seen = now
                    if changed:
                        yield changed
                    if _folders(watched) != folders:
                        break
        except OSError as error:  # no watch to be had, e.g. the user's other programs took them all
            if polling:
                raise
            log.warning("cannot watch files, looking at them instead: %s", error)
            polling = True


async def _looks(
    folders: frozenset[Folder], stop: asyncio.Event, *, polling: bool
) -> AsyncGenerator[None, None]:
    """One item when the folders are being watched, and then one whenever it is time to look at the files."""
    from watchfiles import awatch

    changes = awatch(
        *(path for path, _, _ in folders),
        watch_filter=None,
        debounce=DEBOUNCE_MS,
        step=STEP_MS,
        stop_event=_Stop(stop),
        rust_timeout=LOOK_ANYWAY_MS,
        yield_on_timeout=True,
        force_polling=polling or None,  # None: the library looks at its environment variable
        poll_delay_ms=POLL_MS,
        recursive=False,
        ignore_permission_denied=True,
    )
    async with contextlib.aclosing(changes):
        # The watch is laid when the generator starts to run; a save between our last look and that instant is seen
        # by the look that follows it.
        first = asyncio.ensure_future(anext(changes, None))
        try:
            await asyncio.sleep(0)
            yield
            more = await first
        except FileNotFoundError:  # a folder went away meanwhile: the caller finds out which ones are left
            return
        finally:
            first.cancel()
            with contextlib.suppress(asyncio.CancelledError, FileNotFoundError):
                await first
        while more is not None:
            yield
            more = await anext(changes, None)


class _Stop(asyncio.Event):
    """What the watching thread asks. watchfiles sets it when it is cancelled; the caller's own event stays untouched."""

    def __init__(self, outer: asyncio.Event) -> None:
        super().__init__()
        self._outer = outer

    def is_set(self) -> bool:
        return super().is_set() or self._outer.is_set()


def content_digest(path: Path) -> str:
    """Like `digest_of`; "" when there is no file, a word when it cannot be read (reading it properly tells why)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"unreadable: {error.errno}"
    info = os.fstat(fd)
    if not stat.S_ISREG(info.st_mode):
        os.close(fd)
        return "not a file"
    with os.fdopen(fd, "rb") as file:
        if info.st_mode & 0o022 or info.st_uid not in {0, os.geteuid()}:
            return f"refused: {info.st_mode:o} {info.st_uid}"  # so that mending it is news, too
        return digest_of(file.read(MAX_BYTES))


def _folders(paths: Iterable[Path]) -> frozenset[Folder]:
    """The folders of the files and of everything that their links point to, or what exists above them."""
    found: set[Folder] = set()
    for path in paths:
        for hop in _hops(path):
            found.add(_existing(hop.parent))
    return frozenset(found)


def _hops(path: Path) -> list[Path]:
    """The path, and where its links lead, one after the other."""
    hops = [path.absolute()]
    while len(hops) < MAX_HOPS and hops[-1].is_symlink():
        target = hops[-1].parent / hops[-1].readlink()
        hops.append(Path(os.path.normpath(target.parent.resolve() / target.name)))
    return hops


def _existing(folder: Path) -> Folder:
    while True:
        try:
            info = folder.stat()
        except OSError:
            if folder == folder.parent:
                raise
            folder = folder.parent
            continue
        if stat.S_ISDIR(info.st_mode):
            return str(folder), info.st_dev, info.st_ino
        folder = folder.parent
