"""JSON Schema on its way to Google."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemini_pool.errors import PoolError
from gemini_poold.dialects.schema import carried

PLAIN = {
    "type": "object",
    "properties": {
        "a": {"type": "string", "enum": ["x"]},
        "anyOf": {"type": "array", "items": {"type": "integer"}},
    },
    "required": ["a"],
    "additionalProperties": False,
    "$defs": {"n": {"type": "object", "properties": {"next": {"$ref": "#/$defs/n"}}}},
}


def test_what_google_reads_goes_as_it_is():
    """Nothing is taken out of a schema that Google takes; a property called anyOf is no keyword."""
    assert carried(PLAIN, "p") == PLAIN


def test_the_dialect_is_not_told():
    """`$schema` says nothing about the values."""
    assert carried({"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "null"}, "p") == {
        "type": "null"
    }


@pytest.mark.parametrize(
    ("schema", "made"),
    [
        (
            {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None, "description": "d"},
            {
                "anyOf": [
                    {"type": "string", "default": None, "description": "d"},
                    {"type": "null", "default": None, "description": "d"},
                ]
            },
        ),
        (
            {
                "type": "object",
                "properties": {"a": {"type": "string"}},
                "required": ["a"],
                "anyOf": [{"required": ["b"]}, {"properties": {"c": {}}, "title": "own"}],
                "title": "outer",
            },
            {
                "anyOf": [
                    {"required": ["a", "b"], "type": "object", "properties": {"a": {"type": "string"}}, "title": "outer"},
                    {"properties": {"a": {"type": "string"}, "c": {}}, "title": "own", "type": "object", "required": ["a"]},
                ]
            },
        ),
        ({"anyOf": [{"$ref": "#/$defs/n"}], "title": "t", "$defs": {"n": {}}}, {"anyOf": [{"$ref": "#/$defs/n"}], "$defs": {"n": {}}}),
        (
            {"type": "object", "properties": {"x": {"description": "d", "anyOf": [{"type": "null"}]}}},
            {"type": "object", "properties": {"x": {"anyOf": [{"type": "null", "description": "d"}]}}},
        ),
        (
            {"type": "string", "anyOf": [{"anyOf": [{"minLength": 1}]}]},
            {"anyOf": [{"anyOf": [{"minLength": 1, "type": "string"}]}]},
        ),
    ],
)  # fmt: skip
def test_keywords_beside_anyof_move_into_its_branches(schema, made):
    """Google refuses them beside it; in every branch they mean the same."""
    assert carried(schema, "p") == made


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "anyOf": [{"type": "string"}]},
        {"type": "object", "anyOf": [{"$ref": "#/$defs/n"}]},
        {"type": "object", "anyOf": [False]},
        {"properties": {"a": {"type": "string"}}, "anyOf": [{"properties": {"a": {"type": "null"}}}]},
        "object",
    ],
)
def test_what_cannot_be_said_is_refused(schema):
    """Rather than changed: the error names whose schema it is."""
    with pytest.raises(PoolError, match="parameters of f"):
        carried(schema, "parameters of f")


LEAF = st.sampled_from([{"type": "string"}, {"type": "null"}, {"enum": [1]}, {"description": "d"}])


def _wider(inner):
    return st.one_of(
        st.fixed_dictionaries(
            {"anyOf": st.lists(inner, min_size=1, max_size=3)}, optional={"title": st.just("t")}
        ),
        st.fixed_dictionaries(
            {"type": st.just("object"), "properties": st.dictionaries(st.sampled_from("abc"), inner)}
        ),
        st.fixed_dictionaries({"type": st.just("array"), "items": inner}),
    )


@given(st.recursive(LEAF, _wider, max_leaves=12))
@settings(max_examples=100, deadline=None)
def test_nothing_stands_beside_an_anyof_afterwards(schema):
    """At any depth; and what is carried once needs no second time."""
    made = carried(schema, "p")
    assert carried(made, "p") == made

    def check(node):
        if isinstance(node, dict):
            assert not isinstance(node.get("anyOf"), list) or len(node) == 1
            for item in node.values():
                check(item)
        elif isinstance(node, list):
            for item in node:
                check(item)

    check(made)
