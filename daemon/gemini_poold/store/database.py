"""The database file: opening it safely, reading it once at the start, and the `Store` that the daemon writes to.

Threads and commits are `writer.py`'s, the schema is `migrations.py`'s. Only the running daemon opens the file for
writing.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from gemini_poold import __version__, files
from gemini_poold.clock import Clock
from gemini_poold.core.model import (
    AccountRow,
    BoundRow,
    CapRow,
    CooldownRow,
    CounterRow,
    DiscoveryRow,
    LeaseRow,
    PaceRow,
    PinRow,
    QuotaRow,
    Row,
    TotalRow,
)
from gemini_poold.errors import FileRefused, StateUnusable

from . import migrations, tables
from .tables import MetaRow
from .writer import Writer, unusable

BUSY_TIMEOUT_S = 5.0
OLD_PACE_S = 30 * 86_400.0  # limits that nobody has met for so long are learnt anew
OLD_COOLDOWN_S = (
    7 * 86400.0
)  # a cooldown that ended so long ago tells nothing any more, not even by its strikes
OLD_QUOTA_S = 8 * 86400.0  # Google has week-long quotas
LAST_GOOD = "last_good_accounts"
LAST_GOOD_DIGEST = "last_good_digest"
WRITTEN_BY = "written_by"


@dataclass(slots=True)
class Saved:
    """What survived. `last_good_accounts` is the text of the accounts file when it was last valid, None if never;
    `last_good_digest` its SHA-256. `warnings` are for the log and for `status`, loudly."""

    accounts: list[AccountRow] = field(default_factory=list)
    cooldowns: list[CooldownRow] = field(default_factory=list)
    counters: list[CounterRow] = field(default_factory=list)
    totals: list[TotalRow] = field(default_factory=list)
    discoveries: list[DiscoveryRow] = field(default_factory=list)
    paces: list[PaceRow] = field(default_factory=list)
    bound: list[BoundRow] = field(default_factory=list)
    caps: list[CapRow] = field(default_factory=list)
    pins: list[PinRow] = field(default_factory=list)
    quota_history: list[QuotaRow] = field(default_factory=list)
    leases: list[LeaseRow] = field(default_factory=list)
    last_good_accounts: str | None = None
    last_good_digest: str = ""
    meta: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def rows(self) -> list[Row]:
        """All of them, as the pool's `restore` takes them."""
        known: list[Row] = [
            *self.accounts,
            *self.cooldowns,
            *self.counters,
            *self.totals,
            *self.discoveries,
            *self.paces,
        ]
        return [*known, *self.bound, *self.pins, *self.caps, *self.quota_history, *self.leases]


class Store:
    """Rows that must survive. Made by `open`, ended by `close`."""

    def __init__(self, path: Path, writer: Writer, clock: Clock, warnings: Sequence[str]) -> None:
        self.path = path
        self._writer = writer
        self._clock = clock
        self._warnings = list(warnings)

    @classmethod
    def open(cls, path: Path, clock: Clock, *, steps: Sequence[str] = migrations.STEPS) -> Store:
        """Open, make or migrate the database and start its thread.

        A file that is no database of ours, or a damaged one, is set aside under another name and a fresh one is
        made; `load().warnings` says so. Raises `FileRefused` for a link or for wrong modes, `StateUnusable` for a
        newer version and when the disk refuses.
        """
        files.ensure_private_dir(path.parent)
        warnings: list[str] = []
        try:
            connection = _connect(path)
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise unusable(str(path), error) from None
            aside = _set_aside(path, clock.now())
            warnings.append(
                f"{path} could not be read ({error}); it is now {aside}, and the pool starts afresh"
            )
            connection = _connect_fresh(path)
        try:
            backup = migrations.migrate(connection, path, now=clock.now(), steps=steps)
            _prepare(connection, clock.now())
        except sqlite3.Error as error:
            connection.close()
            raise unusable(str(path), error) from None
        except StateUnusable:
            connection.close()
            raise
        if backup is not None:
            warnings.append(f"{path} was migrated to schema {len(steps)}; the old one is {backup}")
        writer = Writer(connection, str(path))
        writer.start()
        return cls(path, writer, clock, warnings)

    def load(self) -> Saved:
        """Everything that is in the file now, through a connection of its own. Raises `StateUnusable`."""
        saved = Saved(warnings=list(self._warnings))
        try:
            with contextlib.closing(_reader(self.path)) as connection:
                _read_all(connection, saved)
        except sqlite3.Error as error:
            raise unusable(str(self.path), error) from None
        saved.last_good_accounts = saved.meta.pop(LAST_GOOD, None)
        saved.last_good_digest = saved.meta.pop(LAST_GOOD_DIGEST, "")
        return saved

    async def save(self, rows: Iterable[Row]) -> None:
        """Returns when the rows, and all that were saved before them, are committed. Raises `StateUnusable` when
        they are not yet: they are kept and written as soon as the disk takes them."""
        await self._writer.put(rows)

    def save_nowait(self, rows: Iterable[Row]) -> None:
        """The rows will be committed soon, in order with the others. Never blocks, never raises for the disk."""
        self._writer.put_nowait(rows)

    async def set_last_good(self, text: str) -> None:
        """Remember the accounts file's text as the last good one. Raises like `save`."""
        digest = sha256(text.encode()).hexdigest()
        await self._writer.put([MetaRow(LAST_GOOD, text), MetaRow(LAST_GOOD_DIGEST, digest)])

    async def set_meta(self, name: str, value: str) -> None:
        """Remember a small text under a name; `load().meta` has it. Raises like `save`."""
        await self._writer.put([MetaRow(name, value)])

    async def flush(self) -> None:
        """Returns when everything saved so far is committed. Raises like `save`."""
        await self._writer.put([])

    @property
    def error(self) -> StateUnusable | None:
        """Why the last commit failed; None when it did not. For `status` and the watchdog."""
        if self._writer.error is None and not self._writer.alive:
            return StateUnusable(f"{self.path} is closed")
        return self._writer.error

    @property
    def alive(self) -> bool:
        """Whether the thread that writes still runs; a failing disk does not end it."""
        return self._writer.alive

    async def close(self) -> None:
        """Commit what is left and close the file. Later saves fail."""
        await asyncio.to_thread(self._writer.close)


