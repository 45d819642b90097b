"""Why: every account's verdict for a request, now or as a recorded decision saw it. A dry run that changes nothing.

The pool's own path never asks this; it looks at the accounts it needs. Here all of them are looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

from .chooser import Choice
from .decisions import Decision, standing
from .health import ERROR_WORD, HELD
from .model import Refusal, Request
from .state import Pool
from .verdicts import Verdict, ordered, verdicts

__all__ = ["Explanation", "Verdict", "explain", "explain_decision"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """The choice, every verdict (best first), and who returns first when nobody is free. `recorded`: the verdicts are
    those of the instant `at`; False: they were not kept, and there are none."""

    model: str
    at: float
    strategy: str
    chosen: str | None
    reason: str
    code: str | None
    verdicts: tuple[Verdict, ...]
    next_return_at: float | None
    next_return_account: str | None
    decision: str = ""
    recorded: bool = True


def explain(pool: Pool, request: Request, now: float) -> Explanation:
    """What would be chosen for `request` at `now`, and why."""
    found = verdicts(pool.chooser, pool.members.values(), request, now, limits=True)
    chosen, reason = _choose(pool, request, [v for v in found if v.available], now)
    waits = [] if chosen else [(v.returns_at, v.account_id) for v in found if v.returns_at is not None]
    next_at, next_account = min(waits) if waits else (None, None)
    code = None if chosen else _code(pool, request, waits, now)
    if code == "all_cooling_down":
        reason = f"{next_account} returns first"
    return Explanation(
        request.model, now, pool.strategy, chosen, reason, code, ordered(found, chosen), next_at, next_account
    )


def explain_decision(decision: Decision) -> Explanation:
    """A recorded decision, as it was."""
    served = not decision.code
    first = None if decision.until is None else decision.account_id
    return Explanation(
        decision.request.model, decision.at, decision.strategy, decision.account_id if served else None,
        decision.reason, decision.code or None, standing(decision), decision.until, first, decision.id,
        decision.verdicts is not None,
    )  # fmt: skip


def _choose(pool: Pool, request: Request, free: list[Verdict], now: float) -> tuple[str | None, str]:
    if pool.paused or not free:
        return None, "the pool is paused" if pool.paused else "nobody is free"
    if request.pin:
        return request.pin, "pinned"
    first = pool.chooser.preferred(request, pool.chooser.candidates(request), now)
    if first is not None:
        return first.member.id, first.reason
    return min(free, key=lambda v: v.rank).account_id, pool.strategy


def _code(pool: Pool, request: Request, waits: list[tuple[float, str]], now: float) -> str | None:
    if pool.paused:
        return "overloaded"
    if waits:
        return "all_cooling_down"
    answer = pool.chooser.choose(request, now)  # nobody is free, so this chooses nobody
    assert not isinstance(answer, Choice)
    return answer.code if isinstance(answer, Refusal) else "all_cooling_down"


assert set(ERROR_WORD) == HELD  # every held state has a word
