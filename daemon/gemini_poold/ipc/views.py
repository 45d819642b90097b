"""The pool as people and scripts see it: status, quota, account list, explanations. Reads, changes nothing."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Sequence
from math import inf

from gemini_pool import wire
from gemini_pool.errors import PoolError

from ..core import model as core
from ..core.cooldown import Cooldown
from ..core.decisions import MOST, Decision
from ..core.explain import Explanation, explain, explain_decision
from ..core.member import Counter, Member
from ..core.model import Kind, Request, Scope
from ..core.quota import QuotaReading, aggregate, family_of, family_order, outlook, own_count
from .leases import model_of
from .services import Services

_DECISIONS = 20  # so many of the newest are in the status
_DAY_S = 86_400.0
_OF_A_MODEL = frozenset({Scope.BACKEND_MODEL})  # told once, not with each account


def status(s: Services) -> wire.StatusResult:
    """Everything at a glance; the gateway and `gemini-pool status` show the same."""
    now, pool, info = s.clock.now(), s.broker.pool, s.info()
    cooldowns = list(pool.cooldowns.active(now))
    leases = Tally(lease.owner for lease in pool.leases)
    clients = {client.owner: client for client in s.clients()}
    return wire.StatusResult(
        version=info.version,
        protocol=info.protocol,
        uptime_s=info.uptime_s,
        state=s.state(),
        accounts=accounts(s, cooldowns),
        model_cooldowns=[_cooldown(c) for c in cooldowns if c.scope in _OF_A_MODEL],
        counters=_totals(s),
        leases=[
            _lease(lease, clients[lease.owner].name if lease.owner in clients else "")
            for lease in pool.leases
        ],
        queue=_queue(s, now),
        quota=quota_entries(s, cooldowns, own=True),
        clients=[
            wire.ClientStatus(c.name, c.version, c.pid, c.connected_at, leases[c.owner], c.in_flight)
            for c in clients.values()
        ],
        config_errors=list(s.config_errors()),
        gateway_url=info.gateway_url,
        gateway_error=info.gateway_error,
        in_flight=max(0, pool.journal.open),
        decisions=[_decision(d) for d in pool.decisions.newest(_DECISIONS)],
    )


def _decision(d: Decision) -> wire.DecisionInfo:
    return wire.DecisionInfo(
        d.id, d.at, d.request.model, d.account_id, d.reason, d.code or None, d.request.attempt
    )


def _queue(s: Services, now: float) -> wire.QueueInfo:
    lines = [
        wire.QueuedModel(line.model, line.waiting, max(0.0, now - line.oldest_since), line.next_at)
        for line in s.broker.lines()
    ]
    return wire.QueueInfo(s.broker.waiting, s.broker.oldest_wait_s(), lines)


def _totals(s: Services) -> wire.Counters:
    totals = s.broker.pool.totals
    return wire.Counters(**{name: totals.get(name, 0) for name in wire.Counters.__struct_fields__})


def _lease(lease: core.Lease, client: str) -> wire.LeaseInfo:
    return wire.LeaseInfo(
        lease.id,
        lease.request.id,
        lease.account_id,
        lease.request.model,
        client,
        lease.granted_at,
        lease.expires_at,
    )


# ---- accounts -----------------------------------------------------------------------------------------------------


def accounts(s: Services, cooldowns: Sequence[Cooldown] | None = None) -> list[wire.AccountInfo]:
    """Every account, in the order of the file."""
    now = s.clock.now()
    if cooldowns is None:
        cooldowns = list(s.broker.pool.cooldowns.active(now))
    by_key: dict[str, list[Cooldown]] = {}
    for cooldown in cooldowns:
        if cooldown.scope not in _OF_A_MODEL:
            by_key.setdefault(cooldown.key, []).append(cooldown)
    return [_account(s, member, by_key, now) for member in s.broker.pool.members.values()]


def _account(s: Services, member: Member, by_key: dict[str, list[Cooldown]], now: float) -> wire.AccountInfo:
    account, health = member.account, member.health
    mine = [c for c in (*by_key.get(member.id, ()), *by_key.get(member.bucket, ())) if _concerns(c, member)]
    whole = any(c.scope in (Scope.ACCOUNT, Scope.BUCKET) for c in mine)
    return wire.AccountInfo(
        id=account.id,
        backend=account.backend.value,
        credential=account.credential,
        state=member.shown_state.value,
        reason=member.reason,
        hint=member.hint,
        url=member.url,
        available=member.may_serve(now) and not whole and not s.broker.pool.paused,
        enabled=account.enabled,
        priority=account.priority,
        project=s.broker.pool.project_of(account.id),
        location=account.location if account.backend is core.Backend.VERTEX else "",
        bucket=member.bucket,
        cost=account.cost.value,
        data=account.data.value,
        lend=account.lend,
        email=member.email,
        tier=member.tier,
        health=wire.HealthInfo(
            health.score(now), health.success, health.latency_s, health.quota, health.failures
        ),
        token=s.tokens.info(account.id),
        cooldowns=[_cooldown(c) for c in mine],
        counters=_counter(member.counters.values()),
        models={model: _counter((counter,)) for model, counter in sorted(member.counters.items())},
        in_flight=member.in_flight,
        last_used_at=member.last_used_at or None,
        pinned=list(member.pinned),
        reserve=account.reserve,
    )


def _concerns(cooldown: Cooldown, member: Member) -> bool:
    """Account ids and buckets are different name spaces; a key alone could be mistaken."""
    by_account = cooldown.scope in (Scope.ACCOUNT, Scope.ACCOUNT_MODEL)
    return cooldown.key == (member.id if by_account else member.bucket)


def _counter(counters: Iterable[Counter]) -> wire.CounterInfo:
    total = Counter()
    for c in counters:
        total.served += c.served
        total.failed += c.failed
        total.rotated += c.rotated
        total.input_tokens += c.input_tokens
        total.output_tokens += c.output_tokens
    return wire.CounterInfo(
        total.served, total.failed, total.rotated, total.input_tokens, total.output_tokens
    )


def _cooldown(c: Cooldown | core.CooldownRow) -> wire.CooldownInfo:
    return wire.CooldownInfo(
        c.scope.value, c.key, c.model, c.until, c.kind.value, c.told, c.source, c.reason, c.since, c.strikes
    )


# ---- quota --------------------------------------------------------------------------------------------------------


async def quota(s: Services, p: wire.QuotaParams) -> wire.QuotaResult:
    """What is known of quotas; `refresh` asks Google about every account that tells."""
    if p.refresh:
        for member in list(s.broker.pool.members.values()):
            if member.account.backend is core.Backend.CODE_ASSIST and member.may_serve(s.clock.now()):
                await s.poller.poll_now(member.id)
    now, members = s.clock.now(), s.broker.pool.members
    families = aggregate(
        _readings(s, own=True),
        now,
        lambda account: members[account].bucket if account in members else account,
        lambda reading: _rate(s, reading, now),
    )
    return wire.QuotaResult(
        accounts=quota_entries(s, list(s.broker.pool.cooldowns.active(now)), own=True),
        families=[
            wire.QuotaAggregate(
                f.family,
                f.accounts,
                f.fraction,
                f.used,
                f.remaining,
                f.next_reset_at,
                *_outlook(f.fraction, f.rate, f.next_reset_at, now),
            )
            for f in families
        ],
        errors=dict(s.poller.errors),
    )


def quota_entries(s: Services, cooldowns: Iterable[Cooldown], *, own: bool = False) -> list[wire.QuotaEntry]:
    """Google's readings; and where it tells none, what its refusals said: exhausted until then. `own`: also days whose
    limit we know, by our own count."""
    now, readings = s.clock.now(), _readings(s, own=own)
    told = {(r.account_id, r.model) for r in readings}
    spent = [
        entry
        for c in cooldowns
        if c.kind is Kind.DAILY
        for entry in _spent(s, c)
        if (entry.account, entry.model) not in told
    ]
    return [*(_reading(s, r, now) for r in readings), *spent]


def _readings(s: Services, *, own: bool) -> list[QuotaReading]:
    members, now = s.broker.pool.members, s.clock.now()
    readings = [r for r in s.poller.quotas.all() if r.entitled and r.account_id in members]
    if not own:
        return readings
    told = {(r.account_id, r.base_model) for r in readings}
    counted = [
        own_count(member.id, model, known, now)
        for member in members.values()
        for model, pace in member.book.items()
        if (member.id, model) not in told
        for known in pace.known_limits(now)
        if known.what == "requests/day"
    ]
    return sorted([*readings, *counted], key=lambda r: (*family_order(r.family), r.model, r.token_type))


def _reading(s: Services, r: QuotaReading, now: float) -> wire.QuotaEntry:
    return wire.QuotaEntry(
        r.account_id, r.model, r.family, r.token_type, r.window, r.used, r.remaining, r.limit, r.fraction,
        r.resets_at, r.source, r.observed_at, *_outlook(r.fraction, _rate(s, r, now), r.resets_at, now),
    )  # fmt: skip


def _rate(s: Services, r: QuotaReading, now: float) -> float | None:
    """Share a second: from the readings of the last hours, or our own count's mean of the day."""
    if r.source == "google":
        return s.poller.quotas.history.rate(r.account_id, r.model, r.token_type, now)
    if r.fraction is None or r.resets_at is None:
        return None
    return (1.0 - r.fraction) / max(_DAY_S / 24, now - (r.resets_at - _DAY_S))


