"""The pool in a running process: asks it, waits for it, writes down what must survive, tells what happened.

`Broker` is the only holder of `core.state.Pool`; surfaces and drivers go through it. Who waits, and in which order, is
`core.queue`'s business; here it is woken, at the instant it names or by a change of the pool.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from typing import Protocol

from gemini_pool.errors import PoolError

from ..clock import Clock
from ..core.model import Grant, Lease, Outcome, PoolEvent, Refusal, Request, Row, Settled, Usage, Wait
from ..core.queue import Line, Queue, Waiter
from ..core.state import Pool, UnknownLease

log = logging.getLogger("gemini_pool.pool")
# Google says no more than "not found" to whoever has not been let in.
PREVIEW_HINT = "a preview model may have to be enabled first: https://goo.gle/enable-preview-features"
_PREVIEW = re.compile(r"\bgemini[ -]?3", re.IGNORECASE)
_FLUSH_S = 1.0  # counters alone may be this much behind on the disk
_LONGEST_NAP_S = 30.0
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

Listener = Callable[[PoolEvent], None]


class RowStore(Protocol):
    """Where rows are kept (store.Store)."""

    async def save(self, rows: list[Row]) -> None: ...

    def save_nowait(self, rows: list[Row]) -> None: ...


class Broker:
    """Leases for everybody, in the order they came."""

    def __init__(self, pool: Pool, clock: Clock, store: RowStore) -> None:
        self.pool = pool
        self._clock = clock
        self._store = store
        self._queue = Queue(pool)
        self._timer: asyncio.TimerHandle | None = None
        self._flush: asyncio.TimerHandle | None = None
        self._listeners: list[Listener] = []

    # ---- leases ----------------------------------------------------------------------------------------------

    def acquire_nowait(
        self, request: Request, *, owner: str = "", detached: bool = False
    ) -> Grant | Wait | Refusal:
        """A lease now, or when, or why not. Whoever waits for the model already goes first."""
        return self._queue.ask(request, self._clock.now(), owner=owner, detached=detached)

    async def acquire(
        self, request: Request, *, owner: str = "", wait_until: float, detached: bool = False
    ) -> Grant:
        """A lease, waiting for one until `wait_until` (Unix). Cancelling gives the place in the queue free at once.

        Raises PoolError: `all_cooling_down` (with `retry_at` and the account that returns first) as soon as it is
        clear that nobody returns in time, or the word of the pool's refusal. The request then counts as failed.
        """
        try:
            return await self._acquire(request, owner, wait_until, detached)
        except PoolError:
            self.give_up(request)
            raise

    async def _acquire(self, request: Request, owner: str, wait_until: float, detached: bool) -> Grant:
        decision = self.acquire_nowait(request, owner=owner, detached=detached)
        self._after()
        match decision:
            case Grant():
                return decision
            case Refusal():
                raise refused(decision)
        # Nobody is named where the queue alone stands before it: it takes its place, and is served or refused in order.
        if decision.account_id and decision.until > min(wait_until, self._queue.ends_at):
            raise self._in_vain(request, decision, wait_until)
        return await self._wait(Waiter(request, owner, wait_until, self._clock.now(), detached))

    def settle(
        self,
        lease_id: str,
        outcome: Outcome,
        *,
        usage: Usage | None = None,
        first_byte_s: float | None = None,
    ) -> Settled:
        """End a lease. What a crash must not lose is on its way to the disk when this returns."""
        settled = self.pool.settle(
            lease_id, outcome, self._clock.now(), usage=usage, first_byte_s=first_byte_s
        )
        self.changed()
        return settled

    async def settle_durably(
        self,
        lease_id: str,
        outcome: Outcome,
        *,
        usage: Usage | None = None,
        first_byte_s: float | None = None,
    ) -> Settled:
        """The same, but it returns when everything it changed is committed."""
        settled = self.pool.settle(
            lease_id, outcome, self._clock.now(), usage=usage, first_byte_s=first_byte_s
        )
        rows = self.pool.take_rows()
        self.changed()
        await self._store.save(rows)
        return settled

    def renew(self, lease_id: str, *, owner: str = "") -> Lease:
        """A lease's time begins anew. `owner`: who holds it from now on, if it is another one. Raises PoolError
        not_found."""
        try:
            return self.pool.renew(lease_id, self._clock.now(), owner=owner)
        except UnknownLease:
            raise unknown_lease(lease_id) from None

    def release(self, lease_id: str, *, ended: bool = True) -> None:
        """Give a lease back unused. `ended` False: its request is tried again at once."""
        try:
            self.pool.release(lease_id, self._clock.now(), ended=ended)
        except UnknownLease:
            raise unknown_lease(lease_id) from None
        self.changed()

    def release_owner(self, owner: str) -> int:
        """A connection ended: its leases, but for the detached ones, are free again."""
        freed = self.pool.release_owner(owner, self._clock.now())
        if freed:
            self.changed()
        return freed

    def give_up(self, request: Request) -> None:
        """A request got no lease and will not ask again (`acquire` says so itself)."""
        self.pool.give_up(request)
        self._after()

    def withdraw(self, request: Request) -> None:
        """The client of a request went away between two attempts."""
        self.pool.withdraw(request)
        self._after()

    def lapse(self) -> None:
        """A client did not come back when it was told to."""
        self.pool.lapse()
        self._after()

    def resume(self) -> None:
        """A request goes on whose lease ran out."""
        self.pool.resume()
        self._after()

    # ---- the queue -------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def oldest_wait_s(self) -> float:
        since = self._queue.oldest_since()
        return 0.0 if since is None else self._clock.now() - since

    def lines(self) -> list[Line]:
        """Who waits, by model."""
        return self._queue.lines()

    def changed(self) -> None:
        """The pool changed: write down, tell, and see who can be served now. Call after every change made to it."""
        self._after()
        if len(self._queue):
            self._serve()

    def end_at(self, instant: float) -> None:
        """The daemon stops then (Unix). Who waits is served until then; who cannot be is told `shutting_down` now."""
        self._queue.ends_at = instant
        if len(self._queue):
            self._serve()

    def _in_vain(self, request: Request, wait: Wait, wait_until: float) -> PoolError:
        """Why waiting makes no sense. Who would wait beyond our end had better ask our successor."""
        return stopping() if self._queue.ends_at < wait.until <= wait_until else cooling_down(request, wait)

    async def _wait(self, waiter: Waiter) -> Grant:
        granted: asyncio.Future[Grant] = asyncio.get_running_loop().create_future()
        waiter.ticket = granted
        self._queue.join(waiter)
        self._serve()
        if waiter.lane is not None:
            self._tell_place(waiter)
        try:
            return await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                if granted.exception():
                    self.pool.withdraw(waiter.request)
                else:
                    self.pool.release(granted.result().lease.id, self._clock.now())  # granted, never used
                self.changed()
            raise
        finally:
            if self._queue.leave(waiter):
                self.pool.withdraw(waiter.request)
                self.changed()

    def _serve(self) -> None:
        """Give what is free to those who wait; set the alarm for the next instant that may change it."""
        now = self._clock.now()
        for waiter, decision in self._queue.serve(now):
            self._answer(waiter, decision)
        self._after()
        self._set_alarm(min(self._queue.wake_at - now, _LONGEST_NAP_S))

    def _tell_place(self, waiter: Waiter) -> None:
        model, ahead = waiter.request.model, self._queue.position(waiter)
        expected_at = self._queue.expected_at(waiter)
        text = f"waits behind {ahead}, about {max(0.0, expected_at - waiter.since):.0f} s"
        self.pool.journal.say(
            "queue", "debug", waiter.since, text, model=model, position=ahead, expected_at=expected_at,
            waiting=len(self._queue),
        )  # fmt: skip
        self._after()

    def _answer(self, waiter: Waiter, decision: Grant | Wait | Refusal) -> None:
        granted = waiter.ticket
        assert isinstance(granted, asyncio.Future)
        if granted.done():  # cancelled, and its task has not run yet
            if isinstance(decision, Grant):
                self.pool.release(decision.lease.id, self._clock.now())
            return
        match decision:
            case Grant():
                granted.set_result(decision)
            case Wait():
                granted.set_exception(self._in_vain(waiter.request, decision, waiter.wait_until))
            case Refusal():
                granted.set_exception(refused(decision))

    def _set_alarm(self, delay_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if len(self._queue):
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(delay_s, 0.001), self._serve)

    # ---- what must survive, what is told ---------------------------------------------------------------------

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with every event; the result ends it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def tell(self, event: PoolEvent) -> None:
        """Tell an event of the shell's."""
        self.pool.journal.tell(event)
        self._after()

    async def leave(self) -> int:
        """The daemon's last word: leases that clients hold are on the disk when this returns; how many."""
        held = self.pool.leave()
        await self.flush()
        return held

    async def flush(self) -> None:
        """Everything that must survive is on the disk when this returns."""
        await self._store.save(self.pool.take_rows())

    def expire(self) -> None:
        """End what ran out; called by the driver."""
        self.pool.expire(self._clock.now())
        self.changed()

    async def run(self) -> None:
        """End leases whose time ran out, for as long as the daemon runs."""
        while True:
            ends_in_s = self.pool.next_deadline() - self._clock.now()
            await self._clock.sleep(min(max(ends_in_s, 0.5), _LONGEST_NAP_S))
            self.expire()

    def _after(self) -> None:
        if self.pool.urgent:
            self._store.save_nowait(self.pool.take_rows())
        elif self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(_FLUSH_S, self._flush_counters)
        for event in self.pool.take_events():
            self._publish(event)

    def _flush_counters(self) -> None:
        self._flush = None
        rows = self.pool.take_rows()
        if rows:
            self._store.save_nowait(rows)

    def _publish(self, event: PoolEvent) -> None:
        level = _LEVELS.get(event.level, logging.INFO)
        if log.isEnabledFor(level):
            fields = {"account": event.account_id, "model": event.model, "event": event.kind}
            where = " ".join(part for part in (event.account_id, event.model) if part)
            log.log(level, "%s%s", f"{where}: " if where else "", event.text, extra=fields)
        for listener in list(self._listeners):
            listener(event)


