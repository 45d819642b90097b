"""The loopback listener: which addresses it answers, and what ends the waiting. Real sockets."""

from __future__ import annotations

import asyncio

import pytest
from tests.login.rig import Browser

from gemini_poold.login.flow import Redirect
from gemini_poold.login.listener import Listener, Page

STATE = "57a7e"


class Caught:
    """A listener, and what it handed over."""

    def __init__(self, page: Page | None = None) -> None:
        self.redirects: list[Redirect] = []
        self.page = page or Page(True, "work is logged in", "You can close this tab.")
        self.listener = Listener(self._answer)
        self.listener.state = STATE

    async def _answer(self, redirect: Redirect) -> Page:
        self.redirects.append(redirect)
        return self.page

    async def __aenter__(self) -> Caught:
        await self.listener.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.listener.aclose()

    async def get(self, target: str, method: str = "GET") -> tuple[int, str]:
        return await Browser.get(f"http://127.0.0.1:{self.listener.port}{target}", method)

    async def send(self, data: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.listener.port)
        writer.write(data)
        if data:
            await writer.drain()
        else:
            writer.close()
        async with asyncio.timeout(5):
            answer = await reader.read()
        writer.close()
        return answer


@pytest.mark.parametrize(
    ("target", "method", "status"),
    [
        ("/", "GET", 404),
        ("/favicon.ico", "GET", 404),
        ("/oauth2callback/x?code=c&state=57a7e", "GET", 404),
        ("/oauth2callback?code=c&state=57a7e", "POST", 405),
        ("/oauth2callback", "GET", 400),
        ("/oauth2callback?code=c", "GET", 400),
        ("/oauth2callback?state=57a7e", "GET", 400),
        ("/oauth2callback?code=&state=57a7e", "GET", 400),
    ],
)
async def test_what_is_no_answer(target: str, method: str, status: int) -> None:
    """Other paths, other methods and half answers get a status; the login hears nothing and goes on."""
    async with Caught() as caught:
        assert (await caught.get(target, method))[0] == status
        assert caught.redirects == []
        assert (await caught.get("/oauth2callback?code=c&state=57a7e"))[0] == 200
        assert len(caught.redirects) == 1


async def test_the_answer_is_handed_over_and_its_page_shown() -> None:
    """The right state: the login gets the code, the person its page, escaped and free of anything foreign."""
    async with Caught(Page(False, "No & <never>", "Try 'again'")) as caught:
        status, page = await caught.get("/oauth2callback?state=57a7e&code=4%2Ffake&scope=a")
        assert status == 200
        assert caught.redirects == [Redirect("4/fake", STATE)]
        assert "No &amp; &lt;never&gt;" in page
        assert "http" not in page
        assert "4/fake" not in page


async def test_an_answer_of_another_state_is_dropped() -> None:
    """A tab of an older login, or a page that guesses, changes nothing."""
    async with Caught() as caught:
        for target in ("code=c&state=other", "error=access_denied&state=other", "code=c&state=%C3%A4"):
            assert "another login" in (await caught.get(f"/oauth2callback?{target}"))[1]
        assert caught.redirects == []


async def test_an_error_is_handed_over() -> None:
    """Google's no is an answer, with its description."""
    async with Caught() as caught:
        await caught.get("/oauth2callback?error=access_denied&error_description=no+way&state=57a7e")
        assert caught.redirects == [Redirect(error="access_denied", state=STATE, text="no way")]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n\r\n",
        b"GARBAGE\r\n\r\n",
        b"GET\r\n\r\n",
        b"x" * 70_000 + b"\r\n\r\n",
        b"\x16\x03\x01\r\n\r\n",
    ],
)
async def test_what_is_no_http_harms_nothing(data: bytes) -> None:
    """Port scanners, TLS and floods end their own connection only."""
    async with Caught() as caught:
        try:
            await caught.send(data)
        except ConnectionError:
            pass
        assert (await caught.get("/oauth2callback?code=c&state=57a7e"))[0] == 200


async def test_the_code_goes_nowhere_from_the_page() -> None:
    """The page forbids caches, referrers and foreign content."""
    async with Caught() as caught:
        answer = await caught.send(b"GET /oauth2callback?code=c&state=57a7e HTTP/1.1\r\nHost: x\r\n\r\n")
        head = answer.partition(b"\r\n\r\n")[0].decode()
        assert "Cache-Control: no-store" in head
        assert "Referrer-Policy: no-referrer" in head
        assert "default-src 'none'" in head
        assert head.startswith("HTTP/1.1 200 OK")


async def test_nothing_is_listened_for_after_the_limit() -> None:
    """When the time is over the port is free again."""
    caught = Caught()
    await caught.listener.start(limit_s=0.0)
    port = caught.listener.port
    while caught.listener.listening:
        await asyncio.sleep(0)
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", port)
    await caught.listener.aclose()


async def test_closing_breaks_off_what_is_answered() -> None:
    """A daemon that stops does not wait for a browser."""
    begun, never = asyncio.Event(), asyncio.Event()

    async def answer(_redirect: Redirect) -> Page:
        begun.set()
        await never.wait()
        return Page(True, "")

    listener = Listener(answer)
    listener.state = STATE
    await listener.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    writer.write(b"GET /oauth2callback?code=c&state=57a7e HTTP/1.1\r\n\r\n")
    await begun.wait()
    await listener.aclose()
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.close()


async def test_a_broken_login_is_told_apart_from_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    """A fault of ours ends the connection; the log names its kind and not what was in it."""

    async def answer(_redirect: Redirect) -> Page:
        raise RuntimeError("fake-code-in-a-message")

    listener = Listener(answer)
    listener.state = STATE
    await listener.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    writer.write(b"GET /oauth2callback?code=c&state=57a7e HTTP/1.1\r\n\r\n")
    assert await reader.read() == b""
    writer.close()
    await listener.aclose()
    assert "RuntimeError" in caplog.text
    assert "fake-code" not in caplog.text
