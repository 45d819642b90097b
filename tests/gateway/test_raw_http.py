"""Requests as no library would send them, over raw sockets: nothing is smuggled, nothing is taken for what it is not."""

import asyncio
import gzip
import logging
import re

import pytest
from tests.fakes.gateway import KEY, ScriptedDispatcher, answered, gateway_site

from gemini_poold.gateway.services import Settings

PLAIN = "/v1beta/models/m:generateContent"
SECOND = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
TWO = "Content-Length: 2\r\n"
CHUNKED = b"2\r\n{}\r\n0\r\n\r\n"


async def raw(port: int, *pieces: bytes) -> tuple[list[int], bytes]:
    """The statuses that come back, and all bytes. Each piece is sent when the one before was answered; at last a request
    of our own, whose answer is left out: whatever was taken for a request before has been answered by then."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    said = b""
    last = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\n\r\n" % port
    try:
        async with asyncio.timeout(10):
            for piece in pieces:
                writer.write(piece)
                said += await _answer(reader)
            writer.write(last)
            while more := await _answer(reader):
                said += more
    finally:
        writer.close()
    statuses = [int(found) for found in re.findall(rb"HTTP/1\.[01] (\d+) ", said)]
    return (statuses[:-1] if said.endswith(b"\r\n\r\nok\n") else statuses), said


async def _answer(reader: asyncio.StreamReader) -> bytes:
    """One whole answer; nothing at the end of the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"Content-Length: (\d+)", head)
        return head + (await reader.readexactly(int(length[1])) if length else b"")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


def request(
    port: int,
    more: str = TWO,
    body: bytes = b"{}",
    *,
    target: str = PLAIN,
    verb: str = "POST",
    version: str = "1.1",
) -> bytes:
    head = f"{verb} {target} HTTP/{version}\r\nHost: 127.0.0.1:{port}\r\nx-goog-api-key: {KEY}\r\n{more}\r\n"
    return head.encode("latin-1") + body


FRAMING = {
    "both lengths": ("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    "both lengths, the other way round": ("Transfer-Encoding: chunked\r\nContent-Length: 2\r\n", b"0\r\n\r\n"),
    "two lengths": ("Content-Length: 2\r\nContent-Length: 3\r\n", b"{}"),
    "the same length twice": ("Content-Length: 2\r\nContent-Length: 2\r\n", b"{}"),
    "a list of lengths": ("Content-Length: 2, 2\r\n", b"{}"),
    "a signed length": ("Content-Length: +2\r\n", b"{}"),
    "a negative length": ("Content-Length: -2\r\n", b"{}"),
    "a hexadecimal length": ("Content-Length: 0x2\r\n", b"{}"),
    "a length with an underscore": ("Content-Length: 1_0\r\n", b"{}"),
    "no length in its header": ("Content-Length: \r\n", b"{}"),
    "a length beyond all numbers": ("Content-Length: 99999999999999999999\r\n", b"{}"),
    "an unknown coding": ("Transfer-Encoding: xchunked\r\n", CHUNKED),
    "a coding before chunked": ("Transfer-Encoding: gzip, chunked\r\n", CHUNKED),
    "a coding after chunked": ("Transfer-Encoding: chunked, identity\r\n", CHUNKED),
    "chunked twice": ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", CHUNKED),
    "a blank before the colon": ("Transfer-Encoding : chunked\r\n", CHUNKED),
    "a signed chunk": ("Transfer-Encoding: chunked\r\n", b"+2\r\n{}\r\n0\r\n\r\n"),
    "a prefixed chunk": ("Transfer-Encoding: chunked\r\n", b"0x2\r\n{}\r\n0\r\n\r\n"),
    "a chunk beyond all numbers": ("Transfer-Encoding: chunked\r\n", b"fffffffffffffffff\r\n{}\r\n"),
    "chunks with bare line feeds": ("Transfer-Encoding: chunked\r\n", b"2\n{}\n0\n\n"),
    "a length among the trailers": ("Transfer-Encoding: chunked\r\n", b"2\r\n{}\r\n0\r\nContent-Length: 5\r\n\r\n"),
    "a folded line": ("X-A: b\r\n c\r\n" + TWO, b"{}"),
    "a bare line feed": ("X-A: b\nX-C: d\r\n" + TWO, b"{}"),
    "a bare carriage return": ("X-A: b\rX-C: d\r\n" + TWO, b"{}"),
    "a null byte": ("X-A: b\0c\r\n" + TWO, b"{}"),
    "a control character in a name": ("X\x01A: b\r\n" + TWO, b"{}"),
    "no colon": ("XA\r\n" + TWO, b"{}"),
    "no name": (": b\r\n" + TWO, b"{}"),
    "a second Host": ("Host: evil.example\r\n" + TWO, b"{}"),
    "a long line": (f"X-A: {'b' * 9000}\r\n{TWO}", b"{}"),
    "many headers": ("".join(f"X-{n}: b\r\n" for n in range(300)) + TWO, b"{}"),
}  # fmt: skip


@pytest.mark.parametrize(("more", "body"), FRAMING.values(), ids=FRAMING)
async def test_doubtful_framing_is_refused(more, body):
    """One 400 in our own words, nothing dispatched, and what stands behind it is not taken for a request."""
    async with gateway_site() as site:
        statuses, said = await raw(site.port, request(site.port, more, body + SECOND))
        assert statuses == [400]
        assert not site.dispatcher.calls
        assert b'"status":"INVALID_ARGUMENT"' in said
        assert KEY.encode() not in said


async def test_what_cannot_be_read_is_not_quoted(caplog):
    """Neither the answer nor the log repeats a line that could not be parsed: it may hold a key."""
    caplog.set_level(logging.DEBUG)
    async with gateway_site() as site:
        _, said = await raw(site.port, request(site.port, f"Authorization: Bearer {KEY}\x00\r\n"))
        assert b"400" in said.partition(b"\r\n")[0]
        assert KEY.encode() not in said
    assert KEY not in caplog.text


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://127.0.0.1:{port}" + PLAIN, 200),
        ("http://evil.example" + PLAIN, 403),
        ("http://user:pass@127.0.0.1:{port}" + PLAIN, 403),
        ("http://127.0.0.1:1" + PLAIN, 403),
        ("//evil.example" + PLAIN, 404),
        ("//v1beta/models/m:generateContent", 404),
        (PLAIN + "#fragment", 200),
        ("v1beta/models/m:generateContent", 400),
        ("/v1beta/models/m m:generateContent", 400),
        ("/v1beta/models/m%zz:generateContent", 400),
        ("/v1beta/models/m%00:generateContent", 400),
        ("/v1beta/models/m%0d%0aX-A:b:generateContent", 400),
        ("/v1beta/models/..%2f..%2fm:generateContent", 400),
        ("/v1beta/models/m%3fkey=1:generateContent", 400),
        ("/v1beta/models/m%23:generateContent", 400),
        (PLAIN + "?x=%0d%0aX-A:b", 200),
        (PLAIN + "?a=" + "b" * 9000, 400),
    ],
)
async def test_targets(target, status):
    """A whole URL is held against the guards like a Host; a name of a model means nothing in a URL."""
    async with gateway_site() as site:
        statuses, _ = await raw(site.port, request(site.port, target=target.format(port=site.port)))
        assert statuses[0] == status
        assert [call.model for call in site.dispatcher.calls] == (["m"] if status == 200 else [])


