"""One request over all of its attempts: what was asked, the lease held now, what refused it last.

`Attempts` takes a lease, ends it, and never loses it: whoever holds an `Attempts` calls `abandon` when anything but a
settled answer happens. What is sent with the lease is `dispatch.py`'s business.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ..backends import Backend, google_errors
from ..clock import Clock
from ..core import model as core
from ..core.model import Kind, Outcome, Request, Scope, Settled, Usage
from ..core.state import UnknownLease
from ..errors import PoolError
from ..log import BODIES, tell_body
from .broker import Broker
from .keeping import LeaseKeeper
from .spooled import Spooled

log = logging.getLogger("gemini_pool.dispatch")

JSON = "application/json; charset=UTF-8"
_NO_HEADERS: Mapping[str, str] = {}
_CANCELLED = Outcome(Kind.CANCELLED, reason="the client went away")
# Refusals of the broker after which the first reason is the better one: only this kind of account was left out.
_NOBODY_ELSE = frozenset({"no_account_for_model", "needs_paid", "not_found", "not_lent"})


class Trace(Protocol):
    """Who wants to be told of each step of a call (`gateway.tracing`). Nothing may come back from it, nothing raised."""

    def waited(self, wait_s: float) -> None: ...
    def sending(self, run: Attempts, url: str) -> None: ...
    def settled(self, outcome: Outcome, status: int) -> None: ...


@dataclass(slots=True)
class Call:
    """What a surface wants done. `body` is JSON in the dialect of `surface` ("gl", "ca" or "vx").

    `wait_until`: Unix, the deadline for being given an account (generating is not counted). `owner`: whose leases
    these are. `version`: of the client's URL. `headers`: of the client's, to be sent on; never credentials.

    `attempts` and `wait_s` (for an account) are kept up to date while the call runs, so that an error's answer has them.
    `trace`: nearly always None. `spooled`: the body, where it is on the disk; `body` is empty then.
    """

    surface: str
    method: str
    model: str
    body: bytes
    request: Request
    wait_until: float
    owner: str = ""
    version: str = "v1beta"
    headers: Mapping[str, str] = field(default_factory=dict)
    spooled: Spooled | None = None
    attempts: int = 0
    wait_s: float = 0.0
    trace: Trace | None = None


@dataclass(slots=True)
class Answer:
    """A whole answer in the surface's dialect; Google's own 4xx for the client's fault included."""

    status: int
    body: bytes
    account: str
    attempts: int
    wait_s: float
    usage: Usage | None = None
    finish_reason: str = ""
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


class ClientFault(PoolError):
    """Google says that the request itself is wrong. `answer` is what Google said, for the client to read."""

    def __init__(self, message: str, answer: Answer) -> None:
        super().__init__("bad_request", message, account=answer.account)
        self.answer = answer


