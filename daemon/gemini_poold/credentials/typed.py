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
    ) -> None:
        source = locate()
        self.kind = kind
        self.identity = identity(kind, source.place if source else METADATA, scopes, proxy)
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

    async def renew(self, now: float) -> Token:
        source = self._locate()
        if source is None:
            return await self._delegate_for("", None).renew(now)
        info = read_json(await source.read(), source, self._account)
        return await self._delegate_for(str(info.get("type", "")), source).renew(now)

    def fingerprint_nowait(self) -> str:
        source = self._locate()
        return f"{source.place} {source.fingerprint_nowait()}" if source else METADATA

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
