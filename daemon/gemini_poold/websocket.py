"""A connection to Google on which both ends speak, for as long as they like. Made by `transport.AiohttpTransport`.

As there: what aiohttp and the system raise becomes ours, and no redirect is followed.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import SimpleNamespace
from typing import NamedTuple, TypeAlias

import aiohttp
from yarl import URL

from .errors import UpstreamFailure

HEARTBEAT_S = 30.0  # a dead peer is noticed, and proxies on the way keep the connection
MESSAGE_MAX = 32 << 20

Message: TypeAlias = "str | bytes"


class Closed(NamedTuple):
    """How the other end closed. 1006: it did not, the connection broke."""

    code: int
    reason: str = ""


class HandshakeRefused(Exception):
    """An HTTP answer instead of a connection."""

    def __init__(self, status: int, headers: Mapping[str, str]) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.headers = headers


class WebSocket:
    """`receive` until it returns Closed; `send` raises UpstreamFailure when the connection is gone."""

    def __init__(self, raw: aiohttp.ClientWebSocketResponse) -> None:
        self._raw = raw

    async def receive(self) -> Message | Closed:
        message = await self._raw.receive()
        if message.type is aiohttp.WSMsgType.TEXT or message.type is aiohttp.WSMsgType.BINARY:
            data: Message = message.data
            return data
        reason = message.extra if message.type is aiohttp.WSMsgType.CLOSE and message.extra else ""
        code = self._raw.close_code
        return Closed(1006 if code is None or message.type is aiohttp.WSMsgType.ERROR else code, reason)

    async def send(self, message: Message) -> None:
        try:
            if isinstance(message, str):
                await self._raw.send_str(message)
            else:
                await self._raw.send_bytes(message)
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            words = f"the connection is gone ({type(error).__name__})"
            raise UpstreamFailure(words, kind="closed", sent=True) from None

    async def aclose(self, code: int = 1000) -> None:
        await self._raw.close(code=code)


async def connect(
    session: aiohttp.ClientSession,
    url: str,
    *,
    headers: Mapping[str, str],
    proxy: URL | None,
    connect_timeout_s: float,
) -> WebSocket:
    """Raises HandshakeRefused, and what aiohttp raises; the caller makes that ours."""
    timeout = aiohttp.ClientTimeout(total=None, connect=connect_timeout_s, sock_connect=connect_timeout_s)
    # Of the same pool of connections, but with an eye on redirects: the handshake would follow one, credential and all.
    own = aiohttp.ClientSession(
        connector=session.connector, connector_owner=False, cookie_jar=aiohttp.DummyCookieJar(),
        headers=session.headers, trace_configs=[_no_redirects()], timeout=timeout,
    )  # fmt: skip
    try:
        raw = await own.ws_connect(
            url, headers=headers, proxy=proxy, heartbeat=HEARTBEAT_S, max_msg_size=MESSAGE_MAX, autoclose=True,
            timeout=aiohttp.ClientWSTimeout(ws_close=2.0),
        )  # fmt: skip
    except aiohttp.WSServerHandshakeError as error:
        await own.close()
        raise HandshakeRefused(error.status, dict(error.headers or {})) from None
    except BaseException:
        await own.close()
        raise
    await own.close()  # which leaves the connection alone: it has its connector from elsewhere
    return WebSocket(raw)


def _no_redirects() -> aiohttp.TraceConfig:
    config = aiohttp.TraceConfig()
    config.on_request_redirect.append(partial(_refuse))
    return config


async def _refuse(
    _session: aiohttp.ClientSession, _context: SimpleNamespace, found: aiohttp.TraceRequestRedirectParams
) -> None:
    raise HandshakeRefused(found.response.status, dict(found.response.headers))
