"""LiteLLM: its Gemini provider, talking to the gateway over its Unix socket.

litellm.completion(model="gemini/gemini-3.5-flash", messages=messages, **pooled())
await litellm.acompletion(model="gemini/gemini-3.5-flash", messages=messages, **async_pooled())
"""

from __future__ import annotations

import os
from typing import Any

import httpx
from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler, HTTPHandler

from gemini_pool.adapters import BASE_URL, gateway_socket

_LONG = httpx.Timeout(None, connect=10.0)  # the gateway has the deadlines


def pooled(socket: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """Arguments for `litellm.completion` and its like with a model called `gemini/…`. Make them once and keep them: they
    hold the connections."""
    client = httpx.Client(transport=httpx.HTTPTransport(uds=gateway_socket(socket)), timeout=_LONG)
    return {**_way(), "client": HTTPHandler(client=client)}


def async_pooled(socket: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """The same for `litellm.acompletion` and its like, within one event loop."""
    handler = AsyncHTTPHandler()
    transport = httpx.AsyncHTTPTransport(uds=gateway_socket(socket))
    handler.client = httpx.AsyncClient(transport=transport, timeout=_LONG)
    return {**_way(), "client": handler}


def _way() -> dict[str, Any]:
    # LiteLLM wants a key and sends it; on the Unix socket nobody looks at it.
    return {"api_base": f"{BASE_URL}/v1beta", "api_key": "gemini-pool"}
