"""Log records on their way out: where they go, in which form, and that no secret goes along."""

from __future__ import annotations

import io
import logging
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from gemini_poold import log


@pytest.fixture(autouse=True)
def _loggers() -> Iterator[None]:
    """Leave the process's loggers as they were."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    for handler in [handler for handler in root.handlers if handler not in handlers]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)


def record(message: str, *args: object, level: int = logging.WARNING, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("gemini_poold.x", level, "f.py", 1, message, args, None)
    made.__dict__.update(fields)
    return made


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Authorization: Bearer fake.token-1 sent", "Authorization: Bearer *** sent"),
        ("GET /v1beta/models?key=fake-key-1&alt=sse", "GET /v1beta/models?key=***&alt=sse"),
        ("x%3Fkey%3Dfake-key-1", "x%3Fkey%3D***"),
        ("the local key gp-" + "fake_" * 6 + "-1 was sent", "the local key *** was sent"),
        ("access ya" + "29.A0fake_x-1/2== end", "access *** end"),
        ("key AI" + "zaFakeFakeFakeFake_-1 end", "key *** end"),
        ("key A" + "Q.FakeFakeFake_-1 end", "key *** end"),
        ("refresh 1" + "//0FakeFakeFakeFake end", "refresh *** end"),
        ("secret GOC" + "SPX-fake_fake end", "secret *** end"),
        ('{"refresh_token": "fake-1", "a": 1}', '{"refresh_token": "***", "a": 1}'),
        ("client_secret=fake&grant_type=refresh_token", "client_secret=***&grant_type=refresh_token"),
        ("jwt e" + "yJhbGciOiJSUzI1NiJ9.e30.c2ln end", "jwt *** end"),
        ("a -----BEGIN PRIVATE " + "KEY-----\nMIIfake\n-----END PRIVATE " + "KEY----- b", "a *** b"),
        ("a -----BEGIN RSA PRIVATE " + "KEY-----\nMIIfake (cut", "a ***"),
        ("monkey=1, keyring=a/b, the key is fine", "monkey=1, keyring=a/b, the key is fine"),
        (
            "code=4" + "/0FakeFakeFake&state=1, code=RESOURCE_EXHAUSTED",
            "code=***&state=1, code=RESOURCE_EXHAUSTED",
        ),
    ],
)
def test_what_looks_like_a_credential_is_masked(text: str, expected: str) -> None:
    """Every shape that Google's secrets have is replaced; ordinary words stay readable."""
    assert log.masked(text) == expected


def test_a_line_has_level_fields_and_message_in_ascii() -> None:
    """One record is one line whatever is in it: line ends and foreign letters are escaped, secrets masked."""
    line = log.LineFormatter().format(
        record(
            "cooling %s\nuntil 12:00 … key=%s",
            "gemini-3",
            "fake-key-1",
            account="wörk",
            model="gemini-3",
            x=1,
        )
    )
    assert line == r"warning account=w\xf6rk model=gemini-3 cooling gemini-3\nuntil 12:00 \u2026 key=***"


def test_a_traceback_is_masked_and_the_message_bounded() -> None:
    """The error's text and kind are there without its secret; a huge text is cut."""
    try:
        raise ValueError("token=Bearer fake-token-1")
    except ValueError as error:
        made = record("broke", exc_info=(ValueError, error, error.__traceback__))
    text = log.LineFormatter().format(made)
    assert "ValueError" in text
    assert "Bearer ***" in text
    assert "fake-token-1\n" not in text.replace("\\n", "\n").split("ValueError: ")[-1]
    assert len(log.LineFormatter().format(record("x" * 100_000))) < log.MAX_MESSAGE + 100


def parsed(datagram: bytes) -> dict[str, str]:
    """journald's native protocol, read back."""
    fields = {}
    while datagram:
        line, _, datagram = datagram.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (length,) = struct.unpack("<Q", datagram[:8])
            value, datagram = datagram[8 : 8 + length], datagram[8 + length + 1 :]
        fields[name.decode()] = value.decode()
    return fields


@pytest.mark.parametrize(
    ("level", "priority"), [(10, "7"), (20, "6"), (25, "6"), (30, "4"), (40, "3"), (50, "2")]
)
def test_the_journal_gets_fields(level: int, priority: str) -> None:
    """Account, model and event are fields of their own; a message of several lines uses the length form."""
    made = record("a\nb=c", level=level, account="work", event="cooldown", model="", lease=None)
    assert parsed(log.journal_datagram(made)) == {
        "MESSAGE": "a\nb=c",
        "PRIORITY": priority,
        "SYSLOG_IDENTIFIER": "gemini-pool",
        "LOGGER": "gemini_poold.x",
        "GEMINI_POOL_ACCOUNT": "work",
        "GEMINI_POOL_EVENT": "cooldown",
    }


