"""Leases over the socket: acquire, report, renew, release.

Here a request of the wire becomes one of the core, and a grant becomes URL and headers. One waiting deadline holds
for a request over all of its attempts. Which account it is, the pool decides; what an answer meant, the backend.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any

import msgspec

from gemini_pool import wire
from gemini_pool.errors import PoolError

from ..backends import google_errors
from ..core import model as core
from ..core.model import Grant, Kind, Outcome, Request, Scope, Settled, Usage, Wait
from ..core.state import UnknownLease
from ..runtime.broker import unknown_lease
from ..runtime.tokens import Need
from .caller import Caller
from .services import Services

_BODY_LIMIT = 64 * 1024
_GL = frozenset({"gl"})  # what nearly everybody asks for, without making it anew
_NOBODY: frozenset[str] = frozenset()
_WIRE: dict[core.Backend, tuple[wire.Backend, wire.Form]] = {
    core.Backend.DEVELOPER_API: ("developer-api", "gl"),
    core.Backend.CODE_ASSIST: ("code-assist", "ca"),
    core.Backend.VERTEX: ("vertex", "vx"),
}
_OF_THE_ACCOUNT = frozenset({401, 403, 408, 429})  # refusals that another account may not meet
_DONE = frozenset({Kind.OK, Kind.CANCELLED})


# ---- acquire ------------------------------------------------------------------------------------------------------


def acquire(s: Services, c: Caller, p: wire.AcquireParams) -> wire.Lease | Coroutine[Any, Any, wire.Lease]:
    """A lease at once where one is free (no task, no network), else the waiting for one."""
    known = s.requests.back(p.request) if p.request else None
    if known is None:
        request = _request(s, p)
        wait_s = s.config().selection.max_wait_s if p.wait_s is None else p.wait_s
        deadline = s.clock.now() + wait_s
        s.requests.put(request, deadline)
    else:
        request, deadline = known
        if p.exclude:
            request = request._replace(exclude=request.exclude.union(p.exclude))
    decision = s.broker.acquire_nowait(request, owner=c.owner, detached=p.detach)
    if type(decision) is Grant:
        if (lease := _handed(s, decision)) is not None:
            return lease
        # Back with it: a task that is cancelled before its first step could not give it back.
        s.broker.release(decision.lease.id, ended=False)
        request = request._replace(attempt=request.attempt + 1)
    return _wait_lease(s, c, request, deadline, detached=p.detach)


async def _wait_lease(
    s: Services, c: Caller, request: Request, deadline: float, *, detached: bool
) -> wire.Lease:
    try:
        grant = await s.broker.acquire(request, owner=c.owner, wait_until=deadline, detached=detached)
    except PoolError:
        s.requests.end(request.id)
        raise
    return _handed(s, grant) or await _with_token(s, grant)


def _handed(s: Services, grant: Grant) -> wire.Lease | None:
    """`lease_of`, and the lease is free again when there is no URL for what the client wants."""
    try:
        return lease_of(s, grant)
    except BaseException:
        _give_back(s, grant)
        raise


async def _with_token(s: Services, grant: Grant) -> wire.Lease:
    """The token ended between the pool's look at it and ours. Raises PoolError when no other is to be had."""
    try:
        await s.tokens.renew(grant.account.id)
        if (lease := lease_of(s, grant)) is not None:
            return lease
    except BaseException:
        _give_back(s, grant)
        raise
    _give_back(s, grant)
    raise PoolError("upstream_error", f"no valid token for {grant.account.id}", account=grant.account.id)


def _give_back(s: Services, grant: Grant) -> None:
    """The request ends with an error before anything was sent."""
    s.requests.end(grant.lease.request.id)
    s.broker.release(grant.lease.id)


