"""Gives logins back to opencode, in the packed form that its plugin reads. Nothing else in its file changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from gemini_pool import wire

from .. import files
from ..accounts.schema import AccountEntry
from ..errors import PoolError
from ..login.keeping import Keeper
from ..login.oauth_client import OWN
from .found import NotFound, Places, read_object
from .opencode import PROVIDER, Packed, auth_path, pack

# The project that Google found for an account; empty when none is known.
ProjectOf = Callable[[str], str]


class Exporter:
    def __init__(self, keeper: Keeper, project_of: ProjectOf = lambda _account: "") -> None:
        self._keeper = keeper
        self._project_of = project_of

    async def opencode(self, params: wire.ExportOpencodeParams) -> wire.ExportResult:
        """Write these accounts' logins into opencode's `auth.json`; its previous content stays as `auth.json.1`."""
        if not params.accounts:
            raise PoolError("bad_request", "name the account to export")
        notes: list[str] = []
        packed = [
            await self._pack(await self._keeper.entry(each), notes) for each in dict.fromkeys(params.accounts)
        ]
        if len(packed) > 1:
            notes.append("several logins in one entry are read by some forks of the plugin only")
        places = Places.of(self._keeper.ctx.environ, params.home)
        path = places.path(params.path) if params.path else auth_path(places)
        await asyncio.to_thread(_write, path, ";".join(packed), notes)
        return wire.ExportResult(list(params.accounts), str(path), notes)

    async def _pack(self, entry: AccountEntry, notes: list[str]) -> str:
        if entry.credential.type != "oauth":
            problem = f"account {entry.id} is no login: opencode takes a refresh token"
            raise PoolError("bad_request", problem, account=entry.id)
        token = await self._keeper.refresh_token(entry)
        if token is None:
            hint = f"gemini-pool login {entry.id}"
            raise PoolError("login_required", f"account {entry.id} has no login to export", hint=hint)
        if entry.client_origin == OWN:
            notes.append(
                f"{entry.id} was logged in with an OAuth client of your own: a plugin that renews with Gemini CLI's "
                "cannot renew it"
            )
        managed = "" if entry.project else self._project_of(entry.id)
        return pack(Packed(token.reveal(), entry.project, managed))


def _write(path: Path, refresh: str, notes: list[str]) -> None:
    """Exchange one entry of the file. What is no JSON object is never overwritten."""
    target = path.resolve() if path.is_symlink() else path
    content: dict[str, Any] = {}
    if target.exists():
        known = read_object(target)
        if isinstance(known, NotFound):
            raise PoolError("bad_request", f"{known.label}: {known.reason}; it stays as it is")
        content = known
        if content.get(PROVIDER):
            notes.append(f"its earlier login stands in {target.name}.1")
    else:
        files.ensure_private_dir(target.parent)
    content[PROVIDER] = {"type": "oauth", "refresh": refresh, "access": "", "expires": 0}
    data = msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"
    files.atomic_write(target, data, generations=1)
