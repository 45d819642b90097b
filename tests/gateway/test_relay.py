"""Streams on their way to a client: whole, broken, and left."""

import asyncio
import json

import aiohttp
import pytest
from tests.fakes.gateway import KEY, ScriptedDispatcher, ScriptedStream, answered, gateway_site

from gemini_pool.errors import PoolError

BLOCKS = [b'data: {"n":1}\n\n', b'data: {"n":2}\n\ndata: {"n":3}\n\n']
SSE = "/v1beta/models/m:streamGenerateContent?alt=sse"
ARRAY = "/v1beta/models/m:streamGenerateContent"
CUT = PoolError("stream_cut", "a: the stream broke off", account="a")


async def raw(site, path, version="HTTP/1.1"):
    """Everything the server sends for a POST to `path`, until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    head = f"POST {path} {version}\r\nHost: 127.0.0.1:{site.port}\r\nx-goog-api-key: {KEY}\r\nContent-Length: 2\r\n\r\n"
    writer.write(head.encode() + b"{}")
    received = b""
    try:
        while data := await reader.read(65536):
            received += data
            if received.endswith(b"0\r\n\r\n"):
                break
    except ConnectionResetError:
        received += b"<reset>"
    writer.close()
    head, _, body = received.partition(b"\r\n\r\n")
    return head, body


def chunks(body):
    """The HTTP chunks of a body, and whether the final one came."""
    found = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            return found, True
        found.append(rest[:length])
        body = rest[length + 2 :]
    return found, False


async def test_sse_goes_through_as_it_came():
    """Each block is a chunk of its own, nothing is touched, the end is clean, and the stream is closed."""
    stream = ScriptedStream(BLOCKS, account="work", attempts=3, wait_s=1.5)
    async with gateway_site(ScriptedDispatcher(streams=stream)) as site:
        head, body = await raw(site, SSE)
    assert chunks(body) == (BLOCKS, True)
    assert b"text/event-stream" in head
    assert b"x-gemini-pool-account: work" in head
    assert b"x-gemini-pool-attempts: 3" in head
    assert b"x-gemini-pool-wait-ms: 1500" in head
    assert stream.closed


async def test_without_alt_sse_it_is_an_array():
    """One JSON array over all events, each written as soon as it is there."""
    async with gateway_site(ScriptedDispatcher(streams=ScriptedStream(BLOCKS))) as site:
        head, body = await raw(site, ARRAY)
    found, final = chunks(body)
    assert final
    assert found[0] == b'[{"n":1}'
    assert json.loads(b"".join(found)) == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert b"application/json" in head


@pytest.mark.parametrize("path", [SSE, "/v1internal:streamGenerateContent?alt=sse"])
async def test_a_broken_stream_never_ends_cleanly(path):
    """The bare error object in a chunk of its own, then the connection breaks: no final chunk."""
    dispatcher = ScriptedDispatcher(streams=ScriptedStream([BLOCKS[0], CUT]))
    async with gateway_site(dispatcher) as site:
        if "internal" in path:
            path = SSE.replace("/v1beta/models/m", "/v1/publishers/google/models/m")
        _, body = await raw(site, path)
        found, final = chunks(body)
        assert not final
        assert found[0] == BLOCKS[0]
        assert len(found) == 2
        error = json.loads(found[1])["error"]
        assert (error["code"], error["status"]) == (502, "UNAVAILABLE")
        assert dispatcher.streams.closed
        # a client library notices
        dispatcher.streams = ScriptedStream([BLOCKS[0], CUT])
        async with site.post(SSE) as answer:
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()


async def test_a_broken_array_stays_open():
    """In the array form a separator comes first; the array is not closed, the connection is."""
    async with gateway_site(ScriptedDispatcher(streams=ScriptedStream([BLOCKS[0], CUT]))) as site:
        _, body = await raw(site, ARRAY)
    found, final = chunks(body)
    assert not final
    assert found[:2] == [b'[{"n":1}', b",\r\n"]
    assert json.loads(found[2])["error"]["code"] == 502


async def test_a_fault_of_ours_in_mid_stream_breaks_it_too():
    """Whatever goes wrong after the first byte: never a clean end."""
    async with gateway_site(
        ScriptedDispatcher(streams=ScriptedStream([BLOCKS[0], RuntimeError("bug")]))
    ) as site:
        _, body = await raw(site, SSE)
    found, final = chunks(body)
    assert not final
    assert json.loads(found[1])["error"]["code"] == 500
    assert b"bug" not in body


async def test_an_old_client_gets_a_reset():
    """HTTP/1.0 has no chunks: a broken stream is reset, a whole one just ends."""
    async with gateway_site(ScriptedDispatcher(streams=ScriptedStream([BLOCKS[0], CUT]))) as site:
        head, body = await raw(site, SSE, "HTTP/1.0")
        assert (head + body).endswith(b"<reset>")
        site.dispatcher.streams = ScriptedStream(BLOCKS)
        _, body = await raw(site, SSE, "HTTP/1.0")
        assert body == b"".join(BLOCKS)


async def test_a_client_that_leaves_ends_the_stream_at_once():
    """The disconnect closes the source, though the source itself has nothing to say."""
    stream = ScriptedStream([BLOCKS[0], asyncio.Event()])
    async with gateway_site(ScriptedDispatcher(streams=stream)) as site:
        async with site.post(SSE) as answer:
            assert await answer.content.readany() == BLOCKS[0]
            answer.close()
        async with asyncio.timeout(10):
            await stream.ended.wait()
        assert site.gateway.services.meter.in_flight == 0


async def test_a_client_that_leaves_cancels_a_plain_call():
    """Before any answer, too."""
    began, cancelled = asyncio.Event(), asyncio.Event()

    async def wait_for_ever(call):
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with gateway_site(ScriptedDispatcher(answer=wait_for_ever)) as site:
        task = asyncio.ensure_future(site.post("/v1beta/models/m:generateContent").__aenter__())
        async with asyncio.timeout(10):
            await began.wait()
            task.cancel()
            await cancelled.wait()


async def test_a_slow_reader_holds_the_source_back():
    """Back-pressure: a client that does not read stops the stream's production, not memory."""
    produced = 0

    class Endless(ScriptedStream):
        async def __aiter__(self):
            nonlocal produced
            for _ in range(2000):
                produced += 1
                yield b"data: " + b"x" * 65_536 + b"\n\n"
                await asyncio.sleep(0)

    stream = Endless([])
    async with gateway_site(ScriptedDispatcher(streams=stream)) as site:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port, limit=2**16)
        writer.write(
            f"POST {SSE} HTTP/1.1\r\nHost: 127.0.0.1:{site.port}\r\nx-goog-api-key: {KEY}\r\nContent-Length: 2\r\n\r\n{{}}".encode()
        )
        seen = -1
        async with asyncio.timeout(10):
            while produced == 0 or seen != produced:  # until nothing more is produced
                seen = produced
                for _ in range(200):
                    await asyncio.sleep(0)
        assert 0 < produced < 500
        writer.transport.abort()
        async with asyncio.timeout(10):
            await stream.ended.wait()


async def test_the_connection_lives_on_after_a_whole_stream():
    """Keep-alive: the next request comes over the same connection."""
    dispatcher = ScriptedDispatcher(answer=answered(), streams=lambda call: ScriptedStream(BLOCKS))
    async with gateway_site(dispatcher) as site:
        for _ in range(3):
            await (await site.post(SSE)).read()
            await (await site.post("/v1beta/models/m:generateContent")).read()
        assert len(site.http.connector._conns) == 1
