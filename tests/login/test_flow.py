"""One login as a value: what is asked, what may be pasted, what is refused. Tables, no network."""

from __future__ import annotations

import base64
import hashlib
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from gemini_poold.core.model import Backend
from gemini_poold.credentials.base import Secret
from gemini_poold.errors import PoolError
from gemini_poold.login import flow
from gemini_poold.login.oauth_client import OAuthClient

CLIENT = OAuthClient("fake-client.example", Secret("fake-client-secret"))
HOME = "http://127.0.0.1:4711/oauth2callback"
CODE = "4/0Afake-code_x-Y"
STATE = "57a7e"


def ask(**more: object) -> flow.Asked:
    given = {
        "authorize_at": "https://accounts.example/auth",
        "redirect_uri": HOME,
        "scopes": flow.SCOPES[Backend.CODE_ASSIST],
        "random": lambda n: bytes(range(n)),
        "now": 1000.0,
    }
    return flow.ask(CLIENT, **(given | more))  # type: ignore[arg-type]


def query(asked: flow.Asked) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(asked.url).query).items()}


def test_what_is_asked() -> None:
    """The address carries PKCE S256, a state of its own, offline access and forced consent, and nothing secret."""
    asked = ask()
    found = query(asked)
    verifier = asked.verifier.reveal()
    digest = hashlib.sha256(verifier.encode()).digest()
    assert found == {
        "client_id": "fake-client.example",
        "redirect_uri": HOME,
        "response_type": "code",
        "scope": "https://www.googleapis.com/auth/cloud-platform "
        "https://www.googleapis.com/auth/userinfo.email https://www.googleapis.com/auth/userinfo.profile",
        "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
        "code_challenge_method": "S256",
        "access_type": "offline",
        "prompt": "select_account consent",
        "state": bytes(range(32)).hex(),
    }
    assert 43 <= len(verifier) <= 128
    assert verifier not in asked.url
    assert "fake-client-secret" not in asked.url
    assert asked.state not in verifier


def test_a_known_person_is_not_asked_who() -> None:
    """A repeated login names the e-mail and asks for consent alone."""
    found = query(ask(login_hint="a@example.com"))
    assert (found["login_hint"], found["prompt"]) == ("a@example.com", "consent")


def test_an_address_with_a_query_keeps_it() -> None:
    """A replaced consent page may have parameters of its own."""
    assert ask(authorize_at="https://proxy.example/auth?to=google").url.startswith(
        "https://proxy.example/auth?to=google&client_id="
    )


def test_the_challenge_is_that_of_the_rfc() -> None:
    """RFC 7636, appendix B."""
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    assert flow.challenge(verifier) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


@pytest.mark.parametrize("backend", list(Backend))
def test_every_backend_has_its_scopes(backend: Backend) -> None:
    """Google Cloud and the e-mail are asked for everywhere."""
    scopes = flow.SCOPES[backend]
    assert "https://www.googleapis.com/auth/cloud-platform" in scopes
    assert "https://www.googleapis.com/auth/userinfo.email" in scopes
    assert any("generative-language" in scope for scope in scopes) == (backend is Backend.DEVELOPER_API)


ENCODED = quote(CODE, safe="")
TWICE = quote(ENCODED, safe="")
PASTED = {
    "the whole address": (f"{HOME}?state={STATE}&code={ENCODED}&scope=a%20b", CODE, STATE),
    "an address without its scheme": (f"127.0.0.1:4711/oauth2callback?code={CODE}", CODE, ""),
    "localhost without its scheme": (f"localhost:8085/oauth2callback?code={CODE}&state={STATE}", CODE, STATE),
    "https and another host": (f"https://elsewhere.example/cb?code={CODE}", CODE, ""),
    "in quotes": (f' "{HOME}?code={CODE}&state={STATE}" ', CODE, STATE),
    "in curly quotes": (f"\u201c{CODE}\u201d", CODE, ""),
    "in angle brackets": (f"<{HOME}?code={CODE}>", CODE, ""),
    "broken by a terminal": (f"{HOME}?state={STATE}&co\n  de={CODE}\n", CODE, STATE),
    "in the fragment": (f"{HOME}#state={STATE}&code={CODE}", CODE, STATE),
    "the query": (f"?code={CODE}&state={STATE}", CODE, STATE),
    "the query without its mark": (f"code={CODE}&state={STATE}", CODE, STATE),
    "the fragment alone": (f"#code={CODE}", CODE, ""),
    "code=": (f"code={ENCODED}", CODE, ""),
    "the bare code": (CODE, CODE, ""),
    "the bare code, encoded": (ENCODED, CODE, ""),
    "the bare code, encoded twice": (TWICE, CODE, ""),
    "a query encoded twice": (f"code={TWICE}", CODE, ""),
    "the code quoted": (f"'{CODE}'", CODE, ""),
    "the longest code": ("4/" + "x" * 4094, "4/" + "x" * 4094, ""),
    "a repeated parameter": (f"code={CODE}&code=other", CODE, ""),
}


