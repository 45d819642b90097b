"""OpenAI's chat completions <-> generateContent."""

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemini_pool.errors import PoolError
from gemini_poold.dialects import openai_chat_request as request
from gemini_poold.dialects.openai_chat_answer import Chunks, whole
from gemini_poold.fake import validate

MODEL = "gemini-2.5-flash"
HELLO = [{"role": "user", "content": "hello"}]
F = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": True}}
G = {"type": "function", "function": {"name": "g", "description": "d"}}
SENTINEL = request.SENTINEL


def made(messages=HELLO, *, remembered=lambda _: "", **fields):
    """The body for Google, as it would be sent."""
    asked = request.translate({"model": MODEL, "messages": messages, **fields}, remembered)
    body = json.loads(msgspec.json.encode(asked.body))
    validate.check(json.loads(msgspec.json.encode(asked.body)), validate.GENERATE)
    return body


def calling(*calls, **more):
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": name + "1", "type": "function", "function": {"name": name, "arguments": args}, **extra}
            for name, args, extra in calls
        ],
        **more,
    }


def result(call, content):
    return {"role": "tool", "tool_call_id": call, "content": content}


# ---- requests -----------------------------------------------------------------------------------------------------


def test_roles():
    """System and developer messages become the instruction, in order, wherever they stand."""
    body = made(
        [
            {"role": "system", "content": "a"},
            {"role": "user", "content": "b", "name": "bob"},
            {"role": "assistant", "content": "c", "reasoning_content": "thoughts", "refusal": None},
            {"role": "developer", "content": [{"type": "text", "text": "d"}]},
            {"role": "user", "content": [{"type": "text", "text": "e"}, {"type": "text", "text": ""}]},
        ]
    )
    assert body == {
        "systemInstruction": {"parts": [{"text": "a"}, {"text": "d"}]},
        "contents": [
            {"role": "user", "parts": [{"text": "b"}]},
            {"role": "model", "parts": [{"text": "c"}]},
            {"role": "user", "parts": [{"text": "e"}]},
        ],
    }


