"""HTTP towards Google: what is sent, how long is waited for what, and which of our errors every break becomes.

Real sockets on loopback throughout: the peers are a few scripted bytes each, so that every break can be had.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import errno
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from yarl import URL

from gemini_poold import transport as module
from gemini_poold.config import Network
from gemini_poold.errors import ConfigInvalid, UpstreamFailure
from gemini_poold.proxies import Proxies
from gemini_poold.transport import USER_AGENT, AiohttpTransport

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
# A GET goes the whole way through aiohttp's session, a small POST the short one (`http1.py`): the same must hold of both.
BOTH_WAYS = pytest.mark.parametrize(
    "asked", [{"method": "GET"}, {"method": "POST", "body": b"{}"}], ids=["long", "short"]
)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Peer:
    """A TCP server that answers each request with what its script says, and remembers what it was sent."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[bytes] = []
        self.connections = 0
        self.gone = asyncio.Event()
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (
                        int(line[16:])
                        for line in head.split(b"\r\n")
                        if line.lower().startswith(b"content-length: ")
                    ),
                    0,
                )
                self.requests.append(head + await reader.readexactly(length))
                await self.script(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.gone.set()
        finally:
            writer.close()


@asynccontextmanager
async def peer(script: Script, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Peer]:
    served = Peer(script)
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(served.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    served.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    try:
        yield served
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


@asynccontextmanager
async def transport(network: Network = Network(), **more: object) -> AsyncIterator[AiohttpTransport]:
    made = AiohttpTransport(network, **{"environ": {}, **more})  # type: ignore[arg-type]
    try:
        yield made
    finally:
        await made.aclose()


def answers(data: bytes) -> Script:
    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return script


def then_closes(data: bytes) -> Script:
    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        writer.close()
        raise ConnectionError

    return script


def then_resets(data: bytes) -> Script:
    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        writer.transport.abort()
        raise ConnectionError

    return script


async def test_a_request_is_sent_as_it_was_given() -> None:
    """Method, path (escapes included), headers and body arrive; we name ourselves, ask for no compression, and add
    neither cookies nor a content type."""
    async with peer(answers(OK)) as google, transport() as out:
        url = f"{google.url}/v1beta/models/a%2Fb:generateContent?alt=sse&x=%C3%BC"
        fetched = await out.fetch("POST", url, headers={"x-goog-api-key": "fake-key-1"}, body=b'{"a":1}')
    head, _, body = google.requests[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /v1beta/models/a%2Fb:generateContent?alt=sse&x=%C3%BC HTTP/1.1"
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:])}
    assert headers["user-agent"] == USER_AGENT
    assert headers["accept-encoding"] == "identity"
    assert headers["x-goog-api-key"] == "fake-key-1"
    assert headers["content-length"] == "7"
    assert not {"cookie", "content-type"} & set(headers)
    assert body == b'{"a":1}'
    assert (fetched.status, fetched.body) == (200, b"hi")


