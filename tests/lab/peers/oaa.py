"""opencode-antigravity-auth, hybrid (the default).

Candidates: not resting, quota used under 90 %, health at least 50, a token in the bucket. Base score `2 health + 500
tokens/50 + 0.1 min(idle s, 3600)`; the incumbent sorts 150 higher, and only 100 points of lead take it off. Health
starts at 70: +1 success, -10 rate limit, -20 failure, +2 an hour, at most 100. Bucket: 50, +6 a minute, refunded after
a 429. Nobody qualifies: the incumbent if it is not resting, else the next that is not. A first 429 sleeps 1 s; told
delays are recorded (2 s at least), else 30 s for a rate, 45 +- 15 s for capacity, 20 s for 5xx, 60 s .. 2 h for an
exhausted quota; 429s within 2 s of each other count once. `cache_first`: waits up to 60 s for the same account before
it moves. Later 429s wait 5 s. All resting: sleeps until the first returns if within 300 s. Five failures within 120 s
rest 30 s.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from random import Random
from typing import TYPE_CHECKING

from ..google import Answer
from ..traces import Ask
from .base import Peer, Serve

if TYPE_CHECKING:
    from ..world import World

EXHAUSTED_S = (60.0, 300.0, 1_800.0, 7_200.0)


class Hybrid(Peer):
    name = "OAA hybrid"

    def __init__(self, world: World, rng: Random) -> None:
        super().__init__(world, rng)
        self.health = dict.fromkeys(self.keys, 70.0)
        self.tokens = dict.fromkeys(self.keys, 50.0)
        self.filled_at = dict.fromkeys(self.keys, world.now)
        self.last_used: dict[str, float] = defaultdict(float)
        self.current: str = self.keys[0]
        self.streak: Counter[str] = Counter()
        self.last_429 = dict.fromkeys(self.keys, 0.0)
        self.failed: dict[str, list[float]] = defaultdict(list)

    def serve(self, ask: Ask) -> Serve:
        first = True
        while True:
            key = self._pick(ask.model)
            if key is None:
                wait_s = self.soonest_s(ask.model)
                if wait_s > 300.0:
                    return
                yield max(0.05, wait_s)
                continue
            self.tokens[key] -= 1.0
            self.last_used[key] = self.now
            answer = yield self.world.send(ask, key)
            if answer.ok:
                self.health[key] = min(100.0, self.health[key] + 1.0)
                return
            yield from self._failed(ask.model, key, answer, first=first)
            first = False

    def _failed(self, model: str, key: str, answer: Answer, *, first: bool) -> Serve:
        if answer.status == 429 and answer.kind != "capacity":
            self.tokens[key] = min(50.0, self.tokens[key] + 1.0)
            self.health[key] -= 10.0
            limit_s = self._limit_s(key, answer)
            self.rest(key, model, limit_s)
            if first:
                yield 1.0
            elif limit_s <= 60.0:
                yield limit_s  # cache_first: the same account once more
            else:
                yield 5.0
        elif answer.kind == "dead":
            self.rest(key, model, 600.0)
        else:
            self.health[key] -= 20.0
            recent = self.failed[key] = [t for t in self.failed[key] if t > self.now - 120.0] + [self.now]
            capacity = answer.kind == "capacity"
            self.rest(
                key,
                model,
                45.0 + self.rng.uniform(-15.0, 15.0) if capacity else 30.0 if len(recent) >= 5 else 20.0,
            )
            yield 1.0

    def _limit_s(self, key: str, answer: Answer) -> float:
        if self.now - self.last_429[key] > 2.0:
            self.streak[key] = 1 if self.now - self.last_429[key] > 120.0 else self.streak[key] + 1
        self.last_429[key] = self.now
        if answer.hint_s is not None:
            return max(2.0, answer.hint_s)
        return EXHAUSTED_S[min(self.streak[key], 4) - 1] if answer.kind == "daily" else 30.0

    def _pick(self, model: str) -> str | None:
        free = self.free(model)
        good = [
            k
            for k in free
            if self.used(k, model) < 0.9 and self._health(k) >= 50.0 and self._tokens(k) >= 1.0
        ]
        if not good:
            if self.current not in free:
                if not free:
                    return None
                self.current = free[0]
            return self.current
        best = max(good, key=lambda k: self._score(k) + 150.0 * (k == self.current))
        if self.current not in good or self._score(best) - self._score(self.current) >= 100.0:
            self.current = best
        return self.current

    def _score(self, key: str) -> float:
        idle_s = min(self.now - self.last_used[key], 3_600.0)
        return 2.0 * self._health(key) + 500.0 * self._tokens(key) / 50.0 + 0.1 * idle_s

    def _health(self, key: str) -> float:
        return min(100.0, self.health[key] + 2.0 * ((self.now - self.world.began_at) // 3_600))

    def _tokens(self, key: str) -> float:
        self.tokens[key] = min(50.0, self.tokens[key] + (self.now - self.filled_at[key]) / 10.0)
        self.filled_at[key] = self.now
        return self.tokens[key]
