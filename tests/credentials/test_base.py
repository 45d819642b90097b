"""Secrets stay masked, failures have states and words, lifetimes are read from whatever came."""

from __future__ import annotations

import copy
import pickle
import traceback

import pytest

from gemini_poold.core.model import AccountState
from gemini_poold.credentials.base import STATE_OF, CredentialError, Failure, Secret, Token, lifetime_s
from gemini_poold.errors import ERRORS


def test_a_secret_does_not_show_itself():
    """Not in repr, str, format, an f-string, a tuple's or a token's repr."""
    secret = Secret("fake-key-a")
    token = Token(secret, 0.0)
    shown = f"{secret} {secret!r} {secret:>20} {[secret]} {token} {token!r} %s" % secret
    assert "fake-key-a" not in shown
    assert secret.reveal() == "fake-key-a"


def test_a_secret_is_not_copied_out():
    """Neither pickle nor copy takes it along."""
    for way in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            way(Secret("fake-key-a"))


def test_a_secret_is_not_in_a_traceback():
    """A traceback that prints values prints the mask."""
    secret = Secret("fake-key-a")
    try:
        raise ValueError(secret)
    except ValueError:
        assert "fake-key-a" not in traceback.format_exc()


def test_secrets_compare_by_value():
    """Equal texts are equal, and nothing else is."""
    assert Secret("a") == Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert not Secret("")
    assert len({Secret("a"), Secret("a")}) == 1


@pytest.mark.parametrize("failure", Failure)
def test_every_failure_has_a_state_and_a_known_word(failure):
    """Whatever fails, the account gets a state and the client a stable word; only a passing failure is retryable."""
    error = CredentialError(failure, "text", account="a", hint="do this")
    assert error.code in ERRORS
    assert error.state is STATE_OF[failure]
    assert error.state is not AccountState.READY
    assert error.retryable == (failure is Failure.TRANSIENT)


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        ({"expires_in": 3599}, 3599),
        ({"expires_in": "1800"}, 1800),
        ({"expires_in": 0.5}, 0.5),
        ({}, 3600),
        ({"expires_in": None}, 3600),
        ({"expires_in": "soon"}, 3600),
        ({"expires_in": -5}, 3600),
        ({"expires_in": 1e999}, 3600),
    ],
)
def test_lifetimes(answer, seconds):
    """Numbers and texts are taken, nonsense is Google's usual hour."""
    assert lifetime_s(answer) == seconds