def test_under_systemd_records_go_to_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When JOURNAL_STREAM names stderr's device and inode, a record is a datagram and stderr stays empty."""
    journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    journal.bind(str(tmp_path / "journal"))
    journal.settimeout(5)
    monkeypatch.setattr(log, "JOURNAL_SOCKET", str(tmp_path / "journal"))
    with journal, (tmp_path / "stderr").open("w+") as stderr:
        info = os.fstat(stderr.fileno())
        log.setup("info", stream=stderr, environ={"JOURNAL_STREAM": f"{info.st_dev}:{info.st_ino}"})
        logging.getLogger("gemini_poold.y").info("hello %s", "ü", extra={"account": "a"})
        fields = parsed(journal.recv(65536))
        stderr.seek(0)
        assert stderr.read() == ""
    assert (fields["MESSAGE"], fields["GEMINI_POOL_ACCOUNT"]) == ("hello ü", "a")


def test_a_journal_that_is_away_costs_nothing(tmp_path: Path) -> None:
    """A socket with nobody at its other end loses the record and raises nothing."""
    handler = log.JournalHandler(str(tmp_path / "nobody"))
    handler.emit(record("lost"))
    handler.close()


@pytest.mark.parametrize("value", ["", "1:2", "nonsense", "0:0"])
def test_elsewhere_records_are_lines_on_stderr(value: str) -> None:
    """Another stream's JOURNAL_STREAM, or none, means plain lines."""
    stream = io.StringIO()
    log.setup("warning", stream=stream, environ={"JOURNAL_STREAM": value})
    logging.getLogger("gemini_poold.z").info("too quiet")
    logging.getLogger("gemini_poold.z").error("loud", extra={"account": "a"})
    assert stream.getvalue() == "error account=a loud\n"


def test_the_level_changes_at_run_time_and_libraries_stay_quiet() -> None:
    """`set_level` holds at once; what libraries narrate at INFO never comes through; setting up twice doubles nothing."""
    stream = io.StringIO()
    log.setup("error", stream=io.StringIO(), environ={})
    log.setup("error", stream=stream, environ={})
    logger = logging.getLogger("gemini_poold.z")
    logger.debug("one")
    log.set_level("debug")
    logger.debug("two")
    logging.getLogger("watchfiles.main").info("3 changes detected")
    logging.getLogger("watchfiles.main").warning("three")
    assert stream.getvalue() == "debug two\nwarning three\n"


def test_only_what_needed_no_mask_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shortcut for values that come again keeps none that was masked, masks it the second time as well, and is
    bounded."""
    monkeypatch.setattr(log, "_clean", set())
    secret = "Bearer abcdef0123456789"
    for _ in range(2):
        line = log.LineFormatter().format(record("hello", account=secret, client="editor"))
        assert "abcdef" not in line
        assert "client=editor" in line
    assert log._clean == {"editor"}
    for n in range(2 * log._MOST_CLEAN):
        log.LineFormatter().format(record("hello", model=f"model-{n}"))
    assert len(log._clean) <= log._MOST_CLEAN


def test_a_requests_line_is_a_record_like_another() -> None:
    """In both forms the same fields and text as a record that logging makes, secrets masked; any formatter can show it."""
    fields: dict[str, object] = {
        "account": "work", "model": "m", "event": "request", "client": "", "request": "r1", "code": "",
        "attempts": 2, "first_byte_ms": "", "outcome": "key=" + "s3cret" * 4,
    }  # fmt: skip
    text = "gl generateContent: 200\nSTOP é Bearer " + "t0ken" * 4
    line = log.Line("gemini_pool.gateway", logging.INFO, text, fields)
    made = logging.getLogger("gemini_pool.gateway").makeRecord(
        "gemini_pool.gateway", logging.INFO, "f", 1, text, (), None, "f", fields
    )
    shown = log.LineFormatter().format(line)
    assert shown == log.LineFormatter().format(made)
    assert log.journal_datagram(line) == log.journal_datagram(made)
    assert "s3cret" not in shown
    assert "t0ken" not in shown
    assert "account=work model=m event=request request=r1 attempts=2 outcome=key=***" in shown
    ours = logging.Formatter(
        "%(asctime)s %(name)s %(process)s %(threadName)s %(pathname)s:%(lineno)d %(message)s"
    )
    assert "gemini_pool.gateway" in ours.format(line)
