"""Our own pool in the lab: the production pool, queue and classifier; only sending and the clock are the lab's."""

from __future__ import annotations

from collections.abc import Generator
from functools import cache
from random import Random
from typing import Any

from gemini_poold.backends import Backend as Reader
from gemini_poold.backends import build
from gemini_poold.config import Endpoints
from gemini_poold.core.model import Account, Backend, Grant, Kind, Limits, Outcome, Request, Usage, Wait
from gemini_poold.core.queue import Queue, Waiter
from gemini_poold.core.state import Pool

from .google import Answer, Hints
from .sim import Later
from .traces import Ask
from .world import World


@cache
def _reader(backend: Backend) -> Reader:
    return build(Endpoints())[backend]


class Ours:
    """Does what `runtime.dispatch` does with a broker: acquire, send, classify, settle, again."""

    finishes = True  # it ends by itself at its deadline

    def __init__(self, world: World, rng: Random, *, strategy: str = "adaptive") -> None:
        self.name = "gemini-pool" if strategy == "adaptive" else f"ours: {strategy}"
        self._world = world
        trace = world.trace
        # Code Assist is where refusals tell a time and nothing else.
        self._backend = Backend.CODE_ASSIST if trace.hints is Hints.TIME else Backend.DEVELOPER_API
        self.pool = Pool(strategy=strategy, rng=rng.random)
        self._queue = Queue(self.pool)
        self._alarm = 0
        self.pool.configure(self._accounts(), world.now)
        for key in trace.keys:
            self.pool.token_ready(key.id, world.now)

    def _accounts(self) -> list[Account]:
        trace = self._world.trace
        out = []
        for key in trace.keys:
            limits = Limits()
            if trace.grade == "known":  # all models of these traces have the same limits
                quotas = next(q for (b, _), q in trace.quotas.items() if b == key.bucket)
                limits = Limits(**{q.what: q.limit for q in quotas})
            # Two keys of one project: the user says so by the group, as the contract asks.
            out.append(Account(key.id, self._backend, quota_group=key.project, limits=limits))
        return out

    def serve(self, ask: Ask) -> Generator[Any, Any, Any]:
        request = Request(f"r{ask.id}", ask.model, session=ask.session, tokens=ask.estimate)
        while True:
            grant = yield self._acquire(request, ask.send_by)
            if not isinstance(grant, Grant):
                self.pool.give_up(request)
                return
            answer = yield self._world.send(ask, grant.account.id)
            usage = Usage(ask.tokens, 100, total_tokens=ask.tokens + 100) if answer.ok else None
            outcome = self._outcome(answer, ask, grant.account)
            settled = self.pool.settle(grant.lease.id, outcome, self._world.now, usage=usage)
            self._changed()
            if not settled.retry or settled.request is None:
                return
            request = settled.request

    def _outcome(self, answer: Answer, ask: Ask, account: Account) -> Outcome:
        if answer.ok:
            return Outcome(Kind.OK)
        return _reader(self._backend).classify(
            answer.status, {}, answer.body, model=ask.model, now=self._world.now, account=account
        )

    def _acquire(self, request: Request, wait_until: float) -> Later:
        """As `Broker.acquire` does it: at once, or in the queue, or refused when nobody returns in time."""
        later, now = Later(), self._world.now
        decision = self._queue.ask(request, now)
        if isinstance(decision, Wait) and decision.until <= wait_until:
            self._queue.join(Waiter(request, "", wait_until, now, ticket=later))
            self._changed()
        else:
            later.set(decision)
        return later

    def _changed(self) -> None:
        if not len(self._queue):
            return
        for waiter, decision in self._queue.serve(self._world.now):
            assert isinstance(waiter.ticket, Later)
            waiter.ticket.set(decision)
        if len(self._queue):
            self._alarm += 1
            self._world.sim.at(self._queue.wake_at, self._wake, self._alarm)

    def _wake(self, alarm: int) -> None:
        if alarm == self._alarm:
            self._changed()
