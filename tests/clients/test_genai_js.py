"""The real google-genai SDK for JavaScript, unmodified, in a program that its environment configures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.clients import installed
from tests.clients.conftest import MODEL, Stage, run_client

from gemini_poold.fake import Fault, Match, replies

GENAI = "@google/genai@2.32.0"
Program = Callable[..., Any]


@pytest.fixture(scope="session")
def modules() -> Path:
    return installed.npm("genai-js", GENAI) / "node_modules"


@pytest.fixture
def program(stage: Stage, modules: Path, tmp_path: Path) -> Program:
    """Run a scenario; its outcome."""

    def run(scenario: str, settings: str = "genai") -> Any:
        env = {"NODE_PATH": str(modules), **stage.settings(settings)}
        script = Path(__file__).parent / "genai.cjs"
        done = run_client(["node", script, scenario, MODEL], tmp_path / "home", env)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.mark.parametrize("settings", ["genai", "vertex"])
def test_prompt(stage: Stage, program: Program, settings: str) -> None:
    """A whole answer and a stream with every chunk and its finish, though the preferred account is refused."""
    answer = program("plain", settings)
    assert answer["text"].startswith("cool (")
    assert answer["text"].endswith("you said: hello")
    assert answer["tokens"] > 0
    streamed = program("stream", settings)
    assert streamed["chunks"] > 1
    assert streamed["text"] == answer["text"]
    assert (streamed["finish"], streamed["error"]) == ("STOP", "")
    stage.assert_rotated("hot")


@pytest.mark.parametrize("settings", ["genai", "vertex"])
def test_tool_call(stage: Stage, program: Program, settings: str) -> None:
    """A chat with a function: the call, its result, the answer."""
    outcome = program("tool", settings)
    assert outcome["call"] == "weather"
    assert outcome["text"].endswith("you said: hello")
    stage.assert_rotated("hot")


@pytest.mark.parametrize("settings", ["genai", "vertex"])
def test_cut_stream(stage: Stage, program: Program, settings: str) -> None:
    """A stream that Google breaks off is an error after its first chunks."""
    rule = stage.cut(times=None)
    streamed = program("stream", settings)
    assert rule.hits == 1
    assert streamed["chunks"] >= 1
    assert streamed["error"]
    assert not streamed["finish"]


def test_live(stage: Stage, program: Program) -> None:
    """A conversation over a WebSocket, though the first account's handshake is refused."""
    refused = Fault.status(429, body=replies.rate_limited("27s", model=MODEL))
    rule = stage.google.faults.add(refused, when=Match(kind="live", credential="hot"), times=None)
    outcome = program("live")
    assert outcome["text"] == "cool — you said: hello"
    assert rule.hits == 1
    assert stage.google.live.closed == [1000] or outcome["code"] in (1000, 1005)


def test_the_others(program: Program) -> None:
    """Counting, embedding, and the list of models."""
    outcome = program("others")
    assert outcome["tokens"] > 0
    assert outcome["size"] > 100
    assert f"models/{MODEL}" in outcome["names"]
