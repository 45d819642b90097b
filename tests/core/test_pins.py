"""What a person decides: pins, reserves, daily caps, cost and data classes, and a session's region; fail-over included."""

from __future__ import annotations

import pytest
from tests.core.pools import NOW, OK, account, ask, granted, guess, order, pool_of, refusal, told, waits

from gemini_poold.core.explain import explain
from gemini_poold.core.model import Account, Backend, Cost, DailyCap, Data, Limits, Row
from gemini_poold.core.pacing import Share
from gemini_poold.core.state import Pool

DAY_S = 86_400.0


def restarted(pool: Pool, *accounts: Account, now: float = NOW) -> Pool:
    """A new pool with what the old one wrote down."""
    again = Pool(rng=lambda: 0.5)
    again.restore(pool.take_rows(), now)
    again.configure(accounts, now)
    for each in accounts:
        again.token_ready(each.id, now)
    return again


# ---- pins -------------------------------------------------------------------------------------------------------


def test_a_pinned_account_serves_whatever_it_can() -> None:
    """Before better ranks and sessions; only for its globs; and not beyond what the request allows."""
    pool = pool_of(account("a", priority=5), account("b"), account("paid", cost=Cost.PAID, priority=-1))
    granted(pool, ask(session="s"))
    pool.pin("b", NOW, models=("m*",))
    assert order(pool, 3) == ["b", "b", "b"]
    assert granted(pool, ask(session="s")).reason == "pin"
    assert granted(pool, ask("other")).account.id == "a"
    pool.pin("b", NOW, models=())
    pool.pin("paid", NOW, models=("*",))
    assert granted(pool, ask(allow_paid=False)).account.id == "a"
    assert granted(pool, ask()).account.id == "paid"
    said = explain(pool, ask(), NOW)
    assert (said.chosen, said.reason) == ("paid", "pin")


def test_others_serve_while_the_pinned_one_rests() -> None:
    """Nobody waits for a pin; when the account is back, it serves again. Whoever asks for an account by name gets it."""
    pool = pool_of(account("a"), account("b"))
    pool.pin("a", NOW, models=("*",))
    pool.settle(granted(pool).lease.id, told(30), NOW)
    assert granted(pool, now=NOW + 1).account.id == "b"
    assert granted(pool, ask(pin="b"), now=NOW + 31).account.id == "b"
    assert granted(pool, now=NOW + 31).account.id == "a"


def test_two_pinned_accounts_share_in_the_strategys_order() -> None:
    """The least recently used of them is next; the third gets nothing."""
    pool = pool_of(account("a"), account("b"), account("c"))
    pool.pin("a", NOW, models=("*",))
    pool.pin("c", NOW, models=("*",))
    assert order(pool, 4) == ["a", "c", "a", "c"]


def test_pins_survive_a_restart_and_end_with_the_account() -> None:
    """Written down with their globs; an account that is removed and added again is not pinned."""
    accounts = [account("a"), account("b", priority=3)]
    pool = pool_of(*accounts)
    pool.pin("a", NOW, models=("m", "x*"))
    again = restarted(pool, *accounts)
    assert again.members["a"].pinned == ("m", "x*")
    assert granted(again).account.id == "a"
    again.configure(accounts[1:], NOW)
    rows: list[Row] = again.take_rows()
    again.configure(accounts, NOW)
    again.token_ready("a", NOW)
    assert again.members["a"].pinned == ()
    assert granted(again).account.id == "b"
    assert any(getattr(row, "models", None) is not None and getattr(row, "gone", False) for row in rows)


# ---- reserve ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limits", "back_s"), [(Limits(rpm=10), 61.0), (Limits(rpd=10), DAY_S)])
def test_a_reserve_is_left_to_those_who_ask_for_the_account(limits: Limits, back_s: float) -> None:
    """A fifth of ten: eight for everybody, two more for requests that name it, and none beyond."""
    pool = pool_of(account("a", reserve=0.2, limits=limits))
    order(pool, 8)
    assert waits(pool).until > NOW
    (verdict,) = explain(pool, ask(), NOW).verdicts
    assert (verdict.verdict, verdict.reason) == (
        "reserved",
        "20% of its quota is kept for requests that ask for it",
    )
    assert order(pool, 2, ask(pin="a")) == ["a", "a"]
    waits(pool, ask(pin="a"))
    assert granted(pool, now=NOW + back_s).account.id == "a"


