"""What the RPC verbs need from the rest of the daemon. The composition root fills it in; nothing here looks anything up."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from gemini_pool import wire

from ..backends.base import Backend
from ..clock import Clock
from ..config import Config
from ..core import model as core
from ..core.quota import Quotas
from ..runtime.broker import Broker
from ..runtime.dispatch import Answer, Call
from ..runtime.tokens import Need
from .requests import OpenRequests

if TYPE_CHECKING:
    from .accounts import Managing


class Client(NamedTuple):
    """One connection, as status shows it. `owner` is what its leases are held under."""

    owner: str
    name: str
    version: str
    pid: int
    connected_at: float
    in_flight: int


class Lending(Protocol):
    """`runtime.tokens.TokenKeeper`, as far as verbs use it. Headers and values never go into a log or an error."""

    def headers_nowait(self, account_id: str) -> dict[str, str] | None: ...
    def token_nowait(self, account_id: str, now: float) -> Token | None: ...
    def generation(self, account_id: str) -> int: ...
    async def renew(self, account_id: str, reason: Need = ..., *, generation: int | None = None) -> Token: ...
    def info(self, account_id: str) -> wire.TokenInfo: ...


class Revealing(Protocol):
    def reveal(self) -> str: ...


class Token(Protocol):
    """`credentials.base.Token`."""

    @property
    def value(self) -> Revealing: ...
    @property
    def issued_at(self) -> float: ...
    @property
    def expires_at(self) -> float: ...


class Streaming(Protocol):
    """A stream whose first event has come. Ends normally only after a finish marker; else raises PoolError."""

    account: str

    @property
    def usage(self) -> core.Usage | None: ...
    @property
    def finish_reason(self) -> str: ...
    def events(self) -> AsyncIterator[bytes]: ...
    async def aclose(self) -> None: ...


class Dispatching(Protocol):
    """`runtime.dispatch.Dispatcher`, as far as verbs use it."""

    async def unary(self, call: Call) -> Answer: ...
    async def stream(self, call: Call) -> Streaming: ...


class Polling(Protocol):
    """`runtime.poller.Poller`, as far as verbs use it. `errors`: why asking failed, by account id."""

    quotas: Quotas
    errors: dict[str, str]

    async def poll_now(self, account_id: str) -> str: ...


@dataclass(slots=True)
class Services:
    """`config`: the one in force. `state`: a word of the status. `clients`: who is connected, set by the server itself. `managing`:
    who adds, removes and logs in accounts, made when it is first asked for."""

    broker: Broker
    tokens: Lending
    dispatcher: Dispatching
    poller: Polling
    backends: Mapping[core.Backend, Backend]
    clock: Clock
    config: Callable[[], Config]
    info: Callable[[], wire.DaemonInfo]
    reload: Callable[[], Coroutine[None, None, wire.ReloadResult]]
    state: Callable[[], str]
    config_errors: Callable[[], Sequence[wire.ConfigError]] = tuple
    clients: Callable[[], Sequence[Client]] = tuple
    requests: OpenRequests = field(default_factory=OpenRequests)
    managing: Callable[[], Managing] | None = None
