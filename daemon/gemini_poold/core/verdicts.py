"""One account's standing for one request, with its evidence: what `explain` shows and what a recorded decision keeps.

Reads what the chooser reads and changes nothing. The pool's own path asks this only for decisions that are recorded.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import NamedTuple

from .chooser import Chooser
from .cooldown import Cooldown
from .health import HELD
from .index import ModelIndex
from .member import Member
from .model import AccountState, CooldownRow, Request
from .pacing import Known


class Verdict(NamedTuple):
    """`verdict`: "chosen", "available", or the word for what keeps it out. `rank`: of who is free; the lowest is next.
    `cooldowns`: all that reach it, the longest first. `limits`: what is known of its bucket, where it matters."""

    account_id: str
    verdict: str
    reason: str
    available: bool
    returns_at: float | None
    rank: tuple[float, ...]
    cooldowns: tuple[CooldownRow, ...] = ()
    limits: tuple[Known, ...] = ()


def verdicts(
    chooser: Chooser, members: Iterable[Member], request: Request, now: float, *, limits: bool = False
) -> tuple[Verdict, ...]:
    """Everybody's, in the order of the file. `limits`: name everybody's known limits, not only those that keep one out."""
    index = chooser.candidates(request)
    return tuple(_verdict(chooser, index, member, request, now, limits) for member in members)


def ordered(found: Iterable[Verdict], chosen: str | None) -> tuple[Verdict, ...]:
    """With the chosen one marked and first, then who is free, best first, then by return."""
    marked = (v._replace(verdict="chosen", available=True) if v.account_id == chosen else v for v in found)
    return tuple(
        sorted(
            marked, key=lambda v: (v.account_id != chosen, not v.available, v.rank, _or_never(v.returns_at))
        )
    )


def _verdict(
    chooser: Chooser, index: ModelIndex, member: Member, request: Request, now: float, limits: bool
) -> Verdict:
    word = "" if member.id in index.slots else chooser.forbids(member.account, request)
    if word:
        return Verdict(member.id, word, _WORDS.get(word, word), False, None, ())
    if request.pin and member.id != request.pin:
        return Verdict(member.id, "not_asked", f"the request asks for {request.pin}", False, None, ())
    if chooser.elsewhere(member.account, request):
        reason = f"the session began in {chooser.region(request)} and stays there"
        return Verdict(member.id, "other_region", reason, False, None, ())
    if not member.account.enabled or member.paused or member.state in HELD:
        state = member.shown_state
        return Verdict(member.id, state.value, member.reason or state.value, False, None, ())
    known = _known(member, request.model, now) if limits else ()
    if not member.may_serve(now, request.min_validity_s):
        expected, reason = max(member.expected_at, now), member.reason or "token on its way"
        return Verdict(member.id, _waiting_word(member), reason, False, expected, (), (), known)
    if member.id in request.exclude:
        return Verdict(member.id, "excluded", "tried already, or the request excludes it", False, None, ())
    return _by_time(chooser, index, member, request, now, known)


def _by_time(
    chooser: Chooser,
    index: ModelIndex,
    member: Member,
    request: Request,
    now: float,
    known: tuple[Known, ...],
) -> Verdict:
    """What cooldowns, limits and caps say."""
    until = chooser.blocked_for(member, request, now)
    resting = tuple(c.row() for c in chooser.resting(member, request.model, now))
    if until <= now:
        rank = index.rank_of(member, now)
        return Verdict(member.id, "available", _standing(member, now), True, None, rank, resting, known)
    found = chooser.blocking(member, request.model, now)
    returns = None if until == inf else until
    if found is not None:
        return Verdict(member.id, "cooling", _evidence(found), False, returns, (), resting, known)
    known = known or _known(member, request.model, now)
    word, reason = _paced(chooser, member, request, now, known)
    return Verdict(member.id, word, reason, False, returns, (), resting, known)


def _known(member: Member, model: str, now: float) -> tuple[Known, ...]:
    pace = member.book.get(model)
    own = () if member.cap is None else member.cap.known(now)
    return (*(() if pace is None else pace.known_limits(now)), *own)


def _paced(
    chooser: Chooser, member: Member, request: Request, now: float, known: tuple[Known, ...]
) -> tuple[str, str]:
    if member.full:
        most, why = member.crowd.most, "learnt from refusals" if member.crowd.learned else "configured"
        return "busy", f"{member.in_flight} of {most} requests at once are under way ({why})"
    if member.cap is not None and member.cap.free_at(now) > now:
        return "daily_cap", "its daily cap is used up"
    if chooser.kept_back(member, request, now):
        share = f"{member.account.reserve:.0%} of its quota"
        return "reserved", f"{share} is kept for requests that ask for it"
    full = max((k for k in known if k.limit), key=lambda k: k.used / k.limit, default=None)
    if full is None:
        return "pacing", "kept below its known limit"
    return "pacing", f"{full.used:g} of {full.limit:g} {full.what} sent ({full.source})"


def _evidence(c: Cooldown) -> str:
    return f"{c.reason or c.kind} ({'told' if c.told else 'guessed'} by {c.source or c.kind})"


def _waiting_word(member: Member) -> str:
    return member.state.value if member.state is not AccountState.READY else "token_expired"


def _standing(member: Member, now: float) -> str:
    return f"priority {member.account.priority}, health {member.health.score(now):.2f}"


def _or_never(at: float | None) -> float:
    return inf if at is None else at


_WORDS = {
    "no_account_for_model": "its models, backend, form or data class do not fit",
    "needs_paid": "paid, and the request may not cost",
    "not_lent": "its secret is not lent",
}