def _connect(path: Path) -> sqlite3.Connection:
    """A connection to a file that is ours and in order. Raises sqlite3.DatabaseError when it is damaged."""
    try:
        files.check_private(path)
    except FileRefused as error:
        if not error.missing:
            raise
        files.create_private(path)
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        migrations.version_of(connection)
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != ("ok",):
            raise sqlite3.DatabaseError(f"damaged: {verdict[0] if verdict else 'no answer'}")
        connection.execute("PRAGMA journal_mode = WAL")
    except BaseException:
        connection.close()
        raise
    return connection


def _connect_fresh(path: Path) -> sqlite3.Connection:
    try:
        return _connect(path)
    except sqlite3.Error as error:
        raise unusable(str(path), error) from None


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    """Damage is what no other moment or disk would mend; being locked, full or forbidden is not damage."""
    if not isinstance(error, sqlite3.OperationalError):
        return True
    return (getattr(error, "sqlite_errorname", "") or "").startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB"))


def _prepare(connection: sqlite3.Connection, now: float) -> None:
    # NORMAL in WAL mode: a commit survives the death of the process at any instruction, and costs no fsync. Losing
    # the last moments to a power cut is acceptable for what is in here; secrets are written elsewhere, with fsync.
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA journal_size_limit = 4194304")
    connection.execute("DELETE FROM cooldowns WHERE until < ?", (now - OLD_COOLDOWN_S,))
    connection.execute("DELETE FROM bound WHERE until < ?", (now,))
    connection.execute("DELETE FROM quota_history WHERE at < ?", (now - OLD_QUOTA_S,))
    connection.execute("DELETE FROM paces WHERE at < ?", (now - OLD_PACE_S,))
    connection.execute(tables.TABLES[MetaRow].upsert, (WRITTEN_BY, __version__))


def _reader(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_TIMEOUT_S)


def _read_all(connection: sqlite3.Connection, saved: Saved) -> None:
    bad = saved.warnings.append
    saved.accounts = list(tables.read(connection, AccountRow, bad))
    saved.cooldowns = list(tables.read(connection, CooldownRow, bad))
    saved.counters = list(tables.read(connection, CounterRow, bad))
    saved.totals = list(tables.read(connection, TotalRow, bad))
    saved.discoveries = list(tables.read(connection, DiscoveryRow, bad))
    saved.paces = list(tables.read(connection, PaceRow, bad))
    saved.bound = list(tables.read(connection, BoundRow, bad))
    saved.caps = list(tables.read(connection, CapRow, bad))
    saved.pins = sorted(tables.read(connection, PinRow, bad), key=lambda row: row.at)
    saved.quota_history = list(tables.read(connection, QuotaRow, bad))
    saved.leases = list(tables.read(connection, LeaseRow, bad))
    saved.meta = {row.name: row.value for row in tables.read(connection, MetaRow, bad)}


def _set_aside(path: Path, now: float) -> Path:
    """Rename the database and its log; nothing is deleted, a person may still want to look."""
    aside = migrations.free_name(path.with_name(f"{path.name}.damaged-{migrations.stamp(now)}"))
    for suffix in ("-wal", "-shm"):
        extra = path.with_name(path.name + suffix)
        if extra.exists():
            extra.replace(aside.with_name(aside.name + suffix))
    path.replace(aside)
    files.sync_dir(path.parent)
    return aside
