"""Recorded decisions: their verdicts are those of that moment, whatever happened since; the budget and bounds hold."""

from __future__ import annotations

import random
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.pools import NOW, OK, account, ask, granted, guess, pool_of, told, waits

from gemini_poold.core import decisions
from gemini_poold.core.explain import explain, explain_decision
from gemini_poold.core.model import AccountState, Cost, DailyCap, Grant, Kind, Limits
from gemini_poold.core.state import Pool

STRATEGIES = ("adaptive", "priority", "round-robin", "fill-first", "least-used", "quota-aware")


def busy_pool(chance: random.Random, strategy: str) -> Pool:
    """Accounts of several kinds, and a pool that has lived for a while."""
    accounts = [
        account(
            f"a{n}", priority=chance.randrange(2), limits=Limits(rpm=chance.choice((None, 3, 20))),
            cost=chance.choice((Cost.FREE, Cost.PAID)), reserve=chance.choice((0.0, 0.4)),
            daily_cap=chance.choice((DailyCap(), DailyCap(requests=9))),
        )
        for n in range(chance.randrange(1, 7))
    ]  # fmt: skip
    return pool_of(*accounts, seed=chance.randrange(1000), strategy=strategy)


def happen(pool: Pool, chance: random.Random, now: float) -> None:
    """Something or other."""
    name = chance.choice(list(pool.members))
    match chance.randrange(6):
        case 0:
            pool.pause(name, now, paused=chance.random() < 0.5)
        case 1:
            pool.refuse(name, AccountState.DEAD, now, reason="leaked")
        case 2:
            pool.clear_state(name, now)
            pool.token_ready(name, now)
        case 3:
            pool.pin(name, now, models=chance.choice(((), ("m",), ("other",))))
        case _:
            for lease in list(pool.leases):
                outcome = chance.choice((OK, guess(), told(20, now=now), told(90, Kind.DAILY, now=now)))
                pool.settle(lease.id, outcome, now)


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 1 << 30), st.sampled_from(STRATEGIES))
def test_a_replay_gives_the_verdicts_and_the_choice_of_that_moment(seed: int, strategy: str) -> None:
    """What explain says before a request is what the replay of its decision says at the end, word for word; and the choice
    follows from these verdicts."""
    chance = random.Random(seed)
    pool, now = busy_pool(chance, strategy), NOW
    said = {}
    for _ in range(25):
        now += chance.choice((0.1, 2.0, 30.0))
        request = ask(
            session=chance.choice(("", "s")), allow_paid=chance.choice((None, False)), id=f"r{now}",
            pin=chance.choice(("", "", "a0")),
        )  # fmt: skip
        before = explain(pool, request, now)
        decision = pool.acquire(request, now)
        name = decision.lease.decision if isinstance(decision, Grant) else decision.decision
        assert name, "a slow pool records everything"
        said[name] = (before, decision)
        happen(pool, chance, now)
    for name, (before, decision) in said.items():
        kept = pool.decisions.get(name)
        assert kept is not None
        replay = explain_decision(kept)
        assert replay.recorded
        assert (replay.at, replay.chosen) == (before.at, before.chosen)
        # Limits are told of everybody when somebody asks, and kept where they matter.
        shown = {v.account_id: v._replace(limits=()) for v in before.verdicts}
        assert {v.account_id: v._replace(limits=()) for v in replay.verdicts} == shown
        if isinstance(decision, Grant):
            assert (replay.chosen, replay.code) == (decision.account.id, None)
            assert next(v.verdict for v in replay.verdicts) == "chosen"
        else:
            assert not any(v.available for v in replay.verdicts)


def test_recording_changes_no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without a budget the same requests get the same accounts."""

    def served() -> list[str]:
        pool, now, names = (
            pool_of(*(account(f"a{n}", weight=n + 1) for n in range(5)), strategy="weighted-random"),
            NOW,
            [],
        )
        for _ in range(200):
            now += 0.5
            names.append(granted(pool, now=now).account.id)
        return names

    recorded = served()
    monkeypatch.setattr(decisions, "SAVED", -inf)
    assert served() == recorded


def test_a_burst_records_as_much_as_the_budget_allows() -> None:
    """In one instant: so many verdicts, then choices without them, then again with time; a choice is kept in any case."""
    pool = pool_of(*(account(f"a{n}") for n in range(10)))
    names = [granted(pool).lease.decision for _ in range(400)]
    whole = [n for n in names if (d := pool.decisions.get(n)) is not None and d.verdicts is not None]
    assert whole == names[: len(whole)]
    assert 0 < len(whole) * 10 <= decisions.SAVED + 10
    last = pool.decisions.get(names[-1])
    assert last is not None
    said = explain_decision(last)
    assert (said.recorded, said.verdicts, said.chosen) == (False, (), last.account_id)
    later = pool.decisions.get(granted(pool, now=NOW + 1.0).lease.decision)
    assert later is not None
    assert later.verdicts is not None


def test_who_waits_is_recorded_however_much_is_served() -> None:
    """Choices spend a budget of their own: they leave none of those unexplained who were not served."""
    pool = pool_of(*(account(f"a{n}") for n in range(10)))
    last = [granted(pool).lease for _ in range(400)][-1]
    kept = pool.decisions.get(last.decision)
    assert kept is not None
    assert kept.verdicts is None
    for n in range(10):
        pool.pause(f"a{n}", NOW)
    refusal = pool.acquire(ask(id="w"), NOW)
    assert not isinstance(refusal, Grant)
    found = pool.decisions.get(refusal.decision)
    assert found is not None
    assert len(found.verdicts or ()) == 10


def test_a_clock_that_was_set_back_does_not_end_the_recording() -> None:
    """An hour earlier, decisions are recorded again at once."""
    pool = pool_of(account("a"))
    granted(pool)
    found = pool.decisions.get(granted(pool, now=NOW - 3_600).lease.decision)
    assert found is not None
    assert found.verdicts is not None


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest decisions go; before them, the oldest verdicts."""
    monkeypatch.setattr(decisions, "MOST", 30)
    monkeypatch.setattr(decisions, "MOST_VERDICTS", 25)
    pool = pool_of(account("a"), account("b"))
    names = [granted(pool, now=NOW + n).lease.decision for n in range(100)]
    assert [d.id for d in pool.decisions] == names[-30:]
    kept = [d for d in pool.decisions if d.verdicts is not None]
    assert [d.id for d in kept] == names[-12:]
    assert pool.decisions.get(names[0]) is None
    assert [d.id for d in pool.decisions.newest(2)] == [names[-1], names[-2]]


def test_one_who_waits_is_recorded_once() -> None:
    """Asked again and again by the queue, a waiting request has one decision; its next attempt has another."""
    pool = pool_of(account("a"))
    pool.settle(granted(pool).lease.id, told(30), NOW)
    first = waits(pool, ask(id="w"), NOW + 1)
    again = waits(pool, ask(id="w"), NOW + 2)
    other = waits(pool, ask(id="w", attempt=2), NOW + 3)
    assert first.decision == again.decision != other.decision
    kept = pool.decisions.get(first.decision)
    assert kept is not None
    said = explain_decision(kept)
    assert (said.code, said.chosen, said.next_return_account, said.next_return_at, said.at) == (
        "all_cooling_down", None, "a", NOW + 30, NOW + 1,
    )  # fmt: skip
    (verdict,) = said.verdicts
    (evidence,) = verdict.cooldowns
    assert (evidence.told, evidence.source, evidence.until) == (True, "RetryInfo", NOW + 30)
