"""A thought signature is known to be an account's own; a history that moves to another is cleaned, one that stays is not."""

from __future__ import annotations

import json

import pytest
from tests.runtime.rig import rig_of

from gemini_poold.runtime.origins import Origins

ASK = {"role": "user", "parts": [{"text": "[[call=weather]]"}]}
TOOLS = [{"functionDeclarations": [{"name": "weather"}]}]
SENTINEL = "skip_thought_signature_validator"


def test_who_made_it_is_known_however_it_is_written():
    """Google escapes what clients do not; the sentinel and what is not known are nobody's."""
    origins = Origins()
    origins.note(b'data: {"thoughtSignature": "ab\\u003d\\u003d"}', "a")
    body = b'{"parts":[{"thought_signature":"ab=="}]}'
    assert origins.elsewhere(body, "b")
    assert not origins.elsewhere(body, "a")
    assert not origins.elsewhere(b'{"thoughtSignature":"unknown"}', "b")
    origins.note(f'{{"thoughtSignature":"{SENTINEL}"}}'.encode(), "a")
    assert len(origins) == 1


def test_the_table_is_bounded():
    """The oldest are forgotten first."""
    origins = Origins(most=2)
    for number in range(4):
        origins.note(f'{{"thoughtSignature":"s{number}"}}'.encode(), "a")
    assert len(origins) == 2
    assert not origins.elsewhere(b'{"thoughtSignature":"s0"}', "b")
    assert origins.elsewhere(b'{"thoughtSignature":"s3"}', "b")


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_history_that_moves_is_cleaned_before_it_is_sent(streamed):
    """The account that signed gets its own signature back; another gets the word for none, and no refusal is needed."""
    async with rig_of("key-a", "key-b") as rig:
        first = {"contents": [ASK], "tools": TOOLS}
        if streamed:
            async with await rig.dispatcher.stream(
                rig.call(first, method="streamGenerateContent", pin="key-a")
            ) as stream:
                events = [json.loads(event) async for event in stream.events()]
        else:
            events = [json.loads((await rig.dispatcher.unary(rig.call(first, pin="key-a"))).body)]
        content = events[0]["candidates"][0]["content"]
        signature = content["parts"][0]["thoughtSignature"]
        answered = {"role": "user", "parts": [{"functionResponse": {"name": "weather", "response": {}}}]}
        again = {"contents": [ASK, content, answered], "tools": TOOLS}
        for account, sent in (("key-a", signature), ("key-b", SENTINEL)):
            answer = await rig.dispatcher.unary(rig.call(again, pin=account))
            assert (answer.status, answer.attempts) == (200, 1)
            body = json.loads(rig.fake.record.last("generate").body)
            assert body["contents"][1]["parts"][0]["thoughtSignature"] == sent
