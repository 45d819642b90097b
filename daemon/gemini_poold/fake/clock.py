"""The fake's time: real by default, settable for tests. Google's day ends at midnight US Pacific time.

Nothing here waits. Limits, token lives and reset instants read this clock; pacing of streams uses the event loop.
"""

from __future__ import annotations

import time
from calendar import timegm
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_HOUR_S = 3600.0


class Clock(Protocol):
    """Anything that tells Unix seconds."""

    def now(self) -> float: ...


class RealClock:
    """The machine's wall clock."""

    def now(self) -> float:
        return time.time()


class SetClock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self, now: float = 1_795_000_000.0) -> None:
        self._now = now

    def now(self) -> float:
        return self._now

    def set(self, now: float) -> None:
        self._now = now

    def advance(self, seconds: float) -> float:
        """Move on (or back, when negative); the new instant."""
        self._now += seconds
        return self._now


def pacific_day_end(now: float) -> float:
    """The first US Pacific midnight after `now`, in Unix seconds."""
    zone = _pacific()
    local = datetime.fromtimestamp(now, zone) if zone else _by_rule(now)
    tomorrow = (local + timedelta(days=1)).date()
    if zone:
        return datetime(tomorrow.year, tomorrow.month, tomorrow.day, tzinfo=zone).timestamp()
    midnight = float(timegm((tomorrow.year, tomorrow.month, tomorrow.day, 0, 0, 0)))
    # Clocks change at 2 in the morning, so the offset in force one standard hour before midnight still holds at midnight.
    return midnight - _offset_by_rule(midnight + 7 * _HOUR_S)


def rfc3339(at: float) -> str:
    """`2026-11-24T08:00:00Z`, with a fraction only when there is one."""
    moment = datetime.fromtimestamp(at, UTC)
    text = moment.strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{moment.microsecond:06d}Z" if moment.microsecond else f"{text}Z"


@lru_cache(maxsize=1)
def _pacific() -> tzinfo | None:
    try:
        return ZoneInfo("America/Los_Angeles")
    except ZoneInfoNotFoundError:  # neither the system nor a tzdata package has the zones
        return None


def _by_rule(now: float) -> datetime:
    return datetime.fromtimestamp(now + _offset_by_rule(now), UTC)


def _offset_by_rule(now: float) -> float:
    """US rule since 2007: daylight time from 2:00 on March's second Sunday to 2:00 on November's first."""
    year = datetime.fromtimestamp(now, UTC).year
    starts = _sunday(year, 3, 2) + 10 * _HOUR_S  # 2:00 PST is 10:00 UTC
    ends = _sunday(year, 11, 1) + 9 * _HOUR_S  # 2:00 PDT is 9:00 UTC
    return -7 * _HOUR_S if starts <= now < ends else -8 * _HOUR_S


def _sunday(year: int, month: int, nth: int) -> float:
    first = datetime(year, month, 1, tzinfo=UTC)
    day = 1 + (6 - first.weekday()) % 7 + 7 * (nth - 1)
    return datetime(year, month, day, tzinfo=UTC).timestamp()
