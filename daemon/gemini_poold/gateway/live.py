"""The Live API over a WebSocket: what the client says first chooses the account, then both sides' messages go through.

The set-up names the model, and perhaps a session to be resumed, which its account alone can do. An error that comes
after the handshake is told as Google tells it: by a code and a reason in the closing.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from typing import Any

import msgspec
from aiohttp import WSMsgType, web

from gemini_pool.errors import PoolError

from ..errors import UNREADABLE, UpstreamFailure
from ..runtime.attempts import ClientFault
from ..runtime.forward import RESOURCES, VERTEX_RESOURCES
from ..runtime.live import Closed, Message, Session
from . import errors, onward, relay
from .exchange import Exchange

log = logging.getLogger("gemini_pool.gateway")

SETUP_S = 30.0  # what a client has for saying what it wants
HEARTBEAT_S = 30.0
MESSAGE_MAX = 32 << 20
RESUMABLE_S = 24 * 3600.0  # how long a handle is good for, at most
_HANDLE = re.compile(rb'"newHandle"\s*:\s*"([^"\\]{1,2000})"')
_MODEL = re.compile(
    r"(?:(?:projects/.{1,200}/)?publishers/google/)?(?:models/)?([A-Za-z0-9][A-Za-z0-9._@-]{0,127})"
)
_REASON_MAX = 120  # bytes: a closing frame has room for 123
# What may be said in a closing; the others only say that nothing was.
_SENDABLE = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})


class _Resumption(msgspec.Struct):
    handle: str = ""


class _Setup(msgspec.Struct):
    model: str = ""
    sessionResumption: _Resumption | None = None  # noqa: N815 - Google's name


class _First(msgspec.Struct):
    setup: _Setup


_first = msgspec.json.Decoder(_First)


async def handle(exchange: Exchange) -> web.StreamResponse:
    """One connection, from its handshake to its closing."""
    request = exchange.request
    response = web.WebSocketResponse(heartbeat=HEARTBEAT_S, max_msg_size=MESSAGE_MAX, compress=False)
    if request.method != "GET" or not response.can_prepare(request):
        raise PoolError("bad_request", "the Live API is spoken over a WebSocket")
    response.headers.update(relay.headers(exchange, "application/octet-stream"))
    del response.headers["Content-Type"]
    await response.prepare(request)
    exchange.status, exchange.standing = 101, True
    try:
        await _serve(exchange, response)
    except ClientFault as fault:
        await _close(exchange, response, fault, 1008)
    except PoolError as error:
        await _close(exchange, response, error, 1011 if errors.word_of(error).http >= 429 else 1008)
    except asyncio.CancelledError:
        if not exchange.ended_by_us:
            if response.close_code in (1000, 1001):
                return response  # it said goodbye, and has hung up since
            raise
        await _close(exchange, response, PoolError("shutting_down", "the daemon is stopping"), 1001)
    except ConnectionError:
        exchange.outcome = "cancelled"
    except Exception as error:  # the edge of the request's task: the handshake is over, no answer can be sent
        log.error("gateway: a request failed inside: %s", type(error).__name__, exc_info=error)
        await _close(exchange, response, PoolError("internal", "gemini-pool failed inside"), 1011)
    return response


async def _serve(exchange: Exchange, response: web.WebSocketResponse) -> None:
    live, forwarder = exchange.services.live, exchange.services.forwarder
    if live is None or forwarder is None:
        raise PoolError("not_served", "the Live API is not served here")
    async with asyncio.timeout(SETUP_S) as deadline:
        try:
            said = await response.receive()
        except TimeoutError:
            if not deadline.expired():
                raise
            raise PoolError("bad_request", "nothing was set up in time") from None
    if said.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
        exchange.outcome = "cancelled"
        return
    message: Message = said.data
    exchange.bytes_in += len(message)
    setup = _setup(message)
    model = _model(setup.model)
    alias = exchange.services.settings.aliases.get(model, model)
    if alias != model:
        message, model = _renamed(message, model, alias), alias
    vertex = exchange.target.surface == "vx"
    handle = setup.sessionResumption.handle if setup.sessionResumption is not None else ""
    method = VERTEX_RESOURCES if vertex else RESOURCES
    call = exchange.call_for(method, model, b"", names={_name(handle)} if handle else set(), headers={})
    if vertex and not call.request.pin:
        call.request = call.request._replace(exclude=forwarder.without_project())
    session = await live.connect(call, onward.path(exchange.request.path.replace("//", "/", 1)), message)
    relay.note(exchange, session.account, session.attempts, session.wait_s)
    try:
        async with asyncio.TaskGroup() as group:
            up = group.create_task(_upwards(exchange, response, session))
            await _downwards(exchange, response, session)
            up.cancel()
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None
    finally:
        await session.aclose()


async def _upwards(exchange: Exchange, response: web.WebSocketResponse, session: Session) -> None:
    """What the client says, no faster than Google takes it; its goodbye at the end."""
    async for said in response:
        if said.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
            break
        exchange.bytes_in += len(said.data)
        try:
            await session.send(said.data)
        except UpstreamFailure:
            return  # how Google ended is `_downwards`' to say
    await session.aclose(_sendable(response.close_code))


async def _downwards(exchange: Exchange, response: web.WebSocketResponse, session: Session) -> None:
    """What Google says, until either side has closed."""
    forwarder = exchange.services.forwarder
    assert forwarder is not None
    while not isinstance(said := await session.receive(), Closed):
        raw = said.encode() if isinstance(said, str) else said
        exchange.bytes_out += len(raw)
        if b'"newHandle"' in raw and (found := _HANDLE.search(raw)):
            until = exchange.services.clock.now() + RESUMABLE_S
            forwarder.bind(_name(found[1].decode("utf-8", "replace")), session.account, until)
            await forwarder.kept()
        if isinstance(said, str):
            await response.send_str(said)
        else:
            await response.send_bytes(said)
    if response.closed:  # the client was first
        return
    if said.code not in (1000, 1001, 1005):
        exchange.outcome = "stream_cut" if said.code == 1006 else "refused"
    reason = said.reason or ("the connection to Google broke" if said.code == 1006 else "")
    await response.close(code=_sendable(said.code), message=_short(reason))


async def _close(exchange: Exchange, response: web.WebSocketResponse, error: PoolError, code: int) -> None:
    exchange.outcome = error.code
    exchange.note_attempts()
    if not response.closed:
        await response.close(code=code, message=_short(f"{error.code}: {error.message}"))


def _setup(message: Message) -> _Setup:
    try:
        return _first.decode(message).setup
    except UNREADABLE:
        raise PoolError("bad_request", "the first message must be a `setup` with a model") from None


def _model(said: str) -> str:
    if (found := _MODEL.fullmatch(said)) is None:
        raise PoolError("bad_request", "the set-up names no model")
    return found[1]


def _renamed(message: Message, model: str, alias: str) -> Message:
    value: Any = msgspec.json.decode(message)
    value["setup"]["model"] = value["setup"]["model"].removesuffix(model) + alias
    raw = msgspec.json.encode(value)
    return raw.decode() if isinstance(message, str) else raw


def _name(handle: str) -> str:
    return "live/" + hashlib.sha256(handle.encode("utf-8", "surrogatepass")).hexdigest()


def _sendable(code: int | None) -> int:
    return code if code in _SENDABLE and code is not None else 1000 if code in (None, 1005) else 1011


def _short(reason: str) -> bytes:
    return reason.encode("utf-8", "replace")[:_REASON_MAX].decode("utf-8", "ignore").encode()
