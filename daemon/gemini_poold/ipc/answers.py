"""Requests that the daemon sends itself, and tokens: `pool/generate`, `pool/token`."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import msgspec
from msgspec import Raw

from gemini_pool import wire
from gemini_pool.errors import PoolError

from ..core import model as core
from ..core.health import ERROR_WORD, HELD
from ..core.member import Member
from ..core.model import ALL_FORMS, Request
from ..credentials.base import CLOUD_PLATFORM
from ..errors import UNREADABLE
from ..runtime.dispatch import Answer, Call, ClientFault
from ..runtime.tokens import Need
from .caller import Caller
from .leases import model_of
from .services import Services, Token

_STREAM = "streamGenerateContent"
_COVERED = frozenset({CLOUD_PLATFORM, "cloud-platform"})


async def generate(s: Services, c: Caller, p: wire.GenerateParams) -> Raw | wire.StreamResult:
    """One request through the pool; a streamed one sends its chunks as progress before this returns."""
    call = _call(s, c, p)
    try:
        if p.method == _STREAM:
            return await _stream(s, c, call, p.token)
        answer = await s.dispatcher.unary(call)
    except ClientFault as fault:
        raise _client_fault(fault.answer) from None
    if answer.status >= 400:
        raise _client_fault(answer)
    return Raw(answer.body)


async def _stream(s: Services, c: Caller, call: Call, token: int | str | None) -> wire.StreamResult:
    if token is None:
        raise PoolError(
            "bad_request",
            "a streamed request needs a token to name its progress by",
            hint='add "token": 1, or use the method generateContent',
        )
    stream = await s.dispatcher.stream(call)
    chunks = 0
    try:
        async for payload in stream.events():
            chunks += 1
            await c.progress(token, payload)
    finally:
        await stream.aclose()
    usage = stream.usage
    return wire.StreamResult(
        chunks, stream.account, None if usage is None else _usage(usage), stream.finish_reason
    )


def _call(s: Services, c: Caller, p: wire.GenerateParams) -> Call:
    model = model_of(s, p.model)
    request = Request(
        s.requests.new_id(),
        model,
        p.method,
        ALL_FORMS,
        session=p.session,
        pin=p.account,
        allow_paid=p.allow_paid,
        data=None if p.data is None else core.Data(p.data),
        batch=p.priority == "batch",
    )
    wait_s = s.config().selection.max_wait_s if p.wait_s is None else p.wait_s
    return Call("gl", p.method, model, bytes(p.request), request, s.clock.now() + wait_s, owner=c.owner)


def _usage(usage: core.Usage) -> wire.Usage:
    return wire.Usage(
        usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.thought_tokens, usage.total_tokens
    )


class _Refused(msgspec.Struct):
    message: str = ""


class _Refusal(msgspec.Struct):
    error: _Refused = msgspec.field(default_factory=_Refused)


def _client_fault(answer: Answer) -> PoolError:
    """Google calls the request itself wrong: its own words, and its body in `details`."""
    details: object = answer.body.decode("utf-8", "replace")
    message = ""
    try:
        message = msgspec.json.decode(answer.body, type=_Refusal).error.message
        details = msgspec.json.decode(answer.body)
    except UNREADABLE:
        pass
    return PoolError(
        "bad_request",
        message or f"Google refused the request with status {answer.status}",
        account=answer.account,
        details={"status": answer.status, "body": details},
    )


# ---- tokens -------------------------------------------------------------------------------------------------------


async def token(s: Services, c: Caller, p: wire.TokenParams) -> wire.TokenResult:
    """An access token of an account that lends it: the named one, or the one that would be chosen now."""
    del c
    _check_scopes(p.scopes)
    account = _named(s, p.account) if p.account else _chosen(s, p)
    if not account.lend:
        raise PoolError(
            "not_lent", f"account {account.id} does not lend its secret", account=account.id,
            hint="set lend = true in accounts.toml, or use pool/generate or the gateway",
        )  # fmt: skip
    now = s.clock.now()
    found: Token | None = s.tokens.token_nowait(account.id, now)
    if found is None or found.expires_at <= now + p.min_validity_s:
        found = await s.tokens.renew(account.id, Need.MISSING if found is None else Need.SHORT)
        if found.expires_at <= s.clock.now() + p.min_validity_s:
            raise PoolError(
                "bad_request", f"a fresh token of {account.id} lives shorter than {p.min_validity_s:g} s",
                hint="ask with a smaller min_validity_s", account=account.id,
            )  # fmt: skip
    key = account.credential == "api-key"
    return wire.TokenResult(
        account.id,
        found.value.reveal(),
        "api-key" if key else "Bearer",
        None if found.expires_at == inf else found.expires_at,
    )


def _check_scopes(scopes: Sequence[str]) -> None:
    """Tokens carry their account's own scopes, which cover Google's cloud; others are not made to order."""
    if other := [scope for scope in scopes if scope not in _COVERED]:
        raise PoolError(
            "bad_request", f"no token can be had for the scope {other[0]!r}",
            hint=f"the accounts' tokens are for {CLOUD_PLATFORM}",
        )  # fmt: skip


def _named(s: Services, account_id: str) -> core.Account:
    member = s.broker.pool.members.get(account_id)
    if member is None:
        raise PoolError("not_found", f"there is no account {account_id!r}", hint="gemini-pool account list")
    if member.state in HELD and s.tokens.token_nowait(account_id, s.clock.now()) is None:
        raise _held(member)
    return member.account


def _held(member: Member) -> PoolError:
    """What keeps this account from having a token, until a person mends it."""
    code = ERROR_WORD.get(member.state, "overloaded")
    text = f"account {member.id}: {member.reason or member.shown_state.value}"
    return PoolError(code, text, hint=member.hint or "gemini-pool status", account=member.id)


def _chosen(s: Services, p: wire.TokenParams) -> core.Account:
    """The lending account that could serve that model, over that backend, now. Nothing is reserved or counted."""
    now, model = s.clock.now(), model_of(s, p.model)
    pool = s.broker.pool
    fitting = [m for m in pool.members.values() if _fits(m.account, p, model)]
    free = [
        m
        for m in fitting
        if m.may_serve(now) and (not model or pool.chooser.blocked_until(m, model, now) <= now)
    ]
    if free and not pool.paused:
        best = min(free, key=lambda m: (-m.account.priority, m.health.band(now), m.last_used_at))
        return best.account
    raise _nobody(s, p, fitting, now)


def _fits(account: core.Account, p: wire.TokenParams, model: str) -> bool:
    return (
        account.lend
        and account.enabled
        and (not model or account.allows(model))
        and (p.backend is None or account.backend == p.backend)
    )


def _nobody(s: Services, p: wire.TokenParams, fitting: Sequence[Member], now: float) -> PoolError:
    """Why there is no token now, and when there may be one."""
    what = p.model or p.backend or "this"
    if s.broker.pool.paused:
        return PoolError("overloaded", "the pool is paused", hint="gemini-pool resume")
    if not fitting:
        return PoolError(
            "not_lent", f"no account for {what} lends its secret",
            hint="set lend = true in accounts.toml, or use pool/generate or the gateway",
        )  # fmt: skip
    waiting = [m for m in fitting if m.state not in HELD and not m.paused]
    if not waiting:
        return _held(fitting[0])
    blocked = s.broker.pool.chooser.blocked_until
    ends = [
        (blocked(m, p.model, now) if p.model and m.may_serve(now) else max(m.expected_at, now), m.id)
        for m in waiting
    ]
    until, account_id = min(ends)
    return PoolError(
        "all_cooling_down", f"no token for {what} now: {account_id} returns first",
        hint="gemini-pool status", retry_at=until if until < inf else None, account=account_id,
    )  # fmt: skip
