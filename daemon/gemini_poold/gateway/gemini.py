"""The Gemini API under /v1beta, /v1 and /v1alpha: bodies in Google's own form, handed on as bytes.

A body is decoded only where an alias changed the model and the body names it, too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs

import msgspec
from aiohttp import web

from gemini_pool.errors import PoolError

from ..errors import UNREADABLE
from ..runtime.dispatch import Call
from . import relay
from .exchange import Exchange

Model = Mapping[str, Any]
_PAGE, _MAX_PAGE = 50, 1000


async def unary(exchange: Exchange) -> web.StreamResponse:
    """generateContent and everything else that answers once."""
    return await relay.unary(exchange, await _call(exchange))


async def stream(exchange: Exchange) -> web.StreamResponse:
    return await relay.stream(exchange, await _call(exchange))


async def _call(exchange: Exchange) -> Call:
    """The call for a body that goes on as it came, from the disk where it is large."""
    target = exchange.target
    body = await exchange.read_body(may_spool=True)
    if exchange.large is not None and exchange.wants_thinking(exchange.large):
        body = await exchange.in_memory()
    return exchange.call(target.method, target.model, body)


async def naming(exchange: Exchange) -> web.StreamResponse:
    """Calls whose body may name the model again: Google refuses one that differs from the path's."""
    return await relay.unary(exchange, named(exchange, exchange.target.method, await exchange.read_body()))


def named(exchange: Exchange, method: str, body: bytes) -> Call:
    """The call, with the model in its body as it is in the call."""
    model = exchange.target.model
    call = exchange.call(method, model, body)
    if call.model != model.removeprefix("models/"):
        call.body = rename(body, f"models/{call.model}")
    return call


def rename(body: bytes, name: str) -> bytes:
    """`body` with every `model` of embedContent, batchEmbedContents and countTokens set to `name`."""
    try:
        value: Any = msgspec.json.decode(body)
    except UNREADABLE:
        return body  # Google's to refuse
    if not isinstance(value, dict):
        return body
    inner = [value, value.get("generateContentRequest"), *_list(value.get("requests"))]
    for holder in inner:
        if isinstance(holder, dict) and "model" in holder:
            holder["model"] = name
    return msgspec.json.encode(value)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


HANDLERS: Mapping[str, Callable[[Exchange], Awaitable[web.StreamResponse]]] = {
    "generateContent": unary,
    "streamGenerateContent": stream,
    "countTokens": naming,
    "embedContent": naming,
}


async def list_models(exchange: Exchange) -> web.StreamResponse:
    """The models of the whole pool."""
    models = await exchange.services.models.models()
    shown, token = page(models, exchange.request.query_string)
    answer: dict[str, Any] = {"models": shown}
    if token:
        answer["nextPageToken"] = token
    return relay.json_answer(exchange, msgspec.json.encode(answer))


async def get_model(exchange: Exchange) -> web.StreamResponse:
    return relay.json_answer(exchange, msgspec.json.encode(await find_model(exchange)))


async def find_model(exchange: Exchange) -> Model:
    """The entry of the target's model, an alias resolved; `unknown_model` when no account lists it."""
    name = exchange.target.model.removeprefix("models/")
    name = exchange.services.settings.aliases.get(name, name)
    for model in await exchange.services.models.models():
        if model["name"] == f"models/{name}":
            return model
    raise PoolError("unknown_model", f"no account of the pool lists a model {name}")


def page(models: Sequence[Model], query: str) -> tuple[Sequence[Model], str]:
    """One page of `models` as `pageSize` and `pageToken` ask, and the next page's token ("" at the end)."""
    fields = parse_qs(query)
    size = _int(fields, "pageSize", _PAGE) or _PAGE
    start = _int(fields, "pageToken", 0)
    end = start + min(size, _MAX_PAGE)
    return models[start:end], str(end) if end < len(models) else ""


def _int(fields: Mapping[str, list[str]], name: str, default: int) -> int:
    text = next(iter(fields.get(name, ())), "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit()) or len(text) > 9:
        raise PoolError("bad_request", f"{name} must be a number")
    return int(text)
