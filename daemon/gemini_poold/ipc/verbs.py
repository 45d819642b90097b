"""The table of verbs: method, parameters, handler, scope. What a verb does lies in the modules it names.

A handler takes `(services, caller, params)` and returns the result, or a coroutine when it has to wait for something.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Literal

import msgspec

from gemini_pool import wire
from gemini_pool.errors import PoolError

from .. import log
from . import accounts, answers, leases, views
from .caller import Caller
from .services import Services

Handler = Callable[[Services, Caller, Any], Any]


class Verb:
    """One method. `streams`: its params have a progress `token`. `waits`: it may wait for a person, having done
    nothing yet. `late`: served even while the daemon stops."""

    __slots__ = ("decode", "late", "method", "run", "scope", "streams", "waits")

    def __init__(
        self,
        method: str,
        params: Any,
        run: Handler,
        *,
        scope: Literal["use", "admin"] = "use",
        streams: bool = False,
        waits: bool = False,
        late: bool = False,
    ) -> None:
        self.method = method
        self.decode = msgspec.json.Decoder(params).decode
        self.run = run
        self.scope = scope
        self.streams = streams
        self.waits = waits
        self.late = late


def _initialize(_s: Services, c: Caller, p: wire.InitializeParams) -> wire.InitializeResult:
    if p.client is not None:
        c.name, c.version = p.client.name[:100], p.client.version[:100]
    return wire.InitializeResult(wire.ServerInfo("gemini-pool", wire.VERSION), wire.PROTOCOL, c.methods)


def _cancel(_s: Services, c: Caller, p: wire.CancelTokenParams) -> wire.Empty:
    c.cancel_token(p.token)
    return wire.Empty()


def _subscribe(_s: Services, c: Caller, p: wire.SubscribeParams) -> wire.Empty:
    c.subscribe(frozenset(p.events))
    return wire.Empty()


def _pause(s: Services, _c: Caller, p: wire.PauseParams) -> Coroutine[Any, Any, wire.Empty]:
    return _paused(s, p.account, paused=True)


def _resume(s: Services, _c: Caller, p: wire.PauseParams) -> Coroutine[Any, Any, wire.Empty]:
    return _paused(s, p.account, paused=False)


def _paused(s: Services, account: str, *, paused: bool) -> Coroutine[Any, Any, wire.Empty]:
    """In force when this returns, so that a request behind it finds it done; answered when it is on the disk."""
    try:
        s.broker.pool.pause(account, s.clock.now(), paused=paused)
    except KeyError:
        raise PoolError(
            "not_found", f"there is no account {account!r}", hint="gemini-pool account list"
        ) from None
    return _kept(s)


def _log_level(_s: Services, _c: Caller, p: wire.LogLevelParams) -> wire.Empty:
    log.set_level(p.level)
    return wire.Empty()


async def _kept(s: Services) -> wire.Empty:
    await s.broker.flush()
    s.broker.changed()
    return wire.Empty()


VERBS: dict[str, Verb] = {
    verb.method: verb
    for verb in (
        Verb("initialize", wire.InitializeParams, _initialize, late=True),
        Verb("pool/acquire", wire.AcquireParams, leases.acquire),
        Verb("pool/report", wire.ReportParams, leases.report, late=True),
        Verb("pool/renew", wire.LeaseParams, leases.renew, late=True),
        Verb("pool/release", wire.LeaseParams, leases.release, late=True),
        Verb("pool/generate", wire.GenerateParams, answers.generate, streams=True),
        Verb("pool/cancel", wire.CancelTokenParams, _cancel, late=True),
        Verb("pool/token", wire.TokenParams, answers.token),
        Verb("pool/status", wire.Empty, lambda s, _c, _p: views.status(s), late=True),
        Verb("pool/quota", wire.QuotaParams, lambda s, _c, p: views.quota(s, p)),
        Verb("pool/explain", wire.ExplainParams, lambda s, _c, p: views.explained(s, p), late=True),
        Verb("pool/subscribe", wire.SubscribeParams, _subscribe),
        Verb("pool/pause", wire.PauseParams, _pause, scope="admin"),
        Verb("pool/resume", wire.PauseParams, _resume, scope="admin"),
        Verb(
            "account/list",
            wire.Empty,
            lambda s, _c, _p: wire.AccountListResult(views.accounts(s)),
            scope="admin",
        ),
        *(
            Verb(method, params, run, scope="admin", waits=method in accounts.WAITING)
            for method, params, run in accounts.VERBS
        ),
        Verb("daemon/info", wire.Empty, lambda s, _c, _p: s.info(), scope="admin", late=True),
        Verb("daemon/logLevel", wire.LogLevelParams, _log_level, scope="admin", late=True),
        Verb("daemon/reload", wire.Empty, lambda s, _c, _p: s.reload(), scope="admin"),
    )
}
