"""The real google-genai SDK for Python, unmodified: blocking and asyncio, whole answers and streams."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from tests.clients.conftest import MODEL, Stage
from tests.clients.installed import unavailable

# What a foreign package deprecates of Python's is its own business.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
def client(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client as a user would make it: by the two environment variables."""
    try:
        from google import genai
    except ImportError:
        unavailable("google-genai is not installed")
    for name in ("GOOGLE_API_KEY", "GOOGLE_GENAI_USE_VERTEXAI", "GOOGLE_GENAI_USE_ENTERPRISE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GEMINI_API_KEY", stage.daemon.key)
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", stage.url)
    made = genai.Client()
    yield made
    made.close()


def assert_served(text: str, account: str = "cool") -> None:
    assert text.startswith(f"{account} (")
    assert text.endswith("you said: hello")


def test_generate(stage: Stage, client: Any) -> None:
    """A whole answer, though the preferred account is refused."""
    answer = client.models.generate_content(model=MODEL, contents="hello")
    assert_served(answer.text)
    assert answer.usage_metadata.total_token_count > 0
    stage.assert_rotated("hot")


def test_stream(stage: Stage, client: Any) -> None:
    """Every chunk, and the finish reason at the end."""
    chunks = list(client.models.generate_content_stream(model=MODEL, contents="hello"))
    assert len(chunks) > 1
    assert_served("".join(chunk.text for chunk in chunks))
    assert chunks[-1].candidates[0].finish_reason == "STOP"
    stage.assert_rotated("hot")


def test_asyncio(stage: Stage, client: Any) -> None:
    """The same through its asyncio face."""

    async def both() -> tuple[str, str]:
        whole = await client.aio.models.generate_content(model=MODEL, contents="hello")
        streamed = ""
        async for chunk in await client.aio.models.generate_content_stream(model=MODEL, contents="hello"):
            streamed += chunk.text
        await client.aio.aclose()
        return whole.text, streamed

    whole, streamed = asyncio.run(both())
    assert_served(whole)
    assert_served(streamed)
    stage.assert_rotated("hot")


def test_another_backend(stage: Stage, client: Any) -> None:
    """Both keys refuse: the Code Assist account answers in the Gemini API's form."""
    stage.refuse("cool")
    assert_served(client.models.generate_content(model=MODEL, contents="hello").text, "alice")
    text = "".join(
        chunk.text for chunk in client.models.generate_content_stream(model=MODEL, contents="hello")
    )
    assert_served(text, "alice")
    stage.assert_rotated("hot", "cool")


@pytest.mark.parametrize("account", ["cool", "alice"])
def test_tool_call(stage: Stage, client: Any, account: str) -> None:
    """A Python function as a tool: the SDK runs what the model calls, and the model answers; on either backend."""
    from google.genai import types

    if account == "alice":
        stage.refuse("cool")
    asked = []

    def weather() -> str:
        """The weather."""
        asked.append(True)
        return "sunny"

    answer = client.models.generate_content(
        model=MODEL, contents="[[call=weather]] hello", config=types.GenerateContentConfig(tools=[weather])
    )
    assert asked == [True]
    assert answer.text.startswith(f"{account} (")
    last = stage.bodies()[-1]
    assert "sunny" in last
    assert "thoughtSignature" in last
    stage.assert_rotated("hot")


def test_count_and_models(stage: Stage, client: Any) -> None:
    """Counting tokens and listing models."""
    assert client.models.count_tokens(model=MODEL, contents="hello").total_tokens > 0
    assert f"models/{MODEL}" in {model.name for model in client.models.list()}
    assert client.models.get(model=MODEL).name == f"models/{MODEL}"


@pytest.fixture
def vertex(stage: Stage, client: Any) -> Iterator[Any]:
    """The same SDK in Vertex mode with a key: Vertex's paths, without project and location."""
    from google import genai
    from google.genai import types

    options = types.HttpOptions(base_url=stage.url)
    made = genai.Client(vertexai=True, api_key=stage.daemon.key, http_options=options)
    yield made
    made.close()


def test_vertex_express(stage: Stage, vertex: Any) -> None:
    """Whole, streamed to its finish, and with a Python function that the model calls."""
    from google.genai import types

    asked = []

    def weather() -> str:
        """The weather."""
        asked.append(True)
        return "sunny"

    assert_served(vertex.models.generate_content(model=MODEL, contents="hello").text)
    chunks = list(vertex.models.generate_content_stream(model=MODEL, contents="hello"))
    assert len(chunks) > 1
    assert_served("".join(chunk.text for chunk in chunks))
    assert chunks[-1].candidates[0].finish_reason == "STOP"
    config = types.GenerateContentConfig(tools=[weather])
    assert vertex.models.generate_content(model=MODEL, contents="[[call=weather]] hello", config=config).text
    assert asked == [True]
    assert "sunny" in stage.bodies()[-1]
    stage.assert_rotated("hot")


def test_everybody_refuses(stage: Stage, client: Any) -> None:
    """Only when nobody is left does the SDK see the 429, and it says who returns when."""
    from google.genai import errors, types

    for account in ("cool", "alice"):
        stage.refuse(account)
    config = types.GenerateContentConfig(
        http_options=types.HttpOptions(headers={"x-gemini-pool-wait-s": "0"})
    )
    with pytest.raises(errors.ClientError) as caught:
        client.models.generate_content(model=MODEL, contents="hello", config=config)
    assert caught.value.code == 429
    assert "returns first" in str(caught.value)
    assert "RetryInfo" in str(caught.value.details)


@pytest.mark.parametrize("mode", ["client", "vertex"])
def test_a_cut_stream_is_an_error(stage: Stage, request: pytest.FixtureRequest, mode: str) -> None:
    """A stream that Google breaks in the middle raises; it is never taken for a whole answer."""
    from gemini_poold.fake import Fault, Match

    made = request.getfixturevalue(mode)
    stage.google.faults.add(Fault.cut(2), when=Match(kind="stream", credential="cool"), times=None)
    texts = []
    with pytest.raises(Exception) as caught:
        for chunk in made.models.generate_content_stream(model=MODEL, contents="hello"):
            texts.append(chunk.text)
    assert texts
    assert not isinstance(caught.value, AssertionError)
