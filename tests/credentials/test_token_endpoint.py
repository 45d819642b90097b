"""Every row of the token endpoint's refusals: which failure, held or retried, and what the user is told to type."""

from __future__ import annotations

import json

import pytest

from gemini_poold.core.model import AccountState
from gemini_poold.credentials.base import CredentialError, Failure
from gemini_poold.credentials.token_endpoint import parse, read_token, refused, retry_after_s

LOGIN = "gemini-pool login work"
RAPT = {"error_subtype": "invalid_rapt", "error_uri": "https://support.google.com/a/answer/9368756"}


def error(word, text="", **more):
    return json.dumps({"error": word, "error_description": text, **more}).encode()


def reading(status, body, headers=None, **more):
    return refused(status, headers or {}, body, account="work", now=1000.0, **more)


@pytest.mark.parametrize(
    ("status", "body", "failure", "state", "hint"),
    [
        (400, error("invalid_grant", "Token has been expired or revoked."), Failure.LOGIN, AccountState.LOGIN_REQUIRED, LOGIN),
        (400, error("invalid_grant", "Bad Request"), Failure.LOGIN, AccountState.LOGIN_REQUIRED, LOGIN),
        (400, error("invalid_grant", "Malformed auth code."), Failure.LOGIN, AccountState.LOGIN_REQUIRED, LOGIN),
        (400, error("invalid_grant", "Account has been deleted"), Failure.DEAD, AccountState.DEAD, "accounts.toml"),
        (400, error("invalid_grant", "reauth related error (invalid_rapt)", **RAPT), Failure.REAUTH, AccountState.LOGIN_REQUIRED, LOGIN),
        (400, error("invalid_grant", "reauth", error_subtype="rapt_required"), Failure.REAUTH, AccountState.LOGIN_REQUIRED, LOGIN),
        (400, error("invalid_request", "Missing required parameter: refresh_token"), Failure.CONFIG, AccountState.MISCONFIGURED, ""),
        (400, error("redirect_uri_mismatch"), Failure.CONFIG, AccountState.MISCONFIGURED, ""),
        (400, error("unsupported_grant_type"), Failure.CONFIG, AccountState.MISCONFIGURED, ""),
        (400, error("invalid_scope"), Failure.CONFIG, AccountState.MISCONFIGURED, ""),
        (400, error("admin_policy_enforced"), Failure.POLICY, AccountState.LOGIN_REQUIRED, "administrator"),
        (403, error("access_denied"), Failure.POLICY, AccountState.LOGIN_REQUIRED, "administrator"),
        (403, error("org_internal"), Failure.POLICY, AccountState.LOGIN_REQUIRED, "administrator"),
        (401, error("invalid_client", "The OAuth client was not found."), Failure.CLIENT, AccountState.CLIENT_INVALID, LOGIN),
        (401, error("invalid_client", "Unauthorized"), Failure.CLIENT, AccountState.CLIENT_INVALID, LOGIN),
        (401, error("unauthorized_client", "Unauthorized"), Failure.LOGIN, AccountState.LOGIN_REQUIRED, LOGIN),
        (408, b"", Failure.TRANSIENT, AccountState.OFFLINE, ""),
        (429, error("rate_limit"), Failure.TRANSIENT, AccountState.OFFLINE, ""),
        (500, error("internal_failure"), Failure.TRANSIENT, AccountState.OFFLINE, ""),
        (503, b"<html><title>Error 503</title></html>", Failure.TRANSIENT, AccountState.OFFLINE, ""),
        (504, b"\xff\xfe", Failure.TRANSIENT, AccountState.OFFLINE, ""),
        (503, error("invalid_grant", "Bad Request"), Failure.TRANSIENT, AccountState.OFFLINE, ""),  # a 5xx is never a verdict
        (400, error("server_error"), Failure.TRANSIENT, AccountState.OFFLINE, ""),
        (400, error("temporarily_unavailable"), Failure.TRANSIENT, AccountState.OFFLINE, ""),
        (403, b"<html>Sorry...</html>", Failure.TRANSIENT, AccountState.OFFLINE, ""),
        (302, b"", Failure.TRANSIENT, AccountState.OFFLINE, ""),
        (400, error("never_heard_of"), Failure.TRANSIENT, AccountState.OFFLINE, ""),
        (400, b'{"error":{"code":400,"status":"invalid_grant","message":"Bad Request"}}', Failure.LOGIN, AccountState.LOGIN_REQUIRED, LOGIN),
    ],
)  # fmt: skip
def test_a_persons_login(status, body, failure, state, hint):
    """The table of Google's OAuth errors for a refresh token."""
    got = reading(status, body)
    assert (got.failure, got.state) == (failure, state)
    assert hint in got.hint
    assert got.account == "work"
    assert got.message.startswith("account work: ")


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("Invalid JWT Signature.", Failure.DEAD),
        ("Invalid grant: account not found", Failure.DEAD),
        (
            "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe.",
            Failure.TRANSIENT,
        ),
    ],
)
def test_a_service_accounts_assertion(text, failure):
    """The same word speaks of a key or of our clock, never of a login."""
    got = reading(400, error("invalid_grant", text), service=True)
    assert got.failure is failure
    assert "login" not in got.hint


def test_the_page_that_helps_is_kept():
    """Google's error_uri goes to the user."""
    assert reading(400, error("invalid_grant", "x", **RAPT)).url == RAPT["error_uri"]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "30"}, 30),
        ({"Retry-After": "1.5"}, 1.5),
        ({"retry-after": "30"}, 30),
        ({"Retry-After": "Thu, 01 Jan 1970 00:17:10 GMT"}, 30),
        ({"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0),
        ({"Retry-After": "later"}, None),
        ({}, None),
    ],
)
def test_a_told_pause(headers, seconds):
    """Retry-After as seconds or as a date, on passing failures."""
    assert retry_after_s(headers, 1000.0) == seconds
    assert reading(503, b"", headers).retry_after_s == seconds


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"<html>", b"{", b"\xff", b'{"error": 7}'])
def test_any_body_can_be_read(body):
    """Nothing that a proxy may answer breaks the reader."""
    assert parse(body).text == ""


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"<html>log in here</html>", b"{}", b'{"access_token": ""}', b'{"access_token": 1}']
)
def test_a_success_without_a_token_passes_by(body):
    """A captive portal's 200 is no token and no verdict."""
    with pytest.raises(CredentialError) as caught:
        read_token(200, {}, body, "work", 1000.0)
    assert caught.value.failure is Failure.TRANSIENT


def test_a_token_lives_from_the_request_on():
    """The life counts from before the call, so that a slow answer does not make it longer."""
    token = read_token(200, {}, b'{"access_token": "fake-access", "expires_in": 20}', "work", 1000.0)
    assert (token.issued_at, token.expires_at) == (1000.0, 1020.0)
    assert token.value.reveal() == "fake-access"
