"""Keeps logins and accounts on the disk: the secret first, then the entry that names it, then the reload.

So at every instant an entry's secret is whole and there; what a crash may leave behind is a secret that no entry names.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from gemini_pool import wire

from ..accounts import edit
from ..accounts.schema import AccountEntry, parse
from ..accounts.store import AccountsFile
from ..config import SecretRef
from ..credentials.base import Context, Secret
from ..credentials.secret_ref import FileSource, Source, open_source
from ..credentials.token_share import TokenShare
from ..errors import FileRefused, PoolError
from ..files import ensure_private_dir, locked, sync_dir

FOLDER = "secrets"
ID = re.compile(r"^[a-z0-9._-]{1,64}\Z")

Reload = Callable[[], Awaitable[wire.ReloadResult | None]]


class Keeper:
    """The accounts file, its secrets, and the reload after a change. `context`: the one in force."""

    def __init__(self, accounts: AccountsFile, context: Callable[[], Context], reload: Reload) -> None:
        self.accounts = accounts
        self._context = context
        self._reload = reload
        self._lock = asyncio.Lock()  # one change at a time, each followed by its own reload

    @property
    def ctx(self) -> Context:
        return self._context()

    # ---- entries -----------------------------------------------------------------------------------------------

    async def entries(self) -> list[AccountEntry]:
        """The accounts as the file has them now. Raises `ConfigInvalid`: a broken file is to be mended first."""
        return (await asyncio.to_thread(self.accounts.read)).entries

    async def find(self, account_id: str) -> AccountEntry | None:
        return next((entry for entry in await self.entries() if entry.id == account_id), None)

    async def entry(self, account_id: str) -> AccountEntry:
        """Raises PoolError "not_found"."""
        found = await self.find(account_id)
        if found is None:
            raise PoolError(
                "not_found", f"there is no account {account_id!r}", hint="gemini-pool account list"
            )
        return found

    async def add(self, entry: AccountEntry) -> None:
        await self._change(lambda text: edit.add(text, entry))

    async def put(self, entry: AccountEntry) -> None:
        """Add the entry, or make the one of its id say what it says; a reload follows in any case."""
        await self._change(lambda text: _put(text, entry))

    async def remove(self, account_id: str) -> None:
        await self._change(lambda text: edit.remove(text, account_id))

    async def set(self, account_id: str, changes: Mapping[str, Any]) -> None:
        await self._change(lambda text: edit.set_keys(text, account_id, changes))

    async def _change(self, change: edit.Change) -> None:
        async with self._lock:
            await asyncio.to_thread(edit.apply, self.accounts, change)
            await self._reload()

    # ---- secrets -----------------------------------------------------------------------------------------------

    def source(self, entry: AccountEntry) -> Source | None:
        """Where the entry's secret is; None when it has none of its own."""
        return None if entry.credential.secret is None else self.open(entry.credential.secret, entry.id)

    def open(self, ref: SecretRef, account_id: str) -> Source:
        ctx = self.ctx
        return open_source(
            ref, account=account_id, environ=ctx.environ, state_dir=ctx.state_dir, sealer=ctx.sealer
        )

    def own_file(self, account_id: str, suffix: str = ".json") -> SecretRef:
        """The reference that a secret gets which is kept for this account."""
        return SecretRef(file=f"{FOLDER}/{account_id}{suffix}")

    async def write(self, ref: SecretRef, account_id: str, data: bytes) -> None:
        """Keep a secret; durable when this returns. A renewal of the same login that is under way ends first, so that
        it cannot put an older token back. Raises `CredentialError`, `FileRefused`."""
        ctx = self.ctx
        source = self.open(ref, account_id)
        if isinstance(source, FileSource) and self.is_ours(source.path):
            await asyncio.to_thread(ensure_private_dir, source.path.parent)
        share = TokenShare(ctx.state_dir, f"oauth {source.place}", ctx.clock, lead_s=ctx.lead_s)
        async with share.locked(account_id):
            await source.write(data)

    async def write_login(self, ref: SecretRef, account_id: str, info: Mapping[str, str]) -> None:
        await self.write(
            ref, account_id, msgspec.json.format(msgspec.json.encode(dict(info)), indent=2) + b"\n"
        )

    async def read_login(self, entry: AccountEntry) -> dict[str, Any] | None:
        """An oauth entry's `authorized_user` object; None when it cannot be read as one."""
        source = self.source(entry)
        if source is None:
            return None
        try:
            info = msgspec.json.decode(await source.read())
        except (PoolError, msgspec.DecodeError, UnicodeDecodeError):
            return None
        return info if isinstance(info, dict) else None

    async def refresh_token(self, entry: AccountEntry) -> Secret | None:
        info = await self.read_login(entry)
        token = info.get("refresh_token") if info else None
        return Secret(token) if isinstance(token, str) and token else None

    async def delete(self, ref: SecretRef, account_id: str) -> bool:
        """Delete a file that we keep, with its earlier contents; False for a place that is not ours to empty."""
        source = self.open(ref, account_id)
        if not isinstance(source, FileSource) or not self.is_ours(source.path):
            return False
        await asyncio.to_thread(_delete, source.path)
        return True

    def is_ours(self, path: Path) -> bool:
        """Whether a secret's file lies in our own folder: others belong to whoever put them there."""
        return path.parent == Path(os.path.abspath(self.ctx.state_dir / FOLDER))  # noqa: PTH100  (links stay links)


def _put(text: str, entry: AccountEntry) -> str:
    values = msgspec.to_builtins(entry)
    before = next((each for each in parse(text, edit.FILE) if each.id == entry.id), None)
    if before is None:
        return edit.add(text, entry)
    gone = dict.fromkeys(msgspec.to_builtins(before).keys() - values.keys())
    return edit.set_keys(text, entry.id, values | gone)


def check_id(account_id: str) -> None:
    """Raise PoolError "bad_request" unless that may be an account's id."""
    if not ID.match(account_id):
        hint = "an id has 1 to 64 of a-z, 0-9, dot, underscore and hyphen"
        raise PoolError("bad_request", f"{account_id[:80]!r} cannot be an account's id", hint=hint)


def _delete(path: Path) -> None:
    with locked(path):
        for each in [path, *sorted(path.parent.glob(f"{_escaped(path.name)}.[0-9]*"))]:
            try:
                each.unlink(missing_ok=True)
            except OSError as error:
                raise FileRefused(f"cannot delete {each}: {error.strerror}", path=str(each)) from None
        sync_dir(path.parent)


def _escaped(name: str) -> str:
    return re.sub(r"([\[\]*?])", r"[\1]", name)
