"""What a reader of another program's files finds: logins to import, and what is none, with the reason.

Readers only read: they lock, change and create nothing, and follow no list of places that the user did not name or the
program does not use by itself.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from ..credentials.base import Secret
from ..login.oauth_client import OAuthClient
from ..transport import MAX_FETCH

MAX_FILE = MAX_FETCH


@dataclass(frozen=True, slots=True)
class Found:
    """One login. `label`: where it was found, for people. `client`: None when the file does not say with which it was
    made (then it is Gemini CLI's). `content`: a whole credential file (`kind` other than "oauth"); None for a login
    that stays where it is (`path`)."""

    label: str
    kind: str = "oauth"  # oauth, service-account, adc
    refresh_token: Secret | None = None
    client: OAuthClient | None = None
    content: Secret | None = None
    path: str = ""
    backend: str = "code-assist"
    project: str = ""
    location: str = ""
    email: str = ""
    name: str = ""  # what the program calls it
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class NotFound:
    """What looked like a login and is none that can be imported, or a place where nothing is."""

    label: str
    reason: str
    next: str = ""


@dataclass(slots=True)
class Places:
    """Where other programs keep things: the environment and home folder of the person who imports. `named`: the home
    was named, so variables of the daemon's own environment say nothing about it."""

    environ: Mapping[str, str]
    home: Path
    named: bool = False
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, environ: Mapping[str, str], home: str = "") -> Places:
        if home:
            return cls({"PATH": environ.get("PATH", "")}, Path(home).expanduser(), named=True)
        return cls(environ, Path(environ.get("HOME") or Path.home()))

    def folder(self, variable: str, default: str) -> Path:
        """A folder that an absolute variable names, else `default` below the home."""
        value = self.environ.get(variable, "")
        return Path(value) if value.startswith("/") else self.home / default

    def path(self, given: str) -> Path:
        """A path that a person gave."""
        return self.home / given[2:] if given.startswith("~/") else Path(os.path.abspath(given))  # noqa: PTH100


def read_text(path: Path) -> str | NotFound:
    """A file's text. Links are followed: people keep such files in their dot-file folders."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except FileNotFoundError:
        return NotFound(str(path), "there is no such file")
    except OSError as error:
        return NotFound(str(path), f"it cannot be read: {error.strerror}")
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return NotFound(str(path), "it is no regular file")
        data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        return NotFound(str(path), "it is too large for a login")
    return data.decode("utf-8", "replace")


def read_object(path: Path) -> dict[str, Any] | NotFound:
    """A file's JSON object."""
    text = read_text(path)
    if isinstance(text, NotFound):
        return text
    found = json_object(text)
    return NotFound(str(path), "it is not JSON, or cut off") if found is None else found


def json_object(text: str | bytes) -> dict[str, Any] | None:
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return value if isinstance(value, dict) else None


def text_of(value: Any) -> str:
    """A text of a stranger's JSON, "" for everything else."""
    return value.strip() if isinstance(value, str) else ""


def project_of(value: Any) -> str:
    """A project's id, however it is written."""
    return text_of(value).removeprefix("projects/")


def loose(path: Path) -> str:
    """A warning when others could read the file."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return ""
    return f"{path} can be read by others: chmod 600 {path}" if mode & 0o044 else ""


def id_from(*candidates: str) -> str:
    """An account's id made of the first candidate that gives one (an e-mail's name, a program's label)."""
    for candidate in candidates:
        name = re.sub(r"[^a-z0-9._-]+", "-", candidate.partition("@")[0].lower()).strip("-.")[:48]
        if name:
            return name
    return "imported"
