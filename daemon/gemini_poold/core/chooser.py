"""Which account serves this request now; else who returns first; else why nobody ever will.

Reads members, cooldowns and paces; keeps the per-model indexes and the sessions' accounts. Reserves nothing: granting
is `state.Pool`'s step, in the same call.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from math import inf
from typing import NamedTuple

from .concurrency import BUSY_S
from .cooldown import Cooldown, Cooldowns
from .health import ERROR_WORD, HELD
from .index import BlockedUntil, ModelIndex
from .member import Member
from .model import Account, AccountState, Backend, Cost, Data, Kind, Refusal, Request, Wait
from .roster import Roster
from .strategy import STRATEGIES, Rng

_MAX_SLOTS = 200_000  # over all indexes: clients may name any model, memory may not grow with their fantasy
_MAX_SESSIONS = 10_000
_ACCOUNT_LIST = "gemini-pool account list"


class Choice(NamedTuple):
    """Who serves a request now, and why. `candidates` is where the choice was made."""

    member: Member
    reason: str
    candidates: ModelIndex


class Chooser:
    """`methods`: by form, what that backend can do; a form that is missing can do everything."""

    def __init__(
        self,
        roster: Roster,
        cooldowns: Cooldowns,
        *,
        strategy: str,
        rng: Rng,
        allow_paid: bool,
        methods: Mapping[str, frozenset[str]],
    ) -> None:
        self.strategy = strategy
        self.allow_paid = allow_paid
        self._roster = roster
        self._cooldowns = cooldowns
        self._rng = rng
        self._methods = methods
        self._indexes: OrderedDict[tuple[object, ...], ModelIndex] = OrderedDict()
        self._sessions: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._regions: OrderedDict[str, str] = OrderedDict()  # session -> Vertex location that it began in
        self.pins: dict[str, tuple[str, ...]] = {}  # account -> globs of models, on a person's word

    # ---- the choice ------------------------------------------------------------------------------------------

    def choose(self, request: Request, now: float) -> Choice | Wait | Refusal:
        """A member that is free now and the reason, or when to come back, or why not. Follow up with `chose`."""
        if request.pin:
            return self._choose_pinned(request, now)
        index = self.candidates(request)
        if (self.pins or request.session) and (first := self.preferred(request, index, now)) is not None:
            return first
        particular = request.exclude or request.min_validity_s or (self._regions and self.region(request))
        fits = (lambda m: self.fits(m, request, now)) if particular else None
        member = index.take(
            request.model, now, self._blocking_for(request), fits, least=self._blocked_for_least
        )
        if member is not None:
            return Choice(member, self.strategy, index)
        if fits is None and not self.pins and (wait := self._wait(request, index, now)) is not None:
            return wait
        return self._unavailable(request, index.members(), now)

    def choose_beside(self, request: Request, now: float, avoid: str) -> Choice | None:
        """A member that is free now, but not `avoid`."""
        if request.pin:
            return None
        index = self.candidates(request)
        first = self.preferred(request, index, now) if self.pins or request.session else None
        if first is not None and first.member.id != avoid:
            return first
        member = index.take(
            request.model,
            now,
            self._blocking_for(request),
            lambda m: m.id != avoid and self.fits(m, request, now),
            least=self._blocked_for_least,
        )
        return None if member is None else Choice(member, self.strategy, index)

    def preferred(self, request: Request, index: ModelIndex, now: float) -> Choice | None:
        """Whom a person pinned, or whom the request's session stays with, where that one is free."""
        if self.pins:
            members = (self._roster.members[i] for i in self.pins if i in index.slots)
            free = [
                m
                for m in members
                if self.pinned(m.id, request.model)
                and self.fits(m, request, now)
                and self.blocked_for(m, request, now) <= now
            ]
            if free:
                return Choice(min(free, key=lambda m: index.rank_of(m, now)), "pin", index)
        kept = self._kept(request, index, now) if request.session else None
        return None if kept is None else Choice(kept, "session", index)

    def pinned(self, account_id: str, model: str) -> bool:
        """Whether a person wants this account used for `model` before all others."""
        return any(fnmatchcase(model, glob) for glob in self.pins.get(account_id, ()))

    def chose(self, request: Request, choice: Choice, now: float) -> None:
        """The request was granted as chosen: the account's rank moves on, and the session stays with it."""
        member = choice.member
        choice.candidates.chose(member, now)
        if request.session:
            key = (request.session, request.model)
            self._sessions[key] = member.id
            self._sessions.move_to_end(key)
            if len(self._sessions) > _MAX_SESSIONS:
                self._sessions.popitem(last=False)
            account = member.account
            if account.backend is Backend.VERTEX and account.location != "global":
                self._regions.setdefault(request.session, account.location)
                self._regions.move_to_end(request.session)
                if len(self._regions) > _MAX_SESSIONS:
                    self._regions.popitem(last=False)

    def candidates(self, request: Request) -> ModelIndex:
        """Who may serve such requests, as far as configuration alone can say."""
        paid = self.allow_paid if request.allow_paid is None else request.allow_paid
        key = (request.model, request.forms, request.method, request.lends, request.data, paid)
        index = self._indexes.get(key)
        if index is None:
            allowed = (m for m in self._roster.members.values() if not self.forbids(m.account, request))
            index = self._indexes[key] = ModelIndex(allowed, STRATEGIES[self.strategy], self._rng)
            most = max(16, _MAX_SLOTS // max(1, len(self._roster.members)))
            while len(self._indexes) > most:
                self._indexes.popitem(last=False)
        return index

    def forbids(self, account: Account, request: Request) -> str:
        """The error word that keeps this account from such requests by configuration alone, or empty."""
        form = account.backend.form
        can = self._methods.get(form)
        if (
            not account.allows(request.model)
            or form not in request.forms
            or (can is not None and request.method not in can)
            or (request.data is Data.NO_TRAINING and account.data is Data.MAY_TRAIN)
        ):
            return "no_account_for_model"
        if request.lends and not account.lend:
            return "not_lent"
        paid = self.allow_paid if request.allow_paid is None else request.allow_paid
        return "needs_paid" if account.cost is Cost.PAID and not paid else ""

    def fits(self, member: Member, request: Request, now: float) -> bool:
        """What is asked of an account beyond being free: not tried already, its token lives long enough."""
        return (
            member.id not in request.exclude
            and member.token_until > now + request.min_validity_s
            and not (self._regions and self.elsewhere(member.account, request))
        )

    def region(self, request: Request) -> str:
        """The Vertex location that the request's session began in and does not leave; empty when none."""
        return self._regions.get(request.session, "") if request.session and not request.pin else ""

    def elsewhere(self, account: Account, request: Request) -> bool:
        """Whether the account would take the request's session out of its region."""
        region = self.region(request)
        return bool(region) and (account.backend is not Backend.VERTEX or account.location != region)

    def blocked_until(
        self, member: Member, model: str, now: float, tokens: int = 0, *, reserve: float | None = None
    ) -> float:
        """When this account may serve `model` again; `now` or earlier means now, inf: not by time alone.

        `reserve`: the share of its quota to leave alone; None is what the user wants kept for those who ask for it."""
        if not member.may_serve(now):
            return inf
        found = self.blocking(member, model, now) if self._cooldowns else None
        kept = member.account.reserve if reserve is None else reserve
        paced = self._roster.paced_until(member, model, now, tokens, reserve=kept)
        if member.in_flight >= member.crowd.most and paced < now + BUSY_S:
            paced = now + BUSY_S
        return paced if found is None or found.until < paced else found.until

    def blocked_for(self, member: Member, request: Request, now: float) -> float:
        """The same for one request: whoever asks for the account, or has it pinned, may use its reserve, too."""
        reserve = 0.0 if self._may_use_reserve(member, request) else None
        return self.blocked_until(member, request.model, now, request.tokens, reserve=reserve)

    def kept_back(self, member: Member, request: Request, now: float) -> bool:
        """Whether only the account's reserve is left."""
        if not member.account.reserve or self._may_use_reserve(member, request):
            return False
        model, tokens = request.model, request.tokens
        return self._roster.paced_until(member, model, now, tokens) <= now and not member.full

    def resting(self, member: Member, model: str, now: float) -> list[Cooldown]:
        """Every cooldown that reaches this account and model, the longest first."""
        return self._cooldowns.reaching(
            account=member.id, bucket=member.bucket, backend=member.account.backend, model=model, now=now
        )

    def blocking(self, member: Member, model: str, now: float) -> Cooldown | None:
        """The cooldown that keeps this account from `model` the longest."""
        return self._cooldowns.blocking(
            account=member.id, bucket=member.bucket, backend=member.account.backend, model=model, now=now
        )

    def session_account(self, session: str, model: str) -> str:
        """The account this session stays with, empty when none."""
        return self._sessions.get((session, model), "")

    def pin(self, account_id: str, models: tuple[str, ...]) -> None:
        """Use the account before all others for these models (globs); none: no more."""
        self.pins.pop(account_id, None)
        if models:
            self.pins[account_id] = models

    # ---- what changed ----------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Accounts or settings changed: indexes are built anew when asked for."""
        self._indexes.clear()
        for account_id in [i for i in self.pins if i not in self._roster.members]:
            del self.pins[account_id]
        gone = [key for key, account_id in self._sessions.items() if account_id not in self._roster.members]
        for key in gone:
            del self._sessions[key]

    def touch(self, members: Iterable[Member]) -> None:
        """Something about these changed: look at them again."""
        ids = [m.id for m in members]
        for index in self._indexes.values():
            for account_id in ids:
                index.touch(account_id)

    # ---- inside ----------------------------------------------------------------------------------------------

    def _blocking_for(self, request: Request) -> BlockedUntil:
        if not (tokens := request.tokens):
            return self.blocked_until
        return lambda member, model, now: self.blocked_until(member, model, now, tokens)

    def _may_use_reserve(self, member: Member, request: Request) -> bool:
        return request.pin == member.id or bool(self.pins and self.pinned(member.id, request.model))

    def _blocked_for_least(self, member: Member, model: str, now: float) -> float:
        return self.blocked_until(member, model, now, 1)

    def _wait(self, request: Request, index: ModelIndex, now: float) -> Wait | None:
        """Who returns first, without looking at everybody; None when that is not enough to tell."""
        first = index.first_return(request.model, now, self._blocking_for(request))
        if first is None:
            return None
        until, member = first
        found = self.blocking(member, request.model, now)
        if found is not None and found.kind is Kind.MODEL_DENIED:
            return None
        for away in index.away.values():
            at = self.returns_at(away, request, now)
            if at < until:
                until, member = at, away
        return Wait(max(until, now), member.id, self._why(member, request.model, now))

    def _kept(self, request: Request, index: ModelIndex, now: float) -> Member | None:
        """The session's account while it can serve and is not poor: a warm cache outweighs a better rank."""
        account_id = self._sessions.get((request.session, request.model))
        member = self._roster.members.get(account_id) if account_id else None
        if member is None or member.id not in index.slots or not self.fits(member, request, now):
            return None
        return (
            member
            if self.blocked_until(member, request.model, now, request.tokens) <= now
            and member.health.band(now) < 2
            else None
        )

    def _choose_pinned(self, request: Request, now: float) -> Choice | Wait | Refusal:
        member = self._roster.members.get(request.pin)
        if member is None:
            return Refusal("not_found", f"there is no account {request.pin!r}", _ACCOUNT_LIST)
        word = self.forbids(member.account, request)
        if word:
            hint = f"gemini-pool explain {request.model}"
            return Refusal(word, f"account {member.id} may not serve this request", hint, member.id)
        if self.fits(member, request, now) and self.blocked_for(member, request, now) <= now:
            return Choice(member, "pinned", self.candidates(request))
        return self._unavailable(request, (member,), now)

    def _unavailable(self, request: Request, candidates: Iterable[Member], now: float) -> Wait | Refusal:
        members = list(candidates)
        if not members:
            return self._nobody(request)
        if region := self.region(request):
            members = [m for m in members if not self.elsewhere(m.account, request)]
            if not members:
                text = f"the session began in {region}, and no account there may serve {request.model}"
                return Refusal("no_account_for_model", text, "begin a new session")
        denied = 0
        best: tuple[float, Member] | None = None
        for member in members:
            found = self.blocking(member, request.model, now)
            denied += found is not None and found.kind is Kind.MODEL_DENIED
            until = self.returns_at(member, request, now)
            if until != inf and (best is None or until < best[0]):
                best = (until, member)
        if denied == len(members):
            return Refusal("unknown_model", f"no account has access to {request.model}", "gemini-pool quota")
        if best is None:
            return self._nobody_comes(members, request)
        return Wait(best[0], best[1].id, self._why(best[1], request.model, now))

    def returns_at(self, member: Member, request: Request, now: float) -> float:
        """When a member that is not free now will be, inf when only a person can change that."""
        if (
            member.id in request.exclude
            or not member.account.enabled
            or member.paused
            or member.state in HELD
        ):
            return inf
        if not member.may_serve(now, request.min_validity_s):
            return max(member.expected_at, now + 1.0)  # its token or set-up is on the way
        return max(self.blocked_for(member, request, now), now)

    def _why(self, member: Member, model: str, now: float) -> str:
        found = self.blocking(member, model, now)
        if found is not None:
            return found.reason or found.kind.value
        if member.full:
            return f"{member.in_flight} requests are under way, as many as may be at once"
        if member.cap is not None and member.cap.free_at(now) > now:
            return "its daily cap is used up"
        return member.reason or ("pacing" if member.state is AccountState.READY else member.state.value)

    def _nobody_comes(self, members: Sequence[Member], request: Request) -> Refusal:
        """None of those that may serve it returns by itself."""
        enabled = [m for m in members if m.account.enabled]
        if not enabled:  # as good as not there, so another reason may be what keeps the rest away
            refusal = self._nobody(request)
            if refusal.code != "no_account_for_model" and not request.pin:
                return refusal
            which, name = (members[0].id,) * 2 if len(members) == 1 else ("every account for it", "ID")
            text = f"no account may serve {request.model}: {which} is disabled"
            return Refusal("no_account_for_model", text, f"gemini-pool account enable {name}")
        held = next((m for m in enabled if m.state in HELD), None)
        if held is None:
            text = "every account for this model is disabled, paused or was tried"
            return Refusal("overloaded", text, "gemini-pool status")
        whose = f"account {held.id}: "
        text = whose + (held.reason or held.state.value).removeprefix(whose)
        return Refusal(ERROR_WORD[held.state], text, held.hint or "gemini-pool status", held.id)

    def _nobody(self, request: Request) -> Refusal:
        members = self._roster.members.values()
        if not members:
            return Refusal("no_account_for_model", "the pool has no accounts", "add one to accounts.toml")
        words = {self.forbids(m.account, request) for m in members if m.account.enabled}
        if "needs_paid" in words:
            text, hint = f"only paid accounts can serve {request.model}", "allow it with allow_paid"
            return Refusal("needs_paid", text, hint)
        if "not_lent" in words:
            text = f"no account that serves {request.model} lends its secret"
            return Refusal(
                "not_lent", text, "set lend = true in accounts.toml, or use pool/generate or the gateway"
            )
        return Refusal(
            "no_account_for_model",
            f"no account may serve {request.model}",
            f"gemini-pool explain {request.model}",
        )
