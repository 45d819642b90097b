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
from functools import lru_cache
from typing import Protocol, TypeAlias
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

import aiohttp
from aiohttp.abc import AbstractResolver
from multidict import CIMultiDictProxy
from yarl import URL

from gemini_pool.wire import VERSION

from . import config as config_module
from .config import Network
from .errors import ConfigInvalid, FailureKind, UpstreamFailure

USER_AGENT = f"gemini-pool/{VERSION}"
KEEP_ALIVE_S = (
    60.0  # shorter than the idle time after which Google's front ends hang up, so few races with that
)
DNS_TTL_S = 60
# aiohttp warns above 1 MiB of plain bytes; a file-like body is written in pieces and lets other tasks run.
PLAIN_BODY_MAX = 1 << 20
MAX_FETCH = 16 << 20


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
DIRECT = "direct"  # as a `proxy`: none at all, whatever is configured


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


class AiohttpResponse:
    __slots__ = ("_first_byte_due", "_raw", "_silence_timeout_s", "_url", "headers", "status")

    def __init__(self, raw: aiohttp.ClientResponse, url: str, silence_timeout_s: float) -> None:
        self._raw = raw
        self._url = url
        self._silence_timeout_s = silence_timeout_s
        self._first_byte_due = True
        self.status: int = raw.status
        self.headers: CIMultiDictProxy[str] = raw.headers

    async def read(self, limit: int = MAX_FETCH) -> bytes:
        parts: list[bytes] = []
        left = limit
        async for chunk in self.iter_chunks():
            parts.append(chunk[:left])
            left -= len(chunk)
            if left < 0:
                self.close()
                break
        else:
            self.release()
        return b"".join(parts)

    def iter_chunks(self) -> AsyncIterator[bytes]:
        return _Chunks(self)

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


class _Chunks:
    __slots__ = ("_response",)

    def __init__(self, response: AiohttpResponse) -> None:
        self._response = response

    def __aiter__(self) -> _Chunks:
        return self

    async def __anext__(self) -> bytes:
        if chunk := await self._response.read_chunk():
            return chunk
        raise StopAsyncIteration


class Proxies:
    """Which proxy a URL goes through: the account's, else the configured one, else the environment's. None for the
    machine's own metadata server."""

    def __init__(self, configured: str, environ: Mapping[str, str] | None = None) -> None:
        self._configured = URL(configured) if configured else None
        self._environment = _environment_proxies(environ)
        self._known: dict[tuple[str, str], URL | None] = {}

    def proxy_for(self, url: URL, account_proxy: str = "") -> URL | None:
        if account_proxy == DIRECT or _is_this_machines(url.host or ""):
            return None
        if account_proxy:
            return _url(account_proxy)
        if self._configured is not None:
            return self._configured
        if not self._environment:
            return None
        place = (url.scheme, url.authority)
        if place not in self._known:
            self._known[place] = self._from_environment(url)
        return self._known[place]

    def _from_environment(self, url: URL) -> URL | None:
        proxy = self._environment.get(url.scheme) or self._environment.get("all")
        # An endpoint on this machine is never meant to go over the company's proxy.
        if not proxy or _is_loopback(url.host or ""):
            return None
        if proxy_bypass_environment(url.authority, dict(self._environment)):
            return None
        return URL(proxy if "://" in proxy else f"http://{proxy}")


class AiohttpTransport:
    """The daemon's only way out. Made without a loop; the session comes to life with the first request."""

    def __init__(
        self,
        network: Network,
        *,
        environ: Mapping[str, str] | None = None,
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._ssl = _ssl_context(network.ca_file)
        self._environ = environ
        self._proxies = Proxies(network.proxy, environ)
        self._resolver = resolver
        self._session: aiohttp.ClientSession | None = None

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
    ) -> AiohttpResponse:
        timeout = _timeout(None, connect_timeout_s, first_byte_timeout_s)
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

    def set_proxy(self, proxy: str) -> None:
        """A changed `network.proxy`, for the requests from now on."""
        self._proxies = Proxies(proxy, self._environ)

    async def aclose(self) -> None:
        """Close every connection. A request that comes later opens a new session."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

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
            target = _url(url)
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
        return self._session


@lru_cache(maxsize=64)
def _timeout(total_s: float | None, connect_s: float, read_s: float) -> aiohttp.ClientTimeout:
    """`connect` covers name, TCP, TLS and the proxy's tunnel; `sock_read` the wait for any next byte."""
    return aiohttp.ClientTimeout(total=total_s, connect=connect_s, sock_connect=connect_s, sock_read=read_s)


@lru_cache(maxsize=1024)
def _url(url: str) -> URL:
    return URL(url, encoded=True)


def _ssl_context(ca_file: str) -> ssl.SSLContext | bool:
    """True is aiohttp's shared context with the system's roots, made once at its import."""
    if not ca_file:
        return True
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(cafile=config_module.expanded(ca_file))
    except OSError as error:  # ssl.SSLError is one
        problem = f"network.ca_file: {ca_file} cannot be used: {error.strerror or 'no certificates in it'}"
        raise ConfigInvalid(problem, key="network.ca_file", hint="it must be a PEM file") from None
    return context


def _environment_proxies(environ: Mapping[str, str] | None) -> dict[str, str]:
    """Proxies by scheme, "no" for the exceptions. With `environ` given: by the same rules as urllib's."""
    if environ is None:
        return getproxies_environment()
    upper = {
        name.lower()[:-6]: value
        for name, value in environ.items()
        if name.lower().endswith("_proxy") and value
    }
    lower = {name[:-6]: value for name, value in environ.items() if name.endswith("_proxy")}
    found = {**upper, **lower}
    return {scheme: value for scheme, value in found.items() if value}


def _is_this_machines(host: str) -> bool:
    """A metadata server answers for the machine that asks: over a proxy it would be the proxy's machine's identity."""
    return host.startswith("169.254.") or host in {"metadata.google.internal", "fd00:ec2::254"}


def _is_loopback(host: str) -> bool:
    return host == "localhost" or host.endswith(".localhost") or host.startswith("127.") or host == "::1"


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
        case aiohttp.ClientResponseError():
            return "other", "the answer is not HTTP", False
        case _:
            return "other", f"the request failed ({type(error).__name__})", False


def _system_words(error: OSError) -> str:
    return error.strerror or type(error).__name__
