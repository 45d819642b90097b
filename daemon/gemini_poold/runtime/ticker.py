"""Notices what timers cannot: that the machine slept, that somebody set the clock, that the process stood still.

asyncio's timers follow the monotonic clock, which stands still in a suspend, while Google's deadlines are wall time.
Whoever must plan anew hears of it through `on_jump`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..clock import Clock, SteadyClock

INTERVAL_S = 2.0  # after a resume everything due is to be renewed within 5 s; a look costs 0.1 ms
TOLERANCE_S = 2.0  # clocks are disciplined in small steps all the time, and a busy loop is late

SUSPEND, STEP, STALL = "suspend", "step", "stall"
OnJump = Callable[[str, float], None]


class Reading(NamedTuple):
    """The three clocks at one instant."""

    wall: float
    monotonic: float
    boot: float


class Jump(NamedTuple):
    """`suspend`: the machine slept so long. `step`: the wall clock was set by so much (negative: back). `stall`: the
    process was stopped or the loop blocked for so long."""

    kind: str
    seconds: float


def read(clock: Clock) -> Reading:
    return Reading(clock.now(), clock.monotonic(), clock.boottime())


def jumps(before: Reading, after: Reading, *, slept_s: float) -> list[Jump]:
    """What happened between two readings besides the `slept_s` that were meant to pass.

    Where the system has no boot clock of its own (`boot` is `monotonic`), a suspend shows as a step forwards.
    """
    boot = after.boot - before.boot
    monotonic = after.monotonic - before.monotonic
    found = (
        Jump(SUSPEND, boot - monotonic),
        Jump(STEP, (after.wall - before.wall) - boot),
        Jump(STALL, monotonic - slept_s),
    )
    return [
        jump
        for jump in found
        if jump.seconds > TOLERANCE_S or (jump.kind == STEP and -jump.seconds > TOLERANCE_S)
    ]


class Ticker:
    """Compares the clocks every `interval_s` (at most 30 s); `on_jump(kind, seconds)` for each kind that jumped.

    A `SteadyClock` follows the real one at each look, before anybody is told.
    """

    def __init__(
        self, clock: Clock | SteadyClock, on_jump: OnJump, *, interval_s: float = INTERVAL_S
    ) -> None:
        self._steady = clock if isinstance(clock, SteadyClock) else None
        self._clock = clock = clock.real if isinstance(clock, SteadyClock) else clock
        self._on_jump = on_jump
        self._interval_s = min(30.0, interval_s)
        self._last = read(clock)

    async def run(self) -> None:
        """Until cancelled."""
        self._last = read(self._clock)
        while True:
            await self._clock.sleep(self._interval_s)
            self.tick()

    def tick(self, *, slept_s: float | None = None) -> list[Jump]:
        """Compare now, whatever part of the interval has passed (also called when logind says that the machine woke
        up). Small drifts are not summed up."""
        after = read(self._clock)
        found = jumps(self._last, after, slept_s=self._interval_s if slept_s is None else slept_s)
        self._last = after
        if self._steady is not None:
            self._steady.settle()
        for jump in found:
            self._on_jump(jump.kind, jump.seconds)
        return found
