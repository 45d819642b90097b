"""Durations, instants and delays in text: every form that Google was seen to write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemini_poold.backends.durations import (
    LONGEST_S,
    bounded_s,
    delay_in_text_s,
    duration_s,
    instant,
    retry_after_s,
)

NOW = 1_795_000_000.0  # 2026-11-18 11:06:40 UTC


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("34.074824224s", 34.074824224),
        ("9s", 9.0),
        ("900ms", 0.9),
        ("539.477544ms", 0.539477544),
        ("68940s", 68_940.0),
        ("1h16m0.667s", 4_560.667),
        ("19h14m47s", 69_287.0),
        ("12h3m4s", 43_384.0),
        ("1d2h", 93_600.0),
        ({"seconds": 34, "nanos": 74_000_000}, 34.074),
        ({"seconds": "34", "nanos": 74_000_000}, 34.074),
        ({"seconds": "34"}, 34.0),
        ({"nanos": 500_000_000}, 0.5),
        ("7", 7.0),
        (7, 7.0),
        (0.25, 0.25),
        (" 9s ", 9.0),
        ("0s", 0.0),
    ],
)
def test_duration(written, seconds):
    """Every form of a duration is read."""
    assert duration_s(written) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "written",
    ["", "soon", "-5s", "5 parsecs", "1h-2m", "NaN", "inf", float("nan"), float("inf"), -1, None, True, [], "s",
     {"seconds": "x"}, {"seconds": -3}],
)  # fmt: skip
def test_no_duration(written):
    """What is no duration, negative or no number gives None, never an error."""
    assert duration_s(written) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("You exceeded your current quota.\nPlease retry in 44.097740004s.", 44.097740004),
        ("Please retry in 900ms", 0.9),
        ("Your quota will reset after 19h14m47s.", 69_287.0),
        ("quota will reset after 27s", 27.0),
        ("try again after 27s", 27.0),
        ("retry after 5 seconds", 5.0),
        ("Please try again in 2 minutes and 5 seconds.", 125.0),
        ("Quota resets in 1h16m0.667s", 4_560.667),
        ("RESET AFTER 3 Hours", 10_800.0),
        ("wait 10s", 10.0),
    ],
)
def test_delay_in_text(text, seconds):
    """A delay inside a sentence is found."""
    assert delay_in_text_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", "Please try again later.", "limit: 20, model: gemini-3-flash", "after 3 models were tried", "retry in a moment",
     "see code 429 after all", "after 27", "in 5 seconds of audio"],
)  # fmt: skip
def test_no_delay_in_text(text):
    """A sentence without a delay has none."""
    assert delay_in_text_s(text) is None


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-11-24T08:00:00Z", 1_795_507_200.0),
        ("2026-11-24T08:00:00.250Z", 1_795_507_200.25),
        ("2026-11-24T08:00:00.123456789Z", 1_795_507_200.123456789),
        ("2026-11-24T09:00:00+01:00", 1_795_507_200.0),
        ("1970-01-01T00:00:00Z", 0.0),
        ("2026-11-24", None),
        ("2026-13-24T08:00:00Z", None),
        ("soon", None),
        (None, None),
    ],
)
def test_instant(text, at):
    """RFC 3339 in every form it takes; anything else is None."""
    assert instant(text) == (at if at is None else pytest.approx(at))


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("3", 3.0),
        ("0.5", 0.5),
        ("Wed, 18 Nov 2026 11:07:40 GMT", 60.0),
        ("Wed, 18 Nov 2026 11:05:40 GMT", None),
        ("-3", None),
        ("tomorrow", None),
        ("", None),
    ],
)
def test_retry_after(header, seconds):
    """Retry-After is a number or a date; a date that has passed says nothing."""
    assert retry_after_s(header, NOW) == seconds


def test_bounded():
    """Real resets of many hours stay, the absurd is cut."""
    assert bounded_s(7 * 86_400.0) == 7 * 86_400.0
    assert bounded_s(1e12) == LONGEST_S


@given(st.text(max_size=60))
def test_nothing_raises(text):
    """No text makes any of the readers raise."""
    duration_s(text)
    delay_in_text_s(text)
    instant(text)
    retry_after_s(text, NOW)


@given(st.integers(0, 99), st.integers(0, 59), st.floats(0, 59.999))
def test_compound_durations(hours, minutes, seconds):
    """Hours, minutes and seconds add up."""
    assert duration_s(f"{hours}h{minutes}m{seconds:.3f}s") == pytest.approx(
        hours * 3600 + minutes * 60 + seconds, abs=0.001
    )
