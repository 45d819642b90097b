"""One run: a trace, Google, and an algorithm that serves what arrives. Keeps the ledger that `score.py` reads."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol

from .google import OK, Answer, Google
from .sim import Later, Sim
from .traces import Ask, Trace


class Algorithm(Protocol):
    """A pool. `serve` is a process that ends when the request was answered or given up."""

    name: str

    def serve(self, ask: Ask) -> Generator[Any, Any, Any]: ...


@dataclass(slots=True)
class Ledger:
    """What happened. Instants are Unix seconds."""

    sent: int = 0
    refusals: int = 0
    first_refusals: int = 0  # the first of each bucket and model, counted apart
    faults: int = 0
    told_sends: int = 0  # sent to a bucket and model before the instant that Google had told for it
    served: list[tuple[Ask, str, float]] = field(
        default_factory=list
    )  # ask, account, accepted attempt sent at


class World:
    """What an algorithm can do and see. `send` is a request to Google; its answer comes later."""

    def __init__(self, trace: Trace, seed: int) -> None:
        self.trace = trace
        self.sim = Sim(trace.start_at)
        self.began_at = trace.start_at
        self.ledger = Ledger()
        self._rng = Random(f"{trace.name}/{seed}/wire")
        self.google = Google(
            trace.keys, trace.quotas, trace.outages, trace.hints, began_at=self.began_at,
            rng=Random(f"{trace.name}/{seed}/google"),
        )  # fmt: skip
        self.asks = trace.arrivals(seed)
        self._told: dict[tuple[str, str], float] = {}
        self._refused: set[tuple[str, str]] = set()

    @property
    def now(self) -> float:
        return self.sim.now

    def run(self, make: Callable[[World, Random], Algorithm], seed: int) -> Ledger:
        algorithm = make(self, Random(f"{self.trace.name}/{seed}/algorithm"))
        for ask in self.asks:
            self.sim.at(ask.at, lambda ask=ask: self.sim.spawn(self._until_deadline(algorithm, ask)))
        self.sim.run()
        return self.ledger

    def send(self, ask: Ask, key_id: str) -> Later:
        """Send with an account; the `Later` gives an `Answer`."""
        self.ledger.sent += 1
        pair = (self.google.keys[key_id].bucket, ask.model)
        if max(self._told.get(pair, 0.0), self._told.get(("", ask.model), 0.0)) > self.now + 1e-6:
            self.ledger.told_sends += 1
        later = Later()
        self.sim.at(
            self.now + self._rng.uniform(*self.trace.wire_s), self._arrive, ask, key_id, self.now, later
        )
        return later

    def _arrive(self, ask: Ask, key_id: str, sent_at: float, later: Later) -> None:
        answer = self.google.receive(key_id, ask.model, ask.tokens, self.now)
        took_s = self.trace.answer_s if answer.ok else self._rng.uniform(*self.trace.wire_s)
        back_at = sent_at + took_s if answer.ok else self.now + took_s
        self.sim.at(back_at, self._answered, ask, key_id, sent_at, answer, later)

    def _answered(self, ask: Ask, key_id: str, sent_at: float, answer: Answer, later: Later) -> None:
        pair = (self.google.keys[key_id].bucket, ask.model)
        if answer.ok:
            if self.now <= ask.deadline + 1e-6:
                self.ledger.served.append((ask, key_id, sent_at))
        elif answer.kind == "fault":
            self.ledger.faults += 1
        else:
            self.ledger.refusals += 1
            if pair not in self._refused:
                self._refused.add(pair)
                self.ledger.first_refusals += 1
            told = ("", ask.model) if answer.kind == "capacity" else pair
            self._told[told] = max(self._told.get(told, 0.0), answer.told_until)
        later.set(answer)

    def _until_deadline(self, algorithm: Algorithm, ask: Ask) -> Generator[Any, Any, None]:
        """The client goes away at its deadline, whatever the algorithm still means to do."""
        process = algorithm.serve(ask)
        value: Any = None
        while True:
            try:
                wanted = process.send(value)
            except StopIteration:
                return
            value = yield wanted
            if (
                self.now > ask.deadline + 1e-6
                and value is not OK
                and not getattr(algorithm, "finishes", False)
            ):
                process.close()
                return
