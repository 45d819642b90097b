"""One model's candidates in two heaps: ready by rank, resting by the instant they return.

Cheap because it is lazy: an entry carries its slot's version, and what changed since it was pushed shows when it is
popped. An entry whose rank has grown since (its account was used for another model) is pushed back where it belongs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from heapq import heapify, heappop, heappush
from math import inf
from typing import Any

from .member import Member
from .strategy import Rank, Rng, Round, Slot, Strategy

BlockedUntil = Callable[[Member, str, float], float]


class ModelIndex:
    """Accounts that may serve one kind of request, as far as configuration alone can say."""

    def __init__(self, members: Iterable[Member], strategy: Strategy, rng: Rng) -> None:
        self._strategy = strategy
        self._rng = rng
        self._round = Round()
        self.slots = {m.id: Slot(m) for m in members}
        self._ready: list[tuple[Rank, int, int, Slot]] = []
        self._resting: list[tuple[float, int, int, Slot]] = [
            (0.0, m.member.order, 0, m) for m in self.slots.values()
        ]
        heapify(self._resting)
        self.away: dict[str, Member] = {}  # who returns by an event alone, not by time
        self._short: tuple[float, Member] | None = (
            None  # the first to have room of those passed over by `take`
        )

    def touch(self, account_id: str, until: float = 0.0) -> None:
        """Something about this account changed: look at it again (at `until`)."""
        slot = self.slots.get(account_id)
        if slot is not None:
            slot.version += 1
            self.away.pop(account_id, None)
            self._rest(slot, until)

    def take(
        self,
        model: str,
        now: float,
        blocked_until: BlockedUntil,
        fits: Callable[[Member], bool] | None,
        *,
        least: BlockedUntil,
    ) -> Member | None:
        """The best account that is free at `now` and `fits`; it is ranked anew as chosen. None: nobody is.

        `least`: until when an account is blocked for the smallest of requests. Only so long it rests; who has merely no
        room for this one stays ready for others.
        """
        if self._resting and self._resting[0][0] <= now:
            self._wake(now)
        ready = self._ready
        passed: list[tuple[Rank, int, int, Slot]] = []
        found: Slot | None = None
        self._short = None
        while ready:
            entry = heappop(ready)
            rank, order, version, slot = entry
            if version != slot.version:
                continue
            until = blocked_until(slot.member, model, now)
            if until > now:
                rests_until = least(slot.member, model, now)
                if rests_until > now:
                    self._rest(slot, rests_until)
                    continue
                passed.append(entry)
                if (self._short is None or until < self._short[0]) and (fits is None or fits(slot.member)):
                    self._short = (until, slot.member)
                continue
            current = self._strategy.rank(slot, now)
            if current > rank:
                heappush(ready, (current, order, version, slot))
                continue
            if fits is not None and not fits(slot.member):
                passed.append(entry)
                continue
            found = slot
            break
        for entry in passed:
            heappush(ready, entry)
        return None if found is None else found.member

    def chose(self, member: Member, now: float) -> None:
        """`member` got a request (by `take`, a pin or a session): move its rank on."""
        slot = self.slots.get(member.id)
        if slot is None:
            return
        self._strategy.chosen(slot, self._round, now, self._rng)
        slot.version += 1
        slot.ready = True
        ready = self._ready
        heappush(ready, (self._strategy.rank(slot, now), member.order, slot.version, slot))
        if len(ready) > 4 * len(self.slots) + 64:
            self._compact(ready)

    def members(self) -> Iterator[Member]:
        return (slot.member for slot in self.slots.values())

    def rank_of(self, member: Member, now: float) -> Rank:
        slot = self.slots.get(member.id)
        if slot is None:
            return ()
        return self._strategy.rank(slot, now) if slot.ready else self._strategy.coming(slot, self._round, now)

    def first_return(
        self, model: str, now: float, blocked_until: BlockedUntil
    ) -> tuple[float, Member] | None:
        """When the first of those who rest or have no room can take it, and who. Of use after `take` found nobody."""
        resting, best = self._resting, self._short
        looked: list[tuple[float, int, int, Slot]] = []
        while resting and (best is None or resting[0][0] < best[0]):
            entry = heappop(resting)
            if entry[2] != entry[3].version:
                continue
            looked.append(entry)
            until = max(entry[0], blocked_until(entry[3].member, model, now))
            if until != inf and (best is None or until < best[0]):
                best = (until, entry[3].member)
        for entry in looked:
            heappush(resting, entry)
        return best

    def _rest(self, slot: Slot, until: float) -> None:
        slot.ready = False
        if until != inf:
            heappush(self._resting, (until, slot.member.order, slot.version, slot))
            self._compact(self._resting)
        else:  # brought back by touch()
            self.away[slot.member.id] = slot.member

    def _compact(self, heap: list[Any]) -> None:
        """Pins and touches leave outdated entries behind that no pop may ever reach."""
        if len(heap) > 4 * len(self.slots) + 64:
            heap[:] = [entry for entry in heap if entry[2] == entry[3].version]
            heapify(heap)

    def _wake(self, now: float) -> None:
        resting = self._resting
        while resting and resting[0][0] <= now:
            _, order, version, slot = heappop(resting)
            if version == slot.version:
                self._strategy.enter(slot, self._round, now, self._rng)
                slot.ready = True
                heappush(self._ready, (self._strategy.rank(slot, now), order, version, slot))
