"""Which account made what Google keeps: files, caches, interactions, uploads. Only that account can use it again.

Names are Google's resource names (`files/abc`) or the daemon's own (`upload/…`). Bounded, and forgotten when they
expire; what changed is told to the journal, so that it survives a restart.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

from .journal import Journal
from .model import BoundRow

MOST = 50_000
_SWEEP = 16  # expired ones looked for at each new one: the table stays clean without a timer


class Bindings:
    """Name -> account, the oldest first. `most`: beyond that many the oldest are forgotten."""

    def __init__(self, journal: Journal, *, most: int = MOST) -> None:
        self._journal = journal
        self._most = most
        self._rows: OrderedDict[str, BoundRow] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rows)

    def restore(self, row: BoundRow) -> None:
        """Take back what an earlier run saved."""
        self._rows[row.name] = row

    def bind(self, name: str, account_id: str, now: float, *, until: float) -> None:
        """`name` belongs to the account until the instant `until`."""
        known = self._rows.get(name)
        if known is not None and known.account_id == account_id and known.until == until:
            return
        row = self._rows[name] = BoundRow(name, account_id, until)
        self._rows.move_to_end(name)
        self._journal.add_row(row)
        self._sweep(now)
        while len(self._rows) > self._most:
            self.unbind(next(iter(self._rows)))

    def unbind(self, name: str) -> None:
        """It is deleted, or gone."""
        if (row := self._rows.pop(name, None)) is not None:
            self._journal.add_row(replace(row, gone=True))

    def account_of(self, name: str, now: float) -> str:
        """Whose it is; empty when that is not known (any more)."""
        row = self._rows.get(name)
        if row is None:
            return ""
        if row.until <= now:
            self.unbind(name)
            return ""
        return row.account_id

    def _sweep(self, now: float) -> None:
        """A look at some of the oldest."""
        old = [
            row.name for row, _ in zip(self._rows.values(), range(_SWEEP), strict=False) if row.until <= now
        ]
        for name in old:
            self.unbind(name)