@pytest.mark.parametrize(
    ("fields", "config"),
    [
        ({"temperature": 0, "top_p": 0.5, "top_k": 4}, {"temperature": 0, "topP": 0.5, "topK": 4}),
        ({"n": 2, "seed": 7}, {"candidateCount": 2, "seed": 7}),
        ({"max_tokens": 5}, {"maxOutputTokens": 5}),
        ({"max_tokens": 5, "max_completion_tokens": 6}, {"maxOutputTokens": 6}),
        ({"stop": "x"}, {"stopSequences": ["x"]}),
        ({"stop": ["x", "y"]}, {"stopSequences": ["x", "y"]}),
        ({"presence_penalty": 1, "frequency_penalty": -1}, {"presencePenalty": 1, "frequencyPenalty": -1}),
        ({"logprobs": True, "top_logprobs": 3}, {"responseLogprobs": True, "logprobs": 3}),
        ({"response_format": {"type": "json_object"}}, {"responseMimeType": "application/json"}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": {"type": "null"}}}},
            {"responseMimeType": "application/json", "responseJsonSchema": {"type": "null"}},
        ),
        ({"reasoning_effort": "low"}, {"thinkingConfig": {"thinkingBudget": 1024, "includeThoughts": True}}),
        ({"reasoning_effort": "none"}, {"thinkingConfig": {"thinkingBudget": 0}}),
        (
            {"extra_body": {"google": {"thinking_config": {"thinking_budget": 9}}}},
            {"thinkingConfig": {"thinkingBudget": 9}},
        ),
        ({"google": {"thinkingConfig": {"thinkingLevel": "LOW"}}}, {"thinkingConfig": {"thinkingLevel": "low"}}),
        ({"response_format": {"type": "text"}, "stop": [], "logprobs": False, "temperature": None}, None),
        (dict.fromkeys(request.IGNORED, "x"), None),
        ({"service_tier": "auto", "verbosity": "medium", "modalities": ["text"], "logit_bias": {}}, None),
    ],
)  # fmt: skip
def test_settings(fields, config):
    """Each field in Google's words; what is left out on purpose leaves nothing behind."""
    assert made(**fields).get("generationConfig") == config


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"logit_bias": {"1": 1}}, "logit_bias"),
        ({"functions": [{}]}, "use `tools`"),
        ({"prediction": {"type": "content"}}, "prediction"),
        ({"audio": {"voice": "alloy"}}, "audio"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"web_search_options": {"x": 1}}, "web_search_options"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"verbosity": "low"}, "verbosity"),
        ({"colour": "red"}, "unknown parameter `colour`"),
        ({"stream_options": {"x": 1}}, "stream_options.x"),
        ({"extra_body": {"openai": {}}}, "extra_body.openai"),
        ({"extra_body": {"google": {"thought_tag_marker": "t"}}}, "reasoning_content"),
        ({"reasoning_effort": "low", "google": {"thinking_config": {}}}, "together"),
        ({"response_format": {"type": "grammar"}}, "grammar"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": 1}}}, "JSON schema"),
        ({"stop": 5}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"tools": [{"type": "web_search"}]}, "only functions"),
        ({"tools": [F], "tool_choice": {"type": "function", "function": {"name": "x"}}}, "none of the tools"),
        ({"tools": [F], "tool_choice": {"type": "custom", "custom": {"name": "f"}}}, "custom"),
        ({"tools": [F], "tool_choice": "some"}, "some"),
        ({"messages": []}, "at least one"),
        ({"messages": [{"role": "system", "content": "a"}]}, "at least one"),
        ({"messages": [{"role": "bot", "content": "a"}]}, "bot"),
        ({"messages": [{"role": "user", "content": "a", "x": 1}]}, r"messages\[0\]\.x"),
        ({"messages": [{"role": "user"}]}, "content"),
        ({"messages": [*HELLO, result("f1", "x")]}, "answers no call"),
        ({"messages": [*HELLO, calling(("f", "{}", {})), result("f1", "x"), result("f1", "x")]}, "answered before"),
        ({"messages": [*HELLO, {"role": "assistant", "tool_calls": [{"type": "custom"}]}]}, "custom"),
        ({"messages": [*HELLO, {"role": "assistant", "content": "a", "audio": {"id": "x"}}]}, "audio"),
        ({"model": 5}, "model"),
        ({"model": None}, "model"),
    ],
)  # fmt: skip
def test_what_cannot_be_carried_is_refused(fields, why):
    """With its name, and never left out in silence."""
    with pytest.raises(PoolError, match=why) as caught:
        request.translate({"model": MODEL, "messages": HELLO, **fields})
    assert caught.value.code == "bad_request"


def test_tools():
    """Schemas go as JSON Schema; `strict` is Google's own affair."""
    assert made(tools=[F, G])["tools"] == [
        {
            "functionDeclarations": [
                {"name": "f", "parametersJsonSchema": {"type": "object"}},
                {"name": "g", "description": "d"},
            ]
        }
    ]


@pytest.mark.parametrize(
    ("choice", "config", "names"),
    [
        ("none", {"mode": "NONE"}, ["f", "g"]),
        ("auto", {"mode": "AUTO"}, ["f", "g"]),
        ("required", {"mode": "ANY"}, ["f", "g"]),
        ({"type": "function", "function": {"name": "g"}}, {"mode": "ANY", "allowedFunctionNames": ["g"]}, ["f", "g"]),
        ({"type": "function", "name": "g"}, {"mode": "ANY", "allowedFunctionNames": ["g"]}, ["f", "g"]),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [G]}}, {"mode": "AUTO"}, ["g"]),
        ({"type": "allowed_tools", "mode": "required", "tools": [G]}, {"mode": "ANY", "allowedFunctionNames": ["g"]}, ["f", "g"]),
    ],
)  # fmt: skip
def test_the_choice_of_tools(choice, config, names):
    """Every form of either API."""
    body = made(tools=[F, G], tool_choice=choice)
    assert body["toolConfig"] == {"functionCallingConfig": config}
    assert [tool["name"] for tool in body["tools"][0]["functionDeclarations"]] == names


