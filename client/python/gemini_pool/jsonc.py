"""JSON as people keep it in configuration files: with comments and trailing commas, edited without losing either.

`parse` reads; `put` and `drop` change one value and leave every other character as it stands. Knows nothing of files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

_BLANK = re.compile(r"(?:[\s\ufeff]|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"')
_WORD = re.compile(r"[-+.\w]+")
_DEEPEST = 200


class Unreadable(ValueError):
    """No JSON with comments. The message says what was expected, and in which line."""


class _Member(NamedTuple):
    start: int  # of its name
    end: int  # behind its value
    value: _Node


class _Node(NamedTuple):
    start: int
    end: int
    value: Any
    members: dict[str, _Member] | None  # of an object
    comma: int = -1  # where an object's trailing comma stands


def parse(text: str) -> Any:
    """The value of `text`. Raises `Unreadable`."""
    return _parse(text).value


def put(text: str, path: Sequence[str], value: Any) -> str:
    """`text` with the member at `path` set, objects on the way made. `text` may be blank.

    Raises `Unreadable` for what is no JSON, `TypeError` where something on the way is no object.
    """
    if not text.strip("\ufeff \t\r\n"):
        text = "{}\n"
    node, indent = _parse(text), _indent(text)
    for depth, name in enumerate(path):
        if node.members is None:
            raise TypeError(f"{'.'.join(path[:depth]) or 'the file'} is no object")
        member = node.members.get(name)
        if member is None:
            for inner in reversed(path[depth + 1 :]):
                value = {inner: value}
            return _insert(text, node, name, value, indent=indent, depth=depth + 1)
        node = member.value
    if node.value == value and type(node.value) is type(value):
        return text
    return text[: node.start] + _dump(value, indent, len(path)) + text[node.end :]


def drop(text: str, path: Sequence[str]) -> str:
    """`text` without the member at `path`, and without the objects that this leaves empty."""
    node = _parse(text)
    trail: list[tuple[_Node, str]] = []
    for name in path:
        if node.members is None or name not in node.members:
            return text
        trail.append((node, name))
        node = node.members[name].value
    while len(trail) > 1 and len(trail[-1][0].members or ()) == 1:
        trail.pop()
    holder, name = trail[-1]
    members = list((holder.members or {}).items())
    at = next(index for index, (other, _) in enumerate(members) if other == name)
    member = members[at][1]
    if at + 1 < len(members):
        return text[: member.start] + text[members[at + 1][1].start :]
    start = members[at - 1][1].end if at else holder.start + 1
    end = member.end
    if at == 0 and holder.comma >= 0:
        end = holder.comma + 1
    rest = text[end:]
    if not at and rest.lstrip().startswith("}"):
        rest = rest.lstrip()
    return text[:start] + rest


# ---- writing ------------------------------------------------------------------------------------------------------


def _insert(text: str, node: _Node, name: str, value: Any, *, indent: str, depth: int) -> str:
    """A new last member."""
    entry = f"{json.dumps(name)}: {_dump(value, indent, depth)}"
    lead = "\n" + indent * depth
    if not node.members:
        inner = text[node.start + 1 : node.end - 1].rstrip()
        return (
            text[: node.start + 1] + inner + lead + entry + "\n" + indent * (depth - 1) + text[node.end - 1 :]
        )
    last = max(member.end for member in node.members.values())
    if node.comma >= 0:
        # After the comma and whatever is said on its line; the new member ends with one, too.
        at = _line_end(text, node.comma + 1, node.end - 1)
        return text[:at] + lead + entry + "," + text[at:]
    at = _line_end(text, last, node.end - 1)
    closing = "" if "\n" in text[at : node.end] else "\n" + indent * (depth - 1)
    return (
        text[:last]
        + ","
        + text[last:at]
        + lead
        + entry
        + closing
        + text[at:].removeprefix(" " * bool(closing))
    )


def _line_end(text: str, start: int, end: int) -> int:
    """Behind the comment that follows on the same line, else `start`."""
    found = re.compile(r"[ \t]*(?://[^\n]*|/\*[^\n]*?\*/)").match(text, start, end)
    return found.end() if found else start


def _dump(value: Any, indent: str, depth: int) -> str:
    return json.dumps(value, indent=indent, ensure_ascii=False).replace("\n", "\n" + indent * depth)


def _indent(text: str) -> str:
    found = re.search(r"\n([ \t]+)\S", text)
    return found[1] if found else "  "


# ---- reading ------------------------------------------------------------------------------------------------------


def _parse(text: str) -> _Node:
    node = _value(text, _skip(text, 0), 0)
    end = _skip(text, node.end)
    if end != len(text):
        raise _unreadable(text, end, "the end of the file")
    return node


def _value(text: str, at: int, depth: int) -> _Node:
    if depth > _DEEPEST:
        raise Unreadable("nested too deeply")
    first = text[at : at + 1]
    if first == "{":
        return _object(text, at, depth)
    if first == "[":
        return _array(text, at, depth)
    found = (_STRING if first == '"' else _WORD).match(text, at)
    if found is None:
        raise _unreadable(text, at, "a value")
    try:
        return _Node(at, found.end(), json.loads(found[0]), None)
    except ValueError:
        raise _unreadable(text, at, "a value") from None


def _object(text: str, start: int, depth: int) -> _Node:
    members: dict[str, _Member] = {}
    comma, at = -1, _skip(text, start + 1)
    while text[at : at + 1] != "}":
        if members and comma < 0:
            raise _unreadable(text, at, "a comma or }")
        name = _STRING.match(text, at)
        if name is None:
            raise _unreadable(text, at, "a name in quotes or }")
        colon = _skip(text, name.end())
        if text[colon : colon + 1] != ":":
            raise _unreadable(text, colon, "a colon")
        value = _value(text, _skip(text, colon + 1), depth + 1)
        try:
            key = str(json.loads(name[0]))
        except ValueError:
            raise _unreadable(text, at, "a name") from None
        if key in members:
            raise Unreadable(f"{key!r} stands there twice, the second time in line {_line(text, at)}")
        members[key] = _Member(at, value.end, value)
        comma, at = _comma(text, value.end)
    return _Node(
        start, at + 1, {name: member.value.value for name, member in members.items()}, members, comma
    )


def _array(text: str, start: int, depth: int) -> _Node:
    values: list[Any] = []
    comma, at = -1, _skip(text, start + 1)
    while text[at : at + 1] != "]":
        if values and comma < 0:
            raise _unreadable(text, at, "a comma or ]")
        node = _value(text, at, depth + 1)
        values.append(node.value)
        comma, at = _comma(text, node.end)
    return _Node(start, at + 1, values, None)


def _comma(text: str, end: int) -> tuple[int, int]:
    """Where the comma behind a value is (-1: nowhere), and where the next thing begins."""
    at = _skip(text, end)
    return (at, _skip(text, at + 1)) if text[at : at + 1] == "," else (-1, at)


def _skip(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    return found.end() if found else at


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _unreadable(text: str, at: int, wanted: str) -> Unreadable:
    return Unreadable(f"line {_line(text, at)}: {wanted} is missing here")
