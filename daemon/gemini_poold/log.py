"""Where log records go: to the journal with fields, or as lines to stderr; secrets masked on the way.

Nothing of ours writes a secret into a record in the first place (`credentials.base.Secret` prints as asterisks). The
masking here is the second line of defence, against what libraries and Google's own texts may bring along.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import struct
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from . import files

JOURNAL_SOCKET = "/run/systemd/journal/socket"
IDENTIFIER = "gemini-pool"
LEVELS: Mapping[str, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
# Attributes that a caller may pass in `extra=`, and that become fields of the journal (GEMINI_POOL_ACCOUNT …).
FIELDS = ("account", "model", "event", "client", "request", "lease", "attempt", "code",
          "surface", "attempts", "wait_ms", "first_byte_ms", "total_ms", "bytes_in", "bytes_out", "tokens_in",
          "tokens_out", "outcome")  # fmt: skip
MAX_MESSAGE = 8192
# Libraries that narrate at INFO what is of no use to our users.
QUIET = ("watchfiles", "aiohttp.access", "asyncio", "google", "urllib3")

# Fields with few values. A request of its own is told by its line, and that line is a good part of what it costs.
_REPEATED = frozenset({"account", "model", "event", "client", "code", "surface", "outcome"})
_MOST_CLEAN = 1_000
_clean: set[str] = set()  # their values in which nothing looks like a credential

_ours: set[logging.Handler] = set()  # what `setup` installed, so that it replaces nobody else's handlers

_MASK = "***"
_SECRETS = re.compile(
    r"""(?P<keep>\b(?:Bearer|Basic)\s+|(?:(?<![\w-])|(?<=%3F)|(?<=%26))(?:key|access_token|refresh_token|id_token|client_secret|assertion)
            (?:=|%3D|["']?\s*:\s*["']))[^\s&"',;)\]}]+
      | ya29\.[\w.~+/-]+=*
      | \bAIza[\w-]{10,}
      | \bAQ\.[\w-]{10,}
      | \b1//[\w-]{10,}
      | \b4(?:/|%2F)[\w-]{10,}
      | \bGOCSPX-[\w-]+
      | \bgp-[\w-]{32,}
      | \beyJ[\w-]{10,}\.[\w-]+\.[\w-]*
      | -----BEGIN\ [A-Z ]*PRIVATE\ KEY-----.*?(?:-----END\ [A-Z ]*PRIVATE\ KEY-----|\Z)""",
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)


# Every match of _SECRETS holds one of these, in lower case. Looking for them first spares nearly every record the search,
# which would be a tenth of the cost of a small request.
_NEEDLES = (
    *("bearer", "basic", "key", "_token", "client_secret", "assertion"),
    *("ya29.", "aiza", "aq.", "1//", "4/", "4%2f", "gocspx-", "gp-", "eyj", "-----begin"),
)


def masked(text: str) -> str:
    """The text with everything that looks like a credential replaced by asterisks."""
    lowered = text.lower()
    for needle in _NEEDLES:
        if needle in lowered:
            return _SECRETS.sub(lambda match: (match["keep"] or "") + _MASK, text)
    return text


def setup(
    level: str = "info", *, stream: IO[str] | None = None, environ: Mapping[str, str] | None = None
) -> None:
    """Send the records of this process where they belong; a second call replaces the first.

    The journal, when stderr is the journal's stream (systemd sets JOURNAL_STREAM), else lines to `stream` (stderr).
    """
    stream = sys.stderr if stream is None else stream
    handler: logging.Handler
    if _is_journal(stream, os.environ if environ is None else environ) and os.path.exists(JOURNAL_SOCKET):  # noqa: PTH110
        handler = JournalHandler(JOURNAL_SOCKET)
    else:
        handler = logging.StreamHandler(stream)
        handler.setFormatter(LineFormatter())
    # What no line of ours tells is not looked up for each of them.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    root = logging.getLogger()
    for old in [old for old in root.handlers if old in _ours]:
        root.removeHandler(old)
        _ours.discard(old)
        old.close()
    _ours.add(handler)
    root.addHandler(handler)
    set_level(level)


def set_level(level: str) -> None:
    """Change the level at run time; `level` is a word of LEVELS."""
    number = LEVELS[level]
    logging.getLogger().setLevel(number)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))


BODIES = logging.getLogger(
    "gemini_pool.bodies"
)  # what is sent and what comes back; into the debug file alone
BODIES.propagate = False
BODIES.setLevel(logging.CRITICAL)
BODY_MAX = 2_000


def set_debug_file(path: str) -> None:
    """Write bodies, cut and masked, to this file (0600) from now on; "" ends it. Raises OSError, or `FileRefused` when
    the file is a link or is not ours alone."""
    for old in list(BODIES.handlers):
        BODIES.removeHandler(old)
        old.close()
    BODIES.setLevel(logging.CRITICAL)
    if not path:
        return
    file = Path(path).expanduser()
    with contextlib.suppress(FileExistsError):
        files.create_private(file)
    files.check_private(file)
    handler = logging.FileHandler(file, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    BODIES.addHandler(handler)
    BODIES.setLevel(logging.DEBUG)


def tell_body(what: str, where: str, body: bytes) -> None:
    """One body into the debug file: cut at 2,000 characters, secrets masked. Ask `BODIES.isEnabledFor` first."""
    text = body[: 4 * BODY_MAX].decode("utf-8", "replace")[:BODY_MAX]
    rest = "" if len(body) <= len(text.encode()) else f" … ({len(body)} bytes in all)"
    BODIES.debug("%s %s %s%s", what, where, masked(text), rest)


_NOT_LOOKED_UP: Mapping[str, object] = {
    **dict.fromkeys(("args", "exc_info", "exc_text", "stack_info")),
    **dict.fromkeys(("process", "processName", "thread", "threadName", "taskName")),
    **dict.fromkeys(("pathname", "filename", "module", "funcName"), ""),
    "lineno": 0, "relativeCreated": 0.0,
}  # fmt: skip


class Line(logging.LogRecord):
    """A record for what is told of every request: its text is whole already, its fields stand in FIELDS' order. Where it was
    written is not looked up for each of them."""

    def __init__(self, name: str, level: int, text: str, fields: dict[str, object]) -> None:
        own = self.__dict__
        own.update(_NOT_LOOKED_UP)
        own.update(fields)
        self.fields = fields
        self.name, self.msg = name, text
        self.levelno, self.levelname = level, logging.getLevelName(level)
        self.created = created = time.time()
        self.msecs = int(created % 1 * 1000) + 0.0

    def getMessage(self) -> str:  # noqa: N802  (logging's name)
        return str(self.msg)


class LineFormatter(logging.Formatter):
    """One line a record, ASCII: "warning account=work model=… message". The time is whoever reads stderr's business."""

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join([f" {name}={value}" for name, value in _fields(record)])
        text = _message(record).replace("\n", "\\n")
        line = f"{record.levelname.lower()}{fields} {text}"
        return line if line.isascii() else line.encode("ascii", "backslashreplace").decode()


