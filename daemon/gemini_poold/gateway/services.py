"""What the gateway needs from the rest of the daemon, and its settings as read from the configuration.

Everything is handed in by the composition root; nothing here looks anything up.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from gemini_pool import wire

from ..clock import Clock
from ..config import Config
from ..core.model import Usage
from ..runtime.dispatch import Answer, Call
from ..runtime.forward import Forwarder
from ..runtime.lending import Lender
from ..runtime.live import Live
from .auth import Handed, LocalKeys
from .meter import Meter
from .signatures import Signatures
from .tracing import Tracing

BODY_LIMIT = 110 * 1024 * 1024  # Google's own inline limit is 100 MB
# Of all bodies in the memory together: beyond it requests are shed, and the machine is left in peace.
HELD_LIMIT = 512 * 1024 * 1024
SPOOL_ABOVE = 4 * 1024 * 1024  # larger bodies go to the disk, where nobody has to decode them
SPOOL_LIMIT = 8 * 1024 * 1024 * 1024  # of all bodies on the disk together


class Streaming(Protocol):
    """A stream whose first event has come. Ends normally only after a finish marker; else raises PoolError."""

    account: str
    attempts: int
    wait_s: float

    @property
    def usage(self) -> Usage | None: ...
    @property
    def finish_reason(self) -> str: ...
    def __aiter__(self) -> AsyncIterator[bytes]: ...
    def events(self) -> AsyncIterator[bytes]: ...
    async def aclose(self) -> None: ...


class Dispatching(Protocol):
    """`runtime.dispatch.Dispatcher`, as far as surfaces use it."""

    async def unary(self, call: Call) -> Answer: ...
    async def stream(self, call: Call) -> Streaming: ...


class Listing(Protocol):
    """`gateway.models.Catalogue`, as far as surfaces use it."""

    async def models(self) -> Sequence[Mapping[str, object]]: ...


@dataclass(frozen=True, slots=True)
class Settings:
    """The part of the configuration that a request looks at. Replaced as a whole on reload."""

    max_wait_s: float = 120.0
    max_in_flight: int = 1000
    aliases: Mapping[str, str] = field(default_factory=dict)
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    body_limit: int = BODY_LIMIT
    held_limit: int = HELD_LIMIT
    spool_above: int = SPOOL_ABOVE
    spool_limit: int = SPOOL_LIMIT
    metadata_account: str = ""
    thinking: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Config) -> Settings:
        return cls(
            max_wait_s=config.selection.max_wait_s,
            max_in_flight=config.gateway.max_in_flight,
            aliases=dict(config.models.aliases),
            allowed_hosts=tuple(config.gateway.allowed_hosts),
            allowed_origins=tuple(config.gateway.allowed_origins),
            metadata_account=config.gateway.metadata_account,
            thinking=dict(config.models.thinking),
        )


@dataclass(slots=True)
class Services:
    """`status` is what `pool/status` answers; `quota` the rows of `pool/quota`; `state` one of the status's words."""

    dispatcher: Dispatching
    clock: Clock
    settings: Settings
    keys: LocalKeys
    models: Listing
    state: Callable[[], str]
    status: Callable[[], wire.StatusResult]
    quota: Callable[[], Sequence[wire.QuotaEntry]]
    meter: Meter = field(default_factory=Meter)
    signatures: Signatures = field(default_factory=Signatures)
    handed: Handed = field(default_factory=Handed)
    lender: Lender | None = None
    live: Live | None = None
    tracing: Tracing | None = None  # off, as it nearly always is
    forwarder: Forwarder | None = None  # for what is no method of a model; None: none of that is served
    spool: Path | None = None  # the folder for large bodies; None: they stay in the memory
