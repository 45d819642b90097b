"""Cyclic garbage: looked for while nobody waits, now and then however busy it is, and never much at once."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from tests.fakes.clock import VirtualClock, run_virtual

from gemini_poold import garbage


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


class Knot:
    def __init__(self) -> None:
        self.itself: Any = self


def knot() -> weakref.ref[Knot]:
    """What nobody holds and only a look finds."""
    return weakref.ref(Knot())


def when_found(busy_until_s: float) -> float:
    """Seconds until a knot is gone, of a daemon that is busy for so long."""

    async def main() -> float:
        clock = VirtualClock()
        began = clock.monotonic()
        running = asyncio.ensure_future(garbage.run(clock, lambda: clock.monotonic() - began < busy_until_s))
        await asyncio.sleep(1.0)  # it has begun
        gc.disable()
        try:
            found = knot()
            while found() is not None:
                await asyncio.sleep(1.0)
        finally:
            gc.enable()
            running.cancel()
        return clock.monotonic() - began

    return run_virtual(main())


def test_it_waits_for_a_quiet_moment() -> None:
    """Idle: every ten minutes. Busy: when that ends; at the latest after hours."""
    assert when_found(0.0) == pytest.approx(garbage.EVERY_S, abs=garbage.ROUND_S)
    assert when_found(3600.0) == pytest.approx(3600.0, abs=2 * garbage.ROUND_S)
    assert when_found(1e9) == pytest.approx(garbage.LONGEST_S, abs=2 * garbage.ROUND_S)


def test_a_thousand_streams_worth_of_objects_are_never_looked_at_together() -> None:
    """Python itself looks at what is new, a few thousand objects; what outlived that is left for the quiet moment."""
    garbage.begin()
    looks: list[int] = []
    gc.callbacks.append(
        note := lambda phase, info: looks.append(info["generation"]) if phase == "stop" else None
    )
    try:
        held = [[[]] for _ in range(100_000)]  # 1,000 streams are made of about as much
    finally:
        gc.callbacks.remove(note)
    assert len(held) == 100_000
    assert set(looks) == {0}
    assert len(looks) >= 200_000 / garbage.YOUNG / 2