def test_parallel_calls_and_their_results():
    """Results stand in one content in the order of the calls; only the first call needs a signature."""
    body = made(
        [
            *HELLO,
            calling(("f", '{"n": 12345678901234567890}', {}), ("g", "", {})),
            result("g1", "plain"),
            result("f1", '{"a": [1]}'),
            {"role": "user", "content": "and?"},
        ]
    )
    assert body["contents"][1]["parts"] == [
        {"functionCall": {"name": "f", "args": {"n": 12345678901234567890}}, "thoughtSignature": SENTINEL},
        {"functionCall": {"name": "g", "args": {}}},
    ]
    assert body["contents"][2] == {
        "role": "user",
        "parts": [
            {"functionResponse": {"name": "f", "response": {"a": [1]}}},
            {"functionResponse": {"name": "g", "response": {"output": "plain"}}},
        ],
    }
    assert body["contents"][3] == {"role": "user", "parts": [{"text": "and?"}]}


def test_two_turns_of_the_model_in_a_row_are_one():
    """Results follow on all of its calls; the first of them has the signature."""
    body = made(
        [*HELLO, calling(("f", "{}", {})), calling(("g", "{}", {})), result("g1", "b"), result("f1", "a")]
    )
    assert [content["role"] for content in body["contents"]] == ["user", "model", "user"]
    assert [part.get("thoughtSignature") for part in body["contents"][1]["parts"]] == [SENTINEL, None]
    assert [part["functionResponse"]["name"] for part in body["contents"][2]["parts"]] == ["f", "g"]


def test_arguments_that_are_no_json_stay():
    """A broken call of another model's is history, too."""
    body = made([*HELLO, calling(("f", "{broken", {})), result("f1", [{"type": "text", "text": "[1]"}])])
    assert body["contents"][1]["parts"][0]["functionCall"]["args"] == {"arguments": "{broken"}
    assert body["contents"][2]["parts"][0]["functionResponse"]["response"] == {"output": "[1]"}


def test_signatures():
    """The client's own goes first, then what is remembered for the call's id, then Google's word for none."""
    sent = {"extra_content": {"google": {"thought_signature": "own"}}}
    for extra, remembered, signature in (
        (sent, "kept", "own"),
        ({}, "kept", "kept"),
        ({}, "", SENTINEL),
    ):
        body = made(
            [*HELLO, calling(("f", "{}", extra)), result("f1", "x")], remembered={"f1": remembered}.get
        )
        assert body["contents"][1]["parts"][0]["thoughtSignature"] == signature
    body = made([*HELLO, {"role": "assistant", "content": "a", **sent}])
    assert body["contents"][1]["parts"] == [{"text": "a", "thoughtSignature": "own"}]


def test_what_google_alone_knows():
    """`extra_body.google` beside the generation."""
    safety = [{"category": "c", "threshold": "BLOCK_NONE"}]
    body = made(extra_body={"google": {"cached_content": "cachedContents/x", "safety_settings": safety}})
    assert (body["cachedContent"], body["safetySettings"]) == ("cachedContents/x", safety)


def test_what_the_gateway_needs_to_know():
    """Stream, usage, session and the rest beside the body."""
    asked = request.translate(
        {
            "model": MODEL,
            "messages": HELLO,
            "stream": True,
            "stream_options": {"include_usage": True, "include_obfuscation": False},
            "prompt_cache_key": "k",
            "user": "u",
            "parallel_tool_calls": False,
        }
    )
    assert (asked.model, asked.stream, asked.usage, asked.session, asked.user) == (
        MODEL,
        True,
        True,
        "k",
        "u",
    )
    assert asked.one_call


# ---- answers --------------------------------------------------------------------------------------------------------


def event(parts=(), finish=None, index=0, **more):
    content = {"content": {"role": "model", "parts": list(parts)}} if parts else {}
    candidate = {"index": index, **content, **({"finishReason": finish} if finish else {})}
    return {"candidates": [candidate], "modelVersion": MODEL, "responseId": "r", **more}


USAGE = {
    "promptTokenCount": 10,
    "toolUsePromptTokenCount": 1,
    "candidatesTokenCount": 3,
    "thoughtsTokenCount": 4,
    "cachedContentTokenCount": 5,
    "totalTokenCount": 18,
}
COUNTS = {
    "prompt_tokens": 11,
    "completion_tokens": 7,
    "total_tokens": 18,
    "prompt_tokens_details": {"cached_tokens": 5},
    "completion_tokens_details": {"reasoning_tokens": 4},
}
CALL = {"functionCall": {"name": "f", "args": {"a": 1}, "id": "x"}, "thoughtSignature": "sig"}


def asking(**fields):
    return request.translate({"model": "m", "messages": HELLO, **fields})


