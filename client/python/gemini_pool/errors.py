"""Errors of the pool, as words a program may branch on, and the one table that maps each word to every surface.

PoolError                     anything the daemon refused; `.code` is a stable word of ERRORS
├── NotRunning                nothing answers on the socket
├── ConnectionLost            the daemon went away in the middle of a call
└── ProtocolError             the other end does not speak this protocol
"""

from __future__ import annotations

from typing import Any, NamedTuple

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
REQUEST_CANCELLED = -32800
POOL_ERROR = -32000


class Word(NamedTuple):
    """One error word: HTTP status and google.rpc status of the gateway's surfaces, OpenAI's `type`, exit code."""

    http: int
    status: str
    openai_type: str
    retryable: bool
    exit: int


ERRORS: dict[str, Word] = {
    "all_cooling_down": Word(429, "RESOURCE_EXHAUSTED", "rate_limit_exceeded", True, 5),
    "no_account_for_model": Word(404, "NOT_FOUND", "invalid_request_error", False, 1),
    "needs_paid": Word(403, "PERMISSION_DENIED", "insufficient_quota", False, 1),
    "unknown_model": Word(404, "NOT_FOUND", "invalid_request_error", False, 1),
    "deadline": Word(504, "DEADLINE_EXCEEDED", "server_error", True, 5),
    "account_dead": Word(403, "PERMISSION_DENIED", "permission_error", False, 4),
    "login_required": Word(403, "PERMISSION_DENIED", "permission_error", False, 4),
    "unlicensed": Word(403, "PERMISSION_DENIED", "permission_error", False, 1),
    "unsupported_client": Word(403, "PERMISSION_DENIED", "permission_error", False, 1),
    "blocked_by_terms": Word(403, "PERMISSION_DENIED", "permission_error", False, 1),
    "not_lent": Word(403, "PERMISSION_DENIED", "permission_error", False, 1),
    "upstream_error": Word(502, "UNAVAILABLE", "server_error", True, 1),
    "stream_cut": Word(502, "UNAVAILABLE", "server_error", True, 1),
    "bad_request": Word(400, "INVALID_ARGUMENT", "invalid_request_error", False, 2),
    "overloaded": Word(503, "UNAVAILABLE", "server_error", True, 5),
    "config_invalid": Word(500, "INTERNAL", "server_error", False, 78),
    "not_found": Word(404, "NOT_FOUND", "invalid_request_error", False, 1),
    "shutting_down": Word(503, "UNAVAILABLE", "server_error", True, 1),
}


class PoolError(Exception):
    """The daemon refused. Everything a program needs is an attribute; `str()` is a sentence for people.

    `code` is a word of ERRORS (or "internal"), `hint` names the next command to type, `retry_at` is Unix seconds,
    `rpc_code` the JSON-RPC number, `details` whatever else the daemon knows (for `upstream_error`: Google's status
    and body).
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        hint: str = "",
        retryable: bool | None = None,
        retry_at: float | None = None,
        account: str | None = None,
        details: Any = None,
        rpc_code: int = POOL_ERROR,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        word = ERRORS.get(code)
        self.retryable = (word.retryable if word else False) if retryable is None else retryable
        self.retry_at = retry_at
        self.account = account
        self.details = details
        self.rpc_code = rpc_code

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    @property
    def exit_code(self) -> int:
        """The command's exit code for this error (contract: 0 fine, 1 failed, 2 usage, 3, 4, 5, 78)."""
        word = ERRORS.get(self.code)
        return word.exit if word else 1


class NotRunning(PoolError):
    """Nothing answers on the socket. The hint names the command that starts the daemon here."""

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__("not_running", message, hint=hint, retryable=True)

    @property
    def exit_code(self) -> int:
        return 3


class ConnectionLost(PoolError):
    """The daemon closed the connection before it answered; the call may or may not have taken effect.

    `unsent`: not a byte of it was taken, so it certainly has not.
    """

    def __init__(self, message: str = "the daemon closed the connection", *, unsent: bool = False) -> None:
        super().__init__(
            "connection_lost", message, hint="try again; `gemini-pool status` tells", retryable=True
        )
        self.unsent = unsent


class ProtocolError(PoolError):
    """What came is not this protocol: another program's socket, or a frame we cannot read."""

    def __init__(self, message: str, *, rpc_code: int = INVALID_REQUEST) -> None:
        super().__init__("protocol", message, rpc_code=rpc_code)


class Cancelled(PoolError):
    """The request was cancelled by this client (-32800)."""

    def __init__(self, message: str = "the request was cancelled") -> None:
        super().__init__("cancelled", message, rpc_code=REQUEST_CANCELLED)
