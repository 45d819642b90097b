"""kill -9 before every single step (system call that touches the disk) of a rotation, an account change, a state change, a
sealing, a start: never a lost refresh token, never a half file, never two owners. `pytest -s` prints the matrix.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tests.crash.scenes import SCENES

ROOT = Path(__file__).parents[2]
PATHS = (ROOT, ROOT / "daemon", ROOT / "client" / "python")
ROWS: list[str] = []


@pytest.fixture(scope="module", autouse=True)
def table():
    """Prints what was seen, at the end."""
    yield
    print("\n" + "\n".join(ROWS))


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Forking and tracing is done in processes of their own: this one has threads by the time that tests run."""
    return subprocess.run(
        [sys.executable, *arguments], env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, PATHS)), **environ},
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@pytest.fixture(scope="module")
def tracing() -> None:
    """Skips where nothing can be traced."""
    code = "import sys; from tests.crash.tracing import can_trace; sys.exit(0 if can_trace() else 77)"
    done = run("-c", code)
    assert done.returncode in {0, 77}, done.stderr
    if done.returncode:
        pytest.skip("this machine lets nobody trace a process")


def matrix(name: str) -> dict:
    """One scene's matrix."""
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as folder:
        done = run("-m", "tests.crash.scenes", name, SCENE_FOLDER=folder)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1].removeprefix("RESULT "))


@pytest.mark.usefixtures("tracing")
@pytest.mark.parametrize("name", SCENES)
def test_killed_at_every_step(name):
    """What the judgements check stands in scenes.py; here, that every step was killed at, and how it looked after."""
    seen = matrix(name)
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(seen["kinds"].items()))
    verdicts = ", ".join(f"{count}x {word}" for word, count in seen["verdicts"].items())
    ROWS.append(f"{name}: killed before each of {seen['killed']} steps ({kinds})\n    {verdicts}")
    assert seen["killed"] >= 5
    assert abs(seen["killed"] - seen["steps"]) <= 3  # threads may do a step more or less
    if name.startswith("rotation"):
        assert {"fsync", "link", "rename", "write"} <= {kind.rstrip("at2") for kind in seen["kinds"]}
    lost = sum(count for word, count in seen["verdicts"].items() if word.startswith("lost"))
    if name == "rotation, harsh":
        # The one window that no daemon can close: the new token has arrived, and is being written.
        assert 0 < lost < seen["killed"]
    else:
        assert lost == 0
