"""Google's quota days end at midnight in Los Angeles. Pure arithmetic, because the core reads no time-zone files.

United States rule since 2007: daylight saving from the second Sunday in March, 02:00 local (10:00 UTC), to the first
Sunday in November, 02:00 local (09:00 UTC). A test compares it with the system's zone data where there is some.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_DAY_S = 86_400.0


def utc_offset_s(now: float) -> float:
    """Seconds to add to UTC to get Los Angeles time at `now` (Unix seconds): -25200 in summer, -28800 else."""
    year = datetime.fromtimestamp(now, UTC).year
    begins = _nth_sunday(year, 3, 2) + timedelta(hours=10)
    ends = _nth_sunday(year, 11, 1) + timedelta(hours=9)
    return -25_200.0 if begins.timestamp() <= now < ends.timestamp() else -28_800.0


def next_midnight(now: float) -> float:
    """The first Pacific midnight after `now`, Unix seconds."""
    local = now + utc_offset_s(now)
    midnight_local = (local // _DAY_S + 1) * _DAY_S
    guess = midnight_local - utc_offset_s(now)
    # On the two days of the year when the clock is changed, the offset at midnight differs from the one now.
    return midnight_local - utc_offset_s(guess)


def _nth_sunday(year: int, month: int, nth: int) -> datetime:
    first = datetime(year, month, 1, tzinfo=UTC)
    return first + timedelta(days=(6 - first.weekday()) % 7 + 7 * (nth - 1))
