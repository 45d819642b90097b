"""The members of the pool: taken from the accounts file, reminded of their past, grouped into buckets.

Also what each bucket has sent, and what that and the answers teach about its limits (`pacing.py`). What a member may do
now is `chooser.py`'s question.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import inf

from .affinity import Bindings
from .evenly import MINUTE_S
from .health import HELD, Event
from .journal import Journal
from .member import Member
from .model import (
    Account,
    AccountRow,
    BoundRow,
    CapRow,
    CounterRow,
    DailyCap,
    DiscoveryRow,
    Kind,
    Lease,
    Limits,
    Outcome,
    PaceRow,
    PinRow,
    Request,
    Row,
    Scope,
    Usage,
)
from .pacing import Cap, Pace, tightest

_MOST_PAGES = 200
_ANSWERED = frozenset({Kind.OK, Kind.CLIENT, Kind.CUT, Kind.CANCELLED})


@dataclass(frozen=True, slots=True)
class Changes:
    """What `configure` did, by account id."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    unchanged: int


@dataclass(slots=True)
class _Past:
    """What earlier runs knew about an account that has not been named yet in this one."""

    account: AccountRow | None = None
    discovery: DiscoveryRow | None = None
    counters: dict[str, CounterRow] = field(default_factory=dict)
    pinned: tuple[str, ...] = ()
    cap: CapRow | None = None


