"""Who waits for an account: in which order, until when. Decides alone; the shell holds the clock and wakes it.

Rules
1. Requests that choosing cannot tell apart wait in one lane, so that one answer of the pool's holds for all of them
   and a long queue costs no more than a short one.
2. Interactive requests go before batch ones; a request that was tried already goes before new ones; then clients take
   turns (max-min fair: each grant costs its client one turn, whoever had fewer goes first), first come first served
   within a client.
3. Whoever cannot be served before its deadline by what is known now is answered at once, with who returns first.
4. Nobody overtakes: a newcomer waits behind those who want the same model. One exception: while the first in line waits
   for room for many tokens on the account that returns first, small requests may use what is free on the others.
5. Nobody is served after its deadline, not even when all slept through it (a suspend): its client is gone by then.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush, nsmallest
from math import inf

from .model import Grant, Refusal, Request, Wait
from .state import Pool

_BESIDE = 16  # so many of a lane are looked at
_SMALL = 2  # times smaller than the first
LATE_S = 0.5  # a loop may be that late with waking somebody whose turn came exactly at its deadline
_ALPHA = 0.2  # weight of the newest distance between two grants


@dataclass(slots=True, eq=False)
class Waiter:
    """One waiting request. `ticket` is the shell's: whom to tell. `wait_until`, `since`: Unix seconds."""

    request: Request
    owner: str
    wait_until: float
    since: float
    detached: bool = False
    ticket: object = None
    lane: _Lane | None = None  # None: it waits no more
    place: tuple[bool, float, int] = (False, 0.0, 0)


_Place = tuple[bool, float, int, Waiter]  # batch, turn, order of arrival


@dataclass(slots=True, eq=False)
class _Lane:
    """Waiters with one answer. Those who left stay in the heaps until they come up or are too many."""

    key: Hashable
    places: list[_Place] = field(default_factory=list)
    deadlines: list[tuple[float, int, Waiter]] = field(default_factory=list)
    count: int = 0
    until: float = 0.0  # when the first one will be served, as last heard
    granted_at: float = 0.0
    gap_s: float = 0.0  # between two grants, lately; 0: not known

    def granted(self, now: float) -> None:
        if self.granted_at:
            gap_s = now - self.granted_at
            self.gap_s += (gap_s - self.gap_s) * (_ALPHA if self.gap_s else 1.0)
        self.granted_at = now

    def first(self) -> _Place | None:
        places = self.places
        while places and places[0][3].lane is not self:
            heappop(places)
        return places[0] if places else None

    def hopeless(self, until: float, now: float) -> list[Waiter]:
        """Takes out who cannot wait until then, or is late already."""
        out, deadlines = [], self.deadlines
        while deadlines and (deadlines[0][0] < until or deadlines[0][0] <= now):
            waiter = heappop(deadlines)[2]
            if waiter.lane is self:
                out.append(waiter)
        return out

    def compact(self) -> None:
        if len(self.places) > 2 * self.count + 64:
            self.places = [place for place in self.places if place[3].lane is self]
            heapify(self.places)
        if len(self.deadlines) > 2 * self.count + 64:
            self.deadlines = [entry for entry in self.deadlines if entry[2].lane is self]
            heapify(self.deadlines)


Answered = tuple[Waiter, Grant | Wait | Refusal]


@dataclass(frozen=True, slots=True)
class Line:
    """Who waits for one model: how many, since when the first of them, and when the next is served at the earliest."""

    model: str
    waiting: int
    oldest_since: float
    next_at: float


