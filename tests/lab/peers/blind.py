"""Blind retry: what a client does that knows nothing. Keys in turn; after any failure the next key after 1 s, doubled
each time up to 8 s, with 50 % of jitter, until the deadline.
"""

from __future__ import annotations

from ..traces import Ask
from .base import Peer, Serve


class Blind(Peer):
    name = "blind retry"
    turn = 0

    def serve(self, ask: Ask) -> Serve:
        delay_s = 1.0
        while True:
            self.turn += 1
            answer = yield self.world.send(ask, self.keys[self.turn % len(self.keys)])
            if answer.ok:
                return
            yield delay_s * self.rng.uniform(0.5, 1.5)
            delay_s = min(8.0, delay_s * 2)