def _outlook(
    fraction: float | None, rate: float | None, resets_at: float | None, now: float
) -> tuple[float | None, float | None, float | None]:
    """The last three fields of an entry."""
    seen = outlook(fraction, rate, resets_at, now)
    return None if rate is None else rate * 3_600.0, seen.empty_at, seen.unused


def _spent(s: Services, c: Cooldown) -> list[wire.QuotaEntry]:
    family = family_of(c.model) if c.model else ""
    return [
        wire.QuotaEntry(
            member.id, c.model, family, "REQUESTS", "day", None, 0.0, None, 0.0, c.until, "refusal", c.since
        )
        for member in s.broker.pool.members.values()
        if c.scope not in _OF_A_MODEL and _concerns(c, member)
    ]


# ---- why ----------------------------------------------------------------------------------------------------------


def explained(s: Services, p: wire.ExplainParams) -> wire.ExplainResult:
    """What would be chosen for a model now, or was chosen in a recorded decision. Changes nothing."""
    now, pool = s.clock.now(), s.broker.pool
    if p.decision:
        decision = pool.decisions.get(p.decision)
        if decision is None:
            raise PoolError(
                "not_found",
                f"no decision {p.decision!r} is remembered",
                hint=f"the newest {MOST} are, until the daemon ends; gemini-pool top shows the last ones",
            )
        return _explanation(explain_decision(decision))
    if not p.model:
        raise PoolError(
            "bad_request", "explain needs a model or a decision", hint="gemini-pool explain MODEL"
        )
    return _explanation(explain(pool, Request("", model_of(s, p.model), session=p.session), now))


def _explanation(e: Explanation) -> wire.ExplainResult:
    return wire.ExplainResult(
        model=e.model,
        chosen=e.chosen,
        reason=e.reason,
        strategy=e.strategy,
        at=e.at,
        accounts=[
            wire.VerdictInfo(
                v.account_id,
                v.verdict,
                v.reason,
                v.available,
                _finite(v.returns_at),
                [float(r) for r in v.rank],
                [_cooldown(c) for c in v.cooldowns],
                [wire.LimitInfo(*known) for known in v.limits],
            )
            for v in e.verdicts
        ],
        next_return_at=_finite(e.next_return_at),
        next_return_account=e.next_return_account,
        code=e.code,
        decision=e.decision,
        recorded=e.recorded,
    )


def _finite(at: float | None) -> float | None:
    return None if at is None or at == inf else at