async def test_a_callers_header_wins() -> None:
    """Who asks for compression gets it asked for, and the compressed bytes as they are."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8bx"
    async with peer(answers(answer)) as google, transport() as out:
        response = await out.open("GET", google.url, headers={"Accept-Encoding": "gzip", "User-Agent": "x"})
        assert await response.read() == b"\x1f\x8bx"
        assert response.headers["CONTENT-encoding"] == "gzip"
    assert b"Accept-Encoding: gzip\r\n" in google.requests[0]
    assert b"User-Agent: x\r\n" in google.requests[0]


async def test_a_large_body_is_sent_whole() -> None:
    """Several MiB go out with their length and without a warning."""
    async with peer(answers(OK)) as google, transport() as out:
        await out.fetch("POST", google.url, headers={}, body=b"x" * (3 << 20))
    assert google.requests[0].endswith(b"x" * (3 << 20))


@BOTH_WAYS
async def test_connections_are_reused(asked: dict[str, Any]) -> None:
    """A finished answer leaves its connection for the next request; so does one that was released after its end."""
    async with peer(answers(OK)) as google, transport() as out:
        for _ in range(3):
            await out.fetch("GET", google.url, headers={})
        response = await out.open(url=google.url, headers={}, **asked)
        assert [chunk async for chunk in response.iter_chunks()] == [b"hi"]
        response.release()
        await out.fetch("GET", google.url, headers={})
    assert google.connections == 1


async def test_redirects_are_answers() -> None:
    """A redirect is handed out, never followed: its target is not meant to see the credential."""
    answer = (
        b"HTTP/1.1 307 X\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\nSet-Cookie: a=b\r\n\r\n"
    )
    async with peer(answers(answer)) as google, transport() as out:
        assert (await out.fetch("POST", google.url, headers={}, body=b"{}")).status == 307
        await out.fetch("GET", google.url, headers={})
    assert b"ookie" not in google.requests[1]


@BOTH_WAYS
async def test_chunks_come_as_the_network_brings_them(asked: dict[str, Any]) -> None:
    """A chunk is handed on when it arrives, not when the next one does."""
    may_go_on = asyncio.Event()

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED + b"5\r\nfirst\r\n")
        await may_go_on.wait()
        writer.write(b"6\r\nsecond\r\n0\r\n\r\n")

    async with peer(script) as google, transport() as out:
        response = await out.open(url=google.url, headers={}, **asked)
        chunks = response.iter_chunks()
        assert await anext(chunks) == b"first"
        may_go_on.set()
        assert [chunk async for chunk in chunks] == [b"second"]
        response.release()


@BOTH_WAYS
async def test_closing_aborts_the_connection_at_once(asked: dict[str, Any]) -> None:
    """`close` in the middle of a stream reaches the peer, so that it stops generating."""
    async with peer(answers(CHUNKED + b"5\r\nfirst\r\n")) as google, transport() as out:
        response = await out.open(url=google.url, headers={}, **asked)
        assert await anext(response.iter_chunks()) == b"first"
        response.close()
        async with asyncio.timeout(5):
            await google.gone.wait()


@BOTH_WAYS
async def test_reading_stops_at_its_limit(asked: dict[str, Any]) -> None:
    """A body larger than the limit is cut and its connection closed."""
    async with (
        peer(answers(b"HTTP/1.1 500 X\r\nContent-Length: 100\r\n\r\n" + b"x" * 50)) as google,
        transport() as out,
    ):
        response = await out.open(url=google.url, headers={}, **asked)
        assert await response.read(20) == b"x" * 20
        async with asyncio.timeout(5):
            await google.gone.wait()


async def never(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (then_closes(b""), "closed"),
        (then_closes(b"HTTP/1.1 200 OK\r\nContent-Le"), "closed"),
        (then_resets(b""), "reset"),
        (never, "timeout"),
        (answers(b"SSH-2.0-OpenSSH_9\r\n\r\n"), "other"),
    ],
)
async def test_an_answer_that_does_not_come(script: Script, kind: str) -> None:
    """What broke before the headers has a kind; the request was on its way already."""
    async with peer(script) as google, transport() as out:
        with pytest.raises(UpstreamFailure) as caught:
            await out.open(
                "POST", f"{google.url}/x?key=fake-key-1", headers={}, body=b"{}", first_byte_timeout_s=0.2
            )
    assert (caught.value.kind, caught.value.sent) == (kind, True)
    assert "fake-key-1" not in str(caught.value)
    assert google.url.removeprefix("http://") in str(caught.value)


@BOTH_WAYS
@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (then_closes(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"), "closed"),
        (then_closes(CHUNKED + b"3\r\nabc\r\n"), "closed"),
        (then_closes(CHUNKED + b"3\r\nab"), "closed"),
        (then_resets(CHUNKED + b"3\r\nabc\r\n"), "closed"),
        (answers(CHUNKED + b"3\r\nabc\r\n"), "timeout"),
    ],
)
async def test_a_body_that_is_cut(script: Script, kind: str, asked: dict[str, Any]) -> None:
    """A body that does not reach its end is a failure, never a short answer; silence between chunks counts."""
    async with peer(script) as google, transport() as out:
        response = await out.open(url=google.url, headers={}, **asked, silence_timeout_s=0.2)
        with pytest.raises(UpstreamFailure) as caught:
            await response.read()
    assert (caught.value.kind, caught.value.sent) == (kind, True)


@BOTH_WAYS
async def test_the_first_chunk_has_its_own_patience(asked: dict[str, Any]) -> None:
    """Between the headers and the first piece of the body the longer limit holds, as before the headers."""
    waited = asyncio.Event()

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED)
        await waited.wait()
        writer.write(b"1\r\nx\r\n")

    async with peer(script) as google, transport() as out:
        response = await out.open(url=google.url, headers={}, **asked, silence_timeout_s=0.05)
        chunks = response.iter_chunks()
        first = asyncio.ensure_future(anext(chunks))
        done, _ = await asyncio.wait(
            {first}, timeout=0.3
        )  # several times the silence that would be too long later
        assert not done
        waited.set()
        assert await first == b"x"
        with pytest.raises(UpstreamFailure, match="no answer in time"):
            await anext(chunks)


async def test_a_fetch_has_one_deadline() -> None:
    """A peer that dribbles does not hold a token call beyond its time."""

    async def dribble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED)
        while True:
            writer.write(b"1\r\nx\r\n")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with peer(dribble) as google, transport() as out:
        with pytest.raises(UpstreamFailure) as caught:
            await out.fetch("GET", google.url, headers={}, timeout_s=0.2)
    assert caught.value.kind == "timeout"


async def test_nobody_listens() -> None:
    """A refused connection is told as such, and nothing was sent."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/"
    async with transport() as out:
        with pytest.raises(UpstreamFailure, match="onnect") as caught:
            await out.fetch("GET", url, headers={})
    assert (caught.value.kind, caught.value.sent) == ("refused", False)


