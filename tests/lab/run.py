"""Runs traces with algorithms and seeds; the table is `table.py`'s, the picture `picture.py`'s."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from random import Random

from .bound import bound
from .ours import Ours
from .peers import PEERS
from .score import Run, Score, score
from .traces import Trace
from .world import Algorithm, World

Maker = Callable[[World, Random], Algorithm]
OURS = "gemini-pool"


def makers() -> dict[str, Maker]:
    """Every algorithm by name, ours first."""
    return {OURS: Ours, **{peer.name: peer for peer in PEERS}}


def run(trace: Trace, make: Maker, seed: int) -> Run:
    world = World(trace, seed)
    best = bound(trace, world.asks)
    offered = sum(ask.tokens if trace.by_tokens else 1 for ask in world.asks)
    return Run(world.run(make, seed), best, offered)


def scores(traces: Iterable[Trace], names: Iterable[str], seeds: int) -> Iterator[Score]:
    known, names = makers(), list(names)
    for trace in traces:
        for name in names:
            yield score(trace, name, [run(trace, known[name], s) for s in range(trace.seeds or seeds)])
