"""Google's OAuth: consent page, token endpoint (code, refresh, service-account assertion), revoke, userinfo, tokeninfo."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from . import identify, refusals
from .call import Answer, Call, Place
from .envelope import HTML_TYPE, Json, Refused, Reply, error_page
from .refusals import oauth_error
from .signing import JwtRefused, b64url, peek, unsigned, verify
from .world import CLOUD_PLATFORM, Caller, Grant, OAuthClient, ServiceAccount, User, World

CODE_LIFE_S = 600.0
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_TROUBLE: Mapping[str, Json] = {
    "revoked": oauth_error("invalid_grant", "Token has been expired or revoked."),
    "bad_request": oauth_error("invalid_grant", "Bad Request"),
    "deleted": oauth_error("invalid_grant", "Account has been deleted"),
    "rapt": refusals.invalid_rapt(),
    "rapt_required": refusals.invalid_rapt("rapt_required"),
    "policy": oauth_error(
        "admin_policy_enforced", "Access to this app is blocked by your organization's policy."
    ),
}


@dataclass(slots=True)
class _Code:
    user: User
    client: str
    redirect_uri: str
    scope: str
    challenge: str
    offline: bool
    issued_at: float


def refused(status: int, word: str, description: str = "") -> Refused:
    return Refused(Reply.json(oauth_error(word, description), status))


def form(call: Call) -> dict[str, str]:
    return dict(parse_qsl(call.body.decode("utf-8", "replace"), keep_blank_values=True))


class OAuth:
    """Serves accounts.google.com, oauth2.googleapis.com and the userinfo of www.googleapis.com on one host."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._codes: dict[str, _Code] = {}
        self._consented: set[tuple[str, str]] = set()
        self._grants: dict[str, Callable[[Call, dict[str, str]], Reply]] = {
            "refresh_token": self._refresh,
            "authorization_code": self._exchange,
            JWT_BEARER: self._assertion,
        }
        who = self._who
        page = Place("authorize", "oauth", self.authorize)
        self._places = {
            ("GET", "/o/oauth2/v2/auth"): page,
            ("GET", "/o/oauth2/auth"): page,
            ("POST", "/token"): Place("token", "oauth", self.token, who),
            ("POST", "/revoke"): Place("revoke", "oauth", self.revoke),
            ("GET", "/oauth2/v1/userinfo"): Place("userinfo", "oauth", self.userinfo),
            ("GET", "/oauth2/v2/userinfo"): Place("userinfo", "oauth", self.userinfo),
            ("GET", "/tokeninfo"): Place("tokeninfo", "oauth", self.tokeninfo),
        }

    def find(self, method: str, path: str) -> Place | None:
        return self._places.get((method, path))

    def authorize(self, call: Call) -> Answer:
        """The consent page of a person who always agrees (or always answers `world.login_error`)."""
        asked, world = call.query, self._world
        client = world.clients.get(asked.get("client_id", ""))
        redirect = asked.get("redirect_uri", "")
        if client is None or not _redirect_allowed(client, redirect) or asked.get("response_type") != "code":
            word = "invalid_client" if client is None else "redirect_uri_mismatch"
            return Reply(400, error_page(400, f"Error 400: {word}"), HTML_TYPE)
        back = {"state": asked["state"]} if "state" in asked else {}
        user = self._consenting(asked.get("login_hint", ""))
        if world.login_error or user is None:
            back["error"] = world.login_error or "access_denied"
        else:
            back |= {
                "code": self._new_code(user, client, asked),
                "scope": asked.get("scope", ""),
                "authuser": "0",
            }
        joint = "&" if urlsplit(redirect).query else "?"
        return Reply(302, b"", HTML_TYPE, {"Location": f"{redirect}{joint}{urlencode(back)}"})

    def token(self, call: Call) -> Answer:
        fields = form(call)
        kind = fields.get("grant_type", "")
        if not kind:
            raise refused(400, "invalid_request", "Missing required parameter: grant_type")
        if kind not in self._grants:
            raise refused(400, "unsupported_grant_type", f"Invalid grant_type: {kind}")
        return self._grants[kind](call, fields)

    def revoke(self, call: Call) -> Answer:
        world, text = self._world, form(call).get("token") or call.query.get("token", "")
        grant = world.grants.get(text)
        if grant is None and text in world.tokens and not world.tokens[text].revoked:
            world.tokens[text].revoked = True
            grant = world.grants.get(world.tokens[text].grant)
        elif grant is None or grant.trouble:
            raise refused(400, "invalid_token", "Token expired or revoked")
        if grant is not None:
            call.caller, grant.trouble = grant.user, "revoked"
            for token in world.tokens.values():
                token.revoked = token.revoked or token.grant == grant.token
        return Reply.json({})

    def userinfo(self, call: Call) -> Answer:
        caller = identify.cloud(self._world, call, "people.googleapis.com")
        if not isinstance(caller, User):
            return Reply.json({"id": caller.subject})
        name = caller.name.title()
        known: dict[str, Any] = {
            "id": caller.subject,
            "email": caller.email,
            "verified_email": True,
            "name": name,
        }
        known |= {"given_name": name, "picture": "https://lh3.googleusercontent.com/a/fake"}
        return Reply.json(known | ({"hd": caller.hosted_domain} if caller.hosted_domain else {}))

    def tokeninfo(self, call: Call) -> Answer:
        token = self._world.tokens.get(call.query.get("access_token") or form(call).get("access_token", ""))
        now = self._world.clock.now()
        if token is None or token.revoked or token.expires_at <= now:
            raise refused(400, "invalid_token", "Invalid Value")
        call.caller = token.caller
        known = {"azp": token.client, "aud": token.client, "sub": token.caller.subject, "scope": token.scope}
        known |= {
            "exp": str(int(token.expires_at)),
            "expires_in": str(int(token.expires_at - now)),
            "access_type": "offline",
        }
        if isinstance(token.caller, User):
            known |= {"email": token.caller.email, "email_verified": "true"}
        return Reply.json(known)

    def _who(self, call: Call) -> Caller | None:
        """Whose login a token call is about, for faults and records; judges nothing."""
        fields = form(call)
        if grant := self._world.grants.get(fields.get("refresh_token", "")):
            call.caller = grant.user
        elif code := self._codes.get(fields.get("code", "")):
            call.caller = code.user
        elif assertion := fields.get("assertion"):
            try:
                call.caller = self._world.service_accounts.get(str(peek(assertion).get("iss", "")))
            except JwtRefused:
                return None
        return call.caller

    def _client(self, call: Call, fields: dict[str, str]) -> OAuthClient:
        """The OAuth client, from the form or from HTTP Basic."""
        client_id, secret = fields.get("client_id", ""), fields.get("client_secret", "")
        scheme, _, encoded = call.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "basic":
            try:
                client_id, _, secret = base64.b64decode(encoded).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError) as bad:
                raise refused(401, "invalid_client", "Unauthorized") from bad
        if not client_id:
            raise refused(400, "invalid_request", "Could not determine client ID from request.")
        client = self._world.clients.get(client_id)
        if client is None:
            raise refused(401, "invalid_client", "The OAuth client was not found.")
        if client.secret != secret:
            raise refused(401, "invalid_client", "Unauthorized")
        return client

    def _refresh(self, call: Call, fields: dict[str, str]) -> Reply:
        client, world = self._client(call, fields), self._world
        if not fields.get("refresh_token"):
            raise refused(400, "invalid_request", "Missing required parameter: refresh_token")
        grant = world.grants.get(fields["refresh_token"])
        if grant is None:
            raise refused(400, "invalid_grant", "Bad Request")
        if grant.client != client.id:
            raise refused(401, "unauthorized_client", "Unauthorized")
        if grant.trouble:
            raise Refused(Reply.json(_TROUBLE[grant.trouble], 403 if grant.trouble == "policy" else 400))
        scope = fields.get("scope") or grant.scope
        if not set(scope.split()) <= set(grant.scope.split()):
            raise refused(400, "invalid_scope", "Some requested scopes were invalid.")
        if grant.replaces:
            world.grants[grant.replaces].trouble = "revoked"
        fresh = self._rotated(grant, client) if grant.rotates else None
        answer = self._tokens(fresh or grant, scope)
        return Reply.json(answer | ({"refresh_token": fresh.token} if fresh else {}))

    def _rotated(self, grant: Grant, client: OAuthClient) -> Grant:
        settings: dict[str, Any] = {"scope": grant.scope, "rotates": True, "overlaps": grant.overlaps}
        if grant.overlaps:
            settings["replaces"] = grant.token
        else:
            grant.trouble = "revoked"
        return self._world.login(grant.user, client, **settings)

    def _exchange(self, call: Call, fields: dict[str, str]) -> Reply:
        client = self._client(call, fields)
        code = self._codes.pop(fields.get("code", ""), None)  # single use, whatever comes of it
        if code is None or code.client != client.id or self._world.clock.now() > code.issued_at + CODE_LIFE_S:
            raise refused(400, "invalid_grant", "Malformed auth code.")
        if fields.get("redirect_uri") != code.redirect_uri:
            raise refused(400, "redirect_uri_mismatch", "Bad Request")
        if code.challenge and _challenge(fields.get("code_verifier", "")) != code.challenge:
            raise refused(400, "invalid_grant", "Invalid code verifier.")
        grant = self._world.login(code.user, client, scope=code.scope)
        return Reply.json(
            self._tokens(grant, code.scope) | ({"refresh_token": grant.token} if code.offline else {})
        )

    def _assertion(self, call: Call, fields: dict[str, str]) -> Reply:
        """A service account's signed JWT becomes a token (no refresh token comes with it)."""
        account = self._who(call)
        if not isinstance(account, ServiceAccount) or account.key is None or account.state != "ok":
            raise refused(400, "invalid_grant", "Invalid grant: account not found")
        try:
            claims = verify(fields["assertion"], account.key.public, self._world.clock.now())
        except JwtRefused as bad:
            raise refused(400, "invalid_grant", str(bad)) from bad
        if claims.get("aud") not in {self._world.token_uri, "https://oauth2.googleapis.com/token"}:
            raise refused(400, "invalid_grant", "Invalid JWT: Failed audience check.")
        if not claims.get("scope"):
            raise refused(400, "invalid_scope", "Empty or missing scope not allowed.")
        token = self._world.issue(account, scope=claims["scope"])
        life = round(token.expires_at - token.issued_at)
        return Reply.json({"access_token": token.token, "expires_in": life, "token_type": "Bearer"})

    def _tokens(self, grant: Grant, scope: str) -> Json:
        token = self._world.issue(grant.user, scope=scope or CLOUD_PLATFORM, grant=grant)
        life = token.expires_at - token.issued_at
        answer: Json = {
            "access_token": token.token,
            "expires_in": round(life),
            "scope": scope,
            "token_type": "Bearer",
        }
        if "openid" in scope or "userinfo" in scope:
            claims: Json = {"iss": "https://accounts.google.com", "azp": grant.client, "aud": grant.client}
            claims |= {"sub": grant.user.subject, "email": grant.user.email, "email_verified": True}
            claims |= {"hd": grant.user.hosted_domain} if grant.user.hosted_domain else {}
            answer["id_token"] = unsigned(claims | {"exp": int(token.expires_at)})
        return answer

    def _consenting(self, hint: str) -> User | None:
        world = self._world
        if world.login_as:
            return world.login_as
        hinted = [user for user in world.users.values() if hint and hint in {user.email, user.subject}]
        return next(iter(hinted or world.users.values()), None)

    def _new_code(self, user: User, client: OAuthClient, asked: Mapping[str, str]) -> str:
        """Offline access comes with a refresh token the first time, later only when consent is asked for."""
        pair, prompts = (user.name, client.id), asked.get("prompt", "").split()
        offline = asked.get("access_type") == "offline" and (
            "consent" in prompts or pair not in self._consented
        )
        self._consented.add(pair)
        code = f"4/fake-code-{user.name}-{len(self._codes)}-{int(self._world.clock.now() * 1e6) % 10**9}"
        challenge = asked.get("code_challenge", "")
        now = self._world.clock.now()
        self._codes[code] = _Code(
            user, client.id, asked["redirect_uri"], asked.get("scope", ""), challenge, offline, now
        )
        return code


def _challenge(verifier: str) -> str:
    return b64url(hashlib.sha256(verifier.encode()).digest())


def _redirect_allowed(client: OAuthClient, uri: str) -> bool:
    """Desktop clients may use any port of the loopback; others only what is registered."""
    if client.kind == "installed" and urlsplit(uri).hostname in {"127.0.0.1", "localhost", "::1"}:
        return urlsplit(uri).scheme == "http"
    return uri in client.redirect_uris or uri == "https://codeassist.google.com/authcode"
