"""Golden transcripts: loading them, and matching what came against what stands there.

The form of a transcript is told in client/conformance/README.md. Standard library only.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "client" / "conformance"
_NAME = re.compile(r"\$[a-z_][a-z0-9_]*\Z")
DAEMON = {"server": {"name": "gemini-pool", "version": "0.1.0"}, "protocol": 1, "methods": ["initialize"]}


class Mismatch(AssertionError):
    """What came is not what stands in the transcript."""


@dataclass
class Script:
    """One transcript. `bound` holds what the names have come to stand for in this run."""

    name: str
    says: str
    wire: list[dict[str, Any]]
    client: list[dict[str, Any]]
    values: dict[str, Any]
    players: list[str]
    initialize: dict[str, Any]
    bound: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Script:
        raw = json.loads(path.read_text(encoding="utf-8"))
        players = raw.get("players", ["client", "server"])
        hello = raw.get("initialize", DAEMON)
        return cls(path.stem, raw["says"], raw["wire"], raw["client"], raw["values"], players, hello)

    def match(self, pattern: Any, value: Any, at: str = "$") -> None:
        """Raise `Mismatch` unless `value` has all that `pattern` asks for. A name binds what it meets first."""
        if is_name(pattern):
            if pattern not in self.bound:
                self.bound[pattern] = value
            elif self.bound[pattern] != value:
                raise Mismatch(f"{at}: {pattern} was {self.bound[pattern]!r}, now {value!r}")
        elif isinstance(pattern, dict):
            if not isinstance(value, dict):
                raise Mismatch(f"{at}: an object was expected, {value!r} came")
            for key, wanted in pattern.items():
                if key not in value:
                    raise Mismatch(f"{at}.{key} is missing in {value!r}")
                self.match(wanted, value[key], f"{at}.{key}")
        elif isinstance(pattern, list):
            if not isinstance(value, list) or len(value) != len(pattern):
                raise Mismatch(f"{at}: {pattern!r} was expected, {value!r} came")
            for index, (wanted, item) in enumerate(zip(pattern, value, strict=True)):
                self.match(wanted, item, f"{at}[{index}]")
        elif pattern != value or isinstance(pattern, bool) is not isinstance(value, bool):
            raise Mismatch(f"{at}: {pattern!r} was expected, {value!r} came")

    def fits(self, pattern: Any, value: Any) -> bool:
        """Like `match`, as a question; nothing stays bound when the answer is no."""
        before = dict(self.bound)
        try:
            self.match(pattern, value)
        except Mismatch:
            self.bound = before
            return False
        return True

    def fill(self, pattern: Any) -> Any:
        """`pattern` with each name replaced by what it stands for, or by its example."""
        if is_name(pattern):
            return self.bound.setdefault(pattern, self.values.get(pattern[1:]))
        if isinstance(pattern, dict):
            return {key: self.fill(value) for key, value in pattern.items()}
        if isinstance(pattern, list):
            return [self.fill(value) for value in pattern]
        return pattern


def is_name(value: Any) -> bool:
    return isinstance(value, str) and _NAME.match(value) is not None


def is_message(pattern: Any, value: Any) -> bool:
    """A request is never taken for a notification, or the other way round."""
    return isinstance(value, dict) and ("id" in pattern) == ("id" in value)


def scripts(player: str) -> list[Script]:
    """All transcripts that this player ("client" or "server") replays."""
    found = [Script.load(path) for path in sorted(FOLDER.glob("*.json"))]
    return [script for script in found if player in script.players]
