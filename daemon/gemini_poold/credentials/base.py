"""What every kind of credential shares: masked secrets, tokens, the error with its failure class, the Protocol.

When a token is renewed is `core.refresh`'s and `runtime.tokens`' business; a credential only knows how.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from ..clock import Clock
from ..config import Endpoints, SecretRef
from ..core.health import ERROR_WORD
from ..core.model import AccountState, TokenLife
from ..errors import PoolError, UpstreamFailure
from ..transport import Fetched, Transport

if TYPE_CHECKING:
    from .sealer import Sealer

CLOUD_PLATFORM = "https://www.googleapis.com/auth/cloud-platform"
RETRIEVER = (
    "https://www.googleapis.com/auth/generative-language.retriever"  # the Gemini API asks for it with OAuth
)

USER_PROJECT = "x-goog-user-project"

TOKEN_TIMEOUT_S = 20.0  # one call to a token endpoint, the whole of it
DEFAULT_LIFE_S = 3600.0  # Google's, where an answer does not say


class Secret:
    """A text that shows itself only to who asks by name. Never in a repr, a format, a pickle or a comparison's time."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "Secret(***)"

    def __str__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return "***"

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret is not pickled or copied")


@dataclass(frozen=True, slots=True)
class Token:
    """What authorises a request, with its life in Unix seconds. An API key is a token that never expires."""

    value: Secret
    issued_at: float
    expires_at: float = inf

    @property
    def life(self) -> TokenLife:
        return TokenLife(self.issued_at, self.expires_at)


class Failure(StrEnum):
    """Why no token could be had: what a person must do, and whether trying again may help."""

    TRANSIENT = "transient"  # network, 5xx, garbage: the old token lasts, try again
    LOGIN = "login"  # this login is dead
    DEAD = "dead"  # the account or key behind it is gone
    CLIENT = "client"  # the OAuth client is refused: everybody who logged in with it
    REAUTH = "reauth"  # the organisation's session length: log in again
    POLICY = "policy"  # an administrator forbids it
    SECRET = "secret"  # the secret reference cannot be read
    CONFIG = "config"  # scopes, target, roles: the request as configured is refused

    @property
    def held(self) -> bool:
        """No retry helps until a person acts."""
        return self in _HELD


_HELD = frozenset({Failure.LOGIN, Failure.DEAD, Failure.CLIENT, Failure.REAUTH, Failure.POLICY})

STATE_OF: Mapping[Failure, AccountState] = {
    Failure.TRANSIENT: AccountState.OFFLINE,
    Failure.LOGIN: AccountState.LOGIN_REQUIRED,
    Failure.DEAD: AccountState.DEAD,
    Failure.CLIENT: AccountState.CLIENT_INVALID,
    Failure.REAUTH: AccountState.LOGIN_REQUIRED,
    Failure.POLICY: AccountState.LOGIN_REQUIRED,
    Failure.SECRET: AccountState.SECRET_MISSING,
    Failure.CONFIG: AccountState.MISCONFIGURED,
}


