"""Reads and writes opencode's logins: `auth.json` with its packed strings, and `gemini-auth.json`.

A packed string is `refresh|project|managed project`, several of them joined by semicolons.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from ..credentials.base import Secret
from .found import Found, NotFound, Places, loose, project_of, read_object, text_of

PROVIDER = "google"
AUTH, ACCOUNTS = "auth.json", "gemini-auth.json"
ANTIGRAVITY = "antigravity-accounts.json"


class Packed(NamedTuple):
    """The parts of a packed string. `managed`: the project that Google made for the account."""

    refresh: str
    project: str = ""
    managed: str = ""


def pack(parts: Packed) -> str:
    """As the plugin writes it: the bare token without projects, nothing without a token."""
    if not parts.refresh:
        return ""
    if not parts.project and not parts.managed:
        return parts.refresh
    return f"{parts.refresh}|{parts.project}" + (f"|{parts.managed}" if parts.managed else "")


def unpack(text: str) -> list[Packed]:
    """Every login in a packed string; missing parts are empty, further ones (an e-mail in one fork) are dropped."""
    found = []
    for one in text.split(";"):
        refresh, project, managed, *_ = [*(part.strip() for part in one.split("|")), "", "", ""]
        if refresh:
            found.append(Packed(refresh, project_of(project), project_of(managed)))
    return found


def auth_path(places: Places) -> Path:
    return places.folder("XDG_DATA_HOME", ".local/share") / "opencode" / AUTH


def config_folder(places: Places) -> Path:
    """Where plugins keep files of their own."""
    if named := places.environ.get("OPENCODE_CONFIG_DIR"):
        return Path(named)
    return places.folder("XDG_CONFIG_HOME", ".config") / "opencode"


def read(places: Places, path: str = "") -> list[Found | NotFound]:
    """The logins of the file at `path`, else of both files in their places."""
    if path:
        return _read_file(places.path(path), places)
    files = [auth_path(places), config_folder(places) / ACCOUNTS]
    found = [each for file in files if file.exists() for each in _read_file(file, places)]
    antigravity = config_folder(places) / ANTIGRAVITY
    if antigravity.exists():
        reason = "its logins were made for another OAuth client and cannot be used here"
        found.append(NotFound(str(antigravity), reason, "gemini-pool login ID"))
    if found:
        return found
    return [NotFound(str(file), "there is no such file", "opencode auth login") for file in files[:1]]


def _read_file(path: Path, places: Places) -> list[Found | NotFound]:
    info = read_object(path)
    if isinstance(info, NotFound):
        return [info]
    if note := loose(path):
        places.notes.append(note)
    accounts = info.get("accounts")
    if isinstance(accounts, list):
        return _accounts(accounts, str(path)) or [NotFound(str(path), "there is no account in it")]
    return _auth(info.get(PROVIDER), f"{path} ({PROVIDER})")


def _auth(entry: Any, label: str) -> list[Found | NotFound]:
    if not isinstance(entry, dict):
        return [NotFound(label, "opencode is not logged in to Google", "opencode auth login")]
    if entry.get("type") == "api":
        return [NotFound(label, "it is an API key", "gemini-pool account add NAME --backend developer-api")]
    logins = unpack(text_of(entry.get("refresh")))
    if not logins:
        return [NotFound(label, "its login is empty: it was given up as dead", "gemini-pool login ID")]
    several = len(logins) > 1
    return [
        Found(
            f"{label} no. {number}" if several else label,
            refresh_token=Secret(login.refresh),
            project=login.project,
            name="opencode",
        )
        for number, login in enumerate(logins, 1)
    ]


def _accounts(accounts: list[Any], label: str) -> list[Found | NotFound]:
    """`gemini-auth.json`. A missing `enabled` meant off there, by mistake; only a plain no counts here."""
    found: list[Found | NotFound] = []
    for number, account in enumerate(accounts, 1):
        here = f"{label} no. {number}"
        logins = unpack(text_of(account.get("refreshToken"))) if isinstance(account, dict) else []
        if not logins:
            found.append(NotFound(here, "there is no refresh token in it"))
            continue
        email, name = text_of(account.get("email")), text_of(account.get("id"))
        found.append(
            Found(
                here,
                refresh_token=Secret(logins[0].refresh),
                project=project_of(account.get("projectId")) or logins[0].project,
                email=email or (name if "@" in name else ""),
                # The id may be the head of the token itself: never shown, never used.
                name=name if "@" in name else "opencode",
                enabled=account.get("enabled") is not False,
            )
        )
    return found