class NoNames(AbstractResolver):
    """A resolver that is offline."""

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[dict[str, object]]:  # type: ignore[override]
        raise OSError(None, "offline")

    async def close(self) -> None:
        return None


class SlowNames(NoNames):
    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[dict[str, object]]:  # type: ignore[override]
        await asyncio.Event().wait()
        return []


@pytest.mark.parametrize(("resolver", "kind"), [(NoNames, "dns"), (SlowNames, "timeout")])
async def test_a_name_that_cannot_be_resolved(resolver: type[NoNames], kind: str) -> None:
    """Being offline is its own kind; a resolver that does not answer ends with the connection's limit."""
    async with transport(resolver=resolver()) as out:
        with pytest.raises(UpstreamFailure) as caught:
            await out.open("GET", "http://google.invalid/", headers={}, connect_timeout_s=0.1)
    assert (caught.value.kind, caught.value.sent) == (kind, False)


@pytest.mark.parametrize("url", ["", "no url", "http://", "ftp://x/", "http://a:b/"])
async def test_an_unusable_url(url: str) -> None:
    """A URL that cannot be used is a failure like others, not a foreign exception."""
    async with transport() as out:
        with pytest.raises(UpstreamFailure) as caught:
            await out.fetch("GET", url, headers={})
    assert (caught.value.kind, caught.value.sent) == ("other", False)


def certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A self-made root for 127.0.0.1: the server's context and the file to trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test root")])
    now = dt.datetime.now(dt.UTC)
    import ipaddress

    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "root.pem"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = folder / "key.pem"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, private)
    return context, pem


async def test_a_corporate_root_is_trusted_besides_the_systems(tmp_path: Path) -> None:
    """With `ca_file` a private root is trusted; without it the failure is told as the certificate's."""
    context, pem = certificate(tmp_path)
    async with peer(answers(OK), tls=context) as google:
        async with transport(Network(ca_file=str(pem))) as out:
            assert (await out.fetch("GET", google.url, headers={})).body == b"hi"
            assert len(module.ssl_context(str(pem)).get_ca_certs()) >= 1  # type: ignore[union-attr]
        async with transport() as out:
            with pytest.raises(UpstreamFailure, match=r"network\.ca_file") as caught:
                await out.fetch("GET", google.url, headers={})
    assert (caught.value.kind, caught.value.sent) == ("tls", False)


