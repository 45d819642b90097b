"""The real gemini-cli, unmodified, as `gemini -p`: with an API key, and as a Code Assist user."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from tests.clients.conftest import MODEL, Stage

KEY_SETTINGS = {"security": {"auth": {"selectedType": "gemini-api-key"}}}


class Cli:
    """gemini-cli with a home folder of its own."""

    def __init__(self, command: Path, home: Path) -> None:
        self._command = command
        self._home = home
        (home / ".gemini").mkdir(parents=True)

    def ask(
        self, prompt: str, env: dict[str, str], settings: object = None
    ) -> subprocess.CompletedProcess[str]:
        if settings is not None:
            (self._home / ".gemini" / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
        # Its router and title calls, which want answers in JSON, stay away when the model is named.
        return subprocess.run(
            [str(self._command), "-m", MODEL, "-p", prompt],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self._home),
                "NO_COLOR": "1",
                "GEMINI_CLI_TRUST_WORKSPACE": "true",
                **env,
            },
            cwd=self._home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@pytest.fixture
def cli(gemini_cli: Path, tmp_path: Path) -> Cli:
    return Cli(gemini_cli, tmp_path / "home")


def key_mode(stage: Stage) -> dict[str, str]:
    return {"GEMINI_API_KEY": stage.daemon.key, "GOOGLE_GEMINI_BASE_URL": stage.url}


def code_assist_mode(stage: Stage) -> dict[str, str]:
    return {
        "GOOGLE_GENAI_USE_GCA": "true",
        "GOOGLE_CLOUD_ACCESS_TOKEN": stage.daemon.key,
        "CODE_ASSIST_ENDPOINT": stage.url,
    }


def assert_answered(done: subprocess.CompletedProcess[str], account: str) -> None:
    """Exit 0, the fake's text of that account, and no error on the way."""
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{account} ("), done.stdout
    assert f"{MODEL} — you said:" in done.stdout
    for word in ("429", "Attempt", "ApiError", "exhausted", "Retry"):
        assert word not in done.stderr, done.stderr


def test_api_key_mode(stage: Stage, cli: Cli) -> None:
    """`GEMINI_API_KEY` and `GOOGLE_GEMINI_BASE_URL`: the refusal is absorbed, gemini-cli sees one good answer."""
    done = cli.ask("what is up", key_mode(stage), KEY_SETTINGS)
    assert_answered(done, "cool")
    stage.assert_rotated("hot")
    (sent,) = stage.google.record.find("stream", status=200)
    assert "x-gemini-api-privileged-user-id" not in sent.headers
    assert stage.daemon.key not in str(sent.headers)


def test_code_assist_mode(stage: Stage, cli: Cli) -> None:
    """`CODE_ASSIST_ENDPOINT`: set-up is answered here, and a Developer API account serves the request."""
    done = cli.ask("what is up", code_assist_mode(stage))
    assert_answered(done, "cool")
    stage.assert_rotated("hot")
    assert not stage.google.record.count("stream", backend="ca")


def test_vertex_mode(stage: Stage, cli: Cli) -> None:
    """`GOOGLE_VERTEX_BASE_URL` with a key: Vertex's form in, any account behind it."""
    env = {
        "GOOGLE_GENAI_USE_VERTEXAI": "true",
        "GOOGLE_API_KEY": stage.daemon.key,
        "GOOGLE_VERTEX_BASE_URL": stage.url,
    }
    done = cli.ask("what is up", env, {"security": {"auth": {"selectedType": "vertex-ai"}}})
    assert_answered(done, "cool")
    stage.assert_rotated("hot")


def test_code_assist_account(stage: Stage, cli: Cli) -> None:
    """Both keys refuse: the Code Assist account serves, in either mode."""
    stage.refuse("cool")
    assert_answered(cli.ask("what is up", code_assist_mode(stage)), "alice")
    stage.assert_rotated("hot", "cool")
    assert_answered(cli.ask("and now", key_mode(stage), KEY_SETTINGS), "alice")
    assert stage.google.record.count("stream", backend="ca", status=200) == 2
