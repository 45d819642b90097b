"""The Live API: one connection is one account. It is given an account like any request, and holds its lease until it ends.

What was said on it cannot be said again elsewhere, so another account is tried only until Google's first word.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

import msgspec

from ..backends import Backend
from ..backends.base import OK
from ..backends.developer_api import DeveloperApi
from ..backends.vertex import Vertex
from ..clock import Clock
from ..core import model as core
from ..core.model import Kind, Outcome, Scope
from ..errors import UpstreamFailure
from ..websocket import Closed, HandshakeRefused, Message, WebSocket
from .attempts import Attempts, Call
from .broker import Broker
from .dispatch import Dispatcher
from .forward import Forwarder

_CUT = Outcome(Kind.CUT, Scope.NONE, reason="the connection broke")
_GOODBYES = frozenset({1000, 1001, 1005})
_PASSING = frozenset({1006, 1011, 1012, 1013})  # Google's own trouble
_QUOTA = ("quota", "resource_exhausted", "resource exhausted", "rate limit")


class Connecting(Protocol):
    """`transport.AiohttpTransport`, as far as this needs it."""

    async def websocket(
        self, url: str, *, headers: Mapping[str, str], connect_timeout_s: float, proxy: str = ""
    ) -> WebSocket: ...


class Session:
    """A connection to Google whose first word has come: `receive` begins with it."""

    def __init__(self, run: Attempts, socket: WebSocket | None, first: Message | Closed) -> None:
        self._run = run
        self._socket = socket
        self._first: Message | Closed | None = first
        self.account = run.account.id
        self.attempts = run.count
        self.wait_s = run.wait_s

    async def receive(self) -> Message | Closed:
        """The next of Google's messages; Closed at the end, and from then on."""
        said, self._first = self._first, None
        if said is None:
            assert self._socket is not None
            said = await self._socket.receive()
        if isinstance(said, Closed):
            self._first = said
            if self._run.lease is not None:
                self._run.settle(OK if said.code in _GOODBYES else _CUT)
        return said

    async def send(self, message: Message) -> None:
        """Raises UpstreamFailure when Google is gone: `receive` says how."""
        if self._socket is not None:
            await self._socket.send(message)

    async def aclose(self, code: int = 1000) -> None:
        """End it from this side. Safe to call again."""
        if self._run.lease is not None:
            self._run.settle(OK)
        if self._socket is not None:
            await self._socket.aclose(code)


class Live:
    """`connect` gives a Session with an account that may serve the call."""

    def __init__(
        self,
        forwarder: Forwarder,
        dispatcher: Dispatcher,
        broker: Broker,
        backends: Mapping[core.Backend, Backend],
        transport: Connecting,
        *,
        clock: Clock,
    ) -> None:
        self._forwarder = forwarder
        self._dispatcher = dispatcher
        self._broker = broker
        self._backends = backends
        self._transport = transport
        self._clock = clock

    async def connect(self, call: Call, path: str, setup: Message) -> Session:
        """Raises PoolError. A Session that is closed from its first word on says what Google has against the set-up."""
        run = Attempts(call, self._broker, self._clock, self._dispatcher.keeper)
        try:
            while True:
                if run.lease is None:
                    await run.acquire(self._backends)
                session = await self._try(run, path, setup)
                if session is not None:
                    return session
        except BaseException:
            run.abandon()
            raise

    async def _try(self, run: Attempts, path: str, setup: Message) -> Session | None:
        headers = await self._forwarder.headers(run)
        if headers is None:
            return None
        backend, limits = run.backend, self._dispatcher.limits
        assert isinstance(backend, DeveloperApi | Vertex)
        project = self._broker.pool.project_of(run.account.id)
        url = backend.socket(path, run.account)
        run.sending(url)
        try:
            socket = await self._transport.websocket(
                url, headers=headers, connect_timeout_s=limits.connect_timeout_s, proxy=run.account.proxy
            )
        except HandshakeRefused as refused:
            await self._forwarder.refused(run, refused.status, refused.headers, b"")
            return None
        except UpstreamFailure as failure:
            run.fail(backend.classify_failure(failure))
            return None
        try:
            placed = backend.placed(setup.encode() if isinstance(setup, str) else setup, run.account, project)
            await socket.send(placed.decode() if isinstance(setup, str) else placed)
            async with asyncio.timeout(limits.first_byte_timeout_s):
                first = await socket.receive()
        except (UpstreamFailure, TimeoutError):
            first = Closed(1006)
        except BaseException:
            await socket.aclose()
            raise
        if not isinstance(first, Closed):
            run.first_byte()
            return Session(run, socket, first)
        await socket.aclose()
        return self._closed(run, first)

    def _closed(self, run: Attempts, first: Closed) -> Session | None:
        """Google closed before it said anything: its trouble, the account's, or the set-up's?"""
        told = run.without_credential(first.reason.encode()).decode("utf-8", "replace")
        if any(word in told.lower() for word in _QUOTA):
            status, word = 429, "RESOURCE_EXHAUSTED"
        elif first.code in _PASSING:
            status, word = 503, "UNAVAILABLE"
        else:
            run.settle(Outcome(Kind.CLIENT, reason=told or f"closed with {first.code}"))
            return Session(run, None, Closed(first.code, told))
        body = msgspec.json.encode({"error": {"code": status, "message": told, "status": word}})
        outcome = run.backend.classify(
            status, {}, body, model=run.call.model, now=self._clock.now(), account=run.account
        )
        run.fail(outcome, status=status, body=body)
        return None


__all__ = ["Closed", "Live", "Message", "Session"]
