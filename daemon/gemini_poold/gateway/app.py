"""The gateway's server: listeners, the way of every request (guards, key, admission, surface), its end in the log.

`Gateway` is built and run by the composition root. Which path means what is `routes.py`'s, what a surface answers
the surface's own file's.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from aiohttp import web

from gemini_pool.errors import PoolError

from ..accepting import stop_accepting
from ..log import Line
from . import connections, health, listeners, openai, relay, uploads
from .auth import SOCKET_CLIENT, LocalClient, LocalKeys, peer_is_same_user, presented_key
from .connections import Keep
from .errors import Shape
from .exchange import Exchange
from .guards import CORS_HEADERS, Guards
from .routes import Route, route
from .services import Services, Settings

log = logging.getLogger("gemini_pool.gateway")

LAST_WORDS_S = 0.5  # what a request that was cancelled by the end has for saying so
KEEP_ALIVE_S = 75.0  # longer than clients keep an idle connection, so that they close it and not we


_LOG_HINT = "the daemon's log says more: `journalctl --user -u gemini-pool`"


@dataclass(slots=True)
class _Door:
    """One listening socket, with what holds for requests that come through it. `port` None: the Unix socket."""

    port: int | None
    guards: Guards
    server: connections.Server | None = None
    listener: asyncio.Server | None = None


class Gateway:
    """`url` is the loopback address ("" when off or taken), `socket` the Unix one's path."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.url = ""
        self.socket = ""
        self._closed_doors = ""  # addresses that cannot be had
        self._doors: list[_Door] = []
        self._file: tuple[Path, tuple[int, int] | None] | None = None
        self._draining = False
        self._handling: dict[asyncio.Task[object], Exchange] = {}

    # ---- life -----------------------------------------------------------------------------------------------

    async def start(
        self,
        *,
        listen: tuple[str, int] | None,
        socket_path: Path | None,
        tcp: Sequence[socket.socket] = (),
        unix: Sequence[socket.socket] = (),
    ) -> None:
        """Accept on the given sockets (systemd's), else on those bound here. Never raises for an address: `error`."""
        errors = [
            await self._open_tcp(listen, tcp),
            await self._open_unix(socket_path, unix),
        ]
        self._closed_doors = "; ".join(filter(None, errors))
        if self.error:
            log.warning("gateway: %s", self.error)

    @property
    def error(self) -> str:
        """What is amiss, "" when nothing is: addresses that cannot be had, keys that cannot be read."""
        return "; ".join(filter(None, (self._closed_doors, *map(str, self.services.keys.problems))))

    def configure(self, settings: Settings, keys: LocalKeys) -> None:
        """A reload: requests from now on see the new settings."""
        self.services.settings = settings
        keys.take_over(self.services.keys)
        self.services.keys = keys
        for door in self._doors:
            door.guards = self._guards(door.port)

    async def close_listeners(self) -> None:
        """Accept nothing more: on sockets of the service manager's, whoever comes waits for the successor."""
        listening = [door.listener for door in self._doors if door.listener is not None]
        for door in self._doors:
            door.listener = None
        await stop_accepting(listening)
        if self._file is not None:
            path, known = self._file
            if known is not None and listeners.identity(path) == known:
                path.unlink(missing_ok=True)
            self._file = None

    async def stop(self, grace_s: float, keep: Keep | None = None) -> None:
        """Answer what is under way and what still comes on open connections, for `grace_s` seconds; each answer is the
        last one of its connection. Then the rest is answered `shutting_down`, or broken off where a stream has begun.

        `keep(socket, state)` takes connections over that stand between two requests; whether it has.
        """
        await self.close_listeners()
        servers = [door.server for door in self._doors if door.server is not None]
        self._doors.clear()
        self._end([task for task, exchange in self._handling.items() if exchange.standing])
        await connections.drain(servers, grace_s, keep)
        self._draining = True
        self._end(list(self._handling))
        # aiohttp takes the time twice: for handlers to end, and for their connections.
        await asyncio.gather(*(server.shutdown(LAST_WORDS_S) for server in servers))

    async def adopt(self, sock: socket.socket) -> bool:
        """Go on with a connection of our predecessor's; False when it came in through no door that is open now."""
        port = listeners.address_of(sock)[1] if sock.family != socket.AF_UNIX else None
        for door in self._doors:
            if door.port == port and door.server is not None:
                await door.server.adopt(sock)
                return True
        return False

    def _end(self, tasks: Iterable[asyncio.Task[object]]) -> None:
        for task in tasks:
            self._handling[task].ended_by_us = True
            task.cancel()

    async def _open_tcp(self, listen: tuple[str, int] | None, given: Sequence[socket.socket]) -> str:
        try:
            socks = list(given) or ([listeners.bind_tcp(*listen)] if listen else [])
        except listeners.Unavailable as error:
            return str(error)
        for sock in socks:
            host, port = listeners.address_of(sock)
            await self._open(sock, port)
            self.url = self.url or f"http://{f'[{host}]' if ':' in host else host}:{port}"
        return ""

    async def _open_unix(self, path: Path | None, given: Sequence[socket.socket]) -> str:
        try:
            socks = list(given) or ([listeners.bind_unix(path)] if path else [])
        except listeners.Unavailable as error:
            return str(error)
        for sock in socks:
            self.socket = self.socket or str(sock.getsockname())
            if path is not None and not given:
                self._file = path, listeners.identity(path)
            await self._open(sock, None)
        return ""

    async def _open(self, sock: socket.socket, port: int | None) -> None:
        door = _Door(port, self._guards(port))
        # Cancelling the handler when its client is gone is what stops the generation upstream at once.
        door.server = connections.Server(
            partial(self._handle, door),
            handler_cancellation=True,
            access_log=None,
            logger=listeners.http_log(),
            keepalive_timeout=KEEP_ALIVE_S,
        )
        door.listener = await listeners.serve(sock, door.server)
        self._doors.append(door)

    def _guards(self, port: int | None) -> Guards:
        settings = self.services.settings
        return Guards(port, settings.allowed_hosts, settings.allowed_origins)

    # ---- a request ------------------------------------------------------------------------------------------

    async def _handle(self, door: _Door, request: web.BaseRequest) -> web.StreamResponse:
        services = self.services
        found = route(request.method, request.rel_url.path)
        exchange = Exchange(request, services, found.target, services.clock.monotonic())
        if found.target.method == "streamGenerateContent" and not _wants_sse(request.query_string):
            exchange.shape = Shape.GOOGLE_ARRAY
        elif openai.asked_by_bearer(exchange):
            exchange.shape = Shape.OPENAI
        if services.tracing is not None and found.target.method not in health.HANDLERS:
            exchange.trace = services.tracing.begin(exchange)
        services.meter.in_flight += 1
        task = asyncio.current_task()
        assert task is not None
        self._handling[task] = exchange
        try:
            return await self._answer(door, found, exchange)
        except PoolError as error:
            return relay.of_error(exchange, error)
        except asyncio.CancelledError:
            if exchange.ended_by_us:
                return await _told(exchange, PoolError("shutting_down", "the daemon is stopping"))
            exchange.outcome = "cancelled"
            raise
        except ConnectionError:  # the client went away while its body was read
            exchange.outcome = "cancelled"
            return web.Response(status=499)
        except web.RequestPayloadError:
            words = "the body is not what its Content-Encoding or Transfer-Encoding says"
            return relay.of_error(exchange, PoolError("bad_request", words))
        except Exception as error:  # the edge of the request's task
            log.error("gateway: a request failed inside: %s", type(error).__name__, exc_info=error)
            return await _told(exchange, PoolError("internal", "gemini-pool failed inside", hint=_LOG_HINT))
        finally:
            services.meter.in_flight -= 1
            exchange.give_back()
            del self._handling[task]
            _finish(exchange)

    async def _answer(self, door: _Door, found: Route, exchange: Exchange) -> web.StreamResponse:
        services, request = self.services, exchange.request
        headers = request.headers
        origin = headers.get("Origin")
        door.guards.check(headers.get("Host"), origin)
        if not request.raw_path.startswith("/"):  # a whole URL: its host goes before the header's
            door.guards.check(request.raw_path.partition("://")[2].partition("/")[0], origin)
        if "Transfer-Encoding" in headers and headers["Transfer-Encoding"].strip().lower() != "chunked":
            answer = relay.of_error(
                exchange, PoolError("bad_request", "the only Transfer-Encoding is chunked")
            )
            answer.force_close()  # where its body ends is anybody's guess
            return answer
        if origin is not None:
            exchange.origin = origin
            if request.method == "OPTIONS":
                return _preflight(exchange)
        if not found.open:
            exchange.client = self._client(door, exchange)
            if self._draining:
                raise PoolError("shutting_down", "the daemon is stopping")
            if services.meter.in_flight > services.settings.max_in_flight:
                raise PoolError(
                    "overloaded", "too many requests are under way", hint="raise [gateway] max_in_flight"
                )
            if exchange.client.rpm:
                exchange.client.admit(services.clock.now())
        return await found.handler(exchange)

    def _client(self, door: _Door, exchange: Exchange) -> LocalClient:
        request = exchange.request
        if door.port is not None:
            uploading = uploads.client_of(exchange)
            if uploading is not None:
                return uploading
            presented = presented_key(request.headers, request.query_string)
            handed = self.services.handed.client_of(presented, self.services.clock.now())
            return handed or self.services.keys.client_of(presented)
        if not peer_is_same_user(request.transport):
            raise PoolError("forbidden", "the socket serves processes of its own user only")
        return SOCKET_CLIENT


