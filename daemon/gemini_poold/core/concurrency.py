"""How many requests an account may have under way at once: what the user set, and what Google's refusals taught.

Rules
1. Nothing is known at first, and nothing is held back: most of Google's limits count requests in a time, not at once.
2. A refusal of the concurrency kind says that those which go on are as many as there may be: that is the limit from then on.
   Those of a burst come one by one, each with fewer left, so that the last of them names it exactly.
3. It is raised again, slowly: by an eighth, at least by one, when it is what holds requests back and a pause has gone by
   without a refusal. A raise that is refused doubles the pause; one that holds halves it.
4. What the user set is never exceeded; Google's refusals may still go below it.
"""

from __future__ import annotations

from dataclasses import dataclass

UNLIMITED = 1 << 30
BUSY_S = 0.5  # a guess at when the next of many requests ends: whoever waits is woken by its end anyway
FIRST_PAUSE_S = 30.0
LONGEST_PAUSE_S = 960.0


@dataclass(slots=True)
class Crowd:
    """One account's limit. `most`: what holds now; `configured`: the user's, UNLIMITED when it is to be learnt."""

    most: int = UNLIMITED
    configured: int = UNLIMITED
    _learned: int = UNLIMITED
    _pause_s: float = FIRST_PAUSE_S
    _raise_at: float = 0.0
    _tried: bool = False  # it was raised, and no refusal has come since

    @property
    def learned(self) -> bool:
        """Whether it is a lesson of Google's that holds now."""
        return self._learned < self.configured

    def configure(self, most: int) -> None:
        """Take the user's limit; 0 means that it is to be learnt. What was learnt stays."""
        self.configured = most or UNLIMITED
        self.most = min(self.configured, self._learned)

    def refused(self, others: int, now: float) -> bool:
        """Google said that there are too many at once, while `others` of ours go on. True when the limit changed."""
        if self._tried:
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
            self._tried = False
        self._raise_at = now + self._pause_s
        before = self.most
        self._learned = max(1, min(self.most, others))
        self.most = min(self.configured, self._learned)
        return self.most != before

    def answered(self, under_way: int, now: float) -> bool:
        """One of `under_way` requests was answered. True when the limit was raised."""
        if under_way < self.most or not self.learned or now < self._raise_at:
            return False
        if self._tried:
            self._pause_s = max(self._pause_s / 2, FIRST_PAUSE_S)
        self._tried = True
        self._raise_at = now + self._pause_s
        self._learned += max(1, self._learned // 8)
        self.most = min(self.configured, self._learned)
        return True