async def test_tls_with_somebody_who_speaks_none() -> None:
    """A plain server behind https is a TLS failure."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server, transport() as out:
        with pytest.raises(UpstreamFailure) as caught:
            await out.fetch("GET", f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/", headers={})
    assert caught.value.kind == "tls"


@pytest.mark.parametrize("content", [None, b"", b"not PEM"])
def test_a_ca_file_that_cannot_be_used(tmp_path: Path, content: bytes | None) -> None:
    """A missing or empty root file is a configuration error that names the key."""
    path = tmp_path / "root.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigInvalid, match=r"network\.ca_file"):
        AiohttpTransport(Network(ca_file=str(path)))


async def test_a_proxy_gets_the_whole_url_and_its_password() -> None:
    """Plain requests go through the configured proxy, with the credentials of its URL."""
    async with peer(answers(OK)) as proxy:
        host = proxy.url.removeprefix("http://")
        async with transport(Network(proxy=f"http://user:fake@{host}")) as out:
            assert (await out.fetch("GET", "http://google.invalid/x", headers={})).body == b"hi"
    assert proxy.requests[0].startswith(b"GET http://google.invalid/x HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic dXNlcjpmYWtl\r\n" in proxy.requests[0]


async def test_https_goes_through_the_proxys_tunnel(tmp_path: Path) -> None:
    """CONNECT, then TLS with Google itself; a proxy that refuses is told with its status."""
    context, pem = certificate(tmp_path)
    async with peer(answers(OK), tls=context) as google:
        port = int(google.url.rpartition(":")[2])

        async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")

            async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
                while data := await source.read(65536):
                    target.write(data)

            copies = asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))
            try:
                await copies
            finally:
                inner_writer.close()

        async with peer(tunnel) as proxy, transport(Network(proxy=proxy.url, ca_file=str(pem))) as out:
            assert (await out.fetch("GET", google.url, headers={})).body == b"hi"
            assert proxy.requests[0].startswith(f"CONNECT 127.0.0.1:{port} ".encode())
        refusing = answers(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        async with peer(refusing) as proxy, transport(Network(proxy=proxy.url)) as out:
            with pytest.raises(UpstreamFailure, match="the proxy answered 407") as caught:
                await out.fetch("GET", google.url, headers={})
    assert (caught.value.kind, caught.value.sent) == ("other", False)


async def test_a_proxy_that_is_not_there() -> None:
    """The failure names the proxy, so that nobody looks for the fault at Google's."""
    async with transport(Network(proxy="http://127.0.0.1:1")) as out:
        with pytest.raises(UpstreamFailure, match="proxy cannot be reached") as caught:
            await out.fetch("GET", "http://google.invalid/", headers={})
    assert (caught.value.kind, caught.value.sent) == ("refused", False)


async def test_a_changed_proxy_holds_from_the_next_request_on() -> None:
    """`set_proxy` is what a reload calls."""
    async with peer(answers(OK)) as google, transport() as out:
        await out.fetch("GET", google.url, headers={})
        out.set_proxy(google.url)
        await out.fetch("GET", "http://google.invalid/", headers={})
    assert google.requests[1].startswith(b"GET http://google.invalid/")


