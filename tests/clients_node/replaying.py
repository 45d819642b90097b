"""Replaying a transcript with a copy of the TypeScript client: the one of the tree, or the one inside a plugin."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.conformance.script import FOLDER

ROOT = Path(__file__).parents[2]
PLAYER = Path(__file__).with_name("player.mjs")


def replay(name: str, js: Sequence[str], folder: Path, **env: str) -> None:
    """Both sides of a transcript; fails unless everything was said, and came, as it stands there. `js` runs a module."""
    socket = folder / "p.sock"
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-m", "tests.conformance.server", name, str(socket)],
        cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True,
    ) as fake:  # fmt: skip
        assert fake.stdout is not None
        try:
            assert fake.stdout.readline() == "ready\n"
            played = subprocess.run(
                [*js, str(PLAYER), str(FOLDER / f"{name}.json"), str(socket)], env={**os.environ, **env},
                capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
        finally:
            _, complaint = fake.communicate(timeout=20)
    assert (played.returncode, fake.returncode) == (0, 0), f"{name}: {played.stderr}{complaint}"
