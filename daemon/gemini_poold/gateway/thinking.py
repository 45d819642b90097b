"""`[models] thinking`: the thinkingConfig of requests that say nothing of thinking. Pure; first matching glob wins."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from gemini_pool.errors import PoolError

from ..backends import translate

_SAID = (b"hinkingConfig", b"hinking_config")
_CONFIG = ("generationConfig", "generation_config")


def says(body: bytes) -> bool:
    """Whether a body, or a part of one, speaks of thinking itself."""
    return any(mark in body for mark in _SAID)


def default_of(model: str, defaults: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """The default for `model`; empty when there is none."""
    return next((config for glob, config in defaults.items() if fnmatchcase(model, glob)), {})


def with_default(
    body: bytes, model: str, defaults: Mapping[str, Mapping[str, Any]], *, surface: str
) -> bytes:
    """`body` with the default for `model` in it; untouched when there is none or the request has its own."""
    found = default_of(model, defaults)
    if not found or says(body):
        return body
    try:
        parts = translate.fields(body)
        if surface != "ca":
            return translate.join(_set(parts, found))
        if "request" not in parts:
            return body
        request = translate.fields(parts["request"], "`request`")
        return translate.join({**parts, "request": translate.nested(_set(request, found))})
    except PoolError:
        return body  # no object: Google says so better than we could


def _set(parts: translate.Fields, config: Mapping[str, Any]) -> translate.Fields:
    name = next((name for name in _CONFIG if name in parts), _CONFIG[0])
    given = parts.get(name)
    settings = (
        {} if given is None or bytes(given).strip() == b"null" else translate.fields(given, f"`{name}`")
    )
    thinking = msgspec.Raw(msgspec.json.encode(config))
    return {**parts, name: translate.nested({**settings, "thinkingConfig": thinking})}
