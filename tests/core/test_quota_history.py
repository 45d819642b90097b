"""How quota went: what is kept of it, the rate, and where that leads."""

from __future__ import annotations

import pytest

from gemini_poold.core.model import QuotaRow
from gemini_poold.core.quota import Outlook, QuotaReading, Quotas, outlook
from gemini_poold.core.quota_history import MOST, QuotaHistory

NOW = 1_795_000_000.0
HOUR_S = 3_600.0


def row(at: float, fraction: float, *, resets_at: float | None = NOW + 5 * HOUR_S) -> QuotaRow:
    return QuotaRow("a", "m", "REQUESTS", at, fraction, None, None, resets_at)


def history(*points: tuple[float, float]) -> QuotaHistory:
    made = QuotaHistory()
    for at, fraction in points:
        made.add(row(NOW + at, fraction))
    return made


def test_only_what_says_something_new_is_kept() -> None:
    """A change of the share or of the reset at once, the same again each quarter of an hour, nothing out of order."""
    made = history((0, 0.9), (60, 0.9), (120, 0.8), (100, 0.7), (1_000, 0.8), (1_100, 0.8))
    made.add(row(NOW + 1_200, 0.8, resets_at=NOW + 9 * HOUR_S))
    assert [r.at - NOW for r in made.take_rows()] == [0, 120, 1_100, 1_200]
    made.add(row(NOW + 2_200, 0.8, resets_at=NOW + 9 * HOUR_S))
    assert [r.at - NOW for r in made.take_rows()] == [2_200]
    assert made.take_rows() == []


def test_the_database_holds_what_is_held_here() -> None:
    """What falls out of the bound is deleted there, too; a restart takes up the rest, bounded again."""
    made = QuotaHistory()
    for n in range(MOST + 10):
        made.add(row(NOW + 60 * n, n / 1_000))
    stored: dict[float, QuotaRow] = {}
    for r in made.take_rows():
        if r.gone:
            del stored[r.at]
        else:
            stored[r.at] = r
    assert (len(stored), min(stored)) == (MOST, NOW + 600)
    again = QuotaHistory()
    (newest,) = again.restore(stored.values())
    assert newest.at == NOW + 60 * (MOST + 9)
    end = NOW + 60 * (MOST + 9)
    assert again.rate("a", "m", "REQUESTS", end) == made.rate("a", "m", "REQUESTS", end)
    again.forget(["a"])
    gone = again.take_rows()
    assert len(gone) == MOST
    assert all(r.gone for r in gone)


@pytest.mark.parametrize(
    ("points", "per_hour"),
    [
        ([(0, 0.9), (HOUR_S, 0.7)], 0.2),
        ([(0, 0.9), (HOUR_S, 0.9)], 0.0),
        ([(0, 0.1), (HOUR_S, 1.0), (2 * HOUR_S, 0.7)], 0.3),  # since it was filled up
        ([(-9 * HOUR_S, 1.0), (0, 0.9), (HOUR_S, 0.5)], 0.4),  # the last hours count
        ([(0, 0.9)], None),
        ([(0, 0.9), (100, 0.8)], None),  # too short to tell
    ],
)
def test_the_rate(points: list[tuple[float, float]], per_hour: float | None) -> None:
    """Share an hour, over the last three hours and not beyond a reset."""
    rate = history(*points).rate("a", "m", "REQUESTS", NOW + 2 * HOUR_S)
    assert (rate if rate is None else pytest.approx(rate * HOUR_S)) == per_hour


@pytest.mark.parametrize(
    ("fraction", "per_hour", "resets_in_h", "expected"),
    [
        (0.5, 0.25, 5, Outlook(NOW + 2 * HOUR_S, None)),
        (0.9, 0.1, 3, Outlook(None, pytest.approx(0.6))),
        (0.6, 0.0, 3, Outlook(None, 0.6)),
        (0.5, 0.25, None, Outlook(NOW + 2 * HOUR_S, None)),
        (0.0, 0.25, 3, Outlook()),
        (None, 0.25, 3, Outlook()),
        (0.5, None, 3, Outlook()),
    ],
)
def test_the_outlook(
    fraction: float | None, per_hour: float | None, resets_in_h: float | None, expected: Outlook
) -> None:
    """Empty before the reset, or so much left at it; nothing where nothing can be said."""
    rate = None if per_hour is None else per_hour / HOUR_S
    resets_at = None if resets_in_h is None else NOW + resets_in_h * HOUR_S
    assert outlook(fraction, rate, resets_at, NOW) == expected


def test_the_last_good_reading_outlives_a_restart_with_its_age() -> None:
    """Of each bucket the newest, as old as it is."""
    quotas = Quotas()
    quotas.seen("a", [QuotaReading("a", "gemini-3-pro", NOW, 0.4, 40.0, 100.0, NOW + HOUR_S)])
    quotas.seen("a", [QuotaReading("a", "gemini-3-pro", NOW + 300, 0.3, 30.0, 100.0, NOW + HOUR_S)])
    again = Quotas()
    again.restore(quotas.history.take_rows())
    (reading,) = again.all()
    assert reading == QuotaReading("a", "gemini-3-pro", NOW + 300, 0.3, 30.0, 100.0, NOW + HOUR_S)
    assert again.history.rate("a", "gemini-3-pro", "REQUESTS", NOW + 300) is not None
