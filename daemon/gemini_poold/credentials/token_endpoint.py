"""Reads a token endpoint's answers: the token, or which failure it is, in which words, and what the user types next.

Pure. Google's API errors are not read here (a token endpoint speaks RFC 6749, and sometimes HTML).
"""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import msgspec

from .base import CredentialError, Failure, Secret, Token, lifetime_s

FORM = {"Content-Type": "application/x-www-form-urlencoded"}

TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
TRANSIENT_WORDS = frozenset({"server_error", "temporarily_unavailable", "internal_failure"})
POLICY_WORDS = frozenset({"admin_policy_enforced", "access_denied", "org_internal"})
CONFIG_WORDS = frozenset({
    "invalid_request", "redirect_uri_mismatch", "unsupported_grant_type", "invalid_scope",
})  # fmt: skip
REAUTH_SUBTYPES = frozenset({"invalid_rapt", "rapt_required"})
MAX_TEXT = 200


class OAuthError(NamedTuple):
    """The four fields of RFC 6749 and Google's `error_subtype`; empty where the body does not tell."""

    word: str = ""
    text: str = ""
    subtype: str = ""
    uri: str = ""


def read_token(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    account: str,
    issued_at: float,
    *,
    service: bool = False,
) -> Token:
    """A token endpoint's answer. Raises `CredentialError`, also for a 200 that holds no token."""
    answer = token_answer(status, headers, body, account, issued_at, service=service)
    return Token(Secret(answer["access_token"]), issued_at, issued_at + lifetime_s(answer))


def token_answer(
    status: int, headers: Mapping[str, str], body: bytes, account: str, now: float, *, service: bool = False
) -> dict[str, Any]:
    """The whole object of a token answer, its `access_token` checked. Raises `CredentialError`."""
    if status != 200:
        raise refused(status, headers, body, account=account, now=now, service=service)
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        answer = None
    if (
        not isinstance(answer, dict)
        or not isinstance(answer.get("access_token"), str)
        or not answer["access_token"]
    ):
        # A captive portal answers 200, too.
        raise CredentialError(
            Failure.TRANSIENT,
            f"account {account}: the token endpoint's answer holds no token",
            account=account,
            hint="a captive portal or proxy may stand in between: check [endpoints] and [network]",
        )
    return answer


def parse(body: bytes) -> OAuthError:
    """Tolerates an `error` that is an object (`status`, `code`, `message`), HTML and an empty body."""
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return OAuthError()
    if not isinstance(answer, dict):
        return OAuthError()
    error = answer.get("error")
    if isinstance(error, dict):
        return OAuthError(_text(error.get("status") or error.get("code")), _text(error.get("message")))
    return OAuthError(
        _text(error),
        _text(answer.get("error_description")),
        _text(answer.get("error_subtype")),
        _text(answer.get("error_uri")),
    )


def refused(
    status: int, headers: Mapping[str, str], body: bytes, *, account: str, now: float, service: bool = False
) -> CredentialError:
    """What a token endpoint's answer other than a token means for `account`.

    `service`: the grant was a service account's assertion, where the same words speak of a key and not of a login.
    """
    error = parse(body)
    failure, words, hint = _reading(status, error, account, service=service)
    told = retry_after_s(headers, now) if failure is Failure.TRANSIENT else None
    return CredentialError(
        failure, f"account {account}: {words}", account=account, hint=hint, url=error.uri, retry_after_s=told
    )


def retry_after_s(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds of a `Retry-After`: a number or an HTTP date; None when absent or unreadable."""
    value = headers.get("Retry-After") or headers.get("retry-after") or ""
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, TypeError, IndexError):
        return None


def server_now(headers: Mapping[str, str], now: float) -> float:
    """The answerer's own time, by which its instants are meant; `now` where it does not tell."""
    try:
        return parsedate_to_datetime(headers.get("Date") or headers.get("date") or "").timestamp()
    except (ValueError, TypeError, IndexError):
        return now


def _reading(status: int, error: OAuthError, account: str, *, service: bool) -> tuple[Failure, str, str]:
    login = f"gemini-pool login {account}"
    said = f"{error.word}: {error.text}" if error.text else error.word
    if status in TRANSIENT_STATUSES or error.word in TRANSIENT_WORDS:
        return Failure.TRANSIENT, f"the token endpoint answered {status}{_in_brackets(said)}", ""
    if service and error.word in {"invalid_grant", "invalid_client", "unauthorized_client"}:
        return _service_reading(said, error.text)
    if error.word == "invalid_grant":
        return _grant_reading(error, said, login)
    if error.word == "invalid_client":
        return (
            Failure.CLIENT,
            f"the OAuth client is refused ({said}); this concerns every account of that client",
            f"check the client in the Google Cloud console, then: {login}",
        )
    if error.word == "unauthorized_client":
        return Failure.LOGIN, f"the login belongs to another OAuth client ({said})", login
    if error.word in POLICY_WORDS:
        return (
            Failure.POLICY,
            f"the organisation's policy forbids it ({said})",
            f"ask the administrator to allow this OAuth client, then: {login}",
        )
    if error.word in CONFIG_WORDS:
        return (
            Failure.CONFIG,
            f"Google refuses the token request as configured ({said})",
            "gemini-pool config check",
        )
    # Captive portals, proxies' pages and words nobody documented: never a reason to give a login up.
    return Failure.TRANSIENT, f"the token endpoint answered {status}, not a token{_in_brackets(said)}", ""


def _grant_reading(error: OAuthError, said: str, login: str) -> tuple[Failure, str, str]:
    if error.subtype in REAUTH_SUBTYPES or any(subtype in error.text for subtype in REAUTH_SUBTYPES):
        return Failure.REAUTH, f"the organisation asks for a new login from time to time ({said})", login
    if "deleted" in error.text.lower():
        return Failure.DEAD, f"the Google account is gone ({said})", "remove the account from accounts.toml"
    return Failure.LOGIN, f"the login is dead ({said})", login


def blames_clock(text: str) -> bool:
    """Whether an assertion was refused because of its times."""
    return "iat" in text or "reasonable timeframe" in text or "short-lived" in text


def _service_reading(said: str, text: str) -> tuple[Failure, str, str]:
    if blames_clock(text):
        # The key is fine: this machine's clock is not, and clocks get corrected.
        return Failure.TRANSIENT, f"Google finds our clock wrong ({said})", "check the clock: timedatectl"
    return (
        Failure.DEAD,
        f"the service account's key is refused ({said})",
        "put a new key file in its place: gcloud iam service-accounts keys create",
    )


def _in_brackets(said: str) -> str:
    return f" ({said})" if said else ""


def _text(value: Any) -> str:
    text = "" if value is None else str(value)
    return " ".join(text.split())[:MAX_TEXT]
