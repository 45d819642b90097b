"""Real limits: requests and input tokens a minute, requests and tokens a day, per bucket and model.

What is one bucket is the surface's business (project, user, project and location). A refused request costs nothing.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from math import floor

from .clock import Clock, pacific_day_end

_GRAIN_S = 1e-6  # Unix seconds as floats are no finer than a quarter of that


@dataclass(frozen=True, slots=True)
class Limits:
    """None = no such limit, 0 = no access to the model. `window_s` is Google's minute; shorter makes tests quick.

    `fixed`: windows begin at multiples of `window_s`, shifted by `phase_s`, instead of rolling.
    """

    rpm: int | None = None
    rpd: int | None = None
    tpm: int | None = None
    tpd: int | None = None
    window_s: float = 60.0
    fixed: bool = False
    phase_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Exceeded:
    """Why a request does not fit: `what` is rpm, rpd, tpm or tpd; it fits again in `wait_s`, at `resets_at`."""

    what: str
    limit: int
    wait_s: float
    resets_at: float


@dataclass(slots=True)
class _Count:
    """One bucket's use of one model."""

    recent: deque[tuple[float, int]] = field(default_factory=deque)  # (when, tokens), oldest first
    recent_tokens: int = 0
    day_end: float = 0.0
    day_requests: int = 0
    day_tokens: int = 0


class Meter:
    """Counts what was let through and says what does not fit any more.

    `set` takes globs for bucket and model; the last rule that matches a pair holds.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rules: list[tuple[str, str, Limits]] = []
        self._counts: dict[tuple[str, str], _Count] = {}

    def set(self, bucket: str, model: str, limits: Limits) -> None:
        self._rules.append((bucket, model, limits))

    def limits(self, bucket: str, model: str) -> Limits | None:
        for globs, models, limits in reversed(self._rules):
            if fnmatchcase(bucket, globs) and fnmatchcase(model, models):
                return limits
        return None

    def take(self, bucket: str, model: str, tokens: int) -> Exceeded | None:
        """Let one request of `tokens` input tokens through, or say what it would exceed (longest window first)."""
        limits = self.limits(bucket, model) if self._rules else None
        if limits is None:
            return None
        now = self._clock.now()
        count = self._count(bucket, model, limits, now)
        if exceeded := _judge(count, limits, tokens, now):
            return exceeded
        count.recent.append((now, tokens))
        count.recent_tokens += tokens
        count.day_requests += 1
        count.day_tokens += tokens
        return None

    def day(self, bucket: str, model: str) -> tuple[int, float]:
        """Requests of this Pacific day, and when it ends."""
        limits = self.limits(bucket, model) or Limits()
        count = self._count(bucket, model, limits, self._clock.now())
        return count.day_requests, count.day_end

    def use_up(self, bucket: str, model: str) -> None:
        """Pretend that the day's requests are gone."""
        limits = self.limits(bucket, model) or Limits()
        self._count(bucket, model, limits, self._clock.now()).day_requests = limits.rpd or 0

    def _count(self, bucket: str, model: str, limits: Limits, now: float) -> _Count:
        count = self._counts.setdefault((bucket, model), _Count())
        if now >= count.day_end:
            count.day_end, count.day_requests, count.day_tokens = pacific_day_end(now), 0, 0
        since = _window_start(limits, now)
        while count.recent and count.recent[0][0] < since:
            count.recent_tokens -= count.recent.popleft()[1]
        return count


def shared(limits: Limits, parts: int) -> Limits:
    """The same limits divided over `parts` equal buckets."""
    cut = {
        name: getattr(limits, name) // parts for name in ("rpm", "rpd", "tpm", "tpd") if getattr(limits, name)
    }
    return replace(limits, **cut)


def _window_start(limits: Limits, now: float) -> float:
    if limits.fixed:
        return floor((now - limits.phase_s) / limits.window_s) * limits.window_s + limits.phase_s
    return now - limits.window_s + _GRAIN_S  # an entry exactly one window old has left


def _judge(count: _Count, limits: Limits, tokens: int, now: float) -> Exceeded | None:
    for what, limit, used in (
        ("rpd", limits.rpd, count.day_requests + 1),
        ("tpd", limits.tpd, count.day_tokens + tokens),
    ):
        if limit is not None and used > limit:
            return Exceeded(what, limit, count.day_end - now, count.day_end)
    if limits.rpm is not None and len(count.recent) + 1 > limits.rpm:
        excess = len(count.recent) + 1 - limits.rpm
        return _after(count, limits, now, "rpm", limits.rpm, drop=excess)
    if limits.tpm is not None and count.recent_tokens + tokens > limits.tpm:
        drop, freed, over = 0, 0, count.recent_tokens + tokens - limits.tpm
        for _, spent in count.recent:
            if freed >= over:
                break
            freed, drop = freed + spent, drop + 1
        return _after(count, limits, now, "tpm", limits.tpm, drop=drop)
    return None


def _after(count: _Count, limits: Limits, now: float, what: str, limit: int, *, drop: int) -> Exceeded:
    """It fits when the `drop` oldest entries have left the window."""
    if limits.fixed:
        at = _window_start(limits, now) + limits.window_s
    elif 0 < drop <= len(count.recent):
        at = count.recent[drop - 1][0] + limits.window_s
    else:  # never fits: the limit is smaller than this one request
        at = now + limits.window_s
    return Exceeded(what, limit, max(0.0, at - now), at)
