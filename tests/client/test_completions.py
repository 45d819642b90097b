"""Completion scripts, in the shells themselves: a real bash always, fish and zsh where they are installed."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.fakes.daemon import DaemonProcess, api_key_account

from gemini_pool import completions
from gemini_pool.cli import build_parser

BASH = """
source {script}
COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_gemini_pool
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def complete(tmp_path: Path, line: str, *, env: dict[str, str] | None = None) -> list[str]:
    """What bash offers at the end of `line`; a trailing space begins a new word."""
    script = tmp_path / "completion.bash"
    script.write_text(completions.bash(build_parser()))
    words = shlex.split(line) + ([""] if line.endswith(" ") else [])
    text = BASH.format(script=shlex.quote(str(script)), words=" ".join(map(shlex.quote, words)))
    done = subprocess.run(["bash", "--norc", "-c", text], capture_output=True, text=True, env=env, check=True)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("gemini-pool sta", ["status"]),
        ("gemini-pool service ", ["install", "uninstall", "status", "print"]),
        ("gemini-pool account cl", ["clear-cooldown"]),
        ("gemini-pool env gem", ["gemini-cli"]),
        ("gemini-pool --socket /x quota --ref", ["--refresh"]),
        ("gemini-pool account add --backend ve", ["vertex"]),
        ("gemini-pool completions z", ["zsh"]),
    ],
)
def test_bash_offers_what_the_grammar_has(tmp_path: Path, line: str, offered: list[str]) -> None:
    """Verbs, their verbs, options and choices, also behind options with values."""
    found = complete(tmp_path, line)
    assert [word for word in found if not word.startswith("-h") and word != "--help"] == offered


def test_bash_offers_the_accounts_of_the_daemon(tmp_path: Path) -> None:
    """Ids come from the daemon that runs; without one there are none, and no complaint."""
    command = tmp_path / "gemini-pool"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m gemini_pool.cli "$@"\n')
    command.chmod(0o755)
    daemon = DaemonProcess(tmp_path / "d", accounts=api_key_account("work-a") + api_key_account("home-b"))
    assert "work-a" not in complete(tmp_path, f"{command} token ", env=daemon.env)
    with daemon:
        assert complete(tmp_path, f"{command} token w", env=daemon.env) == ["work-a"]
        assert complete(tmp_path, f"{command} account disable h", env=daemon.env) == ["home-b"]


def test_every_verb_is_in_every_script() -> None:
    """A new verb needs no edit here."""
    parser = build_parser()
    top = next(iter(completions.places(parser)))
    assert "doctor" in top.verbs
    for script in (completions.bash(parser), completions.zsh(parser), completions.fish(parser)):
        assert not [name for name in top.verbs if name not in script]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_read_their_script(tmp_path: Path, shell: str) -> None:
    """The script parses; fish also offers."""
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    script = tmp_path / "script"
    script.write_text(getattr(completions, shell)(build_parser()))
    done = subprocess.run([shell, "-n", str(script)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    if shell == "fish":
        text = f"source {script}; complete -C 'gemini-pool account en'"
        line = ["fish", "--no-config", "-c", text]
        done = subprocess.run(
            line, capture_output=True, text=True, env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
        )
        assert [row.split("\t")[0] for row in done.stdout.splitlines()] == ["enable"]
