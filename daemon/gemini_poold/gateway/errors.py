"""Error word -> HTTP status and body, for every surface: the one place where an error gets its shape for a client.

The words and their statuses are the client package's (`gemini_pool.errors.ERRORS`); `LOCAL` adds the few that only
HTTP knows. Where waiting helps, the answer says so twice, as `Retry-After` and as google.rpc.RetryInfo, because each
family of clients reads only one of them. 401 stands in `LOCAL` alone: no client survives one of Google's.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from math import ceil
from typing import Any, NamedTuple

import msgspec

from gemini_pool.errors import ERRORS, PoolError, Word

from ..errors import UNREADABLE

DOMAIN = "gemini-pool"
JSON = "application/json; charset=UTF-8"

LOCAL: Mapping[str, Word] = {
    "unauthenticated": Word(401, "UNAUTHENTICATED", "invalid_request_error", False, 1),
    "forbidden": Word(403, "PERMISSION_DENIED", "permission_error", False, 1),
    "no_such_path": Word(404, "NOT_FOUND", "invalid_request_error", False, 1),
    "method_not_allowed": Word(405, "INVALID_ARGUMENT", "invalid_request_error", False, 1),
    "body_too_large": Word(413, "INVALID_ARGUMENT", "invalid_request_error", False, 1),
    "client_over_budget": Word(429, "RESOURCE_EXHAUSTED", "rate_limit_exceeded", True, 5),
    "not_served": Word(501, "UNIMPLEMENTED", "invalid_request_error", False, 1),
    "internal": Word(500, "INTERNAL", "server_error", True, 1),
}
INTERNAL = LOCAL["internal"]

# An answer that names no time of its own: these pass by themselves, soon.
SOON_S: Mapping[str, float] = {"overloaded": 1.0, "shutting_down": 2.0}


class Shape(StrEnum):
    """How a surface writes an error. Google's three surfaces share one envelope."""

    GOOGLE = "google"
    GOOGLE_ARRAY = "google-array"  # streams without `alt=sse`: an array of one
    OPENAI = "openai"
    INTERACTIONS = "interactions"


class Rendered(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


def word_of(error: PoolError) -> Word:
    """The table's row for `error`; a word nobody knows is a fault of ours."""
    return ERRORS.get(error.code) or LOCAL.get(error.code) or INTERNAL


def render(shape: Shape, error: PoolError, now: float) -> Rendered:
    """`error` as an HTTP answer of `shape`. `now` is Unix seconds, against which `retry_at` becomes a delay."""
    word = word_of(error)
    delay_s = retry_delay_s(error, now)
    headers = {"Content-Type": JSON}
    if delay_s is not None:
        headers["Retry-After"] = str(max(1, ceil(delay_s)))
        headers["retry-after-ms"] = str(max(1, ceil(delay_s * 1000)))  # OpenAI's SDKs read it first
    if error.code == "method_not_allowed" and error.details:
        headers["Allow"] = ", ".join(error.details["allowed"])
    return Rendered(word.http, headers, body_of(shape, error, delay_s))


def body_of(shape: Shape, error: PoolError, delay_s: float | None) -> bytes:
    """The body alone, on one line: it also ends a broken stream."""
    if shape is Shape.OPENAI:
        return msgspec.json.encode(_openai(error))
    if shape is Shape.INTERACTIONS:
        return msgspec.json.encode({"error": {"code": error.code, "message": str(error)}})
    body = msgspec.json.encode(_google(error, delay_s))
    return b"[" + body + b"]" if shape is Shape.GOOGLE_ARRAY else body


def retry_delay_s(error: PoolError, now: float) -> float | None:
    """Seconds after which the same request may be served; None when waiting is not what helps."""
    if error.retry_at is not None:
        return max(0.0, error.retry_at - now)
    return SOON_S.get(error.code)


def _google(error: PoolError, delay_s: float | None) -> dict[str, Any]:
    word = word_of(error)
    # Never a quotaId or a reason of Google's: gemini-cli gives up at once on those that mean a day.
    metadata = {"account": error.account} if error.account else {}
    details: list[dict[str, Any]] = [
        {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": error.code.upper(),
            "domain": DOMAIN,
            "metadata": metadata,
        }
    ]
    if delay_s is not None:
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": duration(delay_s)})
    return {"error": {"code": word.http, "message": str(error), "status": word.status, "details": details}}


def _openai(error: PoolError) -> dict[str, Any]:
    kind = word_of(error).openai_type
    return {"error": {"message": str(error), "type": kind, "param": None, "code": error.code}}


_BY_STATUS = {403: "permission_error", 429: "rate_limit_exceeded"}


def of_google(status: int, body: bytes) -> bytes:
    """Google's own refusal in OpenAI's form: its message, and its status as `code`."""
    try:
        value: Any = msgspec.json.decode(body)
    except UNREADABLE:
        value = None
    if isinstance(value, list) and value:
        value = value[0]
    error = value.get("error") if isinstance(value, dict) else None
    error = error if isinstance(error, dict) else {}
    kind = _BY_STATUS.get(status) or ("server_error" if status >= 500 else "invalid_request_error")
    told = {
        "message": str(error.get("message") or f"Google refused the request ({status})"),
        "type": kind,
        "param": None,
        "code": str(error.get("status") or "bad_request").lower(),
    }
    return msgspec.json.encode({"error": told})


def duration(seconds: float) -> str:
    """google.protobuf.Duration as JSON writes it, to the millisecond, never rounded down."""
    return f"{ceil(seconds * 1000) / 1000:.3f}".rstrip("0").rstrip(".") + "s"
