"""Decisions that are remembered, so that one can be asked about later: who was chosen and why, and how all stood then.

Of the newest choices everything but the verdicts is kept. Working out verdicts grows with the pool and costs more than
choosing does, so it has a budget: `RATE` a second, saved up to `SAVED`. A pool of ten accounts that serves ten requests a
second, or fifty at once, records everybody's verdict for each of them; beyond that it is a sample. Whoever has to wait or
is refused is recorded once, out of a larger budget of its own: that is what is asked about. All of it is memory: bounded,
and gone with a restart (ids are never used again).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .chooser import Chooser
from .member import Member
from .model import Refusal, Request, Wait
from .verdicts import Verdict, ordered, verdicts

MOST = 1_000  # decisions
MOST_VERDICTS = 20_000  # over all of them
RATE = 100.0  # verdicts a second: a thousandth of one core
UNSERVED_RATE = 400.0
SAVED = 500.0
_STEPPED_S = 300.0
_LARGE = 200
_LONGEST_S = 240.0


@dataclass(slots=True)
class _Budget:
    """`rate` verdicts a second. `paid_until`: what was worked out is paid for by then; at most `SAVED` ahead."""

    rate: float
    paid_until: float = 0.0

    def pays(self, members: int, now: float) -> bool:
        """Take the cost of everybody's verdict; False when that much is not there."""
        ahead_s = self.paid_until - now
        if ahead_s > SAVED / self.rate:
            if ahead_s < _STEPPED_S:
                return False
            ahead_s = 0.0  # the clock was set back
        # A large pool pays more than its share, because it keeps whoever asks waiting for so long.
        cost_s = min(members / self.rate * max(1.0, members / _LARGE), _LONGEST_S)
        self.paid_until = now + max(0.0, ahead_s) + cost_s
        return True


@dataclass(slots=True)
class Decision:
    """One decision. `account_id`: who was chosen, or (with `until`) who was to return first. `code`: the error word of
    who was not served at once. `verdicts`: everybody's at that moment, None where they were not recorded."""

    id: str
    request: Request
    at: float
    account_id: str
    reason: str
    strategy: str
    code: str = ""
    until: float | None = None
    verdicts: tuple[Verdict, ...] | None = None


class Decisions:
    """The newest `MOST` decisions by id, oldest first."""

    def __init__(self, chooser: Chooser, *, prefix: str = "") -> None:
        self._chooser = chooser
        self._prefix = prefix
        self._by_id: OrderedDict[str, Decision] = OrderedDict()
        self._whole: OrderedDict[str, int] = OrderedDict()  # those with verdicts, and how many
        self._verdicts = 0
        self._unserved: OrderedDict[tuple[str, int], str] = OrderedDict()  # request and attempt -> decision
        self._serial = 0
        self._granted, self._refused = _Budget(RATE), _Budget(UNSERVED_RATE)

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Decision]:
        return iter(self._by_id.values())

    def newest(self, count: int) -> list[Decision]:
        """The newest first."""
        return [d for d, _ in zip(reversed(self._by_id.values()), range(count), strict=False)]

    def get(self, decision_id: str) -> Decision | None:
        return self._by_id.get(decision_id)

    def look(self, members: Mapping[str, Member], request: Request, now: float) -> tuple[Verdict, ...] | None:
        """Everybody's verdict before anything is reserved; None when the budget is spent."""
        if not self._granted.pays(len(members), now):
            return None
        return verdicts(self._chooser, members.values(), request, now)

    def add(self, decision: Decision) -> None:
        """Keep it, and let the oldest go."""
        self._by_id[decision.id] = decision
        if decision.verdicts is not None:
            self._whole[decision.id] = len(decision.verdicts)
            self._verdicts += len(decision.verdicts)
            while self._verdicts > MOST_VERDICTS and len(self._whole) > 1:
                old, count = self._whole.popitem(last=False)
                self._verdicts -= count
                self._by_id[old].verdicts = None
        if len(self._by_id) > MOST:
            gone, _ = self._by_id.popitem(last=False)
            self._verdicts -= self._whole.pop(gone, 0)

    def add_unserved(
        self, answer: Wait | Refusal, members: Mapping[str, Member], request: Request, now: float
    ) -> str:
        """Keep why a request was not served at once; asked again, the first one stands. Returns the decision's id, empty
        when there was no budget for it."""
        key = (request.id, request.attempt)
        known = self._unserved.get(key, "")
        if known in self._by_id:
            return known
        if not self._refused.pays(len(members), now):
            return ""
        found = verdicts(self._chooser, members.values(), request, now)
        self._serial += 1
        code, until = ("all_cooling_down", answer.until) if isinstance(answer, Wait) else (answer.code, None)
        new = Decision(
            f"{self._prefix}w{self._serial:x}", request, now, answer.account_id, answer.reason,
            self._chooser.strategy, code, until, found,
        )  # fmt: skip
        self.add(new)
        if request.id and until is not None:
            self._unserved[key] = new.id
            if len(self._unserved) > MOST:
                self._unserved.popitem(last=False)
        return new.id


def standing(decision: Decision) -> tuple[Verdict, ...]:
    """The verdicts of that moment with the chosen one marked, best first."""
    return ordered(decision.verdicts or (), None if decision.code else decision.account_id)
