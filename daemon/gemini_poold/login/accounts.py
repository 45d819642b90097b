"""What people do with accounts while the daemon runs: add, remove, enable, disable, verify.

Each edits accounts.toml and waits for the reload, so that what is answered is in force. The file stays the one truth:
nothing here keeps a list of its own, and what was removed does not come back.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from gemini_pool import wire

from ..accounts.schema import AccountEntry
from ..config import SecretRef
from ..core.health import HELD
from ..core.model import AccountState, PoolEvent
from ..errors import UNREADABLE, PoolError
from . import terms
from .examine import Examiner, Running
from .exchange import revoke
from .keeping import Keeper, check_id
from .oauth_client import FOREIGN
from .plan import entry_of

AT_ONCE = 8
# Written by this program alone: who may set them could call any login his own.
NOT_SETTABLE = frozenset({"id", "backend", "credential", "client_origin", "accepted_terms_risk"})
MAX_SECRET = 1 << 20


class AccountAdmin:
    def __init__(self, keeper: Keeper, running: Running, examiner: Examiner) -> None:
        self._keeper = keeper
        self._running = running
        self._examiner = examiner

    async def add(self, params: wire.AccountAddParams) -> wire.VerifyRow:
        """A new account, tried at once. Raises PoolError "bad_request" or "config_invalid"."""
        check_id(params.account)
        if await self._keeper.find(params.account) is not None:
            hint = "choose another id, or remove that one first"
            raise PoolError("bad_request", f"there is an account {params.account!r} already", hint=hint)
        entry = self._entry(params)
        if params.secret_text:
            assert entry.credential.secret is not None
            data = params.secret_text.strip().encode() + b"\n"
            await self._keeper.write(entry.credential.secret, entry.id, data)
        await self._keeper.add(entry)
        self._say(entry.id, "added")
        await self._examiner.wait_settled(entry.id)
        return await self._examiner.verify(entry)

    async def remove(self, params: wire.AccountRemoveParams) -> wire.AccountRemoveResult:
        """Take an account out. With `revoke`, its login is ended at Google first; if Google cannot be reached, nothing
        changes."""
        entry = await self._keeper.entry(params.account)
        notes: list[str] = []
        sharing = await self._sharing(entry)
        if sharing and params.revoke:
            problem = f"{', '.join(sharing)} use the same secret and would end, too"
            raise PoolError("bad_request", problem, hint="remove them first", account=entry.id)
        revoked = params.revoke and await self._revoke(entry, notes)
        await self._keeper.remove(entry.id)
        left = await self._left(entry, notes, delete=params.revoke or params.delete_secret, sharing=sharing)
        self._say(entry.id, "removed and revoked" if revoked else "removed")
        return wire.AccountRemoveResult(entry.id, revoked, left, notes)

    async def enable(self, params: wire.AccountParams) -> wire.AccountVerdict:
        """Switch an account on; one that was held is tried again (but for a suspended one, which waits for its own
        word)."""
        await self._switch(params.account, on=True)
        member = self._running.broker.pool.members.get(params.account)
        if member is not None and member.state in HELD and member.state is not AccountState.SUSPENDED:
            self._running.lifecycle.retry(params.account)
        await self._examiner.wait_settled(params.account)
        return self._examiner.look(params.account)

    async def disable(self, params: wire.AccountParams) -> wire.AccountVerdict:
        """Switch an account off: it gets nothing new, what runs goes on."""
        await self._switch(params.account, on=False)
        return self._examiner.look(params.account)

    async def verify(self, params: wire.VerifyParams) -> wire.VerifyResult:
        """One cheap real call for each account, in the file's order."""
        entries = await self._keeper.entries()
        known = {entry.id: entry for entry in entries}
        for account_id in params.accounts:
            if account_id not in known:
                hint = "gemini-pool account list"
                raise PoolError("not_found", f"there is no account {account_id!r}", hint=hint)
        chosen = [entry for entry in entries if not params.accounts or entry.id in params.accounts]
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(entry: AccountEntry) -> wire.VerifyRow:
            async with gate:
                return await self._examiner.verify(entry)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(entry)) for entry in chosen]
        return wire.VerifyResult([task.result() for task in tasks])

    # ---- inside ------------------------------------------------------------------------------------------------

    def _entry(self, params: wire.AccountAddParams) -> AccountEntry:
        """The new entry. A login that comes from elsewhere is foreign, whoever says otherwise."""
        if wrong := NOT_SETTABLE & params.settings.keys():
            raise PoolError("bad_request", f"{', '.join(sorted(wrong))} cannot be set here")
        values: dict[str, Any] = {
            "id": params.account,
            "backend": params.backend,
            "credential": self._credential(params),
            **params.settings,
        }
        if params.credential == "oauth":
            accepted = terms.record(params.accept_terms_risk, self._running.clock.now())
            values |= {"client_origin": FOREIGN, "accepted_terms_risk": accepted}
        return entry_of(values)

    def _credential(self, params: wire.AccountAddParams) -> dict[str, Any]:
        if params.secret is not None and params.secret_text:
            raise PoolError("bad_request", "secret or secret_text, not both")
        table: dict[str, Any] = {"type": params.credential}
        if params.target:
            table["target"] = params.target
        if params.scopes:
            table["scopes"] = list(params.scopes)
        if params.secret is not None:
            table["secret"] = _reference(params.secret)
        elif params.secret_text:
            _check_text(params)
            suffix = ".key" if params.credential == "api-key" else ".json"
            table["secret"] = msgspec.to_builtins(self._keeper.own_file(params.account, suffix))
        return table

    async def _switch(self, account_id: str, *, on: bool) -> None:
        await self._keeper.entry(account_id)
        await self._keeper.set(account_id, {"enabled": on})
        self._say(account_id, "enabled" if on else "disabled")

    async def _sharing(self, entry: AccountEntry) -> list[str]:
        """Other accounts whose secret is in the same place."""
        source = self._keeper.source(entry)
        if source is None:
            return []
        return [
            other.id
            for other in await self._keeper.entries()
            if other.id != entry.id and (there := self._keeper.source(other)) and there.place == source.place
        ]

    async def _revoke(self, entry: AccountEntry, notes: list[str]) -> bool:
        if entry.credential.type != "oauth":
            notes.append(
                f"a credential of type {entry.credential.type} cannot be revoked from here: {_AT_GOOGLE}"
            )
            return False
        token = await self._keeper.refresh_token(entry)
        if token is None:
            notes.append("its secret holds no login that could be revoked")
            return False
        known = await revoke(self._keeper.ctx, token, account=entry.id, proxy=entry.proxy)
        if not known:
            notes.append("Google did not know the login any more")
        return known

    async def _left(self, entry: AccountEntry, notes: list[str], *, delete: bool, sharing: list[str]) -> str:
        """Deletes the secret if asked; where it still is."""
        ref = entry.credential.secret
        if ref is None:
            return ""
        if sharing:
            notes.append(f"its secret stays: {', '.join(sharing)} use it")
            return ref.described
        if delete and await self._keeper.delete(ref, entry.id):
            return ""
        return ref.described

    def _say(self, account_id: str, what: str) -> None:
        broker = self._running.broker
        broker.tell(PoolEvent("account", "info", self._running.clock.now(), what, account_id))


_AT_GOOGLE = "delete the key in Google's console"


def _reference(given: dict[str, Any]) -> dict[str, Any]:
    """A secret reference from outside. Raises PoolError: a command is a program that we would run."""
    if "command" in given:
        hint = "write it into accounts.toml by hand"
        raise PoolError("bad_request", "a command cannot be set from here", hint=hint)
    try:
        reference: dict[str, Any] = msgspec.to_builtins(msgspec.convert(given, SecretRef))
    except msgspec.ValidationError:
        # The error might repeat what was given, and people give the secret itself.
        problem = "a secret is a reference: one of file, env, keyring, systemd-credential"
        raise PoolError("bad_request", problem) from None
    return reference


def _check_text(params: wire.AccountAddParams) -> None:
    text = params.secret_text.strip()
    if len(text) > MAX_SECRET:
        raise PoolError("bad_request", "that is too long for a secret")
    if params.credential == "api-key":
        if not text.isascii() or not text.isprintable() or " " in text:
            raise PoolError("bad_request", "an API key is one line, the key alone")
        return
    try:
        fine = isinstance(msgspec.json.decode(text), dict)
    except UNREADABLE:
        fine = False
    if not fine:
        raise PoolError("bad_request", "the secret of such a credential is Google's own JSON file")
