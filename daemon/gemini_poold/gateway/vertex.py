"""Vertex under /v1 and /v1beta1: `[projects/{p}/locations/{l}/]publishers/google/models/{m}:…`.

The project and location in the path are the client's idea; the account that serves brings its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from aiohttp import web

from . import gemini, relay
from .exchange import Exchange

HANDLERS: Mapping[str, Callable[[Exchange], Awaitable[web.StreamResponse]]] = {
    "generateContent": gemini.unary,
    "streamGenerateContent": gemini.stream,
    "countTokens": gemini.unary,
    "embedContent": gemini.unary,
}


async def list_models(exchange: Exchange) -> web.StreamResponse:
    models = await exchange.services.models.models()
    shown, token = gemini.page(models, exchange.request.query_string)
    answer: dict[str, Any] = {"publisherModels": [as_publisher_model(model) for model in shown]}
    if token:
        answer["nextPageToken"] = token
    return relay.json_answer(exchange, msgspec.json.encode(answer))


async def get_model(exchange: Exchange) -> web.StreamResponse:
    model = await gemini.find_model(exchange)
    return relay.json_answer(exchange, msgspec.json.encode(as_publisher_model(model)))


def as_publisher_model(model: gemini.Model) -> dict[str, Any]:
    return {"name": f"publishers/google/{model['name']}", "versionId": model.get("version") or "default"}