async def test_after_a_suspend_no_request_takes_an_old_connection() -> None:
    """`renew`: who is being answered still is, who comes now gets a connection of its own; several times over."""
    more = asyncio.Event()

    async def slowly(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nh")
        await more.wait()
        writer.write(b"i")

    async with peer(slowly) as google, transport() as out:
        under_way = await out.open("GET", google.url, headers={})
        await out.renew()
        await out.renew()
        more.set()
        assert await under_way.read() == b"hi"
        await out.fetch("GET", google.url, headers={})
        assert google.connections == 2
        await out.renew()
        await out.fetch("GET", google.url, headers={})
        await out.fetch("GET", google.url, headers={})
        assert google.connections == 3


ENV = {"HTTPS_PROXY": "http://env:1", "https_proxy": "http://lower:1", "NO_PROXY": "internal.example, .corp"}


@pytest.mark.parametrize(
    ("configured", "account", "environ", "url", "expected"),
    [
        ("", "", {}, "https://google.example/", None),
        ("", "", ENV, "https://google.example/", "http://lower:1"),
        ("", "", {"HTTPS_PROXY": "http://env:1"}, "https://google.example/", "http://env:1"),
        ("", "", {"HTTPS_PROXY": "http://env:1", "https_proxy": ""}, "https://google.example/", None),
        ("", "", {"HTTPS_PROXY": "env:1"}, "https://google.example/", "http://env:1"),
        ("", "", {"ALL_PROXY": "http://all:1"}, "https://google.example/", "http://all:1"),
        ("", "", ENV, "http://google.example/", None),
        ("", "", ENV, "https://internal.example/", None),
        ("", "", ENV, "https://internal.example:8443/", None),
        ("", "", ENV, "https://a.corp/", None),
        ("", "", {**ENV, "no_proxy": "*"}, "https://google.example/", None),
        ("", "", ENV, "https://127.0.0.1:5/", None),
        ("", "", ENV, "https://localhost/", None),
        ("", "", ENV, "https://[::1]:5/", None),
        ("http://conf:1", "", ENV, "https://internal.example/", "http://conf:1"),
        ("http://conf:1", "", {}, "http://127.0.0.1:5/", "http://conf:1"),
        ("http://conf:1", "http://mine:1", ENV, "https://google.example/", "http://mine:1"),
        ("http://conf:1", "http://mine:1", ENV, "http://169.254.169.254/latest", None),
        ("http://conf:1", "http://mine:1", ENV, "http://169.254.170.2/v2", None),
        ("http://conf:1", "", ENV, "http://metadata.google.internal/computeMetadata/v1/", None),
        ("http://conf:1", "", ENV, "http://[fd00:ec2::254]/latest", None),
        ("http://conf:1", "direct", ENV, "https://google.example/", None),
    ],
)
def test_which_proxy_a_url_goes_through(
    configured: str, account: str, environ: dict[str, str], url: str, expected: str | None
) -> None:
    """The account's, else the configured one, else the environment's with its exceptions; loopback only if told."""
    proxies = Proxies(configured, environ)
    for _ in range(2):  # the second answer comes from memory
        found = proxies.proxy_for(URL(url), account)
        assert (str(found).rstrip("/") if found else None) == expected


def test_the_processs_own_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an `environ` the real one is read, when the transport is made."""
    for name in ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://env:1")
    assert str(Proxies("").proxy_for(URL("https://google.example/"))).startswith("http://env:1")


@pytest.mark.parametrize(
    ("error", "kind", "sent"),
    [
        (aiohttp.SocketTimeoutError(), "timeout", True),
        (aiohttp.ConnectionTimeoutError(), "timeout", False),
        (TimeoutError(), "timeout", True),
        (aiohttp.ServerDisconnectedError(), "closed", True),
        (aiohttp.ClientOSError(errno.EPIPE, "x"), "reset", True),
        (OSError(errno.EMFILE, "Too many open files"), "other", True),
        (ssl.SSLError("x"), "tls", False),
        (aiohttp.ClientError(), "other", True),
        (RuntimeError("fake-key-1"), "other", True),
    ],
)
def test_foreign_exceptions_become_ours(error: Exception, kind: str, sent: bool) -> None:
    """Every exception has a kind; what may have reached Google counts as sent; no foreign text is repeated blindly."""
    failure = module.failure(error, "https://user:pw@host:1/x?key=fake-key-1")
    assert (failure.kind, failure.sent) == (kind, sent)
    assert failure.message.startswith("host:1: ")
    assert "fake-key-1" not in failure.message
    assert "pw" not in failure.message
    assert module.failure(error, "https://host/", sent=True).sent


async def test_a_closed_transport_may_be_used_again() -> None:
    """`aclose` closes what is open; closing twice, and a request afterwards, are fine."""
    async with peer(answers(OK)) as google, transport() as out:
        await out.fetch("GET", google.url, headers={})
        await out.aclose()
        await out.aclose()
        await out.fetch("GET", google.url, headers={})
    assert google.connections == 2
