"""A call's body on the disk, with what choosing and sending must know of it, seen in passing while it was written.

It goes to Google in pieces, as often as attempts are made, as long as a backend takes it as it came. Where a backend must
decode it, it comes into the memory whole, once, under the limit that all bodies in the memory have together.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable

from ..errors import PoolError
from ..spool import Spool
from .origins import digests

_CANDIDATES = re.compile(rb'"candidate(?:Count|_count)"\s*:\s*(\d{1,4})')


class Spooled:
    """`hold`: makes room in the memory for so many bytes, or raises PoolError."""

    def __init__(self, spool: Spool, hold: Callable[[int], None]) -> None:
        self.spool = spool
        self.candidates = 1
        self.signatures: set[bytes] = set()
        self._hold = hold
        self._whole: bytes | None = None

    @property
    def size(self) -> int:
        return self.spool.size

    def look(self, window: bytes) -> None:
        """A part of the body, which overlaps those before and after it."""
        if b"candidate" in window:
            self.candidates = max(self.candidates, *map(int, _CANDIDATES.findall(window)), 1)
        if b"hought" in window:
            self.signatures.update(digests(window))

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body in pieces, from its beginning."""
        offset = 0
        while offset < self.size:
            piece = await asyncio.to_thread(self.spool.read, offset)
            if not piece:  # closed: the request is over, and this attempt with it
                raise ConnectionError("the body is gone")
            offset += len(piece)
            yield piece

    async def whole(self) -> bytes:
        """The body in the memory. Raises PoolError `overloaded` when there is no room for it."""
        if self._whole is None:
            self._hold(self.size)
            self._whole = await asyncio.to_thread(self._read)
        return self._whole

    def close(self) -> None:
        self.spool.close()
        self._whole = None

    def _read(self) -> bytes:
        found = self.spool.read(0, self.size)
        parts, size = [found], len(found)
        while size < self.size:
            if not (found := self.spool.read(size, self.size - size)):
                raise PoolError("internal", "a body on the disk is shorter than it was")
            parts.append(found)
            size += len(found)
        return b"".join(parts) if len(parts) > 1 else parts[0]
