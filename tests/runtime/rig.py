"""A dispatcher over the fake Google: real HTTP on loopback, real pool, broker, tokens, backends and transport."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from math import inf
from typing import Any

from gemini_poold.backends import Backend as BackendImpl
from gemini_poold.backends import build
from gemini_poold.clock import SystemClock
from gemini_poold.config import Endpoints, Gateway, Network
from gemini_poold.core.model import Account, Backend, PoolEvent, Request, Row
from gemini_poold.core.state import Pool
from gemini_poold.credentials.base import Secret, Token
from gemini_poold.fake import FakeGoogle, World
from gemini_poold.runtime.broker import Broker
from gemini_poold.runtime.dispatch import Call, Dispatcher
from gemini_poold.runtime.tokens import TokenKeeper
from gemini_poold.transport import AiohttpTransport

MODEL = "gemini-2.5-flash"
GL, CA, VX = Backend.DEVELOPER_API, Backend.CODE_ASSIST, Backend.VERTEX
HI = {"contents": [{"role": "user", "parts": [{"text": "hi there, you"}]}]}


class Rows:
    """A store that forgets."""

    async def save(self, rows: list[Row]) -> None:
        del rows

    def save_nowait(self, rows: list[Row]) -> None:
        del rows


class Login:
    """A login of the fake's: an API key, or access tokens of a person or service account."""

    client = warning = ""

    def __init__(self, world: World, name: str, kind: str) -> None:
        self.world, self.kind, self.identity = world, kind, name
        self.renewals = 0

    def warm_nowait(self) -> Token | None:
        key = self.kind == "api-key"
        return Token(Secret(self.world.key(self.identity).key), 0.0, inf) if key else self._issue()

    def _issue(self) -> Token:
        world = self.world
        caller = world.users.get(self.identity) or world.service_account(self.identity)
        token = world.issue(caller)
        return Token(Secret(token.token), token.issued_at, token.expires_at)

    async def renew(self, now: float) -> Token:
        self.renewals += 1
        warm = self.warm_nowait()
        assert warm is not None
        return warm

    def headers(self, token: Token) -> dict[str, str]:
        secret = token.value.reveal()
        return {"x-goog-api-key": secret} if self.kind == "api-key" else {"Authorization": f"Bearer {secret}"}

    def fingerprint_nowait(self) -> str:
        return ""


@dataclass
class Rig:
    fake: FakeGoogle
    broker: Broker
    dispatcher: Dispatcher
    tokens: TokenKeeper
    transport: AiohttpTransport
    backends: dict[Backend, BackendImpl]
    logins: dict[str, Login]
    clock: SystemClock
    events: list[PoolEvent] = field(default_factory=list)

    @property
    def pool(self) -> Pool:
        return self.broker.pool

    def call(
        self, body: Any = HI, *, method: str = "generateContent", surface: str = "gl", model: str = MODEL,
        wait_s: float = 0.0, version: str = "v1beta", **request: Any,
    ) -> Call:  # fmt: skip
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        asked = Request("r", model, method, **request)
        return Call(surface, method, model, raw, asked, self.clock.now() + wait_s, version=version)

    def stream_call(self, body: Any = HI, **more: Any) -> Call:
        return self.call(body, method="streamGenerateContent", **more)

    @property
    def leases(self) -> int:
        return len(self.pool.leases)

    def idle(self) -> bool:
        """No lease is out, nothing is counted as in flight."""
        return self.leases == 0 and all(m.in_flight == 0 for m in self.pool.members.values())

    def cooldowns(self) -> list[str]:
        return sorted(c.key for c in self.pool.cooldowns.active(self.clock.now()))


def accounts_of(names: Iterable[str]) -> list[Account]:
    """`key-…` on the Developer API, `user-…` on Code Assist, `robot-…` on Vertex; earlier ones preferred."""
    kinds = {
        "key": lambda n, p: Account(n, GL, priority=p),
        "user": lambda n, p: Account(n, CA, credential="oauth", priority=p, project=f"{n}-project"),
        "robot": lambda n, p: Account(
            n, VX, credential="service-account", priority=p, project=f"{n}-project"
        ),
    }
    names = list(names)
    return [kinds[n.split("-")[0]](n, len(names) - i) for i, n in enumerate(names)]


@asynccontextmanager
async def rig_of(*names: str, limits: Gateway | None = None) -> AsyncIterator[Rig]:
    """A rig whose accounts are preferred in the order given. Ends with a check that no lease was lost."""
    world = World()
    accounts = accounts_of(names)
    for account in accounts:
        match account.backend:
            case Backend.DEVELOPER_API:
                world.add_api_key(account.id)
            case Backend.CODE_ASSIST:
                world.add_user(account.id, projects=[account.project])
            case Backend.VERTEX:
                world.add_service_account(account.id, project=account.project)
    clock = SystemClock()
    async with FakeGoogle(world) as fake:
        backends = build(Endpoints(**fake.endpoints()))
        methods = {b.form: b.methods for b in backends.values()}
        pool = Pool(rng=random.Random(1).random, strategy="priority", methods=methods)
        broker = Broker(pool, clock, Rows())
        logins = {a.id: Login(world, a.id, a.credential) for a in accounts}
        pool.configure(accounts, clock.now())
        tokens = TokenKeeper(
            clock, lead_s=600, rng=random.Random(2).random,
            on_token=lambda i, t: pool.token_ready(i, clock.now(), expires_at=t.expires_at),
        )  # fmt: skip
        tokens.set_accounts(logins)
        transport = AiohttpTransport(Network(), environ={})
        dispatcher = Dispatcher(broker, tokens, backends, transport, clock=clock, limits=limits or Gateway())
        rig = Rig(fake, broker, dispatcher, tokens, transport, backends, logins, clock)
        broker.subscribe(rig.events.append)
        try:
            yield rig
        finally:
            await transport.aclose()
        assert rig.idle(), "a lease was lost"
