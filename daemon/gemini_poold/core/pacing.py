"""Our own count against limits we know: requests a minute, input tokens a minute, requests a day, the user's caps.

So that a known limit is kept before Google has to say no. Only limits that were configured (or learned) are counted.
Minutes are sliding windows of 60 s, which is safe against fixed windows of any phase; days end at Pacific midnight.
"""

from __future__ import annotations

from collections import deque
from math import inf

from .model import DailyCap, Limits
from .pacific import next_midnight

_MINUTE_S = 60.0


class Pace:
    """One bucket and model under known limits. `spend` at a grant, `add_tokens` when usage is known."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._starts: deque[float] = deque()
        self._tokens: deque[tuple[float, int]] = deque()
        self._token_sum = 0
        self._day_ends_at = 0.0
        self._day_count = 0

    def free_at(self, now: float) -> float:
        """The instant from which one more request keeps every limit; `now` or earlier means now."""
        at = 0.0
        rpm, rpd, tpm = self.limits.rpm, self.limits.rpd, self.limits.tpm
        if rpm is not None and len(self._starts) >= rpm:
            at = inf if rpm == 0 else self._starts[-rpm] + _MINUTE_S
        if tpm is not None:
            self._drop_tokens(now)
            if self._token_sum >= tpm:
                at = max(at, self._tokens[0][0] + _MINUTE_S if self._tokens else inf)
        if rpd is not None and now < self._day_ends_at and self._day_count >= rpd:
            at = max(at, self._day_ends_at)
        return inf if rpd == 0 else at

    def spend(self, now: float) -> None:
        """Count a request sent at `now`."""
        rpm = self.limits.rpm
        if rpm is not None:
            self._starts.append(now)
            while len(self._starts) > max(rpm, 1):
                self._starts.popleft()
        if self.limits.rpd is not None:
            if now >= self._day_ends_at:
                self._day_ends_at, self._day_count = next_midnight(now), 0
            self._day_count += 1

    def add_tokens(self, tokens: int, now: float) -> None:
        """Count the input tokens of an answer that came at `now`."""
        if self.limits.tpm is not None and tokens > 0:
            self._tokens.append((now, tokens))
            self._token_sum += tokens

    def _drop_tokens(self, now: float) -> None:
        while self._tokens and self._tokens[0][0] + _MINUTE_S <= now:
            self._token_sum -= self._tokens.popleft()[1]


class Cap:
    """The user's own daily cap of one account, over all models."""

    def __init__(self, cap: DailyCap) -> None:
        self.cap = cap
        self._day_ends_at = 0.0
        self._requests = 0
        self._tokens = 0

    def free_at(self, now: float) -> float:
        if now >= self._day_ends_at:
            return inf if self.cap.requests == 0 or self.cap.tokens == 0 else 0.0
        full = (self.cap.requests is not None and self._requests >= self.cap.requests) or (
            self.cap.tokens is not None and self._tokens >= self.cap.tokens
        )
        return self._day_ends_at if full else 0.0

    def spend(self, now: float, *, requests: int = 0, tokens: int = 0) -> None:
        if now >= self._day_ends_at:
            self._day_ends_at, self._requests, self._tokens = next_midnight(now), 0, 0
        self._requests += requests
        self._tokens += tokens


def tightest(first: Limits, second: Limits) -> Limits:
    """The smaller of each limit: two accounts of one bucket may have been given different ones."""
    return Limits(*(_least(a, b) for a, b in (
        (first.rpm, second.rpm), (first.rpd, second.rpd), (first.tpm, second.tpm),
    )))  # fmt: skip


def _least(a: int | None, b: int | None) -> int | None:
    return b if a is None else a if b is None else min(a, b)
