"""The real openai SDK for Python, unmodified: chat, responses, embeddings and models, whole and as streams."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.clients.conftest import MODEL, Stage
from tests.clients.installed import unavailable

from gemini_poold.fake import Fault, Match

# What a foreign package deprecates of Python's is its own business.
pytestmark = pytest.mark.filterwarnings("default")
HELLO: list[Any] = [{"role": "user", "content": "hello"}]
CALLING: list[Any] = [{"role": "user", "content": "[[call=weather]] hello"}]
PARAMETERS = {"type": "object", "properties": {"town": {"type": "string"}}}
WEATHER: Any = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}
PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="


@pytest.fixture
def client(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client as a user would make it: by the two environment variables."""
    try:
        import openai
    except ImportError:
        unavailable("openai is not installed")
    monkeypatch.setenv("OPENAI_API_KEY", stage.daemon.key)
    monkeypatch.setenv("OPENAI_BASE_URL", f"{stage.url}/v1")
    with openai.OpenAI() as made:
        yield made


def assert_served(text: str | None, account: str = "cool") -> None:
    assert text is not None
    assert text.startswith(f"{account} (")
    assert text.endswith("you said: hello")


def test_chat(stage: Stage, client: Any) -> None:
    """A whole answer with its counts, though the preferred account is refused."""
    answer = client.chat.completions.create(model=MODEL, messages=HELLO)
    assert_served(answer.choices[0].message.content)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    stage.assert_rotated("hot")


def test_stream(stage: Stage, client: Any) -> None:
    """Every chunk, the finish reason, and the counts where they are asked for."""
    chunks = list(
        client.chat.completions.create(
            model=MODEL, messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
    )
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert len(list(filter(None, texts))) > 1
    assert_served("".join(texts))
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].usage.total_tokens > 0
    stage.assert_rotated("hot")


def test_asyncio(stage: Stage, client: Any) -> None:
    """The same through its asyncio face."""
    import openai

    async def streamed() -> str:
        async with openai.AsyncOpenAI() as other:
            stream = await other.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert_served(asyncio.run(streamed()))
    stage.assert_rotated("hot")


def test_another_backend(stage: Stage, client: Any) -> None:
    """Both keys refuse: the Code Assist account answers in OpenAI's form."""
    stage.refuse("cool")
    answer = client.chat.completions.create(model=MODEL, messages=HELLO)
    assert_served(answer.choices[0].message.content, "alice")
    stage.assert_rotated("hot", "cool")


def test_a_tool_call_and_its_result(stage: Stage, client: Any) -> None:
    """The call comes, and with its result the next answer; the signature goes back to Google where it came from."""
    answer = client.chat.completions.create(model=MODEL, messages=CALLING, tools=[WEATHER])
    message = answer.choices[0].message
    assert answer.choices[0].finish_reason == "tool_calls"
    assert message.tool_calls[0].function.name == "weather"
    history = [
        *CALLING,
        message,
        {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": '{"sky": "blue"}'},
        *HELLO,
    ]
    answer = client.chat.completions.create(model=MODEL, messages=history, tools=[WEATHER])
    assert_served(answer.choices[0].message.content)
    sent = json.loads(stage.google.record.find(kind="generate", credential="cool")[-1].body)
    call, result = sent["contents"][1]["parts"][0], sent["contents"][2]["parts"][0]
    assert call["thoughtSignature"] == message.tool_calls[0].extra_content["google"]["thought_signature"]
    assert result["functionResponse"] == {"name": "weather", "response": {"sky": "blue"}}


def test_a_streamed_tool_call(stage: Stage, client: Any) -> None:
    """The SDK's own accumulator puts the call together."""
    with client.chat.completions.stream(model=MODEL, messages=CALLING, tools=[WEATHER]) as stream:
        for _ in stream:
            pass
        choice = stream.get_final_completion().choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls[0].function.name == "weather"
    assert choice.message.tool_calls[0].function.arguments == "{}"
    stage.assert_rotated("hot")


def test_an_image_and_json_mode(stage: Stage, client: Any) -> None:
    """A data: URL becomes inlineData, a schema the answer's."""
    parts = [{"type": "text", "text": "hello"}, {"type": "image_url", "image_url": {"url": PIXEL}}]
    form: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": PARAMETERS, "strict": True}}
    client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": parts}], response_format=form
    )
    sent = json.loads(stage.google.record.find(kind="generate", credential="cool")[-1].body)
    assert sent["contents"][0]["parts"][1]["inlineData"]["mimeType"] == "image/png"
    assert sent["generationConfig"]["responseJsonSchema"] == PARAMETERS


def test_googles_own_extra_body(stage: Stage, client: Any) -> None:
    """`extra_body` as Google's own page shows it."""
    google = {"thinking_config": {"thinking_budget": 64, "include_thoughts": True}}
    client.chat.completions.create(model=MODEL, messages=HELLO, extra_body={"extra_body": {"google": google}})
    sent = json.loads(stage.google.record.find(kind="generate", credential="cool")[-1].body)
    assert sent["generationConfig"]["thinkingConfig"] == {"thinkingBudget": 64, "includeThoughts": True}


