"""What an account will be once its login is there: its entry in the file, and the OAuth client it is made with.

Decided before anything is asked of Google, so that whatever stands against it is said first.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import msgspec

from gemini_pool import wire

from ..accounts.schema import AccountEntry
from ..core.model import Backend
from ..errors import PoolError
from . import gemini_cli_client, oauth_client, terms
from .keeping import Keeper, check_id
from .oauth_client import FOREIGN, MAKE_ONE, OAuthClient


@dataclass(frozen=True, slots=True)
class Plan:
    """`entry`: as it will stand in the file. `created`: no account has its id yet."""

    entry: AccountEntry
    client: OAuthClient
    created: bool
    notes: tuple[str, ...] = ()


async def make_plan(params: wire.LoginParams, keeper: Keeper) -> Plan:
    """Raises PoolError: what `login.Login.start` says."""
    check_id(params.account)
    before = await keeper.find(params.account)
    _check_fits(before, params)
    client, accepted = await _client(params, before, keeper)
    if before is None:
        return Plan(_new_entry(params, client, accepted, keeper), client, created=True)
    return _changed_entry(params, before, client, accepted=accepted, keeper=keeper)


async def _client(
    params: wire.LoginParams, before: AccountEntry | None, keeper: Keeper
) -> tuple[OAuthClient, str]:
    """The OAuth client, and the record of the accepted risk ("" for one's own client)."""
    if params.client_secrets is not None and params.use_gemini_cli:
        raise PoolError("bad_request", "client_secrets or use_gemini_cli, not both")
    if params.client_secrets is not None:
        return oauth_client.read(params.client_secrets), ""
    accepted = terms.record(params.accept_terms_risk, keeper.ctx.clock.now())
    accepted = accepted or (before.accepted_terms_risk if before is not None else "")
    if params.use_gemini_cli:
        if not accepted:
            raise terms.demanded("Gemini CLI's OAuth client is another program's", account=params.account)
        given = gemini_cli_client.path_of(params.gemini_cli)
        return await asyncio.to_thread(gemini_cli_client.find, keeper.ctx.environ, given), accepted
    client = await _known_client(before, keeper)
    if client is None:
        raise PoolError("bad_request", "a login needs an OAuth client", hint=MAKE_ONE)
    if client.origin == FOREIGN and not accepted:
        raise terms.demanded("this account's OAuth client is another program's", account=params.account)
    return client, accepted if client.origin == FOREIGN else ""


async def _known_client(before: AccountEntry | None, keeper: Keeper) -> OAuthClient | None:
    """The client that the account was logged in with before."""
    info = await keeper.read_login(before) if before is not None else None
    return oauth_client.of_login(info, before.client_origin) if info and before is not None else None


def _new_entry(params: wire.LoginParams, client: OAuthClient, accepted: str, keeper: Keeper) -> AccountEntry:
    ref = keeper.own_file(params.account)
    values: dict[str, Any] = {
        "id": params.account,
        "backend": params.backend or Backend.CODE_ASSIST.value,
        "credential": {"type": "oauth", "secret": msgspec.to_builtins(ref)},
        "project": params.project,
        "client_origin": client.origin,
        "accepted_terms_risk": accepted,
    }
    return entry_of(values | ({"location": params.location} if params.location else {}))


def _changed_entry(
    params: wire.LoginParams, before: AccountEntry, client: OAuthClient, *, accepted: str, keeper: Keeper
) -> Plan:
    """The entry that is there, with another client's origin perhaps; a place that cannot be written is left."""
    values: dict[str, Any] = msgspec.to_builtins(before)
    values |= {"client_origin": client.origin, "accepted_terms_risk": accepted}
    values |= {name: given for name in ("project", "location") if (given := getattr(params, name))}
    notes: tuple[str, ...] = ()
    source = keeper.source(before)
    if source is None or not source.can_write:
        ref = keeper.own_file(before.id)
        values["credential"] = {**values["credential"], "secret": msgspec.to_builtins(ref)}
        left = source.described if source is not None else "its old place"
        notes = (f"the login is kept in {ref.described} from now on ({left} cannot be written)",)
    return Plan(entry_of(values), client, created=False, notes=notes)


def _check_fits(before: AccountEntry | None, params: wire.LoginParams) -> None:
    if before is None:
        return
    if before.credential.type != "oauth":
        problem = f"account {before.id} is no login, its credential is of type {before.credential.type!r}"
        raise PoolError("bad_request", problem, hint="choose another id", account=before.id)
    if params.backend is not None and params.backend != before.backend:
        problem = f"account {before.id} is of backend {before.backend.value}"
        raise PoolError("bad_request", problem, hint="choose another id", account=before.id)


def entry_of(values: dict[str, Any]) -> AccountEntry:
    """An entry of plain values; empty texts are left out. Raises PoolError "bad_request" for what the file's rules
    forbid."""
    try:
        return msgspec.convert({key: value for key, value in values.items() if value != ""}, AccountEntry)
    except msgspec.ValidationError as error:
        raise PoolError("bad_request", str(error), account=str(values.get("id", ""))) from None
