"""Times as Google writes them: every form of a duration, of an instant, and of a delay hidden in a sentence.

Pure. What cannot be read, is negative or is no number gives None: "no word about time", never an error.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import isfinite

LONGEST_S = 8 * 86_400.0  # Google has quotas of a week; what lies beyond is nonsense and is cut to this

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001, "us": 1e-6, "µs": 1e-6, "ns": 1e-9, "d": 86_400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|d|h|m|s)")
_WHOLE = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|us|µs|ns|d|h|m|s))+")
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")

# "Please retry in 44.09s", "reset after 19h14m47s", "after 27s", "retry after 5 seconds", "try again in 2 minutes"
_IN_TEXT = re.compile(
    r"\b(?:retry\s+in|again\s+in|resets?\s+in|after|wait)\s+"
    r"((?:\d+(?:\.\d+)?\s?(?:milliseconds?|seconds?|secs?|minutes?|mins?|hours?|days?|ms|h|m|s|d)(?![a-z])"
    r"|\d+(?:\.\d+)?(?:h|m|s)(?=\d)|\s+|,|\band\b)+)",
    re.IGNORECASE,
)
_WORDY = re.compile(
    r"(\d+(?:\.\d+)?)\s?(milliseconds?|ms|days?|d|hours?|h|minutes?|mins?|m|seconds?|secs?|s)", re.IGNORECASE
)

_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(\.\d+)?\s*([Zz]|[+-]\d\d:?\d\d)?$")


def duration_s(value: object) -> float | None:
    """Seconds in `"34.07s"`, `"900ms"`, `"1h16m0.667s"`, `{"seconds": 34, "nanos": 74000000}` or a bare number."""
    if isinstance(value, dict):
        return _parts_s(value)
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return _sane(float(value))
    if not isinstance(value, str):
        return None
    text = value.strip()
    if _NUMBER.fullmatch(text):
        return _sane(float(text))
    if not _WHOLE.fullmatch(text):
        return None
    return _sane(sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text)))


def instant(text: object) -> float | None:
    """Unix seconds of an RFC 3339 time stamp, fractions of any length included. Without a zone it counts as UTC."""
    if not isinstance(text, str) or not (found := _RFC3339.match(text.strip())):
        return None
    day, clock, fraction, zone = found.groups()
    zone = "+00:00" if zone is None or zone in "Zz" else zone
    try:
        whole = datetime.fromisoformat(f"{day}T{clock}{zone}").timestamp()
    except (ValueError, OverflowError):
        return None
    return whole + float(fraction or 0)


def retry_after_s(value: str, now: float) -> float | None:
    """Seconds that a `Retry-After` header asks for: a number, possibly fractional, or an HTTP date."""
    text = value.strip()
    if _NUMBER.fullmatch(text):
        return _sane(float(text))
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return None
    return _sane((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now)


def delay_in_text_s(text: str) -> float | None:
    """The delay that a sentence of Google's tells, or None."""
    for found in _IN_TEXT.finditer(text):
        parts = _WORDY.findall(found[1])
        if parts:
            return _sane(sum(float(number) * _unit_s(unit) for number, unit in parts))
    return None


def bounded_s(seconds: float) -> float:
    """`seconds`, cut to what can be true."""
    return min(seconds, LONGEST_S)


def _unit_s(word: str) -> float:
    word = word.lower()
    if word.startswith(("ms", "milli")):
        return 0.001
    return _UNITS[word[0]]


def _parts_s(value: dict[object, object]) -> float | None:
    seconds, nanos = duration_s(value.get("seconds", 0)), duration_s(value.get("nanos", 0))
    if seconds is None or nanos is None:
        return None
    return _sane(seconds + nanos / 1e9)


def _sane(seconds: float) -> float | None:
    return seconds if isfinite(seconds) and seconds >= 0 else None
