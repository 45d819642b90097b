"""What stands in a foreign body, read with care: every field is taken once, and what nobody took is refused by name.

So nothing of a request is dropped in silence. Errors are PoolError `bad_request`, worded for whoever wrote the body.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from ..errors import UNREADABLE, PoolError

Json = dict[str, Any]


def refused(what: str, why: str = "") -> PoolError:
    """The error for what Gemini has no place for."""
    return PoolError("bad_request", f"{what}: {why}" if why else what)


def decode(body: bytes) -> Json:
    """A whole body; it must be an object."""
    try:
        value = msgspec.json.decode(body)
    except UNREADABLE as error:
        raise PoolError("bad_request", f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise PoolError("bad_request", "the body is not a JSON object")
    return value


class Reader:
    """The fields of one object. `where` names it in errors ("" for the body itself); null counts as not given."""

    def __init__(self, value: Any, where: str = "") -> None:
        if not isinstance(value, dict):
            raise refused(f"`{where or 'the body'}` must be an object")
        self._left: Json = {name: item for name, item in value.items() if item is not None}
        self._where = where

    def path(self, name: str) -> str:
        return f"{self._where}.{name}" if self._where else name

    def take(self, name: str, default: Any = None) -> Any:
        """Any value; `default` when not given."""
        return self._left.pop(name, default)

    def text(self, name: str, default: str | None = None) -> str:
        """A string; without a default it must be there."""
        value = self._left.pop(name, default)
        if not isinstance(value, str):
            raise self.wrong(name, "must be a string")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        value = self._left.pop(name, default)
        if not isinstance(value, bool):
            raise self.wrong(name, "must be true or false")
        return value

    def number(self, name: str) -> float | int | None:
        value = self._left.pop(name, None)
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
            return value
        raise self.wrong(name, "must be a number")

    def whole(self, name: str) -> int | None:
        value = self.number(name)
        if isinstance(value, float):
            if not value.is_integer():
                raise self.wrong(name, "must be a whole number")
            return int(value)
        return value

    def items(self, name: str) -> list[Any]:
        """An array; empty when not given."""
        value = self._left.pop(name, [])
        if not isinstance(value, list):
            raise self.wrong(name, "must be an array")
        return value

    def inner(self, name: str) -> Reader | None:
        """An object, to be read in turn."""
        value = self._left.pop(name, None)
        return None if value is None else Reader(value, self.path(name))

    def ignore(self, names: Iterable[str]) -> None:
        """Fields that say nothing about what is to be generated."""
        for name in names:
            self._left.pop(name, None)

    def refuse(self, reasons: Mapping[str, str]) -> None:
        """Fields we know and cannot carry over. An empty or false one asks for nothing."""
        for name, why in reasons.items():
            if self._left.pop(name, None):
                raise refused(f"`{self.path(name)}` cannot be carried over to Gemini", why)

    def done(self) -> None:
        """Refuse what is left: a field that nobody read would be dropped in silence."""
        for name in self._left:
            raise refused(f"unknown parameter `{self.path(name)}`")

    def wrong(self, name: str, why: str) -> PoolError:
        return refused(f"`{self.path(name)}` {why}")
