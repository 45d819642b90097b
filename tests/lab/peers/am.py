"""Antigravity-Manager: accounts sorted by quota left, then health (1.0, +0.05, -0.2); the session's account, else the
last one for 60 s, else two at random out of the first five and of them the one with more quota left.

Locks: told delay, else quota 60/300/1800/7200 s cut to 300 s, rate 5 s, capacity 5/10/15 s, 5xx 8 s, at least 2 s. When
the shortest lock is 2 s or less all locks are dropped. Three attempts: a hint up to 2 s waits on the same account
(hint + 1.5 s), else hint up to 30 s, 429 5 s times k, 503 10 s doubled, 500 3 s times k.
"""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import TYPE_CHECKING

from ..google import Answer
from ..traces import Ask
from .base import Peer, Serve

if TYPE_CHECKING:
    from ..world import World

ATTEMPTS, LONGEST_LOCK_S = 3, 300.0


class PowerOfTwo(Peer):
    name = "AM P2C"

    def __init__(self, world: World, rng: Random) -> None:
        super().__init__(world, rng)
        self.health = dict.fromkeys(self.keys, 1.0)
        self.sessions: dict[str, str] = {}
        self.last: tuple[str, float] = ("", 0.0)
        self.failures: Counter[tuple[str, str]] = Counter()

    def serve(self, ask: Ask) -> Serve:
        stay = ""
        for attempt in range(1, ATTEMPTS + 1):
            key = stay or self._pick(ask)
            if not key:
                return
            self.sessions[ask.session], self.last = key, (key, self.now)
            answer = yield self.world.send(ask, key)
            if answer.ok:
                self.health[key] = min(1.0, self.health[key] + 0.05)
                self.failures[key, ask.model] = 0
                return
            self.health[key] = max(0.0, self.health[key] - 0.2)
            self._lock(key, ask.model, answer)
            short = answer.hint_s is not None and answer.hint_s <= 2.0
            stay = key if short else ""
            yield self._delay_s(answer, attempt)

    def _pick(self, ask: Ask) -> str:
        free = self.free(ask.model)
        if not free and self.soonest_s(ask.model) <= 2.0:
            self.until.clear()
            free = list(self.keys)
        if not free:
            return ""
        for kept in (
            self.sessions.get(ask.session),
            self.last[0] if self.now - self.last[1] < 60.0 else None,
        ):
            if kept in free:
                return kept
        free.sort(key=lambda k: (self.used(k, ask.model), -self.health[k]))
        two = self.rng.sample(free[:5], min(2, len(free[:5])))
        return min(two, key=lambda k: self.used(k, ask.model))

    def _lock(self, key: str, model: str, answer: Answer) -> None:
        self.failures[key, model] += 1
        k = self.failures[key, model]
        if answer.hint_s is not None:
            seconds = answer.hint_s
        elif answer.kind == "capacity":
            seconds = (5.0, 10.0, 15.0)[min(k, 3) - 1]
        elif answer.kind == "daily":
            seconds = (60.0, 300.0, 1_800.0, 7_200.0)[min(k, 4) - 1]
        elif answer.kind == "rate":
            seconds = 5.0
        else:
            seconds = 60.0 if answer.kind == "dead" else 8.0
        self.rest(key, model, min(LONGEST_LOCK_S, max(2.0, seconds)))

    def _delay_s(self, answer: Answer, attempt: int) -> float:
        if answer.hint_s is not None:
            return answer.hint_s + 1.5 if answer.hint_s <= 2.0 else min(30.0, answer.hint_s)
        if answer.status == 429:
            return 5.0 * attempt
        if answer.status == 503:
            return min(60.0, 10.0 * 2.0**attempt)
        return 3.0 * attempt if answer.status >= 500 else 0.2
