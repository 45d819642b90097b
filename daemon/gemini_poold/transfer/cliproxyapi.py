"""Reads a folder of CLIProxyAPI's: one JSON file a login. Those of other companies' models are passed by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from ..credentials.base import Secret
from ..login.oauth_client import FOREIGN, of_login
from .found import Found, NotFound, Places, json_object, loose, project_of, read_object, text_of

FOLDER = ".cli-proxy-api"


def read(places: Places, path: str = "") -> list[Found | NotFound]:
    """Every JSON file of the folder at `path` (or the one file), else of the program's own folder."""
    given = places.path(path) if path else places.home / FOLDER
    if given.is_file():
        files = [given]
    elif given.is_dir():
        files = sorted(given.glob("*.json"))
    else:
        return [NotFound(str(given), "there is no such folder")]
    if not files:
        return [NotFound(str(given), "there is no JSON file in it")]
    places.notes += [note for file in files if (note := loose(file))]
    return [_read_file(file) for file in files]


def _read_file(path: Path) -> Found | NotFound:
    info = read_object(path)
    if isinstance(info, NotFound):
        return info
    match info.get("type"):
        case "gemini" | "gemini-cli":
            return _login(info, path)
        case "vertex":
            return _service_account(info, path)
        case "antigravity":
            reason = "its login was made for another OAuth client and cannot be used here"
            return NotFound(str(path), reason, "gemini-pool login ID")
        case str() as kind:
            return NotFound(str(path), f"a login of type {kind[:40]!r} is not Google's")
    return NotFound(str(path), "it does not say what it is")


def _login(info: dict[str, Any], path: Path) -> Found | NotFound:
    """`token` is what Google's libraries keep of a login, client included."""
    token = info.get("token")
    token = json_object(token) if isinstance(token, str) else token
    refresh = text_of(token.get("refresh_token")) if isinstance(token, dict) else ""
    if not isinstance(token, dict) or not refresh:
        return NotFound(str(path), "there is no refresh token in it", "gemini-pool login ID")
    projects = [project_of(each) for each in text_of(info.get("project_id")).split(",")]
    project = projects[0] if projects[0].lower() != "all" else ""
    email = text_of(info.get("email"))
    return Found(
        str(path),
        refresh_token=Secret(refresh),
        client=of_login(token, FOREIGN),
        project=project,
        email=email,
        name=email,
        enabled=info.get("disabled") is not True,
    )


def _service_account(info: dict[str, Any], path: Path) -> Found | NotFound:
    content = info.get("service_account")
    if not isinstance(content, dict) or content.get("type", "service_account") != "service_account":
        return NotFound(str(path), "there is no service account in it")
    content = {"type": "service_account", **content}
    email = text_of(info.get("email")) or text_of(content.get("client_email"))
    return Found(
        str(path),
        kind="service_account",
        content=Secret(msgspec.json.format(msgspec.json.encode(content), indent=2).decode() + "\n"),
        backend="vertex",
        project=project_of(info.get("project_id")) or project_of(content.get("project_id")),
        location=text_of(info.get("location")),
        email=email,
        name=email,
        enabled=info.get("disabled") is not True,
    )