class Queue:
    """All who wait. `wake_at`: when to call `serve` next, if nothing changes before (inf: nobody waits)."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._lanes: dict[Hashable, _Lane] = {}
        self._waiters: OrderedDict[Waiter, None] = OrderedDict()  # in the order in which they came
        self._models: dict[tuple[str, str], int] = {}  # waiters by model and pin
        self._turns: dict[str, float] = {}  # the last turn that each waiting client has taken a place in
        self._turn = 0.0  # of the last one served
        self._serial = 0
        self.wake_at = inf
        self.ends_at = inf  # nobody waits for what comes later: the daemon stops then

    def __len__(self) -> int:
        return len(self._waiters)

    def oldest_since(self) -> float | None:
        """When the one who waits longest came; None when nobody waits."""
        first = next(iter(self._waiters), None)
        return None if first is None else first.since

    def position(self, waiter: Waiter) -> int:
        """How many who want the same go before this one; 0 is next."""
        lane = waiter.lane
        if lane is None:
            return 0
        return sum(place[:3] < waiter.place for place in lane.places if place[3].lane is lane)

    def expected_at(self, waiter: Waiter) -> float:
        """When this one will be served if all goes on as lately, its deadline at the latest; after `serve`."""
        lane = waiter.lane
        if lane is None:
            return 0.0
        return min(lane.until + self.position(waiter) * lane.gap_s, waiter.wait_until)

    def lines(self) -> list[Line]:
        """Who waits, by model; the longest line first."""
        found: dict[str, list[_Lane]] = {}
        since: dict[str, float] = {}
        for waiter in self._waiters:
            since.setdefault(waiter.request.model, waiter.since)
        for lane in self._lanes.values():
            first = lane.first()
            assert first is not None
            found.setdefault(first[3].request.model, []).append(lane)
        lines = [
            Line(model, sum(lane.count for lane in lanes), since[model], min(lane.until for lane in lanes))
            for model, lanes in found.items()
        ]
        return sorted(lines, key=lambda line: (-line.waiting, line.model))

    def ask(
        self, request: Request, now: float, *, owner: str = "", detached: bool = False
    ) -> Grant | Wait | Refusal:
        """An answer at once; those who wait for the same go first."""
        if self._models.get((request.model, request.pin)):
            return Wait(now, "", "others wait for this model already")
        return self._pool.acquire(request, now, owner=owner, detached=detached)

    def join(self, waiter: Waiter) -> None:
        """Take a place. Call `serve` afterwards."""
        request = waiter.request
        key = (_key(request), self._pool.chooser.region(request))
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane(key)
        self._serial += 1
        waiter.lane = lane
        waiter.place = (request.batch, self._turn_of(waiter), self._serial)
        self._waiters[waiter] = None
        heappush(lane.places, (*waiter.place, waiter))
        heappush(lane.deadlines, (waiter.wait_until, self._serial, waiter))
        lane.count += 1
        at = (request.model, request.pin)
        self._models[at] = self._models.get(at, 0) + 1

    def leave(self, waiter: Waiter) -> bool:
        """Give the place up. False when it was answered, or left, before."""
        if waiter.lane is None:
            return False
        self._take_out(waiter)
        return True

    def serve(self, now: float) -> list[Answered]:
        """Give what is free to those who wait, in order, and answer whoever waits in vain."""
        answered: list[Answered] = []
        waits: list[tuple[_Lane, Wait]] = []
        lanes = list(self._lanes.values())
        while lanes:
            lane, place = self._next(lanes)
            if place is None:
                break
            waiter = place[3]
            if waiter.wait_until + LATE_S < now:
                self._take_out(waiter)
                answered.append((waiter, Wait(now, "", "its time was over when everybody awoke")))
                continue
            decision = self._pool.acquire(waiter.request, now, owner=waiter.owner, detached=waiter.detached)
            if isinstance(decision, Wait):
                lanes.remove(lane)
                lane.until = decision.until
                waits.append((lane, decision))
                if waiter.request.tokens:
                    answered += self._beside(lane, waiter, decision.account_id, now)
                continue
            if isinstance(decision, Grant):
                self._turn = max(self._turn, place[1])
                lane.granted(now)
            self._take_out(waiter)
            answered.append((waiter, decision))
        self.wake_at = inf
        for lane, wait in waits:
            for waiter in lane.hopeless(wait.until if wait.until <= self.ends_at else inf, now):
                self._take_out(waiter)
                answered.append((waiter, wait))
            if lane.count:
                self.wake_at = min(self.wake_at, wait.until)
        return answered

    # ---- inside ----------------------------------------------------------------------------------------------

    def _beside(self, lane: _Lane, first: Waiter, account_id: str, now: float) -> list[Answered]:
        """Small requests that fit elsewhere while `first` waits for that account."""
        answered: list[Answered] = []
        for place in nsmallest(_BESIDE, lane.places):
            waiter = place[3]
            if waiter.lane is not lane or _SMALL * waiter.request.tokens > first.request.tokens:
                continue
            if waiter.wait_until + LATE_S < now:  # rule 5; `hopeless` answers it
                continue
            grant = self._pool.acquire_beside(
                waiter.request, now, avoid=account_id, owner=waiter.owner, detached=waiter.detached
            )
            if grant is None:
                break
            self._take_out(waiter)
            answered.append((waiter, grant))
        return answered

    @staticmethod
    def _next(lanes: list[_Lane]) -> tuple[_Lane, _Place | None]:
        """The lane whose first waiter goes before all others."""
        best, best_place = lanes[0], lanes[0].first()
        for lane in lanes[1:]:
            place = lane.first()
            if place is not None and (best_place is None or place[:3] < best_place[:3]):
                best, best_place = lane, place
        return best, best_place

    def _turn_of(self, waiter: Waiter) -> float:
        if waiter.request.attempt > 1:
            return 0.0
        turn = max(self._turn, self._turns.get(waiter.owner, 0.0)) + 1.0
        self._turns[waiter.owner] = turn
        return turn

    def _take_out(self, waiter: Waiter) -> None:
        lane = waiter.lane
        assert lane is not None
        waiter.lane = None
        del self._waiters[waiter]
        lane.count -= 1
        lane.compact()
        if not lane.count:
            self._lanes.pop(lane.key, None)
        at = (waiter.request.model, waiter.request.pin)
        left = self._models[at] - 1
        if left:
            self._models[at] = left
        else:
            del self._models[at]
        if not self._models:  # nobody waits: turns of long ago count for nothing
            self._turns.clear()
            self._turn = 0.0


def _key(r: Request) -> Hashable:
    """Everything that choosing looks at, but for the session, which prefers and does not exclude."""
    return (r.model, r.pin, r.forms, r.method, r.exclude, r.lends, r.min_validity_s, r.allow_paid, r.data)
