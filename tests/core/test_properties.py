"""What holds for the pool and its queue whatever happens, in whatever order: a machine that makes up hours of life.

Every step is done to two pools of the same seed, which must decide alike. What was granted is counted here once more, by
the plainest means: a list of instants. `GEMINI_POOL_DEEP=1` (`nox -s properties`) looks much longer and never alike.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.core.pools import NOW, account

from gemini_poold.core.cooldown import Cooldown, Key
from gemini_poold.core.model import (
    Account,
    DailyCap,
    Grant,
    Kind,
    Lease,
    Limits,
    Outcome,
    Refusal,
    Request,
    Scope,
    Usage,
    Wait,
)
from gemini_poold.core.pacific import next_midnight
from gemini_poold.core.queue import LATE_S, Queue, Waiter
from gemini_poold.core.state import Pool, UnknownLease

DEEP = bool(os.environ.get("GEMINI_POOL_DEEP"))
MINUTE_S = 60.0
MODELS = ("m1", "m2")
OWNERS = ("c1", "c2", "c3")
NAMES = ("a", "b", "c", "d")

limits = st.builds(
    Limits,
    rpm=st.sampled_from([None, None, 1, 2, 3, 6]),
    rpd=st.sampled_from([None, None, None, 5, 12]),
    tpm=st.sampled_from([None, 500, 2_000]),
)
caps = st.builds(
    DailyCap, requests=st.sampled_from([None, None, None, 4, 9]), tokens=st.sampled_from([None, None, 3_000])
)
accounts = st.lists(
    st.tuples(limits, caps, st.sampled_from(["", "", "shared"]), st.integers(0, 1)), min_size=1, max_size=4
)
STRATEGIES = (
    "adaptive", "adaptive", "priority", "round-robin", "fill-first", "least-used", "quota-aware", "health-weighted",
    "weighted-random",
)  # fmt: skip


@dataclass
class Side:
    """One of the two pools, with what its shell would hold."""

    pool: Pool
    queue: Queue
    waiters: list[Waiter] = field(default_factory=list)


@dataclass
class Sent:
    """A granted request, as counted here."""

    at: float
    account: str
    bucket: str
    model: str
    tokens: int


class PoolLife(RuleBasedStateMachine):
    """Steps of clients, of Google, of people and of time."""

    @initialize(given=accounts, strategy=st.sampled_from(STRATEGIES), seed=st.integers(0, 99))
    def begin(self, given: list[Any], strategy: str, seed: int) -> None:
        self.now = NOW
        self.accounts = [
            account(name, limits=known, daily_cap=cap, quota_group=group, priority=priority)
            for name, (known, cap, group, priority) in zip(NAMES, given, strict=False)
        ]
        self.sides = [self._side(self.accounts, strategy, seed) for _ in range(2)]
        self.sent: dict[str, Sent] = {}  # by lease; refused and released ones are taken out
        self.charged: dict[str, Sent] = {}  # the same, but for released ones only: what the user's caps count
        self.open: dict[str, Lease] = {}
        self.ended: list[str] = []
        self.told: dict[tuple[str, str], int] = {}  # limits that refusals named
        self.serial = 0
        self.joined = self.answered = 0

    def _side(self, given: list[Account], strategy: str, seed: int) -> Side:
        pool = Pool(strategy=strategy, rng=random.Random(seed).random, lease_ttl_s=90.0)
        pool.configure(given, self.now)
        for each in given:
            pool.token_ready(each.id, self.now)
        return Side(pool, Queue(pool))

    @property
    def pool(self) -> Pool:
        return self.sides[0].pool

    def both(self, step: Callable[[Side], Any]) -> Any:
        """Do it twice; the same must come of it."""
        first, second = (step(side) for side in self.sides)
        assert first == second, "two pools of one seed decide differently"
        return first

    # ---- clients -------------------------------------------------------------------------------------------------

    @rule(
        model=st.sampled_from(MODELS), patience=st.sampled_from([0.0, 2.0, 15.0, 70.0, 200.0]), batch=st.booleans(),
        owner=st.sampled_from(OWNERS), tokens=st.sampled_from([10, 90, 400, 1_500]), session=st.sampled_from(["", "", "s"]),
        pin=st.sampled_from(["", "", "", "", "a"]), again=st.booleans(), times=st.sampled_from([1, 2, 4, 9]),
    )  # fmt: skip
    def ask(
        self, model: str, patience: float, batch: bool, owner: str, tokens: int, session: str, pin: str, again: bool,
        times: int,
    ) -> None:  # fmt: skip
        """As the broker does it: at once, or in the queue, or told that nobody returns in time."""
        for _ in range(times):
            self.serial += 1
            request = Request(
                f"r{self.serial}", model, session=session, pin=pin, batch=batch, tokens=tokens,
                attempt=2 if again else 1,
            )  # fmt: skip
            self._ask(request, owner, self.now + patience)

    def _ask(self, request: Request, owner: str, wait_until: float) -> None:
        decision = self.both(lambda s: _plain(s.queue.ask(request, self.now, owner=owner), request))
        if decision[0] == "grant":
            self._granted(decision)
        elif decision[0] == "wait":
            hopeless = decision[2] and decision[1] > wait_until
            if not hopeless:
                self.joined += 1
                self.both(lambda s: self._join(s, Waiter(request, owner, wait_until, self.now)))
                self._serve()

    @staticmethod
    def _join(side: Side, waiter: Waiter) -> int:
        side.waiters.append(waiter)
        side.queue.join(waiter)
        return len(side.queue)

    @rule(
        data=st.data(),
        what=st.sampled_from(["leave", "leave", "release", "disconnect", "clear", "pause", "sleep"]),
    )
    def seldom(self, data: st.DataObject, what: str) -> None:
        """What clients, people and the machine do now and then. One rule, so that the others come up more often."""
        match what:
            case "leave" if self.sides[0].waiters:
                self._leave(data)
            case "release" if self.open:
                self._release(data)
            case "disconnect":
                self._disconnect(data.draw(st.sampled_from(OWNERS)))
            case "clear":
                self._clear(data.draw(st.sampled_from(["", *NAMES])))
            case "pause":
                self._pause(data.draw(st.sampled_from(NAMES)), paused=data.draw(st.booleans()))
            case "sleep":
                self._sleep(data.draw(st.sampled_from([30.0, 4_000.0, 90_000.0])))

    def _leave(self, data: st.DataObject) -> None:
        """A client goes away while it waits: its place is free at once."""
        n = data.draw(st.integers(0, len(self.sides[0].waiters) - 1))

        def go(side: Side) -> tuple[bool, bool, int]:
            waiter = side.waiters.pop(n)
            return side.queue.leave(waiter), side.queue.leave(waiter), len(side.queue)

        left, twice, _ = self.both(go)
        assert left
        assert not twice
        self.answered += 1
        self._serve()

    def _release(self, data: st.DataObject) -> None:
        lease_id = self._pick(data)
        self.both(lambda s: s.pool.release(lease_id, self.now).id)
        del self.charged[lease_id]
        self._over(lease_id, counts=False)

    def _disconnect(self, owner: str) -> None:
        """Nobody knows what its leases were used for: they count."""
        gone = [lease.id for lease in self.open.values() if lease.owner == owner]
        assert self.both(lambda s: s.pool.release_owner(owner, self.now)) == len(gone)
        for lease_id in gone:
            self._over(lease_id, counts=True)

    # ---- Google --------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.open)
    @rule(
        data=st.data(), kind=st.sampled_from([Kind.OK, Kind.OK, Kind.OK, Kind.CLIENT, Kind.CANCELLED, Kind.CUT]),
        times=st.sampled_from([1, 1, 3, 10]),
    )  # fmt: skip
    def answer(self, data: st.DataObject, kind: Kind, times: int) -> None:
        for _ in range(min(times, len(self.open))):
            self._answer(self.open[self._pick(data)], kind)

    def _answer(self, lease: Lease, kind: Kind) -> None:
        usage = (
            Usage(lease.request.tokens, 5, total_tokens=lease.request.tokens + 5) if kind is Kind.OK else None
        )
        outcome = Outcome(kind, rotate=kind is Kind.CUT)
        self._settle(lease, outcome, counts=True, usage=usage, lifts=kind is Kind.OK)

    @precondition(lambda self: self.open)
    @rule(
        data=st.data(), seconds=st.sampled_from([None, None, 1.0, 20.0, 300.0]), told=st.booleans(),
        value=st.sampled_from([None, None, 2, 5]),
    )  # fmt: skip
    def refuse(self, data: st.DataObject, seconds: float | None, told: bool, value: int | None) -> None:
        """A short window is full: with or without a time, which Google or only we may have given, and a limit."""
        lease = self.open[self._pick(data)]
        until = None if seconds is None else self.now + seconds
        outcome = Outcome(
            Kind.RATE, Scope.BUCKET_MODEL, until, told and until is not None, rotate=True, reason="limit",
            quota_value=value, quota_window="requests/minute" if value else "",
        )  # fmt: skip
        if value:
            pair = (self._bucket(lease.account_id), lease.request.model)
            self.told[pair] = value
        self._settle(lease, outcome, counts=False)

    @precondition(lambda self: self.open)
    @rule(
        data=st.data(), seconds=st.sampled_from([None, 5.0, 40.0]),
        kind=st.sampled_from([Kind.CAPACITY, Kind.TRANSIENT, Kind.UNAUTHENTICATED]),
    )  # fmt: skip
    def break_(self, data: st.DataObject, seconds: float | None, kind: Kind) -> None:
        """The fleet is full, something broke, or the token is refused."""
        scope = {Kind.CAPACITY: Scope.BACKEND_MODEL, Kind.TRANSIENT: Scope.ACCOUNT_MODEL}.get(
            kind, Scope.ACCOUNT
        )
        until = None if seconds is None else self.now + seconds
        outcome = Outcome(kind, scope, until, until is not None, rotate=True, reason=kind.value)
        self._settle(self.open[self._pick(data)], outcome, counts=kind is not Kind.CAPACITY)

    def _settle(
        self, lease: Lease, outcome: Outcome, *, counts: bool, usage: Usage | None = None, lifts: bool = False
    ) -> None:
        before = self._rests()
        settled = self.both(lambda s: s.pool.settle(lease.id, outcome, self.now, usage=usage))
        self._over(lease.id, counts=counts)
        assert settled.account_id == lease.account_id
        reached = self._keys(lease) if lifts else set()
        if outcome.told:
            reached |= {key for key in self._keys(lease) if key[0] is outcome.scope}
        self._only_shortened(before, reached, told_too=False)
        for side in self.sides:
            with pytest.raises(UnknownLease):
                side.pool.settle(lease.id, outcome, self.now)

    # ---- people and time -----------------------------------------------------------------------------------------

    def _clear(self, name: str) -> None:
        self.both(lambda s: s.pool.clear_cooldown(name))
        self._serve()

    def _pause(self, name: str, *, paused: bool) -> None:
        if name in self.pool.members:
            self.both(lambda s: s.pool.pause(name, self.now, paused=paused))
            self._serve()

    @rule(seconds=st.sampled_from([0.0, 0.2, 3.0, 20.0, 61.0]))
    def wait(self, seconds: float) -> None:
        """Time passes, and the shell wakes whenever the queue asked for it."""
        target = self.now + seconds
        while len(self.sides[0].queue) and self.sides[0].queue.wake_at <= target:
            self.now = max(self.sides[0].queue.wake_at, self.now + 0.001)
            self._serve()
        self.now = max(self.now, target)
        self._expire()

    def _sleep(self, seconds: float) -> None:
        """The machine was suspended: nobody woke anybody."""
        self.now += seconds
        self._expire()
        self._serve()

    def _expire(self) -> None:
        over = [lease.id for lease in self.open.values() if lease.expires_at <= self.now]
        before = self._rests()
        self.both(lambda s: s.pool.expire(self.now))
        for lease_id in over:
            self._over(lease_id, counts=True)
        self._only_shortened(before, set(), told_too=False)

    # ---- what holds ----------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        def serve(side: Side) -> list[Any]:
            found = side.queue.serve(self.now)
            for waiter, _ in found:
                side.waiters.remove(waiter)
            return [(waiter.wait_until, _plain(decision, waiter.request)) for waiter, decision in found]

        before = self._rests()
        for wait_until, decision in self.both(serve):
            self.answered += 1
            if decision[0] == "grant":
                assert self.now <= wait_until + LATE_S, "served after its deadline"
                self._granted(decision)
            elif decision[0] == "wait" and self.now <= wait_until:
                assert decision[1] > wait_until, "sent away although somebody returns in time"
        self._only_shortened(before, set(), told_too=False)

    def _granted(self, decision: Any) -> None:
        _, lease_id, account_id, request = decision
        lease = self.pool.leases.get(lease_id)
        assert lease_id not in self.open
        assert lease_id not in self.ended
        self.open[lease_id] = lease
        self.sent[lease_id] = self.charged[lease_id] = Sent(
            self.now, account_id, self._bucket(account_id), request.model, request.tokens
        )
        self._within_limits(account_id, request)

    def _within_limits(self, account_id: str, request: Request) -> None:
        """By our own count, what was just granted included."""
        bucket, model = self._bucket(account_id), request.model
        here = [s for s in self.sent.values() if (s.bucket, s.model) == (bucket, model)]
        known = [a.limits for a in self.accounts if self._bucket(a.id) == bucket]
        minute = [s for s in here if s.at > self.now - MINUTE_S]
        rpm = [k.rpm for k in known if k.rpm is not None] + [self.told.get((bucket, model), inf)]
        assert len(minute) <= min(rpm), "more requests in a minute than the limit"
        tpm = [k.tpm for k in known if k.tpm is not None]
        if tpm and len(minute) > 1:
            assert sum(s.tokens for s in minute) <= min(tpm), "more tokens in a minute than the limit"
        today = next_midnight(self.now)
        rpd = [k.rpd for k in known if k.rpd is not None]
        if rpd:
            assert sum(next_midnight(s.at) == today for s in here) <= min(rpd), "more requests than a day's"
        cap = next(a.daily_cap for a in self.accounts if a.id == account_id).requests
        if cap is not None:  # of the account over all models, refused ones included: it is the user's own
            mine = [s for s in self.charged.values() if s.account == account_id]
            assert sum(next_midnight(s.at) == today for s in mine) <= cap, "more requests than the user's cap"

    def _rests(self) -> dict[Key, tuple[float, float, bool]]:
        """Of every cooldown: its end, the end that Google told, and whether it is the pause of a trial."""
        return {(c.scope, c.key, c.model): (c.until, c.told_until, c.trial) for c in self._active()}

    def _active(self) -> list[Cooldown]:
        return list(self.pool.cooldowns.active(self.now))

    def _only_shortened(
        self, before: dict[Key, tuple[float, float, bool]], evidence: set[Key], *, told_too: bool
    ) -> None:
        """A rest may end early only where something was learnt of its key, and never what Google told."""
        after = self._rests()
        for key, (until, told_until, trial) in before.items():
            now_until = after.get(key, (self.now, 0.0, False))[0]
            assert now_until >= min(told_until, until) or told_until <= self.now, "sooner than Google told"
            if key not in evidence and not trial:
                assert now_until >= until or until <= self.now, "shortened without evidence"

    @invariant()
    def days_agree(self) -> None:
        """What caps and days have taken is what was sent, no more and no less: who gives a lease back gets it back."""
        if not hasattr(self, "sides"):
            return
        today = next_midnight(self.now)
        for member in self.pool.members.values():
            if member.cap is not None and member.account.daily_cap.requests is not None:
                mine = [s for s in self.charged.values() if s.account == member.id]
                used = next(k.used for k in member.cap.known(self.now) if k.what == "requests/day")
                assert used == sum(next_midnight(s.at) == today for s in mine)
            for model, pace in member.book.items():
                here = [s for s in self.sent.values() if (s.bucket, s.model) == (member.bucket, model)]
                for known in pace.known_limits(self.now):
                    if known.what == "requests/day":
                        assert known.used == sum(next_midnight(s.at) == today for s in here)

    @invariant()
    def books_agree(self) -> None:
        if not hasattr(self, "sides"):
            return
        for side in self.sides:
            assert {lease.id for lease in side.pool.leases} == set(self.open)
            for member in side.pool.members.values():
                held = sum(lease.account_id == member.id for lease in self.open.values())
                assert member.in_flight == held
            queue = side.queue
            assert len(queue) == len(side.waiters), "a waiter was lost"
            assert queue.oldest_since() == min((w.since for w in side.waiters), default=None)
            assert all(w.wait_until >= self.now for w in side.waiters), "it waits past its deadline"
            places = sorted(
                queue.position(w) for w in side.waiters if w.request.model == "m1" and not w.request.pin
            )
            assert places == list(range(len(places))), "places are not one after the other"
        assert self.joined == self.answered + len(self.sides[0].waiters)

    def teardown(self) -> None:
        """Whoever still waits is answered by its deadline, and nothing is left in the books."""
        if not hasattr(self, "sides"):
            return
        self.wait(400.0)
        assert not self.sides[0].waiters, "a waiter was never answered"
        assert all(len(side.queue) == 0 for side in self.sides)

    # ---- inside --------------------------------------------------------------------------------------------------

    def _pick(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted(self.open)))

    def _bucket(self, account_id: str) -> str:
        return self.pool.members[account_id].bucket

    def _keys(self, lease: Lease) -> set[Key]:
        bucket, model = self._bucket(lease.account_id), lease.request.model
        return {
            (Scope.ACCOUNT_MODEL, lease.account_id, model), (Scope.BUCKET_MODEL, bucket, model),
            (Scope.BACKEND_MODEL, "developer-api", model), (Scope.ACCOUNT, lease.account_id, ""),
        }  # fmt: skip

    def _over(self, lease_id: str, *, counts: bool) -> None:
        del self.open[lease_id]
        self.ended.append(lease_id)
        if not counts:
            del self.sent[lease_id]
        self._serve()


def _plain(decision: Grant | Wait | Refusal, request: Request) -> tuple[Any, ...]:
    """A decision as values that can be compared."""
    match decision:
        case Grant():
            return ("grant", decision.lease.id, decision.account.id, request)
        case Wait():
            return ("wait", decision.until, decision.account_id, decision.reason)
        case Refusal():
            return ("refusal", decision.code, decision.reason)


PoolLife.TestCase.settings = settings(
    max_examples=3_000 if DEEP else 300, stateful_step_count=150 if DEEP else 60, derandomize=not DEEP, deadline=None,
    database=None, suppress_health_check=list(HealthCheck),
)  # fmt: skip
test_pool_life = PoolLife.TestCase
