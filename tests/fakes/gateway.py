"""A real `Gateway` on loopback over a scripted dispatcher: for tests of surfaces and relay, where the script says what
the pool would have done. The dispatcher itself is tested in tests/runtime, both together in tests/e2e.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from gemini_pool import wire
from gemini_poold.clock import SystemClock
from gemini_poold.gateway.app import Gateway
from gemini_poold.gateway.auth import LocalClient, LocalKeys
from gemini_poold.gateway.services import Services, Settings
from gemini_poold.runtime.dispatch import Answer, Call

KEY = "fake-key-local"
ANSWER = b'{"candidates":[{"content":{"parts":[{"text":"hi"}]},"finishReason":"STOP"}]}'


@dataclass
class ScriptedStream:
    """Yields `blocks`; a block that is an exception is raised, one that is an Event is waited for."""

    blocks: Sequence[Any]
    account: str = "a"
    attempts: int = 1
    wait_s: float = 0.0
    usage: Any = None
    finish_reason: str = "STOP"
    closed: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for block in self.blocks:
            if isinstance(block, Exception):
                raise block
            if isinstance(block, asyncio.Event):
                await block.wait()
            else:
                yield block

    async def events(self) -> AsyncIterator[bytes]:
        async for block in self:
            for event in block.split(b"\n\n"):
                if event:
                    yield event.removeprefix(b"data: ")

    async def aclose(self) -> None:
        self.closed = True
        self.ended.set()


@dataclass
class ScriptedDispatcher:
    """Answers every call with `answer` or `streams`: a value, an exception, or a function of the call."""

    answer: Any = None
    streams: Any = None
    calls: list[Call] = field(default_factory=list)

    async def unary(self, call: Call) -> Answer:
        return await self._say(call, self.answer)

    async def stream(self, call: Call) -> ScriptedStream:
        return await self._say(call, self.streams)

    async def _say(self, call: Call, said: Any) -> Any:
        self.calls.append(call)
        if isinstance(said, Exception):
            raise said
        if callable(said):
            said = said(call)
        return await said if isinstance(said, Awaitable) else said

    @property
    def call(self) -> Call:
        """The only call so far."""
        assert len(self.calls) == 1
        return self.calls[0]


@dataclass
class FixedModels:
    names: Sequence[str] = ("gemini-2.5-flash", "gemini-2.5-pro")

    async def models(self) -> list[dict[str, object]]:
        return [{"name": f"models/{name}", "version": "001"} for name in self.names]


@dataclass
class Site:
    """A running gateway and a client of it."""

    gateway: Gateway
    dispatcher: ScriptedDispatcher
    http: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return self.gateway.url

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def post(self, path: str, body: bytes = b"{}", **headers: str) -> Any:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.post(self.url + path, data=body, headers={"x-goog-api-key": KEY, **named})

    def get(self, path: str, **headers: str) -> Any:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.get(self.url + path, headers={"x-goog-api-key": KEY, **named})


def answered(body: bytes = ANSWER, status: int = 200, **fields: Any) -> Answer:
    values = {"content_type": "application/json", "account": "a", "attempts": 1, "wait_s": 0.0, **fields}
    return Answer(status=status, body=body, **values)


def status_of(state: str = "ready", accounts: Sequence[wire.AccountInfo] = ()) -> wire.StatusResult:
    return wire.StatusResult(
        version="0",
        protocol=1,
        uptime_s=1.5,
        state=state,
        accounts=list(accounts),
        model_cooldowns=[],
        counters=wire.Counters(**dict.fromkeys(wire.Counters.__struct_fields__, 7)),
        leases=[],
        queue=wire.QueueInfo(waiting=3, oldest_s=0.5),
        quota=[],
        clients=[],
        config_errors=[],
        gateway_url="",
        gateway_error="",
    )


@asynccontextmanager
async def gateway_site(
    dispatcher: ScriptedDispatcher | None = None,
    *,
    settings: Settings | None = None,
    keys: LocalKeys | None = None,
    socket_path: Path | None = None,
    listen: tuple[str, int] | None = ("127.0.0.1", 0),
    tcp: Sequence[socket.socket] = (),
    unix: Sequence[socket.socket] = (),
    state: Callable[[], str] = lambda: "ready",
    quota: Sequence[wire.QuotaEntry] = (),
    clock: Any = None,
) -> AsyncIterator[Site]:
    dispatcher = dispatcher or ScriptedDispatcher(answer=answered())
    services = Services(
        dispatcher=dispatcher,
        clock=clock or SystemClock(),
        settings=settings or Settings(),
        keys=keys or LocalKeys([(LocalClient("default"), KEY)]),
        models=FixedModels(),
        state=state,
        status=lambda: status_of(state()),
        quota=lambda: quota,
    )
    gateway = Gateway(services)
    await gateway.start(listen=listen, socket_path=socket_path, tcp=tcp, unix=unix)
    async with aiohttp.ClientSession(auto_decompress=False) as http:
        try:
            yield Site(gateway, dispatcher, http)
        finally:
            await gateway.stop(0.0)
