"""The pool: takes what happened and when, answers what to do. The only code that changes the pool's state.

Events come in as calls with `now`; decisions go out as values (`Grant | Wait | Refusal`, `Settled`); what must
survive a restart is taken with `take_rows()`, what is worth telling with `take_events()`. `next_deadline()` says when
`expire()` has something to do. Why an account was not chosen is `explain.py`'s business.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

from .cooldown import Cooldown, Cooldowns, Key, key_of
from .health import ERROR_WORD, HELD, Event
from .index import ModelIndex
from .leases import Leases, UnknownLease
from .member import Member
from .model import (
    Account,
    AccountRow,
    AccountState,
    CooldownRow,
    Cost,
    CounterRow,
    DailyCap,
    DiscoveryRow,
    Grant,
    Kind,
    Lease,
    Limits,
    Outcome,
    PoolEvent,
    Refusal,
    Request,
    Row,
    Scope,
    Settled,
    TotalRow,
    Usage,
    Wait,
)
from .pacing import Cap, Pace, tightest
from .strategy import STRATEGIES, Rng

__all__ = ["Changes", "Decision", "Pool", "UnknownLease"]

_MAX_SLOTS = 200_000  # over all indexes: clients may name any model, memory may not grow with their fantasy
_MAX_SESSIONS = 10_000
_MAX_DECISIONS = 1_000
_MAX_FAULTS = 4  # 5xx and network failures one request may meet before its client is told
_MAX_ATTEMPTS = 30
_TOTALS = (
    "requests",
    "answered",
    "failed",
    "rotations",
    "absorbed",
    "renewals",
    "renewed_ahead",
    "waited_for_token",
)
_PASSING = frozenset({Kind.RATE, Kind.DAILY, Kind.CAPACITY, Kind.TRANSIENT, Kind.UNAUTHENTICATED})


@dataclass(frozen=True, slots=True)
class Changes:
    """What `configure` did, by account id."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    unchanged: int


@dataclass(frozen=True, slots=True)
class Decision:
    """A recorded choice."""

    id: str
    request: Request
    at: float
    account_id: str
    reason: str


