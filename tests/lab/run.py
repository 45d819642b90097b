"""Runs traces with algorithms and seeds; the table is `table.py`'s, the picture `picture.py`'s."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from random import Random

from .bound import bound
from .ours import Ours
from .peers import PEERS
from .score import Run, Score, score
from .traces import BY_NAME, Trace
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


def scores(traces: Iterable[Trace], names: Iterable[str], seeds: int, *, jobs: int = 1) -> Iterator[Score]:
    """In the order of traces and names, worked out by so many processes."""
    work = [(trace.name, name, seeds) for trace in traces for name in names]
    if jobs == 1:
        yield from map(_score, work)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(_score, work)


def _score(work: tuple[str, str, int]) -> Score:
    trace, name, seeds = BY_NAME[work[0]], work[1], work[2]
    return score(trace, name, [run(trace, makers()[name], seed) for seed in range(trace.seeds or seeds)])
