"""Strategies: all real, all different, and none of them lets anybody starve."""

from __future__ import annotations

from collections import Counter

import pytest
from tests.core.pools import NOW, account, ask, granted, order, pool_of, told

from gemini_poold.core.model import Kind, Outcome, Scope
from gemini_poold.core.strategy import STRATEGIES

TIERS = (account("low", priority=-1), account("a"), account("b"), account("top", priority=5))


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("adaptive", ["top"] * 6),
        ("priority", ["top"] * 6),
        ("fill-first", ["top"] * 6),
        ("quota-aware", ["top"] * 6),
        ("health-weighted", ["top"] * 6),
        ("round-robin", ["low", "a", "b", "top", "low", "a"]),
        ("least-used", ["low", "a", "b", "top", "low", "a"]),
        ("lru", ["low", "a", "b", "top", "low", "a"]),
    ],
)
def test_who_serves(strategy: str, expected: list[str]) -> None:
    """Tiers rule where a strategy has them, turns where it has none."""
    assert expected == order(pool_of(*TIERS, strategy=strategy), 6)


def test_within_a_tier_the_least_recently_used() -> None:
    """Equal accounts take turns, also within one instant."""
    assert ["a", "b", "c"] * 2 == order(pool_of(account("a"), account("b"), account("c")), 6)


def test_the_next_tier_serves_when_the_first_rests() -> None:
    """A lower tier is used as long as the higher one may not serve, and no longer."""
    pool = pool_of(*TIERS)
    pool.settle(granted(pool).lease.id, told(10), NOW)
    assert ["a", "b", "a"] == order(pool, 3, now=NOW + 1)
    assert ["top"] == order(pool, 1, now=NOW + 10)


def test_fill_first_stays_with_the_first() -> None:
    """fill-first uses one account until it may not serve."""
    pool = pool_of(account("a"), account("b"), strategy="fill-first")
    assert ["a"] * 3 == order(pool, 3)
    pool.settle(granted(pool).lease.id, told(5), NOW)
    assert ["b"] * 2 == order(pool, 2, now=NOW + 1)


def test_round_robin_ignores_uses_for_other_models() -> None:
    """Turns are per model; least-used counts every use."""
    turns = pool_of(account("a"), account("b"), strategy="round-robin")
    assert ["a"] == order(turns, 1, ask("other"))
    assert ["a", "b"] == order(turns, 2)
    used = pool_of(account("a"), account("b"), strategy="least-used")
    assert ["a"] == order(used, 1, ask("other"))
    assert ["b", "a"] == order(used, 2)


def test_quota_aware_prefers_what_is_left() -> None:
    """The account with more quota left comes first; unknown counts as half."""
    pool = pool_of(account("little"), account("unknown"), account("much"), strategy="quota-aware")
    pool.quota_left("little", 0.1)
    pool.quota_left("much", 0.9)
    assert "much" == granted(pool).account.id
    pool.quota_left("much", 0.2)
    assert "unknown" == granted(pool).account.id


@pytest.mark.parametrize("strategy", ["weighted-random", "health-weighted"])
def test_weighted_draws_follow_the_weights(strategy: str) -> None:
    """Over many draws each account gets its share by weight, and the same seed draws the same."""
    accounts = (account("one"), account("three", weight=3.0), account("six", weight=6.0))
    drawn = order(pool_of(*accounts, strategy=strategy, seed=7), 5000)
    share = Counter(drawn)
    assert abs(share["one"] / 5000 - 0.1) < 0.02
    assert abs(share["six"] / 5000 - 0.6) < 0.03
    assert drawn == order(pool_of(*accounts, strategy=strategy, seed=7), 5000)


def test_health_weighs_in_a_draw() -> None:
    """health-weighted draws an account that keeps failing less often."""
    pool = pool_of(account("well"), account("ill"), strategy="health-weighted")
    for _ in range(30):
        grant = granted(pool, ask(pin="ill"))
        pool.settle(grant.lease.id, Outcome(Kind.TRANSIENT, Scope.NONE), NOW)
    share: Counter[str] = Counter()
    for _ in range(2000):
        grant = granted(pool)
        share[grant.account.id] += 1
        pool.release(grant.lease.id, NOW)  # no success, which would heal it
    assert share["well"] > 1.4 * share["ill"] > 0


def test_an_account_in_poor_health_comes_last() -> None:
    """adaptive prefers the healthy within a tier, but still uses the other when it must."""
    pool = pool_of(account("ill"), account("well"))
    for _ in range(12):
        grant = granted(pool, ask(pin="ill"))
        pool.settle(grant.lease.id, Outcome(Kind.TRANSIENT, Scope.NONE), NOW)
    assert ["well"] * 4 == order(pool, 4)
    pool.settle(granted(pool).lease.id, told(10), NOW)
    assert ["ill"] == order(pool, 1, now=NOW + 1)


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_one_who_comes_back_does_not_take_everything(strategy: str) -> None:
    """After a long rest an account joins in; it does not catch up on all the turns it missed."""
    pool = pool_of(account("a"), account("b"), strategy=strategy, seed=3)
    pool.settle(granted(pool, ask(pin="b")).lease.id, told(100), NOW)
    order(pool, 200, now=NOW + 1)
    later = Counter(order(pool, 100, now=NOW + 200))
    if strategy != "fill-first":
        assert 20 < later["a"] < 80