class Pool:
    """All accounts, what they may do now, and who has borrowed them.

    `strategy`: a name of `strategy.STRATEGIES`. `rng`: uniform in [0, 1). `prefix`: makes ids unique over restarts.
    """

    def __init__(
        self,
        *,
        strategy: str = "adaptive",
        rng: Rng,
        allow_paid: bool = True,
        lease_ttl_s: float = 600.0,
        prefix: str = "",
        methods: Mapping[str, frozenset[str]] | None = None,
    ) -> None:
        self._rng = rng
        self._prefix = prefix
        self._methods = methods or {}  # by form: what that backend can do; missing means everything
        self.strategy = strategy
        self.allow_paid = allow_paid
        self.lease_ttl_s = lease_ttl_s
        self.paused = False
        self.members: dict[str, Member] = {}
        self.cooldowns = Cooldowns()
        self.leases = Leases()
        self.totals: dict[str, int] = dict.fromkeys(_TOTALS, 0)
        self.decisions: OrderedDict[str, Decision] = OrderedDict()
        self._indexes: OrderedDict[tuple[object, ...], ModelIndex] = OrderedDict()
        self._sessions: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._paces: dict[tuple[str, str], Pace] = {}
        self._bucket_limits: dict[str, Limits] = {}
        self._serial = 0
        self._known: dict[str, tuple[AccountRow | None, dict[str, CounterRow], DiscoveryRow | None]] = {}
        self._dirty_members: set[str] = set()
        self._dirty_counters: set[tuple[str, str]] = set()
        self._dirty_totals: set[str] = set()
        self._rows: list[Row] = []
        self._events: list[PoolEvent] = []

    # ---- configuration ---------------------------------------------------------------------------------------

    def configure(
        self, accounts: Sequence[Account], now: float, *, relogged: frozenset[str] = frozenset()
    ) -> Changes:
        """Take the accounts as the user wants them. Leases of removed accounts run on; everything else adapts.

        `relogged`: ids whose credential changed, so that a held account starts anew.
        """
        old, added, changed = self.members, [], []
        members: dict[str, Member] = {}
        for order, account in enumerate(accounts):
            member = old.get(account.id)
            if member is None:
                member = self._new_member(account, order, now)
                added.append(account.id)
            elif member.account != account or account.id in relogged:
                self._edit_member(member, account, now, restart=account.id in relogged)
                changed.append(account.id)
            member.order = order
            members[account.id] = member
        removed = [i for i in old if i not in members]
        for account_id in removed:
            self._forget(account_id)
        self.members = members
        self._rebuild()
        return Changes(tuple(added), tuple(removed), tuple(changed), len(members) - len(added) - len(changed))

    def reselect(self, *, strategy: str, allow_paid: bool) -> None:
        """Take new selection settings."""
        self.strategy, self.allow_paid = strategy, allow_paid
        self._indexes.clear()

    def restore(self, rows: Iterable[Row], now: float) -> None:
        """Take back what an earlier run saved. Call before `configure`; accounts that are gone are ignored then."""
        for row in rows:
            match row:
                case CooldownRow():
                    self.cooldowns.restore(row, now)
                case TotalRow():
                    self.totals[row.name] = row.value
                case AccountRow():
                    counters, discovery = self._kept(row.account_id)[1:]
                    self._known[row.account_id] = (row, counters, discovery)
                case CounterRow():
                    self._kept(row.account_id)[1][row.model] = row
                case DiscoveryRow():
                    account, counters, _ = self._kept(row.account_id)
                    self._known[row.account_id] = (account, counters, row)

    # ---- choosing --------------------------------------------------------------------------------------------

    def acquire(
        self, request: Request, now: float, *, owner: str = "", detached: bool = False
    ) -> Grant | Wait | Refusal:
        """Choose and reserve an account for `request`, or say when to come back, or why never."""
        if self.paused:
            return Refusal("overloaded", "the pool is paused", "gemini-pool resume")
        if request.pin:
            return self._acquire_pinned(request, now, owner, detached)
        index = self._index(request)
        if request.session:
            kept = self._sessions.get((request.session, request.model))
            member = self.members.get(kept) if kept else None
            if (
                member is not None
                and member.id in index.slots
                and self._fits(member, request, now)
                and self._blocked_until(member, request.model, now) <= now
                and self._still_best_tier(index, member, now)
            ):
                return self._grant(request, index, member, now, owner, detached, "session")
        dynamic = request.exclude or request.min_validity_s
        fits = (lambda m: self._fits(m, request, now)) if dynamic else None
        model = request.model
        member = index.take(now, lambda m, t: self._blocked_until(m, model, t), fits)
        if member is None:
            return self._unavailable(request, index, now)
        return self._grant(request, index, member, now, owner, detached, self.strategy)

    def settle(
        self,
        lease_id: str,
        outcome: Outcome,
        now: float,
        *,
        usage: Usage | None = None,
        first_byte_s: float | None = None,
    ) -> Settled:
        """End a lease with what came of it. Raises UnknownLease when it ended before."""
        lease = self._end(lease_id)
        member = self.members.get(lease.account_id)
        if member is None:  # removed from the file while its request ran
            return self._settled(lease, outcome)
        if usage is not None:
            self._count_usage(member, lease.request.model, usage, now)
        if outcome.kind is Kind.OK:
            self._succeeded(member, lease, now, first_byte_s)
        else:
            self._failed(member, lease, outcome, now)
        return self._settled(lease, outcome)

    def give_up(self, request: Request) -> None:
        """The client of a request that was to be tried again is told a failure instead."""
        del request
        self._count("failed")

    def release(self, lease_id: str, now: float) -> Lease:
        """End a lease that was not used."""
        del now
        return self._end(lease_id)

    def renew(self, lease_id: str, now: float) -> Lease:
        return self.leases.renew(lease_id, self._lease_end(self.leases.get(lease_id).account_id, now))

    def release_owner(self, owner: str, now: float) -> int:
        """The owner is gone: free its leases, but for the detached ones."""
        freed = [lease for lease in self.leases.of_owner(owner) if not lease.detached]
        for lease in freed:
            self.release(lease.id, now)
        return len(freed)

    def expire(self, now: float) -> None:
        """End what ran out: leases without a report count as spent, outcome unknown."""
        for lease in self.leases.expired(now):
            self._end(lease.id)
            self._tell("request", "warning", now, f"lease {lease.id} ran out without a report", lease.account_id,
                       lease.request.model)  # fmt: skip
        self.cooldowns.sweep(now)

    def next_deadline(self) -> float:
        return self.leases.next_end()

    # ---- what the shell learns -------------------------------------------------------------------------------

    def token_ready(self, account_id: str, now: float, *, expires_at: float = inf) -> None:
        """The account has a token until `expires_at`, and its set-up is done."""
        member = self.members.get(account_id)
        if member is not None:
            member.token_until = expires_at
            self._move(member, Event.USABLE, now, "ready")
            self._touch(member)

    def unreachable(self, account_id: str, now: float, *, reason: str, retry_at: float) -> None:
        """Token or set-up cannot be had for now. A token that is still valid goes on serving."""
        member = self.members.get(account_id)
        if member is not None:
            member.expected_at = retry_at
            if member.token_until <= now:
                member.reason = reason
                self._move(member, Event.UNREACHABLE, now, reason)

    def refuse(
        self, account_id: str, state: AccountState, now: float, *, reason: str, hint: str = "", url: str = ""
    ) -> None:
        """Google or the credential said what the account is."""
        member = self.members.get(account_id)
        if member is not None:
            self._hold(member, Outcome(Kind.ACCOUNT, state=state, reason=reason, hint=hint, url=url), now)

    def discovered(self, row: DiscoveryRow) -> None:
        """Set-up found the project to send, the tier, and whose account it is."""
        member = self.members.get(row.account_id)
        if member is not None:
            member.project, member.tier, member.email, member.sub = row.project, row.tier, row.email, row.sub
            self._rows.append(row)
            self._place(member)

    def project_of(self, account_id: str) -> str:
        """The project to send with this account's requests; empty when none is known."""
        member = self.members.get(account_id)
        return "" if member is None else member.account.project or member.project

    def quota_left(self, account_id: str, fraction: float | None) -> None:
        """The tightest remaining fraction of the account's quota, as last read."""
        member = self.members.get(account_id)
        if member is not None and member.health.quota != fraction:
            member.health.quota = fraction
            self._touch(member)

    # ---- what people say -------------------------------------------------------------------------------------

    def pause(self, account_id: str | None, now: float, *, paused: bool = True) -> None:
        """Send nothing new with this account (None: with any), or do so again."""
        if account_id is None:
            self.paused = paused
            self._tell("account", "info", now, "pool paused" if paused else "pool resumed")
            return
        member = self.members[account_id]
        member.paused = paused
        self._dirty_members.add(account_id)
        self._tell("account", "info", now, "paused" if paused else "resumed", account_id)
        self._touch(member)

    def clear_cooldown(self, account_id: str = "", model: str = "") -> int:
        """Forget cooldowns on a person's word; returns how many."""
        member = self.members.get(account_id)
        cleared = self.cooldowns.clear(
            account=account_id, bucket=member.bucket if member else "", model=model
        )
        for each in self.members.values():
            self._touch(each)
        return cleared

    def clear_state(self, account_id: str, now: float) -> None:
        """A person says: try this account again."""
        self._move(self.members[account_id], Event.CLEARED, now, "cleared")

    # ---- what goes out ---------------------------------------------------------------------------------------

    def take_rows(self) -> list[Row]:
        """Rows that must survive, of everything that changed since the last call."""
        rows, self._rows = self._rows, []
        rows.extend(self.cooldowns.take_rows())
        members = self.members
        rows.extend(members[i].row() for i in self._dirty_members if i in members)
        rows.extend(members[i].counter(m).row(i, m) for i, m in self._dirty_counters if i in members)
        rows.extend(TotalRow(name, self.totals[name]) for name in self._dirty_totals)
        self._dirty_members.clear()
        self._dirty_counters.clear()
        self._dirty_totals.clear()
        return rows

    @property
    def urgent(self) -> bool:
        """Whether something changed that a crash must not lose, beyond mere counters."""
        return bool(self._rows or self._dirty_members or self.cooldowns.changed)

    def take_events(self) -> list[PoolEvent]:
        events, self._events = self._events, []
        return events

    def count(self, name: str, by: int = 1) -> None:
        """Add to one of the pool's totals."""
        self._count(name, by)

    def tell(self, event: PoolEvent) -> None:
        """Queue an event of the shell's (a renewal, a reload) with the pool's own."""
        self._events.append(event)

    # ---- for explain.py --------------------------------------------------------------------------------------

    def candidates(self, request: Request) -> ModelIndex:
        """The index that would serve `request`."""
        return self._index(request)

    def blocked_until(self, member: Member, model: str, now: float) -> float:
        """When this account may serve `model` again; `now` or earlier means now, inf: not by time alone."""
        return self._blocked_until(member, model, now)

    def blocking_cooldown(self, member: Member, model: str, now: float) -> Cooldown | None:
        return self.cooldowns.blocking(
            account=member.id, bucket=member.bucket, backend=member.account.backend, model=model, now=now
        )

    def session_account(self, session: str, model: str) -> str:
        """The account this session stays with, empty when none."""
        return self._sessions.get((session, model), "")

    def fits(self, member: Member, request: Request, now: float) -> bool:
        return self._fits(member, request, now)

    def allowed(self, account: Account, request: Request) -> str:
        """The error word that keeps this account from such requests by configuration alone, or empty."""
        if not account.allows(request.model):
            return "no_account_for_model"
        form = account.backend.form
        if form not in request.forms or request.method not in self._methods.get(
            form, frozenset((request.method,))
        ):
            return "no_account_for_model"
        if request.lends and not account.lend:
            return "not_lent"
        if request.data is not None and account.data is not request.data and request.data == "no-training":
            return "no_account_for_model"
        paid = self.allow_paid if request.allow_paid is None else request.allow_paid
        return "needs_paid" if account.cost is Cost.PAID and not paid else ""

    # ---- inside: choosing ------------------------------------------------------------------------------------

    def _index(self, request: Request) -> ModelIndex:
        paid = self.allow_paid if request.allow_paid is None else request.allow_paid
        key = (request.model, request.forms, request.method, request.lends, request.data, paid)
        index = self._indexes.get(key)
        if index is None:
            allowed = (m for m in self.members.values() if not self.allowed(m.account, request))
            index = ModelIndex(allowed, STRATEGIES[self.strategy], self._rng)
            self._indexes[key] = index
            most = max(16, _MAX_SLOTS // max(1, len(self.members)))
            while len(self._indexes) > most:
                self._indexes.popitem(last=False)
        return index

    def _blocked_until(self, member: Member, model: str, now: float) -> float:
        if not member.may_serve(now):
            return inf
        found = self.cooldowns.blocking(
            account=member.id, bucket=member.bucket, backend=member.account.backend, model=model, now=now
        )
        until = 0.0 if found is None else found.until
        if self._paces and (pace := self._paces.get((member.bucket, model))) is not None:
            until = max(until, pace.free_at(now))
        if member.cap is not None:
            until = max(until, member.cap.free_at(now))
        return until

    def _fits(self, member: Member, request: Request, now: float) -> bool:
        return member.id not in request.exclude and member.token_until > now + request.min_validity_s

    def _still_best_tier(self, index: ModelIndex, member: Member, now: float) -> bool:
        """A session stays unless its account became poor; higher tiers do not pull it away (a warm cache counts)."""
        del index
        return member.health.band(now) < 2

    def _acquire_pinned(
        self, request: Request, now: float, owner: str, detached: bool
    ) -> Grant | Wait | Refusal:
        member = self.members.get(request.pin)
        if member is None:
            return Refusal("not_found", f"there is no account {request.pin!r}", "gemini-pool account list")
        word = self.allowed(member.account, request)
        if word:
            return Refusal(
                word, f"account {member.id} may not serve this request", "gemini-pool explain", member.id
            )
        index = self._index(request)
        until = self._blocked_until(member, request.model, now)
        if until <= now and self._fits(member, request, now):
            return self._grant(request, index, member, now, owner, detached, "pinned")
        return self._unavailable(request, index, now, only=member)

    def _grant(
        self,
        request: Request,
        index: ModelIndex,
        member: Member,
        now: float,
        owner: str,
        detached: bool,
        reason: str,
    ) -> Grant:
        self._serial += 1
        serial = f"{self._prefix}{self._serial:x}"
        member.last_used_at, member.used_seq = now, self._serial
        member.in_flight += 1
        index.chose(member, now)
        self._spend(member, request.model, now)
        if request.session:
            self._remember_session(request, member)
        if request.attempt == 1:
            self._count("requests")
        lease = Lease(
            serial,
            request,
            member.id,
            owner,
            now,
            self._lease_end(member.id, now),
            serial,
            request.attempt,
            detached,
        )
        self.leases.add(lease)
        self.decisions[serial] = Decision(serial, request, now, member.id, reason)
        if len(self.decisions) > _MAX_DECISIONS:
            self.decisions.popitem(last=False)
        return Grant(lease, member.account, reason)

    def _spend(self, member: Member, model: str, now: float) -> None:
        limits = self._bucket_limits.get(member.bucket)
        if limits is not None:
            pace = self._paces.get((member.bucket, model))
            if pace is None:
                pace = self._paces[member.bucket, model] = Pace(limits)
            pace.spend(now)
        if member.cap is not None:
            member.cap.spend(now, requests=1)

    def _remember_session(self, request: Request, member: Member) -> None:
        key = (request.session, request.model)
        self._sessions[key] = member.id
        self._sessions.move_to_end(key)
        if len(self._sessions) > _MAX_SESSIONS:
            self._sessions.popitem(last=False)

    def _lease_end(self, account_id: str, now: float) -> float:
        member = self.members.get(account_id)
        token_until = inf if member is None else member.token_until
        return min(now + self.lease_ttl_s, token_until)

    def _unavailable(
        self, request: Request, index: ModelIndex, now: float, *, only: Member | None = None
    ) -> Wait | Refusal:
        members = [only] if only is not None else list(index.members())
        if not members:
            return self._nobody(request)
        denied = 0
        best: tuple[float, Member] | None = None
        for member in members:
            until = self._returns_at(member, request, now)
            found = self.blocking_cooldown(member, request.model, now)
            denied += found is not None and found.kind is Kind.MODEL_DENIED
            if until != inf and (best is None or until < best[0]):
                best = (until, member)
        if denied == len(members):
            return Refusal("unknown_model", f"no account has access to {request.model}", "gemini-pool quota")
        if best is None:
            return self._all_held(members)
        return Wait(best[0], best[1].id, self._why(best[1], request.model, now))

    def _returns_at(self, member: Member, request: Request, now: float) -> float:
        if (
            member.id in request.exclude
            or not member.account.enabled
            or member.paused
            or member.state in HELD
        ):
            return inf
        if not member.may_serve(now, request.min_validity_s):
            return max(member.expected_at, now + 1.0)  # its token or set-up is on the way
        return max(self._blocked_until(member, request.model, now), now)

    def _why(self, member: Member, model: str, now: float) -> str:
        found = self.blocking_cooldown(member, model, now)
        if found is not None:
            return found.reason or found.kind
        return member.reason or ("pacing" if member.state is AccountState.READY else member.state.value)

    def _nobody(self, request: Request) -> Refusal:
        words = {self.allowed(m.account, request) for m in self.members.values()}
        if not self.members:
            return Refusal("no_account_for_model", "the pool has no accounts", "add one to accounts.toml")
        for word, text, hint in (
            ("needs_paid", f"only paid accounts can serve {request.model}", "allow_paid"),
            (
                "not_lent",
                f"no account that serves {request.model} lends its secret",
                "lend = true in accounts.toml",
            ),
        ):
            if word in words:
                return Refusal(word, text, hint)
        return Refusal("no_account_for_model", f"no account may serve {request.model}", "gemini-pool explain")

    @staticmethod
    def _all_held(members: Iterable[Member]) -> Refusal:
        held = [m for m in members if m.state in HELD and m.account.enabled]
        if not held:
            return Refusal(
                "overloaded",
                "every account for this model is disabled, paused or tried",
                "gemini-pool status",
            )
        first = held[0]
        return Refusal(
            ERROR_WORD[first.state],
            f"account {first.id}: {first.reason or first.state}",
            first.hint,
            first.id,
        )

    # ---- inside: settling ------------------------------------------------------------------------------------

    def _end(self, lease_id: str) -> Lease:
        lease = self.leases.end(lease_id)
        member = self.members.get(lease.account_id)
        if member is not None:
            member.in_flight -= 1
        return lease

    def _succeeded(self, member: Member, lease: Lease, now: float, first_byte_s: float | None) -> None:
        member.health.succeeded(first_byte_s)
        model = lease.request.model
        member.counter(model).served += 1
        self._dirty_counters.add((member.id, model))
        self._count("answered")
        if lease.request.refusals:
            self._count("absorbed", lease.request.refusals)
        for scope in (Scope.ACCOUNT_MODEL, Scope.BUCKET_MODEL, Scope.BACKEND_MODEL, Scope.ACCOUNT):
            if self.cooldowns.succeed(self._key(scope, member, model), now):
                self._touch_scope(scope, member)

    def _failed(self, member: Member, lease: Lease, outcome: Outcome, now: float) -> None:
        model = lease.request.model
        counter = member.counter(model)
        if outcome.kind in (Kind.CLIENT, Kind.CANCELLED):  # nobody's fault here: the client has its answer
            self._count("answered" if outcome.kind is Kind.CLIENT else "cancelled")
            return
        counter.failed += 1
        self._dirty_counters.add((member.id, model))
        if outcome.kind is Kind.CUT:
            self._count("failed")
        if outcome.kind in (Kind.TRANSIENT, Kind.CUT, Kind.UNAUTHENTICATED):
            member.health.failed(now)
            self._dirty_members.add(member.id)
        if outcome.kind is Kind.ACCOUNT:
            self._hold(member, outcome, now)
        elif outcome.scope is not Scope.NONE:
            self._cool(member, model, outcome, now)

    def _cool(self, member: Member, model: str, outcome: Outcome, now: float) -> None:
        cooldown = self.cooldowns.start(self._key(outcome.scope, member, model), outcome, now)
        self._touch_scope(outcome.scope, member)
        self._tell("cooldown", "info", now, f"{outcome.reason or outcome.kind} for {cooldown.until - now:.0f} s",
                   member.id, model, until=cooldown.until, told=cooldown.told, scope=outcome.scope.value,
                   why=outcome.kind.value)  # fmt: skip

    def _settled(self, lease: Lease, outcome: Outcome) -> Settled:
        request = lease.request
        renew = outcome.kind is Kind.UNAUTHENTICATED
        faults = request.faults + (outcome.kind in (Kind.TRANSIENT, Kind.UNAUTHENTICATED))
        refused = request.refusals + (outcome.kind in (Kind.RATE, Kind.DAILY, Kind.CAPACITY))
        again = replace(request, attempt=request.attempt + 1, faults=faults, refusals=refused)
        retry = outcome.rotate and faults <= _MAX_FAULTS and again.attempt <= _MAX_ATTEMPTS
        if retry:
            self._count("rotations")
            member = self.members.get(lease.account_id)
            if member is not None:
                member.counter(request.model).rotated += 1
        elif outcome.kind in _PASSING or outcome.kind in (Kind.ACCOUNT, Kind.MODEL_DENIED):
            self._count("failed")
        return Settled(retry, outcome.reason, again if retry else None, renew, lease.account_id)

    def _count_usage(self, member: Member, model: str, usage: Usage, now: float) -> None:
        counter = member.counter(model)
        counter.input_tokens += usage.input_tokens
        counter.output_tokens += usage.output_tokens
        self._dirty_counters.add((member.id, model))
        if (pace := self._paces.get((member.bucket, model))) is not None:
            pace.add_tokens(usage.input_tokens, now)
        if member.cap is not None:
            member.cap.spend(now, tokens=usage.total_tokens or usage.input_tokens + usage.output_tokens)

    # ---- inside: members -------------------------------------------------------------------------------------

    def _new_member(self, account: Account, order: int, now: float) -> Member:
        member = Member(account, order, since_at=now)
        known = self._known.pop(account.id, None)
        if known is not None:
            self._recall(member, *known)
        member.cap = None if account.daily_cap == DailyCap() else Cap(account.daily_cap)
        return member

    @staticmethod
    def _recall(
        member: Member,
        row: AccountRow | None,
        counters: Mapping[str, CounterRow],
        discovery: DiscoveryRow | None,
    ) -> None:
        if row is not None:
            h = member.health
            h.success, h.latency_s, h.failures = row.success, row.latency_s, row.failures
            member.last_used_at, member.paused = row.last_used_at or 0.0, row.paused
            if row.state in HELD:  # what a person must mend outlives a restart; the rest is found out anew
                member.state, member.since_at = row.state, row.since_at
                member.reason, member.hint, member.url = row.reason, row.hint, row.url
        for model, c in counters.items():
            counter = member.counter(model)
            counter.served, counter.failed, counter.rotated = c.served, c.failed, c.rotated
            counter.input_tokens, counter.output_tokens = c.input_tokens, c.output_tokens
        if discovery is not None:
            member.project, member.tier = discovery.project, discovery.tier
            member.email, member.sub = discovery.email, discovery.sub

    def _edit_member(self, member: Member, account: Account, now: float, *, restart: bool) -> None:
        if account.daily_cap != member.account.daily_cap:
            member.cap = None if account.daily_cap == DailyCap() else Cap(account.daily_cap)
        member.account = account
        if restart or member.state in HELD:
            member.token_until = 0.0 if restart else member.token_until
            self._move(member, Event.CHANGED, now, "its entry changed")

    def _forget(self, account_id: str) -> None:
        member = self.members[account_id]
        self._rows.append(replace(member.row(), gone=True))
        self._rows.extend(replace(c.row(account_id, m), gone=True) for m, c in member.counters.items())
        self._rows.append(DiscoveryRow(account_id, "", "", "", "", 0.0, gone=True))
        self.cooldowns.clear(account=account_id)
        for key in [k for k, v in self._sessions.items() if v == account_id]:
            del self._sessions[key]

    def _rebuild(self) -> None:
        self._indexes.clear()
        self._bucket_limits.clear()
        for member in self.members.values():
            self._place(member)
        self._paces = {
            key: pace for key, pace in self._paces.items() if self._bucket_limits.get(key[0]) == pace.limits
        }

    def _place(self, member: Member) -> None:
        member.bucket = member.bucket_key()
        limits = member.account.limits
        if limits != Limits():
            known = self._bucket_limits.get(member.bucket)
            self._bucket_limits[member.bucket] = limits if known is None else tightest(known, limits)

    def _move(self, member: Member, event: Event, now: float, text: str) -> None:
        before = member.state
        if member.move(event, now):
            self._dirty_members.add(member.id)
            self._tell("account", "info", now, f"{before} -> {member.state}: {text}", member.id,
                       state=member.state.value)  # fmt: skip
        self._touch(member)

    def _hold(self, member: Member, outcome: Outcome, now: float) -> None:
        before = member.state
        member.move(Event.REFUSED, now, target=outcome.state)
        if member.state is outcome.state:
            member.reason, member.hint, member.url = outcome.reason, outcome.hint, outcome.url
        self._dirty_members.add(member.id)
        if member.state is not before:
            self._tell("account", "warning", now, f"{before} -> {member.state}: {outcome.reason}", member.id,
                       state=member.state.value, hint=outcome.hint, url=outcome.url)  # fmt: skip
        self._touch(member)

    def _key(self, scope: Scope, member: Member, model: str) -> Key:
        return key_of(
            scope, account=member.id, bucket=member.bucket, backend=member.account.backend, model=model
        )

    def _touch(self, member: Member) -> None:
        for index in self._indexes.values():
            index.touch(member.id)

    def _touch_scope(self, scope: Scope, member: Member) -> None:
        """Whoever a cooldown of this scope reaches is looked at again."""
        if scope in (Scope.ACCOUNT, Scope.ACCOUNT_MODEL):
            self._touch(member)
            return
        for other in self._reached(scope, member):
            self._touch(other)

    def _reached(self, scope: Scope, member: Member) -> Iterator[Member]:
        if scope is Scope.BACKEND_MODEL:
            return (m for m in self.members.values() if m.account.backend is member.account.backend)
        return (m for m in self.members.values() if m.bucket == member.bucket)

    def _kept(self, account_id: str) -> tuple[AccountRow | None, dict[str, CounterRow], DiscoveryRow | None]:
        return self._known.setdefault(account_id, (None, {}, None))

    def _count(self, name: str, by: int = 1) -> None:
        self.totals[name] = self.totals.get(name, 0) + by
        self._dirty_totals.add(name)

    def _tell(
        self,
        kind: str,
        level: str,
        at: float,
        text: str,
        account_id: str = "",
        model: str = "",
        **data: object,
    ) -> None:
        self._events.append(PoolEvent(kind, level, at, text, account_id, model, data))
