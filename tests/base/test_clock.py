"""The machine's clocks, as far as they can be told apart without a suspend."""

from __future__ import annotations

import time

from gemini_poold.clock import Clock, SystemClock


async def test_the_clocks_are_the_systems() -> None:
    """`now` is Unix time; `monotonic` and `boottime` never run backwards, and the latter counts no less."""
    clock: Clock = SystemClock()
    assert abs(clock.now() - time.time()) < 5
    before = clock.monotonic(), clock.boottime()
    await clock.sleep(0)
    after = clock.monotonic(), clock.boottime()
    assert after[0] >= before[0]
    assert after[1] >= before[1]
    assert after[1] >= after[0] - 1
