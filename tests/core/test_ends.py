"""What told ends say of a window: its length and limit, whatever the way to Google adds."""

from __future__ import annotations

import random

import pytest
from tests.core.pools import NOW

from gemini_poold.core.ends import Ends


def lay(ends: Ends, sent: list[float], sent_at: float, end: float, *, trip_s: float = 0.1) -> None:
    """A refusal that left at `sent_at` for a window that ends at `end`, as heard a round trip later."""
    ends.add(sent, sent_at, sent_at + trip_s, end + trip_s)


def test_one_end_says_too_little() -> None:
    """Any length would do; and what was under way at the same refusal says nothing more."""
    ends = Ends()
    sent = [NOW + n / 2 for n in range(20)]
    lay(ends, sent, NOW + 9.9, NOW + 10.0)
    lay(ends, sent, NOW + 9.8, NOW + 10.0)
    assert ends.found() is None


@pytest.mark.parametrize("jitter_s", [0.0, 0.005, 0.08], ids=["none", "5 ms", "80 ms"])
def test_sliding_windows_are_made_out(jitter_s: float) -> None:
    """Two ends, each ten seconds after something that was sent, with twenty in between."""
    ends, rng = Ends(), random.Random(1)
    sent = [NOW + 0.45 * n for n in range(20)] + [NOW + 10.0 + 0.45 * n for n in range(20)]
    heard = [at + rng.uniform(0.0, jitter_s) for at in sent]
    lay(ends, sent[:20], NOW + 9.0, heard[0] + 10.0, trip_s=0.01 + 2 * jitter_s)
    lay(ends, sent, NOW + 19.0, heard[20] + 10.0, trip_s=0.01 + 2 * jitter_s)
    found = ends.found()
    assert found is not None
    assert (found.width_s, found.anchor) == (10.0, None)
    assert 19 <= found.limit <= 20
    assert ends.found(found) == found


def test_fixed_windows_are_made_out() -> None:
    """The ends lie a multiple of ten seconds apart, and none of what was sent lies ten seconds before them."""
    ends = Ends()
    first = [NOW + 1.0 + n / 10 for n in range(20)]
    second = [NOW + 11.3 + n / 10 for n in range(20)]
    lay(ends, first, NOW + 3.2, NOW + 10.0)
    lay(ends, first + second, NOW + 13.7, NOW + 20.0)
    found = ends.found()
    assert found is not None
    assert (found.limit, found.width_s) == (20, 10.0)
    assert found.anchor == pytest.approx(NOW + 20.0)


def test_what_was_refused_later_took_nothing() -> None:
    """Requests under way at a refusal are counted until they are refused themselves."""
    ends = Ends()
    first = [NOW + 1.0 + n / 10 for n in range(20)]
    late = [NOW + 3.15 + n / 100 for n in range(6)]
    lay(ends, first + late, NOW + 3.3, NOW + 10.0)
    for at in late:
        ends.drop(at)
    lay(ends, first + [NOW + 11.3 + n / 10 for n in range(20)], NOW + 13.7, NOW + 20.0)
    found = ends.found()
    assert found is not None
    assert found.limit == 20
