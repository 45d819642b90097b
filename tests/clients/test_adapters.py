"""The adapters for httpx and google-genai with the real libraries, over the gateway's Unix socket."""

from __future__ import annotations

import asyncio
import importlib
from typing import Any

import pytest
from tests.clients.conftest import MODEL, Stage
from tests.clients.installed import unavailable

from gemini_pool import AsyncPool, Pool

PROMPT = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}
# What a foreign package deprecates of Python's is its own business.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(autouse=True)
def _places(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_POOL_SOCKET", str(stage.daemon.socket))


def adapter(name: str) -> Any:
    try:
        return importlib.import_module(f"gemini_pool.adapters.{name}")
    except ImportError as error:
        unavailable(f"{error.name} is not installed")


def test_httpx_transport(stage: Stage) -> None:
    """httpx.Client over the socket: no key, no port, and the refusal is absorbed."""
    found = adapter("httpx")
    with found.httpx.Client(base_url=found.BASE_URL, transport=found.transport()) as client:
        answer = client.post(f"/v1beta/models/{MODEL}:generateContent", json=PROMPT)
    assert answer.status_code == 200
    assert answer.headers["x-gemini-pool-account"] == "cool"
    stage.assert_rotated("hot")


def test_httpx_async_transport(stage: Stage) -> None:
    """httpx.AsyncClient likewise, streaming."""
    found = adapter("httpx")

    async def ask() -> list[str]:
        client = found.httpx.AsyncClient(base_url=found.BASE_URL, transport=found.async_transport())
        path = f"/v1beta/models/{MODEL}:streamGenerateContent?alt=sse"
        async with client, client.stream("POST", path, json=PROMPT) as answer:
            return [line async for line in answer.aiter_lines() if line]

    assert len(asyncio.run(ask())) > 1
    stage.assert_rotated("hot")


def test_httpx_auth(stage: Stage) -> None:
    """PoolAuth signs with the pool's token, blocking and asyncio; after a 401 it asks once more."""
    found = adapter("httpx")
    seen: list[str] = []

    def google(request: Any) -> Any:
        seen.append(request.headers["authorization"])
        return found.httpx.Response(401 if len(seen) in (1, 3) else 200)

    with Pool() as pool:
        with found.httpx.Client(
            auth=found.PoolAuth(pool, "work"), transport=found.httpx.MockTransport(google)
        ) as c:
            assert c.get("http://google.invalid/").status_code == 200
        token = f"Bearer {pool.token('work').token}"

    async def ask() -> int:
        async with AsyncPool() as pool:
            auth = found.PoolAuth(pool, "work")
            async with found.httpx.AsyncClient(auth=auth, transport=found.httpx.MockTransport(google)) as c:
                return (await c.get("http://google.invalid/")).status_code

    assert asyncio.run(ask()) == 200
    assert seen == [token] * 4


def test_genai(stage: Stage) -> None:
    """A google.genai client made by the factory: whole, streamed, and asyncio."""
    client = adapter("genai").pooled_client()
    assert client.models.generate_content(model=MODEL, contents="hello").text.endswith("you said: hello")
    chunks = list(client.models.generate_content_stream(model=MODEL, contents="hello"))
    assert len(chunks) > 1

    async def ask() -> str:
        async with client.aio as face:
            return (await face.models.generate_content(model=MODEL, contents="hello")).text

    assert asyncio.run(ask()).startswith("cool (")
    client.close()
    assert client._api_client._httpx_client.is_closed  # none that nobody could close
    stage.assert_rotated("hot")
