"""One conversation, one key; what is not worth one has none."""

import json

import pytest

from gemini_poold.gateway.beginning import key_of

LONG = "word " * 1200


def gemini(*texts, system="be brief", first="contents"):
    contents = [
        {"role": "user" if n % 2 == 0 else "model", "parts": [{"text": t}]} for n, t in enumerate(texts)
    ]
    body = {"contents": contents, "systemInstruction": {"parts": [{"text": system}]}}
    return json.dumps(body if first == "contents" else dict(reversed(body.items()))).encode()


def test_every_turn_of_a_conversation_has_its_key():
    """Later turns, and another order of the fields, change nothing."""
    key = key_of(gemini(LONG))
    assert key
    assert key_of(gemini(LONG, "yes", "and?")) == key
    assert key_of(gemini(LONG, "no", first="system")) == key


@pytest.mark.parametrize("other", [gemini("x" + LONG), gemini(LONG, system="be long")])
def test_another_beginning_has_another_key(other):
    """Another first word, or other instructions."""
    assert key_of(other) not in ("", key_of(gemini(LONG)))


def test_short_prompts_are_not_tied_to_an_account():
    """There is no cache to keep warm for them; a loop of tool calls is tied however short."""
    assert key_of(gemini("hi")) == ""
    tools = {"contents": [{"parts": [{"text": "hi"}]}], "tools": [{"functionDeclarations": []}]}
    assert key_of(json.dumps(tools).encode())


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": LONG}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": LONG}]}]},
        {"request": {"contents": [{"parts": [{"text": LONG}]}]}},
    ],
)
def test_other_forms(body):
    """OpenAI's and Code Assist's bodies have keys, too; a text that ends in escapes is no trouble."""
    assert key_of(json.dumps(body).encode())


@pytest.mark.parametrize(
    "body", [b"", b"x" * 5000, b'{"contents":[]}' + b" " * 5000, b'{"contents":"' + b"\\" * 5000]
)
def test_nonsense_has_none(body):
    """Whatever comes, there is an answer."""
    assert key_of(body) == ""