@pytest.mark.parametrize("name", PASTED)
def test_what_may_be_pasted(name: str) -> None:
    """Whatever a person finds in the address bar leads to the code; the state is taken when it is there."""
    text, code, state = PASTED[name]
    found = flow.parse_pasted(text)
    assert (found.code, found.state) == (code, state)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no code"),
        ("   ", "no code"),
        ('""', "no code"),
        (f"{HOME}?state={STATE}", "no code"),
        (f"?state={STATE}", "no code"),
        ("?", "no code"),
        ("#", "no code"),
        ("https://accounts.example/auth?client_id=x&code_challenge=y&state=z", "the address to open"),
        ("http://[broken?code=x", "not an address"),
        ("two words", "neither an address nor a code"),
        ("4/abc\u00e4", "neither an address nor a code"),
        ("4/abc\x00", "neither an address nor a code"),
        (quote(quote(quote("4/a b", safe=""), safe=""), safe="") + " x", "neither"),
        ("4/" + "x" * 4095, "at most 4096"),
        ("x" * 20_000, "too long"),
    ],
)
def test_what_may_not_be_pasted(text: str, words: str) -> None:
    """What is no answer is refused with the way out, and never repeated."""
    with pytest.raises(PoolError, match=words) as caught:
        flow.parse_pasted(text)
    assert caught.value.code == "bad_request"
    assert caught.value.hint
    assert "xxxx" not in str(caught.value)
    assert "abc" not in str(caught.value)


def test_decoding_stops_after_two() -> None:
    """A code that is encoded three times stays encoded: it is no code that anybody sent us."""
    assert flow.parse_pasted(quote(TWICE, safe="")).code == ENCODED


def test_an_error_may_be_pasted() -> None:
    """A browser that came back with an error shows it in the same place."""
    found = flow.parse_pasted(f"{HOME}?error=access_denied&state={STATE}")
    assert (found.error, found.state, found.code) == ("access_denied", STATE, "")


def test_a_redirect_hides_its_code() -> None:
    """A code in a traceback would be one that somebody else may spend."""
    assert CODE not in repr(flow.Redirect(CODE, STATE))


# ---- answers -----------------------------------------------------------------------------------------------------


def test_the_code_of_a_good_answer() -> None:
    """The state is compared when it is there; a bare code has none."""
    asked = ask()
    assert flow.code_of(asked, flow.Redirect(CODE, asked.state), 1001.0) == CODE
    assert flow.code_of(asked, flow.Redirect(CODE), 1600.0) == CODE


@pytest.mark.parametrize(
    ("redirect", "now", "code"),
    [
        (flow.Redirect(CODE, "another"), 1001.0, "bad_request"),
        (flow.Redirect(CODE, "\u00e4"), 1001.0, "bad_request"),
        (flow.Redirect(), 1001.0, "bad_request"),
        (flow.Redirect(CODE), 1601.0, "deadline"),
        (flow.Redirect(error="access_denied", state="another"), 1001.0, "bad_request"),
    ],
)
def test_answers_that_are_not_taken(redirect: flow.Redirect, now: float, code: str) -> None:
    """Another login's answer, none, or one that comes after ten minutes. None of them ends the login."""
    with pytest.raises(PoolError) as caught:
        flow.code_of(ask(), redirect, now)
    assert caught.value.code == code
    assert not isinstance(caught.value, flow.Refused)


@pytest.mark.parametrize("word", [*flow.REFUSALS, "something_new"])
def test_every_refusal_has_words(word: str) -> None:
    """Whatever Google ends a login with, a person reads what it means and what to do."""
    asked = ask()
    with pytest.raises(flow.Refused) as caught:
        flow.code_of(asked, flow.Redirect(error=word, state=asked.state, text="because"), 1001.0)
    assert word in caught.value.message
    assert "because" in caught.value.message
    assert caught.value.hint


def test_a_refusal_shows_no_control_characters() -> None:
    """The words of an address may be anybody's: they are cut and harmless on a terminal."""
    error = flow.refusal(flow.Redirect(error="x\x1b[31m", text="y\n" * 500))
    assert "\x1b" not in error.message
    assert "\n" not in error.message
    assert len(error.message) < 400
