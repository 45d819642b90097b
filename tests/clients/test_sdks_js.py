"""The real OpenAI SDK for JavaScript, and the AI SDK with its Google provider (opencode is built on it)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.clients import installed
from tests.clients.conftest import MODEL, Stage, run_client

# The newest that run on node 18 and 20.
PACKAGES = ("openai@6.49.0", "ai@6.0.325", "@ai-sdk/google@3.0.141", "zod@4.1.12")
SETTINGS = {"openai": "openai", "vercel": "genai"}
Program = Callable[[str], Any]


@pytest.fixture(scope="session")
def modules() -> Path:
    return installed.npm("sdks-js", *PACKAGES) / "node_modules"


@pytest.fixture(params=SETTINGS)
def program(request: pytest.FixtureRequest, stage: Stage, modules: Path, tmp_path: Path) -> Program:
    """Run a scenario with one of the SDKs; its outcome."""

    def run(scenario: str) -> Any:
        env = {"NODE_PATH": str(modules), **stage.settings(SETTINGS[request.param])}
        script = Path(__file__).parent / "sdks.cjs"
        done = run_client(["node", script, request.param, scenario, MODEL], tmp_path / "home", env)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_prompt(stage: Stage, program: Program) -> None:
    """A whole answer and the same as a stream, though the preferred account is refused."""
    answer = program("plain")
    assert answer["text"].startswith("cool (")
    assert answer["text"].endswith("you said: hello")
    assert answer["finish"] == "stop"
    streamed = program("stream")
    assert streamed["chunks"] > 1
    assert (streamed["text"], streamed["error"]) == (answer["text"], "")
    stage.assert_rotated("hot")


def test_tool_call(stage: Stage, program: Program) -> None:
    """The call, its result, the answer; the signature of the call goes back to Google."""
    outcome = program("tool")
    assert outcome["call"] == "weather"
    assert outcome["text"].startswith("cool (")
    last = stage.bodies()[-1]
    assert "sunny" in last
    assert "thoughtSignature" in last
    stage.assert_rotated("hot")


def test_cut_stream(stage: Stage, program: Program) -> None:
    """A stream that Google breaks off is an error after its first chunks."""
    rule = stage.cut(times=None)
    streamed = program("stream")
    assert rule.hits == 1
    assert streamed["chunks"] >= 1
    assert streamed["error"]
