"""Rows and tables held together: the schema has a column for every field, and every row type has a table."""

from __future__ import annotations

import dataclasses
import sqlite3
import typing
from collections.abc import Iterator
from contextlib import closing

import pytest
from tests.store.rows import GONE, NOW, ONE_OF_EACH, account, cooldown, counter

from gemini_poold.core import model
from gemini_poold.store import migrations, tables
from gemini_poold.store.tables import TABLES, MetaRow


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        for step in migrations.STEPS:
            connection.executescript(step)
        yield connection


def write(database: sqlite3.Connection, rows: list[model.Row]) -> None:
    tables.write(database, {tables.row_key(row): row for row in rows})


def everything(database: sqlite3.Connection) -> list[object]:
    bad: list[str] = []
    found = [row for row_type in TABLES for row in tables.read(database, row_type, bad.append)]
    assert not bad
    return found


def test_every_kind_of_row_has_a_table() -> None:
    """What the pool can emit, the store can write."""
    assert set(TABLES) == {*typing.get_args(model.Row), MetaRow}


@pytest.mark.parametrize("row_type", TABLES)
def test_columns_are_the_rows_fields(database: sqlite3.Connection, row_type: type) -> None:
    """The schema of today's version has exactly the fields of the row, and its key is the table's primary key."""
    table = TABLES[row_type]
    columns = list(database.execute(f"PRAGMA table_info({table.name})"))
    assert {column[1] for column in columns} == {f.name for f in dataclasses.fields(row_type)} - {"gone"}
    assert {column[1] for column in columns if column[5]} == set(table.key)


def test_rows_come_back_as_they_went(database: sqlite3.Connection) -> None:
    """Every field keeps its value and its type: enums, flags, missing numbers, foreign letters."""
    write(database, ONE_OF_EACH)
    found = everything(database)
    assert sorted(map(repr, found)) == sorted(map(repr, ONE_OF_EACH))
    assert all(
        type(a) is type(b)
        for a, b in zip(sorted(found, key=repr), sorted(ONE_OF_EACH, key=repr), strict=True)
    )


def test_a_newer_row_replaces_the_older_of_its_key(database: sqlite3.Connection) -> None:
    """The key decides: another model is another row."""
    write(database, [counter(1), counter(1, model="gemini-2")])
    write(database, [counter(9)])
    assert sorted(row.served for row in everything(database)) == [1, 9]


def test_gone_rows_are_removed(database: sqlite3.Connection) -> None:
    """A row whose `gone` is set takes its table's row with it, and only that one; removing twice is fine."""
    write(database, [*ONE_OF_EACH, account("b"), cooldown("gemini-2")])
    write(database, GONE)
    write(database, GONE)
    assert sorted(map(repr, everything(database))) == sorted(
        map(repr, [account("b"), cooldown("gemini-2"), ONE_OF_EACH[3]])
    )


def test_one_batch_may_write_and_remove(database: sqlite3.Connection) -> None:
    """Rows of one kind, some gone and some not, in one go."""
    write(database, [account("a"), account("b")])
    write(database, [account("a", gone=True), account("c")])
    assert sorted(row.account_id for row in everything(database)) == ["b", "c"]


def test_an_instant_that_never_comes_survives(database: sqlite3.Connection) -> None:
    """Infinity is a value like others."""
    write(database, [cooldown(until=float("inf"))])
    assert next(iter(everything(database))).until == float("inf")


def test_a_row_that_cannot_be_understood_is_skipped_in_words(database: sqlite3.Connection) -> None:
    """A state of a version that never was does not keep the daemon from starting."""
    write(database, [account("a"), account("b")])
    database.execute("UPDATE accounts SET state = 'haunted' WHERE account_id = 'a'")
    bad: list[str] = []
    assert [row.account_id for row in tables.read(database, model.AccountRow, bad.append)] == ["b"]
    assert bad and "accounts row a" in bad[0]


def test_keys_tell_kinds_apart() -> None:
    """Rows of different kinds never replace each other, even with the same names in them."""
    keys = {tables.row_key(row) for row in [account("a"), model.TotalRow("a", 1), MetaRow("a", "x")]}
    assert len(keys) == 3
    assert tables.row_key(cooldown(until=NOW)) == tables.row_key(cooldown(until=NOW + 1))
