"""The virtual loop itself: time jumps, order holds, threads are waited for, dead ends are told."""

from __future__ import annotations

import asyncio
import time

import pytest
from tests.fakes.clock import START_AT, Deadlock, VirtualClock, run_virtual


def test_a_day_passes_at_once():
    """86,400 virtual seconds of nothing take next to no real time, and the wall clock shows them."""

    async def main() -> float:
        clock = VirtualClock()
        await clock.sleep(86400)
        return clock.now()

    began = time.perf_counter()
    assert run_virtual(main()) == pytest.approx(START_AT + 86400)
    assert time.perf_counter() - began < 5


def test_timers_keep_their_order():
    """Tasks wake in the order of their instants, whatever order they were started in."""

    async def main() -> list[float]:
        woken: list[float] = []

        async def sleeper(delay: float) -> None:
            await asyncio.sleep(delay)
            woken.append(delay)

        async with asyncio.TaskGroup() as group:
            for delay in (3600.0, 0.5, 7200.0, 30.0):
                group.create_task(sleeper(delay))
        return woken

    assert run_virtual(main()) == [0.5, 30.0, 3600.0, 7200.0]


def test_a_job_in_a_thread_is_waited_for():
    """A timer does not overtake an executor's job that is about to finish."""

    async def main() -> tuple[int, float]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.timeout(5):
            result = await asyncio.to_thread(sum, [1, 2, 3])
        return result, loop.time() - began

    assert run_virtual(main()) == (6, 0.0)


def test_timeouts_run_out_in_virtual_time():
    """asyncio.timeout fires although nobody waited for real."""

    async def main() -> None:
        async with asyncio.timeout(300):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        run_virtual(main())


def test_suspend_and_step_part_the_clocks():
    """Suspend moves wall and boot, a step moves the wall alone, monotonic follows the loop."""

    async def main() -> tuple[float, float, float]:
        clock = VirtualClock()
        await clock.sleep(10)
        clock.suspend(7200)
        clock.step(-50)
        return clock.now() - START_AT, clock.monotonic(), clock.boottime()

    assert run_virtual(main()) == pytest.approx((7160, 10, 7210))


def test_a_dead_end_is_told(monkeypatch):
    """Waiting for what cannot come raises instead of hanging the test run."""
    monkeypatch.setattr("tests.fakes.clock.DEADLOCK_S", 0.01)

    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock):
        run_virtual(main())
