"""The real aider, unmodified, which speaks through litellm: to the Gemini API and to the OpenAI surface."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from tests.clients import installed
from tests.clients.conftest import MODEL, Stage, assert_noticed, run_client

AIDER = "aider-chat==0.86.2"
QUIET = (
    "--no-git --yes-always --no-check-update --no-show-model-warnings --no-analytics --no-pretty --no-detect-urls"
    " --no-show-release-notes --map-tokens 0"
).split()
SURFACES = {"gemini": "genai", "openai": "openai"}  # litellm's providers, and whose settings they take


@pytest.fixture(scope="session")
def aider() -> Path:
    return installed.pip("aider", AIDER, below=(3, 13)) / "aider"


def ask(
    aider: Path, stage: Stage, home: Path, surface: str, *options: str
) -> subprocess.CompletedProcess[str]:
    settings = {**stage.settings(SURFACES[surface]), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    command = [aider, *QUIET, "--model", f"{surface}/{MODEL}", *options, "--message", "say hello"]
    return run_client(command, home, settings)


@pytest.mark.parametrize("stream", ["--stream", "--no-stream"])
@pytest.mark.parametrize("surface", SURFACES)
def test_prompt(stage: Stage, aider: Path, tmp_path: Path, surface: str, stream: str) -> None:
    """One good answer, streamed or whole, and its tokens counted, though the preferred account is refused."""
    done = ask(aider, stage, tmp_path / "home", surface, stream)
    assert done.returncode == 0, done.stderr
    assert f"cool (project-of-cool) · {MODEL} — you said:" in done.stdout
    assert "received" in done.stdout
    assert "litellm." not in done.stdout  # how its errors begin
    stage.assert_rotated("hot")
    kind = "stream" if stream == "--stream" else "generate"
    assert stage.google.record.count(kind, model=MODEL, status=200) == 1


@pytest.mark.parametrize("surface", SURFACES)
def test_cut_stream(stage: Stage, aider: Path, tmp_path: Path, surface: str) -> None:
    """A stream that Google breaks off is asked for again."""
    rule = stage.cut()
    done = ask(aider, stage, tmp_path / "home", surface, "--stream")
    assert_noticed(done, rule, f"{MODEL} — you said:")
    assert stage.google.record.count("stream", model=MODEL, status=200) == 2
