"""Takes logins of other programs into the pool, one by one, each with its own result.

Rules
1. The source is only read.
2. A login was not made here, so it is foreign: without an accepted risk it is kept, but nothing is asked of Google with
   it, and it serves nobody ("blocked").
3. With the risk accepted it is tried once before it is trusted. A refresh token that rotates at that is kept first.
4. What an account has already is not taken twice: neither the same token, nor the same person on the same backend.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from gemini_pool import wire

from ..accounts.schema import AccountEntry
from ..core.model import Backend
from ..credentials import registry
from ..credentials.base import CLOUD_PLATFORM, Secret, default_scopes
from ..credentials.secret_ref import InlineSource
from ..credentials.service_account import ServiceAccount
from ..errors import PoolError
from ..login import gemini_cli_client, oauth_client, terms
from ..login.exchange import Granted, OAuthCalls
from ..login.keeping import Keeper, check_id
from ..login.oauth_client import FOREIGN, OWN, OAuthClient
from ..login.plan import entry_of
from . import adc, cliproxyapi, gemini_cli, opencode
from .found import Found, NotFound, Places, id_from

log = logging.getLogger("gemini_pool.transfer")

READERS = {
    "gemini-cli": gemini_cli.read,
    "opencode": opencode.read,
    "adc": adc.read,
    "cliproxyapi": cliproxyapi.read,
}
IMPORTED, BLOCKED, KNOWN, REFUSED = "imported", "blocked", "known", "refused"
ACCEPT = "read the wording and run the import again with it accepted, or log in with a client of your own: gemini-pool login {0} --client-secrets FILE"

NAME_CLIENT = (
    "name the client's JSON (--client-secrets FILE), or accept the risk: then the client of the Gemini CLI that is "
    "installed here is used"
)

# Who is known to be behind which account: account id to `sub`.
People = Callable[[], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class _Job:
    """One import. `client`: for logins that do not name theirs; `accepted`: the record, "" for none."""

    params: wire.ImportParams
    client: OAuthClient | None
    client_problem: str
    accepted: str
    several: bool


class Importer:
    def __init__(self, keeper: Keeper, people: People = dict) -> None:
        self._keeper = keeper
        self._people = people

    async def run(self, params: wire.ImportParams) -> wire.ImportResult:
        """Every login that the source has, with what became of it. Raises PoolError for what stands against all."""
        if params.account:
            check_id(params.account)
        await self._keeper.entries()  # a broken accounts file is mended first
        places = Places.of(self._keeper.ctx.environ, params.home)
        found = await asyncio.to_thread(READERS[params.source], places, params.path)
        if params.source == "gemini-cli" and not params.path and not _logins(found):
            found = await gemini_cli.read_keychain(places) or found
        job = await self._job(params, found)
        rows = [await self._one(each, job) for each in found]
        result = wire.ImportResult(rows, list(dict.fromkeys(places.notes)))
        if not job.accepted and any(row.result == BLOCKED or row.next == NAME_CLIENT for row in rows):
            result.wording, result.accept_terms_risk = terms.FOREIGN_CLIENT.text, terms.FOREIGN_CLIENT.id
        return result

    async def _job(self, params: wire.ImportParams, found: list[Found | NotFound]) -> _Job:
        accepted = terms.record(params.accept_terms_risk, self._keeper.ctx.clock.now())
        logins = _logins(found)
        client, problem = None, ""
        if params.client_secrets is not None:
            client = replace(oauth_client.read(params.client_secrets), origin=FOREIGN)
        elif params.use_gemini_cli and not accepted:
            raise terms.demanded("Gemini CLI's OAuth client is another program's")
        elif accepted and any(each.kind == "oauth" and each.client is None for each in logins):
            given = gemini_cli_client.path_of(params.gemini_cli)
            try:
                client = await asyncio.to_thread(gemini_cli_client.find, self._keeper.ctx.environ, given)
            except PoolError as error:
                problem = error.message
        return _Job(params, client, problem, accepted, len(logins) > 1)

    # ---- one login ---------------------------------------------------------------------------------------------

    async def _one(self, found: Found | NotFound, job: _Job) -> wire.ImportRow:
        if isinstance(found, NotFound):
            return _row(found.label, REFUSED, reason=found.reason, next_=found.next)
        try:
            if found.kind == "oauth":
                return await self._login(found, job)
            if found.content is not None:
                return await self._service_account(found, found.content, job)
            return await self._pointer(found, job)
        except PoolError as error:
            return _row(found.label, REFUSED, email=found.email, reason=error.message, next_=error.hint)

    async def _login(self, found: Found, job: _Job) -> wire.ImportRow:
        assert found.refresh_token is not None
        client = found.client or job.client
        if (known := await self._holder(found.refresh_token)) is not None:
            return await self._known(known, found, job)
        if client is None:
            return _no_client(found, job)
        token, email = found.refresh_token, found.email
        account = await self._free_id(found, job)
        self._login_entry(found, job, account)  # whatever stands against it is said before Google is asked
        if job.accepted:
            granted, email, sub = await self._test(OAuthCalls(self._keeper.ctx, client, account), token)
            if twin := "" if granted.refresh_token else await self._twin(sub, found, job):
                reason = f"account {twin} is the same Google account"
                return _row(found.label, KNOWN, account=twin, email=email, reason=reason)
            token = granted.refresh_token or token
            account = await self._free_id(replace(found, email=email or found.email), job)
        info = client.authorized_user(token)
        await self._keeper.write_login(self._keeper.own_file(account), account, info)
        entry = self._login_entry(found, job, account)
        await self._keeper.add(entry)
        log.info("account %s imported from %s", account, job.params.source)
        return self._kept(found, entry, email or found.email)

    def _login_entry(self, found: Found, job: _Job, account: str) -> AccountEntry:
        credential = {"type": "oauth", "secret": msgspec.to_builtins(self._keeper.own_file(account))}
        return self._entry(found, job, account, credential, origin=FOREIGN)

    async def _test(self, calls: OAuthCalls, token: Secret) -> tuple[Granted, str, str]:
        """One renewal; e-mail and `sub`. Nothing more is asked when the token rotated: it must be kept first. Raises
        `CredentialError`, and PoolError for a login that may not do what it is for."""
        granted = await calls.test(token)
        if granted.refresh_token is not None:
            return granted, granted.email, granted.sub
        if granted.scopes and CLOUD_PLATFORM not in granted.scopes:
            raise PoolError(
                "login_required", "the login has no access to Google Cloud", hint="gemini-pool login ID"
            )
        return granted, *await calls.who(granted)

    async def _known(self, entry: AccountEntry, found: Found, job: _Job) -> wire.ImportRow:
        """The pool has this token. A risk that is accepted now lifts a block, once the login is seen to live."""
        blocked = entry.client_origin == FOREIGN and not entry.accepted_terms_risk
        if not (blocked and job.accepted):
            reason = f"account {entry.id} has it already"
            return _row(found.label, KNOWN, account=entry.id, email=found.email, reason=reason)
        info = await self._keeper.read_login(entry)
        client = oauth_client.of_login(info or {}, FOREIGN)
        assert found.refresh_token is not None
        assert entry.credential.secret is not None
        if client is None:
            return _no_client(found, job)
        calls = OAuthCalls(self._keeper.ctx, client, entry.id)
        granted, _, _ = await self._test(calls, found.refresh_token)
        if granted.refresh_token is not None:
            info = client.authorized_user(granted.refresh_token)
            await self._keeper.write_login(entry.credential.secret, entry.id, info)
        await self._keeper.set(entry.id, {"accepted_terms_risk": job.accepted})
        return _row(found.label, IMPORTED, account=entry.id, email=found.email, project=entry.project)

    async def _service_account(self, found: Found, content: Secret, job: _Job) -> wire.ImportRow:
        """A key file is no login of a person's: it is nobody's but its owner's."""
        account = await self._free_id(found, job)
        ref = self._keeper.own_file(account)
        credential = {"type": "service-account", "secret": msgspec.to_builtins(ref)}
        entry = self._entry(found, job, account, credential, origin=OWN)
        data = content.reveal().encode()
        source = InlineSource(data, found.label, account)
        scopes = default_scopes(entry.backend.value)
        ctx = self._keeper.ctx
        await ServiceAccount(source, ctx, account=account, scopes=scopes).renew(ctx.clock.now())
        await self._keeper.write(ref, account, data)
        await self._keeper.add(entry)
        return self._kept(found, entry, found.email)

    async def _pointer(self, found: Found, job: _Job) -> wire.ImportRow:
        """Application default credentials: the account points to them. A person's login among them is foreign."""
        credential: dict[str, Any] = {"type": "adc"}
        if found.path:
            credential["secret"] = {"file": found.path}
        account = await self._free_id(found, job)
        origin = FOREIGN if found.kind in {"authorized_user", "external_account_authorized_user"} else OWN
        entry = self._entry(found, job, account, credential, origin=origin)
        if (same := await self._same(entry)) is not None:
            return _row(
                found.label, KNOWN, account=same, email=found.email, reason=f"account {same} has it already"
            )
        if registry.gate(entry) is None:
            ctx = self._keeper.ctx
            await registry.build(entry, ctx).renew(ctx.clock.now())
        await self._keeper.add(entry)
        return self._kept(found, entry, found.email)

    # ---- inside ------------------------------------------------------------------------------------------------

    def _entry(
        self, found: Found, job: _Job, account: str, credential: dict[str, Any], *, origin: str
    ) -> AccountEntry:
        params = job.params
        backend = params.backend or found.backend
        values: dict[str, Any] = {
            "id": account,
            "backend": backend,
            "credential": credential,
            "project": params.project or found.project,
            "enabled": found.enabled,
            "client_origin": origin,
            "accepted_terms_risk": job.accepted if origin == FOREIGN else "",
        }
        location = params.location or found.location
        if location and backend == Backend.VERTEX.value:
            values["location"] = location
        try:
            return entry_of(values)
        except PoolError as error:
            if "needs a project" in error.message:
                error.hint = "name one: --project PROJECT"
            raise

    async def _free_id(self, found: Found, job: _Job) -> str:
        taken = {entry.id for entry in await self._keeper.entries()}
        wanted = job.params.account
        if wanted and not job.several:
            if wanted in taken:
                raise PoolError(
                    "bad_request", f"there is an account {wanted!r} already", hint="choose another id"
                )
            return wanted
        own = id_from(found.email, found.name, job.params.source)
        base = f"{wanted}-{own}"[:56] if wanted else own
        names = [base, *(f"{base}-{number}" for number in range(2, len(taken) + 3))]
        return next(name for name in names if name not in taken)

    async def _holder(self, token: Secret) -> AccountEntry | None:
        """The account that has this refresh token."""
        for entry in await self._keeper.entries():
            if entry.credential.type == "oauth" and await self._keeper.refresh_token(entry) == token:
                return entry
        return None

    async def _twin(self, sub: str, found: Found, job: _Job) -> str:
        """An account of the same person on the same backend: a second one brings nothing."""
        people, backend = self._people(), job.params.backend or found.backend
        entries = await self._keeper.entries()
        return next((e.id for e in entries if sub and e.backend == backend and people.get(e.id) == sub), "")

    async def _same(self, wanted: AccountEntry) -> str | None:
        """An account that points to the same place for the same use."""
        for entry in await self._keeper.entries():
            if (entry.backend, entry.credential, entry.project) == (
                wanted.backend,
                wanted.credential,
                wanted.project,
            ):
                return entry.id
        return None

    def _kept(self, found: Found, entry: AccountEntry, email: str) -> wire.ImportRow:
        row = _row(found.label, IMPORTED, account=entry.id, email=email, project=entry.project)
        if registry.gate(entry) is not None:
            row.result, row.reason = BLOCKED, "it is foreign, and its risk is not accepted: it is not used"
            row.next = ACCEPT.format(entry.id)
        return row


def _logins(found: list[Found | NotFound]) -> list[Found]:
    return [each for each in found if isinstance(each, Found)]


def _no_client(found: Found, job: _Job) -> wire.ImportRow:
    reason = job.client_problem or "it does not say which OAuth client it was made with"
    return _row(found.label, REFUSED, email=found.email, reason=reason, next_=NAME_CLIENT)


def _row(
    found: str,
    result: str,
    *,
    account: str = "",
    email: str = "",
    project: str = "",
    reason: str = "",
    next_: str = "",
) -> wire.ImportRow:
    return wire.ImportRow(
        found=found, result=result, account=account, email=email, project=project, reason=reason, next=next_
    )
