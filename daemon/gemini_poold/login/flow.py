"""One login as a value: PKCE, state, the address to open, and what came back, pasted or by redirect. Pure.

Random bytes and instants come in. Listening is `listener.py`'s, talking to Google `exchange.py`'s business.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hmac import compare_digest
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from ..core.model import Backend
from ..credentials.base import CLOUD_PLATFORM, RETRIEVER, Secret
from ..errors import PoolError
from .oauth_client import OAuthClient

LIFE_S = 600.0  # of a session; Google's codes live no longer
MAX_CODE = 4096
MAX_PASTED = 16_384
MAX_DECODES = 2  # a chat or a terminal may have encoded the address once more; beyond that it is no address
MAX_TEXT = 200

_EMAIL = "https://www.googleapis.com/auth/userinfo.email"
_PROFILE = "https://www.googleapis.com/auth/userinfo.profile"
SCOPES: Mapping[Backend, tuple[str, ...]] = {
    Backend.CODE_ASSIST: (CLOUD_PLATFORM, _EMAIL, _PROFILE),
    Backend.DEVELOPER_API: (CLOUD_PLATFORM, RETRIEVER, _EMAIL, _PROFILE),
    Backend.VERTEX: (CLOUD_PLATFORM, _EMAIL, _PROFILE),
}

_QUOTES = "\"'`<>\u201c\u201d\u2018\u2019"  # the curly ones, too: chats put them
_OPENING = re.compile(r"^(?:https?://|(?:localhost|127\.0\.0\.1|\[::1\]):\d+)", re.IGNORECASE)
_ENCODED = re.compile(r"%[0-9A-Fa-f]{2}")

RandomBytes = Callable[[int], bytes]


class Redirect(NamedTuple):
    """What Google sent a browser back with. `code` is a one-time secret: never shown."""

    code: str = ""
    state: str = ""
    error: str = ""
    text: str = ""  # error_description

    def __repr__(self) -> str:
        return f"Redirect(code={'***' if self.code else ''}, error={self.error!r})"


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked of Google: the address to open, and what proves that an answer belongs to it."""

    url: str
    redirect_uri: str
    state: str
    verifier: Secret
    asked_at: float


def ask(
    client: OAuthClient,
    *,
    authorize_at: str,
    redirect_uri: str,
    scopes: tuple[str, ...],
    login_hint: str = "",
    random: RandomBytes,
    now: float,
) -> Asked:
    """Begin: a verifier and a state of their own, and the address that carries their traces. `now`: any steady clock."""
    verifier = _b64url(random(64))  # 86 characters of the 43 to 128 allowed
    state = random(32).hex()
    query = {
        "client_id": client.id,
        "redirect_uri": redirect_uri,
        "response_type": "code",
        "scope": " ".join(scopes),
        "code_challenge": challenge(verifier),
        "code_challenge_method": "S256",
        "access_type": "offline",
        # Without "consent" a repeated login brings no refresh token; with "select_account" a second account is had.
        "prompt": "consent" if login_hint else "select_account consent",
        "state": state,
    }
    if login_hint:
        query["login_hint"] = login_hint
    joint = "&" if urlsplit(authorize_at).query else "?"
    return Asked(f"{authorize_at}{joint}{urlencode(query)}", redirect_uri, state, Secret(verifier), now)


def challenge(verifier: str) -> str:
    """S256 of RFC 7636."""
    return _b64url(hashlib.sha256(verifier.encode("ascii")).digest())


def code_of(asked: Asked, redirect: Redirect, now: float) -> str:
    """The code to exchange. Raises PoolError when the session is over, the answer is another's, or Google said no."""
    if now - asked.asked_at > LIFE_S:
        raise PoolError("deadline", "this login is older than 10 minutes", hint="start it again")
    if redirect.state and not compare_digest(redirect.state.encode(), asked.state.encode()):
        hint = "take the address of the newest browser tab, or start again"
        raise PoolError("bad_request", "that answer belongs to another login", hint=hint)
    if redirect.error:
        raise refusal(redirect)
    if not redirect.code:
        raise _no_code()
    return redirect.code


# ---- what people paste -------------------------------------------------------------------------------------------


def parse_pasted(text: str) -> Redirect:
    """A redirect's whole address, its query or fragment, `code=…`, or the bare code; quotes and line ends around it
    do not matter. Raises PoolError "bad_request"; what was pasted is never repeated."""
    if len(text) > MAX_PASTED:
        raise PoolError("bad_request", "that is too long for an address or a code", hint=_HOW)
    text = text.strip().strip(_QUOTES).strip()
    if _OPENING.match(text):
        text = re.sub(r"\s+", "", text)  # a terminal breaks long lines, an address has no blanks
        return _checked(_of_address(text))
    parameters = _parameters(text.lstrip("?#&")) if "=" in text else {}
    if parameters.keys() & {"code", "error", "state"}:
        return _checked(_redirect(parameters))
    if text.startswith(("?", "#")):
        raise _no_code()
    return _checked(Redirect(code=_decoded(text, MAX_DECODES)))


