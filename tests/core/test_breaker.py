"""When Google's fleet is full for a model: one lesson for the pool, back by a trickle, nobody else hurt."""

from __future__ import annotations

from typing import Any

from tests.core.pools import NOW, OK, account, ask, granted, pool_of, waits

from gemini_poold.core.model import Backend, Grant, Kind, Outcome, Scope, Usage
from gemini_poold.core.queue import Queue, Waiter
from gemini_poold.core.state import Pool


def full(seconds: float | None = None, now: float = NOW) -> Outcome:
    until = None if seconds is None else now + seconds
    return Outcome(Kind.CAPACITY, Scope.BACKEND_MODEL, until, until is not None, rotate=True, reason="full")


def pool_hit(*outcomes: Outcome, count: int = 5, **options: Any) -> Pool:
    """A pool whose requests met a full model."""
    pool = pool_of(*(account(f"a{n}") for n in range(count)), account("v", backend=Backend.VERTEX), **options)
    grants = [granted(pool, ask(forms=frozenset({"gl"}))) for _ in outcomes]
    for grant, outcome in zip(grants, outcomes, strict=True):
        pool.settle(grant.lease.id, outcome, NOW)
    return pool


GL = frozenset({"gl"})


def test_one_lesson_for_all_accounts() -> None:
    """After one refusal nobody of that backend is tried with the model, whoever was refused."""
    pool = pool_hit(full(9))
    wait = waits(pool, ask(forms=GL))
    assert wait.until == NOW + 9
    assert len(list(pool.cooldowns.active(NOW))) == 1


def test_a_burst_that_meets_it_is_one_strike() -> None:
    """Five refusals of the same second rest the model as long as one does."""
    one, five = pool_hit(full()), pool_hit(*[full()] * 5)
    assert waits(one, ask(forms=GL)).until == waits(five, ask(forms=GL)).until


def test_other_models_and_backends_go_on() -> None:
    """The same accounts serve other models, and another backend serves the same model."""
    pool = pool_hit(full(9))
    assert granted(pool, ask("other", forms=GL)).account.backend is Backend.DEVELOPER_API
    assert granted(pool).account.id == "v"


def test_nobodys_health_and_nobodys_quota_suffers() -> None:
    """Health, failures in a row, state and the count of the bucket's window are as if it had never been sent."""
    pool, fresh = pool_hit(*[full()] * 3), pool_of(account("a0"))
    healthy = fresh.members["a0"].health
    for member in pool.members.values():
        health = member.health
        assert (health.success, health.failures, health.score(NOW)) == (
            healthy.success,
            healthy.failures,
            healthy.score(NOW),
        )
        assert member.state == "ready"
        pace = member.book.get("m")
        assert pace is None or len(pace._sent) == 0


def test_comes_back_by_a_trickle() -> None:
    """After the rest one request goes, then one after a pause, until one is answered: then all."""
    pool = pool_hit(full())
    over = waits(pool, ask(forms=GL)).until
    first = granted(pool, ask(forms=GL), over)
    wait = waits(pool, ask(forms=GL), over)
    assert over < wait.until <= over + 2
    second = granted(pool, ask(forms=GL), wait.until)
    assert waits(pool, ask(forms=GL), wait.until).until > wait.until
    pool.settle(first.lease.id, OK, wait.until + 0.1, usage=Usage(1, 1))
    for _ in range(5):
        granted(pool, ask(forms=GL), wait.until + 0.1)
    pool.settle(second.lease.id, OK, wait.until + 0.2)


def test_a_trial_that_fails_begins_a_longer_rest() -> None:
    """Each lesson in a row rests the model a little longer, up to a bound."""
    pool, now, rests = pool_hit(full()), NOW, []
    for _ in range(12):
        now = waits(pool, ask(forms=GL), now).until
        grant = granted(pool, ask(forms=GL), now)
        pool.settle(grant.lease.id, full(now=now), now)
        rests.append(waits(pool, ask(forms=GL), now).until - now)
    assert rests == sorted(rests)
    assert rests[0] < rests[-1] <= 20.0


def test_what_google_told_is_kept_while_the_fleet_is_full() -> None:
    """A success that was under way does not end a told rest."""
    pool = pool_of(account("a"), account("b"))
    refused, answered = granted(pool), granted(pool)
    pool.settle(refused.lease.id, full(30), NOW)
    pool.settle(answered.lease.id, OK, NOW + 1)
    assert waits(pool, now=NOW + 1).until == NOW + 30


def test_a_queue_costs_a_handful_of_requests_and_not_one_each() -> None:
    """Fifty wait through half a minute without capacity: few are sent in vain, all are served afterwards."""
    pool = pool_of(*(account(f"a{n}") for n in range(10)))
    queue, now, sent_in_vain, served = Queue(pool), NOW, 0, 0
    under_way: list[tuple[float, Grant]] = []
    for n in range(50):
        queue.join(Waiter(ask(), f"c{n}", NOW + 120, NOW))
    while len(queue) or under_way:
        for at, grant in [pair for pair in under_way if pair[0] <= now]:
            under_way.remove((at, grant))
            if at - 0.1 < NOW + 30:
                sent_in_vain += 1
                pool.settle(grant.lease.id, full(now=now), now)
                queue.join(Waiter(grant.lease.request._replace(attempt=2), "", NOW + 120, now))
            else:
                served += 1
                pool.settle(grant.lease.id, OK, now)
        for _, decision in queue.serve(now):
            assert isinstance(decision, Grant)
            under_way.append((now + 0.1, decision))
        if len(queue) or under_way:
            now = min([at for at, _ in under_way] + [max(queue.wake_at, now + 0.001)])
    assert served == 50
    assert now < NOW + 60
    assert sent_in_vain - 50 <= 12  # the first burst of fifty met it before anybody knew
