"""The gateway against a bare aiohttp reverse proxy: same upstream, same load, interleaved rounds, medians of ratios.

    python tests/bench/gateway.py [--check] [--rounds N] [--seconds S] [--connections N]
    python tests/bench/gateway.py --long [--requests N]     memory over many requests, and over a large upload

The daemon is the real one, with five API-key accounts, choosing, counting and logging switched on as they are for a
user. Upstream and load generator are lean (`_http.py`), so most of the time goes where it is measured. CPU and memory
are read from /proc; elsewhere they are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "daemon"), str(ROOT / "client" / "python")]

from tests.bench import _http  # noqa: E402
from tests.fakes.daemon import DaemonProcess, api_key_account, key_variable  # noqa: E402

ACCOUNTS = 5
LIMITS = {
    "requests/s": (">=", 0.5),
    "CPU ms/request": ("<=", 2.5),
    "stream events/s": (">=", 0.7),
    "translated ev/s": (">=", 0.25),
    "added p99 ms": ("<=", 2.0),  # of the first byte, above what the upstream itself takes
    "idle memory": ("<=", 1.5),
    "ready time": ("<=", 3.0),
}


@dataclass
class Subject:
    """What is measured: a process that serves HTTP on `port`."""

    name: str
    pid: int
    port: int
    key: str
    requests_per_s: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    events_per_s: list[float] = field(default_factory=list)
    event_cpu_us: list[float] = field(default_factory=list)
    translated_per_s: list[float] = field(default_factory=list)
    first_byte_ms: list[float] = field(default_factory=list)
    idle_mib: float = 0.0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="exit 1 when a ratio is missed")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--starts", type=int, default=5, help="how often the start is timed")
    parser.add_argument("--long", action="store_true", help="watch the memory instead")
    parser.add_argument("--requests", type=int, default=100_000, help="of --long")
    asked = parser.parse_args()
    if asked.long:
        return watch_memory(asked)
    missed = compare(asked)
    for _ in range(2 if asked.check else 0):
        if missed:
            print(
                "once more: a neighbour on the machine is not our slowness; missed is what is missed three times"
            )
            missed &= compare(asked)
    if missed:
        print(f"missed: {', '.join(sorted(missed))}")
    return 1 if missed and asked.check else 0


def compare(asked: argparse.Namespace) -> set[str]:
    """Measure both and print the table; the names of the ratios that are missed."""
    with tempfile.TemporaryDirectory(prefix="gp-bench-") as name, upstream() as url:
        folder = Path(name)
        direct = Subject("upstream", 0, int(url.rpartition(":")[2]), "fake-key")
        with proxy(url) as bare, daemon(folder / "daemon", url) as ours:
            for subject in (bare, ours):
                measure(subject, asked.connections, 0.5)  # warm
                clear(subject)
            for number in range(asked.rounds):
                for subject in (bare, ours) if number % 2 else (ours, bare):
                    measure(subject, asked.connections, asked.seconds)
                result = load(direct, "stream", asked.connections, asked.seconds / 4)
                direct.first_byte_ms.append(result.first_byte_ms)
                print(f"round {number + 1} of {asked.rounds}", file=sys.stderr)
        ready = ready_times(folder, url, asked.starts)
    ratios = report(direct, bare, ours, ready)
    return {name for name, (sense, limit) in LIMITS.items() if not holds(ratios.get(name), sense, limit)}


def measure(subject: Subject, connections: int, seconds: float) -> None:
    """One round of plain requests, one of streams; of ours one of streams that it translates, too."""
    for mode in ("plain", "stream", *(("translated",) if subject.name == "gateway" else ())):
        before = cpu_s(subject.pid)
        result = load(subject, mode, connections, seconds)
        used = cpu_s(subject.pid) - before
        if mode == "plain":
            subject.requests_per_s.append(result.requests_per_s)
            subject.cpu_ms.append(used / result.requests * 1e3)
        elif mode == "translated":
            subject.translated_per_s.append(result.events_per_s)
        else:
            subject.first_byte_ms.append(result.first_byte_ms)
            subject.events_per_s.append(result.events_per_s)
            subject.event_cpu_us.append(used / result.events * 1e6)


def clear(subject: Subject) -> None:
    for values in (
        subject.requests_per_s, subject.cpu_ms, subject.events_per_s, subject.event_cpu_us,
        subject.translated_per_s, subject.first_byte_ms,
    ):  # fmt: skip
        values.clear()


def load(subject: Subject, mode: str, connections: int, seconds: float) -> _http.Load:
    command = [sys.executable, str(HERE / "_http.py"), "load", str(subject.port), subject.key, mode]
    out = subprocess.run(
        [*command, str(connections), str(seconds)], check=True, stdout=subprocess.PIPE, timeout=seconds + 60
    ).stdout
    return _http.Load(*json.loads(out))


def report(direct: Subject, bare: Subject, ours: Subject, ready: tuple[float, float]) -> dict[str, float]:
    """Print the table; the ratios, gateway to proxy, by name."""
    rows: list[tuple[str, float, float, float]] = []

    def row(name: str, theirs: list[float], mine: list[float]) -> None:
        ratios = [m / t for m, t in zip(mine, theirs, strict=True) if t]
        if ratios:
            rows.append((name, median(theirs), median(mine), median(ratios)))

    row("requests/s", bare.requests_per_s, ours.requests_per_s)
    row("CPU ms/request", bare.cpu_ms, ours.cpu_ms)
    row("stream events/s", bare.events_per_s, ours.events_per_s)
    row("CPU us/event", bare.event_cpu_us, ours.event_cpu_us)
    row("translated ev/s", bare.events_per_s, ours.translated_per_s)
    floor = median(direct.first_byte_ms)
    row("added p99 ms", [median(bare.first_byte_ms) - floor], [median(ours.first_byte_ms) - floor])
    row("idle memory", [bare.idle_mib], [ours.idle_mib])
    row("ready time", [ready[0]], [ready[1]])
    print(f"{'':18}{'floor':>10}{'gateway':>10}{'ratio':>8}  wanted")
    for name, theirs, mine, ratio in rows:
        sense, limit = LIMITS.get(name, ("", 0.0))
        print(f"{name:18}{theirs:10.2f}{mine:10.2f}{ratio:8.2f}  {f'{sense} {limit}' if sense else '-'}")
    return {name: ratio for name, _, _, ratio in rows}


def holds(ratio: float | None, sense: str, limit: float) -> bool:
    if ratio is None:  # not measurable on this system
        return True
    return ratio >= limit if sense == ">=" else ratio <= limit


# ---- memory -------------------------------------------------------------------------------------------------------

FLAT_MIB = 4.0  # what the second half of the requests may add: counters and caches have their places by then
UPLOAD_MIB = 50


def watch_memory(asked: argparse.Namespace) -> int:
    """Resident memory over many requests, with its slope; then over one large upload."""
    with tempfile.TemporaryDirectory(prefix="gp-bench-") as name, upstream() as url:
        with daemon(Path(name), url) as ours:
            done, samples = 0, []
            while done < asked.requests:
                done += load(ours, "plain", asked.connections, 2.0).requests
                samples.append((done, rss_mib(ours.pid)))
                print(f"{done:8} requests {samples[-1][1]:8.1f} MiB", file=sys.stderr)
            half = [(n, mib) for n, mib in samples if n >= done / 2]
            grown = half[-1][1] - half[0][1]
            slope = grown * 1024 / max(1, half[-1][0] - half[0][0]) * 1000
            print(f"memory: {samples[0][1]:.1f} MiB at first, {samples[-1][1]:.1f} after {done} requests;"
                  f" slope of the second half {slope:.1f} KiB per 1,000 requests (wanted: <= {FLAT_MIB} MiB in all)")  # fmt: skip
            added = upload(ours)
            print(f"upload of {UPLOAD_MIB} MiB: peak memory + {added:.1f} MiB (wanted: < {UPLOAD_MIB})")
    return 1 if asked.check and (grown > FLAT_MIB or added >= UPLOAD_MIB) else 0


def upload(ours: Subject) -> float:
    """Send a large file as a client does that streams it; how much the daemon's peak grew by, in MiB."""
    before = status_mib(ours.pid, "VmHWM")
    path = "/upload/v1beta/files?uploadType=media"
    connection = http.client.HTTPConnection("127.0.0.1", ours.port, timeout=60)
    connection.request(
        "POST", path, (b"x" * (1 << 20) for _ in range(UPLOAD_MIB)),
        {"x-goog-api-key": ours.key, "Content-Type": "text/plain", "Content-Length": str(UPLOAD_MIB << 20),
         "X-Goog-Upload-Protocol": "raw"},
    )  # fmt: skip
    answer = connection.getresponse()
    answer.read()
    connection.close()
    if answer.status != 200:
        raise RuntimeError(f"the upload was answered {answer.status}")
    return status_mib(ours.pid, "VmHWM") - before


