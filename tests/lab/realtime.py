"""The lab in real time: the same arrivals through the real daemon and its gateway against the fake Google on loopback.

    python -m tests.lab.realtime [--quick] [--seeds N] [--traces NAME…]

For each trace and seed one daemon, one fake with the trace's limits and one client, all of their own and all side by side;
before them the simulation of the same trace and seed. Printed is the served share of both; more than three points apart
is a failure. A request counts as served when its answer came by its deadline (and `_MARGIN_S`, because real answers take
some milliseconds on top of what the trace says). `late` says how late the client itself was with sending (the 99th
percentile): where that is not far below a second, the machine was too busy for the comparison to mean anything.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(_ROOT), str(_ROOT / "daemon"), str(_ROOT / "client" / "python")]

import aiohttp  # noqa: E402
from tests.fakes.daemon import DaemonProcess, api_key_account, fake_google  # noqa: E402

from gemini_poold.fake import Fault, Match, Model, World  # noqa: E402

from .google import Hints, Quota  # noqa: E402
from .run import OURS, makers, run  # noqa: E402
from .traces import FLASH, FOUR, Ask, Key, Trace, alike, keys, steady  # noqa: E402

ALLOWED = 0.03  # of the served share
_ANSWER_S = 0.5
_PATIENCE_S = 12.5
_MARGIN_S = 0.25
_READY_S = 30.0
_AWAY_S = 0.05  # Google is not on loopback: as far away as in the simulation
_SHARED = tuple(Key(f"k{n}", project=f"p{n // 2}") for n in range(6))

TRACES: tuple[Trace, ...] = (
    Trace(
        "steady", FOUR, alike(FOUR, Quota(60)), steady(1.2), "known", duration_s=200.0, patience_s=_PATIENCE_S,
        answer_s=_ANSWER_S, text="four keys of 60 in rolling minutes, configured, 1.2x",
    ),
    Trace(
        "unequal", keys(3), {("k0", FLASH): (Quota(100),), ("k1", FLASH): (Quota(30),), ("k2", FLASH): (Quota(10),)},
        steady(1.2), "told", duration_s=200.0, patience_s=_PATIENCE_S, answer_s=_ANSWER_S,
        text="three keys of 100, 30 and 10 in rolling minutes, 1.2x; refusals name limit and window",
    ),
    Trace(
        "shared-no-hints", _SHARED, alike(_SHARED, Quota(20, window_s=10.0)), steady(1.2), "blind", duration_s=150.0,
        patience_s=_PATIENCE_S, answer_s=_ANSWER_S, hints=Hints.NONE,
        text="six keys, two to a project, 20 a project in rolling windows of 10 s, 1.2x; refusals tell nothing",
    ),
)  # fmt: skip
BY_NAME = {trace.name: trace for trace in TRACES}


# ---- Google and the pool, as the trace says ---------------------------------------------------------------------------


def world_of(trace: Trace) -> World:
    """The fake's world: a key for each of the trace's, a project for each bucket, and its limits."""
    world = World()
    world.models[FLASH] = Model(FLASH, chunks=1, think_s=trace.answer_s - _AWAY_S)
    for key in trace.keys:
        world.add_api_key(key.id, project=key.bucket)
        world.projects[key.bucket].hints = "none" if trace.hints is Hints.NONE else "google"
        for quota in trace.quotas[key.bucket, FLASH]:
            assert (quota.kind, quota.what) == ("rolling", "rpm")
            world.limit(key.bucket, FLASH, rpm=quota.limit, window_s=quota.window_s)
    return world


def accounts_of(trace: Trace) -> str:
    """The limits are configured where the trace knows them; that two keys are of one project is always said."""
    text = ""
    for key in trace.keys:
        text += api_key_account(key.id, **({"quota_group": key.project} if key.project else {}))
        if trace.grade == "known":
            (quota,) = trace.quotas[key.bucket, FLASH]
            text += f"limits = {{ rpm = {quota.limit} }}\n"
    return text


# ---- one run ----------------------------------------------------------------------------------------------------------


def live(trace: Trace, seed: int) -> dict[str, float]:
    """What came of one seed: served, offered, refusals that the fake gave, and how late the client was."""
    asks = trace.arrivals(seed)
    with tempfile.TemporaryDirectory(prefix="gp-lab-") as folder, fake_google(world_of(trace)) as fake:
        fake.faults.add(Fault.delay(_AWAY_S), when=Match("generate"), times=None)
        with DaemonProcess(Path(folder), fake=fake, accounts=accounts_of(trace)) as daemon:
            _wait_ready(daemon, len(trace.keys))
            served, late = asyncio.run(_clients(trace, asks, daemon.url, daemon.key))
        refused = fake.record.total("generate", status=429)
    late.sort()
    return {"served": served, "offered": len(asks), "refused": refused, "late": late[int(0.99 * len(late))]}


def _wait_ready(daemon: DaemonProcess, accounts: int) -> None:
    deadline = time.monotonic() + _READY_S
    with daemon.pool() as pool:
        while sum(a.available for a in pool.status().accounts) < accounts:
            if time.monotonic() > deadline:
                raise AssertionError(f"not every account got ready:\n{daemon.log}")
            time.sleep(0.05)


async def _clients(trace: Trace, asks: list[Ask], url: str, key: str) -> tuple[int, list[float]]:
    """Sends every request at its instant; how many were answered in time, and how late each was sent."""
    late: list[float] = []
    body = json.dumps({"contents": [{"role": "user", "parts": [{"text": "hello"}]}]})
    headers = {"x-goog-api-key": key, "content-type": "application/json"}
    address = f"{url}/v1beta/models/{FLASH}:generateContent"
    loop = asyncio.get_running_loop()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as http:
        began = loop.time() + 0.5

        async def one(ask: Ask) -> bool:
            at, deadline = began + ask.at - trace.start_at, began + ask.deadline - trace.start_at
            await asyncio.sleep(at - loop.time())
            late.append(loop.time() - at)
            wait_s = ask.send_by - trace.start_at + began - loop.time()
            named = {"x-gemini-pool-session": ask.session, "x-gemini-pool-wait-s": f"{wait_s:.3f}"}
            try:
                async with http.post(address, data=body, headers=named) as answer:
                    await answer.read()
                    return answer.status == 200 and loop.time() <= deadline + _MARGIN_S
            except aiohttp.ClientError:
                return False

        answers = await asyncio.gather(*(one(ask) for ask in asks))
    return sum(answers), late


# ---- the table --------------------------------------------------------------------------------------------------------


def compare(traces: Iterable[Trace], seeds: int, *, jobs: int) -> bool:
    """Prints the table; whether every trace agrees."""
    traces = list(traces)
    simulated = {t.name: [run(t, makers()[OURS], seed) for seed in range(seeds)] for t in traces}
    with ThreadPoolExecutor(jobs) as pool:
        running = {(t.name, seed): pool.submit(_in_process, t, seed) for t in traces for seed in range(seeds)}
        found = {pair: future.result() for pair, future in running.items()}
    print(
        f"{'':<18}{'bound':>7}{'simulated':>11}{'real':>8}{'apart':>8}{'refused':>9}{'late s':>8}  of each seed"
    )
    agree = True
    for trace in traces:
        runs, real = simulated[trace.name], [found[trace.name, seed] for seed in range(seeds)]
        offered = sum(r.offered for r in runs)
        bound, sim = (
            sum(r.bound for r in runs) / offered,
            sum(len(r.ledger.served) for r in runs) / offered,
        )
        served = sum(r["served"] for r in real)
        share, refused = served / offered, sum(r["refused"] for r in real) / max(1, served)
        apart = share - sim
        agree &= abs(apart) <= ALLOWED
        mark = "" if abs(apart) <= ALLOWED else f"  < more than {ALLOWED:.0%} apart"
        each = " ".join(
            f"{len(r.ledger.served) / r.offered:.3f}/{q['served'] / q['offered']:.3f}"
            for r, q in zip(runs, real, strict=True)
        )
        print(
            f"{trace.name:<18}{bound:>7.3f}{sim:>11.3f}{share:>8.3f}{apart:>+8.3f}{refused:>9.3f}"
            f"{max(r['late'] for r in real):>8.3f}  {each}{mark}\n  {trace.text}"
        )
    return agree


def _in_process(trace: Trace, seed: int) -> dict[str, float]:
    """In a process of its own: client, fake and daemon of one run share an interpreter lock with no other run's."""
    line = [sys.executable, "-m", "tests.lab.realtime", "--one", trace.name, str(seed), str(trace.duration_s)]
    done = subprocess.run(line, cwd=_ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"{trace.name}, seed {seed}:\n{done.stderr[-4000:]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.lab.realtime", description=__doc__)
    parser.add_argument("--traces", nargs="+", choices=list(BY_NAME), default=list(BY_NAME), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=9, help="runs side by side")
    parser.add_argument("--quick", action="store_true", help="one seed, two minutes a trace at most")
    parser.add_argument("--one", nargs=3, metavar=("TRACE", "SEED", "SECONDS"), help=argparse.SUPPRESS)
    args: Any = parser.parse_args()
    if args.one:
        name, seed, seconds = args.one
        print(json.dumps(live(replace(BY_NAME[name], duration_s=float(seconds)), int(seed))))
        return 0
    chosen = [BY_NAME[name] for name in args.traces]
    if args.quick:
        chosen = [replace(trace, duration_s=min(trace.duration_s, 120.0)) for trace in chosen]
    return int(not compare(chosen, 1 if args.quick else args.seeds, jobs=args.jobs))


if __name__ == "__main__":
    sys.exit(main())
