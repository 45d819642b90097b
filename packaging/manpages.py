"""Writes the manual pages, gemini-pool.1 and one for each verb, made from the command's own grammar.

    python packaging/manpages.py FOLDER

Nothing but the client package is needed. The date is SOURCE_DATE_EPOCH's where that is set, so that builds repeat.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "client" / "python"))

from gemini_pool import wire
from gemini_pool.cli import build_parser

FILES = (
    ("~/.config/gemini-pool/config.toml", "settings; all optional"),
    ("~/.config/gemini-pool/accounts.toml", "the accounts; a saved edit takes effect within a second"),
    ("~/.local/state/gemini-pool/", "state and secrets, private"),
    ("$XDG_RUNTIME_DIR/gemini-pool/pool.sock", "the RPC socket"),
)
VARIABLES = (
    ("GEMINI_POOL_CONFIG_DIR", "another folder for the configuration"),
    ("GEMINI_POOL_STATE_DIR", "another folder for state and secrets"),
    ("GEMINI_POOL_SOCKET", "another RPC socket"),
    ("NO_COLOR", "no colours"),
)


def pages() -> Iterator[tuple[str, str]]:
    """Name and roff of each page."""
    parser = build_parser()
    verbs = _verbs(parser)
    body = [
        *_synopsis(parser),
        ".SH DESCRIPTION",
        _text(parser.description or ""),
        ".SH OPTIONS",
        *_options(parser),
    ]
    body.append(".SH VERBS")
    for name, (_, text) in verbs.items():
        body += [".TP", f".BR gemini\\-pool\\-{_text(name)} (1)", _text(text)]
    body += [".SH EXIT STATUS", _text((parser.epilog or "").removeprefix("exit codes: ")), ".SH FILES"]
    body += [line for name, text in FILES for line in (".TP", f".I {_text(name)}", _text(text))]
    body += [".SH ENVIRONMENT"]
    body += [line for name, text in VARIABLES for line in (".TP", f".B {_text(name)}", _text(text))]
    yield "gemini-pool.1", _page("gemini-pool", "shares your ways into Gemini with all your tools", body)
    for name, (sub, text) in verbs.items():
        title = f"gemini-pool-{name}"
        body = [
            *_synopsis(sub),
            ".SH DESCRIPTION",
            _text(sub.description or text),
            ".SH OPTIONS",
            *_options(sub),
        ]
        for action, (inner, words) in _verbs(sub).items():
            body += [f".SS {_text(action)}", _text(words), *_options(inner)]
        body += [".SH SEE ALSO", ".BR gemini\\-pool (1)"]
        yield f"{title}.1", _page(title, text, body)


def _verbs(parser: argparse.ArgumentParser) -> dict[str, tuple[argparse.ArgumentParser, str]]:
    for action in parser._actions:  # noqa: SLF001  (argparse has no other way to look into a parser)
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            texts = {choice.dest: choice.help or "" for choice in action._choices_actions}  # noqa: SLF001
            return {name: (sub, texts.get(name, "")) for name, sub in action.choices.items()}
    return {}


def _synopsis(parser: argparse.ArgumentParser) -> list[str]:
    usage = " ".join(parser.format_usage().split()).removeprefix("usage: ")
    name = parser.prog
    return [".SH SYNOPSIS", f".B {_text(name)}", _text(usage.removeprefix(name).strip())]


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:  # noqa: SLF001
        if isinstance(action, argparse._SubParsersAction) or action.help == argparse.SUPPRESS:  # noqa: SLF001
            continue
        value = action.metavar or (
            "{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.dest
        )
        value = value if isinstance(value, str) else " ".join(value)
        if not action.option_strings:
            yield from (".TP", f".I {_text(value)}", _text(_help(action)))
        else:
            names = ", ".join(action.option_strings) + ("" if action.nargs == 0 else f" {value}")
            yield from (".TP", f".B {_text(names)}", _text(_help(action)))


def _help(action: argparse.Action) -> str:
    """argparse's own escape, as it would print it."""
    return (action.help or "").replace("%%", "%") or "\\&"


def _page(name: str, text: str, body: list[str]) -> str:
    epoch = float(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
    day = time.strftime("%Y-%m-%d", time.gmtime(epoch))
    head = f'.TH {_text(name).upper()} 1 "{day}" "gemini-pool {wire.VERSION}" "User Commands"'
    return "\n".join([head, ".SH NAME", f"{_text(name)} \\- {_text(text)}", *body, ""])


def _text(text: str) -> str:
    """Plain words for roff: its escapes and a leading dot are themselves; non-ASCII by name."""
    if text == "\\&":
        return text
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("…", "...")
    text = "".join(char if char.isascii() else f"\\[u{ord(char):04X}]" for char in text)
    return "\\&" + text if text[:1] in (".", "'") else text


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages():
        (folder / name).write_text(text, encoding="ascii")
    return 0


if __name__ == "__main__":
    sys.exit(main())
