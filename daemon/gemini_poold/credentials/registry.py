"""From an account's entry to its credential, and whether that credential may be used at all.

The one module of this room that knows every kind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypedDict

from ..core.model import AccountState, Kind, Outcome, Scope
from .api_key import ApiKey
from .base import Context, Credential, CredentialEntry, CredentialError, Entry, Failure, default_scopes
from .external import External
from .impersonated import FILE_TYPE as IMPERSONATED_FILE
from .impersonated import Impersonated
from .metadata import Metadata
from .oauth_user import TYPES as USER_FILES
from .oauth_user import OAuthUser
from .secret_ref import FileSource, Source, open_source, unreadable
from .service_account import API, ServiceAccount
from .typed import Typed, default_file


class _More(TypedDict):
    scopes: tuple[str, ...]
    proxy: str
    bills: bool


KINDS = ("oauth", "api-key", "service-account", "adc", "external", "impersonated")


def gate(entry: Entry) -> Outcome | None:
    """What keeps the account from being used before any token is asked for; None when nothing does.

    A login that was made with somebody else's OAuth client is refused until the user has accepted, on record, that
    Google calls its use by other software a violation of its terms.
    """
    if entry.client_origin != "foreign" or entry.accepted_terms_risk.strip():
        return None
    return Outcome(
        Kind.ACCOUNT,
        Scope.ACCOUNT,
        state=AccountState.BLOCKED_BY_TERMS,
        rotate=True,
        reason="the login was made with another program's OAuth client, whose use Google calls a violation of its terms",
        hint=f"log in with an OAuth client of your own: gemini-pool login {entry.id} --client-secrets FILE",
        source="client_origin",
    )


def build(entry: Entry, ctx: Context) -> Credential:
    """The credential of an entry that `gate` lets through. Reads nothing yet. Raises `CredentialError` for an entry
    that lacks what its kind needs."""
    return _Builder(entry, ctx).build()


@dataclass(frozen=True, slots=True)
class _Builder:
    entry: Entry
    ctx: Context

    def build(self) -> Credential:
        makers: dict[str, Callable[[], Credential]] = {
            "api-key": lambda: ApiKey(self._source(), self.entry.id),
            "oauth": lambda: OAuthUser(self._source(), self.ctx, account=self.entry.id, **self._oauth()),
            "service-account": lambda: ServiceAccount(
                self._source(), self.ctx, account=self.entry.id, api=self._api, **self._more()
            ),
            "adc": self._adc,
            "external": self._external,
            "impersonated": self._impersonated,
        }
        maker = makers.get(self._table.type)
        if maker is None:
            raise unreadable(
                self.entry.id, f"unknown credential type {self._table.type!r}", f"use {', '.join(KINDS)}"
            )
        return maker()

    @property
    def _table(self) -> CredentialEntry:
        return self.entry.credential

    @property
    def _scopes(self) -> tuple[str, ...]:
        return tuple(self._table.scopes) or default_scopes(str(self.entry.backend))

    def _more(self) -> _More:
        return {"scopes": self._scopes, "proxy": self.entry.proxy, "bills": self._bills}

    def _oauth(self) -> _More:
        # A login's scopes were fixed when it was granted: asking for more would be refused.
        return {"scopes": tuple(self._table.scopes), "proxy": self.entry.proxy, "bills": self._bills}

    @property
    def _api(self) -> str:
        """The API host that the account's own signature shall do for; "" asks the token endpoint."""
        return API.get(str(self.entry.backend), "") if self._table.self_signed else ""

    @property
    def _bills(self) -> bool:
        """Whether a file's `quota_project_id` is told to Google. Code Assist names its project in the body and demands
        a right for the header that a licence does not bring; on the Developer API the account's own `project` wins."""
        backend = str(self.entry.backend)
        return backend == "vertex" or (backend == "developer-api" and not self.entry.project)

    def _source(self) -> Source:
        if self._table.secret is None:
            raise unreadable(
                self.entry.id, "credential.secret is missing", 'e.g. secret = { file = "secrets/NAME.json" }'
            )
        hint = f"gemini-pool login {self.entry.id}" if self._table.type == "oauth" else ""
        return open_source(
            self._table.secret,
            account=self.entry.id,
            environ=self.ctx.environ,
            state_dir=self.ctx.state_dir,
            hint=hint,
            sealer=self.ctx.sealer,
        )

    def _default_source(self) -> Source | None:
        if self._table.secret is not None:
            return self._source()
        path = default_file(self.ctx.environ)
        hint = "gcloud auth application-default login"
        return None if path is None else FileSource(path, self.entry.id, hint, self.ctx.sealer)

    def _adc(self) -> Credential:
        return self._typed(self._default_source, "adc")

    def _external(self) -> Credential:
        source = self._source()
        return self._typed(lambda: source, "external")

    def _impersonated(self) -> Credential:
        source = None if self._table.secret is None else self._source()
        return self._impersonate(source, "impersonated", self._table.target)

    def _typed(self, locate: Callable[[], Source | None], kind: str) -> Credential:
        def make(file_type: str, source: Source | None) -> Credential:
            return self._by_type(file_type, source, kind)

        named = (
            self.ctx.environ.get("GOOGLE_CLOUD_QUOTA_PROJECT", "") if kind == "adc" and self._bills else ""
        )
        account = self.entry.id
        return Typed(locate, make, self.ctx, kind=kind, account=account, quota_project=named, **self._more())

    def _impersonate(self, source: Source | None, kind: str, target: str) -> Credential:
        def make_source(inner: Source | None) -> Credential:
            return self._typed(self._default_source if inner is None else lambda: inner, f"{kind}-source")

        return Impersonated(
            source, make_source, self.ctx, account=self.entry.id, target=target, kind=kind, **self._more()
        )

    def _by_type(self, file_type: str, source: Source | None, kind: str) -> Credential:
        account = self.entry.id
        if source is None:
            return Metadata(self.ctx, account=account, scopes=self._scopes, kind=kind)
        if file_type in USER_FILES:
            return OAuthUser(source, self.ctx, account=account, kind=kind, **self._oauth())
        if file_type == "service_account":
            return ServiceAccount(source, self.ctx, account=account, kind=kind, **self._more())
        if file_type == "external_account":
            return External(source, self.ctx, account=account, kind=kind, **self._more())
        if file_type == IMPERSONATED_FILE:
            return self._impersonate(source, kind, "")
        problem = f"{source.described} is a credential of type {file_type[:40]!r}, which is not supported"
        raise CredentialError(
            Failure.SECRET,
            f"account {account}: {problem}",
            account=account,
            hint="use a service account or a login",
        )
