"""What one sees of the demo: a display that is redrawn on a terminal, plain lines elsewhere, and the table at the end.

Numbers are read from the daemon's status, from what the clients counted and from the fake's record; none is made here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self, TextIO

from gemini_pool import AsyncPool, PoolError, wire
from gemini_poold.fake import GENERATION, FakeGoogle

from .load import Load
from .scene import MODEL, Places

POLL_S = 0.25
LINE_S = 2.0  # between two lines of numbers in plain mode
NEWS = 6  # lines of news on the display
_STYLES = {"dim": "2", "bold": "1", "good": "32", "warn": "33", "bad": "31"}


class View:
    """Where things are written. `note` is news, `update` the numbers, `say` text that stays."""

    def __init__(self, out: TextIO, *, seconds: float, colour: bool = False) -> None:
        self._out = out
        self._seconds = seconds
        self._colour = colour
        self._begun = time.monotonic()
        self._next_line_at = 0.0

    def note(self, text: str) -> None:
        """One piece of news, with its instant."""
        self.say(f"{self._elapsed_s():5.1f} s  {text}")

    def say(self, text: str) -> None:
        print(text, file=self._out, flush=True)

    def update(self, status: wire.StatusResult, clients: Sequence[Load]) -> None:
        """Every two seconds, one line."""
        now = time.monotonic()
        if now < self._next_line_at:
            return
        self._next_line_at = now + LINE_S
        served = ", ".join(f"{account.id} {account.counters.served}" for account in status.accounts)
        self.note(f"{headline(clients)} ({served})")

    def close(self) -> None:
        """Nothing is redrawn any more."""

    def style(self, name: str, text: str) -> str:
        return f"\x1b[{_STYLES[name]}m{text}\x1b[0m" if self._colour and text else text

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._begun


class Display(View):
    """A few lines that are drawn over themselves."""

    def __init__(self, out: TextIO, *, seconds: float, colour: bool) -> None:
        super().__init__(out, seconds=seconds, colour=colour)
        self._news: deque[str] = deque(maxlen=NEWS)
        self._height = 0
        self._rows: list[str] = []
        self._load_begun = 0.0
        out.write("\x1b[?25l")

    def note(self, text: str) -> None:
        self._news.extend(f"{self._elapsed_s():5.1f} s  {line}" for line in text.splitlines())
        self._draw()

    def update(self, status: wire.StatusResult, clients: Sequence[Load]) -> None:
        self._load_begun = self._load_begun or time.monotonic()
        passed = min(1.0, (time.monotonic() - self._load_begun) / self._seconds)
        bar = "█" * round(passed * 30)
        widest = max(1, *(account.counters.served for account in status.accounts))
        self._rows = [
            f"  {self.style('good', bar)}{self.style('dim', '░' * (30 - len(bar)))}  {headline(clients)}",
            "",
            *(self._account(account, widest) for account in status.accounts),
        ]
        self._draw()

    def close(self) -> None:
        self._out.write("\x1b[?25h")
        self._out.flush()
        self._height = 0

    def _account(self, account: wire.AccountInfo, widest: int) -> str:
        word = _word(account)
        colour = "good" if word == "ready" else "warn" if word.startswith("rests") else "bad"
        bar = "▇" * round(account.counters.served / widest * 16)
        served = f"{account.counters.served:4d} {bar:16}"
        where = f"  {account.id:7}{self.style('dim', f'{account.backend:14}')}"
        return f"{where}{self.style(colour, f'{word:15}')}{served} {self.style('dim', _token(account))}"

    def _draw(self) -> None:
        width = max(20, shutil.get_terminal_size().columns - 1)
        lines = [self.style("bold", "gemini-pool demo"), *self._rows, "", *self._news]
        shown = [line if "\x1b" in line else line[:width] for line in lines]
        up = f"\x1b[{self._height}F" if self._height else ""
        self._out.write(up + "\x1b[J" + "\n".join(shown) + "\n")
        self._out.flush()
        self._height = len(shown)


@contextlib.contextmanager
def view(out: TextIO, *, plain: bool, seconds: float) -> Iterator[View]:
    """The display that fits `out`. NO_COLOR takes the colours, `plain`, a pipe or a dumb terminal the redrawing."""
    dumb = os.environ.get("TERM", "dumb") == "dumb"
    if plain or not out.isatty() or dumb:
        yield View(out, seconds=seconds)
        return
    display = Display(out, seconds=seconds, colour=not os.environ.get("NO_COLOR"))
    try:
        yield display
    finally:
        display.close()


class Watcher:
    """Looks at daemon and fake while the clients work, and tells the view what is new."""

    def __init__(self, view: View, pool: AsyncPool, google: FakeGoogle, clients: Sequence[Load]) -> None:
        self._view = view
        self._pool = pool
        self._google = google
        self._clients = clients
        self._seen = 0  # calls of the fake told of so far
        self._changed_at: dict[str, float] = {}  # when an account last changed its state
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._poll()), asyncio.create_task(self._listen())]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _poll(self) -> None:
        while True:
            self._refusals()
            with contextlib.suppress(PoolError):
                self._view.update(await self._pool.status(), self._clients)
            await asyncio.sleep(POLL_S)

    async def _listen(self) -> None:
        """The daemon's own news, of the level that a user would see."""
        with contextlib.suppress(PoolError):
            async with await self._pool.events("account", "cooldown", "token", "reload") as events:
                async for event in events:
                    self._refusals()  # what Google said comes before what the daemon made of it
                    if self._is_news(event):
                        named = (
                            event.text if event.account in event.text else f"{event.account}: {event.text}"
                        )
                        self._view.note(f"daemon: {named}")

    def _is_news(self, event: wire.Event) -> bool:
        """Neither for debugging only nor the cooldown that goes with an account's new state."""
        if event.kind == "account":
            self._changed_at[event.account] = event.at
        follows = event.kind == "cooldown" and event.at - self._changed_at.get(event.account, 0.0) < 1.0
        return event.level != "debug" and not follows

    def _refusals(self) -> None:
        """What the fake refused since the last look, one line for each account."""
        fresh = [call for call in self._google.record.calls if call.number > self._seen and call.done]
        self._seen = max((call.number for call in fresh), default=self._seen)
        refused = Counter((call.credential, call.kind, call.status) for call in fresh if call.status >= 400)
        for (account, kind, status), times in refused.items():
            what = "refuses to renew the token of" if kind == "token" else "refuses"
            self._view.note(f"Google {what} {account}: {status}{f', {times} times' if times > 1 else ''}")


