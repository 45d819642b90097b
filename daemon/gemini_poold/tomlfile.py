"""TOML into Structs, with the place of every error: file, line, column, and the key's name.

A `Source` is how the configuration and the accounts file are read. The parser is the standard library's
and the types are msgspec's; neither of them knows where a key stood, so `places` finds it: it walks a source that
tomllib has accepted, therefore it need not judge anything.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec

from .errors import ConfigInvalid

T = TypeVar("T")
Key = tuple[str | int, ...]  # ("account", 0, "credential", "type")
Document = dict[str, Any]

_AT = re.compile(r"^(?P<problem>.*?)(?: - at `(?P<path>(?:key in )?\$.*)`)?$", re.DOTALL)
_UNKNOWN = re.compile(r"^Object contains unknown field `(?P<name>.*)`$")
_MISSING = re.compile(r"^Object missing required field `(?P<name>.*)`$")
_STEP = re.compile(r"\.(?P<name>[^.\[]+)|\[(?P<index>\d+|\.\.\.)\]")
_SYNTAX = re.compile(
    r"^(?P<problem>.*) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$", re.DOTALL
)


class Place(NamedTuple):
    """From 1, as editors count; the column counts characters."""

    line: int
    column: int


class Source:
    """A TOML text that parsed: its values and where each key stands."""

    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.file = file
        self.document = parse(text, file)
        self._places: dict[Key, Place] | None = None

    def place(self, key: Key) -> Place:
        """The place of `key`, or of the nearest table around it."""
        if self._places is None:  # only errors ask, so a good file never pays for it
            self._places = places(self.text)
        while key and key not in self._places:
            key = key[:-1]
        return self._places.get(key, Place(1, 1))

    def invalid(self, problem: str, key: Key, *, hint: str = "") -> ConfigInvalid:
        line, column = self.place(key)
        return ConfigInvalid(problem, file=self.file, line=line, column=column, key=dotted(key), hint=hint)

    def convert(self, value: object, type_: type[T], key: Key = ()) -> T:
        """`value`, which stands at `key`, as `type_`; raises `ConfigInvalid`."""
        try:
            return msgspec.convert(value, type_)
        except msgspec.ValidationError as error:
            raise self._explain(str(error), type_, key) from None

    def _explain(self, message: str, type_: type, key: Key) -> ConfigInvalid:
        match = _AT.match(message)
        assert match is not None
        problem = match["problem"]
        key = key + _steps(match["path"] or "")
        if unknown := _UNKNOWN.match(problem):
            known = _names_at(type_, _steps(match["path"] or ""))
            key = (*key, unknown["name"])
            return self.invalid(f"unknown key {dotted(key)}", key, hint=_closest(unknown["name"], known))
        if missing := _MISSING.match(problem):
            key = (*key, missing["name"])
            return self.invalid(f"{dotted(key)} is missing", key)
        # A check over a whole table begins its sentence with the key it is about.
        first = problem.partition(" ")[0].rstrip(":")
        at = (*key, first) if first in _names_at(type_, _steps(match["path"] or "")) else key
        problem = problem[:1].lower() + problem[1:]
        return self.invalid(f"{dotted(key)}: {problem}" if key else problem, at)


def parse(text: str, file: str) -> Document:
    """The text's values. Raises `ConfigInvalid` with the line and column of a syntax error."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        match = _SYNTAX.match(str(error))
        problem = match["problem"] if match else str(error)
        line, column = _end(text)
        if match and match["line"]:
            line, column = int(match["line"]), int(match["column"])
        raise ConfigInvalid(
            f"not TOML: {problem[:1].lower()}{problem[1:]}", file=file, line=line, column=column
        ) from None
    except RecursionError:
        raise ConfigInvalid("not TOML: nested too deeply", file=file, line=1, column=1) from None


def decode_utf8(data: bytes, file: str) -> str:
    """UTF-8 text (a BOM is dropped). Raises `ConfigInvalid` with the place of the first bad byte."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8-sig", "replace")
        line, column = _end(before)
        problem = "not UTF-8 text (half-written, or saved in another encoding)"
        raise ConfigInvalid(problem, file=file, line=line, column=column, hint="save it as UTF-8") from None


def raise_all(errors: Sequence[ConfigInvalid]) -> None:
    """Raise the first error in the file's order, the others with it; nothing if there are none."""
    if not errors:
        return
    first, *others = sorted(errors, key=lambda error: (error.line, error.column))
    first.others = tuple(others)
    raise first


def dotted(key: Key) -> str:
    """How people write the key: `account[2].credential.type`. Indexes count from 0 inside, from 1 for people."""
    text = ""
    for step in key:
        text += f"[{step + 1}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def _end(text: str) -> Place:
    line = text.count("\n") + 1
    return Place(line, len(text) - (text.rfind("\n") + 1) + 1)


def _steps(path: str) -> Key:
    """msgspec's `$.gateway.clients[0].key` as a key. `[...]` (a value of a free table) ends what is known."""
    steps: list[str | int] = []
    for match in _STEP.finditer(path):
        if match["index"] == "...":
            break
        steps.append(int(match["index"]) if match["index"] else match["name"])
    return tuple(steps)


