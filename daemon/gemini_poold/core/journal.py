"""What the pool has to say: totals, rows that must survive a restart, events worth telling. Marks now, makes later."""

from __future__ import annotations

from collections.abc import Mapping

from .member import Member
from .model import PoolEvent, Row, TotalRow

TOTALS = (
    "requests", "answered", "failed", "cancelled", "released", "expired", "rotations", "absorbed", "renewals",
    "renewed_ahead", "waited_for_token",
)  # fmt: skip
ENDS = ("answered", "failed", "cancelled", "released", "expired")  # each request ends as one of them


class Journal:
    """Dirty marks are cheap (sets of keys); rows are made when the shell takes them."""

    def __init__(self) -> None:
        self.totals: dict[str, int] = dict.fromkeys(TOTALS, 0)
        self._totals: set[str] = set()
        self._members: set[str] = set()
        self._counters: set[tuple[str, str]] = set()
        self._rows: list[Row] = []
        self._events: list[PoolEvent] = []

    @property
    def urgent(self) -> bool:
        """Whether a crash must not lose what is marked; mere counters may wait a moment."""
        return bool(self._rows or self._members)

    def count(self, name: str, by: int = 1) -> None:
        self.totals[name] = self.totals.get(name, 0) + by
        self._totals.add(name)

    @property
    def open(self) -> int:
        """Requests that were begun and have not ended."""
        return self.totals["requests"] - sum(self.totals[name] for name in ENDS)

    def lost(self, going_on: int = 0) -> None:
        """After a restart: what was under way when the last run ended never ends, but for those that go on; nobody
        knows what came of it."""
        if self.open > going_on:
            self.count("expired", self.open - going_on)

    def mark_member(self, account_id: str) -> None:
        self._members.add(account_id)

    def mark_counter(self, account_id: str, model: str) -> None:
        self._counters.add((account_id, model))

    def add_row(self, row: Row) -> None:
        self._rows.append(row)

    def tell(self, event: PoolEvent) -> None:
        self._events.append(event)

    def say(
        self,
        kind: str,
        level: str,
        at: float,
        text: str,
        account_id: str = "",
        model: str = "",
        **data: object,
    ) -> None:
        """Tell an event made of words and data."""
        self._events.append(PoolEvent(kind, level, at, text, account_id, model, data))

    def take_events(self) -> list[PoolEvent]:
        events, self._events = self._events, []
        return events

    def take_rows(self, members: Mapping[str, Member]) -> list[Row]:
        """Rows of everything marked since the last call."""
        rows, self._rows = self._rows, []
        rows.extend(members[i].row() for i in self._members if i in members)
        rows.extend(members[i].counter(m).row(i, m) for i, m in self._counters if i in members)
        rows.extend(TotalRow(name, self.totals[name]) for name in self._totals)
        self._members.clear()
        self._counters.clear()
        self._totals.clear()
        return rows
