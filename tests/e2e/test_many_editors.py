"""Two hundred editors at once, twenty of them killed: their leases are free at once, and nothing is left of them.

Each editor is a process of its own with a connection and an open lease. What the daemon had before and after is printed.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.fakes.daemon import DaemonProcess, api_key_account, fake_google

from gemini_poold.fake import World

MODEL = "gemini-2.5-flash"
EDITORS = 200
KILLED = 20
# A process that has only forked is as much an editor to the daemon as one that has started Python, and 200 of those
# would take half a minute: one parent forks them all, and tells their pids.
PARENT = r"""
import os, signal, sys
from gemini_pool import Pool
pids = []
for _ in range(int(sys.argv[1])):
    pid = os.fork()
    if not pid:
        pool = Pool(name="editor", connect_s=20)
        pool.acquire(sys.argv[2], wait_s=20)
        os.write(1, b"%d\n" % os.getpid())
        signal.pause()
    pids.append(pid)
sys.stdin.read()
for pid in pids:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
for pid in pids:
    os.waitpid(pid, 0)
"""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[DaemonProcess]:
    world = World()
    names = [f"key-{n}" for n in range(4)]
    for name in names:
        world.add_api_key(name)
    with fake_google(world) as google:
        accounts = "\n".join(api_key_account(name, lend=True) for name in names)
        with DaemonProcess(tmp_path, fake=google, accounts=accounts) as running:
            yield running


def resources(daemon: DaemonProcess) -> dict[str, int]:
    """File descriptors, tasks, threads and resident KiB of the daemon."""
    proc = Path(f"/proc/{daemon.process.pid}")
    seen = daemon.log.count("tasks: ")
    daemon.process.send_signal(signal.SIGUSR1)  # it tells what it is busy with
    within(5.0, lambda: daemon.log.count("tasks: ") > seen)
    tasks = int(re.findall(r"tasks: (\d+)", daemon.log)[-1])
    status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
    return {
        "fds": len(os.listdir(proc / "fd")),
        "tasks": tasks,
        "threads": int(status["Threads"]),
        "rss_kib": int(status["VmRSS"].split()[0]),
    }


def within(seconds: float, holds: Callable[[], bool]) -> float:
    """Wait until it holds; how long that took. Fails after so many seconds."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds
        time.sleep(0.01)
    return time.monotonic() - began


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_two_hundred_editors(daemon):
    """All hold a lease at once; those of the killed are free within a second (a few on a machine at its limits), those
    of the others stay; when all are gone the daemon has its descriptors and clients of before."""
    with daemon.pool(name="watcher") as watcher:
        for _ in range(50):
            watcher.status()
        before = resources(daemon)
        parent = subprocess.Popen(
            [sys.executable, "-c", PARENT, str(EDITORS), MODEL],
            env=daemon.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        pids = [int(parent.stdout.readline()) for _ in range(EDITORS)]
        status = watcher.status()
        assert len(status.leases) == EDITORS
        assert len([c for c in status.clients if c.name == "editor" and c.leases == 1]) == EDITORS
        full = resources(daemon)
        for pid in pids[:KILLED]:
            os.kill(pid, signal.SIGKILL)
        took = within(5.0, lambda: len(watcher.status().leases) <= EDITORS - KILLED)
        assert len(watcher.status().leases) == EDITORS - KILLED
        parent.stdin.close()
        parent.stdout.close()
        parent.wait(20)
        within(5.0, lambda: not watcher.status().leases)
        status = watcher.status()
        assert [c.name for c in status.clients] == ["watcher"]
        assert sum(account.in_flight for account in status.accounts) == 0
        after = resources(daemon)
    print(f"\nbefore  {before}\nfull    {full}\nafter   {after}\nfreed {KILLED} leases in {took:.3f} s")
    assert after["fds"] <= before["fds"] + 2
    assert after["tasks"] <= before["tasks"]
    assert after["threads"] <= before["threads"] + 2
    assert full["fds"] >= before["fds"] + EDITORS
    assert after["rss_kib"] <= full["rss_kib"] + 1024
