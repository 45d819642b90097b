"""Which table a row lives in: columns are the row's fields, and its key is what a newer row replaces it by.

The tables themselves are made by `migrations.py`; a test holds the two together.
"""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, TypeVar

import msgspec

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

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class MetaRow:
    """One named text of the store's own or of the app's."""

    name: str
    value: str


StoredRow = Row | MetaRow
RowKey = tuple[type, Any]


class Table:
    """The SQL of one kind of row. A row whose `gone` is set is deleted instead of written."""

    def __init__(self, name: str, row_type: type[Any], key: tuple[str, ...]) -> None:
        self.name = name
        self.row_type = row_type
        self.key = key
        self.columns = tuple(field.name for field in dataclasses.fields(row_type) if field.name != "gone")
        self.deletable = len(self.columns) < len(dataclasses.fields(row_type))
        self.key_of: Callable[[Any], Any] = attrgetter(*key)
        self.values_of: Callable[[Any], tuple[Any, ...]] = attrgetter(*self.columns)
        self.columns_sql = ", ".join(f'"{column}"' for column in self.columns)
        marks = ", ".join("?" * len(self.columns))
        # Names are those of our own fields, never of anybody's input.
        self.upsert = f"INSERT OR REPLACE INTO {name} ({self.columns_sql}) VALUES ({marks})"  # noqa: S608
        self.delete = f"DELETE FROM {name} WHERE " + " AND ".join(f'"{column}" = ?' for column in key)  # noqa: S608
        self.select = f"SELECT {self.columns_sql} FROM {name}"  # noqa: S608

    def key_values(self, row: Any) -> tuple[Any, ...]:
        value = self.key_of(row)
        return value if isinstance(value, tuple) else (value,)


TABLES: Mapping[type[Any], Table] = {
    table.row_type: table
    for table in (
        Table("accounts", AccountRow, ("account_id",)),
        Table("cooldowns", CooldownRow, ("scope", "key", "model")),
        Table("counters", CounterRow, ("account_id", "model")),
        Table("totals", TotalRow, ("name",)),
        Table("discoveries", DiscoveryRow, ("account_id",)),
        Table("paces", PaceRow, ("bucket", "model")),
        Table("bound", BoundRow, ("name",)),
        Table("caps", CapRow, ("account_id",)),
        Table("pins", PinRow, ("account_id",)),
        Table("quota_history", QuotaRow, ("account_id", "model", "token_type", "at")),
        Table("leases", LeaseRow, ("lease_id",)),
        Table("meta", MetaRow, ("name",)),
    )
}


def row_key(row: StoredRow) -> RowKey:
    """What tells rows apart: a later row of the same key makes the earlier one superfluous."""
    row_type = type(row)
    return row_type, TABLES[row_type].key_of(row)


def write(connection: sqlite3.Connection, rows: Mapping[RowKey, StoredRow]) -> None:
    """Write the rows, which are one for each key. The transaction is the caller's."""
    for row_type, table in TABLES.items():
        of_type = [row for (kind, _), row in rows.items() if kind is row_type]
        gone = [row for row in of_type if getattr(row, "gone", False)]
        if gone:
            connection.executemany(table.delete, [table.key_values(row) for row in gone])
        kept = [row for row in of_type if not getattr(row, "gone", False)] if gone else of_type
        if kept:
            connection.executemany(table.upsert, [table.values_of(row) for row in kept])


def read(connection: sqlite3.Connection, row_type: type[T], bad: Callable[[str], None]) -> Iterator[T]:
    """All rows of one kind. A row that this version cannot understand is skipped and told to `bad`, in words."""
    table = TABLES[row_type]
    for values in connection.execute(table.select):
        fields = dict(zip(table.columns, values, strict=True))
        try:
            yield msgspec.convert(fields, row_type, strict=False)
        except msgspec.ValidationError as error:
            key = ", ".join(str(fields[column]) for column in table.key)
            bad(f"forgot {table.name} row {key}: {error}")
