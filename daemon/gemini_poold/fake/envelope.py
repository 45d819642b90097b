"""Google's error envelope and its dressings, and `Reply`, what a handler gives back.

The rows themselves (which refusal says what) are in `throttle` and `refusals`; `replies` is the door to all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import msgspec

Json: TypeAlias = dict[str, Any]
Body: TypeAlias = Json | Sequence[Any] | bytes | str
Delay: TypeAlias = str | Mapping[str, int | str]

JSON_TYPE = "application/json; charset=UTF-8"
HTML_TYPE = "text/html; charset=UTF-8"
RPC = "type.googleapis.com/google.rpc."

dumps = msgspec.json.encode
loads = msgspec.json.decode

STATUS_WORDS: Mapping[int, str] = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer. `body` goes out as it stands."""

    status: int
    body: bytes
    content_type: str = JSON_TYPE
    headers: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def json(value: Any, status: int = 200, **headers: str) -> Reply:
        return Reply(status, dumps(value), headers={k.replace("_", "-"): v for k, v in headers.items()})


class Refused(Exception):
    """Ends a handler with a reply. Made from an error body, whose `code` is the HTTP status, or from a reply."""

    def __init__(self, reply: Reply | Json) -> None:
        self.reply = reply if isinstance(reply, Reply) else Reply(reply["error"]["code"], dumps(reply))
        super().__init__(self.reply.status)


def error(code: int, message: str, *details: Json, status: str = "", **more: Any) -> Json:
    """`{"error": {...}}`; `status` defaults to the word that belongs to `code`."""
    word = status or STATUS_WORDS.get(code, "UNKNOWN")
    body: Json = {"code": code, "message": message, "status": word, **more}
    if details:
        body["details"] = list(details)
    return {"error": body}


def info(reason: str, domain: str, **metadata: str) -> Json:
    detail: Json = {"@type": f"{RPC}ErrorInfo", "reason": reason, "domain": domain}
    if metadata:
        detail["metadata"] = metadata
    return detail


def retry_info(delay: Delay) -> Json:
    return {"@type": f"{RPC}RetryInfo", "retryDelay": delay}


def help_links(*links: tuple[str, str]) -> Json:
    return {"@type": f"{RPC}Help", "links": [{"description": text, "url": url} for text, url in links]}


def quota_failure(*violations: Json) -> Json:
    return {"@type": f"{RPC}QuotaFailure", "violations": list(violations)}


def localized(message: str, locale: str = "en-US") -> Json:
    return {"@type": f"{RPC}LocalizedMessage", "locale": locale, "message": message}


def bad_request(field_path: str, description: str) -> Json:
    violation = {"description": description} | ({"field": field_path} if field_path else {})
    return {"@type": f"{RPC}BadRequest", "fieldViolations": [violation]}


# Dressings: the same error as other layers of Google wrap it.


def array_wrapped(body: Json) -> list[Json]:
    """As the streaming endpoints without `alt=sse` answer."""
    return [body]


def nested(body: Json, depth: int = 1, code: int = 0) -> Json:
    """The whole error as JSON text inside the message of an outer one, `depth` times."""
    for _ in range(depth):
        inner = body["error"]
        body = error(code or inner["code"], dumps(body).decode(), status=inner["status"])
    return body


def mangled(body: Json) -> bytes:
    """Parsable only by the tolerant: NBSP and newline in the text, blanks around `@type`, a doubled comma."""
    text = dumps(body).decode()
    text = text.replace('"@type":', '" @type ":').replace(',"', ',\u00a0\n"')
    return text.replace(",\u00a0\n", ",,\u00a0\n", 1).encode()


def sorry_page() -> bytes:
    """The captcha page of a flagged network."""
    return (
        b"<html><head><meta http-equiv='content-type' content='text/html; charset=utf-8'/><title>Sorry...</title>"
        b"</head><body><div>We're sorry... but your computer or network may be sending automated queries.</div></body></html>"
    )


def error_page(code: int, text: str = "That's an error.") -> bytes:
    return (
        f"<!DOCTYPE html>\n<html lang=en>\n<title>Error {code}</title>\n<p><b>{code}.</b> <ins>{text}</ins>\n</html>\n"
    ).encode()
