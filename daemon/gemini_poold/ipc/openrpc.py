"""The wire protocol as an OpenRPC document, made from the table of verbs and the Structs of the wire.

`python -m gemini_poold.ipc.openrpc > client/openrpc.json` after a change of either; a test compares. Clients in other
languages make their types from that file. What the document cannot say (framing, leases, order) is on the wire's page.
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from gemini_pool import calls, wire
from gemini_pool.errors import (
    ERRORS,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    POOL_ERROR,
    REQUEST_CANCELLED,
)

from .verbs import VERBS, Verb

_REF = "#/components/schemas/{name}"
# What no table of calls names: streaming's two results, and a verb that only editors without ids need.
_RESULTS: dict[str, Any] = {
    "pool/generate": wire.StreamResult,
    "pool/cancel": wire.Empty,
    "daemon/logLevel": wire.Empty,
}
_ANSWER = {"type": "object", "description": "Google's answer, as it came", "additionalProperties": True}
_NOTICES: dict[str, tuple[str, Any]] = {
    "$/progress": ("daemon", wire.ProgressParams),
    "pool/event": ("daemon", wire.Event),
    "daemon/draining": ("daemon", wire.Draining),
    "$/cancelRequest": ("client", wire.CancelParams),
}
_NUMBERS = {
    PARSE_ERROR: "no JSON",
    INVALID_REQUEST: "no request, or a batch",
    METHOD_NOT_FOUND: "no such method here",
    INVALID_PARAMS: "parameters that do not fit",
    INTERNAL_ERROR: "a mistake of the daemon's",
    REQUEST_CANCELLED: "cancelled by the client",
    POOL_ERROR: "refused; `data.code` is one of the words",
}


def document() -> dict[str, Any]:
    """The whole description. Notifications stand under `x-notifications`, for which OpenRPC has no place; any method
    may fail with any of the errors, so these stand once, under `components`."""
    results = {**_results(), **_RESULTS}
    params = {name: _params(verb) for name, verb in VERBS.items()}
    kinds = [*params.values(), *(results[name] for name in VERBS), *(kind for _, kind in _NOTICES.values())]
    schemas, components = msgspec.json.schema_components([*kinds, wire.ErrorData], ref_template=_REF)
    return {
        "openrpc": "1.3.2",
        "info": {
            "title": "gemini-pool",
            "version": wire.VERSION,
            "description": "JSON-RPC 2.0 on a Unix socket, in LSP framing or one message a line.",
            "license": {"name": "MIT"},
            "x-protocol": wire.PROTOCOL,
        },
        "methods": [
            _method(name, verb, components, schemas[at + len(params)])
            for at, (name, verb) in enumerate(VERBS.items())
        ],
        "x-notifications": [
            {"name": name, "from": sender, "params": schemas[2 * len(params) + at]}
            for at, (name, (sender, _)) in enumerate(_NOTICES.items())
        ],
        "x-error-words": {word: {"retryable": entry.retryable} for word, entry in ERRORS.items()},
        "components": {"schemas": dict(sorted(components.items())), "errors": _errors()},
    }


def text() -> str:
    """The document as it is committed."""
    return msgspec.json.format(msgspec.json.encode(document()), indent=2).decode() + "\n"


def _method(name: str, verb: Verb, components: dict[str, Any], result: Any) -> dict[str, Any]:
    schema = components[_params(verb).__name__]
    required = set(schema.get("required", ()))
    if verb.streams:
        result = {"anyOf": [_ANSWER, result]}
    return {
        "name": name,
        "summary": " ".join(schema.get("description", "").split()) or name,
        "paramStructure": "by-name",
        "params": [
            {"name": field, "required": field in required, "schema": kind}
            for field, kind in schema["properties"].items()
        ],
        "result": {"name": "result", "schema": result},
        "x-scope": verb.scope,
        "x-params": {"$ref": _REF.format(name=_params(verb).__name__)},
        **({"x-progress": True} if verb.streams else {}),
        **({"x-repeatable": True} if _repeatable(name) else {}),
    }


def _errors() -> dict[str, Any]:
    data = {"$ref": _REF.format(name="ErrorData")}
    return {
        _error_name(code): {"code": code, "message": meaning, "data": data}
        for code, meaning in _NUMBERS.items()
    }


def _error_name(code: int) -> str:
    return f"e{-code}"


def _params(verb: Verb) -> Any:
    decoder: Any = verb.decode
    return decoder.__self__.type


def _calls() -> list[calls.Call[Any]]:
    return [value for value in vars(calls).values() if isinstance(value, calls.Call)]


def _results() -> dict[str, Any]:
    return {call.method: call.result for call in _calls()}


def _repeatable(method: str) -> bool:
    return any(call.repeatable for call in _calls() if call.method == method)


if __name__ == "__main__":
    sys.stdout.write(text())
