"""The one place that reads time. Everything else is given a `Clock`, so that tests own the time.

The core gets plain numbers (`now`) and never a clock.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Protocol


class Clock(Protocol):
    """`now`: Unix seconds, may jump. `monotonic`: stands still in a suspend. `boottime`: goes on in a suspend."""

    def now(self) -> float: ...

    def monotonic(self) -> float: ...

    def boottime(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...


def _boottime_id() -> int | None:
    if (
        sys.platform == "darwin"
    ):  # by its manual, macOS's CLOCK_MONOTONIC counts sleep (time.monotonic() does not)
        return time.CLOCK_MONOTONIC
    return getattr(time, "CLOCK_BOOTTIME", None)


class SystemClock:
    """The machine's own clocks."""

    _boottime_id = _boottime_id()

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def boottime(self) -> float:
        """Seconds that go on while the machine sleeps; where the system has no such clock, `monotonic`."""
        return time.monotonic() if self._boottime_id is None else time.clock_gettime(self._boottime_id)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class SteadyClock:
    """A wall clock that never jumps by itself: it runs with the boot clock, and takes a step of the real wall clock
    over in `settle` alone, which whoever keeps deadlines calls and then corrects them. So nobody ever compares a
    deadline of before a step with an instant of after it. A suspend is no step: the boot clock goes on in it."""

    def __init__(self, real: Clock) -> None:
        self.real = real
        self.settle()

    def settle(self) -> None:
        """From now on as the real wall clock says."""
        self._ahead_s = self.real.now() - self.real.boottime()

    def now(self) -> float:
        return self.real.boottime() + self._ahead_s

    def monotonic(self) -> float:
        return self.real.monotonic()

    def boottime(self) -> float:
        return self.real.boottime()

    async def sleep(self, seconds: float) -> None:
        await self.real.sleep(seconds)
