"""What a daemon costs that nobody asks anything: wake-ups of all its threads, CPU, memory; and the time until it is ready.

    python tests/soak/idle.py [--check] [--seconds N]      ten minutes; `--seconds 60` for a quick look

The daemon has five API keys and a Code Assist login, is fed by a watchdog as under systemd, and a client is connected.
Afterwards accounts.toml is edited, in place and by replacing it, each time at another moment of the daemon's rest:
every edit has to be in force within a second. Wake-ups are context switches, those forced by others counted, too.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "daemon"), str(ROOT / "client" / "python")]

from tests.bench.gateway import cpu_s, ready_times, status_mib  # noqa: E402
from tests.fakes.daemon import DaemonProcess, api_key_account, fake_google  # noqa: E402

from gemini_poold.fake import World  # noqa: E402

LIMITS = {
    "wake-ups/s": 6.0,
    "CPU %": 0.3,
    "slowest edit s": 1.0,
    "memory grown MiB": 1.0,
    "ready time ratio": 3.0,
}
SETTLE_S = 15.0  # the first seconds after a start are not idle
EDITS = 20
LOGIN = """
[[account]]
id = "login"
backend = "code-assist"
project = "p"
credential = { type = "oauth", secret = { file = "secrets/login.json" } }
"""


class Reading(NamedTuple):
    at: float
    cpu: float
    switches: dict[str, tuple[str, int]]  # thread → its name, its context switches


def read(pid: int) -> Reading:
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        fields = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines())
        count = int(fields["voluntary_ctxt_switches"]) + int(fields["nonvoluntary_ctxt_switches"])
        found[task.name] = (fields["Name"].strip(), count)
    return Reading(time.monotonic(), cpu_s(pid), found)


def per_second(before: Reading, after: Reading) -> dict[str, float]:
    """Wake-ups a second of each thread; a thread that came meanwhile counts from its beginning."""
    span = after.at - before.at
    return {
        f"{name} {task}": (count - before.switches.get(task, ("", 0))[1]) / span
        for task, (name, count) in after.switches.items()
    }


@contextmanager
def manager(folder: Path) -> Iterator[str]:
    """A notification socket that somebody reads, as systemd does."""
    path = str(folder / "manager")
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as sock:
        sock.bind(path)

        def drain() -> None:
            while sock.recv(4096) != b"end":
                pass

        thread = threading.Thread(target=drain, daemon=True)
        thread.start()
        try:
            yield path
        finally:
            with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as last:
                last.sendto(b"end", path)
            thread.join()


def edits(daemon: DaemonProcess, keys: str) -> list[float]:
    """Seconds from each edit to its being in force."""
    took = []
    with daemon.pool() as pool:
        for number in range(1, EDITS + 1):
            time.sleep(1.0 + number * 0.037)  # another moment of the watch each time
            text = keys + api_key_account("late", priority=number) if number % 2 else keys
            began = time.monotonic()
            if number % 4 < 2:
                new = daemon.accounts_file.with_name("new")
                new.write_text(text)
                new.replace(daemon.accounts_file)
            else:
                daemon.accounts_file.write_text(text)
            while ("late" in {account.id for account in pool.status().accounts}) != bool(number % 2):
                if time.monotonic() - began > 10:
                    raise RuntimeError(f"edit {number} was not seen:\n{daemon.log}")
                time.sleep(0.005)
            took.append(time.monotonic() - began)
    return took


def soak(folder: Path, seconds: float) -> dict[str, float]:
    world = World()
    names = [f"key-{number}" for number in range(5)]
    for name in [*names, "late"]:
        world.add_api_key(name)
    user = world.add_user("ann", projects=["p"])
    login = json.dumps(world.authorized_user(user, world.add_client()))
    keys = "".join(api_key_account(name) for name in names) + LOGIN
    with fake_google(world) as google, manager(folder) as notify:
        ready = ready_times(folder, google.endpoints()["developer_api"], 5)
        environ = {"NOTIFY_SOCKET": notify, "WATCHDOG_USEC": "30000000"}
        daemon = DaemonProcess(folder, fake=google, accounts=keys, env=environ)
        daemon.write_secret("login.json", login)
        with daemon, daemon.pool() as client:
            client.info()
            assert daemon.process is not None
            pid = daemon.process.pid
            time.sleep(SETTLE_S)
            memory, before = status_mib(pid, "VmRSS"), read(pid)
            time.sleep(seconds)
            after, grown = read(pid), status_mib(pid, "VmRSS") - memory
            threads = per_second(before, after)
            for name, rate in sorted(threads.items(), key=lambda item: -item[1]):
                print(f"    {name:<24} {rate:.2f} wake-ups/s")
            print(f"    memory {memory:.1f} MiB at first, {memory + grown:.1f} MiB at the end"
                  f" ({status_mib(pid, 'RssAnon'):.1f} MiB its own);"
                  f" ready in {ready[1]:.0f} ms, importing aiohttp and msgspec {ready[0]:.0f} ms")  # fmt: skip
            took = sorted(edits(daemon, keys))
            print(
                f"    {len(took)} edits in force after {took[0]:.2f}…{took[-1]:.2f} s, median {took[len(took) // 2]:.2f}"
            )
    return {
        "wake-ups/s": sum(threads.values()),
        "CPU %": 100 * (after.cpu - before.cpu) / (after.at - before.at),
        "slowest edit s": took[-1],
        "memory grown MiB": grown,
        "ready time ratio": ready[1] / ready[0],
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="exit 1 when a bound is missed")
    parser.add_argument("--seconds", type=float, default=600.0, help="of idling")
    asked = parser.parse_args()
    if not os.path.isdir("/proc/self/task"):
        print("no /proc: nothing to be read here")
        return 0
    with tempfile.TemporaryDirectory(prefix="gp-idle-") as folder:
        found = soak(Path(folder), asked.seconds)
    missed = [name for name, value in found.items() if value > LIMITS[name]]
    for name, value in found.items():
        print(f"{name:<18} {value:8.2f}   wanted <= {LIMITS[name]:g}{'   MISSED' if name in missed else ''}")
    return 1 if asked.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
