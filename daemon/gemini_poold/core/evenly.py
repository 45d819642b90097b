"""Requests at even distances: for a limit of which nothing is told, and whose windows could not be made out.

That keeps any window of any length as long as the rate is right, and wastes only what a burst could have used. The rate is
that of the answers; it grows a little after many answers and shrinks after a refusal.
"""

from __future__ import annotations

from collections.abc import Sequence

_FASTER = 0.98  # of the gap, after `_STREAK` answers
_SLOWER = 1.05  # of the gap, after a refusal
_STREAK = 30
_FIRST_S = 4.0  # of rest, to begin with
_SHORTEST_S = 1.0
MINUTE_S = 60.0


class Evenly:
    """`gap_s`: between two requests. After a refusal it rests for 1 s, 2 s, 4 s …, and sends one on trial each time."""

    __slots__ = ("_rests_until", "_streak", "_trials", "_tried_at", "gap_s")

    def __init__(self, answered: Sequence[float], now: float) -> None:
        """`answered`: instants of what was sent and answered in the last minute, oldest first."""
        over_s = max(now - answered[0], _SHORTEST_S) if answered else MINUTE_S
        self.gap_s = over_s / max(1, len(answered))
        self._rests_until = now + _FIRST_S
        self._streak = self._trials = 0
        self._tried_at = 0.0

    @property
    def per_minute(self) -> int:
        return max(1, round(MINUTE_S / self.gap_s))

    def free_at(self, last_at: float) -> float:
        """When the next one may be sent, if the last one was sent then."""
        return self._rests_until or last_at + self.gap_s

    def spent(self, now: float, *, trickle_s: float) -> None:
        """While resting, one request is on trial; another one may follow if no answer came in `trickle_s`."""
        if self._rests_until:
            self._tried_at = self._tried_at or now
            self._rests_until = now + trickle_s

    def answered(self, sent_at: float) -> None:
        if self._rests_until and self._tried_at and sent_at >= self._tried_at:
            self._rests_until, self._tried_at, self._trials = 0.0, 0.0, 0
        self._streak += 1
        if self._streak >= _STREAK:
            self._streak = 0
            self.gap_s *= _FASTER

    def refused(self, now: float) -> None:
        if not self._tried_at:
            self.gap_s *= _SLOWER
        self._streak, self._tried_at = 0, 0.0
        self._rests_until = now + 2.0**self._trials
        self._trials += 1
