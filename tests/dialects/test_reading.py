"""Reading a foreign body: nothing of it is dropped in silence."""

import pytest

from gemini_pool.errors import PoolError
from gemini_poold.dialects.reading import Reader, decode


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'"x"', b'{"a":"\xff"}', b"[" * 100_000])
def test_only_objects_are_bodies(body):
    """Anything else is a 400, however deep it nests."""
    with pytest.raises(PoolError) as caught:
        decode(body)
    assert caught.value.code == "bad_request"


def test_what_nobody_took_is_refused_by_name():
    """The full path stands in the error; null counts as not given."""
    reader = Reader({"a": None, "b": {"c": 1}})
    inner = reader.inner("b")
    reader.done()
    with pytest.raises(PoolError, match=r"unknown parameter `b\.c`"):
        inner.done()


@pytest.mark.parametrize(
    ("take", "value"),
    [
        (lambda r: r.text("x"), 1),
        (lambda r: r.text("x"), None),
        (lambda r: r.flag("x"), "true"),
        (lambda r: r.number("x"), True),
        (lambda r: r.number("x"), "1"),
        (lambda r: r.whole("x"), 1.5),
        (lambda r: r.items("x"), {}),
        (lambda r: r.inner("x"), []),
    ],
)
def test_wrong_types_are_named(take, value):
    """Each is refused with the field's name."""
    with pytest.raises(PoolError, match="`x`"):
        take(Reader({"x": value}))


def test_a_whole_number_may_be_written_as_a_float():
    """JavaScript writes 5.0 as 5, others do not."""
    assert Reader({"x": 5.0}).whole("x") == 5


def test_a_known_field_is_refused_only_when_it_asks_for_something():
    """Clients send empty and false ones."""
    Reader({"x": {}, "y": False}).refuse({"x": "no", "y": "no"})
    with pytest.raises(PoolError, match="because"):
        Reader({"x": [1]}).refuse({"x": "because"})
