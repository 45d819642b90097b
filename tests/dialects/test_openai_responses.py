"""OpenAI's Responses <-> generateContent."""

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemini_pool.errors import PoolError
from gemini_poold.dialects import openai_responses_request as request
from gemini_poold.dialects.openai_responses_answer import Events, whole
from gemini_poold.fake import validate

MODEL = "gemini-2.5-flash"
F = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}


def made(given="hello", **fields):
    """The body for Google, as it would be sent."""
    asked = request.translate({"model": MODEL, "input": given, **fields}).chat
    validate.check(json.loads(msgspec.json.encode(asked.body)), validate.GENERATE)
    return json.loads(msgspec.json.encode(asked.body))


# ---- requests -----------------------------------------------------------------------------------------------------


def test_a_plain_input():
    """A string is the user's, instructions are the system's."""
    assert made(instructions="be brief", store=True, truncation="auto", metadata={"a": "b"}) == {
        "systemInstruction": {"parts": [{"text": "be brief"}]},
        "contents": [{"role": "user", "parts": [{"text": "hello"}]}],
    }


def test_items():
    """Messages, calls in a row, their outputs; thoughts of earlier turns go."""
    body = made(
        [
            {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"},
            {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
             "content": [{"type": "output_text", "text": "b", "annotations": [], "logprobs": []}]},
            {"type": "function_call", "id": "fc_1", "call_id": "1", "name": "f", "arguments": '{"a":1}', "status": "completed",
             "extra_content": {"google": {"thought_signature": "sig"}}},
            {"type": "function_call", "call_id": "2", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "2", "output": "two"},
            {"type": "function_call_output", "call_id": "1", "output": [{"type": "input_text", "text": "one"}]},
        ],
        tools=[F],
    )  # fmt: skip
    assert body["contents"] == [
        {"role": "user", "parts": [{"text": "a"}]},
        {
            "role": "model",
            "parts": [
                {"text": "b"},
                {"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": "sig"},
                {"functionCall": {"name": "f", "args": {}}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"name": "f", "response": {"output": "one"}}},
                {"functionResponse": {"name": "f", "response": {"output": "two"}}},
            ],
        },
    ]


@pytest.mark.parametrize(
    ("fields", "config"),
    [
        ({"max_output_tokens": 5, "temperature": 0.5, "top_p": 1}, {"maxOutputTokens": 5, "temperature": 0.5, "topP": 1}),
        ({"reasoning": {"effort": "low"}}, {"thinkingConfig": {"thinkingBudget": 1024, "includeThoughts": False}}),
        (
            {"reasoning": {"effort": "low", "summary": "auto"}},
            {"thinkingConfig": {"thinkingBudget": 1024, "includeThoughts": True}},
        ),
        ({"reasoning": {"summary": "detailed"}}, {"thinkingConfig": {"includeThoughts": True}}),
        (
            {"extra_body": {"google": {"thinking_config": {"include_thoughts": True}}}, "reasoning": {}},
            {"thinkingConfig": {"includeThoughts": True}},
        ),
        (
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "null"}, "strict": True}}},
            {"responseMimeType": "application/json", "responseJsonSchema": {"type": "null"}},
        ),
        ({"text": {"format": {"type": "json_object"}}}, {"responseMimeType": "application/json"}),
        ({"text": {"format": {"type": "text"}, "verbosity": "medium"}, "include": ["reasoning.encrypted_content"]}, None),
    ],
)  # fmt: skip
def test_settings(fields, config):
    """Each field in Google's words. Thoughts come only where a summary is wanted."""
    assert made(**fields).get("generationConfig") == config


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"previous_response_id": "resp_1"}, "not kept"),
        ({"conversation": "conv_1"}, "not kept"),
        ({"background": True}, "not kept"),
        ({"prompt": {"id": "p"}}, "not kept"),
        ({"include": ["file_search_call.results"]}, "file_search_call"),
        ({"top_logprobs": 2}, "chat completions"),
        ({"tools": [{"type": "web_search_preview"}]}, "only functions"),
        ({"input": []}, "non-empty"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "not kept"),
        ({"input": [{"type": "computer_call"}]}, "computer_call"),
        ({"input": [{"role": "user", "content": "a", "x": 1}]}, r"input\[0\]\.x"),
        ({"instructions": 5}, "instructions"),
        ({"text": {"x": 1}}, r"text\.x"),
        ({"text": {"verbosity": "low"}}, "verbosity"),
        ({"reasoning": {"effort": "xhigh"}}, "xhigh"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_cannot_be_carried_is_refused(fields, why):
    """What refers to a kept conversation, and everything that Gemini has no place for."""
    with pytest.raises(PoolError, match=why) as caught:
        request.translate({"model": MODEL, "input": "hello", **fields})
    assert caught.value.code == "bad_request"


# ---- answers --------------------------------------------------------------------------------------------------------


def event(parts=(), finish=None, **more):
    content = {"content": {"role": "model", "parts": list(parts)}} if parts else {}
    return {
        "candidates": [{**content, **({"finishReason": finish} if finish else {})}],
        "modelVersion": "v",
        **more,
    }


CALL = {"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": "sig"}
ALL = [{"text": "hm", "thought": True}, {"text": "he"}, {"text": "llo", "thoughtSignature": "t"}, CALL]


def ids():
    numbers = iter(range(1000))
    return lambda prefix: f"{prefix}{next(numbers)}"


def asking(**fields):
    return request.translate({"model": MODEL, "input": "hello", **fields})


def streamed(events, *, remember=None, **fields):
    """The events of a stream; each names its type twice, and they are numbered."""
    told = Events(asking(**fields), created=5.5, new_id=ids(), remember=remember)
    out = told.start() + b"".join(told.feed(msgspec.json.encode(e)) for e in events) + told.end()
    found = []
    for block in out.decode().split("\n\n")[:-1]:
        name, data = block.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    assert [e["sequence_number"] for e in found] == list(range(len(found)))
    return found


def wholly(answer, **fields):
    return json.loads(whole(msgspec.json.encode(answer), asking(**fields), created=5.5, new_id=ids()))


def test_a_stream():
    """Every item is opened, told and closed; the Response at the end has all of it."""
    known = {}
    usage = {"promptTokenCount": 3, "candidatesTokenCount": 2, "thoughtsTokenCount": 1, "totalTokenCount": 6}
    events = streamed(
        [event([part]) for part in ALL] + [event((), "STOP", usageMetadata=usage)], remember=known.__setitem__
    )
    assert [e["type"].removeprefix("response.") for e in events] == [
        "created", "in_progress",
        "output_item.added", "reasoning_summary_part.added", "reasoning_summary_text.delta",
        "reasoning_summary_text.done", "reasoning_summary_part.done", "output_item.done",
        "output_item.added", "content_part.added", "output_text.delta", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done",
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done",
        "completed",
    ]  # fmt: skip
    response = events[-1]["response"]
    reasoning, message, call = response["output"]
    assert reasoning["summary"] == [{"type": "summary_text", "text": "hm"}]
    assert message["content"] == [{"type": "output_text", "annotations": [], "logprobs": [], "text": "hello"}]
    assert message["extra_content"] == {"google": {"thought_signature": "t"}}
    assert (call["name"], call["arguments"], call["status"]) == ("f", '{"a":1}', "completed")
    assert known == {call["call_id"]: "sig"}
    assert response["usage"] == {
        "input_tokens": 3,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 1},
        "total_tokens": 6,
    }
    assert (response["status"], response["model"], response["created_at"]) == ("completed", "v", 5)
    done = [e["item"] for e in events if e["type"] == "response.output_item.done"]
    assert done == response["output"]


