"""The adapters for LiteLLM and LangChain with the real libraries: over the gateway's Unix socket, without key or port."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.clients import installed
from tests.clients.conftest import LANGCHAIN, MODEL, Stage, run_client

import gemini_pool

LIBRARIES = {
    "litellm": ("litellm==1.110.2", "msgspec>=0.19"),
    "langchain": LANGCHAIN,
}
Program = Callable[[str], Any]


@pytest.fixture(scope="session", params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> tuple[str, Path]:
    name = request.param
    return name, installed.pip(name, *LIBRARIES[name]) / "python"


@pytest.fixture
def program(stage: Stage, library: tuple[str, Path], tmp_path: Path) -> Program:
    """Run a scenario; its outcome. The program has our client, the library, and the daemon's socket, and nothing else."""

    def run(scenario: str) -> Any:
        name, python = library
        client = tmp_path / "client"
        client.mkdir(exist_ok=True)
        if not (client / "gemini_pool").exists():
            (client / "gemini_pool").symlink_to(Path(gemini_pool.__file__).parent)
        env = {
            "GEMINI_POOL_SOCKET": str(stage.daemon.socket), "PYTHONPATH": str(client), "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "PYTHONDONTWRITEBYTECODE": "1",
        }  # fmt: skip
        script = Path(__file__).with_name("adapters_program.py")
        done = run_client([python, script, name, scenario, MODEL], tmp_path / "home", env)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


def test_answers(stage: Stage, program: Program) -> None:
    """Whole, streamed, both with asyncio, and a tool's call, though the preferred account is refused."""
    found = program("all")
    assert found["whole"].startswith("cool (")
    assert found["whole"].endswith("you said: hello")
    assert found["chunks"] > 1
    assert [found["text"], *found["awaited"]] == [found["whole"]] * 3
    assert (found["call"], found["error"]) == ("weather", "")
    stage.assert_rotated("hot")


def test_cut_stream(stage: Stage, program: Program) -> None:
    """A stream that Google breaks off is an error, and never a whole answer."""
    rule = stage.cut(times=None)
    streamed = program("stream")
    assert rule.hits >= 1
    assert streamed["error"]


def test_without_a_daemon(stage: Stage, program: Program) -> None:
    """Nobody there: an error, and nothing that looks like an answer."""
    stage.daemon.stop()
    failed = program("stream")
    assert (bool(failed["error"]), failed["text"]) == (True, "")
