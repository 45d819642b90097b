"""The pool: takes what happened and when, answers what to do. The only code that changes the pool's state.

Events come in as calls with `now`; decisions go out as values (`Grant | Wait | Refusal`, `Settled`); what must
survive a restart is taken with `take_rows()`, what is worth telling with `take_events()`. `next_deadline()` says when
`expire()` has something to do. The parts: `roster.py` (members), `chooser.py` (who), `cooldown.py`, `leases.py`,
`journal.py` (what to keep and tell); why an account was not chosen is `explain.py`'s business.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import inf
from types import MappingProxyType

from .chooser import Choice, Chooser
from .cooldown import Cooldowns, Key, key_of
from .decisions import Decision, Decisions
from .health import HELD, Event
from .journal import Journal
from .leases import Leases, UnknownLease, lease_of, row_of
from .member import Member
from .model import (
    Account,
    AccountState,
    CooldownRow,
    DiscoveryRow,
    Grant,
    Kind,
    Lease,
    LeaseRow,
    Outcome,
    PinRow,
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
from .pacing import Share
from .roster import Changes, Roster
from .strategy import Rng

__all__ = ["Changes", "Decision", "Pool", "UnknownLease"]

_MAX_FAULTS = 4  # 5xx and network failures one request may meet before its client is told
_MAX_ATTEMPTS = 30
_REFUSALS = frozenset({Kind.RATE, Kind.DAILY, Kind.CAPACITY, Kind.CONCURRENCY})
_FAULTS = frozenset({Kind.TRANSIENT, Kind.UNAUTHENTICATED})


class Pool:
    """All accounts, what they may do now, and who has borrowed them.

    `strategy`: a name of `strategy.STRATEGIES`. `rng`: uniform in [0, 1). `prefix`: makes ids unique over restarts.
    `methods`: what each form's backend can do (missing: everything). `most_in_flight`: of one account at once, 0: learnt.
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
        most_in_flight: int = 0,
    ) -> None:
        self._prefix = prefix
        self.lease_ttl_s = lease_ttl_s
        self.paused = False
        self.journal = Journal()
        self.roster = Roster(self.journal)
        self.roster.most_in_flight = most_in_flight
        self.cooldowns = Cooldowns()
        self.chooser = Chooser(
            self.roster,
            self.cooldowns,
            strategy=strategy,
            rng=rng,
            allow_paid=allow_paid,
            methods=methods or {},
        )
        self.leases = Leases()
        self._left: list[Lease] = []  # by an earlier run, for members to come
        self.decisions = Decisions(self.chooser, prefix=prefix)
        self._serial = 0

    @property
    def members(self) -> Mapping[str, Member]:
        return self.roster.members

    @property
    def totals(self) -> Mapping[str, int]:
        return self.journal.totals

    @property
    def strategy(self) -> str:
        return self.chooser.strategy

    # ---- configuration ---------------------------------------------------------------------------------------

    def configure(
        self, accounts: Sequence[Account], now: float, *, restarted: frozenset[str] = frozenset()
    ) -> Changes:
        """Take the accounts as the user wants them. Leases of removed accounts run on; everything else adapts.

        `restarted`: ids whose credential changed, so that even a held account starts anew.
        """
        changes = self.roster.configure(accounts, now, restarted)
        for account_id in changes.removed:
            self.cooldowns.clear(account=account_id)
        for account_id in changes.added:
            self.chooser.pin(account_id, self.members[account_id].pinned)
        left, self._left = self._left, []
        for lease in left:
            self._take_up(lease)
        self.chooser.reset()
        return changes

    def reselect(self, *, strategy: str, allow_paid: bool, most_in_flight: int = 0) -> None:
        """Take new selection settings."""
        self.roster.most_in_flight = most_in_flight
        for member in self.members.values():
            member.crowd.configure(most_in_flight)
        self.chooser.strategy, self.chooser.allow_paid = strategy, allow_paid
        self.chooser.reset()

    def restore(self, rows: Sequence[Row], now: float) -> None:
        """Take back what an earlier run saved. Call before `configure`; accounts that are gone by then are ignored."""
        for row in rows:
            if isinstance(row, CooldownRow):
                self.cooldowns.restore(row, now)
            elif isinstance(row, TotalRow):
                self.journal.totals[row.name] = row.value
            elif isinstance(row, LeaseRow):
                self.journal.add_row(
                    replace(row, gone=True)
                )  # a crash from here on would lose it, as any other
                if (lease := lease_of(row)) is not None:
                    self._left.append(lease)
        self.journal.lost(len(self._left))
        self.roster.remember(rows)

    def leave(self) -> int:
        """Before a planned end: the leases that clients hold go on in the next run (as rows); how many."""
        held = [lease for lease in self.leases if lease.request.lends]
        for lease in held:
            self.journal.add_row(row_of(lease))
        return len(held)

    def _take_up(self, lease: Lease) -> None:
        member = self.members.get(lease.account_id)
        if member is None:
            self.journal.count("expired")
            return
        member.in_flight += 1
        self.leases.add(lease)

    # ---- leases ----------------------------------------------------------------------------------------------

    def acquire(
        self, request: Request, now: float, *, owner: str = "", detached: bool = False
    ) -> Grant | Wait | Refusal:
        """Choose and reserve an account for `request`, or say when to come back, or why never."""
        if self.paused:
            return Refusal("overloaded", "the pool is paused", "gemini-pool resume")
        choice = self.chooser.choose(request, now)
        if not isinstance(choice, Choice):
            decision = self.decisions.add_unserved(choice, self.members, request, now)
            return replace(choice, decision=decision) if decision else choice
        return self._grant(request, choice, now, owner=owner, detached=detached)

    def acquire_beside(
        self, request: Request, now: float, *, avoid: str, owner: str = "", detached: bool = False
    ) -> Grant | None:
        """The same without the account `avoid`; None when nobody else is free."""
        choice = None if self.paused else self.chooser.choose_beside(request, now, avoid)
        return None if choice is None else self._grant(request, choice, now, owner=owner, detached=detached)

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
        if member is not None:  # else removed from the file while its request ran
            blocked_until = self._blocked_until(member, lease.request.model, now)
            self.roster.settled(member, lease, outcome, usage, now)
            self._freed(member, lease.request.model, blocked_until, now)
            if usage is not None:
                self._count_usage(member, lease.request.model, usage, now)
            if outcome.kind is Kind.OK:
                self._succeeded(member, lease, now, first_byte_s)
            else:
                self._failed(member, lease, outcome, now)
        self._count_end(lease, outcome, now)
        return self._settled(lease, member, outcome)

    def give_up(self, request: Request) -> None:
        """The client of a request is told that nobody can serve it (any more)."""
        if request.attempt == 1:  # never granted, so not counted yet
            self.journal.count("requests")
        self.journal.count("failed")

    def withdraw(self, request: Request) -> None:
        """Its client goes away between two attempts."""
        if request.attempt > 1:  # else it was never granted, so not counted
            self.journal.count("cancelled")

    def lapse(self) -> None:
        """A client was told when to try a request again, and did not."""
        self.journal.count("expired")

    def resume(self) -> None:
        """A request whose lease ran out goes on all the same: from here on it counts as another one."""
        self.journal.count("requests")

    def release(self, lease_id: str, now: float, *, ended: bool = True) -> Lease:
        """End a lease that was not used. `ended` False: its request is tried again at once."""
        lease = self._end(lease_id)
        if ended:
            self.journal.count("released")
        member = self.members.get(lease.account_id)
        if member is not None:
            blocked_until = self._blocked_until(member, lease.request.model, now)
            self.roster.refund(member, lease)
            self._freed(member, lease.request.model, blocked_until, now)
            if member.cap is not None:  # it may have had room for no more
                self.chooser.touch((member,))
        return lease

    def renew(self, lease_id: str, now: float, *, owner: str = "") -> Lease:
        """A lease's time begins anew. `owner`: who holds it from now on, if it is another one."""
        lease = self.leases.get(lease_id)
        if owner and owner != lease.owner:
            lease = self.leases.rebind(lease_id, owner)
        return self.leases.renew(lease_id, self._lease_end(lease.request, lease.account_id, now))

    def release_owner(self, owner: str, now: float) -> int:  # noqa: ARG002 - as above
        """The owner is gone: free its leases, but for the detached ones."""
        freed = [lease for lease in self.leases.of_owner(owner) if not lease.detached]
        for lease in freed:
            self._forget(lease)  # what it was used for is not known
            self.journal.count("released")
        return len(freed)

    def expire(self, now: float) -> None:
        """End what ran out: leases without a report count as spent, outcome unknown."""
        for lease in self.leases.expired(now):
            self._forget(lease)
            self.journal.count("expired")
            text = f"lease {lease.id} ran out without a report"
            self.journal.say("request", "warning", now, text, lease.account_id, lease.request.model)
        self.cooldowns.sweep(now)

    def next_deadline(self) -> float:
        return self.leases.next_end()

    # ---- what the shell learns -------------------------------------------------------------------------------

    def token_ready(self, account_id: str, now: float, *, expires_at: float = inf) -> None:
        """The account has a token until `expires_at`, and its set-up is done."""
        member = self.members.get(account_id)
        if member is not None:
            member.token_until = expires_at
            self._move(member, Event.USABLE, now, "token warm")

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

    def secret_used(self, account_id: str, secret: str) -> None:
        """The name of the secret that the account is used with, so that a later run can tell another one."""
        member = self.members.get(account_id)
        if member is not None and member.secret != secret:
            member.secret = secret
            self.journal.mark_member(account_id)

    def discovered(self, row: DiscoveryRow) -> None:
        """Set-up found the project to send, the tier, and whose account it is."""
        member = self.members.get(row.account_id)
        if member is not None:
            self.roster.discover(member, row)

    def project_of(self, account_id: str) -> str:
        """The project to send with this account's requests; empty when none is known."""
        member = self.members.get(account_id)
        return "" if member is None else member.account.project or member.project

    def quota_left(
        self, account_id: str, fraction: float | None, shares: Mapping[str, Share] = MappingProxyType({})
    ) -> None:
        """The tightest remaining fraction of the account's quota, as last read, and those of its models."""
        member = self.members.get(account_id)
        if member is not None and (member.health.quota != fraction or member.shares != shares):
            member.health.quota, member.shares = fraction, dict(shares)
            self.chooser.touch((member,))

    # ---- what people say -------------------------------------------------------------------------------------

    def pause(self, account_id: str, now: float, *, paused: bool = True) -> None:
        """Send nothing new with this account (empty: with any), or do so again. Raises KeyError."""
        text = "paused" if paused else "resumed"
        if not account_id:
            self.paused = paused
            self.journal.say("account", "info", now, f"pool {text}")
            return
        member = self.roster.members[account_id]
        member.paused = paused
        self.journal.mark_member(account_id)
        self.journal.say("account", "info", now, text, account_id)
        self.chooser.touch((member,))

    def pin(self, account_id: str, now: float, *, models: tuple[str, ...]) -> None:
        """Use this account before all others for these models (globs); none: no more. Raises KeyError."""
        member = self.roster.members[account_id]
        member.pinned = models
        self.chooser.pin(account_id, models)
        self.journal.add_row(PinRow(account_id, " ".join(models), now, gone=not models))
        text = f"pinned for {', '.join(models)}" if models else "unpinned"
        self.journal.say("account", "info", now, text, account_id)
        self.chooser.touch((member,))

    def clear_cooldown(self, account_id: str = "", model: str = "") -> int:
        """Forget cooldowns on a person's word; returns how many."""
        member = self.members.get(account_id)
        cleared = self.cooldowns.clear(
            account=account_id, bucket=member.bucket if member else "", model=model
        )
        self.chooser.touch(self.members.values())
        return cleared

    def login_changed(self, account_id: str, now: float) -> None:
        """The account's secret was replaced: whatever it was held for may be over."""
        member = self.members.get(account_id)
        if member is not None and member.state in HELD:
            self._move(member, Event.CHANGED, now, "its secret was replaced")

    def clear_state(self, account_id: str, now: float) -> None:
        """A person says: try this account again. Raises KeyError."""
        self._move(self.roster.members[account_id], Event.CLEARED, now, "cleared")

    # ---- what goes out ---------------------------------------------------------------------------------------

    @property
    def urgent(self) -> bool:
        """Whether something changed that a crash must not lose, beyond mere counters."""
        return self.journal.urgent or self.cooldowns.changed

    def take_rows(self) -> list[Row]:
        """Rows that must survive, of everything that changed since the last call."""
        return [*self.journal.take_rows(self.members), *self.roster.take_rows(), *self.cooldowns.take_rows()]

    def take_events(self) -> list[PoolEvent]:
        return self.journal.take_events()

    # ---- inside ----------------------------------------------------------------------------------------------

    def _grant(self, request: Request, choice: Choice, now: float, *, owner: str, detached: bool) -> Grant:
        member, reason, _ = choice
        verdicts = self.decisions.look(self.members, request, now)
        self._serial += 1
        serial = f"{self._prefix}{self._serial:x}"
        member.last_used_at, member.used_seq = now, self._serial
        member.in_flight += 1
        self.chooser.chose(request, choice, now)
        sent_at = self.roster.spend(member, request, now)
        if self.cooldowns:
            self.cooldowns.tried(
                account=member.id,
                bucket=member.bucket,
                backend=member.account.backend,
                model=request.model,
                now=now,
            )
        if request.attempt == 1:
            self.journal.count("requests")
        ends_at = self._lease_end(request, member.id, now)
        lease = Lease(
            serial, request, member.id, owner, now, ends_at, serial, request.attempt, detached, sent_at
        )
        self.leases.add(lease)
        self.decisions.add(
            Decision(serial, request, now, member.id, reason, self.chooser.strategy, verdicts=verdicts)
        )
        return Grant(lease, member.account, reason)

    def _lease_end(self, request: Request, account_id: str, now: float) -> float:
        """A lent token's end is the lease's; what the daemon itself has begun to send may outlive its token."""
        member = self.members.get(account_id)
        token_until = member.token_until if member is not None and request.lends else inf
        return min(now + self.lease_ttl_s, token_until)

    def _end(self, lease_id: str) -> Lease:
        lease = self.leases.end(lease_id)
        member = self.members.get(lease.account_id)
        if member is not None:
            was_full = member.full
            member.in_flight = max(0, member.in_flight - 1)
            if was_full:  # whoever waits for it need not wait for the guess
                self.chooser.touch((member,))
        return lease

    @staticmethod
    def _blocked_until(member: Member, model: str, now: float) -> float:
        """Until when our own count keeps the bucket from `model`; 0 when it does not."""
        pace = member.book.get(model)
        until = 0.0 if pace is None else pace.free_at(now, 1)
        return until if until > now else 0.0

    def _freed(self, member: Member, model: str, blocked_until: float, now: float) -> None:
        """Whoever shares the bucket may return earlier than was thought."""
        if blocked_until and self._blocked_until(member, model, now) < blocked_until:
            self.chooser.touch(self.roster.of_bucket(member.bucket))

    def _forget(self, lease: Lease) -> None:
        """A lease ended without a word."""
        self._end(lease.id)
        member = self.members.get(lease.account_id)
        if member is not None and (pace := member.book.get(lease.request.model)) is not None:
            pace.undecided(lease.sent_at)

    def _succeeded(self, member: Member, lease: Lease, now: float, first_byte_s: float | None) -> None:
        member.health.succeeded(first_byte_s)
        if member.crowd.learned and member.crowd.answered(member.in_flight + 1, now):
            self.journal.say(
                "account", "debug", now, f"{member.crowd.most} requests at once are tried", member.id
            )
        model = lease.request.model
        member.counter(model).served += 1
        self.journal.mark_counter(member.id, model)
        if self.cooldowns:
            for scope in (Scope.ACCOUNT_MODEL, Scope.BUCKET_MODEL, Scope.BACKEND_MODEL, Scope.ACCOUNT):
                if self.cooldowns.succeed(self._key(scope, member, model), now):
                    self.chooser.touch(self._reached(scope, member))

    def _failed(self, member: Member, lease: Lease, outcome: Outcome, now: float) -> None:
        if outcome.kind in (Kind.CLIENT, Kind.CANCELLED):  # no account is to blame
            return
        model = lease.request.model
        member.counter(model).failed += 1
        self.journal.mark_counter(member.id, model)
        if outcome.kind in _FAULTS or outcome.kind is Kind.CUT:
            member.health.failed(now)
            self.journal.mark_member(member.id)
        if outcome.kind is Kind.ACCOUNT:
            self._hold(member, outcome, now)
        elif outcome.kind is Kind.CONCURRENCY:
            self._crowded(member, model, outcome, now)
        elif outcome.scope is not Scope.NONE:
            self._cool(member, model, outcome, now)

    def _crowded(self, member: Member, model: str, outcome: Outcome, now: float) -> None:
        """Too many at once: ours that go on are enough. Where none does, it is others who fill the account: it rests."""
        if member.crowd.refused(member.in_flight, now):
            text = f"at most {member.crowd.most} requests at once from now on"
            self.journal.say("account", "info", now, text, member.id)
        if outcome.told or not member.in_flight:
            self._cool(member, model, outcome, now)

    def _cool(self, member: Member, model: str, outcome: Outcome, now: float) -> None:
        paced_until = self._paced_until(member, model, outcome, now)
        if paced_until > now and not outcome.told:
            outcome = replace(outcome, until=paced_until, source=outcome.source or "own count")
        key = self._key(outcome.scope, member, model)
        before = self.cooldowns.get(key)
        cooldown = self.cooldowns.start(key, outcome, now, trickle=paced_until == 0.0)
        self.chooser.touch(self._reached(outcome.scope, member))
        text = f"{outcome.reason or outcome.kind.value} for {cooldown.until - now:.0f} s"
        if (
            cooldown is before
        ):  # it rested anyway: who was under way is told the same, and nobody else needs to know
            return
        who = "" if outcome.scope is Scope.BACKEND_MODEL else member.id  # nobody's fault, and one notice
        self.journal.say(
            "cooldown", "info", now, text, who, model, until=cooldown.until, told=cooldown.told,
            scope=outcome.scope.value, why=outcome.kind.value,
        )  # fmt: skip

    @staticmethod
    def _paced_until(member: Member, model: str, outcome: Outcome, now: float) -> float:
        """When our own count lets the bucket send again after a full window; 0 when it knows nothing of that."""
        pace = member.book.get(model)
        if pace is None or outcome.kind is not Kind.RATE or outcome.scope is not Scope.BUCKET_MODEL:
            return 0.0
        return 0.0 if pace.rpm is None and pace.tpm is None else max(pace.free_at(now), 1.0)

    def _count_end(self, lease: Lease, outcome: Outcome, now: float) -> None:
        """How the client's request stands after this attempt, if it ended with it."""
        if outcome.kind in (Kind.OK, Kind.CLIENT):
            self.journal.count("answered")
            if lease.attempt > 1:
                text = f"answered at attempt {lease.attempt}"
                self.journal.say("request", "debug", now, text, lease.account_id, lease.request.model)
            if lease.request.refusals:
                self.journal.count("absorbed", lease.request.refusals)
        elif outcome.kind is Kind.CANCELLED:
            self.journal.count("cancelled")
        elif not self._worth_another(lease.request, outcome):
            self.journal.count("failed")

    @staticmethod
    def _worth_another(request: Request, outcome: Outcome) -> bool:
        faults = request.faults + (outcome.kind in _FAULTS)
        return outcome.rotate and faults <= _MAX_FAULTS and request.attempt < _MAX_ATTEMPTS

    def _settled(self, lease: Lease, member: Member | None, outcome: Outcome) -> Settled:
        request = lease.request
        renew = outcome.kind is Kind.UNAUTHENTICATED
        if not self._worth_another(request, outcome):
            return Settled(False, outcome.reason, None, renew, lease.account_id)
        self.journal.count("rotations")
        if member is not None:
            member.counter(request.model).rotated += 1
        again = request._replace(
            attempt=request.attempt + 1,
            faults=request.faults + (outcome.kind in _FAULTS),
            refusals=request.refusals + (outcome.kind in _REFUSALS),
        )
        return Settled(True, outcome.reason, again, renew, lease.account_id)

    def _count_usage(self, member: Member, model: str, usage: Usage, now: float) -> None:
        counter = member.counter(model)
        counter.input_tokens += usage.input_tokens
        counter.output_tokens += usage.output_tokens
        self.journal.mark_counter(member.id, model)
        if member.cap is not None:
            used = usage.total_tokens or usage.input_tokens + usage.output_tokens
            self.roster.cap_used(member, now, tokens=used)

    def _move(self, member: Member, event: Event, now: float, text: str) -> None:
        before = member.state
        if member.move(event, now):
            self.journal.mark_member(member.id)
            said = f"{before.value} -> {member.state.value}: {text}"
            self.journal.say("account", "info", now, said, member.id, state=member.state.value)
        self.chooser.touch((member,))

    def _hold(self, member: Member, outcome: Outcome, now: float) -> None:
        before = member.state
        member.move(Event.REFUSED, now, target=outcome.state)
        if member.state is outcome.state:
            member.reason, member.hint, member.url = outcome.reason, outcome.hint, outcome.url
        self.journal.mark_member(member.id)
        if member.state is not before:
            said = f"{before.value} -> {member.state.value}: {outcome.reason}"
            self.journal.say(
                "account",
                "warning",
                now,
                said,
                member.id,
                state=member.state.value,
                hint=outcome.hint,
                url=outcome.url,
            )
        self.chooser.touch((member,))

    def _key(self, scope: Scope, member: Member, model: str) -> Key:
        return key_of(
            scope, account=member.id, bucket=member.bucket, backend=member.account.backend, model=model
        )

    def _reached(self, scope: Scope, member: Member) -> Iterable[Member]:
        """Whom a cooldown of this scope reaches."""
        if scope is Scope.BACKEND_MODEL:
            backend = member.account.backend
            return [m for m in self.members.values() if m.account.backend is backend]
        if scope in (Scope.BUCKET, Scope.BUCKET_MODEL):
            return list(self.roster.of_bucket(member.bucket))
        return (member,)