def ids():
    numbers = iter(range(1000))
    return lambda prefix: f"{prefix}{next(numbers)}"


def wholly(answer, **fields):
    raw = msgspec.json.encode(answer)
    return json.loads(whole(raw, asking(**fields), created=5.5, new_id=ids()))


def streamed(events, *, remember=None, **fields):
    """The chunks of a stream, the last words checked off."""
    chunks = Chunks(asking(stream=True, **fields), created=5.5, new_id=ids(), remember=remember)
    out = b"".join([chunks.start(), *(chunks.feed(msgspec.json.encode(e)) for e in events), chunks.end()])
    *found, done, empty = out.split(b"\n\n")
    assert (done, empty) == (b"data: [DONE]", b"")
    return [json.loads(chunk.removeprefix(b"data: ")) for chunk in found]


def joined(chunks):
    """What a client makes of the chunks: per choice its message and finish reason."""
    found = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            message = found.setdefault(
                choice["index"], {"content": "", "calls": {}, "thoughts": "", "finish": None}
            )
            assert message["finish"] is None, "something came after the finish"
            delta = choice["delta"]
            message["content"] += delta.get("content") or ""
            message["thoughts"] += delta.get("reasoning_content") or ""
            for call in delta.get("tool_calls", ()):
                message["calls"][call["index"]] = (call["function"]["name"], call["function"]["arguments"])
            message["finish"] = choice["finish_reason"]
    return found


def test_a_whole_answer():
    """Everything in its place."""
    parts = [{"text": "hm", "thought": True}, {"text": "hello", "thoughtSignature": "t"}, {"text": "!"}, CALL]
    answer = wholly(event(parts, "STOP", usageMetadata=USAGE))
    assert answer == {
        "id": "chatcmpl-r",
        "object": "chat.completion",
        "created": 5,
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "hello!",
                    "refusal": None,
                    "reasoning_content": "hm",
                    "extra_content": {"google": {"thought_signature": "t"}},
                    "tool_calls": [
                        {
                            "id": "call_0",
                            "type": "function",
                            "function": {"name": "f", "arguments": '{"a":1}'},
                            "extra_content": {"google": {"thought_signature": "sig"}},
                        }
                    ],
                },
                "logprobs": None,
                "finish_reason": "tool_calls",
            }
        ],
        "usage": COUNTS,
    }


@pytest.mark.parametrize(
    ("finish", "word"),
    [("STOP", "stop"), ("MAX_TOKENS", "length"), ("SAFETY", "content_filter"), ("RECITATION", "content_filter"),
     ("MALFORMED_FUNCTION_CALL", "content_filter"), ("OF_TOMORROW", "content_filter")],
)  # fmt: skip
def test_finish_reasons(finish, word):
    """Only STOP is a stop; Google's own word stands by whenever something was withheld."""
    native = finish if word == "content_filter" else None
    choice = wholly(event([{"text": "a"}], finish))["choices"][0]
    assert (choice["finish_reason"], choice.get("native_finish_reason")) == (word, native)
    last = streamed([event([{"text": "a"}]), event((), finish)])[-1]["choices"][0]
    assert (last["finish_reason"], last.get("native_finish_reason")) == (word, native)


def test_a_prompt_that_was_blocked():
    """An answer without candidates is a refusal, not an error and not an empty stop."""
    blocked = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 3}}
    choice = wholly(blocked)["choices"][0]
    assert choice["finish_reason"] == "content_filter"
    assert choice["native_finish_reason"] == "BLOCKED_SAFETY"
    assert "SAFETY" in choice["message"]["refusal"]
    assert choice["message"]["content"] is None
    first, last = streamed([blocked])
    assert "SAFETY" in first["choices"][0]["delta"]["refusal"]
    assert last["choices"][0]["finish_reason"] == "content_filter"


