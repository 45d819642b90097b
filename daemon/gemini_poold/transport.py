"""HTTP towards Google: one connection pool, one place where aiohttp's and the system's exceptions become ours.

What is sent and what an answer means is not known here. Redirects are never followed (no API of Google's needs
one, and a followed one would carry the credential along), cookies are never kept.
"""

from __future__ import annotations

import asyncio
import errno
import io
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from functools import lru_cache, partial
from typing import Protocol, TypeAlias
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver
from multidict import CIMultiDictProxy

from gemini_pool.wire import VERSION

from . import config as config_module
from . import http1, websocket
from .config import Network
from .errors import ConfigInvalid, FailureKind, UpstreamFailure
from .proxies import Proxies, parsed

USER_AGENT = f"gemini-pool/{VERSION}"
RETIRED_S = 3600.0  # the last answer over connections of before a suspend has ended by then
KEEP_ALIVE_S = (
    60.0  # shorter than the idle time after which Google's front ends hang up, so few races with that
)
DNS_TTL_S = 60
# aiohttp warns above 1 MiB of plain bytes; a file-like body is written in pieces and lets other tasks run.
PLAIN_BODY_MAX = 1 << 20
MAX_FETCH = http1.MAX_FETCH
_MOST_PLACES = 1024


class Fetched:
    """A whole answer, for calls whose answers are small."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body


class Response(Protocol):
    """An answer whose headers are here. Exactly one of reading to the end, `close` and `release` ends it."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Case-insensitive; of a repeated header, the first value."""
        ...

    async def read(self, limit: int = MAX_FETCH) -> bytes:
        """The whole body; what is beyond `limit` bytes is cut off and the connection closed."""
        ...

    def iter_chunks(self) -> AsyncIterator[bytes]:
        """Pieces as they come from the network, never empty. Raises `UpstreamFailure` when the body is cut."""
        ...

    def close(self) -> None:
        """Abort: the connection is closed at once, so that Google stops generating."""
        ...

    def release(self) -> None:
        """Done: the connection goes back to the pool if the body was read to its end, else it is closed."""
        ...


# Pieces are asked for no faster than the network takes them, and can be sent only once.
Body: TypeAlias = "bytes | AsyncIterable[bytes] | None"


class Transport(Protocol):
    """`proxy`: this request's own; empty takes the configured one, DIRECT none."""

    async def open(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: Body = None,
        connect_timeout_s: float = 10.0,
        first_byte_timeout_s: float = 300.0,
        silence_timeout_s: float = 120.0,
        proxy: str = "",
    ) -> Response:
        """Send and return when the answer's headers are here. Raises `UpstreamFailure`."""
        ...

    async def fetch(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        timeout_s: float = 30.0,
        proxy: str = "",
    ) -> Fetched:
        """Send and read the whole answer within `timeout_s`. Raises `UpstreamFailure`."""
        ...

    async def aclose(self) -> None: ...


class AiohttpResponse(http1.Readable):
    __slots__ = ("_first_byte_due", "_raw", "_silence_timeout_s", "_url", "headers", "status")

    def __init__(self, raw: aiohttp.ClientResponse, url: str, silence_timeout_s: float) -> None:
        self._raw = raw
        self._url = url
        self._silence_timeout_s = silence_timeout_s
        self._first_byte_due = True
        self.status: int = raw.status
        self.headers: CIMultiDictProxy[str] = raw.headers

    async def read_chunk(self) -> bytes:
        """The next piece; empty at the end."""
        try:
            chunk = await self._raw.content.readany()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self._raw.close()
            raise failure(error, self._url, sent=True) from None
        if self._first_byte_due:
            self._first_byte_due = False
            self._limit_silence()
        return chunk

    def at_end(self) -> bool:
        return self._raw.content.at_eof()

    def close(self) -> None:
        self._raw.close()

    def release(self) -> None:
        self._raw.release()

    def _limit_silence(self) -> None:
        """From the first byte of the body on, the shorter patience between two pieces holds. The protocol's own
        read timer does the watching (it stands still while we are not reading); a timer of ours per piece would
        cost more than the piece."""
        connection = self._raw.connection
        protocol = connection.protocol if connection is not None else None
        if protocol is not None:
            protocol.read_timeout = self._silence_timeout_s
            protocol.start_timeout()


