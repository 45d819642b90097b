"""oh-my-pi's required drain: a session keeps its account; else those not blocked, by `(1 - used) / time to reset`
(descending), then least used, then stored order. A block lasts the told delay or 60 s. When all are blocked the
earliest unblock goes first. The description says nothing of waiting: it tries each account once per request and fails.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from gemini_poold.core.pacific import next_midnight

from ..traces import Ask
from .base import Peer, Serve

if TYPE_CHECKING:
    from ..world import World

BLOCK_S, SHORTEST_S = 60.0, 60.0


class RequiredDrain(Peer):
    name = "OMP required drain"

    def __init__(self, world: World, rng: Random) -> None:
        super().__init__(world, rng)
        self.sessions: dict[str, str] = {}

    def serve(self, ask: Ask) -> Serve:
        tried: set[str] = set()
        while len(tried) < min(len(self.keys), 10):
            key = self._pick(ask, tried)
            tried.add(key)
            answer = yield self.world.send(ask, key)
            if answer.ok:
                self.sessions[ask.session] = key
                return
            self.rest(key, ask.model, BLOCK_S if answer.hint_s is None else answer.hint_s)

    def _pick(self, ask: Ask, tried: set[str]) -> str:
        left = [k for k in self.keys if k not in tried]
        free = [k for k in left if self.rests_until(k, ask.model) <= self.now]
        if not free:
            return min(left, key=lambda k: self.rests_until(k, ask.model))
        kept = self.sessions.get(ask.session)
        if kept in free:
            return kept
        hours = max(next_midnight(self.now) - self.now, SHORTEST_S) / 3_600.0
        return min(
            free, key=lambda k: (self.used(k, ask.model) >= 0.85, -(1.0 - self.used(k, ask.model)) / hours)
        )