def test_chunks():
    """A role first, deltas, a finish of its own, and usage where it was asked for."""
    events = [
        event([{"text": "a", "thought": True}]),
        event([{"text": "b"}], usageMetadata=USAGE),
        event([CALL], "STOP"),
    ]
    known = {}
    chunks = streamed(events, remember=known.__setitem__, stream_options={"include_usage": True})
    assert chunks[0]["choices"][0]["delta"] == {
        "role": "assistant",
        "content": None,
        "reasoning_content": "a",
    }
    assert chunks[1]["choices"][0]["delta"] == {"content": "b"}
    assert chunks[2]["choices"][0]["delta"]["tool_calls"][0]["index"] == 0
    assert chunks[3]["choices"] == [
        {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "tool_calls"}
    ]
    assert chunks[4]["choices"] == []
    assert chunks[4]["usage"] == COUNTS
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert {chunk["id"] for chunk in chunks} == {"chatcmpl-r"}
    assert known == {"call_0": "sig"}


def test_no_usage_unasked():
    """A client that did not ask does not expect a chunk without choices."""
    assert all(
        "usage" not in c and c["choices"]
        for c in streamed([event([{"text": "a"}], "STOP", usageMetadata=USAGE)])
    )


def test_several_choices():
    """Each ends by itself; one without an end makes the stream a broken one."""
    events = [event([{"text": "a"}]), event([{"text": "b"}], "STOP", 1), event((), "MAX_TOKENS")]
    found = joined(streamed(events, n=2))
    assert {i: (m["content"], m["finish"]) for i, m in found.items()} == {
        0: ("a", "length"),
        1: ("b", "stop"),
    }
    with pytest.raises(PoolError) as caught:
        streamed(events[:2], n=2)
    assert caught.value.code == "stream_cut"


@pytest.mark.parametrize("events", [[], [event([{"text": "a"}])], [{"usageMetadata": USAGE}]])
def test_no_end_without_an_end(events):
    """Neither a finish nor [DONE] is ever made up."""
    with pytest.raises(PoolError, match="no end"):
        streamed(events)


@pytest.mark.parametrize("answer", [{}, event([{"text": "a"}]), {"candidates": []}])
def test_a_whole_answer_without_an_end_is_an_error(answer):
    """The same for whole answers."""
    with pytest.raises(PoolError) as caught:
        wholly(answer)
    assert caught.value.code == "upstream_error"


def test_what_is_no_answer():
    """JSON of another shape is an error of Google's side."""
    with pytest.raises(PoolError) as caught:
        wholly({"candidates": 5})
    assert caught.value.code == "upstream_error"


def test_one_call_at_a_time():
    """`parallel_tool_calls: false` gets the first call only: the model asks for the others again."""
    answer = event([CALL, {"functionCall": {"name": "g"}}], "STOP")
    assert len(wholly(answer)["choices"][0]["message"]["tool_calls"]) == 2
    assert len(wholly(answer, parallel_tool_calls=False)["choices"][0]["message"]["tool_calls"]) == 1
    found = joined(streamed([answer, answer], parallel_tool_calls=False))
    assert found[0]["calls"] == {0: ("f", '{"a":1}')}


def test_images_and_code():
    """Images as data: URLs beside the content; code that Google ran as text."""
    parts = [
        {"inlineData": {"mimeType": "image/png", "data": "AAAA"}},
        {"executableCode": {"language": "PYTHON", "code": "print(1)"}},
        {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}},
    ]
    message = wholly(event(parts, "STOP"))["choices"][0]["message"]
    assert message["images"][0]["image_url"] == {"url": "data:image/png;base64,AAAA"}
    assert "```python\nprint(1)\n```" in message["content"]
    assert "```\n1\n```" in message["content"]


def test_logprobs():
    """As OpenAI groups them, where they were asked for."""
    likely = {"token": "é", "tokenId": 5, "logProbability": -0.5}
    answer = event([{"text": "é"}], "STOP")
    answer["candidates"][0]["logprobsResult"] = {
        "chosenCandidates": [likely],
        "topCandidates": [{"candidates": [likely]}],
    }
    one = {"token": "é", "logprob": -0.5, "bytes": [0xC3, 0xA9]}
    told = {"content": [{**one, "top_logprobs": [one]}], "refusal": None}
    assert wholly(answer, logprobs=True)["choices"][0]["logprobs"] == told
    assert streamed([answer], logprobs=True)[0]["choices"][0]["logprobs"] == told
    assert wholly(answer)["choices"][0]["logprobs"] is None


# ---- properties -----------------------------------------------------------------------------------------------------

WORDS = st.text(min_size=1, max_size=12)
JSONS = st.dictionaries(
    st.text(max_size=4), st.one_of(st.integers(), st.text(max_size=5), st.none()), max_size=3
)