def of_query(query: str) -> Redirect:
    """A redirect as our listener got it."""
    return _redirect(_parameters(query))


_HOW = "paste the whole address that the browser ended up at, or the code alone"


def _no_code() -> PoolError:
    return PoolError("bad_request", "there is no code in it", hint=_HOW)


def _of_address(address: str) -> Redirect:
    """The query's parameters, else the fragment's."""
    try:
        parts = urlsplit(address if "://" in address else f"http://{address}")
    except ValueError:
        raise PoolError("bad_request", "that is not an address", hint=_HOW) from None
    asked = _parameters(parts.query)
    for found in (asked, _parameters(parts.fragment)):
        if found.keys() & {"code", "error"}:
            return _redirect(found)
    if "code_challenge" in asked:
        hint = "open it in a browser, allow the access, then paste the address you end up at"
        raise PoolError("bad_request", "that is the address to open, not the answer", hint=hint)
    raise _no_code()


def _parameters(query: str) -> dict[str, str]:
    """The first value of each parameter."""
    found: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        found.setdefault(name, value)
    return found


def _redirect(parameters: Mapping[str, str]) -> Redirect:
    code = parameters.get("code", "")
    return Redirect(
        _decoded(code, MAX_DECODES - 1),
        parameters.get("state", "").strip(_QUOTES),
        parameters.get("error", ""),
        parameters.get("error_description", ""),
    )


def _decoded(text: str, times: int) -> str:
    for _ in range(times):
        if not _ENCODED.search(text):
            break
        text = unquote(text)
    return text.strip().strip(_QUOTES)


def _checked(redirect: Redirect) -> Redirect:
    code = redirect.code
    if redirect.error:
        return redirect
    if not code:
        raise _no_code()
    if len(code) > MAX_CODE:
        raise PoolError("bad_request", f"a code has at most {MAX_CODE} characters", hint=_HOW)
    if not code.isascii() or not code.isprintable() or re.search(r"\s", code):
        raise PoolError("bad_request", "that is neither an address nor a code", hint=_HOW)
    return redirect


# ---- what Google says no with ------------------------------------------------------------------------------------


class Refused(PoolError):
    """Google, or the person at its page, said no: the login is over."""


class _Said(NamedTuple):
    code: str
    text: str
    hint: str


_AGAIN = "start the login again"
_DESKTOP = 'use an OAuth client of type "Desktop app"'
REFUSALS: Mapping[str, _Said] = {
    "access_denied": _Said(
        "login_required", "the access was not allowed on Google's page",
        f"{_AGAIN} and allow it; an OAuth client in testing lets only its test users in (console: OAuth consent screen)",
    ),
    "admin_policy_enforced": _Said(
        "login_required", "the organisation's policy forbids this OAuth client",
        "ask the administrator to allow it (admin console: Security, API controls)",
    ),
    "org_internal": _Said(
        "login_required", "the OAuth client is for its own organisation only",
        'log in as a member of it, or set the consent screen\'s user type to "External"',
    ),
    "disallowed_useragent": _Said(
        "bad_request", "Google does not take this browser", "open the address in an ordinary browser"
    ),
    "redirect_uri_mismatch": _Said("bad_request", "the OAuth client does not allow our address", _DESKTOP),
    "invalid_request": _Said("bad_request", "Google does not take the request", _DESKTOP),
    "invalid_client": _Said("bad_request", "Google does not know the OAuth client", "download its JSON anew"),
    "deleted_client": _Said("bad_request", "the OAuth client was deleted", "make a new one"),
    "unauthorized_client": _Said("bad_request", "the OAuth client may not do this kind of login", _DESKTOP),
    "unsupported_response_type": _Said("bad_request", "the OAuth client may not do this kind of login", _DESKTOP),
    "invalid_scope": _Said(
        "bad_request", "a scope is not allowed for this OAuth client", "enable the API in the client's project"
    ),
    "login_required": _Said("login_required", "nobody is signed in to Google in that browser", _AGAIN),
    "interaction_required": _Said("login_required", "Google wants to ask something first", _AGAIN),
    "consent_required": _Said("login_required", "Google wants consent first", _AGAIN),
    "account_selection_required": _Said("login_required", "Google wants an account chosen first", _AGAIN),
    "server_error": _Said("upstream_error", "Google's page failed", f"{_AGAIN} in a moment"),
    "temporarily_unavailable": _Said("upstream_error", "Google's page is not available", f"{_AGAIN} in a moment"),
}  # fmt: skip


def refusal(redirect: Redirect) -> Refused:
    """The error of a login that Google, or the person, ended."""
    word = _printable(redirect.error)
    said = REFUSALS.get(word, _Said("login_required", "Google ended the login", _AGAIN))
    detail = f"{word}: {_printable(redirect.text)}" if redirect.text else word
    return Refused(said.code, f"{said.text} ({detail})", hint=said.hint)


def _printable(text: str) -> str:
    """Words of an address, which anybody may have written."""
    return "".join(character for character in text[:MAX_TEXT] if character.isprintable())


def _b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
