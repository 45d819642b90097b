"""The real gemini-cli, unmodified, as `gemini -p`: with an API key, as a Code Assist user, and for Vertex."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from tests.clients.conftest import MODEL, Stage, assert_noticed, run_client

MODES = {"api-key": "gemini-api-key", "code-assist": "", "vertex": "vertex-ai"}


class Cli:
    """gemini-cli with a home folder of its own."""

    def __init__(self, command: Path, home: Path) -> None:
        self._command = command
        self.home = home
        self._settings = home / ".gemini" / "settings.json"
        self._settings.parent.mkdir(parents=True)

    def ask(self, prompt: str, env: dict[str, str], mode: str = "") -> subprocess.CompletedProcess[str]:
        """`mode`: what the user chose in its settings."""
        if selected := MODES.get(mode):
            chosen = {"security": {"auth": {"selectedType": selected}}}
            self._settings.write_text(json.dumps(chosen), encoding="utf-8")
        # Its router and title calls, which want answers in JSON, stay away when the model is named.
        command = [self._command, "-m", MODEL, "-p", prompt]
        return run_client(command, self.home, {"GEMINI_CLI_TRUST_WORKSPACE": "true", **env})


@pytest.fixture
def cli(gemini_cli: Path, tmp_path: Path) -> Cli:
    return Cli(gemini_cli, tmp_path / "home")


def settings(stage: Stage, mode: str) -> dict[str, str]:
    """One set serves whoever uses Google's login or a key; Vertex has its own."""
    return stage.settings("vertex" if mode == "vertex" else "gemini-cli")


def assert_answered(done: subprocess.CompletedProcess[str], account: str) -> None:
    """Exit 0, the fake's text of that account, and no error on the way."""
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{account} ("), done.stdout
    assert f"{MODEL} — you said:" in done.stdout
    for word in ("429", "Attempt", "ApiError", "exhausted", "Retry"):
        assert word not in done.stderr, done.stderr


@pytest.mark.parametrize("mode", MODES)
def test_prompt(stage: Stage, cli: Cli, mode: str) -> None:
    """The refusal is absorbed, gemini-cli streams one good answer; any account may stand behind any mode."""
    done = cli.ask("what is up", settings(stage, mode), mode)
    assert_answered(done, "cool")
    stage.assert_rotated("hot")
    assert not stage.google.record.count("stream", backend="ca")
    (sent,) = stage.google.record.find("stream", status=200)
    assert "x-gemini-api-privileged-user-id" not in sent.headers
    assert stage.daemon.key not in str(sent.headers)


@pytest.mark.parametrize("mode", MODES)
def test_tool_call(stage: Stage, cli: Cli, mode: str) -> None:
    """The model's call reaches gemini-cli, and what it has to say about it reaches the model."""
    done = cli.ask("[[call=list_directory]] look", settings(stage, mode), mode)
    assert done.returncode == 0, done.stderr
    assert "list_directory" in done.stderr  # its arguments were none, and gemini-cli says so
    stage.assert_rotated("hot")
    last = stage.bodies()[-1]
    assert '"functionCall"' in last
    assert '"functionResponse"' in last
    assert "thoughtSignature" in last


@pytest.mark.parametrize("mode", MODES)
def test_cut_stream(stage: Stage, cli: Cli, mode: str) -> None:
    """A stream that Google breaks off is never shown as an answer."""
    rule = stage.cut()
    done = cli.ask("what is up", settings(stage, mode), mode)
    assert_noticed(done, rule, "what is up")


@pytest.mark.parametrize("mode", ["api-key", "code-assist"])
def test_code_assist_account(stage: Stage, cli: Cli, mode: str) -> None:
    """Both keys refuse: the Code Assist account serves, in either mode."""
    stage.refuse("cool")
    assert_answered(cli.ask("what is up", settings(stage, mode), mode), "alice")
    stage.assert_rotated("hot", "cool")
    assert stage.google.record.count("stream", backend="ca", status=200) == 1


def test_its_files(stage: Stage, cli: Cli) -> None:
    """`env gemini-cli --write` is enough: no variable is set, another choice of the user's comes back with `--undo`."""
    file = cli.home / ".gemini" / "settings.json"
    before = '{\n  // mine\n  "security": {"auth": {"selectedType": "oauth-personal"}}\n}\n'
    file.write_text(before)
    stage.files("gemini-cli", "--write", cli.home)
    assert_answered(cli.ask("what is up", {}), "cool")
    stage.assert_rotated("hot")
    stage.files("gemini-cli", "--undo", cli.home)
    assert file.read_text() == before
    assert not (cli.home / ".gemini" / ".env").exists()
