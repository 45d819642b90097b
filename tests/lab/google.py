"""Google as a set of limits that refuse: windows, outages, faults, dead keys; real error bodies from the fake's.

Requests are judged when they arrive, a moment after they were sent. A refused request costs nothing. What is told in a
refusal (`Hints`) is the trace's choice: the truth, something misleading, or nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from math import floor, inf
from random import Random

import msgspec

from gemini_poold.core.pacific import next_midnight
from gemini_poold.fake import refusals, throttle

_GRAIN_S = 1e-6  # Unix seconds as floats are no finer than a quarter of that


class Hints(StrEnum):
    """What a refusal for a limit says."""

    FULL = "full"  # quotaId, quotaValue, RetryInfo
    TIME = "time"  # "reset after Ns" and RetryInfo, no names and no values
    WRONG = "wrong"  # quotaId and quotaValue as they are, a RetryInfo from a tenth to three times the truth
    NONE = "none"  # "Resource has been exhausted (e.g. check quota)."


@dataclass(frozen=True)
class Quota:
    """At most `limit` in a window. `what`: rpm, tpm or rpd (its window is the Pacific day, whatever `window_s`).

    `kind`: "rolling"; "fixed", windows begin at multiples of `window_s` plus `phase_s`, counted from the trace's start;
    "opened", a window begins with the first request after the last one's end (as measured for Code Assist's days).
    """

    limit: int
    what: str = "rpm"
    window_s: float = 60.0
    kind: str = "rolling"
    phase_s: float = 0.0

    @property
    def tokens(self) -> bool:
        return self.what == "tpm"


@dataclass(frozen=True)
class Key:
    """An account as Google sees it. `fault`: the share of its requests that get a 500 between the two instants."""

    id: str
    project: str = ""  # "" = one of its own
    dead_from_s: float = inf
    fault: float = 0.0
    fault_from_s: float = 0.0
    fault_until_s: float = inf

    @property
    def bucket(self) -> str:
        return self.project or self.id


@dataclass(frozen=True)
class Outage:
    """The fleet is full for one model. `retry`: what the refusal tells, "" nothing."""

    model: str
    from_s: float
    until_s: float
    retry: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """`kind`: ok, rate, daily, capacity, fault or dead. `hint_s`: the RetryInfo as a client reads it, else None."""

    kind: str
    status: int = 200
    body: bytes = b"{}"
    hint_s: float | None = None
    told_until: float = 0.0  # nobody who heard this may send to the same bucket and model before

    @property
    def ok(self) -> bool:
        return self.kind == "ok"


OK = Answer("ok")


@dataclass(slots=True)
class Count:
    """One quota's use in one bucket and model."""

    quota: Quota
    began_at: float  # of the trace
    recent: deque[tuple[float, int]] = field(default_factory=deque)
    used: int = 0
    ends_at: float = 0.0  # of the window in force, of fixed windows and days

    def _roll(self, now: float) -> None:
        q = self.quota
        if q.what == "rpd" or q.kind != "rolling":
            if now >= self.ends_at:
                self.ends_at, self.used = (inf if q.kind == "opened" else self.end_of_window(now)), 0
            return
        while self.recent and self.recent[0][0] <= now - q.window_s + _GRAIN_S:
            self.used -= self.recent.popleft()[1]

    def end_of_window(self, now: float) -> float:
        q = self.quota
        if q.what == "rpd":
            return next_midnight(now)
        if q.kind != "fixed":
            return self.ends_at or inf
        zero = self.began_at + q.phase_s
        return zero + (floor((now - zero) / q.window_s + 1e-9) + 1) * q.window_s

    def free_at(self, now: float, amount: int) -> float:
        """When `amount` more fits; `now` when it does."""
        self._roll(now)
        over = self.used + amount - self.quota.limit
        if over <= 0 or (
            self.quota.tokens and not self.used
        ):  # a giant request goes when nothing else is there
            return now
        if self.ends_at:
            return self.ends_at
        for at, spent in self.recent:
            over -= spent
            if over <= 0:
                return at + self.quota.window_s
        return self.recent[-1][0] + self.quota.window_s

    def take(self, now: float, amount: int) -> None:
        self._roll(now)
        self.used += amount
        if self.ends_at == inf:
            self.ends_at = now + self.quota.window_s
        elif not self.ends_at:
            self.recent.append((now, amount))


