"""LLM-API-Key-Proxy. Balanced: random with weight `max_usage - usage + 3 + 1`, keys without a running request first.
Sequential: the session's key, else by most used, then latest used; a key whose rest is 300 s or more is out until all
are (fair cycle). Both: two tries on a key, the second on the same key after 1.0 to 1.5 s when the told delay is under
10 s or the failure is transient; a key rests only when a delay of 10 s or more is told; when all rest, it waits for the
first within its deadline of 30 s, in steps of at most 1 s, else it fails at once. "Three quota errors in a row end the
request" is read as in a row on one key (which two tries never reach): only so does it meet its figures on the
calibration trace, .92 served and 1.95 refusals per success.
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

SHORT_S, LONGEST_WAIT_S, CYCLE_S = 10.0, 30.0, 300.0


class Lkp(Peer):
    def __init__(self, world: World, rng: Random) -> None:
        super().__init__(world, rng)
        self.usage: Counter[tuple[str, str]] = Counter()
        self.running: Counter[str] = Counter()
        self.last_used: dict[str, float] = defaultdict(float)
        self.spent: set[tuple[str, str]] = set()  # fair cycle
        self.sessions: dict[str, str] = {}

    def pick(self, usable: list[str], ask: Ask) -> str:
        raise NotImplementedError

    def serve(self, ask: Ask) -> Serve:
        tried: set[str] = set()
        gives_up_at = self.now + LONGEST_WAIT_S
        while True:
            usable = [k for k in self.usable(ask.model) if k not in tried]
            if not usable:
                if len(tried) == len(self.keys) or self.now + self.soonest_s(ask.model) > gives_up_at:
                    return
                yield min(1.0, max(0.01, self.soonest_s(ask.model)))
                continue
            key = self.pick(usable, ask)
            answer = yield from self._try(ask, key)
            if not answer.ok and self._same_again(answer):
                yield 1.0 + self.rng.uniform(0.0, 0.5)
                answer = yield from self._try(ask, key)
            if answer.ok:
                self.sessions[ask.session] = key
                return
            tried.add(key)
            if answer.hint_s is not None and answer.hint_s >= SHORT_S:
                self.rest(key, ask.model, answer.hint_s)
                if answer.hint_s >= CYCLE_S:
                    self.spent.add((key, ask.model))

    def usable(self, model: str) -> list[str]:
        return self.free(model)

    def _try(self, ask: Ask, key: str) -> Serve:
        self.running[key] += 1
        self.usage[key, ask.model] += 1
        self.last_used[key] = self.now
        answer = yield self.world.send(ask, key)
        self.running[key] -= 1
        return answer

    @staticmethod
    def _same_again(answer: Answer) -> bool:
        return answer.hint_s < SHORT_S if answer.hint_s is not None else answer.status >= 500


class Balanced(Lkp):
    name = "LKP balanced"

    def pick(self, usable: list[str], ask: Ask) -> str:
        idle = [k for k in usable if not self.running[k]] or usable
        used = [self.usage[k, ask.model] for k in idle]
        return self.rng.choices(idle, [max(0.1, max(used) - u + 4.0) for u in used])[0]


class Sequential(Lkp):
    name = "LKP sequential"

    def usable(self, model: str) -> list[str]:
        free = self.free(model)
        if len({k for k, m in self.spent if m == model}) == len(self.keys):
            self.spent = {(k, m) for k, m in self.spent if m != model}
        return [k for k in free if (k, model) not in self.spent]

    def pick(self, usable: list[str], ask: Ask) -> str:
        kept = self.sessions.get(ask.session)
        if kept in usable:
            return kept
        return min(usable, key=lambda k: (-self.usage[k, ask.model], -self.last_used[k]))
