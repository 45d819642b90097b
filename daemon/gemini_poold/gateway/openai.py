"""OpenAI's chat completions, responses, embeddings and models over the pool, under /v1 and /v1beta/openai.

What the bodies mean is `dialects`' business; here they meet the dispatcher. Every backend serves them: a body becomes
the Gemini API's first, and that backend's afterwards.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web

from gemini_pool.errors import PoolError

from ..dialects import (
    openai_chat_answer,
    openai_chat_request,
    openai_embeddings,
    openai_responses_answer,
    openai_responses_request,
    reading,
)
from ..runtime.dispatch import Answer, Call
from . import embedding, gemini, relay
from .auth import presented_key
from .errors import Shape
from .exchange import SESSION_HEADERS, Exchange

GENERATE, STREAM = "generateContent", "streamGenerateContent"


async def chat(exchange: Exchange) -> web.StreamResponse:
    """`POST chat/completions`."""
    signatures = exchange.services.signatures
    asked = openai_chat_request.translate(await _body(exchange), signatures.of)
    call = _generating(exchange, asked)
    how = _how(exchange)
    if asked.stream:
        return await relay.stream(exchange, call, openai_chat_answer.Chunks(asked, **how))
    answer = await exchange.services.dispatcher.unary(call)
    if answer.status == 200:
        answer.body = openai_chat_answer.whole(answer.body, asked, **how)
    return relay.of_answer(exchange, answer)


async def responses(exchange: Exchange) -> web.StreamResponse:
    """`POST responses`."""
    asked = openai_responses_request.translate(await _body(exchange), exchange.services.signatures.of)
    call = _generating(exchange, asked.chat)
    how = _how(exchange)
    if asked.chat.stream:
        return await relay.stream(exchange, call, openai_responses_answer.Events(asked, **how))
    answer = await exchange.services.dispatcher.unary(call)
    if answer.status == 200:
        answer.body = openai_responses_answer.whole(answer.body, asked, **how)
    return relay.of_answer(exchange, answer)


async def embeddings(exchange: Exchange) -> web.StreamResponse:
    """`POST embeddings`: one call for all inputs; one for each where no account takes them at once."""
    asked = openai_embeddings.translate(await _body(exchange))
    many = len(asked.inputs) > 1
    try:
        answer = await _embed(exchange, asked, asked.inputs)
    except PoolError as error:
        if not many or error.code not in embedding.NOT_AT_ONCE:
            raise
        answers = await embedding.each(asked.inputs, lambda text: _embed(exchange, asked, [text]))
        answer = next((found for found in answers if found.status != 200), answers[0])
        vectors = [_vectors(found, many=False) for found in answers if found.status == 200]
        found = [vector for one in vectors for vector in one]
        tokens = sum(_tokens(one) for one in answers)
    else:
        found = _vectors(answer, many=many) if answer.status == 200 else []
        tokens = _tokens(answer)
    if answer.status == 200:
        answer.body = openai_embeddings.answer(found, asked, model=exchange.model, tokens=tokens)
    return relay.of_answer(exchange, answer)


async def list_models(exchange: Exchange) -> web.StreamResponse:
    """`GET models`: the models of the whole pool."""
    exchange.shape = Shape.OPENAI
    models = await exchange.services.models.models()
    return _json(exchange, {"object": "list", "data": [_model(model) for model in models]})


async def get_model(exchange: Exchange) -> web.StreamResponse:
    """`GET models/{id}`."""
    exchange.shape = Shape.OPENAI
    found = await gemini.find_model(exchange)
    return _json(
        exchange, _model({**found, "name": exchange.target.model})
    )  # an alias keeps its name, as in the list


def asked_by_bearer(exchange: Exchange) -> bool:
    """Whether `/v1/models`, which two families ask for, is asked as OpenAI's: only a Bearer means that."""
    request = exchange.request
    target = exchange.target
    if (target.method, target.version) != ("models", "v1") or request.headers.get("x-goog-api-key"):
        return False
    bearer = request.headers.get("Authorization", "").lower().startswith("bearer ")
    return bearer and presented_key(request.headers, "") is not None


# ---- the way there ----------------------------------------------------------------------------------------------------


async def _body(exchange: Exchange) -> reading.Json:
    """The decoded body, an alias resolved: how a model thinks depends on which it is."""
    body = reading.decode(await exchange.read_body())
    name = body.get("model")
    if isinstance(name, str):
        name = name.removeprefix("models/")
        body["model"] = exchange.services.settings.aliases.get(name, name)
    return body


def _generating(exchange: Exchange, asked: openai_chat_request.Asked) -> Call:
    session = asked.session or _user(exchange, asked.user)
    body = msgspec.json.encode(asked.body)
    return _call(exchange, STREAM if asked.stream else GENERATE, asked.model, body, session)


def _user(exchange: Exchange, user: str) -> str:
    """A user is a poor name for a conversation: only where no header has a better one."""
    headers = exchange.request.headers
    return "" if any(headers.get(name) for name in SESSION_HEADERS) else user


def _call(exchange: Exchange, method: str, model: str, body: bytes, session: str) -> Call:
    call = exchange.call(method, model, body, session=session)
    call.surface, call.version = "gl", "v1beta"
    return call


def _how(exchange: Exchange) -> dict[str, Any]:
    services = exchange.services
    return {"created": services.clock.now(), "new_id": _new_id, "remember": services.signatures.keep}


def _new_id(prefix: str) -> str:
    return prefix + secrets.token_hex(12)


async def _embed(exchange: Exchange, asked: openai_embeddings.Asked, inputs: list[str]) -> Answer:
    many = len(inputs) > 1
    call = _call(exchange, "batchEmbedContents" if many else "embedContent", asked.model, b"", asked.user)
    body = asked.batch(call.model) if many else asked.single(inputs[0], call.model)
    call.body = msgspec.json.encode(body)
    return await exchange.services.dispatcher.unary(call)


def _vectors(answer: Answer, *, many: bool) -> list[list[float]]:
    return openai_embeddings.vectors(answer.body, many=many)


def _tokens(answer: Answer) -> int:
    return answer.usage.input_tokens if answer.usage is not None else 0


# ---- models -------------------------------------------------------------------------------------------------------------


def _model(model: gemini.Model) -> dict[str, Any]:
    name = str(model["name"]).removeprefix("models/")
    return {"id": name, "object": "model", "created": 0, "owned_by": "google"}


def _json(exchange: Exchange, value: Mapping[str, Any]) -> web.Response:
    return relay.json_answer(exchange, msgspec.json.encode(value))
