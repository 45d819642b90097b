"""Credentials whose kind stands in the file: application default credentials and workload identity files.

Finds the file as google-auth would (variable, gcloud's own, else the metadata server), looks at its `type` and hands
over to that kind. The loaders of google-auth that do the same warn about unsafe use; branching on the type does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from .base import Bearer, Context, Credential, Token, identity
from .credential_file import read_json
from .secret_ref import Source

# File type and place (None: the metadata server) to credential; raises CredentialError for a type we lack.
Make = Callable[[str, Source | None], Credential]

METADATA = "metadata"


class Typed(Bearer):
    """Delegates to the kind that the file names now; a file replaced by one of another type is followed."""

    def __init__(
        self,
        locate: Callable[[], Source | None],
        make: Make,
        ctx: Context,
        *,
        kind: str,
        account: str,
        scopes: tuple[str, ...],
        proxy: str,
        bills: bool = True,
        quota_project: str = "",
    ) -> None:
        """`quota_project`: is billed instead of the one that the file names."""
        source = locate()
        self.kind = kind
        self.quota_project = quota_project
        self.identity = identity(kind, source.place if source else METADATA, scopes, proxy, bills=bills)
        self._locate = locate
        self._make = make
        self._ctx = ctx
        self._account = account
        self._delegate: Credential | None = None
        self._delegate_of = ("", "")

    @property
    def client(self) -> str:  # type: ignore[override]
        return self._delegate.client if self._delegate else ""

    @property
    def warning(self) -> str:  # type: ignore[override]
        return self._delegate.warning if self._delegate else ""

    @property
    def digest(self) -> str:  # type: ignore[override]
        return self._delegate.digest if self._delegate else ""

    async def renew(self, now: float) -> Token:
        return await (await self._resolve()).renew(now)

    async def look(self) -> str:
        return await (await self._resolve()).look()

    def headers(self, token: Token) -> dict[str, str]:
        return {**(self._delegate.headers(token) if self._delegate else {}), **super().headers(token)}

    def fingerprint_nowait(self) -> str:
        source = self._locate()
        return f"{source.place} {source.fingerprint_nowait()}" if source else METADATA

    async def _resolve(self) -> Credential:
        source = self._locate()
        if source is None:
            return self._delegate_for("", None)
        info = read_json(await source.read(), source, self._account)
        return self._delegate_for(str(info.get("type", "")), source)

    def _delegate_for(self, file_type: str, source: Source | None) -> Credential:
        of = (file_type, source.place if source else "")
        if self._delegate is None or self._delegate_of != of:
            self._delegate = self._make(file_type, source)
            self._delegate_of = of
        return self._delegate


def default_file(environ: Mapping[str, str]) -> Path | None:
    """Where application default credentials lie: the variable's file (whether it exists or not), else gcloud's."""
    if named := environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
        return Path(named)
    folder = environ.get("CLOUDSDK_CONFIG")
    home = Path(environ.get("HOME") or Path.home())
    path = (Path(folder) if folder else home / ".config" / "gcloud") / "application_default_credentials.json"
    return path if path.exists() else None
