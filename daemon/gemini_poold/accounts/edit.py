"""Edits of the accounts file that leave everything else as its owner wrote it: comments, order, blank lines.

Text in, text out; `apply` is the one function that touches the disk. tomlkit exchanges the values of keys that are
there. Where a new key or account goes, and which comment goes with a removed account, is decided on the lines: a
comment that stands right above an `[[account]]` belongs to it, which tomlkit sees the other way round. Whatever way an
edit was made, the result is parsed again and must say exactly what was meant, or nothing is written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from gemini_poold import tomlfile
from gemini_poold.errors import ConfigInvalid, PoolError

from .schema import AccountEntry, parse
from .store import AccountsFile, Loaded

ATTEMPTS = 5  # how often an edit is made anew because somebody else saved the file meanwhile
FILE = "accounts.toml"
ORDER = ("id", "backend", "credential")

Change = Callable[[str], str]


def apply(file: AccountsFile, change: Change) -> Loaded:
    """Read, change, replace; again when somebody else saved the file in between. Blocks.

    Raises `ConfigInvalid` when the file does not read well as it is (then nothing is changed), what `change` raises,
    and PoolError when the file cannot be written.
    """
    for attempt in range(1, ATTEMPTS + 1):
        before = file.read()
        text = change(before.text)
        if text == before.text:
            return before
        try:
            return file.replace(text, expected=before.digest)
        except ConfigInvalid:
            raise
        except PoolError:
            if attempt == ATTEMPTS or file.read().digest == before.digest:
                raise
    raise AssertionError("unreachable")


def add(text: str, entry: AccountEntry) -> str:
    """`entry` as the file's last account. Raises PoolError "bad_request" when its id is taken."""
    before = parse(text, FILE)
    if any(each.id == entry.id for each in before):
        raise PoolError("bad_request", f"there is an account {entry.id!r} already", account=entry.id)
    listed = _inline_list(text)
    after = _appended(text, entry) if listed is None else _listed(listed, entry)
    return _checked(after, [*before, entry])


def remove(text: str, account_id: str) -> str:
    """The file without that account and the comment right above it. Raises PoolError "not_found"."""
    before = parse(text, FILE)
    index = _index(before, account_id)
    document = _inline_list(text)
    if document is None:
        after = _cut(text, index)
    else:
        del document["account"][index]
        after = document.as_string()
    return _checked(after, [each for each in before if each.id != account_id])


def set_keys(text: str, account_id: str, changes: Mapping[str, Any]) -> str:
    """The file with these keys of the account set; None takes a key out. Keys that are equal already stay untouched.

    Values are plain (texts, numbers, lists, tables as dicts). Raises PoolError "not_found", and "bad_request" for what
    the file's rules forbid.
    """
    before = parse(text, FILE)
    index = _index(before, account_id)
    old = msgspec.to_builtins(before[index])
    wanted = {key: value for key, value in changes.items() if old.get(key) != value}
    new = {key: value for key, value in (old | wanted).items() if value is not None}
    try:
        expected = msgspec.convert(new, AccountEntry)
    except msgspec.ValidationError as error:
        raise PoolError("bad_request", f"account {account_id}: {error}", account=account_id) from None
    if expected == before[index]:
        return text
    for key, value in wanted.items():
        text = _set(text, index, key, value)
    return _checked(text, [*before[:index], expected, *before[index + 1 :]])


def render(entry: AccountEntry) -> str:
    """The entry as an `[[account]]` table, one key a line, what is default left out."""
    return "".join(["[[account]]\n", *(f"{key} = {_toml(value)}\n" for key, value in _plain(entry).items())])


# ---- inside -----------------------------------------------------------------------------------------------------


def _plain(entry: AccountEntry) -> dict[str, Any]:
    values: dict[str, Any] = msgspec.to_builtins(entry)
    first = {key: values.pop(key) for key in ORDER}
    return first | values


def _index(entries: list[AccountEntry], account_id: str) -> int:
    for index, entry in enumerate(entries):
        if entry.id == account_id:
            return index
    raise PoolError("not_found", f"there is no account {account_id!r}", hint="gemini-pool account list")


