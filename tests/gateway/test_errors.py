"""Error word -> status and body of every surface."""

import json

import pytest

from gemini_pool.errors import ERRORS, PoolError
from gemini_poold.gateway.errors import LOCAL, Shape, duration, render

NOW = 1_800_000_000.0


@pytest.mark.parametrize("code", [*ERRORS, *LOCAL])
@pytest.mark.parametrize("shape", list(Shape))
def test_every_word_has_an_answer_on_every_surface(code, shape):
    """Status from the table, a JSON body of the surface's shape that holds the word and the message."""
    rendered = render(shape, PoolError(code, "why", hint="do this"), NOW)
    word = (ERRORS | LOCAL)[code]
    assert rendered.status == word.http
    body = json.loads(rendered.body)
    if shape is Shape.GOOGLE_ARRAY:
        assert len(body) == 1
        body = body[0]
    error = body["error"]
    assert error["message"] == "why (do this)"
    if shape in (Shape.GOOGLE, Shape.GOOGLE_ARRAY):
        assert (error["code"], error["status"]) == (word.http, word.status)
        assert error["details"][0]["reason"] == code.upper()
    else:
        assert error["code"] == code
    if shape is Shape.OPENAI:
        assert error["type"] == word.openai_type


def test_only_a_wrong_local_key_is_401():
    """No word of the pool's becomes a 401: clients do not survive one."""
    assert [code for code, word in (ERRORS | LOCAL).items() if word.http == 401] == ["unauthenticated"]


def test_waiting_is_told_twice():
    """A retry_at becomes Retry-After (whole seconds, rounded up) and RetryInfo (milliseconds)."""
    rendered = render(
        Shape.GOOGLE, PoolError("all_cooling_down", "x", retry_at=NOW + 3.2001, account="b"), NOW
    )
    assert rendered.status == 429
    assert rendered.headers["Retry-After"] == "4"
    details = json.loads(rendered.body)["error"]["details"]
    assert details[1] == {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "3.201s"}
    assert details[0]["metadata"] == {"account": "b"}


def test_an_instant_that_passed_means_soon():
    """A retry_at in the past still says that waiting helps: in a second."""
    rendered = render(Shape.GOOGLE, PoolError("all_cooling_down", "x", retry_at=NOW - 5), NOW)
    assert rendered.headers["Retry-After"] == "1"
    assert b'"retryDelay":"0s"' in rendered.body


@pytest.mark.parametrize("code", ["overloaded", "shutting_down"])
def test_passing_states_always_say_when(code):
    """Being full or stopping passes by itself: clients are told to wait even without an instant."""
    assert "Retry-After" in render(Shape.OPENAI, PoolError(code, "x"), NOW).headers


def test_no_waiting_where_it_does_not_help():
    """An error without an instant carries neither header nor RetryInfo."""
    rendered = render(Shape.GOOGLE, PoolError("needs_paid", "x"), NOW)
    assert "Retry-After" not in rendered.headers
    assert b"RetryInfo" not in rendered.body


def test_a_word_from_nowhere_is_a_fault_of_ours():
    """An unknown word is answered as 500."""
    assert render(Shape.GOOGLE, PoolError("no-such-word", "x"), NOW).status == 500


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (3, "3s"), (10, "10s"), (0.5, "0.5s"), (1.2345, "1.235s"), (3600, "3600s")],
)
def test_durations(seconds, text):
    """google.protobuf.Duration in JSON, never rounded down."""
    assert duration(seconds) == text
