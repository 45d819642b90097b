"""Archives: all accounts with their secrets in one encrypted file, for moving to another machine.

Inside the age file stands one JSON object: `format`, `version`, `created_at`, and `accounts`, each an `entry` as in
accounts.toml and its `secret` in base64 (null where it has none, or where it is a command's output: a program's name is
never taken over from a file). The user can open it without us: `age -d FILE`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import msgspec

from gemini_pool import wire

from ..accounts.schema import AccountEntry
from ..errors import PoolError
from ..login.keeping import Keeper
from ..login.plan import entry_of
from . import sealing

FORMAT, VERSION = "gemini-pool-archive", 1
MIN_PASSPHRASE = 8
KEPT, KNOWN, REFUSED = "imported", "known", "refused"
BY_HAND = "write it into accounts.toml by hand"


class _Packed(msgspec.Struct, omit_defaults=True):
    entry: dict[str, Any]
    secret: str | None = None


class _Bundle(msgspec.Struct):
    format: str
    version: int
    created_at: float
    accounts: list[_Packed]


class Archive:
    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    async def export(self, params: wire.ArchiveParams) -> wire.ArchiveResult:
        """The accounts, sealed. One whose secret cannot be read is left out, and a note says why."""
        if len(params.passphrase) < MIN_PASSPHRASE:
            raise PoolError("bad_request", f"a passphrase has at least {MIN_PASSPHRASE} characters")
        entries = await self._keeper.entries()
        for account_id in params.accounts:
            if not any(entry.id == account_id for entry in entries):
                hint = "gemini-pool account list"
                raise PoolError("not_found", f"there is no account {account_id!r}", hint=hint)
        notes: list[str] = []
        packed = []
        for entry in entries:
            if params.accounts and entry.id not in params.accounts:
                continue
            try:
                packed.append(await self._pack(entry, notes))
            except PoolError as error:
                notes.append(f"{entry.id} is left out: {error.message}")
        bundle = _Bundle(FORMAT, VERSION, self._keeper.ctx.clock.now(), packed)
        sealed = await sealing.seal(msgspec.json.encode(bundle), params.passphrase)
        names = [str(each.entry["id"]) for each in packed]
        return wire.ArchiveResult(base64.b64encode(sealed).decode("ascii"), names, notes)

    async def restore(self, params: wire.UnarchiveParams) -> wire.ImportResult:
        """Take the accounts of an archive. What is here already stays as it is."""
        try:
            sealed = base64.b64decode(params.archive, validate=True)
        except binascii.Error:
            raise PoolError("bad_request", "that is no archive in base64") from None
        await self._keeper.entries()  # a broken accounts file is mended first
        return await self.take(await sealing.unseal(sealed, params.passphrase), only=params.accounts)

    async def take(self, data: bytes, *, only: Sequence[str] = ()) -> wire.ImportResult:
        """The same with the inside of an archive (that of `only` these accounts, if any are named)."""
        rows = [
            await self._restore(packed)
            for packed in _bundle(data).accounts
            if not only or packed.entry.get("id") in only
        ]
        return wire.ImportResult(rows, [])

    # ---- inside ------------------------------------------------------------------------------------------------

    async def _pack(self, entry: AccountEntry, notes: list[str]) -> _Packed:
        plain: dict[str, Any] = msgspec.to_builtins(entry)
        source = self._keeper.source(entry)
        if source is None:
            if entry.credential.type in {"adc", "impersonated"}:
                notes.append(
                    f"{entry.id} uses this machine's default credentials, which are not in the archive"
                )
            return _Packed(plain)
        assert entry.credential.secret is not None
        if entry.credential.secret.kind == "command":
            notes.append(f"{entry.id}: its command is in the archive, what it prints is not")
            return _Packed(plain)
        return _Packed(plain, base64.b64encode(await source.read()).decode("ascii"))

    async def _restore(self, packed: _Packed) -> wire.ImportRow:
        name = str(packed.entry.get("id", ""))
        try:
            entry = entry_of(packed.entry)
            return await self._take(entry, packed.secret)
        except PoolError as error:
            return _row(name, REFUSED, reason=error.message, next_=error.hint)

    async def _take(self, entry: AccountEntry, secret: str | None) -> wire.ImportRow:
        ref = entry.credential.secret
        if await self._keeper.find(entry.id) is not None:
            return _row(entry.id, KNOWN, reason="there is an account of that name already")
        if ref is not None and ref.kind == "command":
            return _row(entry.id, REFUSED, reason="its secret comes from a command", next_=BY_HAND)
        if ref is not None:
            if secret is None:
                return _row(entry.id, REFUSED, reason="its secret is not in the archive", next_=BY_HAND)
            try:
                data = base64.b64decode(secret, validate=True)
            except binascii.Error:
                return _row(entry.id, REFUSED, reason="its secret is damaged")
            own = self._keeper.own_file(entry.id, ".key" if entry.credential.type == "api-key" else ".json")
            entry = msgspec.structs.replace(
                entry, credential=msgspec.structs.replace(entry.credential, secret=own)
            )
            await self._keeper.write(own, entry.id, data)
        await self._keeper.add(entry)
        return _row(entry.id, KEPT, account=entry.id, project=entry.project)


def _bundle(data: bytes) -> _Bundle:
    try:
        bundle = msgspec.json.decode(data, type=_Bundle)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise PoolError("bad_request", "that is an age file, but no archive of ours") from None
    if bundle.format != FORMAT:
        raise PoolError("bad_request", "that is an age file, but no archive of ours")
    if bundle.version > VERSION:
        raise PoolError(
            "bad_request", "the archive was written by a newer version", hint="pip install -U gemini-pool"
        )
    return bundle


def _row(
    found: str, result: str, *, account: str = "", project: str = "", reason: str = "", next_: str = ""
) -> wire.ImportRow:
    return wire.ImportRow(
        found=found, result=result, account=account, email="", project=project, reason=reason, next=next_
    )