class CredentialError(PoolError):
    """No token, and why. `failure` says which way out there is; `retry_after_s` is the endpoint's own word.

    `url`: a page that helps a person on (Google's `error_uri`).
    """

    def __init__(
        self,
        failure: Failure,
        message: str,
        *,
        account: str = "",
        hint: str = "",
        url: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        code = ERROR_WORD.get(STATE_OF[failure], "upstream_error")
        super().__init__(code, message, hint=hint, account=account or None)
        self.failure = failure
        self.url = url
        self.retry_after_s = retry_after_s

    @property
    def state(self) -> AccountState:
        return STATE_OF[self.failure]


class Credential(Protocol):
    """One way to be authorised. Not safe for two renewals at once: who holds it (`runtime.tokens`) does one at a time."""

    @property
    def kind(self) -> str:
        """The contract's word: oauth, api-key, service-account, adc, external, impersonated."""
        ...

    @property
    def identity(self) -> str:
        """Equal for two accounts that use the same login with the same scopes: they share one token."""
        ...

    @property
    def client(self) -> str:
        """The OAuth client's key ("" when none, or not read yet): a refused client concerns all of its logins."""
        ...

    @property
    def warning(self) -> str:
        """Something a person should know although tokens come ("" when nothing)."""
        ...

    def warm_nowait(self) -> Token | None:
        """The token when no call and no waiting is needed for it (an API key). Raises `CredentialError`."""
        ...

    async def renew(self, now: float) -> Token:
        """A new token. What rotated is durable when this returns. Raises `CredentialError` and nothing else."""
        ...

    def headers(self, token: Token) -> dict[str, str]:
        """The header fields that carry the token."""
        ...

    def fingerprint_nowait(self) -> str:
        """Changes when somebody replaced the secret (a file's inode and time); "" when that cannot be told."""
        ...

    @property
    def digest(self) -> str:
        """Names the content of the secret as it was read or written last, over restarts; "" when there is none."""
        ...

    async def look(self) -> str:
        """Read the secret, ask nobody; its `digest`. Raises `CredentialError`."""
        ...


class CredentialEntry(Protocol):
    """The `credential` table of an account."""

    @property
    def type(self) -> str: ...
    @property
    def secret(self) -> SecretRef | None: ...
    @property
    def scopes(self) -> tuple[str, ...]: ...
    @property
    def target(self) -> str: ...
    @property
    def self_signed(self) -> bool: ...


class Entry(Protocol):
    """What a credential needs of an account as the user wrote it."""

    @property
    def id(self) -> str: ...
    @property
    def backend(self) -> str: ...
    @property
    def project(self) -> str: ...
    @property
    def credential(self) -> CredentialEntry: ...
    @property
    def client_origin(self) -> str: ...
    @property
    def accepted_terms_risk(self) -> str: ...
    @property
    def proxy(self) -> str: ...


@dataclass(slots=True)
class Memory:
    """What outlives a credential object in this process: they are made anew at every reload.

    `unsaved`: rotated refresh tokens that are in no file, by place. `handed_out`: the last token of each identity, so
    that a refused one is not taken for a new one.
    """

    unsaved: dict[str, Any] = field(default_factory=dict)
    handed_out: dict[str, Token] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Context:
    """What credentials are built with. `share_tokens`: keep access tokens of logins beside their lock (0600), so
    that a second process or a restart does not ask Google again. A changed copy made with `replace` keeps `memory`.
    `sealer`: opens and seals secret files that are encrypted at rest."""

    transport: Transport
    endpoints: Endpoints
    clock: Clock
    state_dir: Path
    environ: Mapping[str, str] = field(repr=False)  # secrets may be in it
    lead_s: float = 600.0
    share_tokens: bool = True
    memory: Memory = field(default_factory=Memory)
    sealer: Sealer | None = None


class Bearer:
    """The defaults of every kind whose token is an OAuth access token.

    `quota_project`: the project that is billed, as the credential's file names it; `bills`: whether that is told.
    """

    client = ""
    warning = ""
    digest = ""
    quota_project = ""
    bills = True

    def warm_nowait(self) -> Token | None:
        return None

    def headers(self, token: Token) -> dict[str, str]:
        headers = {"Authorization": f"Bearer {token.value.reveal()}"}
        if self.quota_project:
            headers[USER_PROJECT] = self.quota_project
        return headers

    def _read_quota_project(self, info: Mapping[str, Any]) -> None:
        named = info.get("quota_project_id")
        self.quota_project = named if self.bills and isinstance(named, str) else ""

    def fingerprint_nowait(self) -> str:
        return ""

    async def look(self) -> str:
        return self.digest


@dataclass(frozen=True, slots=True)
class Caller:
    """One account's way to Google's token endpoints."""

    account: str
    transport: Transport
    proxy: str = ""

    async def fetch(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None
    ) -> Fetched:
        """The answer. A network failure becomes a transient `CredentialError`."""
        try:
            return await self.transport.fetch(
                method, url, headers=headers, body=body, timeout_s=TOKEN_TIMEOUT_S, proxy=self.proxy
            )
        except UpstreamFailure as error:
            raise CredentialError(
                Failure.TRANSIENT,
                f"account {self.account}: no token: {error.message}",
                account=self.account,
                hint=error.hint,
            ) from None


def identity(kind: str, place: str, scopes: tuple[str, ...], proxy: str, *, bills: bool = True) -> str:
    """A credential's identity. Kind and proxy belong to it: they are how the token is had; `bills`: how it is sent."""
    return " ".join(part for part in (kind, place, *scopes, proxy, "" if bills else "unbilled") if part)


def digest_of(data: bytes) -> str:
    """The name of a secret's content. It may be kept: what is hashed is nothing that one could guess."""
    return hashlib.sha256(data).hexdigest()[:32]


def lifetime_s(answer: Mapping[str, Any]) -> float:
    """`expires_in` of a token answer, in whatever form it came; Google's usual hour when it is missing or nonsense."""
    try:
        seconds = float(answer.get("expires_in", DEFAULT_LIFE_S))
    except (TypeError, ValueError):
        return DEFAULT_LIFE_S
    return seconds if 0 < seconds < inf else DEFAULT_LIFE_S


def default_scopes(backend: str) -> tuple[str, ...]:
    """The scopes asked for when the user names none."""
    return (CLOUD_PLATFORM, RETRIEVER) if backend == "developer-api" else (CLOUD_PLATFORM,)
