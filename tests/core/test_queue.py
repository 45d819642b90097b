"""The queue: who goes first, who is told at once, what may be said of the wait."""

from __future__ import annotations

from typing import Any

from tests.core.pools import NOW, account, ask, pool_of, told

from gemini_poold.core.model import Grant, Kind, Limits, Scope, Wait
from gemini_poold.core.queue import LATE_S, Queue, Waiter
from gemini_poold.core.state import Pool


def line_of(rpm: int = 1, **options: Any) -> tuple[Pool, Queue]:
    """A pool of one account whose minute is full, and its queue."""
    pool = pool_of(account("a", limits=Limits(rpm=rpm)), **options)
    for _ in range(rpm):
        assert isinstance(pool.acquire(ask(), NOW), Grant)
    return pool, Queue(pool)


def join(
    queue: Queue, owner: str = "", *, patience_s: float = 9_000.0, now: float = NOW, **request: Any
) -> Waiter:
    waiter = Waiter(ask(**request), owner, now + patience_s, now)
    queue.join(waiter)
    return waiter


def served(queue: Queue, now: float) -> list[Waiter]:
    return [waiter for waiter, decision in queue.serve(now) if isinstance(decision, Grant)]


def order(queue: Queue, waiters: dict[str, Waiter]) -> list[str]:
    """Names in the order in which they are served, one a minute."""
    names, now = [], NOW
    while len(queue):
        answered = served(queue, now)
        names += [name for name, waiter in waiters.items() if waiter in answered]
        now = queue.wake_at
    return names


def test_clients_take_turns() -> None:
    """Max-min: whoever asked for one is served before another's third, first come first served within a client."""
    _, queue = line_of()
    waiters = {f"big{n}": join(queue, "big") for n in range(3)}
    waiters |= {"small": join(queue, "small"), "other": join(queue, "other")}
    assert order(queue, waiters) == ["big0", "small", "other", "big1", "big2"]


def test_interactive_before_batch_and_repeats_before_all() -> None:
    """Batch work waits while anybody else does; a request that was tried before goes before new ones."""
    _, queue = line_of()
    waiters = {
        "batch": join(queue, "x", batch=True), "new": join(queue, "y"), "tried": join(queue, "z", attempt=2),
    }  # fmt: skip
    assert order(queue, waiters) == ["tried", "new", "batch"]


def test_wakes_at_the_right_instant() -> None:
    """`wake_at` is the instant at which the first can be served, and no earlier one would do."""
    _, queue = line_of()
    first = join(queue)
    queue.serve(NOW)
    assert NOW + 60 <= queue.wake_at < NOW + 60.5
    assert served(queue, queue.wake_at - 0.01) == []
    assert served(queue, queue.wake_at) == [first]
    assert queue.wake_at > 1e300


def test_leaving_frees_the_place_at_once() -> None:
    """Whoever leaves is counted no more and holds nobody up; leaving twice is harmless."""
    _, queue = line_of()
    first, second = join(queue, "x"), join(queue, "y", now=NOW + 1)
    assert (queue.position(first), queue.position(second), queue.oldest_since()) == (0, 1, NOW)
    assert queue.leave(first)
    assert not queue.leave(first)
    assert (len(queue), queue.position(second), queue.oldest_since()) == (1, 0, NOW + 1)
    queue.serve(NOW + 1)
    assert served(queue, queue.wake_at) == [second]
    assert (len(queue), queue.oldest_since()) == (0, None)


def test_who_cannot_make_it_is_told_at_once() -> None:
    """As soon as the rest grows beyond a deadline its waiter gets the instant of return; the patient one stays."""
    pool = pool_of(account("a"))
    spare = [pool.acquire(ask(), NOW) for _ in range(2)]
    assert all(isinstance(grant, Grant) for grant in spare)
    pool.settle(spare[0].lease.id, told(20), NOW)  # type: ignore[union-attr]
    queue = Queue(pool)
    hasty, patient = join(queue, patience_s=30), join(queue, patience_s=900)
    assert queue.serve(NOW) == []
    pool.settle(spare[1].lease.id, told(600), NOW)  # type: ignore[union-attr]
    ((waiter, decision),) = queue.serve(NOW)
    assert waiter is hasty
    assert isinstance(decision, Wait)
    assert (decision.until, decision.account_id) == (NOW + 600, "a")
    assert patient.lane is not None


