"""One request as the fake sees it: where it goes, who asks, what happened to it. Shared by all surfaces."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from .envelope import Refused, Reply, loads
from .refusals import invalid_argument

if TYPE_CHECKING:
    from .stream import Generation
    from .world import Caller

Answer: TypeAlias = "Reply | Generation"
Handler: TypeAlias = "Callable[[Call], Answer]"


@dataclass(slots=True)
class Place:
    """What a path leads to. `kind` names the endpoint for faults and records, `params` the rest of the path."""

    kind: str
    backend: str  # oauth, gl, ca, vx
    handler: Handler
    identify: Callable[[Call], Caller | None] | None = None
    model: str = ""
    params: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Call:
    """A request on its way through; kept in the record afterwards, so tests assert on it."""

    number: int  # 1 is the first
    at: float
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    connection: int
    place: Place | None = None
    caller: Caller | None = None
    model: str = ""
    status: int = 0  # what was answered; 0 = nothing yet, or the connection was broken before any
    fault: str = ""
    chunks: int = 0  # events of a stream that went out
    gone: bool = False  # the client left before the end
    done: bool = False

    @property
    def kind(self) -> str:
        return self.place.kind if self.place else ""

    @property
    def backend(self) -> str:
        return self.place.backend if self.place else ""

    @property
    def credential(self) -> str:
        """The caller's name in the world ("" when nobody known asks)."""
        return self.caller.name if self.caller else ""

    def json(self) -> Any:
        """The body decoded; Refused with 400 when it is no JSON object."""
        try:
            value = loads(self.body) if self.body else {}
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as bad:
            raise Refused(invalid_argument(f"Invalid JSON payload received. {bad}")) from bad
        if not isinstance(value, dict):
            raise Refused(invalid_argument("Invalid JSON payload received. Unexpected token."))
        return value