class Roster:
    """All members by id, in the order of the file."""

    def __init__(self, journal: Journal) -> None:
        self.members: dict[str, Member] = {}
        self.bound = Bindings(journal)
        self._journal = journal
        self._past: dict[str, _Past] = {}
        self._sharing: dict[str, dict[str, Member]] = {}  # by bucket, then id
        self._limits: dict[str, Limits] = {}  # by bucket
        self._books: dict[str, dict[str, Pace]] = {}  # by bucket, then model
        self._kept: dict[
            tuple[str, str], PaceRow
        ] = {}  # of an earlier run, until somebody asks for the model
        self._touched: set[tuple[str, str]] = set()
        self.most_in_flight = 0  # of each account at once; 0: learnt
        self._capped: dict[str, Member] = {}  # whose cap was used since rows were taken

    def configure(self, accounts: Sequence[Account], now: float, restarted: frozenset[str]) -> Changes:
        """Take the accounts as the user wants them; `restarted` ones have a new credential and start anew."""
        old, added, changed = self.members, [], []
        members: dict[str, Member] = {}
        for order, account in enumerate(accounts):
            member = old.get(account.id)
            if member is None:
                member = self._new(account, order, now)
                added.append(account.id)
            elif member.account != account or account.id in restarted:
                self._edit(member, account, now, restart=account.id in restarted)
                changed.append(account.id)
            member.order = order
            members[account.id] = member
        removed = [i for i in old if i not in members]
        for account_id in removed:
            self._forget(old[account_id])
        self.members = members
        self._regroup()
        return Changes(tuple(added), tuple(removed), tuple(changed), len(members) - len(added) - len(changed))

    def remember(self, rows: Iterable[Row]) -> None:
        """Rows of an earlier run, for members to come."""
        for row in rows:
            match row:
                case AccountRow():
                    self._past_of(row.account_id).account = row
                case CounterRow():
                    self._past_of(row.account_id).counters[row.model] = row
                case DiscoveryRow():
                    self._past_of(row.account_id).discovery = row
                case PinRow():
                    self._past_of(row.account_id).pinned = tuple(row.models.split())
                case CapRow():
                    self._past_of(row.account_id).cap = row
                case BoundRow():
                    self.bound.restore(row)
                case PaceRow():
                    self._kept[row.bucket, row.model] = row

    def discover(self, member: Member, row: DiscoveryRow) -> None:
        member.project, member.tier, member.email, member.sub = row.project, row.tier, row.email, row.sub
        self._journal.add_row(row)
        self._place(member)

    def of_bucket(self, bucket: str) -> Iterator[Member]:
        return iter(self._sharing.get(bucket, {}).values())

    # ---- our own count ---------------------------------------------------------------------------------------

    def take_rows(self) -> list[PaceRow | CapRow]:
        """Pages and caps whose limits or counts changed since the last call."""
        rows: list[PaceRow | CapRow] = []
        rows += [m.cap.row(m.id) for m in self._capped.values() if m.cap is not None]
        self._capped.clear()
        for bucket, model in self._touched:
            pace = self._books.get(bucket, {}).get(model)
            if pace is not None and pace.known:
                rows.append(pace.row(bucket, model))
        self._touched.clear()
        return rows

    def paced_until(
        self, member: Member, model: str, now: float, tokens: int = 0, *, reserve: float = 0.0
    ) -> float:
        """When the limits that are known of the member's bucket, and its daily cap, let it send one more request that
        leaves the share `reserve` of each limit alone."""
        if reserve >= 1.0:  # all of it, known or not
            return inf
        pace = member.book.get(model)
        if pace is None:
            until = (
                self._open(member, model, now).free_at(now, tokens, reserve)
                if member.bucket in self._limits or (member.bucket, model) in self._kept
                else 0.0
            )
        else:
            until = pace.free_at(now, tokens, reserve)
        if reserve and model in member.shares:
            until = max(until, member.shares[model].free_at(now, reserve))
        return until if member.cap is None else max(until, member.cap.free_at(now))

    def spend(self, member: Member, request: Request, now: float) -> float:
        """Count a request that is about to be sent; returns the instant that it is counted under."""
        pace = member.book.get(request.model) or self._open(member, request.model, now)
        if pace.known:
            self._touched.add((member.bucket, request.model))
        if member.cap is not None:
            self.cap_used(member, now, requests=1)
        return pace.spend(now, request.tokens)

    def cap_used(self, member: Member, now: float, *, requests: int = 0, tokens: int = 0) -> None:
        """Count against the user's own daily cap, where there is one."""
        if member.cap is not None:
            member.cap.spend(now, requests=requests, tokens=tokens)
            self._capped[member.id] = member

    def refund(self, member: Member, lease: Lease) -> None:
        """The request was never sent: neither Google nor the user's own cap counts it."""
        if (pace := member.book.get(lease.request.model)) is not None:
            pace.unsent(lease.sent_at)
            if pace.known:
                self._touched.add((member.bucket, lease.request.model))
        if member.cap is not None:
            member.cap.refund(lease.sent_at)
            self._capped[member.id] = member

    def settled(
        self, member: Member, lease: Lease, outcome: Outcome, usage: Usage | None, now: float
    ) -> None:
        """What an answer teaches about the bucket's limits."""
        pace = member.book.get(lease.request.model)
        if pace is None:  # its bucket changed meanwhile
            return
        if pace.known or outcome.scope is Scope.BUCKET_MODEL:
            self._touched.add((member.bucket, lease.request.model))
        sent_at = lease.sent_at
        if outcome.kind in _ANSWERED:
            tokens = usage.input_tokens if usage is not None else None
            pace.answered(sent_at, now, tokens=tokens, estimate=lease.request.tokens)
        elif outcome.kind in (Kind.CAPACITY, Kind.CONCURRENCY):
            pace.unspend(sent_at)
            pace.undecided(sent_at)
        elif outcome.scope is Scope.BUCKET_MODEL and outcome.kind in (Kind.RATE, Kind.DAILY):
            self._refused(pace, sent_at, outcome, now)
        else:
            pace.undecided(sent_at)

    # ---- inside ----------------------------------------------------------------------------------------------

    @staticmethod
    def _refused(pace: Pace, sent_at: float, outcome: Outcome, now: float) -> None:
        counted, _, window = outcome.quota_window.partition("/")
        value = None if outcome.quota_value is None else int(outcome.quota_value)
        told_until = outcome.until if outcome.told else None
        if outcome.kind is Kind.DAILY:
            day = value if outcome.quota_window == "requests/day" else None
            pace.refused_day(sent_at, now, value=day, until=outcome.until or 0.0)
        elif counted == "tokens":
            pace.refused_tokens(sent_at, value=value if window == "minute" else None)
        elif window in ("", "second", "minute"):
            width_s = {"second": 1.0, "minute": MINUTE_S}.get(window)
            named = value if width_s is not None else None
            pace.refused_rate(sent_at, now, told_until=told_until, value=named, width_s=width_s)
        else:
            pace.unspend(sent_at)

    def _open(self, member: Member, model: str, now: float) -> Pace:
        """A page of the bucket's book. Clients may name any model: the oldest pages make room."""
        book = member.book
        if len(book) >= _MOST_PAGES:
            oldest = next(iter(book))
            if book.pop(oldest).known:
                self._journal.add_row(replace(Pace().row(member.bucket, oldest), gone=True))
        pace = book[model] = Pace(self._limits.get(member.bucket, Limits()))
        row = self._kept.pop((member.bucket, model), None)
        if row is not None:
            pace.recall(row, now)
        return pace

    def _new(self, account: Account, order: int, now: float) -> Member:
        member = Member(account, order, since_at=now)
        member.crowd.configure(self.most_in_flight)
        past = self._past.pop(account.id, None)
        if past is not None:
            _recall(member, past)
        member.cap = _cap(account)
        if member.cap is not None and past is not None and past.cap is not None:
            member.cap.recall(past.cap)
        return member

    def _edit(self, member: Member, account: Account, now: float, *, restart: bool) -> None:
        if account.daily_cap != member.account.daily_cap:
            used, member.cap = member.cap, _cap(account)
            if used is not None and member.cap is not None:  # what was used of the old one counts
                member.cap.recall(used.row(member.id))
        member.account = account
        if restart:
            member.token_until = 0.0
        if (restart or member.state in HELD) and member.move(Event.CHANGED, now):
            self._journal.mark_member(member.id)

    def _forget(self, member: Member) -> None:
        self._journal.add_row(replace(member.row(), gone=True))
        for model, counter in member.counters.items():
            self._journal.add_row(replace(counter.row(member.id, model), gone=True))
        self._journal.add_row(DiscoveryRow(member.id, "", "", "", "", 0.0, gone=True))
        self._capped.pop(member.id, None)
        if member.cap is not None:
            self._journal.add_row(replace(member.cap.row(member.id), gone=True))
        if member.pinned:
            self._journal.add_row(PinRow(member.id, "", 0.0, gone=True))

    def _regroup(self) -> None:
        self._limits.clear()
        self._sharing.clear()
        for member in self.members.values():
            self._place(member)
        used = {member.bucket for member in self.members.values()}
        for bucket in [b for b in self._books if b not in used]:
            self._close(bucket)
        for bucket, book in self._books.items():
            for pace in book.values():
                pace.configure(self._limits.get(bucket, Limits()))

    def _close(self, bucket: str) -> None:
        """Nobody uses the bucket any more."""
        for model, pace in self._books.pop(bucket).items():
            if pace.known:
                self._journal.add_row(replace(pace.row(bucket, model), gone=True))

    def _place(self, member: Member) -> None:
        self._sharing.get(member.bucket, {}).pop(member.id, None)
        member.bucket = member.bucket_key()
        self._sharing.setdefault(member.bucket, {})[member.id] = member
        member.book = self._books.setdefault(member.bucket, {})
        limits = member.account.limits
        if limits != Limits():
            known = self._limits.get(member.bucket)
            self._limits[member.bucket] = limits if known is None else tightest(known, limits)

    def _past_of(self, account_id: str) -> _Past:
        return self._past.setdefault(account_id, _Past())


def _cap(account: Account) -> Cap | None:
    return None if account.daily_cap == DailyCap() else Cap(account.daily_cap)


def _recall(member: Member, past: _Past) -> None:
    row = past.account
    member.pinned = past.pinned
    if row is not None:
        h = member.health
        h.success, h.latency_s, h.failures = row.success, row.latency_s, row.failures
        member.last_used_at, member.paused, member.secret = row.last_used_at or 0.0, row.paused, row.secret
        if row.state in HELD:  # what a person must mend outlives a restart; the rest is found out anew
            member.state, member.since_at = row.state, row.since_at
            member.reason, member.hint, member.url = row.reason, row.hint, row.url
    for model, c in past.counters.items():
        counter = member.counter(model)
        counter.served, counter.failed, counter.rotated = c.served, c.failed, c.rotated
        counter.input_tokens, counter.output_tokens = c.input_tokens, c.output_tokens
    if past.discovery is not None:
        d = past.discovery
        member.project, member.tier, member.email, member.sub = d.project, d.tier, d.email, d.sub
