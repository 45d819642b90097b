"""Editing JSON with comments: one value changes, every other character stays."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemini_pool import jsonc

FILE = """\
// mine
{
  "theme": "dark", // at night
  /* the
     provider */
  "provider": {
    "google": {"options": {"apiKey": "old"}},
  },
  "keep": [1, 2, {"a": null},], // really
}
"""


def test_reading():
    """Comments and trailing commas are no hindrance, and no part of the value; // in a string is text."""
    assert jsonc.parse(FILE)["keep"] == [1, 2, {"a": None}]
    assert jsonc.parse('{"a": "//x /* y */"}') == {"a": "//x /* y */"}
    assert jsonc.parse("\ufeff{}") == {}


@pytest.mark.parametrize(
    "text",
    ["", "{", "{]", '{"a"}', '{"a":1 "b":2}', "[1 2]", "{'a':1}", "{} x", '{"a":nope}', '{"a":1,"a":2}'],
)
def test_unreadable(text):
    """What is no JSON is refused, with the line."""
    with pytest.raises(jsonc.Unreadable):
        jsonc.parse(text)


def test_the_line_is_told():
    """So that the user finds it."""
    with pytest.raises(jsonc.Unreadable, match="line 3: a colon"):
        jsonc.parse('{\n// x\n"a" 1}')


def test_a_value_is_replaced():
    """Nothing else moves."""
    assert jsonc.put(FILE, ("provider", "google", "options", "apiKey"), "new") == FILE.replace(
        '"old"', '"new"'
    )
    assert jsonc.put(FILE, ("theme",), "dark") == FILE


def test_members_are_added():
    """Into an object with a trailing comma, behind a comment, into an empty one, into nothing."""
    assert jsonc.put(FILE, ("last",), True) == FILE.replace("// really\n", '// really\n  "last": true,\n')
    assert jsonc.put('{\n  "a": 1 // one\n}\n', ("b",), 2) == '{\n  "a": 1, // one\n  "b": 2\n}\n'
    assert jsonc.put("{}", ("a", "b"), 1) == '{\n  "a": {\n    "b": 1\n  }\n}'
    assert jsonc.put("", ("a",), 1) == '{\n  "a": 1\n}\n'
    assert jsonc.put("{ // mine\n}\n", ("a",), 1) == '{ // mine\n  "a": 1\n}\n'
    assert jsonc.parse(jsonc.put('{"a": 1}', ("b",), 2)) == {"a": 1, "b": 2}


def test_what_is_no_object_stays():
    """A path through a value of another kind is refused."""
    with pytest.raises(TypeError, match=r"provider\.google\.options\.apiKey is no object"):
        jsonc.put(FILE, ("provider", "google", "options", "apiKey", "x"), 1)
    with pytest.raises(TypeError, match="the file"):
        jsonc.put("[]", ("a",), 1)


def test_members_are_dropped():
    """First, middle, last and only one; objects that are left empty go, too; what is not there is no matter."""
    text = '{"a": 1, "b": {"c": {"d": 2}}, "e": 3}'
    assert jsonc.drop(text, ("a",)) == '{"b": {"c": {"d": 2}}, "e": 3}'
    assert jsonc.drop(text, ("b", "c", "d")) == '{"a": 1, "e": 3}'
    assert jsonc.drop(text, ("e",)) == '{"a": 1, "b": {"c": {"d": 2}}}'
    assert jsonc.drop('{"a": 1,}', ("a",)) == "{}"
    assert jsonc.drop(text, ("b", "nope")) == text
    assert jsonc.drop(text, ("a", "nope")) == text


NAMES = st.sampled_from(["a", "b", "c"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
DRESSES = st.sampled_from([None, 2, "\t"])


def _put(value, path, new):
    if not path:
        return new
    return {**value, path[0]: _put(value.get(path[0], {}), path[1:], new)}


@given(st.dictionaries(NAMES, VALUES, max_size=3), st.lists(NAMES, min_size=1, max_size=3), VALUES, DRESSES)
def test_put_means_what_it_says(value, path, new, dress):
    """Whatever the file: the member is set, all others are what they were; or it is refused."""
    text = json.dumps(value, indent=dress)
    try:
        wanted = _put(value, path, new)
    except (AttributeError, TypeError):
        with pytest.raises(TypeError):
            jsonc.put(text, path, new)
        return
    done = jsonc.put(text, path, new)
    assert jsonc.parse(done) == wanted
    assert jsonc.put(done, path, new) == done


@given(st.dictionaries(NAMES, VALUES, min_size=1, max_size=3), DRESSES, st.data())
def test_drop_means_what_it_says(value, dress, data):
    """A member that was there is gone, the others are what they were."""
    name = data.draw(st.sampled_from(sorted(value)))
    done = jsonc.parse(jsonc.drop(json.dumps(value, indent=dress), (name,)))
    assert done == {other: held for other, held in value.items() if other != name}
