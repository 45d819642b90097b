"""OpenAI's tools, choice of tools and form of the answer -> Gemini's tools, toolConfig and generationConfig."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import schema
from .reading import Json, Reader, refused

_MODES = {"none": "NONE", "auto": "AUTO", "required": "ANY"}


def declarations(tools: Sequence[Any], where: str = "tools") -> list[Json]:
    """Function declarations; other kinds of tool are refused. Chat nests a function, the Responses API does not."""
    return [_declaration(Reader(tool, f"{where}[{index}]")) for index, tool in enumerate(tools)]


def _declaration(reader: Reader) -> Json:
    kind = reader.text("type", "function")
    if kind != "function":
        raise refused(f"the tool {kind[:40]!r} cannot be carried over to Gemini", "only functions can")
    reader.ignore(("cache_control",))
    inner = reader.inner("function") or reader
    made: Json = {"name": inner.text("name")}
    if description := inner.text("description", ""):
        made["description"] = description
    parameters = inner.take("parameters")
    if parameters:
        made["parametersJsonSchema"] = schema.carried(parameters, f"parameters of {made['name']}")
    inner.ignore(("strict",))  # Google checks arguments against the schema on its own account
    inner.done()
    if inner is not reader:
        reader.done()
    return made


def choice(value: Any, declared: list[Json]) -> tuple[list[Json], Json | None]:
    """The declarations that are left and the toolConfig, for a `tool_choice` of either API."""
    if value is None:
        return declared, None
    if isinstance(value, str):
        if value not in _MODES:
            raise refused(f"`tool_choice` {value[:40]!r} is not one of none, auto, required")
        return declared, _config(_MODES[value]) if declared else None
    reader = Reader(value, "tool_choice")
    kind = reader.text("type")
    inner = reader.inner(kind) or reader
    if kind == "function":
        wanted, mode = [inner.text("name")], "ANY"
    elif kind == "allowed_tools":
        mode = _MODES.get(inner.text("mode", "auto"), "AUTO")
        wanted = [item["name"] for item in declarations(inner.items("tools"), "tool_choice.tools")]
    else:
        raise refused(f"`tool_choice` of type {kind[:40]!r} cannot be carried over to Gemini")
    inner.done()
    names = {item["name"] for item in declared}
    if missing := next((name for name in wanted if name not in names), None):
        raise refused(f"`tool_choice` names {missing[:60]!r}, which is none of the tools")
    if mode == "ANY":
        return declared, _config(mode, wanted)
    return [item for item in declared if item["name"] in wanted], _config(mode)


def _config(mode: str, names: list[str] | None = None) -> Json:
    config: Json = {"mode": mode}
    if names:
        config["allowedFunctionNames"] = names
    return {"functionCallingConfig": config}


def answer_form(reader: Reader | None, config: Json) -> None:
    """Chat's `response_format` and the Responses API's `text.format`, into a generationConfig."""
    if reader is None:
        return
    kind = reader.text("type")
    if kind in ("json_object", "json_schema"):
        config["responseMimeType"] = "application/json"
    elif kind != "text":
        raise refused(f"`{reader.path('type')}` {kind[:40]!r} cannot be carried over to Gemini")
    if kind == "json_schema":
        inner = reader.inner("json_schema") or reader
        wanted = inner.take("schema")
        if wanted is not None:
            config["responseJsonSchema"] = schema.carried(wanted, inner.path("schema"))
        inner.ignore(("name", "strict", "description"))
        if inner is not reader:
            inner.done()
    reader.done()
