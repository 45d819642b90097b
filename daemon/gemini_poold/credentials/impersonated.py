"""Service-account impersonation: another credential's token buys one of the target's (`generateAccessToken`).

Our own POST over any other credential of ours, so that a rotated refresh token of the source is kept as anywhere else.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec

from ..transport import Fetched
from .base import (
    Bearer,
    Caller,
    Context,
    Credential,
    CredentialError,
    Failure,
    Secret,
    Token,
    digest_of,
    identity,
)
from .credential_file import read_json
from .secret_ref import InlineSource, Source, unreadable
from .token_endpoint import TRANSIENT_STATUSES, parse, retry_after_s, server_now
from .token_share import share_of

FILE_TYPE = "impersonated_service_account"
LIFETIME_S = 3600  # asked for
SOURCE_MARGIN_S = 60.0  # the source's token must outlive the call

MakeSource = Callable[[Source | None], Credential]  # None: application default credentials
_URL = re.compile(r"/serviceAccounts/(?P<target>[^/:]+):generateAccessToken$")


class Impersonated(Bearer):
    """`target` is the service account to become; empty takes it from an `impersonated_service_account` file."""

    def __init__(
        self,
        source: Source | None,
        make_source: MakeSource,
        ctx: Context,
        *,
        account: str,
        target: str,
        scopes: tuple[str, ...],
        proxy: str = "",
        bills: bool = True,
        kind: str = "impersonated",
    ) -> None:
        self.kind = kind
        self.bills = bills
        place = source.place if source else "adc"
        self.identity = identity(kind, f"{target} {place}", scopes, proxy, bills=bills)
        self._source = source
        self._make_source = make_source
        self._ctx = ctx
        self._target = target
        self._scopes = scopes
        self._account = account
        self._caller = Caller(account, ctx.transport, proxy)
        self._inner: Credential | None = None
        self._inner_of = b""
        self._inner_target = ""
        self._delegates: list[str] = []
        self._inner_token: Token | None = None

    @property
    def client(self) -> str:  # type: ignore[override]
        return self._inner.client if self._inner else ""

    @property
    def warning(self) -> str:  # type: ignore[override]
        return self._inner.warning if self._inner else ""

    @property
    def digest(self) -> str:  # type: ignore[override]
        """Of the source's secret, which is the only one there is."""
        if self._source is not None:
            return digest_of(self._inner_of) if self._inner else ""
        return self._inner.digest if self._inner else ""

    async def look(self) -> str:
        inner = await self._load()
        return self.digest if self._source is not None else await inner.look()

    async def renew(self, now: float) -> Token:
        inner = await self._load()
        return await share_of(self._ctx, self.identity).token(
            self._ctx,
            self._account,
            grant=self._grant,
            identity=self.identity,
            make=partial(self._buy, inner, now),
        )

    @property
    def _grant(self) -> str:
        """Names what is asked for and by whom. A source that rotates is the same one (its content is not)."""
        return digest_of("\0".join((self._inner_target, *self._delegates, self._inner_of_login())).encode())

    def _inner_of_login(self) -> str:
        try:
            info = msgspec.json.decode(self._inner_of)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return ""
        named = info.get("source_credentials", info) if isinstance(info, dict) else {}
        return "\0".join(str(named.get(name, "")) for name in ("client_id", "client_email", "private_key_id"))

    async def _buy(self, inner: Credential, now: float) -> Token:
        token = await self._source_token(inner, now)
        issued_at = self._ctx.clock.now()
        reply = await self._ask(inner, token)
        if reply.status == 401:  # the source's token died early: once more with a new one
            self._inner_token = None
            token = await self._source_token(inner, now)
            reply = await self._ask(inner, token)
        return self._read(reply, issued_at)

    def fingerprint_nowait(self) -> str:
        return self._source.fingerprint_nowait() if self._source else ""

    async def _load(self) -> Credential:
        """The source credential, made anew when its file changed."""
        data = b"" if self._source is None else await self._source.read()
        if self._inner is not None and data == self._inner_of:
            return self._inner
        source, target = self._source, self._target
        delegates: list[str] = []
        if source is not None:
            info = read_json(data, source, self._account)
            if info.get("type") == FILE_TYPE:
                self._read_quota_project(info)
                source, found, delegates = self._unfold(info, source)
                target = target or found
        if not target:
            raise unreadable(
                self._account, "no service account to become", 'set credential.target = "NAME@…"'
            )
        self._inner, self._inner_of, self._inner_token = self._make_source(source), data, None
        self._inner_target, self._delegates = target, delegates
        return self._inner

    def _unfold(self, info: dict[str, Any], source: Source) -> tuple[Source, str, list[str]]:
        inner = info.get("source_credentials")
        match = _URL.search(str(info.get("service_account_impersonation_url", "")))
        if not isinstance(inner, dict) or not match:
            raise unreadable(self._account, f"{source.described} is not whole", "make it again with gcloud")
        delegates = [str(item) for item in info.get("delegates") or []]
        described = f"source_credentials in {source.described}"
        return InlineSource(msgspec.json.encode(inner), described, self._account), match["target"], delegates

    async def _source_token(self, inner: Credential, now: float) -> Token:
        token = self._inner_token or inner.warm_nowait()
        if token is None or token.expires_at - SOURCE_MARGIN_S <= self._ctx.clock.now():
            token = await inner.renew(now)
            if self._source is not None:
                self._inner_of = await self._source.read()  # a rotated refresh token is no new login
        self._inner_token = token
        return token

    async def _ask(self, inner: Credential, token: Token) -> Fetched:
        base = self._ctx.endpoints.iam_credentials
        url = f"{base}/v1/projects/-/serviceAccounts/{self._inner_target}:generateAccessToken"
        body = {"delegates": self._delegates, "scope": list(self._scopes), "lifetime": f"{LIFETIME_S}s"}
        headers = {"Content-Type": "application/json", **inner.headers(token)}
        return await self._caller.fetch("POST", url, headers=headers, body=msgspec.json.encode(body))

    def _read(self, reply: Fetched, issued_at: float) -> Token:
        if reply.status != 200:
            raise self._refused(reply, issued_at)
        try:
            answer = msgspec.json.decode(reply.body)
            life_s = life_until(_instant(answer["expireTime"]), server_now(reply.headers, issued_at))
            return Token(Secret(str(answer["accessToken"])), issued_at, issued_at + life_s)
        except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError):
            raise self._error(Failure.TRANSIENT, "the answer of generateAccessToken holds no token") from None

    def _refused(self, reply: Fetched, now: float) -> CredentialError:
        said = parse(reply.body)
        words = (
            f"generateAccessToken for {self._inner_target} answered {reply.status} ({said.word}: {said.text})"
        )
        if reply.status in TRANSIENT_STATUSES:
            return self._error(Failure.TRANSIENT, words, retry_after_s=retry_after_s(reply.headers, now))
        if reply.status in {400, 403, 404}:
            hint = f"grant roles/iam.serviceAccountTokenCreator on {self._inner_target} to the source account"
            return self._error(Failure.CONFIG, words, hint=hint)
        return self._error(Failure.TRANSIENT, words)

    def _error(self, failure: Failure, words: str, **more: Any) -> CredentialError:
        return CredentialError(failure, f"account {self._account}: {words}", account=self._account, **more)


def life_until(expires_at: float, now: float) -> float:
    """Seconds of a life whose end was told as an instant. `now` should be the teller's: with ours, when it is wrong,
    the token would seem dead or nearly immortal. Nonsense counts as what was asked for."""
    life_s = expires_at - now
    return life_s if 0 < life_s <= LIFETIME_S + 60 else LIFETIME_S


def _instant(text: str) -> float:
    """RFC 3339 as Google writes it: `Z`, and up to nine digits of a second's fraction."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    moment = datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp()
    return moment + (float(f"0.{fraction}") if fraction else 0.0)
