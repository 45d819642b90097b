"""gcli2api: uniform random among the keys whose model cooldown is over; five retries, 1 s apart, on 429, 500 and 503.
A key rests until the reset time stamp of a long quota, or four hours after the bare "Resource has been exhausted".
"""

from __future__ import annotations

from ..google import Hints
from ..traces import Ask
from .base import Peer, Serve

RETRIES, APART_S, BARE_S = 5, 1.0, 4 * 3_600.0


class Random(Peer):
    name = "uniform random"

    def serve(self, ask: Ask) -> Serve:
        for _ in range(RETRIES + 1):
            usable = self.free(ask.model)
            if not usable:
                return
            key = self.rng.choice(usable)
            answer = yield self.world.send(ask, key)
            if answer.ok:
                return
            if answer.kind == "daily" and self.world.trace.hints is Hints.TIME:
                self.rest(key, ask.model, answer.hint_s or 0.0)
            elif answer.status == 429 and answer.hint_s is None:
                self.rest(key, ask.model, BARE_S)
            yield APART_S
