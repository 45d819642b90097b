"""Leases over a planned restart: they go on with everything that belongs to them, once."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.core.pools import NOW, OK, account, ask, granted, pool_of

from gemini_poold.core.leases import lease_of
from gemini_poold.core.model import Data, LeaseRow, Row
from gemini_poold.core.state import Pool, UnknownLease

REQUEST = ask(
    lends=True, session="s", pin="a", exclude=frozenset({"b", "c"}), forms=frozenset({"gl", "vx"}),
    min_validity_s=2.5, allow_paid=False, data=Data.MAY_TRAIN, batch=True,
)  # fmt: skip


def restarted(pool: Pool, *names: str, rows: list[Row] | None = None, now: float = NOW + 5) -> Pool:
    """The next run, with these accounts."""
    again = pool_of(prefix="next-")
    again.restore(pool.take_rows() if rows is None else rows, now)
    again.configure([account(name) for name in names], now)
    return again


def test_a_client_s_lease_goes_on() -> None:
    """The same id, request, owner and end; it occupies its account, and ends once, with an outcome that counts."""
    pool = pool_of(account("a"))
    lease = granted(pool, REQUEST, owner="c1", detached=True).lease
    assert pool.leave() == 1
    again = restarted(pool, "a")
    assert again.leases.get(lease.id) == replace(lease)
    assert again.members["a"].in_flight == 1
    assert again.journal.open == 1
    again.settle(lease.id, OK, NOW + 6)
    assert again.members["a"].in_flight == 0
    assert (again.totals["answered"], again.totals["expired"], again.journal.open) == (1, 0, 0)
    with pytest.raises(UnknownLease):
        again.settle(lease.id, OK, NOW + 7)


def test_a_lease_that_nobody_reports_runs_out_when_it_would_have() -> None:
    """The restart gives it no more time, and none less."""
    pool = pool_of(account("a"))
    lease = granted(pool, REQUEST, owner="c1").lease
    pool.leave()
    again = restarted(pool, "a")
    assert again.next_deadline() == lease.expires_at
    again.expire(lease.expires_at - 1)
    assert len(again.leases) == 1
    again.expire(lease.expires_at)
    assert (len(again.leases), again.totals["expired"]) == (0, 1)


def test_what_the_daemon_itself_sent_and_what_has_no_account_ends() -> None:
    """Only who holds a lease outside can go on with it, and only while its account is there."""
    pool = pool_of(account("a"), account("b"))
    granted(pool, REQUEST, owner="c1")
    granted(pool, ask(pin="b"))
    assert pool.leave() == 1
    again = restarted(pool, "b")
    assert (len(again.leases), again.totals["expired"], again.journal.open) == (0, 2, 0)


def test_a_crash_after_the_restart_does_not_bring_it_back_twice() -> None:
    """Taken up, its row is gone: the run after that knows nothing of it."""
    pool = pool_of(account("a"))
    lease = granted(pool, REQUEST, owner="c1").lease
    pool.leave()
    again = restarted(pool, "a")
    rows = again.take_rows()
    assert [row.lease_id for row in rows if isinstance(row, LeaseRow) and row.gone] == [lease.id]
    third = restarted(again, "a", rows=[row for row in rows if not getattr(row, "gone", False)])
    assert (len(third.leases), third.journal.open) == (0, 0)


@pytest.mark.parametrize("request_", ["", "[]", "{}", '{"forms": [], "exclude": [], "data": "odd"}'])
def test_a_request_of_another_version_is_not_guessed_at(request_: str) -> None:
    """The lease is then as lost as after a crash."""
    assert lease_of(LeaseRow("l", "a", "c1", False, NOW, NOW, NOW, request_)) is None


def test_renewed_by_another_it_is_the_other_one_s() -> None:
    """It is freed with its new owner, not with the old one."""
    pool = pool_of(account("a"))
    lease = granted(pool, REQUEST, owner="c1").lease
    pool.renew(lease.id, NOW + 1, owner="c2")
    assert pool.leases.owners == {"c2"}
    assert pool.release_owner("c1", NOW + 1) == 0
    assert pool.release_owner("c2", NOW + 1) == 1
