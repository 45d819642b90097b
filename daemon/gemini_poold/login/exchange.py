"""What a login asks of Google's OAuth: a code for tokens, a test of a refresh token, whose it is, its end.

Each is one call with its own words for failure. Renewals of accounts at work are `credentials`' business.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import msgspec

from ..credentials.base import TOKEN_TIMEOUT_S, Caller, Context, Secret, Token, lifetime_s
from ..credentials.token_endpoint import FORM, TRANSIENT_STATUSES, parse, refused, token_answer
from ..errors import PoolError, UpstreamFailure
from ..transport import Fetched
from .oauth_client import MAKE_ONE, OAuthClient

PERMISSIONS = "https://myaccount.google.com/permissions"


@dataclass(frozen=True, slots=True)
class Granted:
    """What a token endpoint gave. `refresh_token`: None when none came (or, for a test, when it did not rotate).
    `scopes` is empty where the answer does not say."""

    access: Token
    refresh_token: Secret | None
    scopes: frozenset[str]
    email: str = ""
    sub: str = ""


class MalformedCode(PoolError):
    """A code that Google never gave out for this login: an old tab, a slip of the mouse. The login may go on."""

    def __init__(self) -> None:
        hint = "paste the address of the newest browser tab"
        super().__init__("bad_request", "Google does not know this code", hint=hint)


@dataclass(frozen=True, slots=True)
class OAuthCalls:
    """`account`: named in errors. `proxy`: the account's own."""

    ctx: Context
    client: OAuthClient
    account: str
    proxy: str = ""

    async def exchange(self, code: str, *, verifier: Secret, redirect_uri: str) -> Granted:
        """Spend a code. Raises `MalformedCode`, `CredentialError` (transient: nothing is spent yet, as far as we
        know), PoolError."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "code_verifier": verifier.reveal(),
            "redirect_uri": redirect_uri,
        }
        now = self.ctx.clock.now()
        reply = await self._post(form)
        if reply.status != 200:
            raise self._not_exchanged(reply, now)
        granted = self._granted(reply, now)
        if granted.refresh_token is None:
            hint = f"remove the access at {PERMISSIONS}, then log in again"
            raise PoolError("login_required", "Google sent no refresh token", hint=hint, account=self.account)
        return granted

    async def test(self, refresh_token: Secret) -> Granted:
        """Whether a refresh token and this client belong together and live. A token that rotates at it must be kept
        by the caller before anything else. Raises `CredentialError`."""
        now = self.ctx.clock.now()
        reply = await self._post({"grant_type": "refresh_token", "refresh_token": refresh_token.reveal()})
        if reply.status != 200:
            body = _without(reply.body, refresh_token, self.client.secret)
            raise refused(reply.status, reply.headers, body, account=self.account, now=now)
        granted = self._granted(reply, now)
        if granted.refresh_token == refresh_token:
            return Granted(granted.access, None, granted.scopes, granted.email, granted.sub)
        return granted

    async def who(self, granted: Granted) -> tuple[str, str]:
        """E-mail (a label) and `sub` (the identity), from the answer's id token, else from userinfo; empty where
        neither tells, which harms nothing."""
        if granted.email and granted.sub:
            return granted.email, granted.sub
        headers = {"Authorization": f"Bearer {granted.access.value.reveal()}"}
        try:
            reply = await self.ctx.transport.fetch(
                "GET",
                self.ctx.endpoints.oauth_userinfo,
                headers=headers,
                timeout_s=TOKEN_TIMEOUT_S,
                proxy=self.proxy,
            )
        except UpstreamFailure:
            return granted.email, granted.sub
        info = _object(reply.body) if reply.status == 200 else {}
        email, sub = info.get("email"), info.get("id") or info.get("sub")
        return str(email or granted.email), str(sub or granted.sub)

    async def _post(self, form: Mapping[str, str]) -> Fetched:
        body = {**form, "client_id": self.client.id, "client_secret": self.client.secret.reveal()}
        caller = Caller(self.account, self.ctx.transport, self.proxy)
        url = self.client.token_at(self.ctx.endpoints)
        return await caller.fetch("POST", url, headers=FORM, body=urlencode(body).encode())

    def _granted(self, reply: Fetched, now: float) -> Granted:
        answer = token_answer(reply.status, reply.headers, reply.body, self.account, now)
        fresh = answer.get("refresh_token")
        claims = _claims(answer.get("id_token"))
        return Granted(
            Token(Secret(answer["access_token"]), now, now + lifetime_s(answer)),
            Secret(fresh) if isinstance(fresh, str) and fresh else None,
            frozenset(str(answer.get("scope") or "").split()),
            str(claims.get("email") or ""),
            str(claims.get("sub") or ""),
        )

    def _not_exchanged(self, reply: Fetched, now: float) -> PoolError:
        """The token endpoint's no, in the words of a login: there is no account yet that could be dead."""
        body = _without(reply.body, self.client.secret)
        error = parse(body)
        if reply.status not in TRANSIENT_STATUSES:
            if error.word == "invalid_grant" and "malformed auth code" in error.text.lower():
                return MalformedCode()
            if known := _NOT_EXCHANGED.get(error.word):
                said = f"{error.word}: {error.text}" if error.text else error.word
                return PoolError("bad_request", f"{known[0]} ({said})", hint=known[1], account=self.account)
        return refused(reply.status, reply.headers, body, account=self.account, now=now)


_NOT_EXCHANGED = {
    "invalid_grant": ("Google does not take the code: used before, or too old", "start the login again"),
    "invalid_client": ("Google refuses the OAuth client", "download the client's JSON anew"),
    "unauthorized_client": ("the OAuth client may not do this kind of login", MAKE_ONE),
    "redirect_uri_mismatch": ("the OAuth client does not allow our address", MAKE_ONE),
}


async def revoke(ctx: Context, token: Secret, *, account: str, proxy: str = "") -> bool:
    """End a login at Google, by its refresh token. False when Google did not know it (any more). Raises PoolError."""
    body = urlencode({"token": token.reveal()}).encode()
    caller = Caller(account, ctx.transport, proxy)
    reply = await caller.fetch("POST", ctx.endpoints.oauth_revoke, headers=FORM, body=body)
    if reply.status == 200:
        return True
    error = parse(_without(reply.body, token))
    if reply.status == 400 and error.word in {"invalid_token", "invalid_request", "invalid_grant"}:
        return False
    raise PoolError(
        "upstream_error", f"Google did not end the login: it answered {reply.status}", account=account
    )


def _claims(id_token: Any) -> dict[str, Any]:
    """The payload of an id token. It came straight from the token endpoint, so its signature proves nothing more."""
    parts = id_token.split(".") if isinstance(id_token, str) else []
    if len(parts) != 3:
        return {}
    try:
        return _object(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError):
        return {}


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return value if isinstance(value, dict) else {}


def _without(body: bytes, *secrets: Secret) -> bytes:
    """An error body without what we sent, should it repeat it."""
    for secret in secrets:
        body = body.replace(secret.reveal().encode(), b"***") if secret else body
    return body
