"""Notices that the machine slept or that its clock was set."""

from __future__ import annotations

from collections.abc import Callable

from ..clock import Clock


class Ticker:
    def __init__(self, clock: Clock, on_jump: Callable[[str, float], None]) -> None:
        self._clock = clock
        self._on_jump = on_jump

    async def run(self) -> None:
        clock = self._clock
        while True:
            wall, mono, boot = clock.now(), clock.monotonic(), clock.boottime()
            await clock.sleep(10.0)
            passed = clock.boottime() - boot
            slept = passed - (clock.monotonic() - mono)
            if slept > 2.0:
                self._on_jump("suspend", slept)
            stepped = clock.now() - wall - passed
            if abs(stepped) > 2.0:
                self._on_jump("step", stepped)
