"""The verbs that manage accounts. What each does lies in the `login` and `transfer` rooms; here is the way to it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from gemini_pool import wire
from gemini_pool.errors import PoolError

from ..core.member import Member
from ..core.model import AccountState
from .caller import Caller
from .services import Services


class Managing(Protocol):
    """What the composition root hands in: logging in, and everything else that changes which accounts there are."""

    async def login(self, params: wire.LoginParams) -> wire.LoginStarted: ...
    async def login_finish(self, params: wire.LoginFinishParams) -> wire.LoginResult: ...
    async def add(self, params: wire.AccountAddParams) -> wire.VerifyRow: ...
    async def remove(self, params: wire.AccountRemoveParams) -> wire.AccountRemoveResult: ...
    async def enable(self, params: wire.AccountParams) -> wire.AccountVerdict: ...
    async def disable(self, params: wire.AccountParams) -> wire.AccountVerdict: ...
    async def verify(self, params: wire.VerifyParams) -> wire.VerifyResult: ...
    async def import_logins(self, params: wire.ImportParams) -> wire.ImportResult: ...
    async def export_opencode(self, params: wire.ExportOpencodeParams) -> wire.ExportResult: ...
    async def export_archive(self, params: wire.ArchiveParams) -> wire.ArchiveResult: ...
    async def import_archive(self, params: wire.UnarchiveParams) -> wire.ImportResult: ...
    def retry(self, account_id: str) -> None: ...


Handler = Callable[[Services, Caller, Any], Coroutine[Any, Any, Any]]


def through(name: str) -> Handler:
    """The handler that hands its parameters to this method of the managing service."""

    def handle(s: Services, _caller: Caller, params: Any) -> Coroutine[Any, Any, Any]:
        work: Coroutine[Any, Any, Any] = getattr(_managing(s), name)(params)
        return work

    return handle


def _managing(s: Services) -> Managing:
    if s.managing is None:
        raise PoolError("not_found", "accounts cannot be managed over this daemon")
    return s.managing()


async def clear_cooldown(
    s: Services, _caller: Caller, params: wire.ClearCooldownParams
) -> wire.ClearCooldownResult:
    """Forget cooldowns on a person's word. A suspended account comes back only when it is named."""
    pool = s.broker.pool
    if params.account and params.account not in pool.members:
        raise PoolError(
            "not_found", f"there is no account {params.account!r}", hint="gemini-pool account list"
        )
    cleared = pool.clear_cooldown(params.account, params.model)
    revived = False
    if params.account and not params.model and pool.members[params.account].state is AccountState.SUSPENDED:
        _managing(s).retry(params.account)
        revived = True
    await s.broker.flush()
    s.broker.changed()
    return wire.ClearCooldownResult(cleared, revived)


async def pin(s: Services, _caller: Caller, params: wire.PinParams) -> wire.Empty:
    """Use the account before all others for one more glob of models, or for all."""
    member = _member(s, params.account)
    if any(c.isspace() for c in params.model):
        raise PoolError("bad_request", f"{params.model!r} is no glob of models")
    models = (*(g for g in member.pinned if g != params.model), params.model) if params.model else ("*",)
    return await _pinned(s, member.id, models)


async def unpin(s: Services, _caller: Caller, params: wire.PinParams) -> wire.Empty:
    """No more, for this glob or at all."""
    member = _member(s, params.account)
    left = tuple(g for g in member.pinned if g != params.model) if params.model else ()
    if params.model and left == member.pinned:
        raise PoolError(
            "not_found", f"{member.id} is not pinned for {params.model!r}",
            hint=f"it is pinned for: {' '.join(member.pinned) or 'nothing'}",
        )  # fmt: skip
    return await _pinned(s, member.id, left)


async def _pinned(s: Services, account_id: str, models: tuple[str, ...]) -> wire.Empty:
    s.broker.pool.pin(account_id, s.clock.now(), models=models)
    await s.broker.flush()
    s.broker.changed()
    return wire.Empty()


def _member(s: Services, account_id: str) -> Member:
    member = s.broker.pool.members.get(account_id)
    if member is None:
        raise PoolError("not_found", f"there is no account {account_id!r}", hint="gemini-pool account list")
    return member


# Waits for a person: a daemon that stops waits for a code that is being spent, and not for a browser.
WAITING = frozenset({"account/loginFinish"})
VERBS: tuple[tuple[str, Any, Handler], ...] = (
    ("account/login", wire.LoginParams, through("login")),
    ("account/loginFinish", wire.LoginFinishParams, through("login_finish")),
    ("account/add", wire.AccountAddParams, through("add")),
    ("account/remove", wire.AccountRemoveParams, through("remove")),
    ("account/enable", wire.AccountParams, through("enable")),
    ("account/disable", wire.AccountParams, through("disable")),
    ("account/verify", wire.VerifyParams, through("verify")),
    ("account/import", wire.ImportParams, through("import_logins")),
    ("account/exportOpencode", wire.ExportOpencodeParams, through("export_opencode")),
    ("account/exportArchive", wire.ArchiveParams, through("export_archive")),
    ("account/importArchive", wire.UnarchiveParams, through("import_archive")),
    ("account/pin", wire.PinParams, pin),
    ("account/unpin", wire.PinParams, unpin),
    ("account/clearCooldown", wire.ClearCooldownParams, clear_cooldown),
)
