"""Listens on the loopback for the browser that comes back from Google. Just enough HTTP for one address.

What a callback means is the login's business: it is handed a `Redirect` and gives the page to show. Rules
1. Another path is 404; a callback with neither an error nor both code and state is 400, and listening goes on.
2. A callback with another state gets a page and changes nothing: it is a tab of an older login, or not ours at all.
3. After `limit_s` nothing is listened for any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import html
import logging
from collections.abc import Awaitable, Callable
from hmac import compare_digest
from typing import NamedTuple
from urllib.parse import urlsplit

from .flow import Redirect, of_query

log = logging.getLogger("gemini_pool.login")

PATH = "/oauth2callback"
LIMIT_S = 300.0
REQUEST_TIMEOUT_S = 10.0
MAX_REQUEST = 32 << 10
MAX_CONNECTIONS = 32  # browsers open some ahead of need

_STATUS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Payload Too Large",
}


class Page(NamedTuple):
    """What the person sees in the browser. `done`: the login went well."""

    done: bool
    title: str
    text: str = ""


OLD_TAB = Page(False, "This tab is of another login", "Close it and go on in the newest one.")
NO_ANSWER = Page(False, "There is no answer in this address")

Answer = Callable[[Redirect], Awaitable[Page]]


class Listener:
    """One login's listener. `answer` is called for each redirect that belongs to `state`, which is known only once the
    port is: until then nothing belongs to it."""

    def __init__(self, answer: Answer, *, path: str = PATH) -> None:
        self.state = ""
        self._answer = answer
        self._path = path or "/"
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self.port = 0

    async def start(self, port: int = 0, *, limit_s: float = LIMIT_S) -> None:
        """Listen on 127.0.0.1, on a free port unless `port` is given. Raises OSError when that cannot be had."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, limit=MAX_REQUEST)
        self.port = self._server.sockets[0].getsockname()[1]
        self._timer = asyncio.get_running_loop().call_later(limit_s, self.close)

    @property
    def listening(self) -> bool:
        return self._server is not None

    def close(self) -> None:
        """Take no more connections; those that are being answered go on."""
        if self._timer is not None:
            self._timer.cancel()
        if self._server is not None:
            self._server.close()
        self._server = self._timer = None

    async def aclose(self) -> None:
        """Stop at once."""
        self.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    # ---- one connection ------------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            if len(self._open) <= MAX_CONNECTIONS:
                await self._request(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # a browser that changed its mind
        except Exception as error:  # noqa: BLE001  (the edge of this connection's task; a traceback might show a code)
            log.error("a browser's answer could not be handled: %s", type(error).__name__)
        finally:
            self._open.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            head = await reader.readuntil(b"\r\n\r\n")
        method, _, rest = head.split(b"\r\n", 1)[0].decode("latin-1").partition(" ")
        target = rest.partition(" ")[0]
        status, page = await self._page(method, target)
        writer.write(_response(status, page, head_only=method == "HEAD"))
        await writer.drain()

    async def _page(self, method: str, target: str) -> tuple[int, Page]:
        parts = urlsplit(target)
        if (parts.path or "/") != self._path:
            return 404, Page(False, "There is nothing here")
        if method != "GET":
            return 405, Page(False, "There is nothing here")
        redirect = of_query(parts.query)
        if not redirect.error and not (redirect.code and redirect.state):
            return 400, NO_ANSWER
        if redirect.state and not compare_digest(redirect.state.encode(), self.state.encode()):
            return 200, OLD_TAB
        return 200, await self._answer(redirect)


def _response(status: int, page: Page, *, head_only: bool) -> bytes:
    body = _html(page).encode()
    lines = [
        f"HTTP/1.1 {status} {_STATUS[status]}",
        "Content-Type: text/html; charset=utf-8",
        f"Content-Length: {len(body)}",
        "Connection: close",
        # The address holds a code: it goes into no cache, no referrer, no other site's hands.
        "Cache-Control: no-store",
        "Referrer-Policy: no-referrer",
        "X-Content-Type-Options: nosniff",
        "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (b"" if head_only else body)


def _html(page: Page) -> str:
    mark = "✓" if page.done else "✗"
    text = f"<p>{html.escape(page.text)}</p>" if page.text else ""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>gemini-pool</title>'
        '<body style="font: 1.1rem system-ui, sans-serif; margin: 15vh auto; max-width: 36rem; padding: 0 1rem">'
        f"<h1>{mark} {html.escape(page.title)}</h1>{text}</body></html>\n"
    )
