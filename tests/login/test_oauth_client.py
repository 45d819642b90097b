"""OAuth clients: reading Google's JSON, and which addresses win."""

from __future__ import annotations

from typing import Any

import pytest

from gemini_poold.config import Endpoints
from gemini_poold.credentials.base import Secret
from gemini_poold.errors import PoolError
from gemini_poold.login import oauth_client
from gemini_poold.login.oauth_client import OAuthClient

TABLE = {
    "client_id": "fake-client.example",
    "client_secret": "fake-client-secret",
    "auth_uri": "https://accounts.example/auth",
    "token_uri": "https://token.example/token",
    "redirect_uris": ["http://localhost"],
}


@pytest.mark.parametrize(("kind", "web"), [("installed", False), ("web", True)])
def test_read(kind: str, web: bool) -> None:
    """Both kinds are read; a client of one's own is not foreign, and its secret is masked."""
    client = oauth_client.read({kind: TABLE})
    assert (client.id, client.secret.reveal(), client.web, client.origin) == (
        "fake-client.example", "fake-client-secret", web, "own",
    )  # fmt: skip
    assert client.redirect_uris == ("http://localhost",)
    assert "fake-client-secret" not in repr(client)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({}, "something else"),
        ({"type": "service_account", "private_key": "fake-private"}, "service account"),
        ({"type": "authorized_user", "refresh_token": "fake-refresh"}, "finished login"),
        ({"type": "external_account"}, "external_account"),
        ({"installed": {}}, "no client_id"),
        ({"installed": {"client_id": "two words", "client_secret": "x"}}, "no client_id"),
        ({"installed": {"client_id": "x"}}, "no client_secret"),
        ({"installed": {"client_id": "x", "client_secret": 7}}, "no client_secret"),
        ({"installed": "x"}, "something else"),
    ],
)
def test_what_is_no_client(data: dict[str, Any], words: str) -> None:
    """The error says what it is instead, and what to do; it repeats no secret."""
    with pytest.raises(PoolError, match=words) as caught:
        oauth_client.read(data)
    assert caught.value.hint
    assert "fake-" not in str(caught.value)


def test_whose_addresses_count() -> None:
    """The user's settings win over the client's own, which win over Google's."""
    client, bare = oauth_client.read({"installed": TABLE}), OAuthClient("x", Secret("y"))
    mine = Endpoints(oauth_auth="http://127.0.0.1:1/auth", oauth_token="http://127.0.0.1:1/token")
    assert client.authorize_at(mine) == "http://127.0.0.1:1/auth"
    assert client.token_at(mine) == "http://127.0.0.1:1/token"
    assert client.authorize_at(Endpoints()) == "https://accounts.example/auth"
    assert client.token_at(Endpoints()) == "https://token.example/token"
    assert bare.authorize_at(Endpoints()) == Endpoints().oauth_auth
    assert bare.token_at(Endpoints()) == Endpoints().oauth_token


@pytest.mark.parametrize(
    "uri", ["http://elsewhere.example/token", "file:///etc/x", "token", 7, "http://[broken", "https://"]
)
def test_secrets_are_sent_to_safe_places_only(uri: object) -> None:
    """An address in a client's JSON counts only if it is encrypted, or on this machine."""
    client = oauth_client.read({"installed": {**TABLE, "token_uri": uri}})
    assert client.token_at(Endpoints()) == Endpoints().oauth_token


def test_the_file_of_a_login() -> None:
    """What is kept is Google's own form; Google's own token address is left out."""
    google = OAuthClient("x", Secret("fake-y"), token_uri=Endpoints().oauth_token)
    assert google.authorized_user(Secret("fake-z")) == {
        "type": "authorized_user", "client_id": "x", "client_secret": "fake-y", "refresh_token": "fake-z",
    }  # fmt: skip
    other = OAuthClient("x", Secret("fake-y"), token_uri="https://token.example/token")
    info = other.authorized_user(Secret("fake-z"))
    assert info["token_uri"] == "https://token.example/token"
    assert oauth_client.of_login(info, "own") == other


@pytest.mark.parametrize(
    "info",
    [{}, {"client_id": "x"}, {"client_id": "", "client_secret": "y"}, {"client_id": 1, "client_secret": 2}],
)
def test_a_login_that_does_not_name_its_client(info: dict[str, Any]) -> None:
    """Without both there is no client."""
    assert oauth_client.of_login(info, "own") is None
