"""From the dispatcher to the client: whole answers, and streams with back-pressure.

The one promise kept here: a stream that broke never looks finished. It ends as a bare error object in a chunk of its
own and then a broken connection, the only ending that no client takes for a complete answer and that every client
which retries does retry. Choosing, fail-over and upstream errors are `runtime.dispatch`'s.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Mapping
from typing import Protocol

from aiohttp import HttpVersion11, web
from multidict import CIMultiDict

from gemini_pool.errors import PoolError

from ..backends.sse import payloads
from ..runtime.dispatch import Answer, Call, ClientFault
from . import errors
from .errors import JSON, Shape
from .exchange import Exchange
from .services import Streaming

log = logging.getLogger("gemini_pool.gateway")

EVENT_STREAM = "text/event-stream"
_LINGER_S = 5.0  # how long a broken connection may take to deliver the error object that precedes the break


class Retelling(Protocol):
    """A stream in another family's words: bytes to begin with, for each event's payload, and after the last.

    `end` is called only for a stream that ended as it should, and may still raise PoolError.
    """

    def start(self) -> bytes: ...
    def feed(self, payload: bytes) -> bytes: ...
    def end(self) -> bytes: ...


class _Stream(web.StreamResponse):
    """Its head goes out with the first piece, which is there already: one write and not two."""

    _send_headers_immediately = False


async def unary(exchange: Exchange, call: Call) -> web.StreamResponse:
    """Dispatch `call` and hand its answer on."""
    answer = await exchange.services.dispatcher.unary(call)
    return of_answer(exchange, answer)


async def stream(exchange: Exchange, call: Call, retelling: Retelling | None = None) -> web.StreamResponse:
    """Dispatch `call` as a stream: SSE, or one JSON array when the client did not ask for SSE."""
    try:
        source = await exchange.services.dispatcher.stream(call)
    except ClientFault as fault:
        return of_answer(exchange, fault.answer)
    try:
        note(exchange, source.account, source.attempts, source.wait_s)
        sse = exchange.shape is not Shape.GOOGLE_ARRAY
        response = _Stream(headers=_headers(exchange, EVENT_STREAM if sse else JSON))
        response.headers["Cache-Control"] = "no-cache"
        await response.prepare(exchange.request)
        exchange.status, exchange.begun = 200, response
        if retelling is not None:
            await _relay_retold(exchange, source, response, retelling)
        else:
            await (_relay_sse if sse else _relay_array)(exchange, source, response)
        exchange.usage, exchange.finish = source.usage, source.finish_reason
        return response
    finally:
        await source.aclose()


async def _relay_sse(exchange: Exchange, source: Streaming, response: web.StreamResponse) -> None:
    sent = 0
    try:
        async for block in source:
            await response.write(block)
            sent += len(block)
    except PoolError as error:
        await break_off(exchange, response, error)
    except ConnectionError:
        exchange.outcome = "cancelled"  # the client went away between two reads
    finally:
        exchange.bytes_out = sent


async def _relay_array(exchange: Exchange, source: Streaming, response: web.StreamResponse) -> None:
    """Google's other dressing: `[{…}`, `,\\r\\n{…}` …, `]`, each piece as soon as it is there."""
    lead = b"["
    try:
        async for event in source.events():
            await response.write(lead + event)
            exchange.bytes_out += len(lead) + len(event)
            lead = b",\r\n"
        await response.write(b"]")
        exchange.bytes_out += 1
    except PoolError as error:
        await break_off(exchange, response, error, lead=lead)
    except ConnectionError:
        exchange.outcome = "cancelled"


async def _relay_retold(
    exchange: Exchange, source: Streaming, response: web.StreamResponse, retelling: Retelling
) -> None:
    """Each event in other words. The last words only after the stream's real end."""
    try:
        if told := retelling.start():
            await response.write(told)
            exchange.bytes_out += len(told)
        async for block in source:
            if told := b"".join(map(retelling.feed, payloads(block))):
                await response.write(told)
                exchange.bytes_out += len(told)
        told = retelling.end()
        await response.write(told)
        exchange.bytes_out += len(told)
    except PoolError as error:
        await break_off(exchange, response, error)
    except ConnectionError:
        exchange.outcome = "cancelled"


