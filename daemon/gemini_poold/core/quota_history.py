"""How each account's quota went: a bounded series of what Google told, and the rate worked out from it.

A point is kept when the share changed, else every quarter of an hour. What falls out of the bound is told as a `gone`
row, so that the database holds exactly what is held here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import replace

from .model import QuotaRow

MOST = 96  # points of one account, model and token type
_EVERY_S = 900.0
_OVER_S = 3 * 3_600.0  # the rate is that of the last three hours
_SHORTEST_S = 240.0
_GRAIN = 1e-6

Series = tuple[str, str, str]  # account, model, token type


class QuotaHistory:
    """Points by series, oldest first."""

    def __init__(self) -> None:
        self._points: dict[Series, deque[QuotaRow]] = {}
        self._rows: list[QuotaRow] = []

    def restore(self, rows: Iterable[QuotaRow]) -> list[QuotaRow]:
        """Take back what an earlier run kept; returns the newest of each series."""
        for row in sorted(rows, key=lambda r: r.at):
            self._of(row).append(row)
        for points in self._points.values():
            self._trim(points)
        return [points[-1] for points in self._points.values()]

    def add(self, row: QuotaRow) -> None:
        """A new point, if it says anything new."""
        points = self._of(row)
        last = points[-1] if points else None
        same = (
            last is not None
            and abs(last.fraction - row.fraction) < _GRAIN
            and last.resets_at == row.resets_at
        )
        if last is not None and (row.at <= last.at or (same and row.at - last.at < _EVERY_S)):
            return
        points.append(row)
        self._rows.append(row)
        self._trim(points)

    def forget(self, account_ids: Iterable[str]) -> None:
        gone = set(account_ids)
        for series in [s for s in self._points if s[0] in gone]:
            self._rows += [replace(row, gone=True) for row in self._points.pop(series)]

    def rate(self, account_id: str, model: str, token_type: str, now: float) -> float | None:
        """Share of the quota that is used in a second, over the last hours and since it was last filled up; None when
        too little is known."""
        points = self._points.get((account_id, model, token_type))
        if not points:
            return None
        first = last = points[-1]
        for row in reversed(points):
            if row.fraction < first.fraction - _GRAIN or now - row.at > _OVER_S:
                break
            first = row
        over_s = last.at - first.at
        return None if over_s < _SHORTEST_S else (first.fraction - last.fraction) / over_s

    def take_rows(self) -> list[QuotaRow]:
        """What changed since the last call."""
        rows, self._rows = self._rows, []
        return rows

    def _of(self, row: QuotaRow) -> deque[QuotaRow]:
        return self._points.setdefault((row.account_id, row.model, row.token_type), deque())

    def _trim(self, points: deque[QuotaRow]) -> None:
        while len(points) > MOST:
            self._rows.append(replace(points.popleft(), gone=True))
