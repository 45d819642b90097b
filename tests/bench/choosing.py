"""What choosing costs: one acquire and settle at 10, 100, 2,000 and 10,000 accounts × 10 models; the slope over the sizes.

    python tests/bench/choosing.py [--check] [--rounds N]

The production pool alone, without queue, loop or disk. Every account has limits, so that each grant is paced, ranked,
counted and reserved as in life; the clock moves on by what the pool can sustain, so that some accounts rest at any time.
`busy` is the ordinary case; in `limited` a tenth of all answers is a refusal, whose account then rests. What is timed is
a batch of round trips in a warm pool: sizes are interleaved and the fastest third of the batches counts, so that the
machine's moods hit all sizes alike. The slope is that of a straight line through log(cost) over log(accounts): 1 means
linear in the pool, 0 that its size does not matter.

`--check` exits with 1 when a slope reaches 0.3.
"""

from __future__ import annotations

import argparse
import gc
import math
import random
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "daemon"), str(ROOT / "client" / "python")]

from gemini_poold.core.model import Account, Backend, Grant, Kind, Limits, Outcome, Request, Scope  # noqa: E402
from gemini_poold.core.state import Pool  # noqa: E402
from gemini_poold.core.strategy import STRATEGIES  # noqa: E402

SIZES = (10, 100, 2_000, 10_000)
MODELS = tuple(f"gemini-{n}-flash" for n in range(10))
MAX_SLOPE = 0.3
BATCH = 500
ROUNDS = 12
START_AT = 1_795_000_000.0
RPM = 60
OK = Outcome(Kind.OK)


class Load:
    """A pool of `size` accounts under steady load. `refused`: the share of answers that are refusals."""

    def __init__(self, size: int, strategy: str, refused: float) -> None:
        self._rng = random.Random(size)
        self._refused = refused
        self._now = START_AT
        self._serial = 0
        # Half of what the limits allow: somebody is always free, as in a pool that is large enough.
        self._step_s = 60.0 / (RPM * size * len(MODELS) * 0.5)
        self.pool = Pool(strategy=strategy, rng=self._rng.random)
        limits = Limits(rpm=RPM)
        self.pool.configure(
            [Account(f"a{n}", Backend.DEVELOPER_API, limits=limits) for n in range(size)], START_AT
        )
        for account_id in self.pool.members:
            self.pool.token_ready(account_id, START_AT)

    def round_trips(self, count: int) -> int:
        """So many acquires, each answered; how many of them were granted."""
        granted = 0
        for _ in range(count):
            self._now += self._step_s
            self._serial += 1
            model = MODELS[self._serial % len(MODELS)]
            decision = self.pool.acquire(Request("r", model), self._now)
            if isinstance(decision, Grant):
                granted += 1
                self.pool.settle(decision.lease.id, self._outcome(), self._now)
        self.pool.take_rows()
        self.pool.take_events()
        return granted

    def _outcome(self) -> Outcome:
        if self._refused and self._rng.random() < self._refused:
            return Outcome(
                Kind.RATE, Scope.BUCKET_MODEL, self._now + 5.0, told=True, rotate=True, reason="limit"
            )
        return OK


def measure(strategy: str, refused: float, rounds: int) -> dict[int, float]:
    """Seconds of one round trip, by size."""
    loads = {size: Load(size, strategy, refused) for size in SIZES}
    for load in loads.values():
        load.round_trips(2 * BATCH)
    gc.collect()
    gc.freeze()
    gc.disable()
    taken: dict[int, list[float]] = {size: [] for size in SIZES}
    try:
        for _ in range(rounds):
            for size, load in loads.items():
                began = time.perf_counter()
                granted = load.round_trips(BATCH)
                took = time.perf_counter() - began
                if granted < 0.9 * BATCH:
                    raise SystemExit(
                        f"only {granted} of {BATCH} were granted at {size} accounts: nothing to measure"
                    )
                taken[size].append(took / BATCH)
    finally:
        gc.enable()
        gc.unfreeze()
    return {size: statistics.mean(sorted(found)[: max(1, rounds // 3)]) for size, found in taken.items()}


def slope(costs: dict[int, float]) -> float:
    """Of the straight line through log(cost) over log(size), by least squares."""
    xs, ys = [math.log(size) for size in costs], [math.log(cost) for cost in costs.values()]
    return statistics.linear_regression(xs, ys).slope


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help=f"fail when a slope is not below {MAX_SLOPE}")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    args = parser.parse_args()
    print(f"one acquire and settle, {len(MODELS)} models, µs")
    print(f"{'strategy':<18}{'answers':<9}" + "".join(f"{size:>9,}" for size in SIZES) + f"{'slope':>8}")
    failed = []
    for strategy in (name for name in STRATEGIES if name != "lru"):  # another name of least-used
        for name, refused in (
            (("busy", 0.0), ("limited", 0.1)) if strategy == "adaptive" else (("busy", 0.0),)
        ):
            costs = measure(strategy, refused, args.rounds)
            found = slope(costs)
            line = "".join(f"{cost * 1e6:>9.1f}" for cost in costs.values())
            print(f"{strategy:<18}{name:<9}{line}{found:>8.3f}", flush=True)
            if found >= MAX_SLOPE:
                failed.append(f"{strategy} ({name}): slope {found:.3f}, wanted below {MAX_SLOPE}")
    for each in failed:
        print(each)
    return int(args.check and bool(failed))


if __name__ == "__main__":
    sys.exit(main())
