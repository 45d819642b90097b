"""Why: every account's verdict for a request, now or at a recorded decision. A dry run that changes nothing.

The pool's own path never asks this; it looks at the accounts it needs. Here all of them are looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from .health import ERROR_WORD, HELD
from .member import Member
from .model import AccountState, Refusal, Request
from .state import Decision, Pool


@dataclass(frozen=True, slots=True)
class Verdict:
    """One account's standing. `verdict`: "chosen", "available", or the word for what keeps it out."""

    account_id: str
    verdict: str
    reason: str
    available: bool
    returns_at: float | None
    rank: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """The choice, every verdict (best first), and who returns first when nobody is free."""

    model: str
    at: float
    strategy: str
    chosen: str | None
    reason: str
    code: str | None
    verdicts: tuple[Verdict, ...]
    next_return_at: float | None
    next_return_account: str | None


def explain(pool: Pool, request: Request, now: float) -> Explanation:
    """What would be chosen for `request` at `now`, and why."""
    verdicts = [_verdict(pool, member, request, now) for member in pool.members.values()]
    free = sorted((v for v in verdicts if v.available), key=lambda v: v.rank)
    chosen, reason = _choose(pool, request, free)
    shown = sorted(
        (_mark(v, chosen) for v in verdicts),
        key=lambda v: (v.account_id != chosen, not v.available, v.rank, v.returns_at or inf),
    )
    waits = [(v.returns_at, v.account_id) for v in verdicts if v.returns_at is not None]
    first = min(waits, default=(None, None)) if chosen is None else (None, None)
    code = None if chosen else _code(pool, request, waits, now)
    if code == "all_cooling_down":
        reason = f"{first[1]} returns first"
    return Explanation(request.model, now, pool.strategy, chosen, reason, code, tuple(shown), *first)


def explain_decision(pool: Pool, decision: Decision, now: float) -> Explanation:
    """A recorded choice. Who else was out, and why, is told as far as it is still remembered."""
    verdicts = [
        Verdict(decision.account_id, "chosen", decision.reason, True, None, ()),
        *(
            _verdict_then(pool, member, decision)
            for member in pool.members.values()
            if member.id != decision.account_id
        ),
    ]
    del now
    return Explanation(
        decision.request.model, decision.at, pool.strategy, decision.account_id, decision.reason, None,
        tuple(verdicts), None, None,
    )  # fmt: skip


def _choose(pool: Pool, request: Request, free: list[Verdict]) -> tuple[str | None, str]:
    if pool.paused or not free:
        return None, "the pool is paused" if pool.paused else "nobody is free"
    ids = {v.account_id for v in free}
    if request.pin:
        return (request.pin, "pinned") if request.pin in ids else (None, f"{request.pin} is not free")
    kept = pool.chooser.session_account(request.session, request.model) if request.session else ""
    if kept in ids:
        return kept, "session"
    return free[0].account_id, pool.strategy


def _mark(verdict: Verdict, chosen: str | None) -> Verdict:
    if verdict.account_id != chosen:
        return verdict
    return Verdict(verdict.account_id, "chosen", verdict.reason, True, None, verdict.rank)


def _code(pool: Pool, request: Request, waits: list[tuple[float, str]], now: float) -> str | None:
    if waits and not pool.paused:
        return "all_cooling_down"
    refusal = pool.acquire(request, now)  # nobody is free, so this reserves nothing
    return refusal.code if isinstance(refusal, Refusal) else "all_cooling_down"


def _verdict(pool: Pool, member: Member, request: Request, now: float) -> Verdict:
    word = pool.chooser.forbids(member.account, request)
    if word:
        return Verdict(member.id, word, _WORDS.get(word, word), False, None, ())
    if not member.account.enabled or member.paused or member.state in HELD:
        state = member.shown_state
        return Verdict(member.id, state.value, member.reason or state.value, False, None, ())
    if not member.may_serve(now, request.min_validity_s):
        expected = max(member.expected_at, now)
        return Verdict(
            member.id, _waiting_word(member), member.reason or "token on its way", False, expected, ()
        )
    if member.id in request.exclude:
        return Verdict(member.id, "excluded", "the request excludes it", False, None, ())
    until = pool.chooser.blocked_until(member, request.model, now)
    rank = pool.chooser.candidates(request).rank_of(member, now)
    if until <= now:
        return Verdict(member.id, "available", _standing(member, now), True, None, rank)
    cooldown = pool.chooser.blocking(member, request.model, now)
    if cooldown is None:
        return Verdict(member.id, "pacing", "kept below its known limit", False, until, rank)
    source = f"{'told' if cooldown.told else 'guessed'} by {cooldown.source or cooldown.kind}"
    return Verdict(member.id, "cooling", f"{cooldown.reason or cooldown.kind} ({source})", False, until, rank)


def _verdict_then(pool: Pool, member: Member, decision: Decision) -> Verdict:
    word = pool.chooser.forbids(member.account, decision.request)
    if word:
        return Verdict(member.id, word, _WORDS.get(word, word), False, None, ())
    cooldown = pool.chooser.blocking(member, decision.request.model, decision.at)
    if cooldown is not None and cooldown.since <= decision.at:
        return Verdict(member.id, "cooling", cooldown.reason or cooldown.kind, False, cooldown.until, ())
    if member.state in HELD and member.since_at <= decision.at:
        return Verdict(member.id, member.state.value, member.reason or member.state.value, False, None, ())
    return Verdict(member.id, "available", "ranked behind, or no longer remembered", True, None, ())


def _waiting_word(member: Member) -> str:
    return member.state.value if member.state is not AccountState.READY else "token_expired"


def _standing(member: Member, now: float) -> str:
    return f"priority {member.account.priority}, health {member.health.score(now):.2f}"


_WORDS = {
    "no_account_for_model": "its models, backend, form or data class do not fit",
    "needs_paid": "paid, and the request may not cost",
    "not_lent": "its secret is not lent",
}
assert set(ERROR_WORD) == HELD  # every held state has a word
