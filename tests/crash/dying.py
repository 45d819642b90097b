"""Runs one change to the disk and dies at its N-th step, as if killed there: `python dying.py WHAT FOLDER N`.

A step is a call that changes the disk: open for writing, write (which is left half done), fsync, chmod, link, rename,
unlink, mkdir, and each SQL statement of the database. "done" is printed once the change was acknowledged; what a
stranger could have seen of it before that is printed as it happens. The last line of a run that lived is its number of
steps.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

KILLED = 9
steps, die_at = 0, 0


def step(half: Any = None) -> None:
    """One more step begins; the fatal one ends the process, after half of it where it has halves."""
    global steps
    steps += 1
    if steps == die_at:
        if half is not None:
            half()
        os._exit(KILLED)


def stepping(name: str) -> None:
    real = getattr(os, name)

    def call(*args: Any, **given: Any) -> Any:
        writes = name != "open" or (args[1] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        if writes:
            step()
        return real(*args, **given)

    setattr(os, name, call)


class Writing:
    """A file whose writes are steps."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, data: bytes) -> int:
        def half() -> None:
            self._file.write(data[: len(data) // 2])
            self._file.flush()

        step(half)
        return self._file.write(data)

    def __enter__(self) -> Writing:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def arm() -> None:
    for name in (
        "open",
        "fsync",
        "replace",
        "rename",
        "link",
        "unlink",
        "fchmod",
        "chmod",
        "mkdir",
        "ftruncate",
    ):
        stepping(name)
    fdopen = os.fdopen
    os.fdopen = lambda fd, mode="r", *a, **k: (
        Writing(fdopen(fd, mode, *a, **k)) if "w" in mode else fdopen(fd, mode, *a, **k)
    )  # type: ignore[assignment]
    connect = sqlite3.connect

    def traced(*args: Any, **given: Any) -> Any:
        connection = connect(*args, **given)
        connection.set_trace_callback(lambda _statement: step())
        return connection

    sqlite3.connect = traced  # type: ignore[assignment]


def say(text: str) -> None:
    os.write(1, text.encode() + b"\n")


# ---- the changes --------------------------------------------------------------------------------------------------


async def rotation(folder: Path) -> None:
    """A login's token is renewed and Google rotates the refresh token."""
    from tests.credentials import making

    from gemini_poold.credentials.registry import build

    endpoint = making.TokenEndpoint()
    endpoint.answer = endpoint.rotating
    credential = build(making.entry("oauth", making.file("work.json")), making.context(folder, endpoint))
    arm()
    token = await credential.renew(1_795_000_000.0)
    say(f"handed out {token.value.reveal()}")


async def account(folder: Path) -> None:
    """An account is added to accounts.toml."""
    from gemini_poold.accounts import edit
    from gemini_poold.accounts.schema import parse
    from gemini_poold.accounts.store import AccountsFile

    file = AccountsFile(folder / "accounts.toml")
    text = '[[account]]\nid = "b"\nbackend = "developer-api"\ncredential = { type = "api-key", secret = { env = "B" } }\n'
    (entry,) = parse(text, "new")
    arm()
    if [one.id for one in file.read().entries] == ["a"]:  # else the run that was killed had come that far
        edit.apply(file, lambda old: edit.add(old, entry))


async def state(folder: Path) -> None:
    """A cooldown and an account's state are saved."""
    from gemini_poold.clock import SystemClock
    from gemini_poold.core.model import AccountRow, AccountState, CooldownRow, Kind, Scope
    from gemini_poold.store import Store

    arm()
    store = Store.open(folder / "state.db", SystemClock())
    await store.save([
        CooldownRow(Scope.ACCOUNT, "a", "", 2e9, Kind.DAILY, True, "told", "day", 1.0),
        AccountRow("a", AccountState.DEAD, "leaked", "", "", 1.0, 1.0, None, 0, None),
    ])  # fmt: skip


def main() -> None:
    global die_at
    what, folder, die_at = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    asyncio.run(globals()[what](folder))
    lived = steps
    say("done")
    say(str(lived))
    os._exit(0)


if __name__ == "__main__":
    main()