class JournalHandler(logging.Handler):
    """journald's native protocol: one datagram a record, a field a line, values with line ends in the length form."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self._address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)  # a journal that does not read loses our lines, never our time

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._socket.sendto(journal_datagram(record), self._address)
        except OSError:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (logging's name)
        """The journal is away or full; stderr leads to the same place, so there is nobody to tell."""

    def close(self) -> None:
        self._socket.close()
        super().close()


def journal_datagram(record: logging.LogRecord) -> bytes:
    """The record as journald wants it."""
    pairs = [
        ("MESSAGE", _message(record)),
        ("PRIORITY", str(_priority(record.levelno))),
        ("SYSLOG_IDENTIFIER", IDENTIFIER),
        ("LOGGER", record.name),
        *((f"GEMINI_POOL_{name.upper()}", value) for name, value in _fields(record)),
    ]
    return b"".join(_journal_field(name, value) for name, value in pairs)


def _journal_field(name: str, value: str) -> bytes:
    data = value.encode("utf-8", "backslashreplace")
    if b"\n" in data:
        return name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"
    return name.encode() + b"=" + data + b"\n"


def _priority(level: int) -> int:
    """syslog's numbers: 3 error, 4 warning, 6 info, 7 debug."""
    if level >= logging.ERROR:
        return 2 if level >= logging.CRITICAL else 3
    return 4 if level >= logging.WARNING else 6 if level >= logging.INFO else 7


def _fields(record: logging.LogRecord) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    given = record.__dict__
    for name, value in (
        record.fields.items() if type(record) is Line else [(name, given.get(name)) for name in FIELDS]
    ):
        if value is None or value == "":
            continue
        if isinstance(value, int):
            found.append((name, str(value)))
        else:
            text = str(value)
            found.append((name, text if text in _clean else _masked_word(name, text)))
    return found


def _masked_word(name: str, text: str) -> str:
    """A field's value, masked. The few that come again and again are looked at once; never is one kept that was masked."""
    found = masked(text)
    if found == text and name in _REPEATED:
        if len(_clean) >= _MOST_CLEAN:
            _clean.clear()
        _clean.add(text)
    return found


def _message(record: logging.LogRecord) -> str:
    text = record.getMessage()
    if record.exc_info and record.exc_info[0] is not None:
        # Frames and kinds of errors, never their values' reprs; the text of the error itself is masked below.
        text = f"{text}\n{logging.Formatter().formatException(record.exc_info)}"
    text = masked(text)
    return text if len(text) <= MAX_MESSAGE else text[:MAX_MESSAGE] + "..."


def _is_journal(stream: IO[str], environ: Mapping[str, str]) -> bool:
    """Whether `stream` is the very socket that systemd connected to the journal (device and inode agree)."""
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        info = os.fstat(stream.fileno())
    except (OSError, ValueError, AttributeError):
        return False
    return (device, inode) == (str(info.st_dev), str(info.st_ino))
