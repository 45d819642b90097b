"""The OAuth client that a login is made with: read from the JSON that Google's console hands out. Never one of ours.

Where a locally installed Gemini CLI keeps its own is `gemini_cli_client`'s business.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ..config import Endpoints
from ..credentials.base import Secret
from ..errors import PoolError

OWN, FOREIGN = "own", "foreign"
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
CONSOLE = "https://console.cloud.google.com/apis/credentials"
MAKE_ONE = f'make an OAuth client of type "Desktop app" at {CONSOLE}, download its JSON, and name it: --client-secrets FILE'


@dataclass(frozen=True, slots=True)
class OAuthClient:
    """`origin`: "own" or "foreign". `web`: its redirect must be one of `redirect_uris`, to the letter. The URIs are
    the client JSON's own, empty where it has none."""

    id: str
    secret: Secret
    origin: str = OWN
    web: bool = False
    auth_uri: str = ""
    token_uri: str = ""
    redirect_uris: tuple[str, ...] = ()

    def authorize_at(self, endpoints: Endpoints) -> str:
        """The page where people consent: the user's setting, else the client's own, else Google's."""
        if endpoints.oauth_auth != Endpoints().oauth_auth:
            return endpoints.oauth_auth
        return self.auth_uri or endpoints.oauth_auth

    def token_at(self, endpoints: Endpoints) -> str:
        """Where codes become tokens, by the same rule."""
        if endpoints.oauth_token_given:
            return endpoints.oauth_token
        return self.token_uri or endpoints.oauth_token

    def authorized_user(self, refresh_token: Secret) -> dict[str, str]:
        """Google's `authorized_user` file for a login made with this client. Holds secrets."""
        info = {
            "type": "authorized_user",
            "client_id": self.id,
            "client_secret": self.secret.reveal(),
            "refresh_token": refresh_token.reveal(),
        }
        theirs = self.token_uri and self.token_uri != Endpoints().oauth_token
        return info | ({"token_uri": self.token_uri} if theirs else {})


def read(data: Mapping[str, Any]) -> OAuthClient:
    """The client in a `client_secret_….json`. Raises PoolError "bad_request" that says what it is instead."""
    for kind in ("installed", "web"):
        table = data.get(kind)
        if isinstance(table, Mapping):
            return _from_table(table, web=kind == "web")
    what = _instead(data)
    raise PoolError("bad_request", f"that is {what}, not an OAuth client's JSON", hint=MAKE_ONE)


def of_login(info: Mapping[str, Any], origin: str) -> OAuthClient | None:
    """The client that an `authorized_user` file was made with; None when it does not say."""
    client_id, secret = info.get("client_id"), info.get("client_secret")
    if not isinstance(client_id, str) or not isinstance(secret, str) or not client_id or not secret:
        return None
    return OAuthClient(client_id, Secret(secret), origin, token_uri=_url(info.get("token_uri")))


def _from_table(table: Mapping[str, Any], *, web: bool) -> OAuthClient:
    client_id, secret = table.get("client_id"), table.get("client_secret")
    if not isinstance(client_id, str) or not client_id or re.search(r"\s", client_id):
        raise PoolError("bad_request", "the OAuth client's JSON has no client_id", hint=MAKE_ONE)
    if not isinstance(secret, str) or not secret:
        hint = "Google's token endpoint asks for it: download the client's JSON anew"
        raise PoolError("bad_request", "the OAuth client's JSON has no client_secret", hint=hint)
    uris = table.get("redirect_uris")
    return OAuthClient(
        client_id,
        Secret(secret),
        web=web,
        auth_uri=_url(table.get("auth_uri")),
        token_uri=_url(table.get("token_uri")),
        redirect_uris=tuple(uri for uri in uris if isinstance(uri, str)) if isinstance(uris, list) else (),
    )


def _instead(data: Mapping[str, Any]) -> str:
    match data.get("type"):
        case "service_account":
            return "a service account's key (gemini-pool account add --credential service-account)"
        case "authorized_user":
            return "a finished login (gemini-pool import adc)"
        case str() as kind:
            return f"a credential of type {kind[:40]!r}"
    return "something else"


def _url(value: Any) -> str:
    """A URL of the file's, if it is one that a secret may be sent to."""
    if not isinstance(value, str):
        return ""
    try:
        parts = urlsplit(value)
        host = parts.hostname or ""
    except ValueError:
        return ""
    safe = parts.scheme == "https" or (parts.scheme == "http" and host in LOOPBACK)
    return value if safe and host else ""
