"""Embeddings of several texts where no account takes them at once: one call for each, a few side by side.

Vertex has no batchEmbedContents. What an input and an answer look like is the surface's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from gemini_pool.errors import PoolError

from ..errors import UNREADABLE
from ..runtime.dispatch import Answer
from . import gemini, relay
from .exchange import Exchange

AT_ONCE = 4
NOT_AT_ONCE = frozenset(
    {"no_account_for_model", "bad_request"}
)  # what a batch is refused with where there is none

Input = TypeVar("Input")


async def each(inputs: Sequence[Input], ask: Callable[[Input], Awaitable[Answer]]) -> list[Answer]:
    """`ask` for every input, in their order. Raises the first PoolError."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(value: Input) -> Answer:
        async with gate:
            return await ask(value)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(value)) for value in inputs]
    except* PoolError as errors:
        raise _first(errors) from None
    return [task.result() for task in tasks]


def _first(errors: BaseExceptionGroup[PoolError]) -> PoolError:
    found = errors.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found


async def batch(exchange: Exchange) -> web.StreamResponse:
    """The Gemini API's batchEmbedContents."""
    body = await exchange.read_body()
    target, dispatcher = exchange.target, exchange.services.dispatcher
    try:
        return relay.of_answer(exchange, await dispatcher.unary(gemini.named(exchange, target.method, body)))
    except PoolError as error:
        inputs = _requests(body)
        if error.code not in NOT_AT_ONCE or not inputs:
            raise

    async def ask(one: Any) -> Answer:
        return await dispatcher.unary(gemini.named(exchange, "embedContent", msgspec.json.encode(one)))

    answers = await each(inputs, ask)
    answer = next((found for found in answers if found.status != 200), answers[0])
    if answer.status == 200:
        answer.body = b'{"embeddings":[' + b",".join(_embedding(found.body) for found in answers) + b"]}"
    return relay.of_answer(exchange, answer)


class _Batch(msgspec.Struct):
    requests: list[dict[str, Any]]


class _Answered(msgspec.Struct):
    embedding: msgspec.Raw


_batch = msgspec.json.Decoder(_Batch)
_answered = msgspec.json.Decoder(_Answered)


def _requests(body: bytes) -> list[dict[str, Any]]:
    try:
        return _batch.decode(body).requests
    except UNREADABLE:
        return []


def _embedding(body: bytes) -> bytes:
    try:
        return bytes(_answered.decode(body).embedding)
    except UNREADABLE:
        raise PoolError("upstream_error", "an answer without an embedding") from None
