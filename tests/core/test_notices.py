"""What the pool tells: one notice for one lesson, and nothing alarming where a retry succeeds."""

from __future__ import annotations

from tests.core.pools import NOW, OK, account, ask, granted, guess, pool_of, told

from gemini_poold.core.model import Kind, PoolEvent, Scope
from gemini_poold.core.state import Pool


def notices(pool: Pool, kind: str = "cooldown") -> list[PoolEvent]:
    return [event for event in pool.take_events() if event.kind == kind]


def test_a_burst_of_refusals_is_one_notice() -> None:
    """Twenty requests under way meet the same limit: told once, for the bucket's account."""
    pool = pool_of(account("a"))
    leases = [granted(pool).lease.id for _ in range(20)]
    notices(pool)
    for lease in leases:
        pool.settle(lease, told(30), NOW)
    (event,) = notices(pool)
    assert (event.account_id, event.model, event.level) == ("a", "m", "info")


def test_a_full_model_is_one_notice_whoever_met_it() -> None:
    """Capacity is no account's fault: every account that meets it tells the same notice, which names none."""
    pool = pool_of(account("a"), account("b"), account("c"))
    leases = [granted(pool).lease.id for _ in range(3)]
    notices(pool)
    for lease in leases:
        pool.settle(lease, guess(Kind.CAPACITY, Scope.BACKEND_MODEL), NOW)
    assert [(e.account_id, e.model) for e in notices(pool)] == [("", "m")]


def test_a_retry_that_succeeded_is_told_to_those_who_debug() -> None:
    """No warning and no error on the way; the success after it is of level debug."""
    pool = pool_of(account("a"), account("b"))
    again = pool.settle(granted(pool).lease.id, told(30), NOW)
    assert again.request is not None
    pool.settle(granted(pool, again.request).lease.id, OK, NOW)
    events = pool.take_events()
    assert {e.level for e in events if e.kind != "account"} == {"info", "debug"}
    (event,) = [e for e in events if e.kind == "request"]
    assert (event.level, event.account_id, event.text) == ("debug", "b", "answered at attempt 2")
    pool.settle(granted(pool, ask()).lease.id, OK, NOW)
    assert notices(pool, "request") == []
