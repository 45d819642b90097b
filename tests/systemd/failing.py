"""Daemons that cannot start, and those of another version: what the manager makes of them. As `scenarios.py`."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import inside
from inside import SERVICE, SOCKET, STATE, Google, ask, key_account, show, status, systemctl, wait_for

from gemini_poold.store import migrations

CRASH = """#!/bin/sh
export PYTHONPATH={path}
exec {python} -c '
import sys
from gemini_poold import app
app.Daemon.start = lambda *_: 1 / 0
sys.exit(app.main())'
"""
DATABASE = STATE / "state.db"
SCENARIOS: dict[str, Callable[[Google], dict[str, Any]]] = {}


def scenario(function: Callable[[Google], dict[str, Any]]) -> Callable[[Google], dict[str, Any]]:
    SCENARIOS[function.__name__] = function
    return function


def _installed(google: Google) -> None:
    inside.install()
    inside.write_accounts(key_account(google, "key-a"))
    inside.write_config(google)


def _starts() -> int:
    return sum(str(entry.get("MESSAGE", "")).startswith("Starting ") for entry in inside.journal())


def _unit() -> dict[str, str]:
    names = ("ActiveState", "SubState", "Result", "ExecMainStatus", "NRestarts", "StatusText")
    return show(SERVICE, *names)


def _settled(seconds: float = 2.0) -> int:
    """How often it is started within a while in which nothing should happen."""
    before = _starts()
    time.sleep(seconds)
    return _starts() - before


@scenario
def crash_loop(google: Google) -> dict[str, Any]:
    """A daemon with a bug that ends each start, while somebody keeps asking; then it is mended."""
    _installed(google)
    command = inside.HOME / ".local" / "bin" / "gemini-pool"
    good = command.read_text()
    command.write_text(CRASH.format(python=sys.executable, path=os.environ.get("PYTHONPATH", "")))
    systemctl("start", SOCKET)
    asked = None
    try:
        with inside.connect() as sock:
            sock.sendall(b'{"id":1,"method":"daemon/info"}\n')
            wait_for("it is given up", lambda: _unit()["SubState"] == "failed", patience_s=90)
            asked = sock.recv(100).decode()
    except OSError as error:
        asked = type(error).__name__
    out = {"unit": _unit(), "starts": _starts(), "asked": asked, "socket": inside.state(SOCKET)}
    out["goes_on"] = _settled()
    out["journal_says"] = "ZeroDivisionError" in inside.journal_text()
    command.write_text(good)
    systemctl("reset-failed", SERVICE, SOCKET)
    systemctl("start", SERVICE)
    out["mended"] = ["result" in ask("hi"), inside.state(SOCKET)]
    return out


@scenario
def corrupt_store(google: Google) -> dict[str, Any]:
    """The database is overwritten with nonsense between two runs."""
    _installed(google)
    systemctl("start", SERVICE)
    ask("hi")
    systemctl("stop", SERVICE)
    for path in STATE.glob("state.db*"):
        if not path.name.endswith(".lock"):
            path.write_bytes(b"nonsense " * 1000)
    systemctl("start", SERVICE)
    out = {"unit": _unit(), "answer": "result" in ask("hi")}
    out["aside"] = [path.name for path in STATE.glob("*damaged*")]
    out["told"] = "could not be read" in inside.journal_text()
    return out


@scenario
def newer_store(google: Google) -> dict[str, Any]:
    """The state was written by a version of tomorrow: refused once, untouched, and not tried again."""
    _installed(google)
    systemctl("start", SERVICE)
    systemctl("stop", SERVICE)
    with sqlite3.connect(DATABASE) as database:
        database.execute(f"PRAGMA user_version = {len(migrations.STEPS) + 1}")
        database.execute("UPDATE meta SET value = '99.1' WHERE name = 'written_by'")
    database.close()
    before, starts = DATABASE.read_bytes(), _starts()
    started = systemctl("start", SERVICE, check=False)
    out = {"code": started.returncode, "unit": _unit(), "untouched": DATABASE.read_bytes() == before}
    out["goes_on"] = _settled()
    out["starts"] = _starts() - starts
    try:
        out["told"] = inside.call("daemon/info")
    except (OSError, ValueError) as error:
        out["told"] = repr(error)
    out["socket"] = inside.state(SOCKET)
    return out


@scenario
def upgraded(google: Google) -> dict[str, Any]:
    """Yesterday's state, one schema back, with a cooldown in it; a restart brings today's daemon."""
    google.world.limit("spent-project", rpd=1)
    inside.install()
    inside.write_accounts(
        key_account(google, "spent", project="spent-project") + "priority = 2\n", key_account(google, "good")
    )
    inside.write_config(google)
    systemctl("start", SERVICE)
    for number in range(3):
        ask(f"Question {number}")
    resting = inside.account("spent")["cooldowns"]
    served = inside.account("good")["counters"]
    systemctl("stop", SERVICE)
    with sqlite3.connect(DATABASE) as database:
        database.execute("DROP TABLE leases")
        database.execute(f"PRAGMA user_version = {len(migrations.STEPS) - 1}")
    database.close()
    systemctl("start", SERVICE)
    seen = status()
    after = inside.account("spent", seen)["cooldowns"]
    with sqlite3.connect(f"file:{DATABASE}?mode=ro", uri=True) as database:
        version = database.execute("PRAGMA user_version").fetchone()[0]
    database.close()
    return {
        "version": version == len(migrations.STEPS),
        "backups": [inside.mode(path) for path in STATE.glob("state.db.backup-*")],
        "resting": bool(resting),
        "still": [cool["until"] for cool in after] == [cool["until"] for cool in resting],
        "counters": inside.account("good", seen)["counters"] == served,
        "told": "migrated to schema" in inside.journal_text(),
        "answer": "result" in ask("hi"),
    }


@scenario
def leases_and_connections(google: Google) -> dict[str, Any]:
    """A bare client's connection, lease and subscription over `restart`, and what it sends meanwhile."""
    inside.install()
    inside.write_accounts(key_account(google, "key-a") + "lend = true\n")
    inside.write_config(google)
    systemctl("start", SERVICE)
    pid = inside.main_pid()
    with inside.connect() as sock:
        came = inside.messages(sock)
        sock.sendall(
            _line(1, "pool/subscribe", events=["account"]) + _line(2, "pool/acquire", model=inside.MODEL)
        )
        lease = next(message for message in came if message.get("id") == 2)["result"]
        restart = subprocess.Popen(["systemctl", "--user", "restart", SERVICE])
        draining = next(message for message in came if message.get("method") == "daemon/draining")
        sock.sendall(_line(3, "pool/renew", lease=lease["lease"]) + _line(4, "daemon/info"))
        replies = {}
        while len(replies) < 2:
            message = next(came)
            if message.get("id") in (3, 4):
                replies[message["id"]] = message
        restart.wait()
        held = status()["leases"]
        sock.sendall(_line(5, "pool/report", lease=lease["lease"], status=200))
        reported = next(message for message in came if message.get("id") == 5)
        sock.sendall(_line(6, "pool/pause", account="key-a"))
        event = next(message for message in came if message.get("method") == "pool/event")
    return {
        "kept": draining["params"].get("kept"),
        "another_process": inside.main_pid() != pid,
        "replies": ["result" in replies[3], "result" in replies[4]],
        "held": [one["lease"] for one in held] == [lease["lease"]],
        "reported": reported.get("result", reported),
        "event": event["params"]["account"],
        "counters": {name: status()["counters"][name] for name in ("requests", "answered", "expired")},
    }


def _line(number: int, method: str, **params: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).encode() + b"\n"


if __name__ == "__main__":
    inside.run(SCENARIOS)
