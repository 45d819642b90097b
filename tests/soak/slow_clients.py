"""A thousand slow streams at once: an event a second for a minute, each of them, while others go on asking.

    python tests/soak/slow_clients.py [--check] [--clients N]

All must end whole, and the p99 of the others' requests may at most double. The upstream is the gateway benchmark's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "daemon"), str(ROOT / "client" / "python")]

from tests.bench import _http  # noqa: E402
from tests.bench.gateway import Subject, five_accounts, rss_mib, upstream  # noqa: E402

ALONE_S, EVERY_S = 8.0, 0.05
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
    for _ in range(clients):  # over ten seconds: clients come one by one
        tasks.append(asyncio.ensure_future(slow(port, key)))
        await asyncio.sleep(10 / clients)
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


async def run(port: int, key: str, clients: int, pid: int) -> bool:
    """Whether everything held; prints what was seen."""
    alone = await measured(port, key, asyncio.sleep(ALONE_S))
    before = rss_mib(pid)
    streams: list[int | str] = []
    peak = 0.0

    async def all_slow() -> (
        None
    ):  # in a process of their own: their reading is not to delay the others' clock
        nonlocal peak
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            __file__,
            "--streams",
            str(port),
            key,
            "--clients",
            str(clients),
            stdout=subprocess.PIPE,
        )
        await asyncio.sleep(30)
        peak = rss_mib(pid)
        out, _ = await process.communicate()
        streams.extend(json.loads(out))

    beside = await measured(port, key, all_slow())
    whole = sum(events == _http.SLOW_EVENTS for events in streams)
    ratio = max(beside, FLOOR_MS) / max(alone, FLOOR_MS)
    print(f"{whole} of {clients} streams whole; others' p99 {alone:.1f} ms alone, {beside:.1f} ms beside them"
          f" (ratio {ratio:.2f} above a floor of {FLOOR_MS:.0f} ms, wanted <= 2);"
          f" memory {before:.0f} -> {peak:.0f} MiB, {(peak - before) * 1024 / clients:.0f} KiB a stream")  # fmt: skip
    for problem in {str(events) for events in streams if events != _http.SLOW_EVENTS}:
        print(f"    {problem}")
    return whole == clients and ratio <= 2


async def measured(port: int, key: str, meanwhile) -> float:
    """The p99 in ms of small requests while `meanwhile` runs."""
    waits_s: list[float] = []
    until = asyncio.Event()
    asking = [asyncio.ensure_future(asks(port, key, waits_s, until)) for _ in range(4)]
    await meanwhile
    until.set()
    await asyncio.gather(*asking)
    waits_s.sort()
    return waits_s[int(len(waits_s) * 0.99)] * 1e3


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
        process = five_accounts(Path(folder), url)
        text = process.config_file.read_text().replace(
            "[gateway]", f"[gateway]\nmax_in_flight = {asked.clients + 100}"
        )
        process.config_file.write_text(text)
        with process:
            assert process.process is not None
            ours = Subject("gateway", process.process.pid, int(process.url.rpartition(":")[2]), process.key)
            for _ in range(2 if asked.check else 1):
                if asyncio.run(run(ours.port, ours.key, asked.clients, ours.pid)):
                    return 0
    return 1 if asked.check else 0


if __name__ == "__main__":
    sys.exit(main())
