"""The real gemini-cli, unmodified, as `gemini -p`: with an API key, as a Code Assist user, and for Vertex."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from tests.clients.conftest import CONFIG, MODEL, Stage, assert_noticed, run_client, staged

from gemini_poold.fake import Fault, Match

MODES = {"api-key": "gemini-api-key", "code-assist": "", "vertex": "vertex-ai"}


class Cli:
    """gemini-cli with a home folder of its own."""

    def __init__(self, command: Path, home: Path) -> None:
        self._command = command
        self.home = home
        self._settings = home / ".gemini" / "settings.json"
        self._settings.parent.mkdir(parents=True)

    def ask(
        self, prompt: str, env: dict[str, str], mode: str = "", *options: str
    ) -> subprocess.CompletedProcess[str]:
        """`mode`: what the user chose in its settings."""
        if selected := MODES.get(mode):
            chosen = {"security": {"auth": {"selectedType": selected}}}
            self._settings.write_text(json.dumps(chosen), encoding="utf-8")
        # Its router and title calls, which want answers in JSON, stay away when the model is named.
        command = [self._command, *(options or ("-m", MODEL)), "-p", prompt]
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
def test_stream(stage: Stage, cli: Cli, mode: str) -> None:
    """Each piece of the answer as it comes, and the end of it, in gemini-cli's own stream of events."""
    done = cli.ask("what is up", settings(stage, mode), mode, "-m", MODEL, "-o", "stream-json")
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    pieces = [each["content"] for each in events if each["type"] == "message" and each["role"] == "assistant"]
    assert len(pieces) > 1
    assert f"{MODEL} — you said:" in "".join(pieces)
    assert (events[-1]["type"], events[-1]["status"]) == ("result", "success")
    stage.assert_rotated("hot")


@pytest.mark.parametrize("mode", MODES)
def test_no_model_named(stage: Stage, cli: Cli, mode: str) -> None:
    """gemini-cli first asks another model, whole and in JSON, which one to take; then the answer comes from that."""
    part = {
        "text": json.dumps(
            {
                "reasoning": "short",
                "complexity_reasoning": "x",
                "complexity_score": 5,
                "model_choice": "flash",
            }
        )
    }
    chosen = {"candidates": [{"content": {"role": "model", "parts": [part]}, "finishReason": "STOP"}]}
    asked = Match(kind="generate", credential="cool")
    rule = stage.google.faults.add(Fault.status(200, body=chosen), when=asked, times=None)
    done = cli.ask("what is up", settings(stage, mode), mode, "-o", "text")
    assert done.returncode == 0, done.stderr
    assert "you said:" in done.stdout
    assert rule.hits == 1
    stage.assert_rotated("hot")


def test_machine_credentials(tmp_path: Path, cli: Cli) -> None:
    """A Code Assist user without any login: the token is the metadata server's, and opens the gateway."""
    config = CONFIG.replace("[gateway]", '[gateway]\nmetadata_account = "work"')
    with staged(tmp_path, config=config) as stage:
        env = stage.settings("metadata")
        env |= {
            "GEMINI_CLI_USE_COMPUTE_ADC": "true",
            "GOOGLE_GENAI_USE_GCA": "true",
            "CODE_ASSIST_ENDPOINT": stage.url,
        }
        assert_answered(cli.ask("what is up", env), "cool")
        stage.assert_rotated("hot")


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