def _request(s: Services, p: wire.AcquireParams) -> Request:
    return Request(
        p.request or s.requests.new_id(),
        model_of(s, p.model),
        "streamGenerateContent" if p.stream else "generateContent",
        _GL if p.forms == ("gl",) else frozenset(p.forms),
        p.session,
        p.account,
        frozenset(p.exclude) if p.exclude else _NOBODY,
        True,  # lends: the headers leave the daemon
        p.min_validity_s,
        p.allow_paid,
        None if p.data is None else core.Data(p.data),
        p.priority == "batch",
    )


def model_of(s: Services, name: str) -> str:
    """The model that is meant: without Google's prefix, aliases of the configuration resolved. Never swapped else."""
    name = name.removeprefix("models/")
    return s.config().models.aliases.get(name, name)


def lease_of(s: Services, grant: Grant) -> wire.Lease | None:
    """A grant as the client gets it: where to send and with which headers. None when the token is not there.
    Raises PoolError for a model that has no URL."""
    lease, account = grant.lease, grant.account
    credential = s.tokens.headers_nowait(account.id)
    if credential is None:
        return None
    backend = s.backends[account.backend]
    request = lease.request
    project = s.broker.pool.project_of(account.id)
    headers = backend.headers(account, project=project)
    headers.update(credential)
    return wire.Lease(
        lease.id,
        request.id,
        account.id,
        *_WIRE[account.backend],
        backend.url(account, request.model, request.method, project=project),
        headers,
        lease.expires_at,
        lease.expires_at - s.clock.now(),
        grant.reason,
        lease.decision,
        project,
    )


# ---- the end of a lease -------------------------------------------------------------------------------------------


async def report(s: Services, c: Caller, p: wire.ReportParams) -> wire.ReportResult:
    """End a lease with what came of it. Answered when what it changed is committed."""
    lease = held(s, p.lease)
    outcome = outcome_of(s, lease, p)
    detached = lease.detached
    settled = await s.broker.settle_durably(
        lease.id, outcome, usage=usage_of(p.usage), first_byte_s=p.first_byte_s
    )
    if settled.renew_token:
        try:
            await _renew(s, lease)
        except asyncio.CancelledError:
            if settled.retry and settled.request is not None:
                s.requests.end(lease.request.id)
                s.broker.withdraw(settled.request)
            raise
    if settled.retry and settled.request is not None:
        return await _next(s, c, settled, detached=detached)
    s.requests.end(lease.request.id)
    return wire.ReportResult("done" if outcome.kind in _DONE else "give-up", settled.reason)


async def _next(s: Services, c: Caller, settled: Settled, *, detached: bool) -> wire.ReportResult:
    """Another attempt is worth it: the next lease, or when there is one, if that lies before the deadline."""
    request = settled.request
    assert request is not None
    known = s.requests.get(request.id)
    deadline = known[1] if known is not None else s.clock.now() + s.config().selection.max_wait_s
    decision = s.broker.acquire_nowait(request, owner=c.owner, detached=detached)
    match decision:
        case Grant():
            s.requests.put(request, deadline)
            lease = _handed(s, decision) or await _with_token(s, decision)
            return wire.ReportResult("retry", settled.reason, lease, None)
        case Wait() if decision.until <= deadline:
            within_s = deadline - s.clock.now()
            s.requests.expect(request, deadline, within_s=within_s, lapse=s.broker.lapse)
            return wire.ReportResult("retry", settled.reason, None, decision.until)
    s.requests.end(request.id)
    s.broker.give_up(request)
    if isinstance(decision, Wait):
        reason = f"{settled.reason}; {decision.account_id} returns first, after the deadline"
        return wire.ReportResult("give-up", reason, None, decision.until)
    return wire.ReportResult("give-up", f"{settled.reason}; {decision.reason}")


async def _renew(s: Services, lease: core.Lease) -> None:
    """After a 401: a new token before the account is tried again, unless one came since the lease was granted."""
    token = s.tokens.token_nowait(lease.account_id, s.clock.now())
    if token is None or token.issued_at <= lease.granted_at:
        try:
            generation = s.tokens.generation(lease.account_id)
            await s.tokens.renew(lease.account_id, Need.REFUSED, generation=generation)
        except PoolError:
            return  # the keeper has told the pool what is wrong with the account


