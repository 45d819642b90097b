"""What of a client's request goes on to Google where it is passed through: its path, its query, its headers.

Pure. What is sent is made anew of what was judged, so that nothing can mean one thing here and another there. No
credential of the client's, no parameter that Google reads as one or as other headers, and no header that was meant for
this connection alone ever goes on.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from urllib.parse import parse_qsl, quote, urlencode

from gemini_pool.errors import PoolError

# Google's system parameters that are credentials, or stand for headers and methods (`$httpHeaders`, `$httpMethod`).
_CREDENTIALS = frozenset({"key", "access_token", "oauth_token", "bearer_token", "xoauth_requestor_id"})
_SAFE = "!$&'()*+,;=:@-._~"


def path(decoded: str) -> str:
    """The path of a URL of Google's, from the decoded one that was routed by. PoolError for what leaves its place."""
    segments = decoded.removeprefix("/").split("/")
    for segment in segments:
        if segment in ("", ".", "..") or not segment.isprintable() or "\\" in segment:
            raise PoolError(
                "bad_request", "the path has an empty segment, one of dots, or a control character"
            )
    return "/" + "/".join(quote(segment, safe=_SAFE) for segment in segments)


def query(raw: str, drop: Collection[str] = ()) -> list[tuple[str, str]]:
    """The parameters that go on, decoded; `drop`: names of ours."""
    return [
        (name, value)
        for name, value in parse_qsl(raw, keep_blank_values=True)
        if name not in drop and not _is_credential(name)
    ]


def with_query(path: str, parameters: list[tuple[str, str]]) -> str:
    return f"{path}?{urlencode(parameters)}" if parameters else path


def headers(given: Mapping[str, str], names: Collection[str]) -> dict[str, str]:
    """Those of `names` that are there, but for the ones that `Connection` takes for itself."""
    found = {name: checked(name, given[name]) for name in names if name in given}
    return without_hop(given, found) if found else found


def without_hop(given: Mapping[str, str], found: dict[str, str]) -> dict[str, str]:
    """`found` without what the client's `Connection` names: it is meant for this hop."""
    if "Connection" not in given:
        return found
    named = {name.strip().lower() for name in given["Connection"].split(",")}
    return {name: value for name, value in found.items() if name.lower() not in named}


def checked(name: str, value: str) -> str:
    """A header's value that can be sent on. One that cannot would look like a failure of the account's way to Google."""
    if not value.isascii() or not value.replace("\t", " ").isprintable():
        raise PoolError("bad_request", f"the header {name} must be printable ASCII")
    return value


def _is_credential(name: str) -> bool:
    plain = name.lower().removeprefix("$").removeprefix(".")
    return plain in _CREDENTIALS or plain.startswith("http")