class Attempts:
    """The life of one call. `lease` is None whenever none is held."""

    __slots__ = (
        "_broker", "_clock", "_keeper", "account", "backend", "between", "call", "cleaned", "count", "credential", "emptied", "first_byte_s",
        "generation", "lease", "refused", "renewed", "request", "sent_at", "uncarried", "wait_s",
    )  # fmt: skip

    def __init__(self, call: Call, broker: Broker, clock: Clock, keeper: LeaseKeeper) -> None:
        self.call = call
        self.request = call.request
        self._broker = broker
        self._keeper = keeper
        self._clock = clock
        self.lease: core.Lease | None = None
        self.account: core.Account
        self.backend: Backend
        self.count = 0
        self.wait_s = 0.0
        self.sent_at = 0.0  # monotonic
        self.first_byte_s: float | None = None
        self.credential: Mapping[str, str] = _NO_HEADERS  # the header fields that were sent
        self.generation = 0  # of the token that was sent
        self.renewed = False  # this lease's token was renewed after a 401
        self.cleaned = False  # the history was cleaned after Google called a signature corrupted
        self.emptied = False  # a stream without events was repeated
        self.refused: tuple[int, str] | None = None  # Google's last refusal: status and body
        self.between = False  # an attempt is over, and the next one has not been asked for
        self.uncarried: PoolError | None = None  # why some backend cannot take the body

    async def acquire(self, backends: Mapping[core.Backend, Backend]) -> None:
        """Take a lease, waiting for it within the call's deadline. Raises PoolError."""
        began = self._clock.monotonic()
        self.between = False
        try:
            grant = await self._broker.acquire(
                self.request, owner=self.call.owner, wait_until=self.call.wait_until
            )
        except PoolError as error:
            raise self._better(error) from None
        finally:
            waited_s = self._clock.monotonic() - began
            self.wait_s += waited_s
            self.call.wait_s = self.wait_s
            if self.call.trace is not None:
                self.call.trace.waited(waited_s)
        self.lease = grant.lease
        self._keeper.hold(grant.lease)
        self.account = grant.account
        self.backend = backends[grant.account.backend]
        self.renewed = False
        self.first_byte_s = None

    def tell_body(self, what: str, body: bytes) -> None:
        """For the debug file, where somebody asked for one."""
        if BODIES.isEnabledFor(logging.DEBUG):
            tell_body(what, f"{self.account.id} {self.call.model} {self.call.method}", body)

    def without_credential(self, body: bytes) -> bytes:
        """What Google says in a refusal, safe to be told."""
        return google_errors.without(body, self.credential)

    def now(self) -> float:
        return self._clock.now()

    def sending(self, url: str) -> None:
        self.count += 1
        self.call.attempts = self.count
        if self.call.trace is not None:
            self.call.trace.sending(self, url)
        self.sent_at = self._clock.monotonic()

    def first_byte(self) -> None:
        self.first_byte_s = self._clock.monotonic() - self.sent_at

    def _better(self, error: PoolError) -> PoolError:
        if self.uncarried is not None and error.code in _NOBODY_ELSE:
            return self.uncarried
        if self.refused is not None and (error.details is None or "decision" in error.details):
            error.details = {**(error.details or {}), "status": self.refused[0], "body": self.refused[1]}
        return error

    def _take_lease(self) -> core.Lease:
        lease, self.lease = self.lease, None
        assert lease is not None
        self._keeper.let_go(lease)
        return lease

    def settle(self, outcome: Outcome, *, usage: Usage | None = None, status: int = 0) -> Settled:
        """End the lease with what came of it."""
        lease = self._take_lease()
        if self.call.trace is not None:
            self.call.trace.settled(outcome, outcome.status or status)
        try:
            return self._broker.settle(lease.id, outcome, usage=usage, first_byte_s=self.first_byte_s)
        except UnknownLease:  # it ran out meanwhile: its outcome counts as unknown, the request goes on
            log.debug("lease %s ran out before its request ended", lease.id)
            if outcome.rotate:
                self._broker.resume()
            again = self.request._replace(attempt=self.request.attempt + 1)
            return Settled(outcome.rotate, outcome.reason, again, account_id=lease.account_id)

    def fail(
        self,
        outcome: Outcome,
        *,
        status: int = 0,
        headers: Mapping[str, str] = _NO_HEADERS,
        body: bytes = b"",
    ) -> None:
        """End the lease with a refusal. Returns when another attempt is worth it, else raises PoolError."""
        status = outcome.status or status
        told = google_errors.plain(status, headers, body) if body or outcome.kind is Kind.CLIENT else b""
        self.refused = (status, told.decode("utf-8", "replace")) if body else None
        settled = self.settle(outcome, status=status)
        if outcome.kind is Kind.CLIENT:
            raise ClientFault(outcome.reason, self.answer(status, told))
        if not settled.retry or settled.request is None:
            raise self.gave_up(outcome.reason)
        self.request, self.between = settled.request, True

    def gave_up(self, reason: str) -> PoolError:
        """The error for a client when no further attempt is made."""
        details = None if self.refused is None else {"status": self.refused[0], "body": self.refused[1]}
        return PoolError(
            "upstream_error", f"{self.account.id}: {reason} (attempt {self.count})", account=self.account.id,
            hint="gemini-pool status", details=details,
        )  # fmt: skip

    def cannot_carry(self, error: PoolError) -> None:
        """This backend cannot take the body: try the others, raise `error` when there are none."""
        forms = self.request.forms - {self.backend.form}
        self.uncarried = error
        if not forms or self.request.pin or error.code != "bad_request":
            self.settle(Outcome(Kind.CLIENT, reason=error.message))
            raise error
        self._broker.release(self._take_lease().id, ended=False)
        self.between = True
        self.request = self.request._replace(forms=forms, attempt=self.request.attempt + 1)

    def abandon(self) -> None:
        """Whatever happens, no lease is lost: the client went away, or we failed."""
        if self.lease is not None:
            self.settle(_CANCELLED)
        elif self.between:
            self.between = False
            self._broker.withdraw(self.request)

    def answer(
        self, status: int, body: bytes, *, usage: Usage | None = None, finish_reason: str = ""
    ) -> Answer:
        return Answer(status, body, self.account.id, self.count, self.wait_s, usage, finish_reason)


def broken(reason: str, *, scope: Scope = Scope.ACCOUNT_MODEL) -> Outcome:
    """The outcome of an answer that is none: no JSON, no events."""
    return Outcome(Kind.TRANSIENT, scope, rotate=True, reason=reason)