def test_a_pin_may_use_the_reserve() -> None:
    """Requests that a person's pin leads to the account are requests pinned to it."""
    pool = pool_of(account("a", reserve=0.2, limits=Limits(rpm=10)))
    order(pool, 8)
    waits(pool)
    pool.pin("a", NOW, models=("*",))
    assert order(pool, 2) == ["a", "a"]


def test_a_reserve_of_tokens_and_of_what_google_tells() -> None:
    """Of input tokens a minute, and of the share that a quota poll gave, until that resets."""
    pool = pool_of(account("a", reserve=0.5, limits=Limits(tpm=1_000)))
    assert granted(pool, ask(tokens=400)).account.id == "a"
    assert waits(pool, ask(tokens=400)).until > NOW
    assert granted(pool, ask(tokens=400, pin="a")).account.id == "a"
    pool = pool_of(account("a", reserve=0.25), account("b", priority=-1))
    pool.quota_left("a", 0.2, {"m": Share(0.2, NOW + 600)})
    assert granted(pool).account.id == "b"
    assert granted(pool, ask("n")).account.id == "a"
    assert granted(pool, ask(pin="a")).account.id == "a"
    assert granted(pool, now=NOW + 601).account.id == "a"


def test_a_whole_account_in_reserve() -> None:
    """`reserve = 1`: it serves those who ask for it and nobody else, limits known or not; one request is never all kept."""
    pool = pool_of(account("a", reserve=1.0), account("b", priority=-1))
    assert order(pool, 2) == ["b", "b"]
    assert granted(pool, ask(pin="a")).account.id == "a"
    assert granted(pool_of(account("a", reserve=0.9, limits=Limits(rpm=1)))).account.id == "a"


# ---- caps -------------------------------------------------------------------------------------------------------


def test_a_daily_cap_outlives_a_restart_and_a_change_of_it() -> None:
    """What was used today still counts; explain says so; tomorrow it begins anew."""
    capped = account("a", daily_cap=DailyCap(requests=3))
    pool = pool_of(capped)
    order(pool, 2)
    again = restarted(pool, capped)
    order(again, 1)
    until = waits(again).until
    (verdict,) = explain(again, ask(), NOW).verdicts
    assert (verdict.verdict, verdict.returns_at) == ("daily_cap", until)
    assert [(k.what, k.used, k.limit, k.source) for k in verdict.limits] == [("requests/day", 3, 3, "cap")]
    again.configure([account("a", daily_cap=DailyCap(requests=4))], NOW)
    order(again, 1)
    waits(again)
    assert granted(again, now=until + 1).account.id == "a"


def test_a_lease_given_back_unused_is_refunded() -> None:
    """By the account's own cap and by our count of the bucket's day, at once, much later, and over a restart."""
    capped = account("a", daily_cap=DailyCap(requests=2), limits=Limits(rpd=4))
    pool = pool_of(capped)
    first, second = granted(pool), granted(pool)
    waits(pool)
    pool.take_rows()
    pool.release(first.lease.id, NOW + 200)  # its minute is forgotten, its day is not
    again = restarted(pool, capped, now=NOW + 200)
    for each in (pool, again):
        (verdict,) = explain(each, ask(), NOW + 200).verdicts
        assert verdict.available
        granted(each, now=NOW + 200)
        waits(each, now=NOW + 201)
        (verdict,) = explain(each, ask(), NOW + 201).verdicts
        assert [(k.what, k.used, k.limit) for k in verdict.limits] == [
            ("requests/day", 2, 4),
            ("requests/day", 2, 2),
        ]
    tomorrow = waits(pool, now=NOW + 201).until + 10
    granted(pool, now=tomorrow)
    pool.release(second.lease.id, tomorrow)  # of yesterday: today's count stays
    granted(pool, now=tomorrow)
    waits(pool, now=tomorrow)


