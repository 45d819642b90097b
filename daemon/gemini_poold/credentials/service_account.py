"""Service accounts: a JWT signed with the key file's RSA key, exchanged for an access token.

google-auth signs (0.3 ms, no thread needed); the exchange is one POST over our own transport, so that proxy, CA file
and `[endpoints]` hold for it.

`credential.self_signed = true` sends the JWT itself to the API and asks nobody. That is not the default: such a token is
good for one API host alone, so that it cannot be lent for others; a key that Google no longer takes is then told by the
API as a bare 401 instead of by the token endpoint in words; and not every API takes it. Who set
`[endpoints] oauth_token` wants tokens to come from there, so then it is not done at all.
"""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import urlencode

from ..transport import Fetched
from .base import Bearer, Caller, Context, Secret, Token, digest_of, identity
from .credential_file import read_json, require
from .secret_ref import Source, unreadable
from .token_endpoint import FORM, blames_clock, parse, read_token, server_now
from .token_share import share_of

AUDIENCE = "https://oauth2.googleapis.com/token"  # what Google wants in `aud`, wherever the POST really goes
GRANT_TYPE = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ASSERTION_LIFE_S = 3600
SKEW_S = 60.0
# Whom a self-signed JWT is for, by backend: always Google's own host, wherever the request really goes.
API = {
    "vertex": "https://aiplatform.googleapis.com/",
    "developer-api": "https://generativelanguage.googleapis.com/",
}


class ServiceAccount(Bearer):
    def __init__(
        self,
        source: Source,
        ctx: Context,
        *,
        account: str,
        scopes: tuple[str, ...],
        proxy: str = "",
        bills: bool = True,
        kind: str = "service-account",
        api: str = "",
    ) -> None:
        """`api`: sign tokens for this API host ourselves, unless the user set a token endpoint."""
        self.kind = kind
        self.bills = bills
        self.identity = identity(kind, source.place, scopes, proxy, bills=bills)
        if api:
            self.identity += f" for {api}"
        self._source = source
        self._ctx = ctx
        self._scopes = scopes
        self._account = account
        self._api = api
        self._caller = Caller(account, ctx.transport, proxy)
        self._behind_s = 0.0  # how far this machine's clock is behind Google's, once that mattered
        self._signer: Any = None
        self._signer_of: bytes = b""  # the file's content that the signer was made from

    async def renew(self, now: float) -> Token:  # noqa: ARG002  (the clock is read again after the signing)
        data = await self._source.read()
        info = self._parse(data)
        issued_at = self._ctx.clock.now()
        endpoints = self._ctx.endpoints
        if self._api and not endpoints.oauth_token_given:
            claims = {"sub": info["client_email"], "aud": self._api}
            own = self._signed(data, info, issued_at, claims)
            return Token(Secret(own), issued_at, issued_at + ASSERTION_LIFE_S)
        return await share_of(self._ctx, self.identity).token(
            self._ctx,
            self._account,
            grant=self.digest,
            identity=self.identity,
            make=partial(self._ask, data, info),
        )

    async def _ask(self, data: bytes, info: dict[str, str]) -> Token:
        issued_at = self._ctx.clock.now()
        answer = await self._exchange(data, info, issued_at + self._behind_s)
        behind_s = server_now(answer.headers, issued_at) - issued_at
        refused = answer.status == 400 and blames_clock(parse(answer.body).text)
        if refused and abs(behind_s - self._behind_s) > SKEW_S:
            # Our clock is wrong (or right again), and Google has just told the time.
            self._behind_s = behind_s if abs(behind_s) > SKEW_S else 0.0
            answer = await self._exchange(data, info, issued_at + self._behind_s)
        self.warning = _clock_warning(self._behind_s)
        return read_token(answer.status, answer.headers, answer.body, self._account, issued_at, service=True)

    async def _exchange(self, data: bytes, info: dict[str, str], now: float) -> Fetched:
        endpoints = self._ctx.endpoints
        claims = {"aud": AUDIENCE, "scope": " ".join(self._scopes)}
        form = {"grant_type": GRANT_TYPE, "assertion": self._signed(data, info, now, claims)}
        url = endpoints.oauth_token if endpoints.oauth_token_given else info["token_uri"]
        return await self._caller.fetch("POST", url, headers=FORM, body=urlencode(form).encode())

    def fingerprint_nowait(self) -> str:
        return self._source.fingerprint_nowait()

    async def look(self) -> str:
        self.digest = digest_of(await self._source.read())
        return self.digest

    def _parse(self, data: bytes) -> dict[str, str]:
        self.digest = digest_of(data)
        info = read_json(data, self._source, self._account, ("service_account",))
        self._read_quota_project(info)
        require(info, ("client_email", "private_key"), self._source, self._account)
        info.setdefault("token_uri", AUDIENCE)
        return info

    def _signed(self, data: bytes, info: dict[str, str], now: float, more: dict[str, str]) -> str:
        from google.auth import jwt  # 10 MiB with its cryptography: only pools with such accounts pay

        if data != self._signer_of:
            self._signer, self._signer_of = self._make_signer(info), data
        claims = {
            "iss": info["client_email"],
            "iat": int(now),
            "exp": int(now) + ASSERTION_LIFE_S,
            **more,
        }
        assertion: bytes = jwt.encode(self._signer, claims)  # type: ignore[no-untyped-call]
        return assertion.decode()

    def _make_signer(self, info: dict[str, str]) -> Any:
        from google.auth import crypt

        try:
            return crypt.RSASigner.from_string(info["private_key"], info.get("private_key_id"))  # type: ignore[no-untyped-call]
        except Exception:  # noqa: BLE001  (the library's and OpenSSL's errors may quote the key)
            problem = f"private_key in {self._source.described} is no RSA key"
            raise unreadable(
                self._account, problem, "put the key file there again, as Google gave it"
            ) from None


def _clock_warning(behind_s: float) -> str:
    if not behind_s:
        return ""
    return (
        f"this machine's clock is {abs(behind_s):.0f} s {'slow' if behind_s > 0 else 'fast'}: see timedatectl"
    )