# ---- the processes ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def served(*command: str) -> Iterator[tuple[int, int]]:
    """A Python program that prints its port: its pid and that port."""
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield process.pid, int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def upstream() -> Iterator[str]:
    with served(str(HERE / "_http.py"), "upstream") as (_, port):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def proxy(url: str) -> Iterator[Subject]:
    with served(str(HERE / "_proxy.py"), url) as (pid, port):
        yield Subject("proxy", pid, port, "fake-key", idle_mib=rss_mib(pid))


@contextlib.contextmanager
def daemon(folder: Path, url: str) -> Iterator[Subject]:
    with five_accounts(folder, url) as process:
        assert process.process is not None
        pid, port = process.process.pid, int(process.url.rpartition(":")[2])
        time.sleep(1.0)  # idle: whatever it does after READY is done
        yield Subject("gateway", pid, port, process.key, idle_mib=rss_mib(pid))


def five_accounts(folder: Path, url: str) -> DaemonProcess:
    names = [f"key-{number}" for number in range(ACCOUNTS)]
    return DaemonProcess(
        folder,
        accounts="\n".join(api_key_account(name) for name in names),
        config=f'\n[endpoints]\ndeveloper_api = "{url}"\n',
        env={key_variable(name): f"fake-{name}" for name in names},
    )


def ready_times(folder: Path, url: str, times: int) -> tuple[float, float]:
    """Median milliseconds of importing aiohttp and msgspec, and from the daemon's start to its READY."""
    imports, ready = [], []
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as notify:
        address = str(folder / "notify")
        notify.bind(address)
        notify.settimeout(30)
        for number in range(times):
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", "import aiohttp, msgspec"], check=True)
            imports.append((time.perf_counter() - began) * 1e3)
            process = five_accounts(folder / f"start-{number}", url)
            process.env["NOTIFY_SOCKET"] = address
            began = time.perf_counter()
            process.start(ready=False)
            while notify.recv(4096) != b"READY=1":
                pass
            ready.append((time.perf_counter() - began) * 1e3)
            process.stop()
            with contextlib.suppress(BlockingIOError):
                notify.setblocking(False)
                while notify.recv(4096):
                    pass
            notify.settimeout(30)
    return median(imports), median(ready)


def cpu_s(pid: int) -> float:
    """CPU seconds a process has used; 0 where /proc is not."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mib(pid: int) -> float:
    return status_mib(pid, "VmRSS")


def status_mib(pid: int, name: str) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    line = next(line for line in status.splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    sys.exit(main())
