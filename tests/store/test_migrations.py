"""From an older schema to today's: with a backup, whole steps only, and never backwards."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from gemini_poold.errors import StateUnusable
from gemini_poold.store import migrations
from gemini_poold.store.migrations import migrate, version_of

NOW = 1_795_000_000.0
FIRST = "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL); CREATE TABLE t (a)"
SECOND = "ALTER TABLE t ADD COLUMN b; UPDATE t SET b = a + 1"
THIRD = "DROP TABLE t"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def made(path: Path, *steps: str) -> None:
    with opened(path) as database:
        migrate(database, path, now=NOW, steps=steps)
        if len(steps) == 1:
            database.execute("INSERT INTO t VALUES (1)")
            database.execute("INSERT INTO meta VALUES ('written_by', '9.8.7')")


def test_a_new_file_gets_todays_schema_without_a_backup(path: Path) -> None:
    """All steps at once; there is nothing to back up."""
    with opened(path) as database:
        assert migrate(database, path, now=NOW) is None
        assert version_of(database) == len(migrations.STEPS)
    assert [entry.name for entry in path.parent.iterdir()] == ["state.db"]


def test_todays_schema_stays_as_it_is(path: Path) -> None:
    """Opening again changes and copies nothing."""
    made(path, FIRST)
    with opened(path) as database:
        assert migrate(database, path, now=NOW, steps=[FIRST]) is None
    assert [entry.name for entry in path.parent.iterdir()] == ["state.db"]


def test_an_older_schema_is_backed_up_and_brought_forward(path: Path) -> None:
    """The missing steps are taken in order; the backup is the database as it was, for its owner alone."""
    made(path, FIRST)
    with opened(path) as database:
        backup = migrate(database, path, now=NOW, steps=[FIRST, SECOND])
        assert version_of(database) == 2
        assert database.execute("SELECT a, b FROM t").fetchall() == [(1, 2)]
    assert backup == path.with_name("state.db.backup-v1-20261118T110640Z")
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    with opened(backup) as database:
        assert version_of(database) == 1
        assert database.execute("SELECT * FROM t").fetchall() == [(1,)]


def test_a_failing_step_leaves_the_version_before_it(path: Path) -> None:
    """What a broken step did is undone, the steps before it stay, and the next opening goes on from there."""
    made(path, FIRST)
    broken = "UPDATE t SET a = 99; THIS IS NO SQL"
    with opened(path) as database:
        with pytest.raises(sqlite3.Error):
            migrate(database, path, now=NOW, steps=[FIRST, SECOND, broken])
        assert version_of(database) == 2
        assert database.execute("SELECT a, b FROM t").fetchall() == [(1, 2)]
        migrate(database, path, now=NOW, steps=[FIRST, SECOND, THIRD])
        assert version_of(database) == 3


def test_a_newer_schema_is_refused_untouched(path: Path) -> None:
    """The refusal names the version of gemini-pool that is needed, and no byte of the file changes."""
    made(path, FIRST)
    with opened(path) as database:
        database.execute("PRAGMA user_version = 7")
    before = path.read_bytes()
    with opened(path) as database:
        with pytest.raises(StateUnusable, match="newer gemini-pool") as caught:
            migrate(database, path, now=NOW, steps=[FIRST])
    assert "install gemini-pool 9.8.7 or newer" in caught.value.hint
    assert path.read_bytes() == before


def test_a_newer_schema_without_a_writer_is_refused_too(path: Path) -> None:
    """Even if a later version kept that elsewhere, the refusal comes in words."""
    with opened(path) as database:
        migrate(database, path, now=NOW, steps=["CREATE TABLE other (a)", "CREATE TABLE more (a)"])
        with pytest.raises(StateUnusable) as caught:
            migrate(database, path, now=NOW, steps=[FIRST])
    assert "the version that you used last" in caught.value.hint


def test_another_programs_database_is_not_taken(path: Path) -> None:
    """A file with tables and without our mark counts as damaged, whatever its version says."""
    with opened(path) as database:
        database.execute("CREATE TABLE cookies (a)")
        with pytest.raises(sqlite3.DatabaseError, match="another program's"):
            version_of(database)


def test_backups_are_bounded_and_never_overwritten(path: Path) -> None:
    """The newest few stay; two in one second have names of their own."""
    made(path, FIRST)
    names = set()
    for _ in range(6):
        with opened(path) as database:
            database.execute("PRAGMA user_version = 1")
            backup = migrate(database, path, now=NOW, steps=[FIRST, "SELECT 1"])
        assert backup is not None
        assert backup.exists()
        names.add(backup.name)
    assert len(list(path.parent.glob("state.db.backup-*"))) == migrations.BACKUPS_KEPT
    assert len(names) > 1
