"""The database's schema and how an older one becomes today's: one step a version, forward only.

`PRAGMA user_version` is the number of steps taken. A step never changes once it was released; a new one is added.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from gemini_poold import files
from gemini_poold.errors import StateUnusable

APPLICATION_ID = 0x67656D70  # "gemp": tells our database from any other SQLite file
BACKUPS_KEPT = 3

STEPS: tuple[str, ...] = (
    """
    CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE accounts (
        account_id TEXT PRIMARY KEY, state TEXT NOT NULL, reason TEXT NOT NULL, hint TEXT NOT NULL, url TEXT NOT NULL,
        since_at REAL NOT NULL, success REAL NOT NULL, latency_s REAL, failures INTEGER NOT NULL, last_used_at REAL,
        paused INTEGER NOT NULL, secret TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE cooldowns (
        scope TEXT NOT NULL, key TEXT NOT NULL, model TEXT NOT NULL, until REAL NOT NULL, kind TEXT NOT NULL,
        told INTEGER NOT NULL, source TEXT NOT NULL, reason TEXT NOT NULL, since REAL NOT NULL,
        strikes INTEGER NOT NULL, PRIMARY KEY (scope, key, model)
    ) WITHOUT ROWID;
    CREATE TABLE counters (
        account_id TEXT NOT NULL, model TEXT NOT NULL, served INTEGER NOT NULL, failed INTEGER NOT NULL,
        rotated INTEGER NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
        PRIMARY KEY (account_id, model)
    ) WITHOUT ROWID;
    CREATE TABLE totals (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE discoveries (
        account_id TEXT PRIMARY KEY, project TEXT NOT NULL, tier TEXT NOT NULL, email TEXT NOT NULL,
        sub TEXT NOT NULL, at REAL NOT NULL
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE paces (
        bucket TEXT NOT NULL, model TEXT NOT NULL, rpm INTEGER, source INTEGER NOT NULL, width_s REAL NOT NULL,
        named INTEGER NOT NULL, anchor REAL, tpm INTEGER, rpd INTEGER, at REAL NOT NULL, recent INTEGER NOT NULL,
        recent_tokens REAL NOT NULL, day_count INTEGER NOT NULL, day_ends_at REAL NOT NULL, day_whole INTEGER NOT NULL,
        PRIMARY KEY (bucket, model)
    ) WITHOUT ROWID;
    """,
    "CREATE TABLE bound (name TEXT PRIMARY KEY, account_id TEXT NOT NULL, until REAL NOT NULL) WITHOUT ROWID",
    """
    CREATE TABLE caps (
        account_id TEXT PRIMARY KEY, day_ends_at REAL NOT NULL, requests INTEGER NOT NULL, tokens INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE pins (account_id TEXT PRIMARY KEY, models TEXT NOT NULL, at REAL NOT NULL) WITHOUT ROWID;
    CREATE TABLE quota_history (
        account_id TEXT NOT NULL, model TEXT NOT NULL, token_type TEXT NOT NULL, at REAL NOT NULL,
        fraction REAL NOT NULL, remaining REAL, "limit" REAL, resets_at REAL,
        PRIMARY KEY (account_id, model, token_type, at)
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE leases (
        lease_id TEXT PRIMARY KEY, account_id TEXT NOT NULL, owner TEXT NOT NULL, detached INTEGER NOT NULL,
        granted_at REAL NOT NULL, expires_at REAL NOT NULL, sent_at REAL NOT NULL, request TEXT NOT NULL
    ) WITHOUT ROWID;
    """,
)


def version_of(connection: sqlite3.Connection) -> int:
    """Steps that this database has taken; 0 for a new file.

    Raises sqlite3.DatabaseError when it is no database of ours, so that it is treated like a damaged one.
    """
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    application = int(connection.execute("PRAGMA application_id").fetchone()[0])
    if application != APPLICATION_ID and connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone():
        raise sqlite3.DatabaseError("the file is another program's database")
    return version


def migrate(
    connection: sqlite3.Connection, path: Path, *, now: float, steps: Sequence[str] = STEPS
) -> Path | None:
    """Bring the database to today's version; returns the backup that was made before, None if nothing needed one.

    A step and its version number are one transaction: a crash leaves a whole version behind. Raises `StateUnusable`
    for a database of a newer version, before anything is touched.
    """
    version = version_of(connection)
    if version > len(steps):
        writer = _writer(connection)
        raise StateUnusable(
            f"{path} was written by a newer gemini-pool (schema {version}; this one knows {len(steps)})",
            hint=f"install gemini-pool {writer} or newer, or move {path} away to start afresh",
        )
    backup = _backup(connection, path, version, now) if 0 < version < len(steps) else None
    for number, step in enumerate(steps[version:], version + 1):
        try:
            connection.executescript(
                f"BEGIN IMMEDIATE; {step}; PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {number}; COMMIT"
            )
        except sqlite3.Error:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise
    return backup


def stamp(now: float) -> str:
    """An instant as it stands in the names of backups and of files that were set aside (UTC)."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")


def _writer(connection: sqlite3.Connection) -> str:
    """The version of the newest gemini-pool that opened the database; the table's shape is there for good."""
    try:
        found = connection.execute("SELECT value FROM meta WHERE name = 'written_by'").fetchone()
    except sqlite3.Error:
        found = None
    return str(found[0]) if found else "(the version that you used last)"


def _backup(connection: sqlite3.Connection, path: Path, version: int, now: float) -> Path:
    """Copy the database beside itself, whole and on the disk, before anything in it changes."""
    backup = free_name(path.with_name(f"{path.name}.backup-v{version}-{stamp(now)}"))
    files.create_private(backup)
    with contextlib.closing(sqlite3.connect(backup)) as target:
        connection.backup(target)
    files.sync_file(backup)
    files.sync_dir(backup.parent)
    for old in sorted(path.parent.glob(f"{path.name}.backup-v*"), key=lambda found: found.stat().st_mtime)[
        :-BACKUPS_KEPT
    ]:
        old.unlink(missing_ok=True)
    return backup


def free_name(path: Path) -> Path:
    """`path`, or the first PATH.2, PATH.3 … that does not exist: nothing is ever overwritten."""
    number, candidate = 1, path
    while candidate.exists() or candidate.is_symlink():
        number += 1
        candidate = path.with_name(f"{path.name}.{number}")
    return candidate
