"""The lab's Google and the fake Google judge alike: what holds in the simulation can be compared with real time."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.lab.google import Count, Quota

from gemini_poold.fake import SetClock
from gemini_poold.fake.limits import Limits, Meter

BEGAN_AT = 1_795_000_000.0


@settings(max_examples=40, derandomize=True, deadline=None, database=None)
@given(
    limit=st.integers(1, 4), window_s=st.sampled_from([10.0, 60.0]), fixed=st.booleans(), phase_s=st.sampled_from([0.0, 3.25]),
    steps=st.lists(st.sampled_from([0.0, 0.5, 2.5, 10.0, 61.0]), min_size=1, max_size=40),
)  # fmt: skip
def test_the_same_is_let_through(
    limit: int, window_s: float, fixed: bool, phase_s: float, steps: list[float]
) -> None:
    """Request for request: both let it through, or both refuse it and tell the same time."""
    clock = SetClock(BEGAN_AT)
    meter = Meter(clock)
    zero = (BEGAN_AT + phase_s) % window_s
    meter.set("p", "*", Limits(rpm=limit, window_s=window_s, fixed=fixed, phase_s=zero))
    count = Count(
        Quota(limit, window_s=window_s, kind="fixed" if fixed else "rolling", phase_s=phase_s), BEGAN_AT
    )
    for step in steps:
        clock.advance(step)
        now = clock.now()
        free_at = count.free_at(now, 1)
        exceeded = meter.take("p", "m", 1)
        assert (exceeded is None) == (free_at <= now)
        if exceeded is None:
            count.take(now, 1)
        else:
            assert abs(exceeded.resets_at - free_at) < 1e-3
