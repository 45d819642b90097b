"""The fake's days end at US Pacific midnight, with and without zone data."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gemini_poold.fake import SetClock, pacific_day_end
from gemini_poold.fake import clock as clock_module


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


DAYS = [
    ("2026-01-15T12:00", "2026-01-16T08:00"),
    ("2026-07-01T06:59:59", "2026-07-01T07:00"),
    ("2026-07-01T07:00", "2026-07-02T07:00"),
    ("2026-03-08T08:00", "2026-03-09T07:00"),  # daylight time begins: 23 hours
    ("2026-11-01T07:00", "2026-11-02T08:00"),  # and ends: 25 hours
    ("2026-10-31T12:00", "2026-11-01T07:00"),
    ("2027-01-01T07:30", "2027-01-01T08:00"),
]


@pytest.mark.parametrize("zones", [True, False])
@pytest.mark.parametrize(("now", "end"), DAYS)
def test_day_ends_at_pacific_midnight(
    now: str, end: str, zones: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next midnight is right in both halves of the year and over both changes of the clocks."""
    if not zones:
        monkeypatch.setattr(clock_module, "_pacific", lambda: None)
    assert pacific_day_end(at(now)) == at(end)


def test_set_clock_moves_only_when_told() -> None:
    """A set clock stands still, advances and goes back."""
    clock = SetClock(100.0)
    assert clock.now() == 100.0
    assert clock.advance(5) == 105.0
    clock.set(1.0)
    assert clock.now() == 1.0


def test_time_stamps_have_fractions_only_when_needed() -> None:
    """RFC 3339 as Google writes it."""
    assert clock_module.rfc3339(0.0) == "1970-01-01T00:00:00Z"
    assert clock_module.rfc3339(0.25) == "1970-01-01T00:00:00.250000Z"
