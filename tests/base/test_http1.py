"""The short way of a small request: who comes this way, what is sent, one timer for all who wait."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from tests.base.test_transport import OK, answers, peer, transport
from tests.fakes.clock import run_virtual
from yarl import URL

from gemini_poold.http1 import BODY_MAX, Patience, Place
from gemini_poold.transport import USER_AGENT


async def heads(url: str, headers: dict[str, str]) -> bytes | None:
    async with aiohttp.ClientSession() as session:
        return Place(URL(url, encoded=True), session, "us/1").head(headers, 2)


async def test_the_head_is_what_the_long_way_sends() -> None:
    """Line by line the same as through aiohttp's session, so that Google cannot tell which way a request went."""
    async with peer(answers(OK)) as google, transport() as out:
        url = f"{google.url}/v1beta/a%2Fb:generateContent?alt=sse&x=%C3%BC"
        for body in (b"{}", b"{}" + b" " * BODY_MAX):
            response = await out.open(
                "POST", url, headers={"x-a": "1", "Content-Type": "text/plain"}, body=body
            )
            assert await response.read() == b"hi"
    short, long = (set(sent.partition(b"\r\n\r\n")[0].split(b"\r\n")) for sent in google.requests)
    assert {line.split(b":")[0] for line in short ^ long} == {b"Content-Length"}
    assert f"User-Agent: {USER_AGENT}".encode() in short


async def test_a_callers_agent_and_encoding_win() -> None:
    """Once each, in place of ours, however they are written."""
    head = await heads("http://h/p", {"user-agent": "x", "ACCEPT-ENCODING": "gzip"})
    assert head is not None
    assert head.lower().count(b"user-agent") == head.lower().count(b"accept-encoding") == 1
    assert b"user-agent: x\r\n" in head
    assert b"ACCEPT-ENCODING: gzip\r\n" in head


@pytest.mark.parametrize("value", ["a\r\nx-injected: 1", "a\nb", "a\rb", "a\0b"])
async def test_a_value_cannot_begin_a_header(value: str) -> None:
    """Such a one is sent to where it is refused, as aiohttp refuses it."""
    assert await heads("http://h/p", {"x-a": value}) is None


@pytest.mark.parametrize("name", ["Host", "Transfer-Encoding", "content-length", "Expect", "Connection"])
async def test_what_frames_a_message_is_not_ours_to_write(name: str) -> None:
    """Headers that say where a message ends, or to whom it goes, are left to aiohttp."""
    assert await heads("http://h/p", {name: "x"}) is None


async def test_an_answer_may_be_announced() -> None:
    """Interim answers are passed over."""
    async with (
        peer(answers(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK)) as google,
        transport() as out,
    ):
        response = await out.open("POST", google.url, headers={}, body=b"{}")
        assert (response.status, await response.read()) == (200, b"hi")


async def until_it_goes(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()
    raise ConnectionError


async def test_who_is_cancelled_ends_the_connection() -> None:
    """Google is not left generating for nobody."""
    async with peer(until_it_goes) as google, transport() as out:
        asking = asyncio.ensure_future(out.open("POST", google.url, headers={}, body=b"{}"))
        while not google.requests:
            await asyncio.sleep(0)
        asking.cancel()
        async with asyncio.timeout(5):
            await google.gone.wait()
        assert (await asyncio.gather(asking, return_exceptions=True))[0].__class__ is asyncio.CancelledError


async def test_a_closed_connection_is_not_taken_again() -> None:
    """What the answer said would be closed is, and the next request goes over a new one."""
    answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi"
    async with peer(answers(answer)) as google, transport() as out:
        for _ in range(2):
            assert await (await out.open("POST", google.url, headers={}, body=b"{}")).read() == b"hi"
    assert google.connections == 2


class Waiter:
    def __init__(self, rang: list[tuple[str, float]], name: str) -> None:
        self.rang = rang
        self.name = name

    def timed_out(self) -> None:
        self.rang.append((self.name, round(asyncio.get_running_loop().time() - self.rang_from, 3)))

    rang_from = 0.0


def test_everybody_waits_as_long_as_they_said() -> None:
    """Each one's time-out comes at its own end, over one timer; who was served in time hears nothing."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        Waiter.rang_from = loop.time()
        rang: list[tuple[str, float]] = []
        patience = Patience(loop)
        long, short, served, again = (Waiter(rang, name) for name in ("long", "short", "served", "again"))
        patience.begin(long, 300.0)
        patience.begin(served, 50.0)
        patience.begin(short, 120.0)  # earlier than the first, later than the one that is served
        patience.begin(again, 100.0)
        await asyncio.sleep(40.0)
        patience.end(served)
        patience.begin(again, 100.0)  # a piece came: from now on anew
        assert len(patience) == 3
        await asyncio.sleep(1000.0)
        assert rang == [("short", 120.0), ("again", 140.0), ("long", 300.0)]
        assert len(patience) == 0

    run_virtual(main())


def test_pieces_cost_no_timer() -> None:
    """However many pieces come, one timer stands in the loop."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        set_timers = []
        call_at = loop.call_at
        loop.call_at = lambda *args, **more: set_timers.append(args) or call_at(*args, **more)  # type: ignore[method-assign]
        patience, waiter = Patience(loop), Waiter([], "stream")
        for _ in range(1000):
            patience.begin(waiter, 120.0)
            patience.end(waiter)
        assert len(set_timers) == 1
        patience.close()

    run_virtual(main())
