"""How many requests an account may have under way at once: configured, learnt, obeyed by choosing, told by explain."""

from __future__ import annotations

import random

import pytest
from tests.core.pools import NOW, OK, account, ask, granted, pool_of, refusal, waits

from gemini_poold.core.concurrency import BUSY_S, FIRST_PAUSE_S, LONGEST_PAUSE_S, UNLIMITED, Crowd
from gemini_poold.core.explain import explain
from gemini_poold.core.model import Grant, Kind, Outcome, Scope
from gemini_poold.core.queue import Queue, Waiter
from gemini_poold.core.state import Pool
from gemini_poold.core.strategy import STRATEGIES

CROWDED = Outcome(Kind.CONCURRENCY, Scope.ACCOUNT_MODEL, rotate=True, reason="too many at once")


# ---- the limit alone --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("configured", "others", "most"),
    [
        (0, [], UNLIMITED),
        (5, [], 5),
        (0, [7], 7),
        (0, [19, 18, 17, 8], 8),
        (0, [7, 12], 7),
        (0, [0], 1),
        (5, [9], 5),
        (5, [3], 3),
    ],
)
def test_what_refusals_teach(configured: int, others: list[int], most: int) -> None:
    """Those that go on are as many as there may be; never more than the user wants, never fewer than one."""
    crowd = Crowd()
    crowd.configure(configured)
    for left in others:
        crowd.refused(left, NOW)
    assert crowd.most == most


def test_it_is_raised_slowly_and_only_where_it_binds() -> None:
    """Not before the pause, not while there is room, by an eighth; a lesson is kept when the user's limit goes."""
    crowd = Crowd()
    crowd.refused(16, NOW)
    assert not crowd.answered(16, NOW + FIRST_PAUSE_S - 1)
    assert not crowd.answered(15, NOW + FIRST_PAUSE_S)
    assert crowd.answered(16, NOW + FIRST_PAUSE_S)
    assert crowd.most == 18
    assert not crowd.answered(18, NOW + FIRST_PAUSE_S + 1)
    crowd.configure(4)
    assert crowd.most == 4
    crowd.configure(0)
    assert crowd.most == 18


def test_a_raise_that_is_refused_comes_more_rarely() -> None:
    """Each doubles the pause, up to a quarter of an hour; one that holds halves it."""
    crowd, now, pauses = Crowd(), NOW, []
    crowd.refused(1, now)
    for _ in range(8):
        began = now
        while not crowd.answered(crowd.most, now):
            now += 1.0
        pauses.append(now - began)
        for left in (3, 2, 1):  # a burst counts once
            crowd.refused(left, now)
    assert pauses[:4] == [FIRST_PAUSE_S * 2**n for n in range(4)]
    assert pauses[-1] == LONGEST_PAUSE_S
    began = now
    while not crowd.answered(crowd.most, now):
        now += 1.0
    while not crowd.answered(crowd.most, now):
        now += 1.0
    assert now - began == 2 * LONGEST_PAUSE_S
    began = now
    while not crowd.answered(crowd.most, now):
        now += 1.0
    assert now - began == LONGEST_PAUSE_S / 2


# ---- in the pool ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_keeps_it(strategy: str) -> None:
    """No account ever has more under way than it may; all together have all that they may."""
    pool = pool_of(account("a"), account("b"), account("c"), strategy=strategy, most_in_flight=4)
    rng, held = random.Random(2), []
    for step in range(400):
        decision = pool.acquire(ask(f"m{step % 3}", session=f"s{step % 5}"), NOW + step * 0.01)
        if isinstance(decision, Grant):
            held.append(decision.lease)
        else:
            assert all(member.in_flight == 4 for member in pool.members.values())
        assert max(member.in_flight for member in pool.members.values()) <= 4
        if len(held) == 12 or (held and rng.random() < 0.3):
            lease = held.pop(rng.randrange(len(held)))
            pool.settle(lease.id, OK, NOW + step * 0.01)
            assert isinstance(pool.acquire(ask(), NOW + step * 0.01), Grant)
            held.append(next(reversed(list(pool.leases))))


def test_a_full_account_waits_and_says_why() -> None:
    """Who asks for it is told a guess; explain has its own word; the end of a request brings it back at once."""
    pool = pool_of(account("a"), most_in_flight=2)
    leases = [granted(pool).lease for _ in range(2)]
    wait = waits(pool)
    assert wait.until == NOW + BUSY_S
    assert "2 requests are under way" in wait.reason
    (verdict,) = explain(pool, ask(), NOW).verdicts
    assert (verdict.verdict, verdict.available, verdict.returns_at) == ("busy", False, NOW + BUSY_S)
    assert verdict.reason == "2 of 2 requests at once are under way (configured)"
    assert waits(pool, ask(pin="a")).until == NOW + BUSY_S
    pool.release(leases.pop().id, NOW)
    assert granted(pool).account.id == "a"
    waits(pool)
    pool.settle(leases.pop().id, OK, NOW)
    assert granted(pool, ask("other model")).account.id == "a"