def headline(clients: Sequence[Load]) -> str:
    answered, failed = sum(client.answered for client in clients), sum(client.failed for client in clients)
    return f"{answered} answered, {failed} failed, {sum(client.in_flight for client in clients)} under way"


def renewed_ahead(google: FakeGoogle) -> tuple[int, int]:
    """By the fake's books: tokens issued while the one before still lived, and tokens issued too late for that."""
    ahead = late = 0
    ends: dict[str, float] = {}
    for token in google.world.tokens.values():
        before = ends.get(token.caller.name)
        if before is not None:
            ahead, late = (ahead + 1, late) if token.issued_at < before else (ahead, late + 1)
        ends[token.caller.name] = token.expires_at
    return ahead, late


def table(status: wire.StatusResult, google: FakeGoogle, clients: Sequence[Load], *, elapsed_s: float) -> str:
    """The end of it: what each account and each client did, and the sums."""
    counters, record = status.counters, google.record
    refused = sum(record.total(kind, status=429) for kind in GENERATION)
    ahead, late = renewed_ahead(google)
    failed = sum(client.failed for client in clients)
    rows = [
        ("requests", f"{sum(client.sent for client in clients)}", f"the daemon counted {counters.requests}"),
        (
            "answered",
            f"{sum(client.answered for client in clients)}",
            f"{sum(c.streams for c in clients)} of them streams",
        ),
        ("rotations", f"{counters.rotations}", "another account took over before the first byte"),
        ("429s absorbed", f"{refused}", f"of {counters.absorbed} refusals in all that no client saw"),
        (
            "tokens renewed ahead of time",
            f"{ahead}",
            f"{late} too late; requests that waited for one: {counters.waited_for_token}",
        ),
        (
            "failures seen by clients",
            f"{failed}",
            f"slowest answer {max(c.slowest_s for c in clients):.1f} s",
        ),
    ]
    lines = ["", *_columns([_account_row(account) for account in status.accounts], _ACCOUNT_HEAD)]
    lines += ["", *_columns([_client_row(client) for client in clients], _CLIENT_HEAD)]
    lines += [
        "",
        f"In {elapsed_s:.0f} s:",
        *(f"  {name:30}{number:>6}   {note}" for name, number, note in rows),
        "",
    ]
    for client in clients:
        lines += [f"  failed: {failure}" for failure in client.failures[:5]]
    return "\n".join(lines)


_ACCOUNT_HEAD = ("account", "backend", "state", "served", "refused", "renewals", "")
_CLIENT_HEAD = ("client", "sent", "answered", "failed", "streams")


def _account_row(account: wire.AccountInfo) -> tuple[str, ...]:
    counters = account.counters
    numbers = (str(counters.served), str(counters.failed), str(account.token.renewals))
    return (
        account.id,
        account.backend,
        _word(account),
        *numbers,
        account.hint if account.state != "ready" else "",
    )


def _client_row(client: Load) -> tuple[str, ...]:
    return (
        client.name,
        *(str(number) for number in (client.sent, client.answered, client.failed, client.streams)),
    )


def _columns(rows: list[tuple[str, ...]], head: tuple[str, ...]) -> list[str]:
    widths = [max(len(row[index]) for row in [head, *rows]) for index in range(len(head))]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [head, *rows]
    ]


def _word(account: wire.AccountInfo) -> str:
    if account.state != "ready" or not account.cooldowns:
        return account.state
    rest_s = max(cooldown.until for cooldown in account.cooldowns) - time.time()
    return f"rests {rest_s:.0f} s" if rest_s > 0 else account.state


def _token(account: wire.AccountInfo) -> str:
    token = account.token
    if token.expires_at is None:
        return ""
    left_s = token.expires_at - time.time()
    return f"token for {left_s:.0f} s more, renewed {token.renewals}x" if left_s < 60 else ""


def pointers(url: str, places: Places) -> str:
    """How to point real tools at the demo that stays up."""
    key = places.local_key()
    return f"""The demo stays up until Ctrl-C. In another terminal:

  gemini-cli      GEMINI_API_KEY={key} GOOGLE_GEMINI_BASE_URL={url} gemini -m {MODEL} -p hello
                  (with security.auth.selectedType "gemini-api-key" in ~/.gemini/settings.json)
  …Code Assist    GOOGLE_GENAI_USE_GCA=true GOOGLE_CLOUD_ACCESS_TOKEN={key} CODE_ASSIST_ENDPOINT={url} gemini -m {MODEL} -p hello
  google-genai    GEMINI_API_KEY={key} GOOGLE_GEMINI_BASE_URL={url} python your_program.py
  gemini-pool     GEMINI_POOL_SOCKET={places.socket} gemini-pool ask {MODEL} hello
  curl            curl -H 'x-goog-api-key: {key}' {url}/v1beta/models

The daemon's log is {places.log}.
"""
