"""The Python client, with both of its faces, does what stands in the transcripts; and the fake daemon notices if not."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conformance.python_client import replay
from tests.conformance.script import FOLDER, Script, scripts

from gemini_pool import Pool

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("face", ["blocking", "asyncio"])
@pytest.mark.parametrize("name", [script.name for script in scripts("client")])
async def test_the_python_client_replays(name, face, tmp_path):
    """Every request of the transcript is sent, and every answer reaches the program as the transcript says."""
    await replay(Script.load(FOLDER / f"{name}.json"), tmp_path / "p.sock", face)


async def test_the_fake_daemon_finds_a_client_that_says_something_else(tmp_path):
    """A transcript whose request is never sent fails, and so does a request that no transcript has."""
    (script,) = [s for s in scripts("client") if s.name == "token"]
    script.wire[0]["client"]["params"]["account"] = "key-b"
    with pytest.raises((AssertionError, TimeoutError), match=r"the client said|^$"):
        async with asyncio.timeout(0.5):
            await replay(script, tmp_path / "p.sock", "asyncio")


def play_alone(transcript, tmp_path, do):
    socket = tmp_path / "p.sock"
    command = [sys.executable, "-m", "tests.conformance.server", transcript, str(socket)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    do(socket)
    _, complaint = process.communicate(timeout=20)
    return process.returncode, complaint


def ask(socket):
    with Pool(socket, timeout_s=10) as pool:
        assert pool.token("key-a").token == "fake-key-a"


def test_the_fake_daemon_as_a_command(tmp_path):
    """What clients of other languages start: `ready`, the transcript, exit 0 at the end of its input."""
    assert play_alone("token", tmp_path, ask) == (0, "")
    assert play_alone(str(FOLDER / "token.json"), tmp_path, ask) == (0, "")


def test_the_fake_daemon_as_a_command_complains(tmp_path):
    """Whoever asks nothing has not replayed: exit 1, and what is missing."""
    code, complaint = play_alone("token", tmp_path, lambda socket: None)
    assert code == 1
    assert "steps were not played" in complaint