# ---- classes, fail-over included --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"cost": Cost.PAID}, {"allow_paid": False}),
        ({"data": Data.MAY_TRAIN}, {"data": Data.NO_TRAINING}),
        ({"lend": False}, {"lends": True}),
    ],
)
@pytest.mark.parametrize("pinned", [False, True])
def test_no_failover_leaves_the_class(
    given: dict[str, object], wanted: dict[str, object], pinned: bool
) -> None:
    """The good account refuses, attempt after attempt: the request waits for it and never reaches the other one, even when
    that one is free, better and pinned by a person."""
    fine = {"cost": Cost.FREE, "data": Data.NO_TRAINING, "lend": True}
    pool = pool_of(account("good", **fine), account("bad", **{**fine, **given, "priority": 9}))
    if pinned:
        pool.pin("bad", NOW, models=("*",))
    request, now = ask(session="s", **wanted), NOW
    for _ in range(6):
        grant = granted(pool, request, now)
        assert grant.account.id == "good"
        settled = pool.settle(grant.lease.id, told(30, now=now), now)
        assert settled.request is not None
        request = settled.request
        wait = waits(pool, request, now)
        assert wait.account_id == "good"
        now = max(wait.until, now) + 1


def test_a_vertex_session_never_leaves_its_region() -> None:
    """Not when its account refuses, not for another model, not to another backend; a new session may begin anywhere, and
    one of the global location is bound to nothing."""

    def vertex(name: str, location: str, **given: object) -> Account:
        return account(name, backend=Backend.VERTEX, project=name, location=location, **given)

    pool = pool_of(
        vertex("eu", "europe-west4", priority=2), vertex("us", "us-central1", priority=1), account("key")
    )
    request = ask(session="s")
    assert granted(pool, request).account.id == "eu"
    lease = granted(pool, request).lease
    settled = pool.settle(lease.id, told(60), NOW)
    assert settled.request is not None
    assert waits(pool, settled.request).account_id == "eu"
    assert waits(pool, request).account_id == "eu"
    assert granted(pool, ask("other", session="s")).account.id == "eu"
    assert granted(pool, ask(session="new")).account.id == "us"
    said = {v.account_id: v.verdict for v in explain(pool, request, NOW).verdicts}
    assert said == {"eu": "cooling", "us": "other_region", "key": "other_region"}
    pool.configure([vertex("us", "us-central1"), account("key")], NOW)
    refused = refusal(pool, request)
    assert (refused.code, "europe-west4" in refused.reason) == ("no_account_for_model", True)
    free = pool_of(vertex("g", "global", priority=1), account("key"))
    pool_request = ask(session="s")
    free.settle(granted(free, pool_request).lease.id, told(60), NOW)
    assert granted(free, pool_request).account.id == "key"


# ---- counters ---------------------------------------------------------------------------------------------------


def test_requests_add_up_whatever_becomes_of_them() -> None:
    """Answered, failed, cancelled, given back, run out, given up, lost in a crash: each is counted once."""
    pool = pool_of(account("a"), account("b"))

    def open_now() -> int:
        assert pool.journal.open >= 0
        return pool.journal.open

    pool.settle(granted(pool).lease.id, OK, NOW)
    assert open_now() == 0
    again = pool.settle(granted(pool).lease.id, guess(), NOW)
    assert again.request is not None
    assert open_now() == 1
    pool.withdraw(again.request)
    pool.withdraw(ask())  # it never had a lease
    pool.release(granted(pool, now=NOW + 10).lease.id, NOW)
    assert open_now() == 0
    lease = granted(pool, now=NOW + 10).lease
    pool.release(lease.id, NOW, ended=False)
    assert open_now() == 1
    pool.give_up(lease.request._replace(attempt=2))
    pool.give_up(ask())
    granted(pool, now=NOW + 20, owner="gone")
    pool.release_owner("gone", NOW + 20)
    granted(pool, now=NOW + 30)
    assert open_now() == 1
    pool.expire(NOW + 10_000)
    assert open_now() == 0
    granted(pool, now=NOW + 20_000)
    totals = pool.totals
    after = restarted(pool, account("a"), account("b"), now=NOW + 20_000)
    assert (after.journal.open, after.totals["expired"]) == (0, totals["expired"] + 1)
    assert totals["requests"] == 8
