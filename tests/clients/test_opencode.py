"""The real opencode, unmodified, as `opencode run`, set by a variable and by its own file."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from tests.clients import installed
from tests.clients.conftest import MODEL, Stage, assert_noticed, run_client

OPENCODE = "opencode-ai@1.18.33"


@pytest.fixture(scope="session")
def opencode() -> Path:
    # What its package runs after installing links the binary that came with it; nothing is downloaded.
    then = ["node", "node_modules/opencode-ai/postinstall.mjs"]
    return installed.npm("opencode", OPENCODE, then=then) / "node_modules" / ".bin" / "opencode"


def ask(
    opencode: Path, home: Path, prompt: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    # It asks the registry for its plugin SDK at every start; without a network it would try for a minute.
    command = [opencode, "run", "-m", f"google/{MODEL}", prompt]
    return run_client(command, home, {"npm_config_fetch_retries": "0", **(env or {})})


def test_prompt(stage: Stage, opencode: Path, tmp_path: Path) -> None:
    """One good streamed answer, and one for the title that it asks another model for."""
    done = ask(opencode, tmp_path / "home", "hello", stage.settings("opencode"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().startswith("cool ("), done.stdout
    assert "hello" in done.stdout
    stage.assert_rotated("hot")
    assert stage.google.record.count("stream", model=MODEL, status=200) == 1


def test_tool_call(stage: Stage, opencode: Path, tmp_path: Path) -> None:
    """The model's call is carried out, and its result goes back with the signature that came with it."""
    done = ask(opencode, tmp_path / "home", "[[call=glob]] look", stage.settings("opencode"))
    assert done.returncode == 0, done.stderr
    stage.assert_rotated("hot")
    last = stage.google.record.find("stream", model=MODEL, status=200)[-1].body.decode()
    assert '"functionResponse"' in last
    assert "thoughtSignature" in last


def test_cut_stream(stage: Stage, opencode: Path, tmp_path: Path) -> None:
    """A stream that Google breaks off is asked for again, or told as an error."""
    rule = stage.cut()
    done = ask(opencode, tmp_path / "home", "hello", stage.settings("opencode"))
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
