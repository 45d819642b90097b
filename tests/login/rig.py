"""A daemon's inside for tests of logins and accounts: real file, secrets, lifecycle and HTTP, against the fake Google.

`Desk` is what an app wires together; `Browser` is a person with a browser who does what Google's page says.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from gemini_pool import wire
from gemini_poold.accounts.store import AccountsFile
from gemini_poold.backends import build
from gemini_poold.clock import SystemClock
from gemini_poold.config import Endpoints, Network
from gemini_poold.core.model import Row
from gemini_poold.core.state import Pool
from gemini_poold.credentials.base import Context
from gemini_poold.fake import FakeGoogle, World
from gemini_poold.login.accounts import AccountAdmin
from gemini_poold.login.examine import Examiner, Running
from gemini_poold.login.keeping import Keeper
from gemini_poold.login.login import Login
from gemini_poold.runtime.broker import Broker
from gemini_poold.runtime.lifecycle import Lifecycle
from gemini_poold.runtime.setup import Setup
from gemini_poold.transport import AiohttpTransport


class Rows:
    """A store that forgets."""

    async def save(self, rows: list[Row]) -> None:
        del rows

    def save_nowait(self, rows: list[Row]) -> None:
        del rows


class Desk:
    """Everything that the verbs of people need."""

    def __init__(self, fake: FakeGoogle, folder: Path, *, environ: dict[str, str] | None = None) -> None:
        self.fake, self.folder, self.clock = fake, folder, SystemClock()
        self.state_dir = folder / "state"
        self.state_dir.mkdir(mode=0o700)
        self.path = folder / "accounts.toml"
        self.environ = {"HOME": str(folder / "home"), **(environ or {})}
        self.pool = Pool(rng=random.Random(1).random)
        self.broker = Broker(self.pool, self.clock, Rows())
        self.transport = AiohttpTransport(Network(), environ={})
        endpoints = Endpoints(**fake.endpoints())
        context = Context(self.transport, endpoints, self.clock, self.state_dir, self.environ)
        setup = Setup(self.transport, endpoints, self.clock)
        self.lifecycle = Lifecycle(self.broker, setup, context, clock=self.clock, rng=lambda: 0.0)
        self.file = AccountsFile(self.path)
        self.keeper = Keeper(self.file, lambda: self.lifecycle.context, self.reload)
        self.running = Running(self.broker, self.lifecycle, setup, build(endpoints), self.clock)
        self.examiner = Examiner(self.running)
        self.login = Login(self.keeper, self.running, self.examiner)
        self.accounts = AccountAdmin(self.keeper, self.running, self.examiner)
        self.events: list[str] = []
        self.broker.subscribe(lambda event: self.events.append(event.text))

    async def reload(self) -> None:
        self.lifecycle.apply(self.file.read().entries)

    @property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8") if self.path.exists() else ""

    def write(self, text: str) -> None:
        """The user edits the file and the daemon sees it."""
        self.path.write_text(text, encoding="utf-8")
        self.lifecycle.apply(self.file.read().entries)

    def secret(self, name: str) -> Any:
        return json.loads((self.state_dir / "secrets" / name).read_bytes())

    def client(self, name: str = "own") -> dict[str, Any]:
        """The JSON of an OAuth client, as Google's console hands it out."""
        world = self.fake.world
        known = next((c for c in world.clients.values() if c.id == f"fake-client-{name}.example"), None)
        return world.client_file(known or world.add_client(name))

    async def begin(self, account: str = "work", **more: Any) -> wire.LoginStarted:
        more.setdefault("client_secrets", self.client())
        return await self.login.start(wire.LoginParams(account, **more))

    async def finish(self, started: wire.LoginStarted, code: str = "") -> wire.LoginResult:
        async with asyncio.timeout(20):
            return await self.login.finish(wire.LoginFinishParams(started.login, code))

    async def log_in(self, account: str = "work", **more: Any) -> wire.LoginResult:
        """The whole way through a browser."""
        started = await self.begin(account, **more)
        await Browser.visit(started.url)
        return await self.finish(started)

    def written(self) -> Iterator[tuple[Path, str]]:
        """Every file in the folder, and its text."""
        for path in sorted(self.folder.rglob("*")):
            if path.is_file():
                yield path, path.read_text(encoding="utf-8", errors="replace")


class Browser:
    """A person's browser."""

    @staticmethod
    async def consent(url: str) -> str:
        """Open the address and do what the page wants; where Google sends the browser to."""
        async with aiohttp.ClientSession() as session, session.get(url, allow_redirects=False) as reply:
            assert reply.status == 302, await reply.text()
            return reply.headers["Location"]

    @staticmethod
    async def get(url: str, method: str = "GET") -> tuple[int, str]:
        async with aiohttp.ClientSession() as session, session.request(method, url) as reply:
            return reply.status, await reply.text()

    @classmethod
    async def visit(cls, url: str) -> tuple[int, str]:
        """Consent, and follow the redirect to us."""
        return await cls.get(await cls.consent(url))


@asynccontextmanager
async def desk_of(
    folder: Path, world: World | None = None, *, environ: dict[str, str] | None = None
) -> AsyncIterator[Desk]:
    """A desk whose lifecycle runs."""
    folder.chmod(0o700)
    async with FakeGoogle(world) as fake:
        desk = Desk(fake, folder, environ=environ)
        tasks = [asyncio.create_task(run) for run in (desk.lifecycle.tokens.run(), desk.lifecycle.run())]
        try:
            yield desk
        finally:
            await desk.login.aclose()
            for task in tasks:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            await desk.transport.aclose()


def secrets_of(fake: FakeGoogle) -> list[str]:
    """Everything in the fake's world that must be nowhere else: tokens, codes, keys, client secrets."""
    world = fake.world
    found = [*world.grants, *world.tokens, *world.keys, *(client.secret for client in world.clients.values())]
    return [*found, "4/fake-code-"]