def test_a_session_goes_elsewhere_rather_than_wait() -> None:
    """A warm cache is worth less than a wait."""
    pool = pool_of(account("a"), account("b"), most_in_flight=1)
    first = granted(pool, ask(session="s"))
    assert granted(pool, ask(session="s")).account.id != first.account.id


def test_who_waits_in_the_queue_is_served_by_an_end() -> None:
    """In order, as soon as one ends, and not only when the guess has passed."""
    pool = pool_of(account("a"), most_in_flight=1)
    queue = Queue(pool)
    lease = granted(pool).lease
    waiters = [Waiter(ask(id=name), name, NOW + 60, NOW) for name in ("first", "second")]
    for waiter in waiters:
        queue.join(waiter)
    assert queue.serve(NOW) == []
    assert queue.wake_at == NOW + BUSY_S
    pool.settle(lease.id, OK, NOW + 0.1)
    ((served, decision),) = queue.serve(NOW + 0.1)
    assert served is waiters[0]
    assert isinstance(decision, Grant)


def test_who_cannot_wait_is_told_at_once() -> None:
    """A deadline before the guess is hopeless."""
    pool = pool_of(account("a"), most_in_flight=1)
    granted(pool)
    queue = Queue(pool)
    queue.join(Waiter(ask(), "", NOW + BUSY_S / 2, NOW))
    assert len(queue.serve(NOW)) == 1


def test_a_limit_of_googles_is_learnt_by_a_burst() -> None:
    """Twenty at once, eight of which Google takes: from then on eight, and no account rests for it."""
    pool = pool_of(account("a"))
    leases = [granted(pool).lease for _ in range(20)]
    for lease in leases[8:]:
        assert pool.settle(lease.id, CROWDED, NOW).retry
    assert pool.members["a"].crowd.most == 8
    assert not list(pool.cooldowns.active(NOW))
    assert (
        "8 of 8 requests at once are under way (learnt from refusals)"
        in explain(pool, ask(), NOW).verdicts[0].reason
    )
    notices = [event.text for event in pool.take_events() if event.kind == "account"]
    assert notices[-1] == "at most 8 requests at once from now on"
    for lease in leases[:8]:
        pool.settle(lease.id, OK, NOW + 1)
    later = NOW + FIRST_PAUSE_S
    leases = [granted(pool, now=later).lease for _ in range(8)]
    waits(pool, now=later)
    pool.settle(leases.pop().id, OK, later)
    assert pool.members["a"].crowd.most == 9


def test_an_account_that_others_fill_rests() -> None:
    """Refused with nothing of ours under way: there is no end to wait for, so it is a rest like any other."""
    pool = pool_of(account("a"))
    pool.settle(granted(pool).lease.id, CROWDED, NOW)
    assert waits(pool).until > NOW
    assert pool.members["a"].crowd.most == 1


def test_a_time_that_google_told_is_kept() -> None:
    """However many others are under way."""
    pool = pool_of(account("a"))
    granted(pool)
    told = Outcome(Kind.CONCURRENCY, Scope.ACCOUNT_MODEL, NOW + 9, True, rotate=True)
    pool.settle(granted(pool).lease.id, told, NOW)
    assert waits(pool).until == NOW + 9


def test_a_reload_takes_effect() -> None:
    """Raised and lowered while requests are under way, for accounts that come later, too."""
    pool = pool_of(account("a"))
    for _ in range(3):
        granted(pool)
    pool.reselect(strategy="adaptive", allow_paid=True, most_in_flight=2)
    waits(pool)
    pool.configure([account("a"), account("b")], NOW)
    pool.token_ready("b", NOW)
    assert [granted(pool).account.id for _ in range(2)] == ["b", "b"]
    waits(pool)
    pool.reselect(strategy="adaptive", allow_paid=True, most_in_flight=0)
    granted(pool)


def test_a_held_account_is_held_and_not_busy() -> None:
    """What a person must mend goes before."""
    pool = Pool(rng=random.Random(1).random, most_in_flight=1)
    pool.configure([account("a", enabled=False)], NOW)
    assert refusal(pool).code
    assert explain(pool, ask(), NOW).verdicts[0].verdict == "disabled"
