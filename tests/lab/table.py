"""The table: one block a trace, one line an algorithm."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from .run import OURS
from .score import Score
from .traces import BY_NAME, TARGET

HEAD = (
    f"{'':<22}{'of bound':>9}{'served':>8}{'refused':>9}{'first':>6}{'told':>6}{'500s':>6}{'p50 s':>7}{'p95 s':>7}"
    f"{'session':>9}{'Jain':>6}"
)


def blocks(found: Iterable[Score]) -> Iterator[str]:
    """One block a trace, as soon as all its algorithms have run; ours first, then the best."""
    for name, group in groupby(found, key=lambda s: s.trace):
        rows = sorted(group, key=lambda s: (s.algorithm != OURS, -s.share))
        head = [f"\n{name}: {BY_NAME[name].text}", f"  {'bound':<20}{100:>7.1f}%{rows[0].bound:>8.3f}"]
        yield "\n".join(head + [line(s) for s in rows])


def line(s: Score) -> str:
    session = "-" if s.affinity is None else f"{s.affinity:.2f}"
    mark = "" if s.algorithm != OURS else "" if misses(s) == "" else f"  < {misses(s)}"
    return (
        f"  {s.algorithm:<20}{s.share:>8.1%}{s.served:>8.3f}{s.refusals:>9.3f}{s.firsts:>6}{s.told_sends:>6}{s.faults:>6}"
        f"{s.wait_p50_s:>7.1f}{s.wait_p95_s:>7.1f}{session:>9}{s.fairness:>6.2f}{mark}"
    )


def misses(s: Score) -> str:
    """Which targets a row of ours misses, empty when none."""
    target = TARGET[BY_NAME[s.trace].grade]
    out = [f"{target:.0%} of the bound"] if s.share < target else []
    out += ["0.05 refusals"] if s.refusals > 0.05 else []
    out += ["sent while told to wait"] if s.told_sends else []
    return ", ".join(out)
