"""The short way of a small request: one write to a connection of aiohttp's pool, one read of its answer's head.

Connecting, TLS, names, keep-alive and the parser stay aiohttp's. What is left out is what its general request builds for
every call (cookies, redirects, forms, writer tasks, timers per piece), twice what sending costs. `transport.py` decides
who comes this way and turns what is raised here into ours.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from math import inf
from typing import Protocol

import aiohttp
from aiohttp import http_exceptions
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.streams import StreamReader
from multidict import CIMultiDictProxy
from yarl import URL

BODY_MAX = 1 << 16  # asyncio's own high-water mark: nobody has to wait for so little to be written
MAX_FETCH = 16 << 20
_BUFFER = 1 << 16
_SWITCHING_PROTOCOLS = 101


class NoHttp(aiohttp.ClientError):
    """The answer cannot be read as HTTP."""


class Waiting(Protocol):
    """Who waits for the network, and is told when that was too long."""

    def timed_out(self) -> None: ...


class Patience:
    """One timer for all who wait: set for the earliest end, and looked at again only when it rings.

    A timer for each piece of each stream costs more than the piece, and hardly one ever rings.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ends: dict[Waiting, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = inf

    def __len__(self) -> int:
        return len(self._ends)

    def begin(self, who: Waiting, limit_s: float) -> None:
        ends_at = self._ends[who] = self._loop.time() + limit_s
        if ends_at < self._rings_at:
            self._set(ends_at)

    def end(self, who: Waiting) -> None:
        self._ends.pop(who, None)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._ends.clear()
        self._timer, self._rings_at = None, inf

    def _set(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = at
        self._timer = self._loop.call_at(at, self._ring)

    def _ring(self) -> None:
        self._timer, self._rings_at = None, inf
        now = self._loop.time()
        for who in [who for who, ends_at in self._ends.items() if ends_at <= now]:
            del self._ends[who]
            who.timed_out()
        if self._ends:
            self._set(min(self._ends.values()))


class Place:
    """Where POSTs to one URL go, with what all of them begin with."""

    __slots__ = ("_agent", "_begin", "asked")

    def __init__(self, url: URL, session: aiohttp.ClientSession, agent: str) -> None:
        """`url`: absolute, http or https, without user and password. `agent`: our User-Agent."""
        # Only what the connector looks at: whereto, and with which TLS. It is asked again and again with the same one.
        self.asked = aiohttp.ClientRequest(
            "POST", url, session=session, loop=asyncio.get_running_loop(), ssl=True
        )
        self._begin = f"POST {url.raw_path_qs} HTTP/1.1\r\nHost: {self.asked.headers['Host']}"
        self._agent = f"User-Agent: {agent}"

    def head(self, headers: Mapping[str, str], length: int) -> bytes | None:
        """The head of a request. None: it sets a header that only the long way understands."""
        lines = [self._begin, self._agent, "Accept-Encoding: identity"]
        for name, value in headers.items():
            lowered = name.lower()
            if lowered == "user-agent":
                lines[1] = f"{name}: {value}"
            elif lowered == "accept-encoding":
                lines[2] = f"{name}: {value}"
            elif lowered in _LONG_WAY:
                return None
            else:
                lines.append(f"{name}: {value}")
        text = "\r\n".join(lines)
        # One line end is the beginning's own. A value with another one is refused on the long way.
        if text.count("\n") != len(lines) or text.count("\r") != len(lines) or "\0" in text:
            return None
        return f"{text}\r\nAccept: */*\r\nContent-Length: {length}\r\n\r\n".encode()


_LONG_WAY = frozenset(
    {"host", "accept", "content-length", "transfer-encoding", "connection", "expect", "cookie"}
)


class Readable:
    """What can be done with an answer that comes in pieces."""

    __slots__ = ()

    async def read_chunk(self) -> bytes:
        """The next piece; empty at the end."""
        raise NotImplementedError

    def at_end(self) -> bool:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def release(self) -> None:
        raise NotImplementedError

    async def read(self, limit: int = MAX_FETCH) -> bytes:
        parts: list[bytes] = []
        left = limit
        while chunk := await self.read_chunk():
            left -= len(chunk)
            if left < 0:
                parts.append(chunk[:left])
                self.close()
                break
            parts.append(chunk)
            if self.at_end():
                break
        if left >= 0:
            self.release()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def iter_chunks(self) -> AsyncIterator[bytes]:
        return _Chunks(self)


class _Chunks:
    __slots__ = ("_response",)

    def __init__(self, response: Readable) -> None:
        self._response = response

    def __aiter__(self) -> _Chunks:
        return self

    async def __anext__(self) -> bytes:
        if chunk := await self._response.read_chunk():
            return chunk
        raise StopAsyncIteration


class Exchange(Readable):
    """A request that was sent, and its answer."""

    __slots__ = ("_body", "_connection", "_failure", "_first_due", "_patience", "_protocol", "_silence_s", "_wait_s",
                 "headers", "status")  # fmt: skip

    def __init__(
        self,
        connection: Connection,
        patience: Patience,
        *,
        first_byte_s: float,
        silence_s: float,
        failure: Callable[[Exception], Exception],
    ) -> None:
        """`failure` says what to raise for an error of aiohttp's or the system's while the body is read."""
        protocol = connection.protocol
        assert protocol is not None
        self._connection = connection
        self._protocol: ResponseHandler = protocol
        self._patience = patience
        self._wait_s, self._silence_s = first_byte_s, silence_s
        self._failure = failure
        self._first_due = True
        self._body: StreamReader
        self.status = 0
        self.headers: CIMultiDictProxy[str]

    async def send(self, data: bytes) -> None:
        """Write `data` and read the answer's head. Raises aiohttp's errors; the connection is then closed."""
        protocol = self._protocol
        try:
            protocol.set_response_params(read_until_eof=True, auto_decompress=False, read_bufsize=_BUFFER)
            transport = protocol.transport
            if transport is None or transport.is_closing():
                raise aiohttp.ClientConnectionResetError("Cannot write to closing transport")
            transport.write(data)
            self._patience.begin(self, self._wait_s)
            message, body = await protocol.read()
            while 100 <= message.code <= 199 and message.code != _SWITCHING_PROTOCOLS:
                message, body = await protocol.read()
        except http_exceptions.HttpProcessingError:
            self._connection.close()
            raise NoHttp from None
        except BaseException:
            self._connection.close()
            raise
        finally:
            self._patience.end(self)
        self.status, self.headers, self._body = message.code, message.headers, body
        body.on_eof(self._connection.release)

    async def read_chunk(self) -> bytes:
        """The next piece; empty at the end."""
        body = self._body
        try:
            chunk = body.read_nowait()
            if not chunk and not body.at_eof():
                self._patience.begin(self, self._wait_s)
                try:
                    chunk = await body.readany()
                finally:
                    self._patience.end(self)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self._connection.close()
            raise self._failure(error) from None
        if self._first_due:  # from here on the shorter patience between two pieces holds
            self._first_due, self._wait_s = False, self._silence_s
        return chunk

    def at_end(self) -> bool:
        """Everything was read."""
        return self._body.at_eof()

    def close(self) -> None:
        self._connection.close()

    def release(self) -> None:
        self._connection.release()

    def timed_out(self) -> None:
        error = aiohttp.SocketTimeoutError("Timeout on reading data from socket")
        self._protocol.set_exception(error)
        if self.status:
            self._body.set_exception(error)