class Google:
    """Judges. `quotas`: of a bucket, by (bucket, model); a bucket that has none there has no limits."""

    def __init__(
        self,
        keys: tuple[Key, ...],
        quotas: Mapping[tuple[str, str], tuple[Quota, ...]],
        outages: tuple[Outage, ...],
        hints: Hints,
        *,
        began_at: float,
        rng: Random,
    ) -> None:
        self.keys = {key.id: key for key in keys}
        self._outages = outages
        self._hints = hints
        self._began_at = began_at
        self._rng = rng
        self.counts = {pair: [Count(q, began_at) for q in given] for pair, given in quotas.items()}

    def receive(self, key_id: str, model: str, tokens: int, now: float) -> Answer:
        key, since = self.keys[key_id], now - self._began_at
        if since >= key.dead_from_s:
            return _dead()
        for outage in self._outages:
            if outage.model == model and outage.from_s <= since < outage.until_s:
                return _capacity(model, outage.retry, now)
        if key.fault and key.fault_from_s <= since < key.fault_until_s and self._rng.random() < key.fault:
            return _fault()
        counts = self.counts.get((key.bucket, model), [])
        full = [(c.free_at(now, tokens if c.quota.tokens else 1), c) for c in counts]
        late = [(until, c) for until, c in full if until > now]
        if late:
            until, count = max(late, key=lambda each: each[0])
            return self._refuse(model, count.quota, until, now)
        for c in counts:
            c.take(now, tokens if c.quota.tokens else 1)
        return OK

    def used(self, key_id: str, model: str, now: float) -> float:
        """The used share of the longest quota: what a quota poll would tell, without its age."""
        counts = self.counts.get((self.keys[key_id].bucket, model), [])
        if not counts:
            return 0.0
        longest = max(counts, key=lambda c: c.quota.what == "rpd")
        longest.free_at(now, 0)
        return min(1.0, longest.used / longest.quota.limit)

    def _refuse(self, model: str, quota: Quota, until: float, now: float) -> Answer:
        wait_s = until - now
        if quota.what == "rpd":  # Google adds a short delay even to a day's end
            hint_s = 44.0 if self._hints is not Hints.TIME else wait_s
            told_until = until
        else:
            hint_s = wait_s * self._rng.uniform(0.1, 3.0) if self._hints is Hints.WRONG else wait_s
            told_until = now + hint_s
        kind = "daily" if quota.what == "rpd" else "rate"
        if self._hints is Hints.NONE:
            return Answer(kind, 429, _BARE)
        retry = f"{hint_s:.6f}s"
        if self._hints is Hints.TIME:
            body = (
                throttle.ca_quota_exhausted(retry, model=model, retry=retry)
                if kind == "daily"
                else throttle.ca_rate_limited(retry, model=model)
            )
        else:
            body = throttle.gl_quota(quota.what, quota.limit, model=model, retry=retry)
        return Answer(kind, 429, msgspec.json.encode(body), hint_s, told_until)


_BARE = msgspec.json.encode(throttle.bare_exhausted())


@lru_cache
def _dead() -> Answer:
    return Answer("dead", 400, msgspec.json.encode(refusals.api_key_invalid()))


@lru_cache
def _fault() -> Answer:
    return Answer("fault", 500, msgspec.json.encode(refusals.internal()))


def _capacity(model: str, retry: str, now: float) -> Answer:
    if not retry:
        return Answer("capacity", 503, msgspec.json.encode(throttle.overloaded()))
    body = throttle.capacity(retry, model=model)
    return Answer("capacity", 429, msgspec.json.encode(body), float(retry[:-1]), now + float(retry[:-1]))
