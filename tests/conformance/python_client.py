"""The Python client's side of a transcript, with its blocking and its asyncio face: the reference of what a player of
another language has to do. The actions are told in client/conformance/README.md."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
from tests.conformance.script import Script
from tests.conformance.server import FakeDaemon

from gemini_pool import AsyncPool, Pool, PoolError

# The methods that the faces have by name; what else there is goes through `call`.
NAMED = {
    "initialize": "initialize",
    "pool/acquire": "acquire",
    "pool/report": "report",
    "pool/renew": "renew",
    "pool/explain": "explain",
    "pool/token": "token",
    "pool/generate": "generate",
    "pool/quota": "quota",
    "account/pin": "pin",
    "account/unpin": "unpin",
}


def judge(script: Script, action: dict[str, Any], result: Any, error: PoolError | None) -> None:
    """Compare what an action gave with what the transcript says."""
    if "error" in action:
        assert error is not None, f"{action} succeeded with {result!r}"
        script.match(action["error"], {name: getattr(error, name) for name in action["error"]})
        assert error.hint or "hint" not in action["error"]
    elif error is not None:
        raise error
    elif "result" in action:
        script.match(action["result"], msgspec.to_builtins(result))


def arguments(script: Script, action: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    params = script.fill(action["params"])
    if (name := NAMED.get(action["call"])) is None or action["call"] == "initialize":
        return name or "call", {} if name else {"method": action["call"], "params": params}
    return name, params


class Blocking:
    """Actions with `Pool`."""

    def __init__(self, script: Script, pool: Pool) -> None:
        self.script = script
        self.pool = pool
        self.events: Any = None

    def run(self) -> None:
        with self.pool:
            for action in self.script.client:
                self.do(action)
            if self.events is not None:
                self.events.close()

    def do(self, action: dict[str, Any]) -> None:
        if "together" in action:
            with ThreadPoolExecutor() as threads:
                list(threads.map(self.do, action["together"]))
        elif "subscribe" in action:
            self.events = self.pool.events(*action["subscribe"])
        elif "event" in action:
            self.script.match(action["event"], msgspec.to_builtins(next(self.events)))
        elif "stream" in action:
            self._stream(action)
        else:
            name, given = arguments(self.script, action)
            judge(self.script, action, *self._tried(lambda: getattr(self.pool, name)(**given)))

    def _stream(self, action: dict[str, Any]) -> None:
        with self.pool.stream(**self.script.fill(action["stream"])) as stream:
            for wanted in action["chunks"]:
                self.script.match(wanted, next(stream))
            if action.get("cancel"):
                return
            rest, error = self._tried(lambda: list(stream))
            assert not rest
            judge(self.script, action, stream.result, error)

    @staticmethod
    def _tried(work: Callable[[], Any]) -> tuple[Any, PoolError | None]:
        try:
            return work(), None
        except PoolError as error:
            return None, error


class Awaiting:
    """The same with `AsyncPool`."""

    def __init__(self, script: Script, pool: AsyncPool) -> None:
        self.script = script
        self.pool = pool
        self.events: Any = None

    async def run(self) -> None:
        async with self.pool:
            for action in self.script.client:
                await self.do(action)
            if self.events is not None:
                await self.events.aclose()

    async def do(self, action: dict[str, Any]) -> None:
        if "together" in action:
            await asyncio.gather(*map(self.do, action["together"]))
        elif "subscribe" in action:
            self.events = await self.pool.events(*action["subscribe"])
        elif "event" in action:
            self.script.match(action["event"], msgspec.to_builtins(await anext(self.events)))
        elif "stream" in action:
            await self._stream(action)
        else:
            name, given = arguments(self.script, action)
            judge(self.script, action, *await self._tried(getattr(self.pool, name)(**given)))

    async def _stream(self, action: dict[str, Any]) -> None:
        async with self.pool.stream(**self.script.fill(action["stream"])) as stream:
            for wanted in action["chunks"]:
                self.script.match(wanted, await anext(stream))
            if action.get("cancel"):
                return
            rest, error = await self._tried(self._rest(stream))
            assert not rest
            judge(self.script, action, stream.result, error)

    @staticmethod
    async def _rest(stream: Any) -> list[Any]:
        return [chunk async for chunk in stream]

    @staticmethod
    async def _tried(work: Any) -> tuple[Any, PoolError | None]:
        try:
            return await work, None
        except PoolError as error:
            return None, error


async def replay(script: Script, socket: Path, face: str) -> None:
    """Play both sides: the fake daemon here, the client in a thread (blocking) or beside it."""
    patience = 0.1 if {"stage": "absent"} in script.wire else 5.0
    other = Script(script.name, script.says, [], script.client, script.values, [], {})
    async with FakeDaemon(script, socket) as fake:
        if face == "blocking":
            pool = Pool(socket, connect_s=patience, timeout_s=20.0)
            await asyncio.to_thread(Blocking(other, pool).run)
        else:
            async with asyncio.timeout(20):
                await Awaiting(other, AsyncPool(socket, connect_s=patience)).run()
        fake.check()
