"""The daemon's errors: the client's tree, re-exported, and the four kinds that only the daemon can raise.

PoolError                     (gemini_pool.errors) anything the daemon refuses; `.code` is a stable word
├── ConfigInvalid             a configuration or accounts file, with its place
├── FileRefused               a private file or folder that is missing, not ours, or open to others
├── StateUnusable             the database is newer than we are, or cannot be written
└── UpstreamFailure           the network between us and Google, as far as no HTTP status came
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from gemini_pool.errors import (
    ERRORS,
    Cancelled,
    ConnectionLost,
    NotRunning,
    PoolError,
    ProtocolError,
    Word,
)

__all__ = [
    "ERRORS",
    "UNREADABLE",
    "Cancelled",
    "ConfigInvalid",
    "ConnectionLost",
    "FailureKind",
    "FileRefused",
    "NotRunning",
    "PoolError",
    "ProtocolError",
    "StateUnusable",
    "UpstreamFailure",
    "Word",
]

# Whatever msgspec raises for bytes that are not the JSON that they should be: invalid UTF-8 is no DecodeError, and what is
# nested too deeply is none either. Bytes from outside are decoded under this and nothing narrower (held by a test).
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

FailureKind = Literal["refused", "reset", "timeout", "dns", "tls", "closed", "other"]


class ConfigInvalid(PoolError):
    """A configuration or accounts file that cannot be taken. Nothing of it is used.

    `problem` is the sentence without its place; `file`, `line` and `column` (from 1; 0 when unknown) are the place,
    `key` the key's dotted name where one key is to blame. `others` are further errors of the same file, which stand
    in no other's `others`; `all_errors` is this one and those.
    """

    def __init__(
        self,
        problem: str,
        *,
        file: str = "",
        line: int = 0,
        column: int = 0,
        key: str = "",
        hint: str = "",
        others: Sequence[ConfigInvalid] = (),
    ) -> None:
        place = ":".join([file, *(str(number) for number in (line, column) if number)])
        super().__init__("config_invalid", f"{place}: {problem}" if place else problem, hint=hint)
        self.problem = problem
        self.file = file
        self.line = line
        self.column = column
        self.key = key
        self.others = tuple(others)

    @property
    def all_errors(self) -> tuple[ConfigInvalid, ...]:
        return (self, *self.others)


class FileRefused(PoolError):
    """A private file or folder that we will not use. `hint` is the command that mends it; `missing`: not there."""

    def __init__(self, message: str, *, path: str, hint: str = "", missing: bool = False) -> None:
        super().__init__("config_invalid", message, hint=hint)
        self.path = path
        self.missing = missing


class StateUnusable(PoolError):
    """The state database cannot be used: written by a newer version, or the disk does not take what we write."""

    def __init__(self, message: str, *, hint: str = "", retryable: bool = False) -> None:
        super().__init__("state_unusable", message, hint=hint, retryable=retryable)

    @property
    def exit_code(self) -> int:
        """78 where starting again would end the same: the service manager then does not."""
        return 1 if self.retryable else ERRORS["config_invalid"].exit


class UpstreamFailure(PoolError):
    """No complete HTTP answer came. `sent`: the request may have reached Google (a repeat may do it twice)."""

    def __init__(self, message: str, *, kind: FailureKind, sent: bool, hint: str = "") -> None:
        super().__init__("upstream_error", message, hint=hint)
        self.kind: FailureKind = kind
        self.sent = sent
