"""Strategies: which of the accounts that may serve a model comes first. Each is a rank; the lowest serves next.

A rank is a tuple compared left to right. `rank` is asked whenever an account (re)enters a model's ready heap;
`chosen` is told when it was picked and may move what the next rank is made of. Weighted draws need no list of
candidates: each slot is a Poisson process of rate `weight`, the earliest next tick is picked, and of merged Poisson
processes the next tick belongs to each with probability weight / sum.

Priority tiers (`priority`, higher first) hold in `adaptive`, `priority`, `fill-first`, `quota-aware` and
`health-weighted`. `round-robin`, `least-used` and `weighted-random` treat all accounts alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log
from typing import Protocol

from .member import Member

Rank = tuple[float, ...]
Rng = Callable[[], float]  # uniform in [0, 1)


@dataclass(slots=True)
class Slot:
    """An account's place in one model's index. `turn` and `tick` belong to the strategy, the rest to the index."""

    member: Member
    version: int = 0
    turn: int = 0
    tick: float = 0.0
    ready: bool = False  # it has entered


@dataclass(slots=True)
class Round:
    """What a strategy remembers of one model's index: how far its rounds and its merged clock have come."""

    turn: int = 0
    tick: float = 0.0


class Strategy(Protocol):
    name: str

    def enter(self, slot: Slot, state: Round, now: float, rng: Rng) -> None:
        """The slot becomes ready (first time, or back from a rest)."""

    def rank(self, slot: Slot, now: float) -> Rank: ...

    def coming(self, slot: Slot, state: Round, now: float) -> Rank:
        """The rank it will enter with, as far as that can be told before."""

    def chosen(self, slot: Slot, state: Round, now: float, rng: Rng) -> None: ...


class _Stateless:
    """Ranks made of the member alone."""

    def enter(self, slot: Slot, state: Round, now: float, rng: Rng) -> None:
        del slot, state, now, rng

    def chosen(self, slot: Slot, state: Round, now: float, rng: Rng) -> None:
        del slot, state, now, rng

    def coming(self, slot: Slot, state: Round, now: float) -> Rank:
        del state
        return self.rank(slot, now)

    def rank(self, slot: Slot, now: float) -> Rank:
        raise NotImplementedError


class Adaptive(_Stateless):
    """Priority tier, health band, least recently used."""

    name = "adaptive"

    def rank(self, slot: Slot, now: float) -> Rank:
        m = slot.member
        return (-m.account.priority, m.health.band(now), m.used_seq, m.order)


class Priority(_Stateless):
    """Priority tier, then least recently used; health plays no part."""

    name = "priority"

    def rank(self, slot: Slot, now: float) -> Rank:
        del now
        m = slot.member
        return (-m.account.priority, m.used_seq, m.order)


class FillFirst(_Stateless):
    """The first account in the file of the highest tier, until it may not serve; then the next one."""

    name = "fill-first"

    def rank(self, slot: Slot, now: float) -> Rank:
        del now
        return (-slot.member.account.priority, slot.member.order)


class LeastUsed(_Stateless):
    """The least recently used account."""

    name = "least-used"

    def rank(self, slot: Slot, now: float) -> Rank:
        del now
        return (slot.member.used_seq, slot.member.order)


class QuotaAware(_Stateless):
    """Priority tier, then the most quota left in steps of 5 %, then least recently used. Unknown counts as half."""

    name = "quota-aware"

    def rank(self, slot: Slot, now: float) -> Rank:
        del now
        m = slot.member
        quota = 0.5 if m.health.quota is None else m.health.quota
        return (-m.account.priority, -round(quota * 20), m.used_seq, m.order)


class RoundRobin(_Stateless):
    """In turn, in the order of the file, per model. One who comes back joins the present round."""

    name = "round-robin"

    def enter(self, slot: Slot, state: Round, now: float, rng: Rng) -> None:
        del now, rng
        slot.turn = max(slot.turn, state.turn)

    def coming(self, slot: Slot, state: Round, now: float) -> Rank:
        del now
        return (max(slot.turn, state.turn), slot.member.order)

    def rank(self, slot: Slot, now: float) -> Rank:
        del now
        return (slot.turn, slot.member.order)

    def chosen(self, slot: Slot, state: Round, now: float, rng: Rng) -> None:
        del now, rng
        state.turn = max(state.turn, slot.turn)
        slot.turn += 1


class _Weighted:
    """Exponential clocks; a subclass says the weight."""

    def weight(self, member: Member, now: float) -> float:
        raise NotImplementedError

    def enter(self, slot: Slot, state: Round, now: float, rng: Rng) -> None:
        slot.tick = max(slot.tick, state.tick + self._wait(slot.member, now, rng))

    def chosen(self, slot: Slot, state: Round, now: float, rng: Rng) -> None:
        state.tick = max(state.tick, slot.tick)
        slot.tick = state.tick + self._wait(slot.member, now, rng)

    def coming(self, slot: Slot, state: Round, now: float) -> Rank:
        del state
        return self.rank(slot, now)

    def rank(self, slot: Slot, now: float) -> Rank:
        raise NotImplementedError

    def _wait(self, member: Member, now: float, rng: Rng) -> float:
        return -log(1.0 - rng()) / max(self.weight(member, now), 1e-6)


class WeightedRandom(_Weighted):
    """A random draw by the accounts' `weight`."""

    name = "weighted-random"

    def weight(self, member: Member, now: float) -> float:
        del now
        return member.account.weight

    def rank(self, slot: Slot, now: float) -> Rank:
        del now
        return (slot.tick, slot.member.order)


class HealthWeighted(_Weighted):
    """Priority tier, then a random draw by health score times `weight`."""

    name = "health-weighted"

    def weight(self, member: Member, now: float) -> float:
        return member.health.score(now) * member.account.weight

    def rank(self, slot: Slot, now: float) -> Rank:
        del now
        return (-slot.member.account.priority, slot.tick, slot.member.order)


_ALL: tuple[Strategy, ...] = (
    Adaptive(), Priority(), RoundRobin(), FillFirst(), LeastUsed(), QuotaAware(), HealthWeighted(), WeightedRandom(),
)  # fmt: skip
STRATEGIES: dict[str, Strategy] = {s.name: s for s in _ALL} | {"lru": LeastUsed()}
