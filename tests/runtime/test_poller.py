"""The quota poller: what it reads, how often it asks, what a failure leaves behind."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from tests.core.pools import pool_of
from tests.fakes.clock import START_AT, VirtualClock, run_virtual
from tests.runtime.rig import CA, Rows, accounts_of, rig_of

from gemini_poold.backends.code_assist import CodeAssist
from gemini_poold.core.model import QuotaRow
from gemini_poold.core.quota import Quotas
from gemini_poold.errors import UpstreamFailure
from gemini_poold.fake import Fault, replies
from gemini_poold.runtime.broker import Broker
from gemini_poold.runtime.poller import Poller
from gemini_poold.transport import Fetched

QUOTA = "retrieveUserQuota"


@asynccontextmanager
async def polled(*names):
    """A rig and a poller over it."""
    async with rig_of(*names) as rig:
        backend = rig.backends[CA]
        poller = Poller(
            rig.broker, rig.tokens, backend, rig.transport,
            quotas=Quotas(), clock=rig.clock, rng=random.Random(1).random, interval_s=300,
        )  # fmt: skip
        yield rig, poller


def asked(rig):
    return [c for c in rig.fake.record.calls if c.path.endswith(QUOTA)]


async def test_reads():
    """Every bucket that Google tells becomes a reading, and the tightest one feeds the choice."""
    buckets = [
        {"modelId": "gemini-2.5-pro", "tokenType": "REQUESTS", "remainingFraction": 0.7, "remainingAmount": "140", "resetTime": "2099-11-24T08:00:00Z"},
        {"modelId": "gemini-2.5-pro_vertex", "tokenType": "REQUESTS", "remainingFraction": 1, "resetTime": "2099-11-24T08:00:00.5Z"},
        {"modelId": "gemini-3-pro-preview", "tokenType": "REQUESTS", "remainingFraction": 0, "resetTime": "1970-01-01T00:00:00Z"},
        {"modelId": "gemini-9-new", "resetTime": "2099-11-24T08:00:00Z"},
        {"tokenType": "REQUESTS", "remainingFraction": 0.1},
    ]  # fmt: skip
    async with polled("user-a") as (rig, poller):
        rig.fake.world.users["user-a"].code_assist.buckets = buckets
        assert await poller.poll_now("user-a") == ""
        pro, vertex, gone, new = poller.quotas.of("user-a")
        assert (pro.limit, pro.used, pro.remaining, pro.fraction) == (200, 60, 140, 0.7)
        assert (vertex.base_model, vertex.variant) == ("gemini-2.5-pro", "vertex")
        assert (gone.entitled, new.fraction, new.token_type) == (False, None, "REQUESTS")
        assert rig.pool.members["user-a"].health.quota == 0.7
        (call,) = asked(rig)
        assert call.json() == {"project": "user-a-project"}


async def test_empty_is_normal():
    """No buckets at all is an answer, too."""
    async with polled("user-a") as (rig, poller):
        rig.fake.world.users["user-a"].code_assist.buckets = []
        assert await poller.poll_now("user-a") == ""
        assert poller.quotas.of("user-a") == []
        assert rig.pool.members["user-a"].health.quota is None


@pytest.mark.parametrize(
    "fault",
    [Fault.status(403, body=replies.permission_denied()), Fault.status(500, body="<html>no</html>"), Fault.status(200, body="[1]"),
     Fault.reset_connection()],
)  # fmt: skip
async def test_failure_keeps_the_last_good_reading(fault):
    """A poll that fails says why and changes neither the readings nor the account."""
    async with polled("user-a") as (rig, poller):
        await poller.poll_now("user-a", scheduled=True)
        before = poller.quotas.of("user-a")
        rig.fake.faults.add(fault)
        problem = await poller.poll_now("user-a", scheduled=True)
        assert problem
        assert (poller.errors["user-a"], poller.quotas.of("user-a")) == (problem, before)
        assert rig.pool.members["user-a"].state == "ready"
        assert rig.cooldowns() == []
        assert await poller.poll_now("user-a", scheduled=True) == ""
        assert poller.errors == {}


async def test_asked_together_is_asked_once():
    """Whoever asks at the same time, or shortly after, gets the one reading."""
    async with polled("user-a") as (rig, poller):
        assert await asyncio.gather(*(poller.poll_now("user-a") for _ in range(5))) == [""] * 5
        await poller.poll_now("user-a")
        assert len(asked(rig)) == 1


async def test_google_says_when_to_ask_again():
    """A 429 of the quota call itself is obeyed, by `refresh` as well."""
    async with polled("user-a") as (rig, poller):
        rig.fake.faults.add(Fault.status(429, body=replies.ca_rate_limited("900s")))
        problem = await poller.poll_now("user-a")
        assert "429" in problem
        assert await poller.poll_now("user-a") == problem
        assert len(asked(rig)) == 1
        assert poller._due["user-a"] >= rig.clock.now() + 890


async def test_awake_again_a_failure_is_not_waited_out():
    """What failed before a suspend is due at once, but no sooner than Google said, nor again and again."""
    async with polled("user-a", "user-b") as (rig, poller):
        rig.fake.faults.add(Fault.status(500))
        await poller.poll_now("user-a", scheduled=True)
        rig.fake.faults.add(Fault.status(429, body=replies.ca_rate_limited("900s")))
        await poller.poll_now("user-b", scheduled=True)
        told, now = poller._due["user-b"], rig.clock.now()
        assert poller._due["user-a"] > now + 200
        poller.replan()
        assert now < poller._due["user-a"] <= now + 60
        assert poller._due["user-b"] == pytest.approx(told, abs=120) and poller._due["user-b"] >= now + 890
        poller.replan()
        assert len(asked(rig)) == 2


async def test_other_backends_do_not_tell():
    """Keys and Vertex have no such call; an unknown account neither."""
    async with polled("key-a") as (rig, poller):
        assert "only Code Assist" in await poller.poll_now("key-a")
        assert await poller.poll_now("nobody")
        assert rig.fake.record.received == 0


class Google:
    """A transport that answers each account's quota from a script: a fraction, or a failure."""

    def __init__(self, clock):
        self.clock = clock
        self.at = {}
        self.fractions = {}
        self.resets = {}
        self.in_flight = self.peak = 0

    def _reset(self, account):
        at = self.resets.get(account, 4_070_908_800.0)
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ").encode()

    async def fetch(self, method, url, *, headers, body, timeout_s, proxy=""):
        account = headers["Authorization"]
        self.at.setdefault(account, []).append(self.clock.now())
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        await asyncio.sleep(0.2)
        self.in_flight -= 1
        fraction = self.fractions.get(account, 0.9)
        if fraction is None:
            raise UpstreamFailure("h: broke", kind="reset", sent=True)
        return Fetched(
            200,
            {},
            b'{"buckets":[{"modelId":"m","remainingFraction":%f,"resetTime":"%s"}]}'
            % (fraction, self._reset(account)),
        )


