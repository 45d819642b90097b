"""Kept connections when the daemon stops: nobody is hung up on who may just be asking, and idle ones can go on elsewhere."""

import asyncio
import socket

import pytest
from tests.fakes.gateway import ANSWER, KEY, ScriptedDispatcher, answered, gateway_site

from gemini_poold.gateway import connections

PLAIN = "/v1beta/models/m:generateContent"


def request(site, *, body=b"{}"):
    head = f"POST {PLAIN} HTTP/1.1\r\nHost: 127.0.0.1:{site.port}\r\nx-goog-api-key: {KEY}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def answer_of(reader):
    """Head and body of one answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return head, await reader.readexactly(length)


async def asked(site):
    """A connection on which one request was answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(request(site))
    head, _ = await answer_of(reader)
    assert b"connection: close" not in head.lower()
    return reader, writer


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(connections, "LINGER_S", 0.05)
    monkeypatch.setattr(connections, "HALF_S", 0.3)


async def test_an_idle_connection_is_lingered_for_and_then_closed():
    """With nobody to take it over, it is hung up on when nothing has come for a while."""
    async with gateway_site() as site:
        reader, writer = await asked(site)
        await site.gateway.stop(10.0)
        assert await reader.read() == b""
        writer.close()


async def test_half_a_request_is_waited_for():
    """The rest of a head that comes during the drain gets its answer; one that never comes holds nobody up."""
    async with gateway_site() as site:
        reader, writer = await asked(site)
        _, other = await asked(site)
        writer.write(request(site)[:30])
        other.write(b"POST /v1beta")
        await asyncio.sleep(0.01)
        stopping = asyncio.ensure_future(site.gateway.stop(10.0))
        await asyncio.sleep(0.1)
        writer.write(request(site)[30:])
        head, body = await answer_of(reader)
        assert b"200 OK" in head and body == ANSWER
        assert b"connection: close" in head.lower()
        await stopping
        writer.close()
        other.close()


async def test_what_is_under_way_is_answered_for_the_last_time():
    """An answer whose head has not left when the drain begins says that its connection ends."""
    gate = asyncio.Event()

    async def wait(_call):
        await gate.wait()
        return answered()

    async with gateway_site(ScriptedDispatcher(wait)) as site:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(request(site))
        while not site.dispatcher.calls:
            await asyncio.sleep(0)
        stopping = asyncio.ensure_future(site.gateway.stop(10.0))
        await asyncio.sleep(0.1)
        assert not stopping.done()
        gate.set()
        head, _ = await answer_of(reader)
        assert b"connection: close" in head.lower()
        assert await reader.read() == b""
        await stopping
        writer.close()


async def test_an_idle_connection_goes_on_with_the_successor():
    """It is given away as it is, with what its client sends meanwhile, and the next gateway answers on it."""
    kept = []
    listening = socket.create_server(("127.0.0.1", 0))
    async with gateway_site(tcp=[listening.dup()]) as first:
        reader, writer = await asked(first)
        await first.gateway.stop(10.0, lambda sock, state: kept.append((sock, state)) is None)
        writer.write(request(first))
        (sock, state), *others = kept
        assert (state, others) == ({}, [])
        async with gateway_site(tcp=[listening.dup()]) as second:
            assert await second.gateway.adopt(sock) is True
            head, body = await answer_of(reader)
            assert b"200 OK" in head and body == ANSWER
            assert len(second.dispatcher.calls) == 1
            writer.write(request(second))
            await answer_of(reader)
            writer.close()
    listening.close()


async def test_no_connection_is_adopted_from_a_door_that_is_shut():
    """The port was changed meanwhile: nobody serves what came in through the old one."""
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        with socket.create_connection(elsewhere.getsockname()) as client:
            accepted, _ = elsewhere.accept()
            async with gateway_site() as site:
                assert await site.gateway.adopt(accepted) is False
            accepted.close()
            assert client.recv(1) == b""
