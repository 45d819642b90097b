"""One limit of requests in a short window: what is known of it, what refusals and successes teach, when one more fits.

Rules
1. A limit comes from the configuration, from Google's `quotaValue`, or from our own count at a refusal. The first two
   are knowledge and are kept; a counted one is tried beyond now and then, ever more rarely while that fails.
2. Windows count as sliding unless proven otherwise: that is safe against fixed windows of any phase, and as fast in
   the long run. After a told end (of a limit that is large enough for a refusal more not to matter) fixed windows are
   supposed, and believed when a request is answered that sliding windows would have refused. Told ends that proved
   wrong are not believed again.
3. Where nothing names the window it is a minute, or what told ends (`ends.py`) and answered trials prove.
4. Without any told time nothing is sent for 4 s, then one request is tried, then after 8 s, 16 s …. One that is answered
   although sliding windows would have refused it has met the beginning of a fixed one; from there to the next refusal
   we count what fits, from there to the next beginning how long the window is.
5. Fixed windows of a named length keep their phase; others are taken to begin with the first request after the last
   one's end, which both kinds do as long as somebody waits. A new window is opened by one request; the rest follows when
   that one was not refused at once, so that an error of phase costs one refusal and not a burst of them.
6. Where nothing is told and what was measured of the windows is contradicted, windows are given up (`evenly.py`).
7. Instants are when we sent; Google counts when it receives. `slack_s` keeps us clear of that difference and grows when
   a refusal shows that it was too small.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum
from math import floor, inf

from .ends import Ends, Found
from .evenly import MINUTE_S, Evenly
from .model import PaceRow

LEAD_S = 0.25  # what was sent this shortly before a boundary may have been counted after it
_SLACK = 0.002  # of the window, to begin with; at most _MOST_SLACK
_MOST_SLACK = 0.02
_CLEAR_S = 0.3  # a request sent this much before sliding windows allow it proves that they do not slide
_LARGE = 20  # limits from which fixed windows are worth a request on trial
_TRIAL_S = 4.0
_TRICKLE_S = 1.5  # a refusal comes sooner than that; an answer may take long
_OPENING_S = 0.5  # a refusal's way there and back
_GRAIN_S = 1e-3
_SHORTEST_S = 1.0
_EARLIER = 0.07  # of a window whose length was measured: so much earlier its end is tried now and then
_RAISE_EVERY = 3.0  # windows, before a counted limit is tried beyond
_RAISE_BY = 0.05
_MOST_DOUBLINGS = 5
_RAISE_LONGEST_S = 3_600.0
_DOUBTS = 3

Sent = deque[
    list[float]
]  # [instant, input tokens] of each request that was sent and not refused, oldest first


class Source(IntEnum):
    """Where a limit is known from."""

    NOWHERE = 0
    COUNTED = 1
    TOLD = 2
    CONFIGURED = 3


class Window:
    """`limit` requests (None: unknown) in `width_s`. `anchor`: where fixed windows meet (of an unnamed width: the end of
    the one in force); None: they slide.
    """

    __slots__ = (
        "_apart_s",
        "_base",
        "_base_until",
        "_beyond_at",
        "_doubts",
        "_ends",
        "_even",
        "_excused",
        "_found",
        "_fresh",
        "_hold_at",
        "_lesson_at",
        "_measured",
        "_open_at",
        "_opened_at",
        "_opened_before",
        "_probe_at",
        "_probe_from",
        "_raise_every_s",
        "_raises",
        "_supposed",
        "_told_end",
        "_trials",
        "_tried_at",
        "_trip_s",
        "_wronged",
        "anchor",
        "limit",
        "named",
        "slack_s",
        "source",
        "width_s",
    )  # fmt: skip

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self.source = Source.NOWHERE if limit is None else Source.CONFIGURED
        self.width_s = MINUTE_S
        self.named = limit is not None  # the width is known by name
        self.anchor: float | None = None
        self._measured = True  # how long fixed windows are
        self._open_at = 0.0  # the rest of a new window may follow its first request then
        self._excused = False  # what was under way at the last refusal teaches nothing more
        self.slack_s = _SLACK * MINUTE_S
        self._lesson_at = 0.0  # the last refusal
        self._trip_s = 0.0  # … took so long to Google and back
        self._told_end = 0.0  # the end that it told
        self._apart_s = 0.0  # between the last two told ends
        self._fresh = False  # the lesson under way is the first one, and began with an unused bucket
        # Beyond the limit: from `_beyond_at` on a request may be sent that the window does not allow.
        self._beyond_at = inf
        self._probe_at = 0.0  # when one was sent whose fate is not known yet
        self._probe_from = 0.0  # the beginning of the window that it should have waited for
        self._supposed = 0.0  # why: this told end of fixed windows waits for its proof …
        self._base = 0  # … or a counted limit may be too small; this it was before it was raised
        self._base_until = 0.0  # a refusal before that takes the raise back
        self._raise_every_s = 0.0
        self._raises = 0  # in a row: a bucket that others used, too, soon has its whole limit again
        self._wronged = 0
        # Without told times: nothing before `_hold_at`, then one on trial.
        self._hold_at = 0.0
        self._trials = 0
        self._tried_at = 0.0
        self._opened_at = 0.0  # when the last trial that was answered was sent
        self._opened_before = 0.0
        self._even: Evenly | None = None  # windows are given up
        self._ends = Ends()
        self._found: Found | None = None  # what they said
        self._doubts = 0  # so many refusals more need not fit

    def recall(self, row: PaceRow) -> None:
        """Take up what an earlier run had learnt."""
        self.limit, self.source, self.width_s = row.rpm, Source(row.source), row.width_s
        self.named, self.anchor = row.named, row.anchor
        self.slack_s = max(self.slack_s, _SLACK * row.width_s)

    # ---- deciding --------------------------------------------------------------------------------------------

    def taken(self, sent: Sent, now: float) -> tuple[int, float | None]:
        """How many of the limit are taken by our own count, and when a fixed window ends; None: it slides."""
        used = sum(1 for at, _ in sent if self._leaves_at(at) > now)
        fixed = self.anchor is not None and self._even is None
        return used, self._leaves_at(now) if fixed and used else None

    def free_at(self, sent: Sent, now: float, kept: int = 0) -> float:
        """When one more request fits and leaves `kept` of the limit alone; `now` or earlier means now."""
        limit = self.limit
        if limit is None:
            return 0.0
        limit -= kept
        if self._hold_at:
            return self._hold_at
        if self._even is not None:
            return self._even.free_at(sent[-1][0] if sent else 0.0)
        if len(sent) < limit:
            return self._open_at
        if limit <= 0:
            return inf
        at = max(self._leaves_at(sent[-limit][0]), self._open_at)
        if at > now and not self._probe_at and not kept:
            early_at = at if self.anchor is None or self.named else self.anchor - _EARLIER * self.width_s
            return (
                min(at, max(self._beyond_at, early_at))
                if self.anchor is not None
                else min(at, self._beyond_at)
            )
        return at

    def spent(self, sent: Sent, now: float) -> None:
        """A request was sent at `now` (its entry is the last)."""
        limit = self.limit
        if self._hold_at:
            self._tried_at = self._tried_at or now
            self._hold_at = now + _TRICKLE_S
            return
        if self._even is not None:
            self._even.spent(now, trickle_s=_OPENING_S)
            return
        if limit is not None and self._beyond_at <= now and len(sent) > limit:
            ahead_s = self._leaves_at(sent[-limit - 1][0]) - now
            if ahead_s > (_CLEAR_S + self._trip_s + self.slack_s if self.anchor is None else 0.0):
                self._probe_at, self._probe_from = now, self._opened_at
        if self.anchor is not None:
            self._open(sent, now)
            if (
                not self._measured
                and limit is not None
                and len(sent) >= limit
                and sent[-limit][0] >= self._opened_at
            ):
                self._hold_at = now + _TRIAL_S  # full, and nobody knows for how long

    # ---- learning --------------------------------------------------------------------------------------------

    def tell(self, limit: int, width_s: float) -> None:
        """Google named limit and window. A configured limit is never raised by that."""
        if self.source is Source.CONFIGURED and self.limit is not None:
            self.limit = min(limit, self.limit)
        else:
            if self.source is not Source.TOLD:
                self._beyond_at, self._base, self._hold_at, self._even = inf, 0, 0.0, None
                self._probe_at = self._base_until = self._supposed = 0.0  # what was tried is known now
                self.anchor, self._found = None, None  # of another length, perhaps
            self.source, self.limit = Source.TOLD, limit
        self.width_s, self.named = width_s, True

    def answered(self, sent: Sent, sent_at: float, now: float) -> None:
        """A request was not refused. Only one that went on trial teaches anything."""
        if self._even is not None:
            self._even.answered(sent_at)
            self.limit = self._even.per_minute
            return
        if self._hold_at and self._tried_at and sent_at >= self._tried_at:
            self._reopen(sent, sent_at, now)
        elif sent_at == self._probe_at and self.limit is not None:
            self._probe_at = 0.0
            if self._supposed:
                first = next((at for at, _ in sent if at >= self._supposed), now)
                self.anchor = self._supposed if self.named else first + self.width_s
                self._supposed, self._beyond_at = 0.0, inf
                self._plan_raise(now)
            elif self.anchor is not None and not self.named:  # a window that began earlier than we thought
                self.width_s = max(_SHORTEST_S, sent_at - self._probe_from)
                self.anchor = sent_at + self.width_s
                self._opened_at, self._beyond_at = sent_at, now
            elif self.source is Source.COUNTED:
                self._base, self._base_until = self.limit, now + self.width_s
                self.limit += max(1, int(self.limit * _RAISE_BY)) << self._raises
                self._raises = min(self._raises + 1, _MOST_DOUBLINGS)
                self._beyond_at = now + self.width_s

    def undecided(self, sent_at: float) -> None:
        """A request's fate will not be known; if it was on trial, another one may be."""
        if sent_at == self._probe_at:
            self._probe_at = 0.0

    def unsent(self, sent_at: float) -> None:
        """A request was not sent after all: it was no trial, and opened no window."""
        self.undecided(sent_at)
        if self.anchor is not None and not self.named and sent_at == self._opened_at:
            self.anchor, self._opened_at = sent_at, self._opened_before

    def refused(self, sent: Sent, sent_at: float, now: float, told_until: float | None) -> None:
        """A request that was sent at `sent_at` was refused for this limit (its entry is gone)."""
        probe = sent_at == self._probe_at
        self._probe_at = 0.0 if probe else self._probe_at
        news = sent_at > self._lesson_at  # else it was under way when the last lesson came
        self._lesson_at, self._trip_s = now, now - sent_at
        self._ends.drop(sent_at)
        if not news and self._excused:
            return
        if told_until is not None and self.source < Source.TOLD:
            self._ends.add((at for at, _ in sent), sent_at, now, told_until)
            if self._explain(sent, sent_at, now, told_until, probe=probe):
                return
        self._excused = False
        if self._supposed and sent_at >= self._supposed:  # no fixed windows after all
            self._supposed, self._beyond_at, self._probe_at = 0.0, inf, 0.0
            self._wronged += 1
            self._excused = True
            self._plan_raise(now)
        elif probe or (news and now < self._base_until):
            self._take_back(now)
        elif self.source >= Source.TOLD:
            self._learn_phase(sent, sent_at, now, told_until)
        elif told_until is not None:
            self._learn_from_end(sent, sent_at, now, told_until, news=news)
        else:
            self._learn_blindly(sent, sent_at, now, news=news)

    # ---- inside ----------------------------------------------------------------------------------------------

    def _leaves_at(self, sent_at: float) -> float:
        """When a request sent then no longer counts."""
        if self.anchor is None:
            return sent_at + self.width_s + self.slack_s
        if not self.named:
            return self.anchor if sent_at >= self.anchor - self.width_s - _GRAIN_S else 0.0
        windows = floor((sent_at + LEAD_S - self.anchor) / self.width_s) + 1
        return self.anchor + windows * self.width_s

    def _open(self, sent: Sent, now: float) -> None:
        """A request goes out: does it open a window?"""
        assert self.anchor is not None
        if self.named:
            first = len(sent) < 2 or self._leaves_at(sent[-2][0]) <= now
        elif first := now >= self.anchor:
            self.anchor, self._opened_before, self._opened_at = now + self.width_s, self._opened_at, now
        if first:
            self._open_at = now + _OPENING_S

    @property
    def _tolerance_s(self) -> float:
        return 0.3 + 0.01 * self.width_s

    def _too_early(self, sent: Sent, sent_at: float) -> bool:
        """Whether a refused request was sent when by our count there was room."""
        limit = self.limit or 0
        return len(sent) < limit or self._leaves_at(sent[-limit][0]) <= sent_at

    def _learn_phase(self, sent: Sent, sent_at: float, now: float, told: float | None) -> None:
        """Limit and window are known: what is learnt is where windows begin, and how late Google counts."""
        if told is None or not self.limit or len(sent) < self.limit:
            return  # others use the bucket, too: only its rest is known
        if self._too_early(sent, sent_at):
            self._shift(now, told)
        elif self.anchor is None:
            self._suppose(told)

    def _shift(self, now: float, told: float) -> bool:
        """A request came too early by our count. True when it was by a moment only, which is mended here."""
        if told - now <= self._tolerance_s:
            if self.anchor is None:
                self._widen_slack(told - now)
            else:
                self.anchor = told
            self._excused = True
            return True
        if self.anchor is not None:
            self.anchor = None
            self._wronged += 1
        return False

    def _explain(self, sent: Sent, sent_at: float, now: float, told: float, *, probe: bool) -> bool:
        """Whether the ends that were told so far say what the window is. What they said once is kept for some refusals that
        do not fit: others may use the bucket, too."""
        known, found = self._found, self._ends.found(self._found)
        if found is None:
            if known is None or not self._doubts:
                self._found = None
                return False
            self._doubts -= 1
            if not probe and self._too_early(sent, sent_at):
                self._shift_a_little(now, told)
        elif known is None or found[1:3] != known[1:3]:
            self.limit, self.width_s, self.anchor = found.limit, found.width_s, found.anchor
            self.named, self.source = found.anchor is not None, Source.COUNTED
            self.slack_s = max(_SLACK * self.width_s, min(found.blur_s / 2, _MOST_SLACK * self.width_s))
            self._supposed = self._open_at = self._raise_every_s = 0.0
            self._found, self._doubts = found, _DOUBTS
        else:
            self._doubts = _DOUBTS
            if not probe and self._too_early(sent, sent_at):
                self.limit = min(self.limit or found.limit, found.limit)
                self._shift_a_little(now, told)
        self._open_at = max(self._open_at, told)
        if probe:
            self._take_back(now)
        else:
            self._excused = True
            self._plan_raise(now)
        return True

    def _shift_a_little(self, now: float, told: float) -> None:
        if told - now <= self._tolerance_s:
            self._shift(now, told)

    def _suppose(self, told: float) -> None:
        if self.source is not Source.CONFIGURED and not self._wronged and (self.limit or 0) >= _LARGE:
            self._supposed = self._beyond_at = told

    def _learn_from_end(self, sent: Sent, sent_at: float, now: float, told: float, *, news: bool) -> None:
        """Neither limit nor window are named, but when the window ends."""
        if self.limit is not None and news:
            self._fresh = False
            if self._too_early(sent, sent_at) and self._shift(now, told):
                return
        apart_s = told - self._told_end
        since = sum(1 for at, _ in sent if at >= self._told_end - LEAD_S)
        if self.limit is not None and news and self._is_window(apart_s, since):
            # Two ends one window apart, and in between what fits into one: fixed windows.
            self.limit, self.width_s, self.anchor = since, apart_s, told
        elif self.anchor is None:
            self._count(sent, told)
            self._suppose(told)
        if news:
            self._told_end, self._apart_s = told, apart_s
        self._plan_raise(now)

    def _is_window(self, apart_s: float, since: int) -> bool:
        if not (
            since > 1 and 2 * since <= 3 * (self.limit or 0) and _SHORTEST_S <= apart_s <= 1.1 * MINUTE_S
        ):
            return False
        return apart_s > 1.05 * self.width_s or abs(apart_s - self._apart_s) <= self._tolerance_s

    def _count(self, sent: Sent, told: float) -> None:
        """The limit is what we have in the window that ends then."""
        inside = [at for at, _ in sent if at > told - MINUTE_S - LEAD_S]
        if not inside:
            return
        if self.limit is None:
            self._fresh = len(inside) == len(
                sent
            )  # nothing older: the oldest is what leaves when the window ends
        self.width_s = (
            min(max(told - self._trip_s - inside[0], _SHORTEST_S), MINUTE_S) if self._fresh else MINUTE_S
        )
        self.slack_s = max(self.slack_s if self.limit is not None else 0.0, _SLACK * self.width_s)
        self.limit = len(inside)
        self.source = Source.COUNTED

    def _learn_blindly(self, sent: Sent, sent_at: float, now: float, *, news: bool) -> None:
        """Nothing is told at all."""
        if self._even is not None:
            if news:
                self._even.refused(now)
                self.limit = self._even.per_minute
            return
        inside = max(
            1, sum(1 for at, _ in sent if at > now - (MINUTE_S if self.anchor is None else self.width_s))
        )
        if sent_at == self._opened_at:  # no window began there
            self._opened_at = self._opened_before
        since = max(1, sum(1 for at, _ in sent if at >= self._opened_at - _GRAIN_S))
        if self._tried_at and sent_at >= self._tried_at:
            self._trials += 1
        if self.limit is None:
            self.limit = inside
        elif self.anchor is not None:
            if news and sent_at < self.anchor:
                if (
                    since < self.limit and self._measured
                ):  # in the middle of a window that should have had room
                    self._give_windows_up(sent, now)
                    return
                if 2 * since >= self.limit:
                    self.limit = min(self.limit, since)
        else:
            self.limit = min(self.limit, inside)  # whatever the window, it lies in the last minute
        self.source = Source.COUNTED
        self._tried_at = 0.0
        first_s = _TRIAL_S if self.anchor is None else min(_TRIAL_S, self.width_s / 8)
        self._hold_at = now + first_s * 2.0**self._trials
        self._plan_raise(now)

    def _give_windows_up(self, sent: Sent, now: float) -> None:
        self._even = Evenly([at for at, _ in sent if at > now - MINUTE_S], now)
        self.limit, self.width_s, self.anchor = self._even.per_minute, MINUTE_S, None
        self._hold_at, self._tried_at, self._beyond_at, self._probe_at = 0.0, 0.0, inf, 0.0

    def _reopen(self, sent: Sent, sent_at: float, now: float) -> None:
        """A trial went through. Had the window been sliding, it might have been refused."""
        limit = self.limit or 0
        before = [at for at, _ in sent if at < sent_at]
        apart_s = sent_at - self._opened_at
        early = len(before) >= limit > 0 and before[-limit] + self.width_s + self.slack_s - sent_at > _CLEAR_S
        if early or self.anchor is not None:  # a window has begun here: we count what fits
            self._measured = self._opened_at > 0 and apart_s <= 1.2 * MINUTE_S
            self.width_s = max(_SHORTEST_S, apart_s) if self._measured else MINUTE_S
            self.anchor, self._opened_at = sent_at + self.width_s, sent_at
            self._raise_every_s = 0.0
        self._hold_at, self._trials, self._tried_at = 0.0, 0, 0.0
        self._plan_raise(now)

    def _take_back(self, now: float) -> None:
        """Too much was tried."""
        self._excused, self._raises = True, 0
        if self._base:
            self.limit, self._base, self._base_until = self._base, 0, 0.0
        self._raise_every_s = min(2.0 * self._raise_every_s, _RAISE_LONGEST_S)
        self._beyond_at = now + self._raise_every_s

    def _plan_raise(self, now: float) -> None:
        if self.source is Source.COUNTED and not self._supposed:
            self._base, self._base_until = 0, 0.0
            self._raise_every_s = max(self._raise_every_s, _RAISE_EVERY * self.width_s)
            self._beyond_at = now + self._raise_every_s

    def _widen_slack(self, by_s: float) -> None:
        self.slack_s = min(self.slack_s + max(0.0, by_s) + 0.02, _MOST_SLACK * self.width_s)
