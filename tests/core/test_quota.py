"""Quota readings: amounts and shares, families, what is tight, when to ask again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemini_poold.core.quota import (
    Asked,
    Quotas,
    aggregate,
    family_of,
    family_order,
    next_poll_at,
    reading,
)

NOW = 1_795_000_000.0


def read(amount=None, fraction=None, resets_at=NOW + 3600, last=None, model="gemini-2.5-pro", account="a"):
    return reading(account, model, NOW, amount=amount, fraction=fraction, resets_at=resets_at, last=last)


@pytest.mark.parametrize(
    ("amount", "fraction", "limit", "used", "percent"),
    [
        (140, 0.7, 200, 60, 30),
        (1, 0.3333, 3, 2, 66.67),
        (0, 0.0, None, None, 100),
        (None, 0.7, None, None, 30),
        (None, 0.0, None, None, 100),
        (5, None, None, None, None),
        (None, None, None, None, None),
        (10, 1.0, 10, 0, 0),
    ],
)
def test_amounts(amount, fraction, limit, used, percent):
    """Limit from amount and share; a share alone still tells the percentage used; a missing share is no zero."""
    r = read(amount, fraction)
    assert (r.limit, r.used, r.remaining) == (limit, used, amount)
    assert r.used_percent == (percent if percent is None else pytest.approx(percent, abs=0.01))


def test_last_known_limit():
    """While nothing is left, the limit seen before still tells what was used."""
    before = read(140, 0.7)
    after = read(0, 0.0, last=before)
    assert (after.limit, after.used) == (200, 200)


@pytest.mark.parametrize(("given", "kept"), [(1.5, 1.0), (-0.1, 0.0), (float("nan"), None)])
def test_odd_fractions(given, kept):
    """A share outside 0 to 1 is bounded; what is no number is unknown."""
    assert read(fraction=given).fraction == kept


def test_no_entitlement():
    """A reset in 1970 means there is no such quota: it counts for nothing."""
    r = read(fraction=0.0, resets_at=0.0)
    assert (r.entitled, r.resets_at, r.speaks(NOW)) == (False, None, False)


def test_speaks():
    """A reading is silent once its reset has passed, and when it knows no share."""
    assert read(fraction=0.5).speaks(NOW)
    assert not read(fraction=0.5).speaks(NOW + 3600)
    assert not read(amount=3).speaks(NOW)
    assert read(fraction=0.5, resets_at=None).speaks(NOW + 1e9)


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("gemini-2.5-pro", "gemini-2.5"),
        ("gemini-2.5-flash-lite_vertex", "gemini-2.5"),
        ("gemini-3-pro-preview", "gemini-3"),
        ("gemini-3.1-flash-lite", "gemini-3.1"),
        ("models/gemini-3.5-flash", "gemini-3.5"),
        ("gemini-4-argon", "gemini-4"),
        ("gemini-embedding-001", "other"),
        ("imagen-4", "other"),
        ("gemini-25x", "other"),
    ],
)
def test_family(model, family):
    """Families go by version; what has none is "other"."""
    assert family_of(model) == family


def test_family_order():
    """Newest first, the rest last."""
    names = ["other", "gemini-2.5", "gemini-3", "gemini-10", "gemini-3.1"]
    assert sorted(names, key=family_order) == ["gemini-10", "gemini-3.1", "gemini-3", "gemini-2.5", "other"]


def test_variant():
    """`_vertex` is a variant of the model before it."""
    r = read(fraction=1, model="gemini-2.5-pro_vertex")
    assert (r.base_model, r.variant) == ("gemini-2.5-pro", "vertex")
    assert read(fraction=1).variant == "default"


def test_book():
    """Readings of an account are replaced as a whole; the tightest share that still speaks is known."""
    quotas = Quotas()
    assert quotas.tightest("a", NOW) is None
    quotas.seen(
        "a",
        [
            read(fraction=0.5),
            read(fraction=0.2, model="gemini-3-pro-preview"),
            read(fraction=0.0, resets_at=0.0, model="x"),
        ],
    )
    assert quotas.tightest("a", NOW) == 0.2
    assert quotas.tightest("a", NOW + 3600) is None
    assert quotas.last("a", "gemini-2.5-pro").fraction == 0.5
    assert [r.model for r in quotas.all()] == ["gemini-3-pro-preview", "gemini-2.5-pro", "x"]
    assert quotas.observed_at("a") == NOW
    quotas.seen("a", [])
    assert quotas.of("a") == []
    quotas.forget(["a", "b"])
    assert quotas.observed_at("a") is None


def test_aggregate():
    """Per family: the mean over accounts of each one's tightest model, the sums of what is known, the next reset."""
    readings = [
        read(140, 0.7, account="a"),
        read(fraction=0.5, account="a", model="gemini-2.5-flash", resets_at=NOW + 60),
        read(20, 0.1, account="b"),
        read(fraction=0.9, account="b", model="gemini-3-pro-preview"),
        read(fraction=0.0, account="c", resets_at=0.0),
    ]
    newer, older = aggregate(readings, NOW)
    assert (newer.family, newer.accounts, newer.fraction, newer.used) == ("gemini-3", 1, 0.9, None)
    assert (older.family, older.accounts) == ("gemini-2.5", 2)
    assert older.fraction == pytest.approx((0.5 + 0.1) / 2)
    assert (older.used, older.remaining, older.next_reset_at) == (60 + 180, 160, NOW + 60)


def test_aggregate_of_a_shared_bucket():
    """Two accounts of one user are one quota."""
    readings = [read(140, 0.7, account="a"), read(140, 0.7, account="b")]
    (only,) = aggregate(readings, NOW, lambda account: "same")
    assert (only.accounts, only.remaining, only.fraction) == (2, 140, 0.7)


@pytest.mark.parametrize(
    ("asked", "readings", "delay"),
    [
        (Asked(NOW), [], 300),
        (Asked(NOW), [read(fraction=0.9)], 300),
        (Asked(NOW), [read(fraction=0.1)], 75),
        (Asked(NOW), [read(fraction=0.0)], 300),
        (Asked(NOW), [read(fraction=0.9, resets_at=NOW + 100)], 107.5),
        (Asked(NOW), [read(fraction=0.9, resets_at=NOW + 5)], 60),
        (Asked(NOW), [read(fraction=0.0, resets_at=NOW - 5)], 300),
        (Asked(NOW), [read(fraction=0.1, resets_at=0.0)], 300),
        (Asked(NOW, failures=1), [], 600),
        (Asked(NOW, failures=3), [], 2400),
        (Asked(NOW, failures=9), [], 3600),
        (Asked(NOW, failures=1, retry_at=NOW + 5000), [], 5000),
    ],
)
def test_next_poll(asked, readings, delay):
    """Sooner near the end and after a reset, never within a minute, later and later after failures."""
    assert next_poll_at(asked, readings, 300, rng=lambda: 0.5) - NOW == pytest.approx(delay)


@given(st.floats(0, 0.999), st.integers(0, 30), st.floats(1, 10_000))
def test_next_poll_bounds(chance, failures, interval):
    """Never more often than each minute (or the interval, if shorter), never later than told."""
    at = next_poll_at(Asked(NOW, failures), [read(fraction=0.05)], interval, rng=lambda: chance) - NOW
    assert min(60, interval) - 1e-3 <= at <= max(3600, interval) * 1.1 + 1e-3
