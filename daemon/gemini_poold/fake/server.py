"""The HTTP server: one loopback port that is all of Google's hosts at once, from bytes to record, fault and answer."""

from __future__ import annotations

import asyncio
import gzip
import socket
import struct
from email.utils import formatdate
from types import TracebackType

from aiohttp import web

from .call import Answer, Call, Place
from .codeassist import CodeAssistApi
from .developer import DeveloperApi
from .envelope import HTML_TYPE, JSON_TYPE, Refused, Reply, error_page
from .faults import Fault, Faults
from .federation import Federation
from .kept import Kept
from .live import Live
from .oauth import OAuth
from .record import Record
from .stream import ARRAY, PLAIN, WHOLE, Generation, Pause, Twist
from .vertex import VertexApi
from .vertex_kept import VertexKept
from .world import World

_RST = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: closing sends RST
_NO_FAULT = Fault("none")
_WORTH_PACKING = 512  # bytes
_STREAM_TYPES = {ARRAY: JSON_TYPE}


class _Broken(Exception):
    """The connection was broken on purpose; nothing more can be answered."""


class FakeGoogle:
    """A Google of our own. `async with FakeGoogle() as fake:` serves on a free loopback port.

    `world` is who exists, `faults` what goes wrong, `record` what was asked.
    """

    def __init__(self, world: World | None = None, *, keep: int = 20_000) -> None:
        self.world = world or World()
        self.faults = Faults()
        self.record = Record(keep)
        self.port = 0
        self.kept = Kept(self.world, lambda: self.url)
        self.vertex_kept = VertexKept(self.world)
        self.live = Live(self.world)
        self._surfaces = (
            CodeAssistApi(self.world),
            self.kept,
            DeveloperApi(self.world, self.kept),
            self.vertex_kept,
            self.live,
            VertexApi(self.world, self.vertex_kept),
            OAuth(self.world),
            Federation(self.world),
        )
        self._places: dict[tuple[str, str], Place | None] = {}
        self._runner: web.ServerRunner | None = None
        self._site: web.TCPSite | None = None

    async def start(self, port: int = 0) -> FakeGoogle:
        """Listen on 127.0.0.1; `port` 0 picks a free one."""
        server = web.Server(self._serve, handler_cancellation=True, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.0)
        await self._runner.setup()
        self.port = port
        await self.up()
        return self

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        self._runner = self._site = None

    async def up(self) -> None:
        """Accept connections (again, on the same port)."""
        if self._runner is None or self._site is not None:
            return
        self._site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await self._site.start()
        if not self.port:
            addresses = self._runner.addresses
            self.port = addresses[0][1]
        self.world.token_uri = f"{self.url}/token"

    async def down(self) -> None:
        """Refuse new connections until `up`; those that stand go on."""
        if self._site is not None:
            await self._site.stop()
            self._site = None

    async def __aenter__(self) -> FakeGoogle:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def endpoints(self) -> dict[str, str]:
        """The daemon's `[endpoints]`: every Google URL leads here."""
        return {
            "oauth_auth": f"{self.url}/o/oauth2/v2/auth",
            "oauth_token": f"{self.url}/token",
            "oauth_revoke": f"{self.url}/revoke",
            "oauth_userinfo": f"{self.url}/oauth2/v2/userinfo",
            "code_assist": self.url,
            "developer_api": self.url,
            "vertex": self.url,
            "sts": self.url,
            "iam_credentials": self.url,
        }

    # One request

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        call = await self._read(request)
        self.record.begin(call)
        try:
            return await self._answer(request, call)
        except _Broken:
            return web.Response()  # goes nowhere: the transport is closed
        except (asyncio.CancelledError, ConnectionResetError):
            call.gone = True
            raise
        finally:
            self.record.end(call)

    async def _read(self, request: web.BaseRequest) -> Call:
        body = await request.content.read()  # to its end, however large
        peer = request.transport.get_extra_info("peername") if request.transport else None
        place = self._find(request.method, request.path)
        return Call(
            0,
            self.world.clock.now(),
            request.method,
            request.path,
            request.query,
            request.headers,
            body,
            peer[1] if peer else 0,
            place,
            model=place.model if place else "",
        )

    def _find(self, method: str, path: str) -> Place | None:
        known = self._places.get((method, path))
        if known is not None:
            return known
        place = next((found for surface in self._surfaces if (found := surface.find(method, path))), None)
        if len(self._places) < 10_000:
            self._places[method, path] = place
        return place

    async def _answer(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        refusal = _identify(call)
        fault = (self.faults.take(call) if self.faults.rules else None) or _NO_FAULT
        if fault is not _NO_FAULT:
            call.fault = fault.name
            await self._suffer(request, call, fault)
        if fault.reply is not None:
            return _whole(call, fault.reply)
        try:
            if refusal:
                raise refusal
            if call.kind == "live" and web.WebSocketResponse().can_prepare(request):
                return await self.live.serve(request, call)
            answer = _handle(call)
        except Refused as refused:
            answer = _dressed(call, refused.reply)
        if isinstance(answer, Reply):
            return _whole(call, answer)
        if answer.think_s:
            await asyncio.sleep(answer.think_s)
        answer = answer.twisted(fault.twist) if fault.twist is not PLAIN else answer
        if answer.mode == WHOLE:
            return await self._unary(request, call, answer, fault.twist)
        return await self._stream(request, call, answer, fault.twist)

    async def _suffer(self, request: web.BaseRequest, call: Call, fault: Fault) -> None:
        """What a fault does before any answer."""
        if fault.then is not None:
            fault.then(call)
        if fault.delay_s:
            await asyncio.sleep(fault.delay_s)
        if fault.silent:
            await asyncio.Event().wait()
        if fault.reset == "before_headers":
            _break(request, "rst")
        if fault.reset == "after_headers":
            await _open(request, call, "text/event-stream", {})
            _break(request, "rst")

    async def _unary(
        self, request: web.BaseRequest, call: Call, answer: Generation, twist: Twist
    ) -> web.StreamResponse:
        """A whole answer; a twist that breaks the connection breaks it in the middle of the body."""
        body = answer.body()
        if twist.break_at is None and twist.pause_at is None:
            return _whole(call, Reply(200, body, headers=answer.headers))
        response = await _open(request, call, JSON_TYPE, answer.headers)
        await response.write(body[: len(body) // 2])
        if twist.pause_at is not None:
            await _pause(twist.pause_s)
        if twist.break_at is not None:
            _break(request, twist.how)
        await response.write(body[len(body) // 2 :])
        return response

    async def _stream(
        self, request: web.BaseRequest, call: Call, answer: Generation, twist: Twist
    ) -> web.StreamResponse:
        kind = _STREAM_TYPES.get(answer.mode, "text/event-stream")
        response = await _open(request, call, kind, answer.headers)
        for step in answer.steps(twist):
            if isinstance(step, bytes):
                await response.write(step)
                call.chunks += 1
            elif isinstance(step, Pause):
                await _pause(step.seconds)
            elif step.how == "clean":
                break
            else:
                _break(request, step.how)
        await response.write_eof()
        return response


def _identify(call: Call) -> Refused | None:
    """Set the caller; a refusal is kept until the faults have had their say."""
    if call.place is None or call.place.identify is None:
        return None
    try:
        call.caller = call.place.identify(call)
    except Refused as refused:
        return refused
    return None


def _handle(call: Call) -> Answer:
    if call.place is None:
        return Reply(404, error_page(404, "The requested URL was not found on this server."), HTML_TYPE)
    return call.place.handler(call)


def _dressed(call: Call, reply: Reply) -> Reply:
    """A stream without `alt=sse` is an array, errors included."""
    if call.kind == "stream" and call.query.get("alt") != "sse" and reply.content_type == JSON_TYPE:
        return Reply(reply.status, b"[" + reply.body + b"]\n", JSON_TYPE, reply.headers)
    return reply


def _whole(call: Call, reply: Reply) -> web.Response:
    call.status = reply.status
    date = formatdate(call.at, usegmt=True)  # of this world's clock, which need not be the machine's
    headers = {"Content-Type": reply.content_type, "Server": "ESF", "Date": date, **reply.headers}
    body = reply.body
    if len(body) > _WORTH_PACKING and _reads_gzip(call):
        body, headers["Content-Encoding"] = gzip.compress(body), "gzip"
    return web.Response(body=body, status=reply.status, headers=headers)


def _reads_gzip(call: Call) -> bool:
    """Google packs for those alone who say it in two places."""
    return all("gzip" in call.headers.get(name, "") for name in ("Accept-Encoding", "User-Agent"))


async def _open(
    request: web.BaseRequest, call: Call, kind: str, headers: dict[str, str]
) -> web.StreamResponse:
    call.status = 200
    response = web.StreamResponse(headers={"Content-Type": kind, "Server": "ESF", **headers})
    response.enable_chunked_encoding()
    await response.prepare(request)
    return response


async def _pause(seconds: float | None) -> None:
    if seconds is None:
        await asyncio.Event().wait()
    else:
        await asyncio.sleep(seconds)


def _break(request: web.BaseRequest, how: str) -> None:
    """End the connection without a proper end: `rst`, `fin`, or `torn` (an HTTP chunk that promises more, then RST)."""
    transport = request.transport
    if transport is None:
        raise _Broken
    if how == "torn":
        transport.write(b'1000\r\ndata: {"candidates": [{"content": {"parts": [{"te')
    if how == "fin":
        transport.close()
        raise _Broken
    sock = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
    transport.abort()
    raise _Broken
