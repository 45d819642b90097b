"""The real LangChain model for Gemini, unmodified, in a program that its environment configures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.clients import installed
from tests.clients.conftest import LANGCHAIN, MODEL, Stage, run_client

Program = Callable[[str], Any]


@pytest.fixture(scope="session")
def python() -> Path:
    return installed.pip("langchain", *LANGCHAIN) / "python"


@pytest.fixture
def program(stage: Stage, python: Path, tmp_path: Path) -> Program:
    """Run a scenario; its outcome."""

    def run(scenario: str) -> Any:
        script = Path(__file__).parent / "langchain_program.py"
        done = run_client([python, script, scenario, MODEL], tmp_path / "home", stage.settings("genai"))
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_prompt(stage: Stage, program: Program) -> None:
    """A whole answer and the same as a stream, though the preferred account is refused."""
    answer = program("plain")
    assert answer["text"].startswith("cool (")
    assert answer["text"].endswith("you said: hello")
    streamed = program("stream")
    assert streamed["chunks"] > 1
    assert (streamed["text"], streamed["error"]) == (answer["text"], "")
    stage.assert_rotated("hot")


def test_tool_call(stage: Stage, program: Program) -> None:
    """The model's call reaches the program."""
    assert program("tool") == {"call": "weather"}
    stage.assert_rotated("hot")


def test_cut_stream(stage: Stage, program: Program) -> None:
    """A stream that Google breaks off is an error after its first chunks."""
    rule = stage.cut(times=None)
    streamed = program("stream")
    assert rule.hits >= 1
    assert streamed["chunks"] >= 1
    assert streamed["error"]
