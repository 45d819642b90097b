"""teamclaude: stay with the current account while it is under 98 % used and not held; else the first in order. A
throttle 429 is waited out on the same account, in line, if it is 60 s or less; a quota 429 switches. After a switch at
most one running, one more per 250 ms for 30 s. All over the threshold: one real request a minute to the least used.
"""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import TYPE_CHECKING

from ..traces import Ask
from .base import Peer, Serve

if TYPE_CHECKING:
    from ..world import World

THRESHOLD, INLINE_S, GUESS_S = 0.98, 60.0, 60.0


class Sticky(Peer):
    name = "TC sticky"

    def __init__(self, world: World, rng: Random) -> None:
        super().__init__(world, rng)
        self.current = self.keys[0]
        self.switched_at = -1e9
        self.running: Counter[str] = Counter()
        self.probed_at = -1e9

    def serve(self, ask: Ask) -> Serve:
        while True:
            key = self._pick(ask.model)
            if key is None or self.running[key] >= self._cap():
                yield 0.25
                continue
            self.running[key] += 1
            answer = yield self.world.send(ask, key)
            self.running[key] -= 1
            if answer.ok:
                return
            hint_s = GUESS_S if answer.hint_s is None else answer.hint_s
            if answer.kind == "dead":
                hint_s = 1e9
            elif answer.kind in ("fault", "capacity") and answer.hint_s is None:
                hint_s = 2.0
            self.rest(key, ask.model, hint_s)
            if answer.kind == "rate" and hint_s <= INLINE_S:
                yield hint_s

    def _cap(self) -> float:
        since_s = self.now - self.switched_at
        return 1e9 if since_s > 30.0 else 1 + since_s / 0.25

    def _pick(self, model: str) -> str | None:
        free = self.free(model)
        under = [k for k in free if self.used(k, model) < THRESHOLD]
        if self.current in under:
            return self.current
        if not under:
            if free and self.now - self.probed_at >= 60.0:
                self.probed_at = self.now
                return min(free, key=lambda k: self.used(k, model))
            return None
        self.current, self.switched_at = under[0], self.now
        return self.current
