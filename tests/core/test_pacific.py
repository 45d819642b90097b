"""Pacific midnights, against the system's zone data and at the edges of daylight saving."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemini_poold.core.pacific import next_midnight, utc_offset_s


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    ("now", "midnight"),
    [
        ("2026-11-24T12:00:00+00:00", "2026-11-25T08:00:00+00:00"),
        ("2026-11-24T07:59:59+00:00", "2026-11-24T08:00:00+00:00"),
        ("2026-11-24T08:00:00+00:00", "2026-11-25T08:00:00+00:00"),
        ("2026-07-01T00:00:00+00:00", "2026-07-01T07:00:00+00:00"),
        ("2026-11-01T07:30:00+00:00", "2026-11-02T08:00:00+00:00"),  # the day that has 25 hours
        ("2026-03-08T08:30:00+00:00", "2026-03-09T07:00:00+00:00"),  # the day that has 23
    ],
)
def test_midnights(now: str, midnight: str) -> None:
    """The next Pacific midnight, also on the days when the clock is changed."""
    assert at(midnight) == next_midnight(at(now))


@given(
    st.integers(
        min_value=int(at("2007-04-01T00:00:00+00:00")), max_value=int(at("2037-01-01T00:00:00+00:00"))
    )
)
def test_the_rule_agrees_with_zone_data(second: int) -> None:
    """Our arithmetic and the system's zone file name the same offset and the same midnight."""
    try:
        zone = ZoneInfo("America/Los_Angeles")
    except ZoneInfoNotFoundError:
        pytest.skip("no zone data on this machine")
    local = datetime.fromtimestamp(second, UTC).astimezone(zone)
    midnight = datetime.combine(local.date() + timedelta(days=1), datetime.min.time(), zone)
    offset = local.utcoffset()
    assert offset is not None
    assert offset.total_seconds() == utc_offset_s(second)
    assert midnight.timestamp() == next_midnight(second)