async def _told(exchange: Exchange, error: PoolError) -> web.StreamResponse:
    """The end of a request that failed on our side: an error, or a broken stream where one has begun."""
    if exchange.begun is None:
        return relay.of_error(exchange, error)
    await relay.break_off(exchange, exchange.begun, error)
    return exchange.begun


def _wants_sse(query: str) -> bool:
    return query == "alt=sse" or "alt=sse" in query.split("&") or "%24alt=sse" in query.split("&")


def _preflight(exchange: Exchange) -> web.StreamResponse:
    answer = relay.json_answer(exchange, b"", 204)
    answer.headers.update(CORS_HEADERS)
    return answer


def _finish(exchange: Exchange) -> None:
    """Count the request and tell it in one line. Never a prompt, an answer or a key."""
    services, target = exchange.services, exchange.target
    if exchange.outcome == "cancelled":
        exchange.note_attempts()
    if exchange.trace is not None:
        exchange.trace.end(exchange)
    took_s = services.clock.monotonic() - exchange.started_at
    services.meter.count(
        target.surface or "other",
        _outcome_class(exchange),
        took_s,
        bytes_in=exchange.bytes_in,
        bytes_out=exchange.bytes_out,
        first_byte_s=exchange.first_byte_s,
    )
    level = logging.INFO if exchange.client is not None else logging.DEBUG
    if not log.isEnabledFor(level):
        return
    # A stream that was cut may have had a finish marker, too: it did not end with it.
    ending = (exchange.finish or "ok") if exchange.outcome == "ok" else exchange.outcome
    usage = exchange.usage
    tokens_in, tokens_out = (usage.input_tokens, usage.output_tokens) if usage else (0, 0)
    took_ms, wait_ms, first_s = took_s * 1000, exchange.wait_s * 1000, exchange.first_byte_s
    text = (
        f"{target.surface or '-'} {target.method or '-'}: {exchange.status} {ending} in {took_ms:.0f} ms;"
        f" {exchange.attempts} attempts, waited {wait_ms:.0f} ms;"
        f" {exchange.bytes_in} bytes in, {exchange.bytes_out} out; {tokens_in} tokens in, {tokens_out} out"
    )
    fields: dict[str, object] = {
        "account": exchange.account,
        "model": exchange.model,
        "event": "request",
        "client": exchange.client.name if exchange.client is not None else "",
        "request": exchange.name,
        "code": "" if exchange.outcome == "ok" else exchange.outcome,
        "surface": target.surface,
        "attempts": exchange.attempts,
        "wait_ms": int(wait_ms),
        "first_byte_ms": "" if first_s is None else int(first_s * 1000),
        "total_ms": int(took_ms),
        "bytes_in": exchange.bytes_in,
        "bytes_out": exchange.bytes_out,
        "tokens_in": tokens_in,
        "tokens_out": tokens_out,
        "outcome": ending,
    }
    log.handle(Line(log.name, level, text, fields))


def _outcome_class(exchange: Exchange) -> str:
    if exchange.outcome == "cancelled":
        return "cancelled"
    if exchange.status == 200 and exchange.outcome != "ok":
        return "cut"
    return f"{exchange.status // 100}xx"
