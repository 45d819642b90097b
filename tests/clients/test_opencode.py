"""The real opencode, unmodified, as `opencode run`, set by a variable and by its own file; and with its OpenAI provider."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from tests.clients import installed
from tests.clients.conftest import MODEL, Stage, assert_noticed, run_client

OPENCODE = "opencode-ai@1.18.33"
PROVIDERS = ("google", "pool")


@pytest.fixture(scope="session")
def opencode() -> Path:
    # What its package runs after installing links the binary that came with it; nothing is downloaded.
    then = ["node", "node_modules/opencode-ai/postinstall.mjs"]
    return installed.npm("opencode", OPENCODE, then=then) / "node_modules" / ".bin" / "opencode"


def ask(
    opencode: Path, home: Path, prompt: str, env: dict[str, str] | None = None, provider: str = "google"
) -> subprocess.CompletedProcess[str]:
    # It asks the registry for its plugin SDK at every start; without a network it would try for a minute.
    command = [opencode, "run", "-m", f"{provider}/{MODEL}", prompt]
    return run_client(command, home, {"npm_config_fetch_retries": "0", **(env or {})})


def settings(stage: Stage, provider: str) -> dict[str, str]:
    """`google` as `gemini-pool env` prints it; `pool`: the provider for servers in OpenAI's style that comes with opencode."""
    if provider == "google":
        return stage.settings("opencode")
    openai = stage.settings("openai")
    options = {"baseURL": openai["OPENAI_BASE_URL"], "apiKey": openai["OPENAI_API_KEY"]}
    made = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "pool",
        "options": options,
        "models": {MODEL: {"tool_call": True}},
    }
    return {
        "OPENCODE_CONFIG_CONTENT": json.dumps({"provider": {"pool": made}, "small_model": f"pool/{MODEL}"})
    }


@pytest.mark.parametrize("provider", PROVIDERS)
def test_prompt(stage: Stage, opencode: Path, tmp_path: Path, provider: str) -> None:
    """One good streamed answer, and one for the title that it asks another model for."""
    done = ask(opencode, tmp_path / "home", "hello", settings(stage, provider), provider)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().startswith("cool ("), done.stdout
    assert "hello" in done.stdout
    stage.assert_rotated("hot")
    answers = 1 if provider == "google" else 2  # there the title is the same model's
    assert stage.google.record.count("stream", model=MODEL, status=200) == answers


@pytest.mark.parametrize("provider", PROVIDERS)
def test_tool_call(stage: Stage, opencode: Path, tmp_path: Path, provider: str) -> None:
    """The model's call is carried out, and its result goes back with the signature that came with it."""
    done = ask(opencode, tmp_path / "home", "[[call=glob]] look", settings(stage, provider), provider)
    assert done.returncode == 0, done.stderr
    stage.assert_rotated("hot")
    last = stage.google.record.find("stream", model=MODEL, status=200)[-1].body.decode()
    assert '"functionResponse"' in last
    assert "thoughtSignature" in last


@pytest.mark.parametrize("provider", PROVIDERS)
def test_cut_stream(stage: Stage, opencode: Path, tmp_path: Path, provider: str) -> None:
    """A stream that Google breaks off is asked for again, or told as an error."""
    rule = stage.cut()
    done = ask(opencode, tmp_path / "home", "hello", settings(stage, provider), provider)
    assert_noticed(done, rule, "hello")


def test_its_file(stage: Stage, opencode: Path, tmp_path: Path) -> None:
    """`env opencode --write` is enough, the key stays in its own file, and `--undo` leaves no trace."""
    home = tmp_path / "home"
    stage.files("opencode", "--write", home)
    file = home / ".config" / "opencode" / "opencode.json"
    assert stage.daemon.key not in file.read_text()
    done = ask(opencode, home, "hello")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().startswith("cool ("), done.stdout
    stage.files("opencode", "--undo", home)
    assert not file.exists()
