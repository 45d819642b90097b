"""A person's login: a refresh token in Google's `authorized_user` JSON, renewed by our own POST.

Workforce logins (`external_account_authorized_user`) are the same but for the endpoint and how the client names itself.

Rules
1. The secret is read anew, under a lock of all our processes, before each renewal: somebody may have rotated it or
   logged in again.
2. A rotated refresh token is durable before its access token is handed out. If the disk refuses, it is kept in memory
   and written before anything else is asked of Google; the renewal fails until then.
3. Where the secret cannot be written (a variable, a command, a systemd credential), a rotated refresh token lives in
   memory alone and `warning` says so: the login then lasts as long as this process.
4. A file that changed while Google answered is the newer word (a new login): it is never overwritten.
5. Once the POST is sent, a cancelled caller does not stop the answer from being saved.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import msgspec

from .base import (
    Bearer,
    Caller,
    Context,
    CredentialError,
    Failure,
    Secret,
    Token,
    digest_of,
    identity,
    lifetime_s,
)
from .credential_file import read_json, rebased, require
from .secret_ref import Source
from .token_endpoint import FORM, refused, token_answer
from .token_share import TokenShare

log = logging.getLogger(__name__)

SAVE_GRACE_S = 5.0  # how long a stopping daemon waits for an answer that may carry a rotated refresh token
TESTING_S = 7 * 86400.0  # how long a login lives while its OAuth client's consent screen is in testing
ABOUT_S = 3600.0  # a death is noticed at the next renewal
NEEDED = ("client_id", "client_secret", "refresh_token")
WORKFORCE = "external_account_authorized_user"
TYPES = ("authorized_user", WORKFORCE)


@dataclass(frozen=True, slots=True)
class _Rotated:
    """A refresh token that is not in its place yet (or never will be), and the content that it supersedes."""

    content: bytes = field(repr=False)
    refresh_token: Secret
    token: Token


class _Superseded(Exception):
    """Somebody logged in again meanwhile: begin anew with what is there now."""


class OAuthUser(Bearer):
    def __init__(
        self,
        source: Source,
        ctx: Context,
        *,
        account: str,
        scopes: tuple[str, ...] = (),
        proxy: str = "",
        bills: bool = True,
        kind: str = "oauth",
    ) -> None:
        """`scopes`: a subset of what was granted; empty asks for all of it."""
        self.kind = kind
        self.bills = bills
        self.identity = identity(kind, source.place, scopes, proxy, bills=bills)
        self.client = ""
        self.warning = ""
        self._source = source
        self._ctx = ctx
        self._scopes = scopes
        self._account = account
        self._caller = Caller(account, ctx.transport, proxy)
        # The lock belongs to the place, whatever scopes are asked for: rotation concerns them all.
        self._share = TokenShare(
            ctx.state_dir, f"oauth {source.place}", ctx.clock, lead_s=ctx.lead_s, sealer=ctx.sealer
        )

    @property
    def _rotated(self) -> _Rotated | None:
        return self._ctx.memory.unsaved.get(self._source.place)

    @_rotated.setter
    def _rotated(self, rotated: _Rotated | None) -> None:
        if rotated is None:
            self._ctx.memory.unsaved.pop(self._source.place, None)
        else:
            self._ctx.memory.unsaved[self._source.place] = rotated

    @property
    def _last(self) -> Token | None:
        """The token that was handed out last."""
        return self._ctx.memory.handed_out.get(self.identity)

    async def renew(self, now: float) -> Token:  # noqa: ARG002  (the clock is read again once the lock is held)
        work = asyncio.ensure_future(self._renew())
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait({work}, timeout=SAVE_GRACE_S)
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            raise

    def fingerprint_nowait(self) -> str:
        return self._source.fingerprint_nowait()

    async def look(self) -> str:
        self._read(await self._source.read())
        return self.digest

    def _read(self, content: bytes) -> dict[str, Any]:
        """The login's object; remembers whose it is. Raises `CredentialError`."""
        self.digest = digest_of(content)
        info = read_json(content, self._source, self._account, TYPES)
        self._read_quota_project(info)
        self.client = hashlib.sha256(str(info.get("client_id")).encode()).hexdigest()[:16]
        return info

    async def _renew(self) -> Token:
        async with self._share.locked(self._account):
            try:
                token = await self._renew_once()
            except _Superseded:
                token = await self._renew_once()
        self._ctx.memory.handed_out[self.identity] = token
        return token

    async def _renew_once(self) -> Token:
        content = await self._source.read()
        info = self._read(content)
        if self._rotated is not None:
            if token := await self._settle_rotated(content, info):
                return token
            content = await self._source.read()
            info = self._read(content)
        require(info, NEEDED, self._source, self._account)
        refresh_token = self._rotated.refresh_token.reveal() if self._rotated else info["refresh_token"]
        grant = _grant_key(info["client_id"], refresh_token, self._scopes)
        if self._ctx.share_tokens and (token := self._share.read(grant, not_=self._last)):
            return token
        return await self._ask(content, info, refresh_token)

    async def _ask(self, content: bytes, info: dict[str, Any], refresh_token: str) -> Token:
        issued_at = self._ctx.clock.now()
        url, headers, form = self._request(info, refresh_token)
        reply = await self._caller.fetch("POST", url, headers=headers, body=urlencode(form).encode())
        if reply.status != 200:
            body = reply.body.replace(refresh_token.encode(), b"***")
            error = refused(reply.status, reply.headers, body, account=self._account, now=issued_at)
            raise self._likely(error, info, issued_at)
        answer = token_answer(reply.status, reply.headers, reply.body, self._account, issued_at)
        token = Token(Secret(answer["access_token"]), issued_at, issued_at + lifetime_s(answer))
        new = answer.get("refresh_token")
        if isinstance(new, str) and new and new != refresh_token:
            self._rotated = _Rotated(content, Secret(new), token)
            await self._keep(content, info)
            refresh_token = new
        if self._ctx.share_tokens:
            await self._share.write(_grant_key(info["client_id"], refresh_token, self._scopes), token)
        return token

    def _likely(self, error: CredentialError, info: dict[str, Any], now: float) -> CredentialError:
        """Adds what it probably was, when a login dies as old as those of an app in testing may get."""
        since = info.get("logged_in_at")
        if not isinstance(since, int | float):
            since = self._source.changed_at_nowait()
        if error.failure is not Failure.LOGIN or since is None or abs(now - since - TESTING_S) > ABOUT_S:
            return error
        words = "7 days old, probably because the OAuth consent screen is in testing"
        hint = f"publish it (Google Cloud console, Audience), then: gemini-pool login {self._account}"
        return CredentialError(
            error.failure, f"{error.message}; {words}", account=self._account, hint=hint, url=error.url
        )

    def _request(
        self, info: dict[str, Any], refresh_token: str
    ) -> tuple[str, dict[str, str], dict[str, str]]:
        """URL, headers and form of the token call."""
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        headers = dict(FORM)
        endpoints = self._ctx.endpoints
        if info.get("type") == WORKFORCE:
            url = rebased(str(info.get("token_url", "")), endpoints.sts, "sts")
            pair = f"{info['client_id']}:{info['client_secret']}".encode()
            headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        else:
            given = info.get("token_uri")
            theirs = given if isinstance(given, str) and given else endpoints.oauth_token
            url = endpoints.oauth_token if endpoints.oauth_token_given else theirs
            form |= {"client_id": info["client_id"], "client_secret": info["client_secret"]}
        if self._scopes:
            form["scope"] = " ".join(self._scopes)
        if rapt := info.get("rapt_token"):
            form["rapt"] = str(rapt)
        return url, headers, form

    async def _settle_rotated(self, content: bytes, info: dict[str, Any]) -> Token | None:
        """Deal with a rotated refresh token of an earlier renewal; its access token, if that is still young."""
        rotated = self._rotated
        assert rotated is not None
        if content != rotated.content:
            self._rotated, self.warning = None, ""  # a newer login stands there
            return None
        if not self._source.can_write:
            return None
        await self._keep(content, info)
        young = (
            self._ctx.clock.now() - rotated.token.issued_at
            < (rotated.token.expires_at - rotated.token.issued_at) / 2
        )
        return rotated.token if young and rotated.token != self._last else None

    async def _keep(self, content: bytes, info: dict[str, Any]) -> None:
        """Make the rotated refresh token durable (rule 2), or remember it and warn (rule 3)."""
        rotated = self._rotated
        assert rotated is not None
        if not self._source.can_write:
            self.warning = (
                f"Google replaced the refresh token, and {self._source.described} cannot be written: "
                f"keep the login in a file, or log in again after a restart (gemini-pool login {self._account})"
            )
            log.warning("account %s: %s", self._account, self.warning)
            return
        if await self._source.read() != content:
            self._rotated = None
            raise _Superseded
        new = {**info, "refresh_token": rotated.refresh_token.reveal()}
        data = msgspec.json.format(msgspec.json.encode(new), indent=2) + b"\n"
        try:
            await self._source.write(data)
        except CredentialError as error:
            # The old refresh token may be dead already: what we hold is the only one. It is written first thing next time.
            raise CredentialError(
                Failure.TRANSIENT,
                f"{error.message}; the new login is held in memory",
                account=self._account,
                hint=error.hint,
            ) from None
        self._rotated, self.warning, self.digest = None, "", digest_of(data)


def _grant_key(client_id: str, refresh_token: str, scopes: tuple[str, ...]) -> str:
    return hashlib.sha256("\0".join((client_id, refresh_token, *scopes)).encode()).hexdigest()
