"""What a `with pool.lease(…)` block tells the daemon at its end, when the program itself told nothing.

Pure: both faces build their context managers on it.
"""

from __future__ import annotations

from typing import Any

from gemini_pool.calls import ReportOptions

_BODY_LIMIT = 64 * 1024  # an error body of Google's has a few kilobytes


def report_for(error: BaseException | None) -> ReportOptions | None:
    """The report for a block that ended with `error` (None: normally), or None when the lease was not used.

    HTTP errors of requests, httpx, aiohttp and urllib carry the answer, which is what the daemon wants to read. A
    network error says that none came. Whatever else went wrong is the program's own affair: the lease is given back.
    """
    if error is None:
        return {}
    response = getattr(error, "response", None)
    if (status := _status(response)) is not None:
        return {"status": status, "headers": _headers(response), "body": _text(response)}
    if (status := _status(error)) is not None:
        return {"status": status, "headers": _headers(error), "body": _text(error)}
    if isinstance(error, OSError) or _is_transport_error(error):
        return {"error": f"{type(error).__name__}: {error}"[:500]}
    return None


def _status(source: Any) -> int | None:
    for name in ("status_code", "status", "code"):
        value = getattr(source, name, None)
        if isinstance(value, int) and not isinstance(value, bool) and 100 <= value <= 599:
            return value
    return None


def _headers(source: Any) -> dict[str, str]:
    headers: Any = getattr(source, "headers", None)
    return {str(name): str(value) for name, value in headers.items()} if hasattr(headers, "items") else {}


def _text(source: Any) -> str:
    """The body, where it can be had without I/O that may fail; an unread stream has none."""
    try:
        if isinstance(text := getattr(source, "text", None), str):
            return text[:_BODY_LIMIT]
        if callable(read := getattr(source, "read", None)) and isinstance(data := read(_BODY_LIMIT), bytes):
            return data.decode("utf-8", "replace")
    except Exception:  # noqa: BLE001 - any HTTP library's own refusal; the status alone is worth reporting
        return ""
    return ""


def _is_transport_error(error: BaseException) -> bool:
    """httpx's and aiohttp's network errors are no OSErrors; their class names are what they have in common."""
    names = {base.__name__ for base in type(error).__mro__}
    return bool(names & {"TransportError", "ClientConnectionError", "RequestException", "HTTPException"})
