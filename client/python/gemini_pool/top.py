"""`gemini-pool top`: the pool as it is, looked at again and again. One status a look; rates are differences of counters.

On a terminal the screen is drawn anew in place; elsewhere one look follows the other. What a look holds is `Look`, which
`--json` prints, one a line.
"""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TextIO

import msgspec

from gemini_pool import wire
from gemini_pool.render import Renderer, duration

_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_SHORTEST_S = 0.2
_DECISIONS = 8


class AccountLook(msgspec.Struct):
    """One account. `served_per_min` since the last look, None at the first. `left`: of its tightest quota, 0 to 1."""

    id: str
    state: str
    in_flight: int
    served: int
    failed: int
    served_per_min: float | None
    failed_per_min: float | None
    left: float | None
    tightest: str
    health: float
    pinned: list[str]


class Look(msgspec.Struct):
    """One look, as `--json` prints it."""

    at: float
    state: str
    requests: int
    in_flight: int
    requests_per_min: float | None
    waiting: int
    oldest_s: float
    accounts: list[AccountLook]
    decisions: list[wire.DecisionInfo]


def look(now: wire.StatusResult, at: float, before: wire.StatusResult | None, over_s: float) -> Look:
    """What `now` says, with rates over the `over_s` seconds since `before`."""
    old = {a.id: a for a in before.accounts} if before is not None else {}

    def per_minute(new: int, was: int | None) -> float | None:
        return None if was is None or over_s <= 0 else max(0, new - was) * 60.0 / over_s

    def account(a: wire.AccountInfo) -> AccountLook:
        was = old[a.id].counters if a.id in old else None
        quotas = [e for e in now.quota if e.account == a.id and e.fraction is not None]
        tightest = min(quotas, key=lambda e: e.fraction or 0.0, default=None)
        return AccountLook(
            a.id, "cooling" if a.state == "ready" and not a.available else a.state, a.in_flight, a.counters.served,
            a.counters.failed, per_minute(a.counters.served, was.served if was else None),
            per_minute(a.counters.failed, was.failed if was else None), tightest.fraction if tightest else None,
            tightest.model if tightest else "", a.health.score, a.pinned,
        )  # fmt: skip

    return Look(
        at, now.state, now.counters.requests, now.in_flight,
        per_minute(now.counters.requests, before.counters.requests if before else None),
        now.queue.waiting, now.queue.oldest_s, [account(a) for a in now.accounts], now.decisions,
    )  # fmt: skip


class Top:
    """`pool` answers `status()`. `sleep` and `clock` (Unix seconds) are the machine's."""

    def __init__(
        self,
        pool: Any,
        out: TextIO,
        environ: Mapping[str, str],
        *,
        every_s: float,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._pool = pool
        self._out = out
        self._live = out.isatty() and environ.get("TERM", "dumb") != "dumb"
        self._fancy = Renderer.of(out, environ).fancy
        self._every_s = max(_SHORTEST_S, every_s)
        self._sleep = sleep
        self._clock = clock

    def run(self, *, as_json: bool, once: bool) -> int:
        """Look until interrupted, or once."""
        live = self._live and not as_json and not once
        before: wire.StatusResult | None = None
        before_at = 0.0
        if live:
            # Who ends us otherwise than by ^C must not leave a terminal without a cursor.
            for number in (signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, _leave)
            self._out.write(_ENTER)
        try:
            while True:
                status: wire.StatusResult = self._pool.status()
                at = self._clock()
                self._show(look(status, at, before, at - before_at), as_json=as_json, live=live)
                if once:
                    return 0
                before, before_at = status, at
                self._sleep(self._every_s)
        except KeyboardInterrupt:
            return 0
        finally:
            if live:
                self._out.write(_LEAVE)
                self._out.flush()

    def _show(self, seen: Look, *, as_json: bool, live: bool) -> None:
        if as_json:
            self._out.write(msgspec.json.encode(seen).decode() + "\n")
        else:
            text = Picture(Renderer(fancy=self._fancy, now=seen.at)).draw(seen)
            self._out.write(self._on_screen(text) if live else text + "\n\n")
        self._out.flush()

    def _on_screen(self, text: str) -> str:
        """In place, and never longer than the screen: what scrolls cannot be drawn over."""
        rows = shutil.get_terminal_size().lines
        lines = text.splitlines()[: max(1, rows - 1)]
        return _HOME + "".join(f"{line}{_CLEAR_LINE}\n" for line in lines) + _CLEAR_BELOW


def _leave(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)


class Picture:
    """A look as text."""

    def __init__(self, render: Renderer) -> None:
        self._render = render

    def draw(self, seen: Look) -> str:
        queue = f"{seen.waiting} waiting" + (
            f" (the first for {duration(seen.oldest_s)})" if seen.waiting else ""
        )
        when, rate = time.strftime("%H:%M:%S", time.localtime(seen.at)), _rate(seen.requests_per_min) or "?"
        lines = [
            f"gemini-pool, {seen.state}, {when}: {rate} requests a minute, {seen.in_flight} in flight, {queue}",
            "",
            self._render.table(
                (
                    "ACCOUNT",
                    "STATE",
                    "NOW",
                    "SERVED/MIN",
                    "FAILED/MIN",
                    "SERVED",
                    "FAILED",
                    "HEALTH",
                    "LEFT",
                    "OF",
                ),
                [self._row(a) for a in seen.accounts],
            ),
        ]
        if seen.decisions:
            lines += ["", self._decisions(seen.decisions[:_DECISIONS])]
        return "\n".join(lines)

    def _row(self, a: AccountLook) -> Sequence[str]:
        good = a.state == "ready"
        return (
            a.id + (" (pinned)" if a.pinned else ""), self._render.ink("good" if good else "warm", a.state), str(a.in_flight),
            _rate(a.served_per_min), _rate(a.failed_per_min), str(a.served), str(a.failed), f"{a.health:.2f}",
            "" if a.left is None else self._render.share(a.left), a.tightest,
        )  # fmt: skip

    def _decisions(self, decisions: Sequence[wire.DecisionInfo]) -> str:
        rows = [
            (d.decision, self._render.ago(d.at), d.model, d.code or d.account, d.reason, f"try {d.attempt}" if d.attempt > 1 else "")
            for d in decisions
        ]  # fmt: skip
        return self._render.table(("DECISION", "WHEN", "MODEL", "CHOSEN", "WHY", ""), rows)


def _rate(per_minute: float | None) -> str:
    return "" if per_minute is None else f"{per_minute:.0f}" if per_minute >= 10 else f"{per_minute:.1f}"
