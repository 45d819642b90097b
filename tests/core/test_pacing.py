"""Limits that we know are kept by our own count."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.pools import NOW

from gemini_poold.core.model import DailyCap, Limits
from gemini_poold.core.pacific import next_midnight
from gemini_poold.core.pacing import Cap, Pace, tightest

SLACK = 0.12  # of a minute whose boundaries nothing has shown yet


def test_requests_a_minute() -> None:
    """The request after the last allowed one is due when the oldest leaves the minute."""
    p = Pace(Limits(rpm=2))
    assert p.free_at(NOW) <= NOW
    p.spend(NOW)
    p.spend(NOW + 10)
    assert p.free_at(NOW + 20) == pytest.approx(NOW + 60 + SLACK)
    p.spend(NOW + 61)
    assert p.free_at(NOW + 61) == pytest.approx(NOW + 70 + SLACK)


@given(st.integers(1, 7), st.lists(st.floats(0, 40), max_size=60))
def test_no_minute_ever_holds_more(rpm: int, gaps: list[float]) -> None:
    """Whatever the arrivals: sending when `free_at` allows never puts more than rpm into any 60 s."""
    pace, now, sent = Pace(Limits(rpm=rpm)), NOW, []
    for gap in gaps:
        now += gap
        if pace.free_at(now) <= now:
            pace.spend(now)
            sent.append(now)
    for i, start in enumerate(sent):
        assert sum(start <= t < start + 60 for t in sent[i:]) <= rpm


def test_requests_a_day_end_at_pacific_midnight() -> None:
    """A used-up day is free again at Pacific midnight."""
    p = Pace(Limits(rpd=1))
    p.spend(NOW)
    assert next_midnight(NOW) == p.free_at(NOW + 1)
    assert p.free_at(next_midnight(NOW)) <= next_midnight(NOW)


def test_tokens_a_minute() -> None:
    """Tokens of the last minute are counted from when they were sent, older ones are not."""
    p = Pace(Limits(tpm=100))
    p.spend(NOW)
    p.answered(NOW, NOW + 5, tokens=60)
    assert p.free_at(NOW + 5, 30) <= NOW + 5
    p.spend(NOW + 10, 30)  # under way: its estimate counts
    assert p.free_at(NOW + 11, 30) == pytest.approx(NOW + 60.1)
    p.answered(NOW + 10, NOW + 12, tokens=5, estimate=30)
    assert p.free_at(NOW + 12, 30) <= NOW + 12
    assert p.free_at(NOW + 61, 80) <= NOW + 61


def test_what_was_not_sent_costs_nothing() -> None:
    """A lease that is given back, or refused, counts for no limit."""
    p = Pace(Limits(rpm=1, rpd=1, tpm=100))
    p.spend(NOW, 100)
    assert p.free_at(NOW + 1, 1) > NOW + 1
    p.unspend(NOW)
    assert p.free_at(NOW + 1, 1) <= NOW + 1


@pytest.mark.parametrize("limits", [Limits(rpm=0), Limits(rpd=0)])
def test_zero_means_never(limits: Limits) -> None:
    """A limit of zero is no access, not a division by zero."""
    assert Pace(limits).free_at(NOW) == inf


def test_daily_caps_of_the_user() -> None:
    """Our own caps count requests and tokens over the Pacific day."""
    c = Cap(DailyCap(requests=2, tokens=100))
    c.spend(NOW, requests=1, tokens=99)
    assert c.free_at(NOW) <= NOW
    c.spend(NOW, requests=1)
    assert next_midnight(NOW) == c.free_at(NOW)
    assert c.free_at(next_midnight(NOW)) <= next_midnight(NOW)


def test_tightest_of_two() -> None:
    """Of two accounts of one bucket the smaller limit counts, an unset one does not."""
    assert Limits(5, 10, 7) == tightest(Limits(5, None, 7), Limits(8, 10, None))


def _used(limits: Limits, count: int) -> Pace:
    pace = Pace(limits)
    for n in range(count):
        pace.answered(pace.spend(NOW + n), NOW + n, tokens=100)
    return pace


def test_what_was_learnt_survives() -> None:
    """A limit that Google named and the day's count are the same after a restart; the last minute counts in full."""
    pace = _used(Limits(), 5)
    pace.refused_rate(pace.spend(NOW + 6), NOW + 6, told_until=NOW + 60, value=5, width_s=60.0)
    pace.refused_day(pace.spend(NOW + 7), NOW + 7, value=400, until=next_midnight(NOW))
    later = Pace()
    later.recall(pace.row("gl:a", "m"), NOW + 20)
    assert (later.rpm, later.rpd) == (5, 400)
    assert later.free_at(NOW + 20) == next_midnight(NOW), "the day is used up"
    fresh = Pace()
    fresh.recall(_used(Limits(rpm=5), 5).row("gl:a", "m"), NOW + 20)
    assert fresh.rpm is None, "a configured limit is the configuration's to keep"
    again = Pace(Limits(rpm=5))
    again.recall(_used(Limits(rpm=5), 5).row("gl:a", "m"), NOW + 20)
    assert again.free_at(NOW + 20) >= NOW + 64, "five were sent before the restart"


def test_what_is_long_past_does_not_count_after_a_restart() -> None:
    """Neither the minute of yesterday nor its day; its limits do."""
    row = _used(Limits(rpd=5), 5).row("gl:a", "m")
    later = Pace(Limits(rpd=5))
    later.recall(row, next_midnight(NOW) + 1)
    assert later.free_at(next_midnight(NOW) + 1) <= next_midnight(NOW) + 1


def test_the_users_limits_win_over_what_was_learnt() -> None:
    """An edit of accounts.toml counts, whatever an earlier run knew."""
    pace = Pace()
    pace.window.tell(50, 60.0)
    later = Pace(Limits(rpm=7, rpd=9, tpm=11))
    later.recall(pace.row("gl:a", "m"), NOW)
    assert (later.rpm, later.rpd, later.tpm) == (7, 9, 11)