def test_responses(stage: Stage, client: Any) -> None:
    """The Responses API, whole."""
    answer = client.responses.create(model=MODEL, input="hello", instructions="be brief")
    assert_served(answer.output_text)
    assert answer.status == "completed"
    assert answer.usage.total_tokens > 0
    stage.assert_rotated("hot")


def test_a_response_stream(stage: Stage, client: Any) -> None:
    """Its events, in order, and the Response at the end; plain and through the SDK's accumulator."""
    events = list(client.responses.create(model=MODEL, input="hello", stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"
    assert_served("".join(event.delta for event in events if event.type == "response.output_text.delta"))
    assert_served(events[-1].response.output_text)
    with client.responses.stream(model=MODEL, input="hello") as stream:
        for _ in stream:
            pass
        assert_served(stream.get_final_response().output_text)
    stage.assert_rotated("hot")


def test_a_response_with_a_tool(stage: Stage, client: Any) -> None:
    """A function call and its output, the items handed back as they came."""
    tool: Any = {"type": "function", "name": "weather", "parameters": PARAMETERS, "strict": False}
    with client.responses.stream(model=MODEL, input=CALLING, tools=[tool]) as stream:
        for _ in stream:
            pass
        answer = stream.get_final_response()
    (call,) = answer.output
    assert (call.type, call.name, call.arguments) == ("function_call", "weather", "{}")
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "blue"}
    history = [*CALLING, *answer.output, result, *HELLO]
    assert_served(client.responses.create(model=MODEL, input=history, tools=[tool]).output_text)


def test_embeddings(stage: Stage, client: Any) -> None:
    """One and several, as the SDK asks by itself (base64) and as floats."""
    one = client.embeddings.create(model="gemini-embedding-001", input="hello", dimensions=8)
    same = client.embeddings.create(
        model="gemini-embedding-001", input=["hello", "you"], dimensions=8, encoding_format="float"
    )
    assert len(one.data[0].embedding) == 8
    assert one.data[0].embedding == pytest.approx(same.data[0].embedding, rel=1e-6)
    assert [item.index for item in same.data] == [0, 1]
    assert same.data[0].embedding != same.data[1].embedding


def test_models(stage: Stage, client: Any) -> None:
    """The list and one of it, on both base URLs; what there is not is told."""
    import openai

    assert MODEL in {model.id for model in client.models.list()}
    assert client.models.retrieve(MODEL).id == MODEL
    other = client.with_options(base_url=f"{stage.url}/v1beta/openai")
    assert MODEL in {model.id for model in other.models.list()}
    with pytest.raises(openai.NotFoundError, match="no account of the pool lists"):
        client.models.retrieve("gpt-4o")


def test_everybody_refuses(stage: Stage, client: Any) -> None:
    """Only when nobody is left does the SDK see the 429, and it says who returns when."""
    import openai

    for account in ("cool", "alice"):
        stage.refuse(account)
    with pytest.raises(openai.RateLimitError, match="returns first") as caught:
        client.with_options(max_retries=0).chat.completions.create(
            model=MODEL, messages=HELLO, extra_headers={"x-gemini-pool-wait-s": "0"}
        )
    assert caught.value.code == "all_cooling_down"
    assert int(caught.value.response.headers["retry-after-ms"]) > 0


@pytest.mark.parametrize(
    "cut", [Fault.cut(2), Fault.cut(2, "clean"), Fault.no_finish(), Fault.error_event(2)]
)
@pytest.mark.parametrize("api", ["chat", "responses"])
def test_a_cut_stream_is_an_error(stage: Stage, client: Any, cut: Fault, api: str) -> None:
    """A stream that Google breaks in the middle raises, however it broke; it is never taken for a whole answer."""
    # Told to take its time, or all of it comes at once, and an error in front of the first byte is absorbed.
    slow = "[[chunks=4 pace=0.05]] hello"
    stage.google.faults.add(cut, when=Match(kind="stream", credential="cool"), times=None)
    if api == "chat":
        messages: Any = [{"role": "user", "content": slow}]
        stream = client.chat.completions.create(model=MODEL, messages=messages, stream=True)
    else:
        stream = client.responses.create(model=MODEL, input=slow, stream=True)
    seen: list[Any] = []
    with pytest.raises(Exception) as caught:
        for event in stream:
            seen.append(event)
    assert seen
    assert not isinstance(caught.value, AssertionError)


def test_what_cannot_be_carried_is_refused(stage: Stage, client: Any) -> None:
    """A parameter that Gemini has no place for is a 400 with the reason."""
    import openai

    with pytest.raises(openai.BadRequestError, match="logit_bias"):
        client.chat.completions.create(model=MODEL, messages=HELLO, logit_bias={"50256": -100})
    with pytest.raises(openai.BadRequestError, match="not kept"):
        client.responses.create(model=MODEL, input="hello", previous_response_id="resp_1")
