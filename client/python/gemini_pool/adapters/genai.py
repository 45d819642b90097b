"""google-genai: the SDK's client, talking to the gateway over its Unix socket.

client = pooled_client()
client.models.generate_content(model="gemini-3.5-flash", contents="Hello!")
"""

from __future__ import annotations

import os
from typing import Any

import httpx
from google import genai
from google.genai import types

from gemini_pool.adapters import BASE_URL, gateway_socket

_LONG = httpx.Timeout(None, connect=10.0)  # the gateway has the deadlines


def pooled_client(socket: str | os.PathLike[str] | None = None, **options: Any) -> genai.Client:
    """A `google.genai.Client`, blocking and `.aio`. `options` go to it; it needs no key, and no port is used."""
    path = gateway_socket(socket)
    http = types.HttpOptions(
        base_url=BASE_URL,
        # Clients of the SDK's own making: those that it is given it leaves open when it is closed.
        client_args={"transport": httpx.HTTPTransport(uds=path), "timeout": _LONG},
        async_client_args={"transport": httpx.AsyncHTTPTransport(uds=path), "timeout": _LONG},
    )
    # The SDK wants a key and sends it; on the Unix socket nobody looks at it. Naming the backend keeps the SDK's own
    # environment variables out of it.
    return genai.Client(**{"api_key": "gemini-pool", "vertexai": False, "http_options": http, **options})