def renew(s: Services, c: Caller, p: wire.LeaseParams) -> wire.RenewResult:
    """Also how a client that comes back after a restart, on another connection, keeps its lease."""
    holder = held(s, p.lease).owner
    gone = bool(holder) and holder not in {client.owner for client in s.clients()}
    lease = s.broker.renew(p.lease, owner=c.owner if gone else "")
    return wire.RenewResult(lease.expires_at, lease.expires_at - s.clock.now())


def release(s: Services, c: Caller, p: wire.LeaseParams) -> wire.Empty:
    del c
    s.requests.end(held(s, p.lease).request.id)
    s.broker.release(p.lease)
    return wire.Empty()


def held(s: Services, lease_id: str) -> core.Lease:
    try:
        return s.broker.pool.leases.get(lease_id)
    except UnknownLease:
        raise unknown_lease(lease_id) from None


# ---- reading a report ---------------------------------------------------------------------------------------------


def outcome_of(s: Services, lease: core.Lease, p: wire.ReportParams) -> Outcome:
    """What a client's report means. An answer of Google's is read by the account's backend; without a status it is
    the client's word: nothing (all well), "cancelled", or what broke (before or after the first byte)."""
    if p.status is None:
        return _outcome_without_answer(p)
    member = s.broker.pool.members.get(lease.account_id)
    if member is None:
        return _outcome_of_a_removed_account(p.status)
    if p.status < 400 and p.error:
        return _outcome_without_answer(p)
    return s.backends[member.account.backend].classify(
        p.status,
        {name.lower(): value for name, value in p.headers.items()},
        google_errors.without(_body_bytes(p.body), s.tokens.headers_nowait(lease.account_id) or {}),
        model=lease.request.model,
        now=s.clock.now(),
        account=member.account,
    )


def _outcome_of_a_removed_account(status: int) -> Outcome:
    """The account left the pool while its request ran: nobody reads its refusals, others may serve the request."""
    reason = "the account is gone"
    if status < 400:
        return Outcome(Kind.OK, reason=reason, status=status)
    if status in _OF_THE_ACCOUNT or status >= 500:
        return Outcome(Kind.TRANSIENT, Scope.NONE, rotate=True, reason=reason, status=status)
    return Outcome(Kind.CLIENT, reason=reason, status=status)


def _outcome_without_answer(p: wire.ReportParams) -> Outcome:
    if not p.error:
        return Outcome(Kind.OK)
    if p.error.lower() in ("cancelled", "canceled"):
        return Outcome(Kind.CANCELLED, reason="the client cancelled")
    reason = p.error[:200]
    if p.first_byte_s is not None or p.status is not None:
        return Outcome(Kind.CUT, reason=reason, source="client")
    return Outcome(Kind.TRANSIENT, Scope.ACCOUNT_MODEL, rotate=True, reason=reason, source="client")


def _body_bytes(body: Any) -> bytes:
    if body is None:
        return b""
    return (body.encode() if isinstance(body, str) else msgspec.json.encode(body))[:_BODY_LIMIT]


def usage_of(usage: Mapping[str, Any] | None) -> Usage | None:
    """Tokens as the client gives them: Google's usageMetadata, or the wire's own names. Nonsense counts as nothing."""
    if not usage:
        return None

    def count(*names: str) -> int:
        found = (usage.get(name) for name in names)
        return sum(int(n) for n in found if isinstance(n, int | float) and 0 <= n < 1e12)

    if any(name in usage for name in wire.Usage.__struct_fields__):
        return Usage(*(count(name) for name in wire.Usage.__struct_fields__))
    return Usage(
        input_tokens=count("promptTokenCount", "toolUsePromptTokenCount"),
        output_tokens=count("candidatesTokenCount", "thoughtsTokenCount"),
        cached_tokens=count("cachedContentTokenCount"),
        thought_tokens=count("thoughtsTokenCount"),
        total_tokens=count("totalTokenCount"),
    )
