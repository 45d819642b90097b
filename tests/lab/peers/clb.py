"""codex-lb's relative availability: weight `(left / max(time to reset, 300 s) over the best) squared`, what is below a
tenth dropped, five kept, a weighted draw. Draining accounts (85 % used, or two errors in 60 s) come only when no healthy
one is there, and are probed after 60 s of quiet. Three errors hold `30 s doubled` up to 300 s. A 429 rests the told
delay, at least 30 s as it is kept, or 0.2 s doubled when it tells none (then 30 s). Sticky sessions for 1,800 s. At
most eight running per account; admission waits up to 10 s.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from random import Random
from typing import TYPE_CHECKING

from gemini_poold.core.pacific import next_midnight

from ..google import Answer
from ..traces import Ask
from .base import Peer, Serve

if TYPE_CHECKING:
    from ..world import World

KEPT_S, STICKY_S, ADMISSION_S, STREAMS = 30.0, 1_800.0, 10.0, 8


class RelativeAvailability(Peer):
    name = "CLB relative"

    def __init__(self, world: World, rng: Random) -> None:
        super().__init__(world, rng)
        self.errors: Counter[str] = Counter()
        self.last_error: dict[str, list[float]] = defaultdict(list)
        self.running: Counter[str] = Counter()
        self.sessions: dict[str, tuple[str, float]] = {}

    def serve(self, ask: Ask) -> Serve:
        began_at = self.now
        while True:
            key = self._pick(ask)
            if key is None:
                if self.now - began_at > ADMISSION_S:
                    return
                yield 0.5
                continue
            self.running[key] += 1
            self.sessions[ask.session] = (key, self.now)
            answer = yield self.world.send(ask, key)
            self.running[key] -= 1
            if answer.ok:
                self.errors[key] = 0
                return
            self._failed(ask.model, key, answer)

    def _pick(self, ask: Ask) -> str | None:
        free = [k for k in self.free(ask.model) if self.running[k] < STREAMS]
        if not free:
            return None
        kept, at = self.sessions.get(ask.session, ("", 0.0))
        if kept in free and self.now - at < STICKY_S:
            return kept
        healthy = [k for k in free if self.used(k, ask.model) < 0.85 and len(self._recent(k)) < 2] or free
        time_s = max(next_midnight(self.now) - self.now, 300.0)
        left = {k: (1.0 - self.used(k, ask.model)) / time_s for k in healthy}
        best = max(left.values())
        if best <= 0.0:
            return min(healthy)
        weights = {k: (v / best) ** 2 for k, v in left.items() if (v / best) ** 2 >= 0.1}
        five = sorted(weights, key=lambda k: -weights[k])[:5]
        return self.rng.choices(five, [weights[k] for k in five])[0]

    def _recent(self, key: str) -> list[float]:
        self.last_error[key] = [t for t in self.last_error[key] if t > self.now - 60.0]
        return self.last_error[key]

    def _failed(self, model: str, key: str, answer: Answer) -> None:
        self.last_error[key].append(self.now)
        self.errors[key] += 1
        if answer.status == 429:
            self.rest(key, model, max(KEPT_S, answer.hint_s or 0.0) if answer.kind != "daily" else 3_600.0)
        elif answer.kind == "dead":
            self.rest(key, model, 1e9)
        elif self.errors[key] >= 3:
            self.rest(key, model, min(300.0, 30.0 * 2.0 ** (self.errors[key] - 3)))
        else:
            self.rest(key, model, 0.2)