def _names_at(type_: Any, steps: Key) -> list[str]:
    """The keys that the Struct at `steps` inside `type_` knows."""
    for step in steps:
        if isinstance(step, int):
            type_ = next((item for item in getattr(type_, "__args__", ()) if item is not ...), None)
        else:
            fields = {field.encode_name: field.type for field in _fields(type_)}
            type_ = fields.get(step)
    return [field.encode_name for field in _fields(type_)]


def _fields(type_: Any) -> tuple[Any, ...]:
    for candidate in (type_, *getattr(type_, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, msgspec.Struct):
            return msgspec.structs.fields(candidate)
    return ()


def _closest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"did you mean {close[0]}?"
    return f"known keys here: {', '.join(known)}" if known else ""


# ---- where keys stand -------------------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r]+|\#[^\n]*)
      | (?P<newline>\n)
      | (?P<string>\"\"\"(?:\\.|[^\\])*?\"{3,5} | '''.*?'{3,5} | "(?:\\.|[^"\\\n])*" | '[^'\n]*')
      | (?P<double>\[\[|\]\])
      | (?P<mark>[\[\]{}=,.])
      | (?P<bare>[^\s\#"'\[\]{}=,.]+)""",
    re.VERBOSE | re.DOTALL,
)


def places(text: str) -> dict[Key, Place]:
    """Where every key of a valid TOML text stands, elements of arrays included."""
    return _Walker(text).walk()


class _Walker:
    """One pass over the tokens. `[[` may also open an array in an array: in a value it counts as two marks."""

    def __init__(self, text: str) -> None:
        self.found: dict[Key, Place] = {}
        self.lengths: dict[Key, int] = {}  # arrays of tables: how many so far
        self.tokens = self._tokens(text)
        self.at = 0

    @staticmethod
    def _tokens(text: str) -> list[tuple[str, str, Place]]:
        tokens = []
        line, start = 1, 0
        for match in _TOKEN.finditer(text):
            kind, value = match.lastgroup or "", match[0]
            place = Place(line, match.start() - start + 1)
            if value.count("\n"):
                line += value.count("\n")
                start = match.start() + value.rfind("\n") + 1
            if kind == "double":
                tokens += [("mark", value[0], place), ("mark", value[1], Place(place.line, place.column + 1))]
            elif kind != "space":
                tokens.append((kind, value, place))
        tokens.append(("end", "", Place(line, len(text) - start + 1)))
        return tokens

    def walk(self) -> dict[Key, Place]:
        table: Key = ()
        while self._kind != "end":
            if self._kind == "newline":
                self.at += 1
            elif self._value == "[":
                table = self._header()
            else:
                self._pair(table)
        return self.found

    @property
    def _kind(self) -> str:
        return self.tokens[self.at][0]

    @property
    def _value(self) -> str:
        return self.tokens[self.at][1] if self._kind in {"mark", "end"} else ""

    @property
    def _place(self) -> Place:
        return self.tokens[self.at][2]

    def _skip_newlines(self) -> None:
        while self._kind == "newline":
            self.at += 1

    def _header(self) -> Key:
        place = self._place
        self.at += 1
        array = self._value == "["
        self.at += array
        names = self._dotted_name()
        self.at += 2 if array else 1
        table: Key = ()
        for number, name in enumerate(names, 1):
            table = (*table, name)
            if number == len(names) and array:
                self.lengths[table] = self.lengths.get(table, 0) + 1
            self.found.setdefault(table, place)
            if table in self.lengths:
                table = (*table, self.lengths[table] - 1)
        self.found[table] = place
        return table

    def _dotted_name(self) -> list[str]:
        names = []
        while True:
            kind, value, _ = self.tokens[self.at]
            names.append(_unquoted(value) if kind == "string" else value)
            self.at += 1
            if self._value != ".":
                return names
            self.at += 1

    def _pair(self, table: Key) -> None:
        place = self._place
        key = table
        for name in self._dotted_name():
            key = (*key, name)
            self.found.setdefault(key, place)
        self.at += 1  # "="
        self._item(key)

    def _item(self, key: Key) -> None:
        if self._value == "[":
            self._array(key)
        elif self._value == "{":
            self._inline_table(key)
        else:
            while self._kind not in {"newline", "end"} and self._value not in {",", "]", "}"}:
                self.at += 1

    def _array(self, key: Key) -> None:
        self.at += 1
        index = 0
        self._skip_newlines()
        while self._value != "]":
            self.found[*key, index] = self._place
            self._item((*key, index))
            index += 1
            self._skip_newlines()
            self.at += self._value == ","
            self._skip_newlines()
        self.at += 1

    def _inline_table(self, key: Key) -> None:
        self.at += 1
        self._skip_newlines()
        while self._value != "}":
            self._pair(key)
            self._skip_newlines()
            self.at += self._value == ","
            self._skip_newlines()
        self.at += 1


def _unquoted(text: str) -> str:
    """A quoted key's name, escapes resolved by the parser that knows them."""
    return next(iter(tomllib.loads(f"{text} = 0")))
