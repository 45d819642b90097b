"""The seed (pull request 78): health, priority, least recently used; weighted random while quota is low. Its text gives
no constants; these are assumed: health `0.5 success + 0.3 left + 0.2 exp(-failures/3)`, low from 80 % used, weight what
is left. A 429 rests the key for the told delay, else 60 s; as many tries as keys, at least one on the shortest rest.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from math import exp
from random import Random
from typing import TYPE_CHECKING

from ..traces import Ask
from .base import Peer, Serve

if TYPE_CHECKING:
    from ..world import World

REST_S = 60.0


class Seed(Peer):
    name = "S78 (seed)"

    def __init__(self, world: World, rng: Random) -> None:
        super().__init__(world, rng)
        self.ok: Counter[str] = Counter()
        self.tries: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.last_used: dict[str, float] = defaultdict(float)
        self.gone: set[str] = set()

    def serve(self, ask: Ask) -> Serve:
        for _ in range(min(len(self.keys), 10)):
            key = self._pick(ask.model)
            if key is None:
                return
            self.tries[key] += 1
            self.last_used[key] = self.now
            answer = yield self.world.send(ask, key)
            if answer.ok:
                self.ok[key] += 1
                self.failures[key] = 0
                return
            self.failures[key] += 1
            if answer.kind == "dead":
                self.gone.add(key)
            elif answer.status == 429:
                self.rest(key, ask.model, REST_S if answer.hint_s is None else answer.hint_s)
            else:
                return  # anything else is returned

    def _pick(self, model: str) -> str | None:
        alive = [k for k in self.keys if k not in self.gone]
        if not alive:
            return None
        free = [k for k in alive if self.rests_until(k, model) <= self.now]
        if not free:
            return min(alive, key=lambda k: self.rests_until(k, model))
        left = {k: 1.0 - self.used(k, model) for k in free}
        if all(v <= 0.2 for v in left.values()):
            return self.rng.choices(free, [max(v, 1e-6) for v in left.values()])[0]
        enough = [k for k in free if left[k] > 0.2]
        return min(enough, key=lambda k: (-round(self._health(k, left[k]), 1), self.last_used[k]))

    def _health(self, key: str, left: float) -> float:
        success = self.ok[key] / self.tries[key] if self.tries[key] else 1.0
        return 0.5 * success + 0.3 * left + 0.2 * exp(-self.failures[key] / 3)
