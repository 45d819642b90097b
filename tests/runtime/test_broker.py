"""The broker: one queue, one deadline, nothing lost when somebody cancels."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from tests.core.pools import OK, account, ask, told
from tests.fakes.clock import START_AT, VirtualClock, run_virtual

from gemini_pool.errors import PoolError
from gemini_poold.core.model import AccountState, CooldownRow, PoolEvent, Row
from gemini_poold.core.state import Pool
from gemini_poold.runtime.broker import Broker


class Rows:
    """A store that remembers the order of things."""

    def __init__(self) -> None:
        self.saved: list[Row] = []
        self.committed = asyncio.Event()
        self.committed.set()

    async def save(self, rows: list[Row]) -> None:
        await self.committed.wait()
        self.saved.extend(rows)

    def save_nowait(self, rows: list[Row]) -> None:
        self.saved.extend(rows)


def broker_of(*names: str, **options: Any) -> Broker:
    clock = VirtualClock()
    pool = Pool(rng=random.Random(1).random, **options)
    pool.configure([account(name) for name in names], clock.now())
    for name in names:
        pool.token_ready(name, clock.now())
    return Broker(pool, clock, Rows())


async def refuse(broker: Broker, seconds: float, **request: Any) -> None:
    """Google says no to one request of the account that is next."""
    grant = await broker.acquire(ask(**request), wait_until=broker._clock.now())
    broker.settle(grant.lease.id, told(seconds, now=broker._clock.now()))


def test_waits_for_the_told_instant_and_not_longer() -> None:
    """A request waits exactly until the first account returns."""

    async def main() -> None:
        broker = broker_of("a", "b")
        await refuse(broker, 30)
        await refuse(broker, 20)
        grant = await broker.acquire(ask(), wait_until=START_AT + 60)
        assert grant.account.id == "b"
        assert START_AT + 20 <= broker._clock.now() < START_AT + 20.01

    run_virtual(main())


def test_refuses_at_once_when_nobody_returns_in_time() -> None:
    """A request that cannot make its deadline is told so at once, with who returns first and when."""

    async def main() -> None:
        broker = broker_of("a", "b")
        await refuse(broker, 30)
        await refuse(broker, 90)
        with pytest.raises(PoolError) as caught:
            await broker.acquire(ask(), wait_until=START_AT + 10)
        error = caught.value
        assert (error.code, error.account, error.retry_at) == ("all_cooling_down", "a", START_AT + 30)
        assert broker._clock.now() == START_AT
        assert (broker.pool.totals["requests"], broker.pool.totals["failed"]) == (3, 1)

    run_virtual(main())


def test_first_come_first_served_and_nobody_overtakes() -> None:
    """Waiters are served in the order they came; a newcomer goes behind them even when somebody just became free."""

    async def main() -> None:
        broker = broker_of("a")
        await refuse(broker, 10)
        served: list[int] = []

        async def one(number: int) -> None:
            grant = await broker.acquire(ask(), wait_until=START_AT + 100)
            served.append(number)
            broker.settle(grant.lease.id, told(5, now=broker._clock.now()))

        async with asyncio.TaskGroup() as group:
            for number in range(4):
                group.create_task(one(number))
                await asyncio.sleep(2)
            await asyncio.sleep(2.5)
            group.create_task(one(99))
        assert served == [0, 1, 2, 3, 99]

    run_virtual(main())


def test_other_models_do_not_wait_behind() -> None:
    """A queue for one model holds up no other."""

    async def main() -> None:
        broker = broker_of("a")
        await refuse(broker, 50)
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(broker.acquire(ask(), wait_until=START_AT + 100))
            await asyncio.sleep(0)
            assert (await broker.acquire(ask("other"), wait_until=START_AT)).account.id == "a"
            assert not waiting.done()

    run_virtual(main())


def test_who_cannot_wait_is_served_beside_those_who_want_another_account() -> None:
    """A queue of requests that only one account may serve keeps no other account from a request without patience."""

    async def main() -> None:
        broker = broker_of("a", "b")
        only_a = {"exclude": frozenset({"b"})}
        await refuse(broker, 50, **only_a)
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(broker.acquire(ask(**only_a), wait_until=START_AT + 100))
            await asyncio.sleep(0)
            assert (await broker.acquire(ask(), wait_until=START_AT - 0.001)).account.id == "b"
            with pytest.raises(PoolError) as caught:
                await broker.acquire(ask(**only_a), wait_until=START_AT - 0.001)
            assert (caught.value.account, caught.value.retry_at) == ("a", START_AT + 50)
            assert not waiting.done()

    run_virtual(main())


def test_a_change_wakes_the_queue() -> None:
    """A person's clearing, or a token that came, serves whoever waits without delay."""

    async def main() -> None:
        broker = broker_of("a")
        await refuse(broker, 5000)
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(broker.acquire(ask(), wait_until=START_AT + 9000))
            await asyncio.sleep(1)
            broker.pool.clear_cooldown("a")
            broker.changed()
            assert (await waiting).account.id == "a"
        assert broker._clock.now() == START_AT + 1

    run_virtual(main())


