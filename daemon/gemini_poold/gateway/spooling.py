"""A large body on its way to the disk: read in pieces, and looked at as it goes by, so that nobody has to read it again.

What must be known of it before an account is chosen (which kept things it names, how its conversation begins, whether it
speaks of thinking) is found in windows that overlap: a name or a beginning is shorter than the overlap.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from gemini_pool.errors import PoolError

from ..files import ensure_private_dir
from ..runtime.spooled import Spooled
from ..spool import PIECE, Spool, sweep
from . import beginning, bound, thinking

if TYPE_CHECKING:
    from .exchange import Exchange

log = logging.getLogger("gemini_pool.gateway")

OVERLAP = 8 << 10  # the longest that is looked for: a list of names, 4,000 bytes
_FULL = "the bodies of the requests under way fill the room set aside for them on the disk"


def folder_in(state_dir: Path) -> Path | None:
    """The folder for large bodies, swept; None where it cannot be ours alone: they stay in the memory then."""
    folder = state_dir / "spool"  # on a disk, where a runtime folder is memory
    try:
        ensure_private_dir(folder)
    except (PoolError, OSError) as error:
        log.warning("large bodies stay in the memory: %s", error)
        return None
    sweep(folder)
    return folder


class LargeBody(Spooled):
    """A body on the disk with all that was seen of it. Fill it with `add`, then `end`."""

    def __init__(self, exchange: Exchange, folder: Path) -> None:
        super().__init__(Spool(folder), exchange.hold)
        self._exchange = exchange
        self._chunks: list[bytes] = []
        self._waiting = 0  # bytes in them
        self._before = b""  # the end of what was looked at last
        self._looked_at = 0  # bytes
        self._beginning = beginning.Watch()
        self.names: set[str] = set()
        self.thinks = False  # it says something of thinking

    @property
    def key(self) -> str:
        """As `beginning.key_of` the whole body."""
        return self._beginning.key

    async def add(self, chunk: bytes) -> None:
        """More of it. Raises PoolError when the disk has no room."""
        self._chunks.append(chunk)
        self._waiting += len(chunk)
        if self._waiting >= PIECE:
            await self._write()

    async def end(self) -> None:
        if self._waiting:
            await self._write()
        self._look(self._before, last=True)

    async def _write(self) -> None:
        size, self._waiting = self._waiting, 0
        meter, limit = self._exchange.services.meter, self._exchange.services.settings.spool_limit
        if meter.spooled_bytes + size > limit:
            raise PoolError("overloaded", _FULL)
        meter.spooled_bytes += size
        self._exchange.spooled_bytes += size
        window = b"".join((self._before, *self._chunks))
        self._chunks.clear()
        self._look(window, last=False)
        self._before = window[-OVERLAP:]
        self._looked_at += size
        await asyncio.to_thread(self.spool.append, memoryview(window)[-size:])

    def _look(self, window: bytes, *, last: bool) -> None:
        self._beginning.look(window, self._looked_at - len(self._before), last=last)
        if b'"' not in window:  # the middle of a file, as base64
            return
        self.names |= bound.named_in(window)
        self.thinks = self.thinks or thinking.says(window)
        self.look(window)


async def read(exchange: Exchange, folder: Path, begun: Iterable[bytes]) -> None:
    """The rest of a body to the disk, behind what was read of it; it is `exchange.large` then. Raises PoolError."""
    large = exchange.large = await asyncio.to_thread(LargeBody, exchange, folder)
    for chunk in begun:
        await large.add(chunk)
    async for chunk in exchange.request.content.iter_any():
        exchange.count_in(len(chunk))
        await large.add(chunk)
    await large.end()