class Headers:
    def headers_nowait(self, account_id):
        return {"Authorization": account_id}

    def generation(self, account_id):
        return 0

    async def renew(self, account_id, reason="request", *, generation=None):
        return None


def scheduled(names, hours, before=lambda google, poller: None, *, used_until_h=1e6, used_again_h=1e6):
    """A poller that runs for so many hours of virtual time. Its accounts are used up to an hour, and again from another."""

    async def main():
        clock = VirtualClock()
        pool = pool_of(*accounts_of(names))
        for name in names:
            pool.token_ready(name, clock.now())
        google = Google(clock)
        poller = Poller(
            Broker(pool, clock, Rows()), Headers(), CodeAssist("http://h"), google,
            quotas=Quotas(), clock=clock, rng=random.Random(3).random, interval_s=300,
        )  # fmt: skip
        before(google, poller)
        began = clock.now()
        task = asyncio.create_task(poller.run())
        while clock.now() < began + hours * 3600:
            hour = (clock.now() - began) / 3600
            for member in pool.members.values():
                if hour <= used_until_h or hour >= used_again_h:
                    member.last_used_at = clock.now()
            await asyncio.sleep(min(120, began + hours * 3600 - clock.now()))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return google, poller

    return run_virtual(main())


def gaps(instants):
    return [b - a for a, b in zip(instants, instants[1:])]


def test_schedule():
    """Each account is asked about every five minutes or so, never all in the same moment, few at once."""
    names = [f"user-{i}" for i in range(40)]
    google, poller = scheduled([*names, "key-a"], 4)
    assert set(google.at) == set(names)
    for instants in google.at.values():
        assert all(270 <= gap <= 345 for gap in gaps(instants))
    assert google.peak <= 4
    firsts = sorted(instants[0] for instants in google.at.values())
    assert firsts[-1] - firsts[0] > 10
    assert poller.errors == {}