def refused(refusal: Refusal) -> PoolError:
    """The pool's refusal as an error of the wire."""
    hint = (
        PREVIEW_HINT if refusal.code == "unknown_model" and _PREVIEW.search(refusal.reason) else refusal.hint
    )
    account, details = refusal.account_id or None, recorded(refusal.decision)
    return PoolError(refusal.code, refusal.reason, hint=hint, account=account, details=details)


def recorded(decision: str) -> dict[str, str] | None:
    """Where `pool/explain` finds the verdicts behind an error, as its details."""
    return {"decision": decision} if decision else None


def cooling_down(request: Request, wait: Wait) -> PoolError:
    """Nobody returns in time: says who returns first, and when."""
    who = f"{wait.account_id} returns first ({wait.reason})" if wait.account_id else wait.reason
    return PoolError(
        "all_cooling_down", f"no account for {request.model or request.method} is free: {who}",
        hint=f"gemini-pool explain {request.model}", retry_at=wait.until, account=wait.account_id or None,
        details=recorded(wait.decision),
    )  # fmt: skip


def stopping() -> PoolError:
    return PoolError(
        "shutting_down", "the daemon is stopping", hint="connect again in a moment and repeat the call"
    )


def unknown_lease(lease_id: str) -> PoolError:
    return PoolError("not_found", f"no lease {lease_id!r}: it was never granted, or it ended already")
