"""The support archive: what doctor saw, with everything taken out that could be a secret or a person.

Secrets themselves are never read. Keys, tokens, addresses of people and names of the home folder are replaced in every
text that goes in.
"""

from __future__ import annotations

import io
import os
import platform
import re
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from gemini_pool import wire
from gemini_pool.doctor import Finding, Patient, as_text

_SECRET = re.compile(
    r"""-----BEGIN[^-]*PRIVATE\ KEY-----.*?(?:-----END[^-]*-----|\Z)
      | (?P<keep>\b(?:Bearer|Basic)\s+|(?:key|token|secret|password|assertion|authorization)["']?\s*[=:]\s*["']?)[^\s"',;)\]}]{8,}
      | (?P<url>://)[^/@\s"']+(?=@)
      | \b[\w.+-]+@[\w-]+\.[\w.-]+
      | \b(?:ya29\.|AIza|AQ\.|1//|GOCSPX-|gp-|eyJ)[\w./+~=-]{8,}
      | \b[A-Za-z0-9_-]{40,}\b""",
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
# A secret's own program: its arguments may name what is private, so nobody is shown them.
_COMMAND = re.compile(r"""(\bcommand["']?\s*[=:]\s*\[)(?:"(?:\\.|[^"\\])*"|'[^']*'|\#[^\n]*|[^\]"'\#])*""")
LOG_LINES = 500


def redacted(text: str, home: str = "") -> str:
    """The text without credentials, people's addresses, and the name of the home folder."""
    text = _COMMAND.sub(r"\1***", text)
    text = _SECRET.sub(lambda match: (match["keep"] or match["url"] or "") + "***", text)
    return text.replace(home, "~") if len(home) > 1 else text


def write(path: str, patient: Patient, found: list[Finding]) -> None:
    """A .tar.gz of mode 0600; a file that is there is not replaced."""
    home = patient.environ.get("HOME", "")
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, text in _parts(patient, found):
            data = redacted(text, home).encode()
            entry = tarfile.TarInfo(f"gemini-pool-doctor/{name}")
            entry.size, entry.mode, entry.mtime = len(data), 0o600, int(time.time())
            archive.addfile(entry, io.BytesIO(data))


def _parts(patient: Patient, found: list[Finding]) -> Iterator[tuple[str, str]]:
    yield "findings.txt", as_text(found) + "\n"
    yield "findings.json", _json(found)
    yield "system.txt", f"gemini-pool {wire.VERSION}\nPython {sys.version}\n{platform.platform()}\n"
    yield "info.json", _json(patient.info)
    yield "status.json", _json(patient.status)
    for path in (patient.where.config_file, patient.where.accounts_file):
        yield path.name, _read(path)
    from gemini_pool import logs, service

    yield "service.json", _json(service.pick(environ=patient.environ).state())
    yield "log.txt", logs.tail(patient.environ, LOG_LINES)


def _json(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        return f"{error.strerror}\n"
