"""`gemini-pool completions SHELL`: scripts for bash, zsh and fish, made from the command's own grammar.

The scripts carry verbs, options and fixed choices. Account ids and models are asked of the daemon at the time, by
`gemini-pool completions --list accounts|models`, which says nothing when no daemon answers.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator
from typing import NamedTuple

SHELLS = ("bash", "zsh", "fish")
LISTS = ("accounts", "models")
_ACCOUNT, _MODEL = frozenset({"account", "accounts"}), frozenset({"model"})


class Place(NamedTuple):
    """One point of the grammar: the verbs that lead there, and what may come next."""

    path: tuple[str, ...]
    verbs: dict[str, str]
    flags: dict[str, str]
    values: dict[str, tuple[str, ...]]  # of an option that takes one: its choices, () where anything goes
    words: tuple[str, ...]  # choices of positional arguments
    lists: tuple[str, ...]  # LISTS that fill positional arguments


def places(parser: argparse.ArgumentParser, path: tuple[str, ...] = ()) -> Iterator[Place]:
    """Every point of a parser's grammar, the top first."""
    verbs: dict[str, str] = {}
    flags: dict[str, str] = {}
    values: dict[str, tuple[str, ...]] = {}
    words: list[str] = []
    lists: list[str] = []
    inner = []
    for action in parser._actions:  # noqa: SLF001  (argparse has no other way to look into a parser)
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            texts = {choice.dest: choice.help or "" for choice in action._choices_actions}  # noqa: SLF001
            verbs = {name: texts.get(name, "") for name in action.choices}
            inner = list(action.choices.items())
        elif action.help == argparse.SUPPRESS:
            continue
        elif action.option_strings:
            flags |= dict.fromkeys(action.option_strings, action.help or "")
            if action.nargs != 0:
                choices = tuple(map(str, action.choices or ()))
                values |= dict.fromkeys(action.option_strings, choices)
        elif action.choices:
            words += map(str, action.choices)
        else:
            lists += ["accounts"] * (action.dest in _ACCOUNT) + ["models"] * (action.dest in _MODEL)
    yield Place(path, verbs, flags, values, tuple(words), tuple(lists))
    for name, sub in inner:
        yield from places(sub, (*path, name))


def main(options: argparse.Namespace) -> int:
    if options.list:
        print("\n".join(_listed(options.list, options.socket)))
        return 0
    from gemini_pool.cli import build_parser

    print({"bash": bash, "zsh": zsh, "fish": fish}[options.shell or "bash"](build_parser()))
    return 0


def _listed(what: str, socket: str | None) -> list[str]:
    """Ids or models of a daemon that answers at once; nothing otherwise."""
    from gemini_pool._sync import Pool
    from gemini_pool.errors import PoolError

    try:
        with Pool(socket, name="gemini-pool", connect_s=0.0, timeout_s=1.0) as pool:
            if what == "accounts":
                return [one.id for one in pool.accounts()]
            status = pool.status()
    except PoolError:
        return []
    used = {model for one in status.accounts for model in one.models}
    return sorted(used | {entry.model for entry in status.quota if entry.model})


def bash(parser: argparse.ArgumentParser) -> str:
    """A function over the words before the cursor; needs no bash-completion package."""
    cases, values = [], []
    for place in places(parser):
        key = " ".join(place.path)
        offered = " ".join([*place.verbs, *place.words, *place.flags])
        dynamic = "".join(f" $(_gemini_pool_list {name})" for name in place.lists)
        cases.append(f'        "{key}") words="{offered}{dynamic}" ;;')
        for flag, choices in place.values.items():
            given = " ".join(choices)
            if flag == "--account":
                given = "$(_gemini_pool_list accounts)"
            elif flag == "--model":
                given = "$(_gemini_pool_list models)"
            if given:
                values.append(f'        "{key} {flag}") words="{given}" ;;')
            else:
                values.append(f'        "{key} {flag}") COMPREPLY=($(compgen -f -- "$cur")); return ;;')
    paths = " ".join(shlex.quote(" ".join(place.path)) for place in places(parser) if place.path)
    return _BASH.format(paths=paths, cases="\n".join(cases), values="\n".join(values))


_BASH = """# bash completion of gemini-pool; `source <(gemini-pool completions bash)`
_gemini_pool_list() {{ "${{COMP_WORDS[0]}}" completions --list "$1" 2>/dev/null; }}
_gemini_pool() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} path= words= i known
    for ((i = 1; i < COMP_CWORD; i++)); do
        for known in {paths}; do
            [ "$known" = "${{path:+$path }}${{COMP_WORDS[i]}}" ] && path=$known && break
        done
    done
    COMPREPLY=()
    case "$path $prev" in
{values}
    esac
    if [ -z "$words" ]; then
        case "$path" in
{cases}
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
}}
complete -F _gemini_pool gemini-pool"""


def zsh(parser: argparse.ArgumentParser) -> str:
    """zsh runs the bash function; its own syntax would say the same a second time."""
    return "#compdef gemini-pool\nautoload -U +X bashcompinit && bashcompinit\n" + bash(parser)


def fish(parser: argparse.ArgumentParser) -> str:
    """One `complete` for each verb and option."""
    lines = ["# fish completion of gemini-pool", "complete -c gemini-pool -f"]
    for place in places(parser):
        siblings = " ".join(place.verbs)
        seen = " ".join(place.path[-1:])
        here = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in place.path)
        if place.verbs:
            none = f"not __fish_seen_subcommand_from {siblings}"
            when = f"{here}; and {none}" if here else none
            for name, text in place.verbs.items():
                lines.append(f"complete -c gemini-pool -n {_q(when)} -a {name} -d {_q(text)}")
        condition = f"-n {_q(here)} " if seen else ""
        asked = [f"'(gemini-pool completions --list {name})'" for name in place.lists]
        lines += [f"complete -c gemini-pool {condition}-a {word}" for word in (*place.words, *asked)]
        for flag, text in place.flags.items():
            kind = f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}"
            takes = ""
            if flag in place.values:
                choices = place.values[flag]
                takes = f" -x -a {_q(' '.join(choices))}" if choices else " -r -F"
            lines.append(f"complete -c gemini-pool {condition}{kind}{takes} -d {_q(text)}")
    return "\n".join(lines)


def _q(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