def test_a_wait_that_became_hopeless_ends() -> None:
    """When the account it waits for dies, or its rest grows beyond the deadline, the waiter is told at once."""

    async def main() -> None:
        broker = broker_of("a")
        spare = await broker.acquire(ask(), wait_until=START_AT)
        await refuse(broker, 10)
        waiting = asyncio.create_task(broker.acquire(ask(), wait_until=START_AT + 60))
        await asyncio.sleep(1)
        broker.settle(spare.lease.id, told(600, now=broker._clock.now()))
        with pytest.raises(PoolError) as caught:
            await waiting
        assert (caught.value.code, caught.value.retry_at) == ("all_cooling_down", START_AT + 601)

        waiting = asyncio.create_task(broker.acquire(ask(), wait_until=START_AT + 9000))
        await asyncio.sleep(1)
        broker.pool.refuse("a", AccountState.DEAD, START_AT + 2, reason="leaked")
        broker.changed()
        with pytest.raises(PoolError, match="leaked"):
            await waiting

    run_virtual(main())


def test_who_waits_at_the_end_is_served_until_then() -> None:
    """Whose account returns before the daemon ends gets it; who would wait for longer is told at once to ask the
    successor, and who would have waited in vain anyway, that."""

    async def main() -> None:
        broker = broker_of("a")
        await refuse(broker, 10)
        waiting = asyncio.create_task(broker.acquire(ask(), wait_until=START_AT + 60))
        await asyncio.sleep(1)
        broker.end_at(START_AT + 12)
        grant = await waiting
        broker.settle(grant.lease.id, told(30, now=broker._clock.now()))
        for wait_s, code in ((60, "shutting_down"), (5, "all_cooling_down")):
            with pytest.raises(PoolError) as caught:
                await broker.acquire(ask(), wait_until=broker._clock.now() + wait_s)
            assert caught.value.code == code

        other = broker_of("a")
        await refuse(other, 30)
        waiting = asyncio.create_task(other.acquire(ask(), wait_until=START_AT + 60))
        await asyncio.sleep(1)
        other.end_at(START_AT + 12)
        with pytest.raises(PoolError) as caught:
            await waiting
        assert (caught.value.code, other._clock.now()) == ("shutting_down", START_AT + 1)

    run_virtual(main())


def test_cancelling_gives_the_place_and_the_account_free() -> None:
    """Cancelled while queued: the next one moves up. Cancelled in the instant of the grant: the lease is released."""

    async def main() -> None:
        broker = broker_of("a")
        await refuse(broker, 10)
        first = asyncio.create_task(broker.acquire(ask(), wait_until=START_AT + 100))
        second = asyncio.create_task(broker.acquire(ask(), wait_until=START_AT + 100))
        await asyncio.sleep(1)
        assert broker.waiting == 2
        first.cancel()
        await asyncio.sleep(0)
        assert broker.waiting == 1
        broker.pool.clear_cooldown("a")
        broker.changed()  # granted, and cancelled before its task ran
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        assert (broker.waiting, len(broker.pool.leases)) == (0, 0)
        assert broker.pool.members["a"].in_flight == 0

    run_virtual(main())


