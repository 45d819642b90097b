"""LiteLLM's simple-shuffle: uniform among deployments that are not cooling. A 429, 401 or 404 cools for 5 s at once,
other failures at more than half of at least five in the minute. Two retries: at once while a healthy sibling exists,
else after 0.5 s doubled up to 8 s with 0.75 of jitter (it reads Retry-After, which Google does not send). No waiting
for a cooling deployment.
"""

from __future__ import annotations

from collections import defaultdict, deque

from ..traces import Ask
from .base import Peer, Serve

COOLDOWN_S = 5.0
RETRIES = 2


class Litellm(Peer):
    name = "LiteLLM shuffle"

    def serve(self, ask: Ask) -> Serve:
        for attempt in range(RETRIES + 1):
            healthy = self.free(ask.model)
            if healthy:
                key = self.rng.choice(healthy)
                answer = yield self.world.send(ask, key)
                if answer.ok:
                    self._ended(key, failed=False)
                    return
                self._ended(key, failed=True)
                if answer.kind != "fault" or self._mostly_fails(key):
                    self.rest(key, ask.model, COOLDOWN_S)
            if attempt < RETRIES and not self.free(ask.model):
                base = min(8.0, 0.5 * 2**attempt)
                yield base + 0.75 * base * self.rng.random()

    def _ended(self, key: str, *, failed: bool) -> None:
        if not hasattr(self, "minute"):
            self.minute: dict[str, deque[tuple[float, bool]]] = defaultdict(deque)
        ends = self.minute[key]
        ends.append((self.now, failed))
        while ends[0][0] < self.now - 60.0:
            ends.popleft()

    def _mostly_fails(self, key: str) -> bool:
        ends = self.minute[key]
        return len(ends) >= 5 and sum(failed for _, failed in ends) * 2 > len(ends)
