"""How a service manager starts this installation: words that stay right when Python or the tool's folder is replaced.

pipx and `uv tool` keep a link in ~/.local/bin, a distribution one in /usr/bin; a venv has its script. Where there is
none of these (a source tree), it is `python -m gemini_pool.cli` with the path that made it importable.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from gemini_pool.errors import PoolError

NAME = "gemini-pool"


class Command(NamedTuple):
    """`words` to run, without the verb; `environ` what must be set for them; `kind` for people."""

    words: tuple[str, ...]
    environ: Mapping[str, str]
    kind: str


def this_installation(
    environ: Mapping[str, str] | None = None, *, prefix: str = sys.prefix, python: str = sys.executable
) -> Command:
    """The command for a unit. Raises `PoolError` when this installation may be gone tomorrow."""
    environ = os.environ if environ is None else environ
    home = Path(environ.get("HOME") or Path.home())
    _refuse_a_cache(Path(prefix), home, environ)
    script = Path(prefix) / "bin" / NAME
    if not script.exists():
        kept = environ.get("PYTHONPATH", "")
        return Command((python, "-m", "gemini_pool.cli"), {"PYTHONPATH": kept} if kept else {}, "source")
    folders = [
        environ.get("PIPX_BIN_DIR", ""),
        environ.get("UV_TOOL_BIN_DIR", ""),
        environ.get("XDG_BIN_HOME", ""),
    ]
    folders += [str(home / ".local" / "bin"), "/usr/bin", "/usr/local/bin", "/opt/homebrew/bin"]
    for folder in folders:
        link = Path(folder) / NAME
        if folder and link != script and link.is_symlink() and _same(link, script):
            return Command((str(link),), {}, _kind(prefix))
    return Command((str(script),), {}, _kind(prefix))


def _kind(prefix: str) -> str:
    if "/pipx/" in prefix:
        return "pipx"
    if "/uv/tools/" in prefix:
        return "uv tool"
    if prefix.startswith("/usr"):
        return "distribution"
    return "venv"


def _refuse_a_cache(prefix: Path, home: Path, environ: Mapping[str, str]) -> None:
    """`uvx` and `pipx run` unpack into caches, which are swept."""
    caches = [
        home / ".cache",
        Path(environ.get("XDG_CACHE_HOME") or home / ".cache"),
        home / "Library" / "Caches",
    ]
    if any(prefix.is_relative_to(cache) for cache in caches) or "/pipx/.cache/" in str(prefix):
        raise PoolError(
            "bad_request",
            f"this gemini-pool runs from a cache that is emptied now and then: {prefix}",
            hint="install it to stay: `pipx install gemini-pool` or `uv tool install gemini-pool`",
        )


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def unit_words(words: Sequence[str]) -> str:
    """The words for an Exec line of a unit: quoted, with systemd's own `%` and `$` as themselves."""
    return " ".join(_unit_word(word) for word in words)


def _unit_word(word: str) -> str:
    text = word.replace("%", "%%").replace("$", "$$")
    if text and not set(text) & set(" \t\"'\\;"):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
