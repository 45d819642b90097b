"""Where keys stand in a TOML text, and errors that name their place."""

from __future__ import annotations

import tomllib
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemini_poold import tomlfile
from gemini_poold.errors import ConfigInvalid
from gemini_poold.tomlfile import Place, Source

TEXT = '''\
# a comment = 1
top = 1
[a]
x = "a # no comment"   # y = 2
"quoted key" = 1
'literal' . sub = 2
long = """
z = 1
[not.a.table]
"""
raw = \'\'\'
w = "x"\'\'\'
list = [ 1, [2,
   3], # three
   { k = 1, l = { m = "x" } },
]
[a.b]
when = 1979-05-27T07:32:00Z
float = 1.5
[[rows]]
id = "one"
[[rows]]
id = "two"
  [rows.inner]
  deep = true
  [[rows.parts]]
  n = 1
'''


@pytest.mark.parametrize(
    ("key", "place"),
    [
        (("top",), (2, 1)),
        (("a",), (3, 1)),
        (("a", "x"), (4, 1)),
        (("a", "quoted key"), (5, 1)),
        (("a", "literal"), (6, 1)),
        (("a", "literal", "sub"), (6, 1)),
        (("a", "long"), (7, 1)),
        (("a", "raw"), (11, 1)),
        (("a", "list"), (13, 1)),
        (("a", "list", 0), (13, 10)),
        (("a", "list", 1), (13, 13)),
        (("a", "list", 1, 1), (14, 4)),
        (("a", "list", 2), (15, 4)),
        (("a", "list", 2, "k"), (15, 6)),
        (("a", "list", 2, "l", "m"), (15, 19)),
        (("a", "b"), (17, 1)),
        (("a", "b", "float"), (19, 1)),
        (("rows", 0), (20, 1)),
        (("rows", 0, "id"), (21, 1)),
        (("rows", 1), (22, 1)),
        (("rows", 1, "id"), (23, 1)),
        (("rows", 1, "inner", "deep"), (25, 3)),
        (("rows", 1, "parts", 0, "n"), (27, 3)),
    ],
)
def test_every_key_has_its_place(key: tuple[str | int, ...], place: tuple[int, int]) -> None:
    """Lines and columns count from 1; an array's elements and inline tables' keys have places, too."""
    assert tomlfile.places(TEXT)[key] == place


def test_texts_inside_strings_are_no_keys() -> None:
    """What only looks like a key or a table, in a string or a comment, has no place."""
    found = tomlfile.places(TEXT)
    assert not {("y",), ("a", "y"), ("z",), ("not",), ("w",), ("a", "w"), ("a", "z")} & set(found)


def test_a_key_without_a_place_of_its_own_is_where_its_table_is() -> None:
    """A missing key is reported at the table that lacks it."""
    source = Source(TEXT, "f")
    assert source.place(("rows", 1, "missing", "x")) == Place(22, 1)
    assert source.place(("nothing",)) == Place(1, 1)


def keys_of(value: Any, key: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    """Every key of a parsed document."""
    found = {key} if key else set()
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in items:
        found |= keys_of(inner, (*key, step))
    return found


NAME = st.sampled_from(["a", "b", "c-d", "1", "é", "x y", 'q"', "#", "[", "="])
SCALAR = st.one_of(st.integers(-9, 9), st.booleans(), st.text(max_size=6), st.floats(allow_nan=False))
VALUE = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAME, inner, max_size=3)
)


def written(value: Any) -> str:
    """A TOML value."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return (
                '"'
                + "".join(
                    f"\\U{ord(c):08x}" if c in '"\\' or ord(c) < 32 or ord(c) == 127 else c for c in value
                )
                + '"'
            )
        case list():
            return "[" + ", ".join(written(item) for item in value) + "]"
        case dict():
            return "{" + ", ".join(f"{written(name)} = {written(item)}" for name, item in value.items()) + "}"
        case _:
            return str(value)


@given(
    st.dictionaries(NAME, VALUE, max_size=4), st.lists(st.dictionaries(NAME, VALUE, max_size=3), max_size=3)
)
@settings(deadline=None, max_examples=150)
def test_every_key_of_any_document_is_found(top: dict[str, Any], tables: list[dict[str, Any]]) -> None:
    """The walk over the source finds exactly the keys that the parser has."""
    lines = [f"{written(name)} = {written(value)}" for name, value in top.items()]
    for table in tables:
        lines += ["[[rows]]", *(f"{written(name)} = {written(value)}" for name, value in table.items())]
    text = "\n".join(lines)
    assert set(tomlfile.places(text)) == keys_of(tomllib.loads(text))


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("a = 1\nb = \n", 2, 5),
        ("a = 1\na = 2\n", 2, 6),
        ("[x]\nb = 3 4\n", 2, 7),
        ('a = "\n', 1, 6),
        ("[[account]]\nid = 'x'\n[[account", 3, 10),
        ("a = [1,\n", 2, 1),
        ("a = " + "[" * 5000, 1, 1),
    ],
)
def test_a_syntax_error_has_line_and_column(text: str, line: int, column: int) -> None:
    """Also one at the very end of a half-written file."""
    with pytest.raises(ConfigInvalid, match="not TOML") as caught:
        tomlfile.parse(text, "f.toml")
    assert caught.value.file == "f.toml"
    assert (caught.value.line, caught.value.column) == (line, column)


def test_text_that_is_no_utf8_is_told_with_its_place() -> None:
    """The first bad byte is named; a byte order mark is no error."""
    assert tomlfile.decode_utf8(b"\xef\xbb\xbfa = 1", "f") == "a = 1"
    with pytest.raises(ConfigInvalid, match="not UTF-8") as caught:
        tomlfile.decode_utf8("a = 1\nb = 'ü'".encode("latin-1"), "f")
    assert (caught.value.line, caught.value.column) == (2, 6)


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    n: int
    words: tuple[str, ...] = ()


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    inner: Inner | None = None
    rows: list[Inner] = []
    free: dict[str, int] = {}


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("[inner]\nn = 'x'", "f:2:1: inner.n: expected `int`, got `str`", ""),
        ("[inner]\nn = 1\nwords = ['a',\n 1]", "f:4:2: inner.words[2]: expected `str`, got `int`", ""),
        ("[inner]\nwords = []", "f:1:1: inner.n is missing", ""),
        ("rows = [\n {n = 1},\n {word = 1}]", "f:3:3: unknown key rows[2].word", "did you mean words?"),
        ("rows = [{zebra = 1}]", "f:1:10: unknown key rows[1].zebra", "known keys here: n, words"),
        ("[free]\na = 'x'", "f:1:1: free: expected `int`, got `str`", ""),
        ("[iner]\nn = 1", "f:1:1: unknown key iner", "did you mean inner?"),
    ],
)
def test_a_wrong_value_is_told_with_key_and_place(text: str, message: str, hint: str) -> None:
    """The sentence names the key as people write it, the place and what was expected; never the value."""
    source = Source(text, "f")
    with pytest.raises(ConfigInvalid) as caught:
        source.convert(source.document, Outer)
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_errors_are_raised_together_in_the_files_order() -> None:
    """No errors raise nothing; several raise the one that stands first, with the others hanging on it."""
    tomlfile.raise_all([])
    late, early = ConfigInvalid("late", line=9), ConfigInvalid("early", line=2)
    with pytest.raises(ConfigInvalid) as caught:
        tomlfile.raise_all([late, early])
    assert caught.value.all_errors == (early, late)
