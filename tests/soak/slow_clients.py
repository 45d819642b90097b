"""A thousand slow streams at once: an event a second for a minute, each of them, while others go on asking.

    python tests/soak/slow_clients.py [--check] [--clients N]

All must end whole, and the p99 of the others' requests may at most double. The upstream is the gateway benchmark's, and so
is the bare proxy that goes through the same first: what rises there, too, is the machine's and asyncio's, not ours.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "daemon"), str(ROOT / "client" / "python")]

from tests.bench import _http  # noqa: E402
from tests.bench.gateway import Subject, cpu_s, five_accounts, proxy, rss_mib, upstream  # noqa: E402

ALONE_S, EVERY_S, OPENING_S = 8.0, 0.05, 10.0
FLOOR_MS = 10.0  # below this, a p99 is the machine's


async def slow(port: int, key: str) -> int:
    """One slow stream; its events. Raises when it does not end as it should."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(_http.request_of(port, key, _http.SLOW_PATH))
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(head.decode("latin-1"))
    events = 0
    while size := int(await reader.readuntil(b"\r\n"), 16):
        events += (await reader.readexactly(size + 2)).count(b"data: ")
    writer.close()
    return events


async def all_of_them(port: int, key: str, clients: int) -> list[int | str]:
    """What came of each slow stream: its events, or its error."""
    tasks = []
    for _ in range(clients):  # clients come one by one
        tasks.append(asyncio.ensure_future(slow(port, key)))
        await asyncio.sleep(OPENING_S / clients)
    return [
        end if isinstance(end, int) else repr(end)
        for end in await asyncio.gather(*tasks, return_exceptions=True)
    ]


async def asks(port: int, key: str, waits_s: list[float], until: asyncio.Event) -> None:
    """One client that asks small things at an even pace, over a connection it keeps."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request = _http.request_of(port, key, _http.PLAIN_PATH)
    while not until.is_set():
        began = time.perf_counter()
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(head.partition(b"content-length:")[2].split()[0]))
        waits_s.append(time.perf_counter() - began)
        if not head.startswith(b"http/1.1 200"):
            raise RuntimeError(head.decode("latin-1"))
        await asyncio.sleep(EVERY_S)
    writer.close()


@dataclass
class Seen:
    """What came of one subject's minute. Times in ms, of the others' requests."""

    whole: int
    problems: set[str]
    alone: list[float]
    beside: list[float]
    kib_a_stream: float
    cpu: float  # of one core, while all streams were open

    @property
    def ratio(self) -> float:
        return max(p(self.beside, 0.99), FLOOR_MS) / max(p(self.alone, 0.99), FLOOR_MS)


def p(values: list[float], share: float) -> float:
    return sorted(values)[int(len(values) * share)]


async def run(subject: Subject, clients: int) -> Seen:
    port, key, pid = subject.port, subject.key, subject.pid
    alone = await measured(port, key, asyncio.sleep(ALONE_S))
    before = rss_mib(pid)
    streams: list[int | str] = []
    peak = cpu = 0.0

    async def all_slow() -> (
        None
    ):  # in a process of their own: their reading is not to delay the others' clock
        nonlocal peak, cpu
        process = await asyncio.create_subprocess_exec(
            sys.executable, __file__, "--streams", str(port), key, "--clients", str(clients),
            stdout=subprocess.PIPE,
        )  # fmt: skip
        await asyncio.sleep(OPENING_S + 5)
        used = cpu_s(pid)
        await asyncio.sleep(20)
        peak, cpu = rss_mib(pid), (cpu_s(pid) - used) / 20
        out, _ = await process.communicate()
        streams.extend(json.loads(out))

    beside = await measured(port, key, all_slow())
    whole = sum(events == _http.SLOW_EVENTS for events in streams)
    problems = {str(events) for events in streams if events != _http.SLOW_EVENTS}
    return Seen(whole, problems, alone, beside, (peak - before) * 1024 / clients, cpu)


def report(name: str, seen: Seen, clients: int) -> None:
    print(f"{name:8} {seen.whole} of {clients} streams whole; others' p50 {p(seen.alone, 0.5):.1f} -> {p(seen.beside, 0.5):.1f} ms,"
          f" p99 {p(seen.alone, 0.99):.1f} -> {p(seen.beside, 0.99):.1f} ms, worst {max(seen.alone):.0f} -> {max(seen.beside):.0f} ms;"
          f" {seen.cpu:.0%} of a core, {seen.kib_a_stream:.0f} KiB a stream", flush=True)  # fmt: skip
    for problem in seen.problems:
        print(f"    {problem}")


async def measured(port: int, key: str, meanwhile: Awaitable[None]) -> list[float]:
    """Small requests' times in ms while `meanwhile` runs."""
    waits_s: list[float] = []
    until = asyncio.Event()
    asking = [asyncio.ensure_future(asks(port, key, waits_s, until)) for _ in range(4)]
    await meanwhile
    until.set()
    await asyncio.gather(*asking)
    return [wait_s * 1e3 for wait_s in waits_s]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="exit 1 when it does not hold, twice")
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--streams", nargs=2, metavar=("PORT", "KEY"), help="only be the slow clients")
    asked = parser.parse_args()
    if asked.streams:
        print(json.dumps(asyncio.run(all_of_them(int(asked.streams[0]), asked.streams[1], asked.clients))))
        return 0
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # the daemon inherits it
    with tempfile.TemporaryDirectory(prefix="gp-soak-") as folder, upstream() as url:
        for _ in range(2 if asked.check else 1):
            with proxy(url) as bare:
                floor = asyncio.run(run(bare, asked.clients))
            report("proxy", floor, asked.clients)
            with gateway(Path(folder), url, asked.clients) as subject:
                ours = asyncio.run(run(subject, asked.clients))
            report("gateway", ours, asked.clients)
            print(
                f"p99 ratio: {floor.ratio:.2f} floor, {ours.ratio:.2f} ours (above {FLOOR_MS:.0f} ms; wanted <= 2)"
            )
            if ours.whole == asked.clients and ours.ratio <= 2:
                return 0
    return 1 if asked.check else 0


@contextlib.contextmanager
def gateway(folder: Path, url: str, clients: int) -> Iterator[Subject]:
    process = five_accounts(folder, url)
    text = process.config_file.read_text().replace("[gateway]", f"[gateway]\nmax_in_flight = {clients + 100}")
    process.config_file.write_text(text)
    with process:
        assert process.process is not None
        yield Subject("gateway", process.process.pid, int(process.url.rpartition(":")[2]), process.key)


if __name__ == "__main__":
    sys.exit(main())
