"""What refusals and answers teach about a window, told as short stories of one bucket."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

import pytest
from tests.core.pools import NOW

from gemini_poold.core.evenly import Evenly
from gemini_poold.core.model import Limits
from gemini_poold.core.pacing import Pace

MINUTE = 60.0


class Story:
    """One bucket and model, and a Google with a window that only it knows. `zero`: where fixed windows begin."""

    def __init__(
        self, limit: int, *, width_s: float = MINUTE, fixed: bool = False, zero: float = NOW
    ) -> None:
        self.pace = Pace(Limits())
        self.limit, self.width_s, self.fixed, self.zero = limit, width_s, fixed, zero
        self.accepted: list[float] = []
        self.refused: list[float] = []

    def _window(self, now: float) -> list[float]:
        if self.fixed:
            return self.accepted[bisect_left(self.accepted, now - (now - self.zero) % self.width_s) :]
        return self.accepted[bisect_right(self.accepted, now - self.width_s) :]

    def ends_at(self, now: float) -> float:
        """When one more fits, as Google knows."""
        inside = self._window(now)
        if len(inside) < self.limit:
            return now
        return (
            now - (now - self.zero) % self.width_s + self.width_s if self.fixed else inside[0] + self.width_s
        )

    def send(self, now: float, *, named: bool = False, told: bool = False) -> bool:
        at = self.pace.spend(now)
        if len(self._window(now)) < self.limit:
            self.accepted.append(now)
            self.pace.answered(at, now, tokens=None)
            return True
        self.refused.append(now)
        self.pace.refused_rate(
            at,
            now,
            told_until=self.ends_at(now) if told or named else None,
            value=self.limit if named else None,
            width_s=self.width_s if named else None,
        )
        return False

    def keep_asking(self, since: float, seconds: float, *, step_s: float = 0.5, **how: bool) -> None:
        """Somebody always waits: whatever is allowed is sent."""
        for n in range(int(seconds / step_s)):
            now = since + n * step_s
            while self.pace.free_at(now) <= now:
                self.send(now, **how)


def test_nothing_is_held_back_before_anything_is_known() -> None:
    """No limit is invented."""
    story = Story(1_000)
    for n in range(500):
        assert story.pace.free_at(NOW + n / 100) <= NOW + n / 100
        story.send(NOW + n / 100)


def test_a_named_limit_is_kept_after_one_refusal() -> None:
    """Google named limit and window: in twenty minutes of asking there is that one refusal."""
    story = Story(10)
    story.keep_asking(NOW, 1_200.0, named=True)
    assert len(story.refused) == 1
    assert len(story.accepted) >= 0.98 * 10 * 20


def test_fixed_windows_are_found_out() -> None:
    """A large limit with told ends: the phase is learnt, and nearly all of it used."""
    story = Story(60, fixed=True, zero=NOW - 17.0)
    story.keep_asking(NOW, 1_800.0, named=True)
    assert story.pace.window.anchor is not None
    assert (story.pace.window.anchor - story.zero) % MINUTE == pytest.approx(0.0, abs=1.0)
    assert len(story.refused) <= 0.01 * len(story.accepted)
    assert len(story.accepted) >= 0.93 * 60 * 30


@pytest.mark.parametrize("fixed", [False, True], ids=["sliding", "fixed"])
def test_a_limit_is_counted_where_a_time_is_all_that_is_told(fixed: bool) -> None:
    """Our own count at the refusal is the limit; little is refused afterwards."""
    story = Story(40, fixed=fixed, zero=NOW - 9.0)
    story.keep_asking(NOW, 1_200.0, told=True)
    assert story.pace.rpm == pytest.approx(40, abs=3)
    assert len(story.refused) <= 0.02 * len(story.accepted)
    assert len(story.accepted) >= 0.93 * 40 * 20


@pytest.mark.parametrize(("fixed", "width_s"), [(False, 60.0), (True, 60.0), (True, 10.0)])
def test_a_limit_is_learnt_without_any_word(fixed: bool, width_s: float) -> None:
    """Google says only that it was too much: most of it is used all the same, at the price of few refusals."""
    story = Story(30, width_s=width_s, fixed=fixed, zero=NOW - 4.0)
    story.keep_asking(NOW, 1_200.0)
    assert len(story.refused) <= 0.05 * len(story.accepted)
    assert len(story.accepted) >= 0.75 * 30 * 1_200.0 / width_s


def test_a_refusal_that_others_caused_is_outgrown() -> None:
    """Another program used up the bucket once: a limit counted then is tried beyond, in growing steps."""
    story = Story(500)
    for n in range(3):
        story.send(NOW + n)
    at = story.pace.spend(NOW + 3)
    story.pace.refused_rate(at, NOW + 3, told_until=NOW + 10, value=None, width_s=None)
    assert story.pace.rpm is not None
    story.keep_asking(NOW + 10, 1_200.0)
    assert story.pace.rpm >= 60
    assert len(story.refused) <= 0.05 * len(story.accepted)


def test_a_configured_limit_is_never_raised() -> None:
    """The user's limit holds, whatever Google names; a smaller one of Google's counts."""
    pace = Pace(Limits(rpm=5))
    pace.window.tell(100, MINUTE)
    assert pace.rpm == 5
    pace.window.tell(3, MINUTE)
    assert pace.rpm == 3


def test_a_limit_that_is_told_to_one_on_trial_is_kept() -> None:
    """A counted limit is just tried beyond when Google names the true one: from then on nothing more is tried."""
    story = Story(3)
    for n in range(4):
        story.send(NOW + n / 1_000, told=True)
    assert story.pace.rpm == 3
    now = NOW + 61.0
    while len(story.refused) < 2:  # the one that is sent beyond
        named = len(story._window(now)) == 3
        now += 0.5
        while story.pace.free_at(now) <= now:
            story.send(now, named=named)
    now += 1_000.0
    sent = 0
    while story.pace.free_at(now) <= now and sent < 10:
        at = story.pace.spend(now)
        sent += 1
        story.pace.answered(at, now, tokens=None)
    assert sent == 3


def test_a_phase_of_counted_windows_is_no_phase_of_told_ones() -> None:
    """Fixed windows were made out without a word; when Google names the limit, no minute holds more than that."""
    pace = Pace(Limits())
    pace.window.limit, pace.window.anchor, pace.window.width_s = 5, NOW + 1.0, 30.0
    pace.window.tell(5, MINUTE)
    sent = 0
    for n in range(240):
        now = NOW - 58.0 + n / 4
        while pace.free_at(now) <= now and sent < 20:
            pace.answered(pace.spend(now), now, tokens=None)
            sent += 1
    assert sent == 5


def test_what_was_under_way_at_a_refusal_teaches_once() -> None:
    """Twenty at once, ten of them refused: one lesson, not ten."""
    story = Story(10)
    ats = [story.pace.spend(NOW + n / 1_000) for n in range(20)]
    for at in ats[:10]:
        story.pace.answered(at, NOW + 1, tokens=None)
    for at in ats[10:]:
        story.pace.refused_rate(at, NOW + 1, told_until=NOW + 60, value=None, width_s=None)
    assert story.pace.rpm == 10


def test_even_requests_begin_at_the_rate_that_was_answered() -> None:
    """Thirty answers in a minute make two seconds' distance, after a rest and one on trial."""
    even = Evenly([NOW + 2.0 * n for n in range(30)], NOW + 60.0)
    assert even.gap_s == pytest.approx(2.0)
    rests_until = even.free_at(NOW + 59.0)
    assert rests_until > NOW + 60.0
    even.spent(rests_until, trickle_s=1.5)
    assert even.free_at(rests_until) == rests_until + 2.0
    even.answered(rests_until)
    assert even.free_at(rests_until) == rests_until + even.gap_s


