"""Google's own JSON credential files: reading one, and saying what is wrong with it without quoting it."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import msgspec

from ..config import Endpoints
from .secret_ref import Source, unreadable


def read_json(data: bytes, source: Source, account: str, wanted: tuple[str, ...] = ()) -> dict[str, Any]:
    """A credential file's object; with `wanted`, only of these types (the first where none is named). Raises
    `CredentialError`."""
    try:
        info = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        info = None
    if not isinstance(info, dict):
        raise unreadable(
            account, f"{source.described} is not a JSON credential file", "put Google's own file there"
        )
    if "installed" in info or "web" in info:
        problem = f"{source.described} is an OAuth client, not a login"
        raise unreadable(account, problem, f"gemini-pool login {account} --client-secrets FILE")
    kind = info.get("type", wanted[0] if wanted else "")
    if wanted and kind not in wanted:
        problem = f"{source.described} is a credential of type {str(kind)[:40]!r}, not {' or '.join(wanted)}"
        raise unreadable(account, problem, "correct `credential.type` in accounts.toml, or the file")
    return info


def require(info: dict[str, Any], names: tuple[str, ...], source: Source, account: str) -> None:
    """All of `names` are there as non-empty texts. Raises `CredentialError` naming the first that is not."""
    for name in names:
        if not isinstance(info.get(name), str) or not info[name]:
            raise unreadable(
                account, f"{source.described} has no {name}", f"gemini-pool account verify {account}"
            )


def rebased(url: str, base: str, name: str) -> str:
    """A credential file's own `url`, on the host of the configured endpoint `name` when the user replaced that."""
    if base == getattr(Endpoints(), name):
        return url
    parts = urlsplit(url)
    return base + parts.path + (f"?{parts.query}" if parts.query else "")
