"""Requests at even distances: for a limit of which nothing is told, and whose windows could not be made out.

That keeps any window of any length as long as the rate is right, and wastes only what a burst could have used. The rate is
that of the answers; it grows fast until the first refusal and slowly afterwards, and only while somebody wants more of it.
"""

from __future__ import annotations

from collections.abc import Sequence

_FIRST_FASTER = 0.97  # of the gap, after `_FIRST_STREAK` answers, until the first refusal
_FIRST_STREAK = 10
_FASTER = 0.997  # of the gap, after `_STREAK` answers
_STREAK = 30
_SLOWER = (
    0.01  # of the gap, after a refusal; so much more where a streak before it was cut short at its beginning:
)
_MUCH_SLOWER = 0.1
_DENSE = 1.5  # gaps at most between two requests that say something of the rate
_FIRST_S = 4.0  # of rest, to begin with
_SHORTEST_S = 1.0
MINUTE_S = 60.0


class Evenly:
    """`gap_s`: between two requests. After a refusal it rests for one gap and sends one on trial, then after 1 s, 2 s, 4 s …:
    at even distances, a window that is full is nearly over.
    """

    __slots__ = (
        "_dense",
        "_first",
        "_last_at",
        "_rests_until",
        "_streak",
        "_streaks",
        "_trials",
        "_tried_at",
        "gap_s",
    )

    def __init__(self, answered: Sequence[float], now: float) -> None:
        """`answered`: instants of what was sent and answered in the last minute, oldest first."""
        over_s = max(now - answered[0], _SHORTEST_S) if answered else MINUTE_S
        self.gap_s = over_s / max(1, len(answered))
        self._rests_until = now + _FIRST_S
        self._streak = self._streaks = self._trials = 0
        self._tried_at = self._last_at = 0.0
        self._dense = False  # the last request came right behind another one
        self._first = True  # nothing was refused yet

    @property
    def per_minute(self) -> int:
        return max(1, round(MINUTE_S / self.gap_s))

    def free_at(self, last_at: float) -> float:
        """When the next one may be sent, if the last one was sent then."""
        return self._rests_until or last_at + self.gap_s

    def spent(self, now: float, *, trickle_s: float) -> None:
        """While resting, one request is on trial; another one may follow if no answer came in `trickle_s`."""
        self._dense, self._last_at = now - self._last_at <= _DENSE * self.gap_s, now
        if self._rests_until:
            self._tried_at = self._tried_at or now
            self._rests_until = now + max(trickle_s, self.gap_s)

    def answered(self, sent_at: float) -> None:
        if self._rests_until and self._tried_at and sent_at >= self._tried_at:
            self._rests_until, self._tried_at, self._trials = 0.0, 0.0, 0
        self._streak += self._dense
        if self._streak >= (_FIRST_STREAK if self._first else _STREAK):
            self._streak = 0
            self._streaks += 1
            self.gap_s *= _FIRST_FASTER if self._first else _FASTER

    def refused(self, now: float) -> None:
        if not self._tried_at:
            self.gap_s *= 1.0 + (_SLOWER if self._streaks else _MUCH_SLOWER * (1.0 - self._streak / _STREAK))
            self._first, self._streaks = False, 0
        self._streak, self._tried_at = 0, 0.0
        self._rests_until = now + (
            2.0 ** (self._trials - 1) if self._trials else min(_SHORTEST_S, self.gap_s)
        )
        self._trials += 1