def test_nobody_is_served_after_a_suspend_past_its_deadline() -> None:
    """A loop that is a moment late still serves; one that slept through the deadline does not."""
    _, queue = line_of(rpm=2)
    gone, moment = join(queue, patience_s=61), join(queue, patience_s=3_600)
    queue.serve(NOW)
    late = NOW + 3_600 + LATE_S / 2
    answers = dict(queue.serve(late))
    assert isinstance(answers[gone], Wait)
    assert isinstance(answers[moment], Grant)


def test_nor_is_who_would_have_fitted_beside_a_large_one() -> None:
    """A large request waits for room; a small one that fits elsewhere by now slept through its deadline all the same."""
    pool = pool_of(account("a", limits=Limits(tpm=1_000)), account("b", limits=Limits(tpm=500)))

    def lease(name: str, tokens: int) -> str:
        grant = pool.acquire(ask(pin=name, tokens=tokens), NOW)
        assert isinstance(grant, Grant)
        return grant.lease.id

    lease("a", 800)
    lease("b", 100)
    of_a, of_b = lease("a", 50), lease("b", 50)
    pool.settle(of_b, told(49, Kind.TRANSIENT, Scope.ACCOUNT_MODEL), NOW)
    queue = Queue(pool)
    large = join(queue, tokens=450)
    gone, small = join(queue, tokens=10, patience_s=61), join(queue, tokens=10, patience_s=900)
    assert queue.serve(NOW) == []
    pool.acquire(ask(pin="b", tokens=100), NOW + 55)
    pool.settle(of_a, told(5, Kind.TRANSIENT, Scope.ACCOUNT_MODEL, now=NOW + 62), NOW + 62)
    answers = dict(queue.serve(NOW + 62))
    assert set(answers) == {gone, small}
    assert isinstance(answers[gone], Wait)
    assert isinstance(answers[small], Grant)
    assert large.lane is not None


def test_what_to_expect() -> None:
    """The first is served when the account returns; those behind it as far apart as grants came lately."""
    pool, queue = line_of()
    waiters = [join(queue, f"c{n}") for n in range(4)]
    queue.serve(NOW)
    assert {queue.expected_at(w) for w in waiters} == {queue.wake_at}  # nothing is known of the pace yet
    for _ in range(2):
        queue.serve(queue.wake_at)
    third, last = waiters[2:]
    assert queue.expected_at(third) == queue.wake_at
    assert 59 < queue.expected_at(last) - queue.wake_at < 61
    (line,) = queue.lines()
    assert (line.model, line.waiting, line.oldest_since, line.next_at) == ("m", 2, NOW, queue.wake_at)
    assert pool.members["a"].in_flight == 3


def test_expectations_end_at_the_deadline() -> None:
    """Nobody is told to expect anything after its own deadline."""
    _, queue = line_of()
    waiter = join(queue, patience_s=70)
    queue.serve(NOW)
    assert queue.expected_at(waiter) <= NOW + 70


def test_a_long_queue_is_as_quick_as_a_short_one() -> None:
    """Counting and the oldest do not look at everybody: heaps and books of those who left stay small."""
    _, queue = line_of()
    kept = join(queue, "kept")
    for n in range(3_000):
        assert queue.leave(join(queue, f"c{n}", now=NOW + n))
    (lane,) = queue._lanes.values()
    assert len(lane.places) < 200
    assert len(queue._waiters) == len(queue) == 1
    assert queue.oldest_since() == kept.since