def _checked(text: str, expected: list[AccountEntry]) -> str:
    """`text`, if it says exactly what was meant."""
    try:
        fine = parse(text, FILE) == expected
    except ConfigInvalid:
        fine = False
    if not fine:
        hint = "it is written in a way that only a person can edit"
        raise PoolError("config_invalid", "the accounts file cannot be edited here", hint=hint)
    return text


def _document(text: str) -> Any:
    """tomlkit's document of a valid text. The library is loaded at the first edit, not at every start."""
    import tomlkit

    return tomlkit.parse(text)


def _inline_list(text: str) -> Any:
    """The document when its accounts are written as `account = [{…}, …]`, else None."""
    from tomlkit.items import Array

    document = _document(text)
    return document if isinstance(document.get("account"), Array) else None


def _listed(document: Any, entry: AccountEntry) -> str:
    document["account"].append(_item(_plain(entry)))
    return str(document.as_string())


def _appended(text: str, entry: AccountEntry) -> str:
    end = _newline(text)
    gap = ""
    if text and not text.endswith("\n"):
        gap = end
    if text.strip():
        gap += end
    return text + gap + render(entry).replace("\n", end)


def _cut(text: str, index: int) -> str:
    lines = _lines(text)
    starts = _headers(text)
    start = _with_comment(lines, starts[index])
    if index == 0 and start == 0:
        start = starts[0]  # what the file begins with may be about all of it
    end = _with_comment(lines, starts[index + 1]) if index + 1 < len(starts) else _last_words(lines)
    if end == len(lines):  # the blank lines that parted it from the others part nothing any more
        while start > 0 and not lines[start - 1].strip():
            start -= 1
    return "".join([*lines[:start], *lines[end:]])


def _headers(text: str) -> list[int]:
    """The line (from 0) of every `[[account]]`."""
    places = tomlfile.places(text)
    found: list[int] = []
    while (place := places.get(("account", len(found)))) is not None:
        found.append(place.line - 1)
    return found


def _with_comment(lines: list[str], header: int) -> int:
    """Where the comment right above a header begins; the header itself when there is none."""
    while header > 0 and lines[header - 1].lstrip().startswith("#"):
        header -= 1
    return header


def _last_words(lines: list[str]) -> int:
    """Where the comments begin that end the file after a blank line: they are not the last account's."""
    at = len(lines)
    while at > 0 and (not lines[at - 1].strip() or lines[at - 1].lstrip().startswith("#")):
        at -= 1
    while at < len(lines) and lines[at].lstrip().startswith("#"):
        at += 1
    return at


def _set(text: str, index: int, key: str, value: Any) -> str:
    document = _document(text)
    table = document["account"][index]
    if value is None:
        table.pop(key, None)
    elif key in table or _inline_list(text) is not None:
        table[key] = _item(value)
    else:
        return _inserted(text, index, f"{key} = {_toml(value)}")
    return str(document.as_string())


def _inserted(text: str, index: int, line: str) -> str:
    """`line` after the last key of the account's own table: before its sub-tables, blank lines and comments."""
    lines = _lines(text)
    header = _headers(text)[index]
    at = next((n for n in range(header + 1, len(lines)) if lines[n].lstrip().startswith("[")), len(lines))
    while not lines[at - 1].strip() or lines[at - 1].lstrip().startswith("#"):
        at -= 1
    end = _newline(text)
    if not lines[at - 1].endswith("\n"):
        lines[at - 1] += end
    return "".join([*lines[:at], line + end, *lines[at:]])


def _lines(text: str) -> list[str]:
    """Lines with their ends. TOML has no others than LF and CRLF, unlike `splitlines`."""
    return [line for line in re.split(r"(?<=\n)", text) if line]


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _item(value: Any) -> Any:
    """A value for tomlkit, in the spelling of `_toml`."""
    return _document(f"value = {_toml(value)}\n")["value"]


def _toml(value: Any) -> str:
    """A plain value on one line."""
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{key} = {_toml(each)}" for key, each in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml(each) for each in value)}]"
    from tomlkit import item

    return str(item(value).as_string())