@st.composite
def conversations(draw):
    """Messages as clients write them: turns, calls and their results in any order."""
    messages = [{"role": "user", "content": draw(WORDS)}]
    for turn in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from(["user", "assistant", "system", "calls"]))
        if kind != "calls":
            messages.append(
                {"role": kind, "content": draw(st.one_of(WORDS, st.just([{"type": "text", "text": "é"}])))}
            )
            continue
        names = [f"c{turn}_{i}" for i in range(draw(st.integers(1, 3)))]
        calls = [
            {"id": name, "type": "function", "function": {"name": name, "arguments": json.dumps(draw(JSONS))}}
            for name in names
        ]
        messages.append({"role": "assistant", "content": draw(st.none() | WORDS), "tool_calls": calls})
        messages += [result(name, draw(WORDS)) for name in draw(st.permutations(names))]
    return messages


@given(conversations())
@settings(max_examples=150, deadline=None)
def test_nothing_of_a_conversation_is_lost(messages):
    """Every text, call and result is in the body, in order, and Google's reader takes all of it."""
    body = made(messages)
    parts = [part for content in body["contents"] for part in content["parts"]]
    said, system, calls = [], [], []
    for message in messages:
        content = message.get("content")
        text = content if isinstance(content, str) else content[0]["text"] if content else ""
        if message["role"] == "system":
            system.append(text)
        elif message["role"] != "tool" and text:
            said.append(text)
        calls += [
            (c["function"]["name"], json.loads(c["function"]["arguments"]))
            for c in message.get("tool_calls", ())
        ]
    assert [part["text"] for part in parts if "text" in part] == said
    assert [part["text"] for part in body.get("systemInstruction", {"parts": []})["parts"]] == system
    assert [
        (p["functionCall"]["name"], p["functionCall"]["args"]) for p in parts if "functionCall" in p
    ] == calls
    assert [p["functionResponse"]["name"] for p in parts if "functionResponse" in p] == [
        name for name, _ in calls
    ]
    for before, after in zip(body["contents"], body["contents"][1:], strict=False):
        if any("functionCall" in part for part in before["parts"]):
            assert all("functionResponse" in part for part in after["parts"])


PARTS = st.one_of(
    WORDS.map(lambda text: {"text": text}),
    WORDS.map(lambda text: {"text": text, "thought": True}),
    JSONS.map(lambda args: {"functionCall": {"name": "f", "args": args}}),
)


@given(st.lists(PARTS, min_size=1, max_size=8), st.data())
@settings(max_examples=150, deadline=None)
def test_wherever_an_answer_is_split(parts, data):
    """The chunks say together what the whole answer says, however Google cut it into events."""
    events, at = [], 0
    while at < len(parts):
        end = data.draw(st.integers(at + 1, len(parts)))
        events.append((parts[at:end], None))
        at = end
    if data.draw(st.booleans()):  # the finish comes alone
        events.append(((), "STOP"))
    else:
        events[-1] = (events[-1][0], "STOP")
    events = [event(*each) for each in events]
    message = wholly(event(parts, "STOP"))["choices"][0]["message"]
    found = joined(streamed(events))[0]
    assert found["content"] == (message["content"] or "")
    assert found["thoughts"] == message.get("reasoning_content", "")
    calls = [(c["function"]["name"], c["function"]["arguments"]) for c in message.get("tool_calls", ())]
    assert list(found["calls"].values()) == calls
    assert found["finish"] == ("tool_calls" if calls else "stop")


@given(conversations())
@settings(max_examples=60, deadline=None)
def test_there_and_back(messages):
    """What the model said comes back from its own answer as it was sent: calls, arguments, texts, signatures."""
    contents = [c for c in made(messages)["contents"] if c["role"] == "model"]
    for content in contents:
        known = {}
        answer = msgspec.json.encode(event(content["parts"], "STOP"))
        said = json.loads(whole(answer, asking(), created=0, new_id=ids(), remember=known.__setitem__))
        message = said["choices"][0]["message"]
        again = made([*HELLO, message])["contents"][1]
        texts = "".join(part.get("text", "") for part in content["parts"])
        calls = [part for part in content["parts"] if "functionCall" in part]
        assert again["parts"] == ([{"text": texts}] if texts else []) + calls