async def test_no_tunnel():
    """CONNECT is refused, to wherever it is."""
    async with gateway_site() as site:
        for target in ("evil.example:443", f"127.0.0.1:{site.port}"):
            statuses, _ = await raw(site.port, request(site.port, "", b"", target=target, verb="CONNECT"))
            assert statuses[0] == 403


async def test_an_offer_to_upgrade_is_declined():
    """curl and Java offer HTTP/2: the request is served as it is, and so is the next one on the connection."""
    offer = (
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"
    )
    async with gateway_site() as site:
        statuses, _ = await raw(site.port, request(site.port, offer + TWO), request(site.port))
        assert statuses == [200, 200]
        assert [call.body for call in site.dispatcher.calls] == [b"{}", b"{}"]


async def test_a_body_that_nobody_read_is_no_request():
    """What a refused or ignored request carries along is dropped, not parsed."""
    async with gateway_site() as site:
        for target, verb in (("/healthz", "GET"), ("/nowhere", "POST"), ("/v1beta/models", "GET")):
            length = f"Content-Length: {len(SECOND)}\r\n"
            statuses, _ = await raw(site.port, request(site.port, length, SECOND, target=target, verb=verb))
            assert len(statuses) == 1, target


@pytest.mark.parametrize("coding", ["compress", "gzip, gzip", "x-gzip", "aes128gcm"])
async def test_a_coding_that_we_do_not_know_is_refused(coding):
    """Its bytes would reach Google as if they were the body."""
    async with gateway_site() as site, site.post(PLAIN, b"{}", Content_Encoding=coding) as answer:
        assert answer.status == 400
        assert "Content-Encoding" in (await answer.json())["error"]["message"]
        assert not site.dispatcher.calls


async def test_compressed_bodies():
    """gzip is undone; `identity` is none; what is not what it says is a 400."""
    async with gateway_site() as site:
        assert (await site.post(PLAIN, gzip.compress(b'{"a":1}'), Content_Encoding="gzip")).status == 200
        assert (await site.post(PLAIN, b'{"a":1}', Content_Encoding="identity")).status == 200
        assert [call.body for call in site.dispatcher.calls] == [b'{"a":1}'] * 2
        assert (await site.post(PLAIN, b'{"a":1}', Content_Encoding="gzip")).status == 400
        assert len(site.dispatcher.calls) == 2


async def test_a_decompression_bomb_ends_at_the_limit():
    """What unpacks to more than a body may have is refused as soon as that is seen, and takes no more room than that."""
    bomb = gzip.compress(b"x" * (64 << 20))
    most = 0

    async def never(call):
        return answered()

    async with gateway_site(ScriptedDispatcher(never), settings=Settings(body_limit=1 << 20)) as site:
        meter = site.gateway.services.meter
        answer = await site.post(PLAIN, bomb, Content_Encoding="gzip")
        most = max(most, meter.held_bytes)
        assert answer.status == 413
        assert (await answer.json())["error"]["message"]
        assert most <= 2 << 20
        assert meter.held_bytes == 0
        assert not site.dispatcher.calls
