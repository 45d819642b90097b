"""What the editors' tests share: the fake daemon with a transcript."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tests.fakes.daemon import DaemonProcess

from gemini_poold.fake import GENERATION, FakeGoogle, Fault, Match

T = TypeVar("T")

ROOT = Path(__file__).parents[2]


def restarted(
    daemon: DaemonProcess, first: Path, go: Path, work: Callable[[], T], *, kill: bool = False
) -> T:
    """Run `work`, which writes the file `first` when it is in the middle and goes on when there is `go`: meanwhile the
    daemon becomes another one."""
    with ThreadPoolExecutor() as threads:
        running = threads.submit(work)
        while not first.exists() and not running.done():
            time.sleep(0.02)
        if kill:
            daemon.kill()
        else:
            daemon.stop()
        daemon.start()
        go.touch()
        return running.result()


def stall(google: FakeGoogle) -> None:
    """From now on a stream of Google's stops after its first chunk."""
    google.faults.add(Fault.stall(after=1), when=Match(kind=GENERATION), times=None)


VISIT = (
    "import sys, urllib.request; urllib.request.urlopen(sys.argv[1]).read()"  # for a program of an editor's
)


def visit(url: str) -> None:
    """What a person's browser does with the address of a login: the fake Google agrees and leads back to the daemon."""
    with urllib.request.urlopen(url, timeout=20) as page:
        page.read()


@contextmanager
def replayed(name: str, folder: Path) -> Iterator[Path]:
    """The socket of a daemon that plays the transcript; fails at the end unless all of it was said."""
    socket = folder / "p.sock"
    command = [sys.executable, "-m", "tests.conformance.server", name, str(socket)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        try:
            yield socket
        finally:
            _, wrong = server.communicate(timeout=20)
    assert server.returncode == 0, wrong
