"""The configured thinkingConfig, where a request has none."""

import json

import pytest

from gemini_poold.gateway.thinking import with_default

LOW = {"thinkingLevel": "low"}
DEFAULTS = {"gemini-3*": LOW, "*": {"thinkingBudget": 0}}


def applied(body, model="gemini-3-pro", surface="gl"):
    return json.loads(with_default(json.dumps(body).encode(), model, DEFAULTS, surface=surface))


def test_a_default_is_set_beside_what_is_there():
    """The first matching glob's, among the request's own settings, in either spelling and for every surface."""
    assert applied({"contents": []})["generationConfig"] == {"thinkingConfig": LOW}
    mixed = applied({"generation_config": {"temperature": 1}})
    assert mixed == {"generation_config": {"temperature": 1, "thinkingConfig": LOW}}
    assert applied({}, "gemini-2.5-pro")["generationConfig"]["thinkingConfig"] == {"thinkingBudget": 0}
    wrapped = applied({"model": "m", "request": {"contents": []}}, surface="ca")
    assert wrapped["request"]["generationConfig"]["thinkingConfig"] == LOW
    assert "generationConfig" not in wrapped


@pytest.mark.parametrize(
    "body",
    [
        b'{"generationConfig": {"thinkingConfig": {}}}',
        b'{"generation_config":{"thinking_config":{}}}',
        b"[1]",
        b"nonsense",
    ],
)
def test_a_request_with_its_own_word_is_untouched(body):
    """Byte for byte; so is what is no request at all."""
    assert with_default(body, "gemini-3-pro", DEFAULTS, surface="gl") == body


def test_no_default_touches_nothing():
    """A model that no glob names."""
    body = b'{ "contents": [] }'
    assert with_default(body, "gemini-2.5-pro", {"gemini-3*": LOW}, surface="gl") == body
