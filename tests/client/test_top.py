"""`gemini-pool top`: what a look holds, and how it is drawn on a terminal, elsewhere and as JSON."""

import contextlib
import io
import os
import pty
import select
import signal
import subprocess
import sys

import msgspec
import pytest
from tests.client.test_render import account, entry
from tests.fakes.daemon import PATIENCE_S, DaemonProcess

from gemini_pool import wire
from gemini_pool.top import Top, look

AT = 1_000_000.0


@pytest.fixture
def daemon(tmp_path):
    with DaemonProcess(tmp_path) as process:
        yield process


def status(requests: int = 10, served: int = 4, *, waiting: int = 0, accounts: int = 1) -> wire.StatusResult:
    return wire.StatusResult(
        "0.1", 1, 60.0, "ready",
        [
            account(id=f"a{n}", counters=wire.CounterInfo(served, 1, 0, 0, 0), in_flight=2, pinned=["*"] if n else [])
            for n in range(accounts)
        ],
        [], msgspec.convert({**dict.fromkeys(wire.Counters.__struct_fields__, 0), "requests": requests}, wire.Counters),
        [], wire.QueueInfo(waiting, 7.0), [entry(account="a0", fraction=0.4), entry(account="a0", model="n", fraction=0.1)],
        [], [], "", "", 3, [wire.DecisionInfo("d-1", AT - 5, "m", "a0", "adaptive", None, 2)],
    )  # fmt: skip


class Pool:
    """Answers with one status after the other, then a person interrupts."""

    def __init__(self, *answers: wire.StatusResult) -> None:
        self._answers = list(answers)

    def status(self) -> wire.StatusResult:
        if not self._answers:
            raise KeyboardInterrupt
        return self._answers.pop(0)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(
    out: io.StringIO, *answers: wire.StatusResult, once: bool = False, as_json: bool = False, **environ: str
) -> str:
    times = iter([AT, AT + 30, AT + 60])
    slept: list[float] = []
    top = Top(Pool(*answers), out, environ, every_s=2.0, sleep=slept.append, clock=lambda: next(times))
    assert top.run(as_json=as_json, once=once) == 0
    assert slept == ([] if once else [2.0] * len(answers))
    return out.getvalue()


def test_a_look_has_rates_from_the_second_on():
    """Differences a minute; never below zero, also when the daemon's counters began anew; the tightest quota."""
    first = look(status(), AT, None, 0.0)
    assert (first.requests_per_min, first.accounts[0].served_per_min) == (None, None)
    second = look(status(25, 10), AT + 30, status(10, 4), 30.0)
    assert (
        second.requests_per_min,
        second.accounts[0].served_per_min,
        second.accounts[0].failed_per_min,
    ) == (30.0, 12.0, 0.0)
    assert (second.accounts[0].left, second.accounts[0].tightest) == (0.1, "n")
    assert look(status(2, 0), AT + 30, status(10, 4), 30.0).requests_per_min == 0.0
    assert look(status(accounts=2), AT + 30, status(), 30.0).accounts[1].served_per_min is None


def test_json_is_one_look_a_line():
    """Each line by itself is a whole look."""
    lines = shown(io.StringIO(), status(), status(20), as_json=True).splitlines()
    looks = [msgspec.json.decode(line) for line in lines]
    assert [l["requests"] for l in looks] == [10, 20]
    assert looks[1]["requests_per_min"] == 20.0
    assert looks[0]["decisions"][0]["decision"] == "d-1"


def test_without_a_terminal_looks_follow_each_other():
    """No control characters; who waits, who is pinned, the last decisions."""
    text = shown(io.StringIO(), status(waiting=3, accounts=2), status(30), TERM="xterm")
    assert "\x1b" not in text
    assert text.count("gemini-pool, ready") == 2
    assert "3 waiting (the first for 7 s)" in text
    assert "a1 (pinned)" in text
    assert "d-1" in text
    assert "try 2" in text
    assert "40 requests a minute" in text


def test_a_dumb_terminal_is_none():
    """TERM=dumb gets plain looks; a terminal without a name none that are drawn in place."""
    assert "\x1b" not in shown(Terminal(), status(), TERM="dumb")
    assert "\x1b[H" not in shown(Terminal(), status())


def test_on_a_terminal_it_is_drawn_in_place(monkeypatch):
    """On a screen of its own that is left again, also by an interrupt; never longer than the screen."""
    monkeypatch.setenv("LINES", "6")
    text = shown(Terminal(), status(accounts=40), status(accounts=40), TERM="xterm")
    assert text.startswith("\x1b[?1049h")
    assert text.endswith("\x1b[?1049l")
    assert text.count("\x1b[H") == 2
    assert text.count("\n") == 2 * 5


def test_once_leaves_the_terminal_as_it_is():
    """One look, in colours, without a screen of its own."""
    text = shown(Terminal(), status(), once=True, TERM="xterm")
    assert "\x1b[?1049h" not in text
    assert "\x1b[32mready" in text


def test_a_terminal_is_given_back_whoever_ends_it(daemon: DaemonProcess):
    """SIGTERM and a closed terminal (SIGHUP) leave the alternate screen as ^C does."""
    for number in (signal.SIGTERM, signal.SIGINT):
        master, slave = pty.openpty()
        top = subprocess.Popen(
            [sys.executable, "-m", "gemini_pool.cli", "top"],
            env={**daemon.env, "TERM": "xterm"}, stdin=slave, stdout=slave, stderr=slave,
            preexec_fn=_interruptible,
        )  # fmt: skip
        os.close(slave)
        shown = b""
        while b"gemini-pool, " not in shown:
            shown += _read(master)
        top.send_signal(number)
        with contextlib.suppress(OSError):  # nobody has the other end any more
            while more := _read(master):
                shown += more
        os.close(master)
        assert top.wait(PATIENCE_S) == (0 if number == signal.SIGINT else 128 + number)
        assert shown.endswith(b"\x1b[?25h\x1b[?1049l")


def _interruptible() -> None:
    """A shell starts what runs in the background with ^C ignored, which programs inherit."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _read(terminal: int) -> bytes:
    """What comes next; a program that says nothing more and does not end is a failure, not a wait for ever."""
    assert select.select([terminal], [], [], PATIENCE_S)[0], "nothing more came, and it has not ended"
    return os.read(terminal, 65536)
