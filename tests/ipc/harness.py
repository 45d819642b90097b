"""The real RPC server over the real pool, broker, store, tokens and dispatcher, with a Google of our own behind it.

`async with Rpc(tmp_path) as rpc:` serves on a socket in `tmp_path`; accounts are API keys named in the call.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec

from gemini_pool import framing, wire
from gemini_poold import backends
from gemini_poold.clock import SystemClock
from gemini_poold.config import Config, Endpoints
from gemini_poold.core.model import Account, Backend
from gemini_poold.core.quota import Quotas
from gemini_poold.core.state import Pool
from gemini_poold.credentials.api_key import ApiKey
from gemini_poold.fake import FakeGoogle, World
from gemini_poold.ipc import listen
from gemini_poold.ipc.server import Server
from gemini_poold.ipc.services import Services
from gemini_poold.runtime.broker import Broker
from gemini_poold.runtime.dispatch import Dispatcher
from gemini_poold.runtime.poller import Poller
from gemini_poold.runtime.tokens import TokenKeeper
from gemini_poold.store import Store
from gemini_poold.transport import AiohttpTransport

MODEL = "gemini-3-flash-preview"


class Key:
    """A secret's place that holds a key in memory."""

    described = place = "memory"
    can_write = False

    def __init__(self, name: str) -> None:
        self.place = f"memory {name}"
        self._key = f"fake-key-{name}".encode()

    def read_nowait(self) -> bytes:
        return self._key

    async def read(self) -> bytes:
        return self._key

    def fingerprint_nowait(self) -> str:
        return ""


class Rpc:
    """One server. `accounts`: ids of API keys, or whole accounts; all lend their secrets unless they say otherwise."""

    def __init__(
        self, folder: Path, *accounts: str | Account, config: Config | None = None, **server: Any
    ) -> None:
        self.folder = folder
        self.path = folder / "run" / "pool.sock"
        self.use_path = folder / "run" / "pool-use.sock"
        self.accounts = [
            Account(a, Backend.DEVELOPER_API, lend=True) if isinstance(a, str) else a
            for a in accounts or ("key-a", "key-b")
        ]
        self.world = World()
        for account in self.accounts:
            self.world.add_api_key(account.id)
        self.fake = FakeGoogle(self.world)
        self.clock = SystemClock()
        self.config = config or Config()
        self.reloads = 0
        self._server_options = server
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Rpc:
        await self._stack.enter_async_context(self.fake)
        self.config = msgspec.structs.replace(self.config, endpoints=Endpoints(**self.fake.endpoints()))
        self.store = Store.open(self.folder / "state.db", self.clock)
        self._stack.push_async_callback(self.store.close)
        transport = AiohttpTransport(self.config.network)
        self._stack.push_async_callback(transport.aclose)
        ways = backends.build(self.config.endpoints)
        self.pool = Pool(
            strategy="least-used",
            rng=lambda: 0.5,
            prefix="t-",
            methods={backend.form: backend.methods for backend in ways.values()},
        )
        self.broker = Broker(self.pool, self.clock, self.store)
        self.tokens = TokenKeeper(self.clock, lead_s=600, rng=lambda: 0.5, on_token=self._warm)
        self.configure(*self.accounts)
        dispatcher = Dispatcher(
            self.broker, self.tokens, ways, transport, clock=self.clock, limits=self.config.gateway
        )
        poller = Poller(
            self.broker,
            self.tokens,
            ways[Backend.CODE_ASSIST],
            transport,
            quotas=Quotas(),
            clock=self.clock,
            rng=lambda: 0.5,
            interval_s=300,
        )
        self.services = Services(
            broker=self.broker,
            tokens=self.tokens,
            dispatcher=dispatcher,
            poller=poller,
            backends=ways,
            clock=self.clock,
            config=lambda: self.config,
            info=self.info,
            reload=self.reload,
            state=lambda: "ready",
        )
        self.server = Server(self.services, **self._server_options)
        await self.server.listen(listen.bind(self.path))
        await self.server.listen(listen.bind(self.use_path), "use")
        self._stack.push_async_callback(self.server.close)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    def configure(self, *accounts: Account) -> None:
        self.pool.configure(accounts, self.clock.now())
        self.tokens.set_accounts({account.id: ApiKey(Key(account.id), account.id) for account in accounts})
        self.broker.changed()

    def _warm(self, account_id: str, token: Any) -> None:
        self.pool.token_ready(account_id, self.clock.now(), expires_at=token.expires_at)

    def info(self) -> wire.DaemonInfo:
        return wire.DaemonInfo(
            version=wire.VERSION,
            protocol=wire.PROTOCOL,
            pid=os.getpid(),
            python="3",
            started_at=0.0,
            uptime_s=1.0,
            config_file="",
            accounts_file="",
            state_dir=str(self.folder),
            socket=str(self.path),
            gateway_socket="",
            gateway_url="",
            gateway_error="",
            supervised="",
        )

    async def reload(self) -> wire.ReloadResult:
        self.reloads += 1
        return wire.ReloadResult([], [], [], len(self.accounts), [], [], [])

    async def connect(self, path: Path | None = None) -> Raw:
        raw = Raw(*await asyncio.open_unix_connection(path or self.path, limit=2**26))
        self._stack.push_async_callback(raw.close)
        return raw


class Raw:
    """A client that speaks bytes: what it sends is what the test wrote."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.decoder = framing.Decoder()
        self.messages: list[dict[str, Any]] = []

    def send(self, *messages: Any, line: bool = False) -> None:
        """Send these in one packet."""
        kind = framing.LINE if line else framing.HEADER
        self.writer.write(b"".join(framing.encode(msgspec.json.encode(m), kind) for m in messages))

    def request(self, ident: Any, verb: str, /, **params: Any) -> dict[str, Any]:
        return {"jsonrpc": "2.0", "id": ident, "method": verb, "params": params}

    async def ask(self, ident: Any, verb: str, /, *, line: bool = False, **params: Any) -> dict[str, Any]:
        self.send(self.request(ident, verb, **params), line=line)
        return await self.reply(ident)

    async def message(self) -> dict[str, Any]:
        """The next message; raises EOFError when the server has hung up."""
        async with asyncio.timeout(20):
            while not self.messages:
                data = await self.reader.read(2**20)
                if not data:
                    raise EOFError
                self.messages.extend(msgspec.json.decode(m) for m in self.decoder.feed(data))
        return self.messages.pop(0)

    async def reply(self, ident: Any) -> dict[str, Any]:
        """The reply to that request; others stay in line."""
        passed = []
        while True:
            message = await self.message()
            if "method" not in message and message.get("id") == ident:
                self.messages[:0] = passed
                return message
            passed.append(message)

    async def ended(self) -> bool:
        """Wait for the server to hang up; whatever comes before is dropped."""
        try:
            while True:
                await self.message()
        except (EOFError, ConnectionError):
            return True

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except (BrokenPipeError, ConnectionError):
            pass