def test_even_requests_go_faster_after_many_answers_and_slower_after_a_refusal() -> None:
    """Fast until the first refusal, a little afterwards; one gap of rest, and the rest after refused trials doubles."""
    even = Evenly([NOW + n / 2 for n in range(20)], NOW + 10.0)

    def answered(count: int, since: float, apart: float = 1.0) -> float:
        at = since
        for _ in range(count):
            even.spent(at, trickle_s=0.5)
            even.answered(at)
            at += apart * even.gap_s
        return at

    at = answered(31, even.free_at(0.0))
    assert even.gap_s == pytest.approx(0.5 * 0.97**3)
    gap_s = even.gap_s
    even.refused(at)
    assert even.gap_s == pytest.approx(1.01 * gap_s)
    assert even.free_at(0.0) == pytest.approx(at + even.gap_s)
    gap_s = even.gap_s
    at = answered(31, even.free_at(0.0))
    assert even.gap_s == pytest.approx(0.997 * gap_s)
    even.refused(at)
    even.spent(at + 1.0, trickle_s=0.5)
    gap_s = even.gap_s
    for rest_s in (1.0, 2.0, 4.0):
        even.refused(at + 1.1)
        even.spent(at + 1.1 + rest_s, trickle_s=0.5)
        at += 1.1 + rest_s
        assert even.gap_s == gap_s, "a trial that failed says nothing of the rate"
    even.refused(at + 0.1)
    assert even.free_at(0.0) == at + 8.1


def test_even_requests_grow_only_where_somebody_wants_more() -> None:
    """Answers to requests that came at their leisure say nothing of a faster rate; a rate that fails at once falls fast."""
    even = Evenly([NOW + n for n in range(60)], NOW + 60.0)
    at = even.free_at(0.0)
    for _ in range(500):
        even.spent(at, trickle_s=0.5)
        even.answered(at)
        at += 2.0 * even.gap_s
    assert even.gap_s == 1.0
    even.refused(at)
    assert even.gap_s == pytest.approx(1.1)
