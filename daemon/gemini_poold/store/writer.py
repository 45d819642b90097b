"""The thread that writes: rows are left in a dictionary by the event loop and go to the disk together.

Group commit: whatever came while one commit ran goes into the next. Of several rows with one key only the newest is
written, so a busy pool writes a handful of rows a commit, and what waits is bounded by the number of keys.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import threading
from collections.abc import Iterable

from gemini_poold.errors import StateUnusable

from . import tables
from .tables import RowKey, StoredRow

# Rows nobody waits for linger for so long, to be written together: each commit costs the event loop some of the
# interpreter's lock. A crash may lose that much of what was never acknowledged.
LINGER_S = 0.05
# After a failed write (disk full), the next try comes with the next row, or after so long.
RETRY_S = 5.0

# Errors that are a row's own fault: the disk is fine, and trying again would fail for ever.
ROW_ERRORS = (
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    sqlite3.DataError,
    OverflowError,
)
Waiter = asyncio.Future[None]
log = logging.getLogger(__name__)


class Writer:
    """Owns the connection from `start` to the end of `close`."""

    def __init__(self, connection: sqlite3.Connection, name: str) -> None:
        self._connection = connection
        self._name = name
        self._lock = threading.Lock()
        self._rows: dict[RowKey, StoredRow] = {}
        self._waiters: list[Waiter] = []
        self._stirred = False  # the thread was woken and has not looked yet
        self._closing = False
        self._wake = threading.Event()
        self._urgent = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gemini-pool-store", daemon=True)
        self.error: StateUnusable | None = None

    def start(self) -> None:
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def put_nowait(self, rows: Iterable[StoredRow]) -> None:
        """Leave rows to be written soon. Costs about a microsecond a row."""
        with self._lock:
            for row in rows:
                self._rows[tables.row_key(row)] = row
            wake, self._stirred = not self._stirred, True
        if wake:
            self._wake.set()

    def put(self, rows: Iterable[StoredRow]) -> Waiter:
        """Leave rows to be written at once, with everything left before. The future ends after their commit, with
        `StateUnusable` if it failed; the rows are then kept and tried again."""
        waiter: Waiter = asyncio.get_running_loop().create_future()
        with self._lock:
            if self._closing:
                waiter.set_exception(StateUnusable("the state database is closed"))
                return waiter
            for row in rows:
                self._rows[tables.row_key(row)] = row
            self._waiters.append(waiter)
            self._stirred = True
        self._urgent.set()
        self._wake.set()
        return waiter

    def close(self) -> None:
        """Write what is left and close the connection. Blocks until it is done."""
        with self._lock:
            self._closing = True
        self._urgent.set()
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing:
            self._wake.wait(RETRY_S if self.error else None)
            self._wake.clear()
            self._urgent.wait(LINGER_S)
            self._urgent.clear()
            self._write_all()
        self._write_all()
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    def _write_all(self) -> None:
        """One commit of everything that was left; its failure is told and kept, it never ends the thread."""
        with self._lock:
            rows, self._rows = self._rows, {}
            waiters, self._waiters = self._waiters, []
            self._stirred = False
        if not rows and not waiters:
            return
        failure: StateUnusable | None = None
        try:
            self._commit(rows)
            if self.error is not None:
                log.info("store: %s is written again", self._name)
            self.error = None
        except ROW_ERRORS as error:
            failure = StateUnusable(f"{self._name}: a row cannot be written: {error}")
            self._commit_singly(rows)
        except sqlite3.Error as error:
            failure = unusable(self._name, error)
            if self.error is None:  # once, not at each try
                log.error("store: %s (%s); what is new is kept in memory", failure.message, failure.hint)
            self.error = failure
            with self._lock:  # newer rows of the same keys win
                self._rows = {**rows, **self._rows}
        _tell(waiters, failure)

    def _commit_singly(self, rows: dict[RowKey, StoredRow]) -> None:
        """One row of ours is bad: the others must not suffer for it, now or ever after."""
        for key, row in rows.items():
            try:
                self._commit({key: row})
            except ROW_ERRORS as error:
                log.error("store: lost a row of %s: %s", key[0].__name__, error)
            except sqlite3.Error as error:
                self.error = unusable(self._name, error)
                with self._lock:
                    self._rows.setdefault(key, row)

    def _commit(self, rows: dict[RowKey, StoredRow]) -> None:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            tables.write(connection, rows)
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise


def unusable(name: str, error: sqlite3.Error) -> StateUnusable:
    """SQLite's words as ours."""
    code = getattr(error, "sqlite_errorname", "") or ""
    hints = {
        "SQLITE_FULL": "free some space on its disk",
        "SQLITE_READONLY": "is its file system mounted read-only?",
        "SQLITE_CANTOPEN": "is its folder still there?",
        "SQLITE_BUSY": f"another program holds it: fuser {name}",
    }
    hint = next((hint for prefix, hint in hints.items() if code.startswith(prefix)), "look at its disk")
    return StateUnusable(f"{name} cannot be written: {error}", hint=hint, retryable=True)


def _tell(waiters: list[Waiter], error: StateUnusable | None) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[Waiter]] = {}
    for waiter in waiters:
        by_loop.setdefault(waiter.get_loop(), []).append(waiter)
    for loop, group in by_loop.items():
        with contextlib.suppress(RuntimeError):  # a loop that is gone has nobody who waits
            loop.call_soon_threadsafe(_end, group, error)


def _end(waiters: list[Waiter], error: StateUnusable | None) -> None:
    for waiter in waiters:
        if waiter.done():
            continue
        if error is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(StateUnusable(error.message, hint=error.hint, retryable=error.retryable))
