"""LangChain: its model for Gemini, talking to the gateway over its Unix socket.

chat = pooled_chat("gemini-3.5-flash")
chat.invoke("Hello!").text
"""

from __future__ import annotations

import os
from typing import Any

import httpx
from langchain_google_genai import ChatGoogleGenerativeAI

from gemini_pool.adapters import BASE_URL, gateway_socket

_LONG = httpx.Timeout(None, connect=10.0)  # the gateway has the deadlines


class _Transport(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """The socket for both of httpx' clients: LangChain gives the same arguments to the blocking and the asyncio one."""

    def __init__(self, socket: str) -> None:
        self._blocking = httpx.HTTPTransport(uds=socket)
        self._awaiting = httpx.AsyncHTTPTransport(uds=socket)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._blocking.handle_request(request)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._awaiting.handle_async_request(request)

    def close(self) -> None:
        self._blocking.close()

    async def aclose(self) -> None:
        await self._awaiting.aclose()


def pooled_chat(
    model: str, socket: str | os.PathLike[str] | None = None, **options: Any
) -> ChatGoogleGenerativeAI:
    """A `ChatGoogleGenerativeAI`, which has no key and uses no port. `options` go to it."""
    given = {
        "base_url": BASE_URL,
        # LangChain wants a key and sends it; on the Unix socket nobody looks at it.
        "api_key": "gemini-pool",
        "vertexai": False,
        "max_retries": 1,  # the pool has tried already
        "client_args": {"transport": _Transport(gateway_socket(socket)), "timeout": _LONG},
    }
    return ChatGoogleGenerativeAI(model=model, **{**given, **options})
