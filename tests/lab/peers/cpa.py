"""CLIProxyAPI: round-robin by id, or nginx's smooth weighted (`cur += w`, take the greatest, `cur -= sum`).

A 429 rests the key for the told delay, else 1 s doubled up to 1,800 s, the level not raised while a rest runs; 401, 402
and 403 rest 30 min, 5xx 60 s; a success clears. A round tries every key not tried yet; up to three more rounds, between
them it sleeps until the first rest ends if that is within 30 s. A refused key (Google's 400) counts as 401 here.
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

ROUNDS, LONGEST_SLEEP_S = 4, 30.0


class Cpa(Peer):
    def __init__(self, world: World, rng: Random) -> None:
        super().__init__(world, rng)
        self.level: Counter[tuple[str, str]] = Counter()

    def pick(self, usable: list[str], model: str) -> str:
        raise NotImplementedError

    def serve(self, ask: Ask) -> Serve:
        for round_ in range(ROUNDS):
            tried: set[str] = set()
            while usable := [k for k in self.free(ask.model) if k not in tried]:
                key = self.pick(usable, ask.model)
                tried.add(key)
                answer = yield self.world.send(ask, key)
                if answer.ok:
                    self.until.pop((key, ask.model), None)
                    self.level[key, ask.model] = 0
                    return
                self._cool(key, ask.model, answer)
            wait_s = self.soonest_s(ask.model)
            if round_ == ROUNDS - 1 or wait_s > LONGEST_SLEEP_S:
                return
            yield max(0.01, wait_s)

    def _cool(self, key: str, model: str, answer: Answer) -> None:
        if answer.kind == "dead":
            self.rest(key, model, 1_800.0)
        elif answer.status >= 500:
            self.rest(key, model, 60.0)
        elif answer.hint_s is not None:
            self.rest(key, model, answer.hint_s)
        elif self.rests_until(key, model) <= self.now:
            self.rest(key, model, min(1_800.0, 2.0 ** self.level[key, model]))
            self.level[key, model] += 1


class RoundRobin(Cpa):
    name = "CPA round-robin"

    def pick(self, usable: list[str], model: str) -> str:
        cursor = getattr(self, "cursor", 0)
        self.cursor = cursor + 1
        return usable[cursor % len(usable)]


class SmoothWeighted(Cpa):
    name = "CPA smooth weighted"

    def pick(self, usable: list[str], model: str) -> str:
        current: Counter[str] = self.__dict__.setdefault("current", Counter())
        for key in usable:
            current[key] += 1
        best = max(usable, key=lambda k: current[k])
        current[best] -= len(usable)
        return best
