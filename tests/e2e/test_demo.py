"""`gemini-pool demo`, for real: its table, its exit codes, its display, and that it leaves nothing behind."""

from __future__ import annotations

import argparse
import asyncio
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gemini_poold import demo
from gemini_poold.demo import load, scene
from gemini_poold.fake import GENERATION, FakeGoogle, Fault, Match, replies

COMMAND = [sys.executable, "-m", "gemini_poold", "demo"]


@pytest.fixture
def room() -> Iterator[Path]:
    """A temporary folder with a short path: sockets live in it."""
    folder = Path(tempfile.mkdtemp(prefix="gp", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


def environment(room: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(room), **more}


def row(text: str, name: str) -> list[int]:
    """The numbers of that line of the table."""
    found = re.search(rf"^  {name} +(.*)$", text, re.M)
    assert found, text
    return [int(number) for number in re.findall(r"\d+", found[1])]


async def start(room: Path, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *COMMAND,
        *arguments,
        env=environment(room),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


async def test_nobody_notices(room: Path) -> None:
    """One account is limited, one dies, one token runs out: every request is answered and the table says so."""
    process = await start(room, "--plain", "--seconds", "4")
    text = (await process.communicate())[0].decode()
    assert process.returncode == 0, text
    assert row(text, "failures seen by clients")[0] == 0
    requests, counted = row(text, "requests")
    assert requests == counted == row(text, "answered")[0] >= 20
    clients = [row(text, name) for name in ("editor", "script")]
    assert sum(sent for sent, *_ in clients) == requests
    assert all(streams > 0 for *_, streams in clients)
    assert row(text, "429s absorbed")[0] >= 1
    assert row(text, "rotations")[0] >= 2
    assert row(text, "tokens renewed ahead of time")[0] >= 1
    assert re.search(r"^  team +code-assist +login_required", text, re.M)
    assert list(room.iterdir()) == []


async def test_keep_stays_until_it_is_stopped(room: Path) -> None:
    """With --keep the daemon goes on and tells how to reach it; Ctrl-C ends it and takes the folder along."""
    process = await start(room, "--plain", "--seconds", "1", "--keep")
    assert process.stdout is not None
    seen = b""
    while b"The daemon's log" not in seen:
        line = await process.stdout.readline()
        assert line, seen.decode()
        seen += line
    socket = re.search(r"GEMINI_POOL_SOCKET=(\S+)", seen.decode())
    assert socket
    assert Path(socket[1]).is_socket()
    assert re.search(r"GEMINI_API_KEY=\S+ GOOGLE_GEMINI_BASE_URL=http://127\.0\.0\.1:\d+ ", seen.decode())
    process.send_signal(signal.SIGINT)
    await process.communicate()
    assert process.returncode == 130
    assert list(room.iterdir()) == []


def test_display_without_colours(room: Path) -> None:
    """On a terminal lines are drawn over themselves; NO_COLOR takes the colours and nothing else."""
    leader, follower = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "--seconds", "1"],
        env=environment(room, TERM="xterm", NO_COLOR="1"),
        stdin=follower,
        stdout=follower,
        stderr=follower,
    ) as process:
        os.close(follower)
        seen = b""
        while True:
            try:
                seen += os.read(leader, 65536)
            except OSError:  # the other end is closed
                break
    os.close(leader)
    assert process.returncode == 0, seen.decode()
    assert b"\x1b[J" in seen
    assert not re.search(rb"\x1b\[[0-9;]*m", seen)
    assert b"failures seen by clients" in seen


class Hopeless(scene.Play):
    """A play in which every request is refused as malformed."""

    def begin(self, google: FakeGoogle, note: Any) -> None:
        google.faults.add(
            Fault.status(400, body=replies.invalid_argument()), when=Match(kind=GENERATION), times=None
        )


async def test_failures_are_counted_and_told(
    room: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A client that saw a failure makes the demo fail, and the table shows what it saw."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    args = argparse.Namespace(keep=False, plain=True, seconds=1.0)
    assert await demo.run(args, room, Hopeless(1.0)) == 1
    text = capsys.readouterr().out
    assert row(text, "failures seen by clients")[0] >= 6
    assert row(text, "answered")[0] == 0
    assert "failed: editor, greeting 1" in text


async def test_a_daemon_that_cannot_start(
    room: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A daemon that ends at once is told with its last words."""
    monkeypatch.setenv("PYTHONPATH", str(room))
    args = argparse.Namespace(keep=False, plain=True, seconds=1.0)
    (room / "gemini_poold").mkdir()
    (room / "gemini_poold" / "__init__.py").write_text("")
    (room / "gemini_poold" / "__main__.py").write_text("raise SystemExit('out of order')")
    monkeypatch.chdir(room)
    assert await demo.run(args, room, scene.Play(1.0)) == 1
    assert "out of order" in capsys.readouterr().out


GOOD = {"candidates": [{"content": {"parts": [{"text": "x — you said: hi"}]}, "finishReason": "STOP"}]}
ENDLESS = {"candidates": [{"content": {"parts": [{"text": "x — you said: hi"}]}}]}


@pytest.mark.parametrize(
    ("chunks", "fine"), [([GOOD], True), ([ENDLESS], False), ([], False), ([{"candidates": []}], False)]
)
def test_only_whole_answers_count(chunks: list[Any], fine: bool) -> None:
    """An answer without its end, or without its text, is a failure to the demo's clients."""
    if fine:
        load.check("hi", chunks)
    else:
        with pytest.raises(load.WrongAnswer):
            load.check("hi", chunks)


@pytest.mark.parametrize("text", ["0", "4000", "x"])
def test_odd_durations(text: str) -> None:
    """Between a second and an hour."""
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(["--seconds", text])
