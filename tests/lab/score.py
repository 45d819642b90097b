"""What counts: from the ledgers of some seeds to one row of the table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .traces import Trace
from .world import Ledger


class Run(NamedTuple):
    """One seed of one algorithm. `bound`: the weight that could have been served; `offered`: of all that arrived."""

    ledger: Ledger
    bound: float
    offered: float


@dataclass(frozen=True)
class Score:
    """Means over the seeds. `affinity`: of a session's requests, how many went where its last one went.

    `fairness`: Jain's index of the accounts' served requests, each divided by its bucket's limit.
    """

    trace: str
    algorithm: str
    served: float  # share of what arrived
    share: float  # of the bound
    refusals: float  # per success, the first of each bucket and model left out
    firsts: int
    told_sends: int
    faults: int
    wait_p50_s: float
    wait_p95_s: float
    affinity: float | None
    fairness: float
    bound: float  # share of what arrived


def score(trace: Trace, algorithm: str, runs: Sequence[Run]) -> Score:
    won = sum(_weight(trace, r.ledger) for r in runs)
    successes = sum(len(r.ledger.served) for r in runs)
    best, offered = sum(r.bound for r in runs), sum(r.offered for r in runs)
    waits = sorted(sent_at - ask.at for r in runs for ask, _, sent_at in r.ledger.served)
    kept = [_affinity(r.ledger) for r in runs]
    asked = sum(n for _, n in kept)
    return Score(
        trace.name,
        algorithm,
        won / offered,
        won / best,
        sum(r.ledger.refusals - r.ledger.first_refusals for r in runs) / max(1, successes),
        sum(r.ledger.first_refusals for r in runs) // len(runs),
        sum(r.ledger.told_sends for r in runs),
        sum(r.ledger.faults for r in runs) // len(runs),
        _at(waits, 0.5),
        _at(waits, 0.95),
        sum(k for k, _ in kept) / asked if asked else None,
        sum(_jain(trace, r.ledger) for r in runs) / len(runs),
        best / offered,
    )


def _weight(trace: Trace, ledger: Ledger) -> float:
    return float(sum(ask.tokens if trace.by_tokens else 1 for ask, _, _ in ledger.served))


def _affinity(ledger: Ledger) -> tuple[int, int]:
    """Of each session's requests, in the order in which they were sent: kept, and how many had one before them."""
    last: dict[str, str] = {}
    kept = asked = 0
    for ask, account, _ in sorted(ledger.served, key=lambda s: (s[2], s[0].id)):
        before = last.get(ask.session)
        asked += before is not None
        kept += before == account
        last[ask.session] = account
    return kept, asked


def _jain(trace: Trace, ledger: Ledger) -> float:
    """Over the buckets that could serve at all."""
    served = Counter(account for _, account, _ in ledger.served)
    limit = {
        b: sum(q.limit / q.window_s for q in given if not q.tokens) for (b, _), given in trace.quotas.items()
    }
    shares: Counter[str] = Counter()
    for key in trace.keys:
        if key.dead_from_s > 0 and key.fault < 1:
            shares[key.bucket] += served[key.id] / limit[key.bucket]
    return jain(shares.values())


def jain(values: Iterable[float]) -> float:
    xs = list(values)
    squares = sum(x * x for x in xs)
    return sum(xs) ** 2 / (len(xs) * squares) if squares else 1.0


def _at(values: Sequence[float], share: float) -> float:
    return values[min(len(values) - 1, int(share * len(values)))] if values else 0.0
