"""JSON Schema as clients send it -> as Google's `parametersJsonSchema` and `responseJsonSchema` take it.

Google reads JSON Schema itself; two things it does not: keywords that stand beside an `anyOf`, and `$schema`. The
first are moved into every branch, which means the same; where that cannot be done the schema is refused.
"""

from __future__ import annotations

from typing import Any

from .reading import Json, refused

# What describes and does not constrain: the branch's own word goes first.
_ANNOTATIONS = frozenset(
    {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"}
)
_CONTAINERS = frozenset({"$defs", "definitions"})
_MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_LISTS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_SINGLE = frozenset(
    {"items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames"}
)


def carried(schema: Any, where: str) -> Any:
    """`schema` for Google; the same object where nothing must change. Raises `bad_request` naming `where`."""
    if not isinstance(schema, dict):
        raise refused(f"`{where}` must be a JSON schema")
    try:
        return _carried(schema, where)
    except RecursionError:
        raise refused(f"`{where}` is nested too deeply") from None


def _carried(schema: Json, where: str) -> Json:
    made: Json = {}
    for name, value in schema.items():
        if name == "$schema":
            continue
        made[name] = _below(name, value, where)
    beside = {name: value for name, value in made.items() if name != "anyOf" and name not in _CONTAINERS}
    if not isinstance(made.get("anyOf"), list) or not beside:
        return made
    branches = [_merged(branch, beside, where) for branch in made["anyOf"]]
    return {name: value for name, value in made.items() if name in _CONTAINERS} | {"anyOf": branches}


def _below(name: str, value: Any, where: str) -> Any:
    if name in _MAPS and isinstance(value, dict):
        return {key: _schema(item, f"{where}.{key}") for key, item in value.items()}
    if name in _LISTS and isinstance(value, list):
        return [_schema(item, where) for item in value]
    return _schema(value, where) if name in _SINGLE else value


def _schema(value: Any, where: str) -> Any:
    return _carried(value, where) if isinstance(value, dict) else value


def _merged(branch: Any, beside: Json, where: str) -> Json:
    """`branch` and `beside` at once."""
    if branch is True:
        return dict(beside)
    if not isinstance(branch, dict):
        raise _conflict("anyOf", where)
    if "$ref" in branch:  # nothing may stand beside a reference either; what only describes can go
        if beside.keys() <= _ANNOTATIONS:
            return branch
        raise _conflict("$ref", where)
    if isinstance(branch.get("anyOf"), list):  # an anyOf inside an anyOf
        return {**branch, "anyOf": [_merged(inner, beside, where) for inner in branch["anyOf"]]}
    made = dict(branch)
    for name, value in beside.items():
        if name not in made:
            made[name] = value
        elif name == "required" and isinstance(value, list) and isinstance(made[name], list):
            made[name] = [*value, *(item for item in made[name] if item not in value)]
        elif name == "properties" and _disjoint(value, made[name]):
            made[name] = {**value, **made[name]}
        elif name not in _ANNOTATIONS and made[name] != value:
            raise _conflict(name, where)
    return made


def _disjoint(one: Any, other: Any) -> bool:
    return (
        isinstance(one, dict)
        and isinstance(other, dict)
        and all(one[name] == other[name] for name in one.keys() & other.keys())
    )


def _conflict(name: str, where: str) -> Exception:
    return refused(
        f"`{where}` cannot be carried over", f"Gemini takes no `{name}` beside an `anyOf` with another"
    )
