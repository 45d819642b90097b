"""`gemini-pool config show|check`: what the files say, read exactly as the daemon would read them. Starts nothing."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from gemini_pool.paths import Places, places

from . import config as config_module
from .accounts.doubts import doubts
from .accounts.store import AccountsFile
from .errors import ConfigInvalid

EXIT_INVALID = 78
_URL_LOGIN = re.compile(r"(?<=://)[^/@\s]+(?=@)")


def main(action: str, *, as_json: bool) -> int:
    """Run one action for this user's places; its exit code."""
    where = places()
    return _show(where, as_json=as_json) if action == "show" else _check(where, as_json=as_json)


def _show(where: Places, *, as_json: bool) -> int:
    document = config_module.as_document(config_module.load(where.config_file))
    for table in document.values():  # a proxy's password is nobody's to read over a shoulder
        table.update({key: _URL_LOGIN.sub("***", v) for key, v in table.items() if isinstance(v, str)})
    if as_json:
        _print_json(document)
        return 0
    print(f"# {where.config_file}{'' if where.config_file.exists() else ' (not there: all defaults)'}")
    for line in _toml(document):
        print(line)
    return 0


def _check(where: Places, *, as_json: bool) -> int:
    errors = [*_errors_of_config(where.config_file), *_errors_of_accounts(where.accounts_file)]
    warnings = [] if errors else _doubts(where)
    if as_json:
        _print_json([
            *({"file": e.file, "line": e.line, "column": e.column, "message": e.problem, "hint": e.hint} for e in errors),
            *({"file": str(where.config_file), "line": 0, "column": 0, "message": each, "hint": "", "warning": True} for each in warnings),
        ])  # fmt: skip
    else:
        for error in errors:
            print(f"gemini-pool: {error.message}", file=sys.stderr)
            if error.hint:
                print(f"  hint: {error.hint}", file=sys.stderr)
        for each in warnings:
            print(f"gemini-pool: warning: {each}", file=sys.stderr)
        if not errors:
            print(f"fine: {where.config_file}, {where.accounts_file}")
    return EXIT_INVALID if errors else 0


def _errors_of_config(path: Path) -> list[ConfigInvalid]:
    try:
        if ca_file := config_module.load(path).network.ca_file:
            from .transport import ssl_context  # slow to import, and seldom needed

            ssl_context(ca_file)
    except ConfigInvalid as error:
        return list(error.all_errors)
    return []


def _errors_of_accounts(path: Path) -> list[ConfigInvalid]:
    try:
        AccountsFile(path).read()
    except ConfigInvalid as error:
        return list(error.all_errors)
    return []


def _doubts(where: Places) -> list[str]:
    return doubts(config_module.load(where.config_file), AccountsFile(where.accounts_file).read().entries)


def _print_json(value: object) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value)).decode() + "\n")


def _toml(document: Any) -> Iterator[str]:
    """The sections as TOML. Values are of the few shapes that the configuration has."""
    for section, table in document.items():
        yield f"\n[{section}]"
        for key, value in table.items():
            yield f"{key} = {_value(value)}"


def _value(value: object) -> str:
    if isinstance(value, dict):
        return (
            "{ " + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + " }" if value else "{}"
        )
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    return msgspec.json.encode(value).decode()  # strings, numbers and booleans are written as in JSON


def _key(key: str) -> str:
    return key if key.replace("-", "").replace("_", "").isalnum() else msgspec.json.encode(key).decode()