def test_a_wall_clock_that_jumps_is_noticed() -> None:
    """A suspend in the middle of a wait is noticed within the longest nap, not after the told time again."""

    async def main() -> None:
        broker = broker_of("a")
        await refuse(broker, 3600)
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(broker.acquire(ask(), wait_until=START_AT + 9000))
            await asyncio.sleep(5)
            clock = broker._clock
            assert isinstance(clock, VirtualClock)
            clock.suspend(7200)
            await waiting
        assert broker._clock.monotonic() < 40

    run_virtual(main())


def test_what_must_survive_is_on_its_way_at_once() -> None:
    """A rest is handed to the store within the settling call; mere counters follow within a second."""

    async def main() -> None:
        broker = broker_of("a", "b")
        rows = broker._store
        assert isinstance(rows, Rows)
        broker.changed()
        rows.saved.clear()
        grant = await broker.acquire(ask(), wait_until=START_AT)
        broker.settle(grant.lease.id, OK)
        assert not rows.saved
        await asyncio.sleep(1.1)
        assert rows.saved
        rows.saved.clear()
        await refuse(broker, 10)
        assert any(isinstance(row, CooldownRow) for row in rows.saved)

    run_virtual(main())


def test_a_durable_report_waits_for_the_commit() -> None:
    """settle_durably returns only when the store has committed."""

    async def main() -> None:
        broker = broker_of("a")
        rows = broker._store
        assert isinstance(rows, Rows)
        grant = await broker.acquire(ask(), wait_until=START_AT)
        rows.committed.clear()
        report = asyncio.create_task(broker.settle_durably(grant.lease.id, told(10)))
        await asyncio.sleep(1)
        assert not report.done()
        rows.committed.set()
        assert (await report).retry

    run_virtual(main())


def test_events_reach_subscribers_until_they_leave() -> None:
    """Every event is told to every subscriber, once."""

    async def main() -> None:
        broker = broker_of("a", "b")
        broker.changed()
        heard: list[PoolEvent] = []
        leave = broker.subscribe(heard.append)
        await refuse(broker, 10)
        assert [e.kind for e in heard] == ["cooldown"]
        leave()
        await refuse(broker, 10)
        assert len(heard) == 1

    run_virtual(main())


def test_leases_run_out_by_themselves() -> None:
    """The driver ends leases nobody reported, at their time."""

    async def main() -> None:
        broker = broker_of("a", lease_ttl_s=60.0)
        await broker.acquire(ask(), wait_until=START_AT)
        driver = asyncio.create_task(broker.run())
        await asyncio.sleep(59)
        assert len(broker.pool.leases) == 1
        await asyncio.sleep(2)
        assert len(broker.pool.leases) == 0
        driver.cancel()

    run_virtual(main())


def test_a_lease_can_be_ended_by_its_owner_only_once() -> None:
    """Releasing or renewing a lease that is gone is `not_found`, not a crash."""

    async def main() -> None:
        broker = broker_of("a")
        grant = await broker.acquire(ask(), wait_until=START_AT, owner="c1")
        broker.renew(grant.lease.id)
        broker.release(grant.lease.id)
        for call in (broker.release, broker.renew):
            with pytest.raises(PoolError) as caught:
                call(grant.lease.id)
            assert caught.value.code == "not_found"
        assert broker.release_owner("c1") == 0

    run_virtual(main())


def test_who_waits_is_told_its_place() -> None:
    """A request that has to wait is told of with its position and when it will be served; the lines say so per model."""

    async def main() -> None:
        broker = broker_of("a")
        await refuse(broker, 30)
        heard: list[PoolEvent] = []
        broker.subscribe(heard.append)
        tasks = [asyncio.create_task(broker.acquire(ask(), wait_until=START_AT + 900)) for _ in range(2)]
        await asyncio.sleep(1)
        places = [(e.model, e.data["position"], e.data["expected_at"]) for e in heard if e.kind == "queue"]
        assert places == [("m", 0, START_AT + 30), ("m", 1, START_AT + 30)]
        (line,) = broker.lines()
        assert (line.model, line.waiting, line.next_at) == ("m", 2, START_AT + 30)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert broker.lines() == []

    run_virtual(main())
