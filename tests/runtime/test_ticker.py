"""The ticker tells suspends, clock steps and stalls apart, and leaves small drifts alone."""

from __future__ import annotations

import asyncio

import pytest
from tests.fakes.clock import ManualClock, VirtualClock, run_virtual

from gemini_poold.clock import SteadyClock
from gemini_poold.runtime.ticker import INTERVAL_S, SUSPEND, Jump, Reading, Ticker, jumps


@pytest.mark.parametrize(
    ("wall", "monotonic", "boot", "found"),
    [
        (15, 15, 15, []),
        (16.9, 16.9, 16.9, []),  # a busy loop is late
        (13.5, 15, 15, []),  # NTP slews
        (7215, 15, 7215, [("suspend", 7200)]),
        (3615, 15, 15, [("step", 3600)]),
        (-3585, 15, 15, [("step", -3600)]),
        (18, 18, 18, [("stall", 3)]),
        (7215 - 86400, 15, 7215, [("suspend", 7200), ("step", -86400)]),  # and the clock was reset on the way
        (7218, 18, 7218, [("suspend", 7200), ("stall", 3)]),
    ],
)
def test_what_happened(wall, monotonic, boot, found):
    """Fifteen seconds were meant to pass; what the three clocks say besides."""
    assert jumps(Reading(0, 0, 0), Reading(wall, monotonic, boot), slept_s=15) == [
        Jump(*item) for item in found
    ]


def test_a_night_and_a_day():
    """Driven by the loop: every jump is told once, within one interval, and nothing else."""
    told = []

    async def main():
        clock = VirtualClock()
        ticker = Ticker(
            clock, lambda kind, seconds: told.append((kind, round(seconds), round(clock.monotonic())))
        )
        task = asyncio.create_task(ticker.run())
        await asyncio.sleep(86_400)
        clock.suspend(8 * 3600)
        await asyncio.sleep(3600)
        clock.step(-40)
        await asyncio.sleep(3600)
        clock.step(40)
        await asyncio.sleep(3600)
        clock.advance(90)
        await asyncio.sleep(3600)
        task.cancel()

    run_virtual(main())
    assert [(kind, seconds) for kind, seconds, _ in told] == [
        ("suspend", 28_800),
        ("step", -40),
        ("step", 40),
        ("stall", 90),
    ]
    assert told[0][2] - 86_400 <= INTERVAL_S


def test_a_tick_from_outside():
    """Whoever knows that the machine woke up may say so; the same jump is not told twice."""
    clock = ManualClock()
    told = []
    ticker = Ticker(clock, lambda kind, _seconds: told.append(kind))
    clock.suspend(60)
    assert ticker.tick() == [Jump(SUSPEND, 60)]
    assert ticker.tick() == []
    assert told == [SUSPEND]


def test_a_slow_drift_is_not_summed_up():
    """A clock that is a second off each minute is disciplined, not stepped."""
    clock = ManualClock()
    ticker = Ticker(clock, lambda *_: None)
    for _ in range(100):
        clock.advance(15)
        clock.step(1.0)
        assert ticker.tick(slept_s=15) == []


def test_a_steady_clock_steps_only_when_everybody_is_told():
    """Between the step and the look nobody sees it; at the look the clock is right before anybody hears."""
    real = ManualClock(1000.0)
    steady = SteadyClock(real)
    seen = []
    ticker = Ticker(steady, lambda kind, seconds: seen.append((kind, seconds, steady.now())))
    real.step(86_400)
    real.advance(1)
    assert steady.now() == 1001.0
    ticker.tick(slept_s=1)
    assert seen == [("step", 86_400, 87_401.0)]
    assert steady.now() == real.now()


def test_a_steady_clock_goes_on_in_a_suspend():
    """That is no step: deadlines pass while the machine sleeps, at once."""
    real = ManualClock(1000.0)
    steady = SteadyClock(real)
    real.suspend(3600)
    assert steady.now() == 4600.0 == real.now()


def test_a_steady_clock_follows_the_real_ones_slewing():
    """Small corrections come in silently with each look."""
    real = ManualClock(1000.0)
    steady = SteadyClock(real)
    ticker = Ticker(steady, lambda *_: None)
    for _ in range(10):
        real.advance(2)
        real.step(0.5)
        assert ticker.tick(slept_s=2) == []
        assert steady.now() == real.now()
