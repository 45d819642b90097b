"""Plays the client's side of a transcript against the real RPC server, and compares what that answers."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.conformance.script import Script
from tests.ipc.harness import MODEL, Raw, Rpc

from gemini_poold.fake import GENERATION, Fault, Match
from gemini_poold.ipc import listen
from gemini_poold.ipc.server import Server


class Player:
    """One run: a server with one account, `key-a`, and one connection to it."""

    def __init__(self, script: Script, rpc: Rpc) -> None:
        self.script = script
        self.rpc = rpc
        self.client: Raw
        self._draining: asyncio.Task[None] | None = None

    async def play(self) -> None:
        self.client = await self.rpc.connect()
        for step in self.script.wire:
            if "client" in step:
                self.client.send(self.script.fill(step["client"]))
                await self._until_heard()
            elif "server" in step:
                self.script.match(step["server"], await self.client.message())
            elif "bytes" in step:
                self.client.writer.write(step["bytes"].encode())
            else:
                await self._set(step["stage"])
        assert not self.client.messages, "the daemon said more than stands in the transcript"

    async def _until_heard(self) -> None:
        """What was sent has been looked at: a drain that follows finds the call under way."""
        for _ in range(5):
            await asyncio.sleep(0)

    async def _set(self, stage: str) -> None:
        faults = self.rpc.fake.faults
        if stage in ("stall", "cut"):
            fault = Fault.stall(after=1) if stage == "stall" else Fault.cut(after=1)
            faults.add(fault, when=Match(kind=GENERATION))
        elif stage == "busy":
            await self._make_busy()
        elif stage == "free":
            await self._settled()
            self.rpc.pool.clear_cooldown("", "")
            self.rpc.broker.changed()
        elif stage == "drain":
            await self._settled()
            self._draining = asyncio.create_task(self.rpc.server.drain(5.0))
        elif stage == "restart":
            await self._restart()
        elif stage == "hung up":
            assert await self.client.ended()
        else:
            raise AssertionError(f"no such stage: {stage}")

    async def _make_busy(self) -> None:
        """Google told to come back in 27 s: whoever asks now waits."""
        other = await self.rpc.connect()
        lease = (await other.ask(1, "pool/acquire", model=MODEL))["result"]["lease"]
        retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "27s"}
        body = {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": [retry]}}
        await other.ask(2, "pool/report", lease=lease, status=429, body=body)
        await other.close()

    async def _settled(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    async def _restart(self) -> None:
        if self._draining is not None:
            await self._draining
        await self.rpc.server.close()
        assert await self.client.ended()
        self.rpc.server = Server(self.rpc.services)
        self.rpc._stack.push_async_callback(self.rpc.server.close)
        await self.rpc.server.listen(listen.bind(self.rpc.path))
        self.client = await self.rpc.connect()


async def play(script: Script, folder: Path) -> None:
    async with Rpc(folder, "key-a") as rpc:
        await Player(script, rpc).play()