async def break_off(
    exchange: Exchange, response: web.StreamResponse, error: PoolError, *, lead: bytes = b""
) -> None:
    """End a begun stream as broken: the bare error object in a chunk of its own, then no final chunk."""
    exchange.outcome = error.code
    shape = Shape.GOOGLE if exchange.shape is Shape.GOOGLE_ARRAY else exchange.shape
    delay_s = errors.retry_delay_s(error, exchange.services.clock.now())
    request = exchange.request
    try:
        if lead:
            await response.write(lead)
        await response.write(errors.body_of(shape, error, delay_s))
    except ConnectionError:
        return
    transport = request.transport
    if transport is None:
        return
    if request.version < HttpVersion11:
        # Without chunks only a reset tells a broken answer from a finished one.
        raw = transport.get_extra_info("socket")
        if raw is not None and raw.family != getattr(socket, "AF_UNIX", None):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    # Closing delivers what is buffered and then ends the connection; a client that does not read is cut off.
    transport.close()
    asyncio.get_running_loop().call_later(_LINGER_S, _abort, transport)


def _abort(transport: asyncio.Transport) -> None:
    transport.abort()


def of_answer(exchange: Exchange, answer: Answer) -> web.Response:
    """Google's answer as it came. A 401 of Google's stays inside: no client survives one."""
    note(exchange, answer.account, answer.attempts, answer.wait_s)
    exchange.usage, exchange.finish = answer.usage, answer.finish_reason
    if answer.status == 401:
        raise PoolError("upstream_error", "Google refused the account's credential", account=answer.account)
    body = answer.body
    if answer.status >= 400:
        exchange.outcome = "refused"
        if exchange.shape is Shape.GOOGLE_ARRAY and not body.lstrip().startswith(b"["):
            body = b"[" + body + b"]"
        elif exchange.shape is Shape.OPENAI:
            body = errors.of_google(answer.status, body)
    exchange.status = answer.status
    exchange.bytes_out = len(body)
    return web.Response(
        body=body,
        status=answer.status,
        headers=_headers(exchange, answer.content_type or JSON, answer.headers),
    )


def of_error(exchange: Exchange, error: PoolError) -> web.Response:
    """An error of ours, in the shape of the surface that was called."""
    rendered = errors.render(exchange.shape, error, exchange.services.clock.now())
    exchange.outcome = error.code
    exchange.status = rendered.status
    exchange.bytes_out = len(rendered.body)
    if error.account and not exchange.account:
        exchange.account = error.account
    exchange.note_attempts()
    headers = _headers(exchange, JSON)
    headers.update(rendered.headers)
    return web.Response(body=rendered.body, status=rendered.status, headers=headers)


def json_answer(exchange: Exchange, body: bytes, status: int = 200, content_type: str = JSON) -> web.Response:
    """An answer that the gateway wrote itself."""
    exchange.status = status
    exchange.bytes_out = len(body)
    return web.Response(body=body, status=status, headers=_headers(exchange, content_type))


def note(exchange: Exchange, account: str, attempts: int, wait_s: float) -> None:
    """Google's answer has begun, with this account."""
    exchange.first_byte_s = exchange.services.clock.monotonic() - exchange.started_at
    exchange.account, exchange.attempts, exchange.wait_s = account, attempts, wait_s


def _headers(
    exchange: Exchange, content_type: str, extra: Mapping[str, str] | None = None
) -> CIMultiDict[str]:
    headers = CIMultiDict(extra) if extra else CIMultiDict[str]()
    headers["Content-Type"] = content_type
    if exchange.account:
        headers["x-gemini-pool-account"] = exchange.account
    headers["x-gemini-pool-attempts"] = str(exchange.attempts)
    headers["x-gemini-pool-wait-ms"] = str(int(exchange.wait_s * 1000))
    if exchange.origin:
        headers["Access-Control-Allow-Origin"] = exchange.origin
        headers["Access-Control-Expose-Headers"] = "*"
        headers["Vary"] = "Origin"
    return headers


headers = _headers  # for answers that are relayed elsewhere