@pytest.mark.parametrize(
    ("finish", "reason"),
    [("MAX_TOKENS", "max_output_tokens"), ("SAFETY", "content_filter"), ("OTHER", "content_filter")],
)
def test_an_incomplete_answer(finish, reason):
    """It says so: in its status, in the reason, and as the last event."""
    last = streamed([event([{"text": "a"}], finish)])[-1]
    assert last["type"] == "response.incomplete"
    assert last["response"]["incomplete_details"] == {"reason": reason}
    assert last["response"]["output"][0]["status"] == "incomplete"


def test_a_prompt_that_was_blocked():
    """A refusal, told as one."""
    response = wholly({"promptFeedback": {"blockReason": "SAFETY"}})
    assert response["incomplete_details"] == {"reason": "content_filter"}
    assert "SAFETY" in response["output"][0]["content"][0]["refusal"]


def test_no_end_without_an_end():
    """Neither a stream nor a whole answer is completed that Google did not finish."""
    with pytest.raises(PoolError) as caught:
        streamed([event([{"text": "a"}])])
    assert caught.value.code == "stream_cut"
    with pytest.raises(PoolError) as caught:
        wholly(event([{"text": "a"}]))
    assert caught.value.code == "upstream_error"


def test_the_request_is_repeated():
    """As OpenAI's object does; nothing is kept, and it says so."""
    response = wholly(event([{"text": "a"}], "STOP"), instructions="i", tools=[F], metadata={"a": "b"})
    assert (response["instructions"], response["tools"], response["metadata"]) == ("i", [F], {"a": "b"})
    assert (response["store"], response["previous_response_id"], response["tool_choice"]) == (
        False,
        None,
        "auto",
    )


def test_images_and_single_calls():
    """An image is an item of its own; `parallel_tool_calls: false` gets the first call only."""
    image = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}
    output = wholly(event([image, CALL, CALL], "STOP"), parallel_tool_calls=False)["output"]
    assert [item["type"] for item in output] == ["image_generation_call", "function_call"]
    assert output[0]["result"] == "AAAA"


PARTS = st.sampled_from([{"text": "a"}, {"text": "é"}, {"text": "b", "thought": True}, CALL])


@given(st.lists(PARTS, min_size=1, max_size=8), st.data())
@settings(max_examples=100, deadline=None)
def test_wherever_an_answer_is_split(parts, data):
    """The deltas say what the items say, and the Response is the same however Google cut its answer."""
    events, at = [], 0
    while at < len(parts):
        end = data.draw(st.integers(at + 1, len(parts)))
        events.append(event(parts[at:end]))
        at = end
    found = streamed([*events, event((), "STOP")])
    response = found[-1]["response"]
    assert response["output"] == wholly(event(parts, "STOP"))["output"]
    for kind, field in (("output_text", "content"), ("reasoning_summary_text", "summary")):
        told = "".join(e["delta"] for e in found if e["type"] == f"response.{kind}.delta")
        assert told == "".join(part["text"] for item in response["output"] for part in item.get(field, ()))
