"""The real `llm`, unmodified: with llm-gemini, whose host is written into it, and by its OpenAI models."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.clients import installed
from tests.clients.conftest import GOOGLE, MODEL, Stage, run_client
from tests.clients.tls_front import tls_front

LLM = ("llm==0.36", "llm-gemini==0.35")
Ask = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def llm() -> Path:
    return installed.pip("llm", *LLM) / "llm"


@pytest.fixture(params=["gemini", "openai"])
def ask(request: pytest.FixtureRequest, stage: Stage, llm: Path, tmp_path: Path) -> Iterator[Ask]:
    """`llm OPTIONS PROMPT` by way of its Gemini plugin, or of a model with an `api_base`."""
    home = tmp_path / "home"
    user = home / "llm"
    user.mkdir(parents=True)
    base = {"LLM_USER_PATH": str(user)}

    def run(prompt: str, *options: str) -> subprocess.CompletedProcess[str]:
        return run_client([llm, "prompt", "-m", model, *options, prompt], home, env)

    if request.param == "openai":
        settings = stage.settings("openai")
        entry = f"- model_id: pool\n  model_name: {MODEL}\n  api_base: {settings['OPENAI_BASE_URL']}\n"
        (user / "extra-openai-models.yaml").write_text(
            entry + "  api_key_name: pool\n  supports_tools: true\n"
        )
        (user / "keys.json").write_text(json.dumps({"pool": settings["OPENAI_API_KEY"]}))
        model, env = "pool", base
        yield run
        return
    with tls_front(tmp_path, GOOGLE, stage.url) as proxy:
        key = stage.settings("genai")["GEMINI_API_KEY"]
        model, env = f"gemini/{MODEL}", {**base, **proxy, "LLM_GEMINI_KEY": key}
        yield run


@pytest.mark.parametrize("options", [(), ("--no-stream",)])
def test_prompt(stage: Stage, ask: Ask, options: tuple[str, ...]) -> None:
    """A stream (of the plugin's: a JSON array) and a whole answer, though the preferred account is refused."""
    done = ask("hello", *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("cool (")
    assert done.stdout.rstrip().endswith("you said: hello")
    stage.assert_rotated("hot")


def test_tool_call(stage: Stage, ask: Ask) -> None:
    """The model calls a tool of llm's, and its result comes back."""
    done = ask("[[call=llm_version]] hello", "-T", "llm_version")
    assert done.returncode == 0, done.stderr
    assert "cool (" in done.stdout
    last = stage.bodies()[-1]
    assert '"functionResponse"' in last or '"function_response"' in last  # llm-gemini's spelling
    assert "0.36" in last
    stage.assert_rotated("hot")


def test_tool_call_of_code_assist(stage: Stage, ask: Ask) -> None:
    """The same where only a Code Assist account is left: the plugin's spelling of the fields is no hindrance."""
    stage.refuse("cool")
    done = ask("[[call=llm_version]] hello", "-T", "llm_version")
    assert done.returncode == 0, done.stderr
    assert "alice (" in done.stdout
    assert "0.36" in stage.bodies()[-1]
    stage.assert_rotated("hot", "cool")


def test_cut_stream(stage: Stage, ask: Ask) -> None:
    """A stream that Google breaks off is an error; half an answer is none."""
    rule = stage.cut(times=None)
    done = ask("hello")
    assert rule.hits
    assert done.returncode != 0
    assert "you said: hello" not in done.stdout
