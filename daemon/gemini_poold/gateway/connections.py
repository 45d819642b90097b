"""HTTP connections that know whether they stand between two requests, and how they end without losing one.

A client that keeps a connection may send on it at any instant, and repeats nothing by itself if we hang up just then.
So at a stop, every answer that has not begun says `Connection: close`; what stands between two requests is given to the
successor where one can be given something, else hung up on after a while in which nothing came; and half a request is
waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from typing import Any

from aiohttp import web
from aiohttp.http import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

from ..errors import PoolError
from . import errors

LINGER_S = 0.5  # for a connection that nobody takes over
HALF_S = 3.0  # for the rest of a request's head
_LOOK_S = 0.02

Keep = Callable[[socket.socket, dict[str, Any]], bool]


class Connection(RequestHandler):
    """One connection: aiohttp's, and what that does not tell. What is no HTTP is refused in words of ours: aiohttp's
    quote what was sent, a key perhaps."""

    __slots__ = ("_half", "server")

    def __init__(self, server: Server, **options: Any) -> None:
        super().__init__(server, **options)
        self.server = server
        self._half = False  # a part of a request's head has come

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._half = self._waiter is not None and not self._messages

    @property
    def between(self) -> bool:
        """Nothing of a request has come, and every answer has left."""
        waiter, transport = self._waiter, self.transport
        return (
            waiter is not None
            and not waiter.done()
            and not self._messages
            and not self._half
            and transport is not None
            and not transport.is_closing()
            and transport.get_write_buffer_size() == 0
        )

    @property
    def half(self) -> bool:
        """The rest of a request's head is still to come."""
        return self._half and self._waiter is not None and not self._waiter.done()

    def give(self, keep: Keep) -> bool:
        """Hand the socket on, as it is, and let go of it; False when it is not taken."""
        assert self.transport is not None
        sock = socket.socket(fileno=os.dup(self.transport.get_extra_info("socket").fileno()))
        if not keep(sock, {}):
            sock.close()
            return False
        self.force_close()
        return True

    def hang_up(self) -> bool:
        """Close, unless something has just come."""
        assert self.transport is not None
        sock = self.transport.get_extra_info("socket")
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(sock.fileno())) as other:
            other.setblocking(False)
            if other.recv(1, socket.MSG_PEEK):
                return False
        self.force_close()
        return True

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        super().handle_error(request, status, exc, message)  # for its line in the log
        code = "bad_request" if status < 500 else "internal"
        said = (
            "the request is no HTTP/1.1 that can be served" if status < 500 else "gemini-pool failed inside"
        )
        rendered = errors.render(errors.Shape.GOOGLE, PoolError(code, said), 0.0)
        answer = web.Response(body=rendered.body, status=rendered.status, headers=rendered.headers)
        answer.force_close()
        return answer


class Request(web.BaseRequest):
    """aiohttp's, whose connection ends with it when the daemon does."""

    @property
    def keep_alive(self) -> bool:
        connection = self._protocol
        assert isinstance(connection, Connection)
        return not (self._message.should_close or connection.server.draining)


class Server(web.Server):
    """Makes these connections. `draining`: answers that begin from now on are the last ones of theirs."""

    def __init__(self, handler: Any, **options: Any) -> None:
        super().__init__(handler, request_factory=self._request, **options)
        self.draining = False

    def __call__(self) -> RequestHandler:
        return Connection(self, loop=self._loop, **self._kwargs)

    async def adopt(self, sock: socket.socket) -> None:
        """Serve a connection that our predecessor left between two requests."""
        await self._loop.connect_accepted_socket(self, sock)

    def _request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: Any,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        return Request(message, payload, protocol, writer, task, self._loop)


async def drain(servers: list[Server], grace_s: float, keep: Keep | None) -> None:
    """Let every connection come to its end, for `grace_s` at most. `keep` takes those that need none."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    idle_since: dict[Connection, float] = {}
    for server in servers:
        server.draining = True
    while (now := loop.time()) < began + grace_s:
        connections = [c for server in servers for c in server.connections if isinstance(c, Connection)]
        left = False
        for connection in connections:
            if connection.between:
                since = idle_since.setdefault(connection, now)
                if keep is not None and connection.give(keep):
                    continue
                left |= now - since < LINGER_S or not connection.hang_up()
            else:
                idle_since.pop(connection, None)
                left |= not connection.half or now - began < HALF_S
        if not left:
            return
        await asyncio.sleep(_LOOK_S)