class AiohttpTransport:
    """The daemon's only way out. Made without a loop; the session comes to life with the first request."""

    def __init__(
        self,
        network: Network,
        *,
        environ: Mapping[str, str] | None = None,
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._ssl = ssl_context(network.ca_file)
        self._environ = environ
        self._proxies = Proxies(network.proxy, environ)
        self._resolver = resolver
        self._session: aiohttp.ClientSession | None = None
        self._patience: http1.Patience
        self._places: dict[str, http1.Place | None] = {}  # by URL; None: not the short way
        self._retired: list[tuple[float, aiohttp.ClientSession, http1.Patience]] = []

    async def open(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: Body = None,
        connect_timeout_s: float = 10.0,
        first_byte_timeout_s: float = 300.0,
        silence_timeout_s: float = 120.0,
        proxy: str = "",
    ) -> AiohttpResponse | http1.Exchange:
        timeout = _timeout(None, connect_timeout_s, first_byte_timeout_s)
        if method == "POST" and type(body) is bytes and len(body) <= http1.BODY_MAX and not proxy:
            place = self._places[url] if url in self._places else self._place(url)
            head = None if place is None else place.head(headers, len(body))
            if place is not None and head is not None:
                return await self._send_short(url, place, head + body, timeout, silence_timeout_s)
        raw = await self._send(method, url, headers, body=body, timeout=timeout, proxy=proxy)
        return AiohttpResponse(raw, url, silence_timeout_s)

    async def fetch(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        timeout_s: float = 30.0,
        proxy: str = "",
    ) -> Fetched:
        timeout = _timeout(timeout_s, timeout_s, timeout_s)
        raw = await self._send(method, url, headers, body=body, timeout=timeout, proxy=proxy)
        response = AiohttpResponse(raw, url, timeout_s)
        try:
            return Fetched(response.status, response.headers, await response.read(MAX_FETCH))
        finally:
            response.release()

    async def websocket(
        self, url: str, *, headers: Mapping[str, str], connect_timeout_s: float, proxy: str = ""
    ) -> websocket.WebSocket:
        """Raises UpstreamFailure; `websocket.HandshakeRefused` where the answer is one of HTTP."""
        try:
            via = self._proxies.proxy_for(parsed(url), proxy)
            session = self._session or self._start()
            return await websocket.connect(
                session, url, headers=headers, proxy=via, connect_timeout_s=connect_timeout_s
            )
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise failure(error, url) from None

    def set_proxy(self, proxy: str) -> None:
        """A changed `network.proxy`, for the requests from now on."""
        self._proxies = Proxies(proxy, self._environ)
        self._places.clear()

    async def aclose(self) -> None:
        """Close every connection. A request that comes later opens a new session."""
        await self.renew()
        while self._retired:
            await self._retire()

    async def renew(self) -> None:
        """From now on no request goes over a connection that is open now.

        A request under way keeps its own (aiohttp would let its reader wait for ever); idle ones close by themselves.
        """
        now = asyncio.get_running_loop().time()
        while self._retired and now - self._retired[0][0] > RETIRED_S:
            await self._retire()
        session, self._session = self._session, None
        self._places.clear()
        if session is not None:
            self._retired.append((now, session, self._patience))

    async def _retire(self) -> None:
        _, session, patience = self._retired.pop(0)
        patience.close()
        await session.close()

    def _place(self, url: str) -> http1.Place | None:
        """Where requests to a URL go, None when they go the long way: by a proxy, or what is no plain URL."""
        place = None
        try:
            target = parsed(url)
            if target.scheme in {"http", "https"} and target.raw_host and target.raw_user is None:
                session = self._session or self._start()
                if self._proxies.proxy_for(target) is None:
                    place = http1.Place(target, session, USER_AGENT)
        except ValueError:
            pass
        if len(self._places) >= _MOST_PLACES:
            self._places.clear()
        self._places[url] = place
        return place

    async def _send_short(
        self,
        url: str,
        place: http1.Place,
        data: bytes,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  (aiohttp's own object)
        silence_s: float,
    ) -> http1.Exchange:
        session = self._session or self._start()
        connector = session.connector
        assert connector is not None
        assert timeout.sock_read is not None
        try:
            try:
                connection = await connector.connect(place.asked, [], timeout)
            except TimeoutError as error:
                raise aiohttp.ConnectionTimeoutError from error
            response = http1.Exchange(
                connection,
                self._patience,
                first_byte_s=timeout.sock_read,
                silence_s=silence_s,
                failure=partial(failure, url=url, sent=True),
            )
            await response.send(data)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise failure(error, url) from None
        return response

    async def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        *,
        body: Body,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  (aiohttp's own object)
        proxy: str,
    ) -> aiohttp.ClientResponse:
        try:
            target = parsed(url)
            via = self._proxies.proxy_for(target, proxy)
            data = io.BytesIO(body) if isinstance(body, bytes) and len(body) > PLAIN_BODY_MAX else body
            session = self._session or self._start()
            return await session.request(
                method, target, headers=headers, data=data, timeout=timeout, proxy=via, allow_redirects=False
            )
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise failure(error, url) from None

    def _start(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=0,
            ttl_dns_cache=DNS_TTL_S,
            keepalive_timeout=KEEP_ALIVE_S,
            ssl=self._ssl,
            resolver=self._resolver,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
            skip_auto_headers=("Content-Type",),
        )
        self._patience = http1.Patience(asyncio.get_running_loop())
        return self._session


@lru_cache(maxsize=64)
def _timeout(total_s: float | None, connect_s: float, read_s: float) -> aiohttp.ClientTimeout:
    """`connect` covers name, TCP, TLS and the proxy's tunnel; `sock_read` the wait for any next byte."""
    return aiohttp.ClientTimeout(total=total_s, connect=connect_s, sock_connect=connect_s, sock_read=read_s)


def ssl_context(ca_file: str) -> ssl.SSLContext | bool:
    """The certificates trusted. True is aiohttp's shared context with the system's roots, made once at its import.
    Raises `ConfigInvalid`."""
    if not ca_file:
        return True
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(cafile=config_module.expanded(ca_file))
    except OSError as error:  # ssl.SSLError is one
        problem = f"network.ca_file: {ca_file} cannot be used: {error.strerror or 'no certificates in it'}"
        raise ConfigInvalid(problem, key="network.ca_file", hint="it must be a PEM file") from None
    return context


def failure(error: BaseException, url: str, *, sent: bool = False) -> UpstreamFailure:
    """What aiohttp, ssl or the system raised, as ours. `sent`: the request was surely on its way already.

    The message names the host and nothing else of the URL: a query may hold a key.
    """
    host = urlsplit(url).netloc.rpartition("@")[2]
    kind, words, before_sending = _reading(error)
    return UpstreamFailure(f"{host}: {words}", kind=kind, sent=sent or not before_sending)


def _reading(error: BaseException) -> tuple[FailureKind, str, bool]:
    """Kind, words, and whether it surely happened before anything was sent."""
    match error:
        case aiohttp.ConnectionTimeoutError():
            return "timeout", "no connection in time", True
        case asyncio.TimeoutError():
            return "timeout", "no answer in time", False
        case aiohttp.ClientConnectorDNSError():
            return "dns", "the name cannot be resolved", True
        case aiohttp.ClientConnectorCertificateError():
            return (
                "tls",
                "the certificate is not trusted (a corporate root belongs into network.ca_file)",
                True,
            )
        case aiohttp.ClientSSLError() | ssl.SSLError() | ssl.CertificateError():
            return "tls", "the TLS handshake failed", True
        case aiohttp.ClientProxyConnectionError():
            return "refused", f"the proxy cannot be reached: {_system_words(error)}", True
        case aiohttp.ClientHttpProxyError():
            return "other", f"the proxy answered {error.status}", True
        case aiohttp.ClientConnectorError():
            kind: FailureKind = "refused" if error.os_error.errno == errno.ECONNREFUSED else "other"
            return kind, f"cannot connect: {_system_words(error)}", True
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientPayloadError():
            return "closed", "the connection was closed before the answer was whole", False
        case OSError():
            kind = "reset" if error.errno in {errno.ECONNRESET, errno.EPIPE, None} else "other"
            return kind, f"the connection broke: {_system_words(error)}", False
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError() | ValueError():
            return "other", "the URL cannot be used", True
        case aiohttp.ClientResponseError() | http1.NoHttp():
            return "other", "the answer is not HTTP", False
        case _:
            return "other", f"the request failed ({type(error).__name__})", False


def _system_words(error: OSError) -> str:
    return error.strerror or type(error).__name__