def test_sooner_near_the_end():
    """Little left: four times as often, but not within a minute."""
    google, _ = scheduled(
        ["user-a", "user-b"], 3, lambda google, _: google.fractions.update({"user-a": 0.05})
    )
    assert len(google.at["user-a"]) > 3 * len(google.at["user-b"])
    assert min(gaps(google.at["user-a"])) >= 60


def test_rarely_while_idle():
    """Nobody uses the accounts: a quarter as often, until one is used again, which is noticed at once."""
    google, _ = scheduled(["user-a", "user-b"], 9, used_until_h=2, used_again_h=6)
    for instants in google.at.values():
        hours = [(at - instants[0]) / 3600 for at in instants]
        early, idle, late = (
            [g for h, g in zip(hours, gaps(instants)) if low <= h < high]
            for low, high in ((0, 2), (2.7, 5.5), (6.2, 9))
        )
        assert all(270 <= gap <= 350 for gap in early + late)
        assert all(1080 <= gap <= 1350 for gap in idle)
        assert len(early) > 20
        assert len(idle) >= 6
        assert any(6 <= h < 6.2 for h in hours)


def test_just_after_a_reset():
    """Where Google told a reset, the next look is a few seconds after it, however long that is from now."""
    reset = START_AT + 2_000
    google, _ = scheduled(["user-a"], 1, lambda google, _: google.resets.update({"user-a": reset}))
    assert any(5 <= at - reset <= 45 for at in google.at["user-a"])


def test_budget():
    """Four hundred accounts are asked about one a second over all, each in its turn, and none is left out."""
    names = [f"user-{i}" for i in range(400)]
    google, _ = scheduled(names, 0.6)
    instants = sorted(at for found in google.at.values() for at in found)
    assert len(instants) <= 0.6 * 3600 + 20
    for at in instants[::50]:
        assert sum(at <= other < at + 60 for other in instants) <= 60 + 15 + 1
    counts = [len(found) for found in google.at.values()]
    assert len(counts) == 400
    assert min(counts) >= 4


def test_rarely_while_failing():
    """Failures are asked about ever more rarely, and the next success forgets them."""
    google, poller = scheduled(["user-a"], 12, lambda google, _: google.fractions.update({"user-a": None}))
    found = gaps(google.at["user-a"])
    assert found[0] > 500
    assert all(3000 <= gap <= 4100 for gap in found[4:])
    assert poller.errors["user-a"] == "h: broke"


def test_removed_accounts_are_forgotten():
    """What was known about an account that is gone is dropped."""

    def remove(google, poller):
        poller.quotas.seen("user-gone", [])
        poller._due["user-gone"] = 0.0
        poller.errors["user-gone"] = "x"

    google, poller = scheduled(["user-a"], 0.1, remove)
    assert set(google.at) == {"user-a"}
    assert poller.errors == {}


async def test_history_is_kept_and_the_share_of_a_model_feeds_its_reserve():
    """What a poll says becomes rows that survive, shares that reserves are kept of, and an event when it is nearly used up."""

    def bucket(fraction):
        return {
            "modelId": "gemini-3-pro",
            "tokenType": "REQUESTS",
            "remainingFraction": fraction,
            "resetTime": "2099-11-24T08:00:00Z",
        }

    async with polled("user-a") as (rig, poller):
        told = []
        rig.broker.subscribe(told.append)
        rows = []
        rig.broker._store.save_nowait = rows.extend
        for fraction in (0.9, 0.15):
            rig.fake.world.users["user-a"].code_assist.buckets = [bucket(fraction)]
            poller._asked.clear()
            assert await poller.poll_now("user-a") == ""
        assert rig.pool.members["user-a"].shares["gemini-3-pro"].fraction == 0.15
        assert [(e.kind, e.level, e.data["fraction"]) for e in told if e.kind == "quota"] == [
            ("quota", "debug", 0.9), ("quota", "info", 0.15),
        ]  # fmt: skip
        assert poller.quotas.history.take_rows() == []  # handed to the pool, which writes them down
        assert [row.fraction for row in rows if isinstance(row, QuotaRow)] == [0.9, 0.15]
