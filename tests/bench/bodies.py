"""What many large bodies at once cost in memory: so many uploads of so many MiB, all under way together, and repeated.

    python tests/bench/bodies.py [--check] [--bodies N] [--mib N]

A real daemon with two API keys; behind it a sink that reads what comes, holds every answer until the last body is there,
and refuses the first of each body with a 503, so that all of them are sent twice, from the disk. Clients write in pieces, so
that nobody but the daemon could hold a body. Printed: the daemon's memory idle and at its peak (VmHWM), and what it had on
the disk. `--check` exits with 1 when the peak is above idle by 64 MiB + 1.5 MiB for each body, whatever its size.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "daemon"), str(ROOT / "client" / "python")]

from tests.fakes.daemon import DaemonProcess, api_key_account, key_variable  # noqa: E402

MIB = 1 << 20
MODEL = "gemini-2.5-flash"
ANSWER = b'{"candidates":[{"content":{"parts":[{"text":"hi"}]},"finishReason":"STOP"}]}'
REFUSAL = b'{"error":{"code":503,"message":"try another","status":"UNAVAILABLE"}}'
BASE_MIB, EACH_MIB = 64.0, 1.5


class Sink:
    """Google as far as this needs it. `together` bodies are waited for; the first of each that comes is refused."""

    def __init__(self, together: int) -> None:
        self.received = 0
        self._seen = itertools.count(1)
        self._together = together
        self._gate = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
                left = int(next((v for k, v in fields.items() if k.lower() == b"content-length"), b"0"))
                while left:
                    left -= len(got := await reader.read(min(left, MIB)))
                    self.received += len(got)
                number = next(self._seen)
                if number == self._together:
                    self._gate.set()
                await self._gate.wait()
                refused = number <= self._together
                status, body = (b"503 Service Unavailable", REFUSAL) if refused else (b"200 OK", ANSWER)
                writer.write(
                    b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                    % (status, len(body), body)
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


async def upload(port: int, key: str, size: int) -> int:
    """One request with a body of `size`, written in pieces; the status of its answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    before = b'{"contents":[{"role":"user","parts":[{"inlineData":{"mimeType":"image/png","data":"'
    after = b'"}}]}]}'
    writer.write(
        f"POST /v1beta/models/{MODEL}:generateContent HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nx-goog-api-key: {key}\r\n"
        f"Content-Length: {len(before) + size + len(after)}\r\n\r\n".encode()
    )
    writer.write(before)
    piece = b"QUJD" * (MIB // 16)
    for _ in range(size // len(piece)):
        writer.write(piece)
        await writer.drain()
    writer.write(after)
    await writer.drain()
    status = int((await reader.readline())[9:12])
    writer.close()
    return status


def memory_mib(pid: int, field: str) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith(field))) / 1024


async def on_disk(pid: int, folder: str, stop: asyncio.Event) -> int:
    """The most bytes that were open in `folder` at any look."""
    most = 0
    while not stop.is_set():
        now = 0
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            try:
                if folder in str(entry.readlink()):
                    now += entry.stat().st_size
            except OSError:
                continue
        most = max(most, now)
        await asyncio.sleep(0.05)
    return most


async def measure(folder: Path, bodies: int, mib: int) -> tuple[float, float]:
    """The daemon's memory idle and at its peak, in MiB."""
    sink = Sink(bodies)
    server = await asyncio.start_server(sink.serve, "127.0.0.1", 0, limit=MIB)
    google = server.sockets[0].getsockname()[1]
    names = ("a", "b")
    config = f'[gateway]\nlisten = "127.0.0.1:0"\n[endpoints]\ndeveloper_api = "http://127.0.0.1:{google}"\n'
    daemon = DaemonProcess(
        folder,
        accounts="\n".join(map(api_key_account, names)),
        config=config,
        env={key_variable(name): f"fake-key-{name}" for name in names},
    )
    await asyncio.to_thread(daemon.start)
    try:
        assert daemon.process is not None
        pid, port = daemon.process.pid, int((await asyncio.to_thread(lambda: daemon.url)).rpartition(":")[2])
        idle, stop = memory_mib(pid, "VmRSS"), asyncio.Event()
        watching = asyncio.ensure_future(on_disk(pid, str(daemon.state_dir / "spool"), stop))
        began = time.perf_counter()
        statuses = await asyncio.gather(*(upload(port, daemon.key, mib * MIB) for _ in range(bodies)))
        took_s = time.perf_counter() - began
        stop.set()
        peak, disk = memory_mib(pid, "VmHWM"), await watching
    finally:
        await asyncio.to_thread(daemon.stop)
        server.close()
    served = statuses.count(200)
    print(f"{bodies} bodies of {mib} MiB at once, each sent twice: {served} served in {took_s:.1f} s")
    print(f"sent on: {sink.received / MIB:,.0f} MiB; on the disk together: {disk / MIB:,.0f} MiB")
    print(f"memory: {idle:.0f} MiB idle, {peak:.0f} MiB at its peak")
    if served != bodies:
        raise SystemExit(f"not all were served: {statuses}")
    return idle, peak


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--bodies", type=int, default=40)
    parser.add_argument("--mib", type=int, default=25)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gemini-pool-bodies-") as name:
        idle, peak = asyncio.run(measure(Path(name), asked.bodies, asked.mib))
    most = BASE_MIB + EACH_MIB * asked.bodies
    print(f"more than idle: {peak - idle:.0f} MiB (at most {most:.0f})")
    return int(asked.check and peak - idle > most)


if __name__ == "__main__":
    raise SystemExit(main())
