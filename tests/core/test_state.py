"""The pool: leases, retries, reloads, restarts."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.core.pools import NOW, OK, account, ask, granted, guess, order, pool_of, refusal, told, waits

from gemini_poold.core.model import (
    AccountState,
    Backend,
    Cost,
    DailyCap,
    Data,
    DiscoveryRow,
    Grant,
    Kind,
    Limits,
    Outcome,
    PaceRow,
    Refusal,
    Scope,
    Usage,
    Wait,
)
from gemini_poold.core.state import Pool, UnknownLease

FAULT = Outcome(Kind.TRANSIENT, Scope.ACCOUNT_MODEL, rotate=True, reason="500")


# ---- leases ---------------------------------------------------------------------------------------------------


def test_a_lease_ends_once() -> None:
    """A second report, release or renewal of the same lease is refused."""
    pool = pool_of(account("a"))
    lease = granted(pool).lease
    pool.settle(lease.id, OK, NOW)
    for again in (
        lambda: pool.settle(lease.id, OK, NOW),
        lambda: pool.release(lease.id, NOW),
        lambda: pool.renew(lease.id, NOW),
    ):
        with pytest.raises(UnknownLease):
            again()
    assert pool.members["a"].in_flight == 0


def test_a_lease_that_runs_out_counts_as_spent() -> None:
    """Without a report a lease ends at its time; its account is free of it, and somebody is told."""
    pool = pool_of(account("a"), lease_ttl_s=60)
    granted(pool)
    pool.expire(NOW + 59)
    assert len(pool.leases) == 1
    assert pool.next_deadline() == NOW + 60
    pool.expire(NOW + 60)
    assert len(pool.leases) == 0
    assert pool.members["a"].in_flight == 0
    assert any("ran out" in event.text for event in pool.take_events())


def test_renewing_begins_the_time_anew() -> None:
    """A renewed lease outlives its first end."""
    pool = pool_of(account("a"), lease_ttl_s=60)
    lease = granted(pool).lease
    pool.renew(lease.id, NOW + 50)
    pool.expire(NOW + 61)
    assert pool.leases.get(lease.id).expires_at == NOW + 110


def test_a_lease_never_outlives_its_token() -> None:
    """A lent lease ends with its token; a request of the daemon's own may outlive the token it was sent with."""
    pool = pool_of(account("a"), warm=False, lease_ttl_s=600)
    pool.token_ready("a", NOW, expires_at=NOW + 100)
    assert granted(pool, ask(lends=True)).lease.expires_at == NOW + 100
    assert granted(pool).lease.expires_at == NOW + 600


def test_an_owner_that_leaves_frees_its_leases_but_not_the_detached() -> None:
    """A connection's leases end with it, unless they were detached."""
    pool = pool_of(account("a"))
    granted(pool, owner="x")
    kept = granted(pool, owner="x", detached=True).lease
    other = granted(pool, owner="y").lease
    assert pool.release_owner("x", NOW) == 1
    assert {lease.id for lease in pool.leases} == {kept.id, other.id}


def test_ids_are_unique_over_restarts() -> None:
    """The prefix given at start is part of every lease's and decision's id."""
    assert granted(pool_of(account("a"), prefix="p1-")).lease.id.startswith("p1-")


# ---- retries --------------------------------------------------------------------------------------------------


def test_a_refusal_moves_the_request_to_the_next_account() -> None:
    """After a 429 the same request gets another account; when it is answered, the refusal counts as absorbed."""
    pool = pool_of(account("a"), account("b"))
    first = granted(pool)
    settled = pool.settle(first.lease.id, told(30), NOW)
    assert settled.retry
    assert settled.request is not None
    second = granted(pool, settled.request)
    assert (first.account.id, second.account.id) == ("a", "b")
    assert second.lease.attempt == 2
    pool.settle(second.lease.id, OK, NOW)
    assert {k: pool.totals[k] for k in ("requests", "answered", "failed", "rotations", "absorbed")} == {
        "requests": 1, "answered": 1, "failed": 0, "rotations": 1, "absorbed": 1,
    }  # fmt: skip


def test_all_cooling_names_who_returns_first() -> None:
    """When everybody rests, the pool says who returns first and when, and why it rests."""
    pool = pool_of(account("a"), account("b"))
    pool.settle(granted(pool).lease.id, told(30), NOW)
    pool.settle(granted(pool).lease.id, told(20), NOW)
    wait = waits(pool)
    assert (wait.account_id, wait.until, wait.reason) == ("b", NOW + 20, "limit")
    assert granted(pool, now=NOW + 20).account.id == "b"


def test_keys_of_one_project_rest_together() -> None:
    """Two keys of one project are one bucket: a refusal of one keeps both out, for that model alone."""
    pool = pool_of(account("a", quota_group="p"), account("b", quota_group="p"), account("c"))
    pool.settle(granted(pool, ask(pin="a")).lease.id, told(30), NOW)
    assert ["c", "c"] == order(pool, 2, now=NOW + 1)
    assert "b" == granted(pool, ask("other")).account.id


def test_capacity_is_one_lesson_for_the_whole_backend() -> None:
    """A full model keeps every account of that backend out, other models and backends not, and nobody's health."""
    pool = pool_of(account("a"), account("b"), account("v", backend=Backend.VERTEX, project="p"))
    full = Outcome(Kind.CAPACITY, Scope.BACKEND_MODEL, NOW + 9, True, rotate=True, reason="no capacity")
    pool.settle(granted(pool, ask(pin="a")).lease.id, full, NOW)
    assert ["v", "v"] == order(pool, 2)
    assert granted(pool, ask("other", pin="b"))
    assert pool.members["a"].health.score(NOW) == 1.0


def test_the_clients_own_fault_burns_nobody() -> None:
    """A 400 is an answer: no rotation, no rest, no failure."""
    pool = pool_of(account("a"), account("b"))
    settled = pool.settle(granted(pool).lease.id, Outcome(Kind.CLIENT, reason="400"), NOW)
    assert not settled.retry
    assert not len(pool.cooldowns)
    assert (pool.totals["answered"], pool.totals["failed"]) == (1, 0)
    assert pool.members["a"].counters == {}


def test_faults_are_bounded_per_request() -> None:
    """5xx everywhere ends after a few attempts with a failure, not after trying for ever."""
    pool = pool_of(*(account(f"a{n}") for n in range(20)))
    request, tries = ask(), 0
    while request is not None:
        tries += 1
        request = pool.settle(granted(pool, request).lease.id, FAULT, NOW).request
    assert tries == 5
    assert (pool.totals["failed"], pool.totals["answered"]) == (1, 0)


def test_a_cut_stream_is_a_failure_and_no_retry() -> None:
    """What broke after the first byte is never repeated."""
    pool = pool_of(account("a"))
    settled = pool.settle(granted(pool).lease.id, Outcome(Kind.CUT, Scope.ACCOUNT_MODEL), NOW)
    assert not settled.retry
    assert pool.totals["failed"] == 1


def test_cancelling_is_nobodys_failure() -> None:
    """A client that goes away neither fails the account nor the request."""
    pool = pool_of(account("a"))
    pool.settle(granted(pool).lease.id, Outcome(Kind.CANCELLED), NOW)
    assert (pool.totals["cancelled"], pool.totals["failed"], len(pool.cooldowns)) == (1, 0, 0)


def test_a_denied_model_leaves_the_account_alone() -> None:
    """No access to one model keeps an account from that model only; when all lack it, the model is unknown."""
    pool = pool_of(account("a"))
    pool.settle(granted(pool).lease.id, Outcome(Kind.MODEL_DENIED, Scope.ACCOUNT_MODEL, rotate=True), NOW)
    assert refusal(pool).code == "unknown_model"
    assert granted(pool, ask("other"))


# ---- who may ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "request_", "code"),
    [
        ({"models": ("gemini-3*",)}, {"model": "gemini-2.5-pro"}, "no_account_for_model"),
        ({"exclude_models": ("*-pro",)}, {"model": "gemini-2.5-pro"}, "no_account_for_model"),
        ({}, {"forms": frozenset({"ca"})}, "no_account_for_model"),
        ({"lend": False}, {"lends": True}, "not_lent"),
        ({"cost": Cost.PAID}, {"allow_paid": False}, "needs_paid"),
        ({"data": Data.MAY_TRAIN}, {"data": Data.NO_TRAINING}, "no_account_for_model"),
        ({}, {"pin": "nobody"}, "not_found"),
        ({"models": ("x",)}, {"pin": "a"}, "no_account_for_model"),
    ],
)
def test_words_for_nobody(given: dict[str, object], request_: dict[str, object], code: str) -> None:
    """When configuration leaves nobody, the word says why."""
    assert code == refusal(pool_of(account("a", **given)), ask(**request_)).code


def test_an_empty_pool_says_so() -> None:
    """No accounts is a refusal with the next thing to do, not a wait."""
    assert "accounts.toml" in refusal(pool_of()).hint


def test_a_method_that_a_backend_lacks() -> None:
    """Embeddings never go to a backend that has none."""
    pool = pool_of(
        account("a"),
        account("c", backend=Backend.CODE_ASSIST),
        methods={"ca": frozenset({"generateContent"})},
    )
    assert ["a", "a"] == order(pool, 2, ask(method="embedContent"))


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (AccountState.LOGIN_REQUIRED, "login_required"),
        (AccountState.DEAD, "account_dead"),
        (AccountState.UNLICENSED, "unlicensed"),
        (AccountState.UNSUPPORTED_CLIENT, "unsupported_client"),
        (AccountState.SUSPENDED, "account_dead"),
        (AccountState.BLOCKED_BY_TERMS, "blocked_by_terms"),
    ],
)
def test_a_held_account_never_serves(state: AccountState, code: str) -> None:
    """A held account is out until somebody acts; asked for alone, its word and hint come back."""
    pool = pool_of(account("a"), account("b"))
    pool.refuse("a", state, NOW, reason="because", hint="gemini-pool login a")
    assert ["b"] * 3 == order(pool, 3)
    answer = refusal(pool, ask(pin="a"))
    assert (answer.code, answer.hint, answer.account_id) == (code, "gemini-pool login a", "a")


def test_an_account_without_a_token_is_waited_for() -> None:
    """A starting account is on its way: the answer is a wait, and it serves once its token is there."""
    pool = pool_of(account("a"), warm=False)
    assert NOW < waits(pool).until < NOW + 10
    pool.token_ready("a", NOW + 1, expires_at=NOW + 100)
    assert granted(pool, now=NOW + 1)
    assert waits(pool, now=NOW + 100)


def test_a_token_must_live_long_enough() -> None:
    """min_validity_s passes over accounts whose token ends too soon."""
    pool = pool_of(account("short"), account("long"), warm=False)
    pool.token_ready("short", NOW, expires_at=NOW + 100)
    pool.token_ready("long", NOW, expires_at=NOW + 1000)
    assert ["long"] * 3 == order(pool, 3, ask(min_validity_s=500))
    assert "short" == granted(pool).account.id


def test_an_expired_token_waits_and_an_unreachable_endpoint_shows() -> None:
    """Offline is a passing state with the instant of the next try; a valid token serves on meanwhile."""
    pool = pool_of(account("a"), warm=False)
    pool.token_ready("a", NOW, expires_at=NOW + 100)
    pool.unreachable("a", NOW + 50, reason="refused", retry_at=NOW + 60)
    assert pool.members["a"].state is AccountState.READY
    assert granted(pool, now=NOW + 50)
    pool.unreachable("a", NOW + 100, reason="refused", retry_at=NOW + 130)
    assert pool.members["a"].state is AccountState.OFFLINE
    assert waits(pool, now=NOW + 101).until == NOW + 130


def test_sessions_stay_while_they_can() -> None:
    """A session keeps its account, leaves it when it must, and then keeps the new one."""
    pool = pool_of(account("a"), account("b"))
    talk = ask(session="s")
    assert ["a"] * 4 == order(pool, 4, talk)
    grant = granted(pool, talk)
    settled = pool.settle(grant.lease.id, told(30), NOW)
    assert settled.request is not None
    assert ["b"] * 3 == order(pool, 3, settled.request)
    assert ["b"] == order(pool, 1, talk, now=NOW + 40)


def test_pinned_and_excluded() -> None:
    """A pin takes that account alone, an exclusion any other."""
    pool = pool_of(account("a"), account("b"))
    assert ["b"] * 3 == order(pool, 3, ask(pin="b"))
    assert ["a"] * 3 == order(pool, 3, ask(exclude=frozenset({"b"})))
    assert refusal(pool, ask(exclude=frozenset({"a", "b"}))).code == "overloaded"


def test_who_is_disabled_is_as_good_as_not_there() -> None:
    """Nobody waits for what only a person brings back; what keeps the others away is told instead."""
    a, b = account("a", enabled=False), account("b", cost=Cost.PAID)
    told = refusal(pool_of(a, account("b", enabled=False)))
    assert (told.code, told.hint) == ("no_account_for_model", "gemini-pool account enable ID")
    told = refusal(pool_of(a, b), ask(allow_paid=False))
    assert told.code == "needs_paid"
    told = refusal(pool_of(a, b), ask(allow_paid=False, pin="a"))
    assert (told.code, told.hint) == ("no_account_for_model", "gemini-pool account enable a")
    assert refusal(pool_of(a, b), ask(exclude=frozenset({"b"}))).code == "overloaded"


def test_pausing() -> None:
    """A paused account gets nothing new, a paused pool gives nothing out; both come back."""
    pool = pool_of(account("a"), account("b"))
    pool.pause("a", NOW)
    assert ["b"] * 2 == order(pool, 2)
    pool.pause("", NOW)
    assert refusal(pool).code == "overloaded"
    pool.pause("", NOW, paused=False)
    pool.pause("a", NOW, paused=False)
    assert {"a", "b"} == set(order(pool, 2))


def test_known_limits_are_kept_before_google_says_no() -> None:
    """With rpm configured, the bucket gives out no more than that a minute, whichever key is asked."""
    limits = Limits(rpm=3)
    pool = pool_of(account("a", quota_group="p", limits=limits), account("b", quota_group="p", limits=limits))
    for _ in range(3):
        pool.settle(granted(pool).lease.id, OK, NOW)
    wait = waits(pool, now=NOW + 1)
    assert (wait.until, wait.reason) == (pytest.approx(NOW + 60.12), "pacing")
    assert granted(pool, now=wait.until)


def test_daily_caps_are_kept() -> None:
    """The user's own cap on requests and tokens ends an account's day."""
    pool = pool_of(account("a", daily_cap=DailyCap(tokens=100)))
    pool.settle(granted(pool).lease.id, OK, NOW, usage=Usage(60, 50, total_tokens=110))
    assert waits(pool).until > NOW + 600


# ---- reload and restart -------------------------------------------------------------------------------------------


def test_reload_keeps_what_did_not_change() -> None:
    """Adding, editing and removing accounts leaves the others' rests, counters and leases alone."""
    pool = pool_of(account("a"), account("b"))
    pool.settle(granted(pool, ask(pin="b")).lease.id, told(30), NOW)
    lease = granted(pool, ask(pin="a")).lease
    changes = pool.configure([account("b"), account("c"), account("a", priority=3)], NOW)
    assert (changes.added, changes.removed, changes.changed, changes.unchanged) == (("c",), (), ("a",), 1)
    assert waits(pool, ask(pin="b")).until == NOW + 30
    pool.settle(lease.id, OK, NOW)
    changes = pool.configure([account("b")], NOW)
    assert changes.removed == ("c", "a")
    assert refusal(pool, ask(pin="a")).code == "not_found"


def test_a_report_for_a_removed_account_is_taken() -> None:
    """An account removed while its request runs: the report is still answered, and nothing breaks."""
    pool = pool_of(account("a"), account("b"))
    lease = granted(pool, ask(pin="a")).lease
    pool.configure([account("b")], NOW)
    assert pool.settle(lease.id, told(30), NOW).retry


def test_editing_a_dead_account_tries_it_anew() -> None:
    """Whoever edits the entry of a dead account wants it tried again; an unrelated reload does not."""
    pool = pool_of(account("a"))
    pool.refuse("a", AccountState.LOGIN_REQUIRED, NOW, reason="account a: gone")
    pool.configure([account("a")], NOW)
    assert pool.members["a"].state is AccountState.LOGIN_REQUIRED
    assert refusal(pool).reason == "account a: gone"  # the account once, whoever wrote the reason
    pool.configure([account("a", priority=1)], NOW)
    assert pool.members["a"].state is AccountState.STARTING


def test_everything_that_matters_survives_a_restart() -> None:
    """Rests with their evidence, held states, counters, discoveries and totals come back from the rows."""
    pool = pool_of(account("a"), account("b"), account("c", backend=Backend.CODE_ASSIST))
    pool.discovered(DiscoveryRow("c", "proj", "standard-tier", "c@example.com", "sub-1", NOW))
    pool.settle(granted(pool, ask(pin="b")).lease.id, told(30), NOW)
    pool.settle(granted(pool, ask(pin="a")).lease.id, OK, NOW, usage=Usage(10, 5, total_tokens=15))
    pool.refuse("a", AccountState.DEAD, NOW, reason="leaked", hint="make a new key")
    pool.pause("c", NOW)
    rows = pool.take_rows()

    again = Pool(rng=lambda: 0.5)
    again.restore(rows, NOW + 1)
    again.configure([account("a"), account("b"), account("c", backend=Backend.CODE_ASSIST)], NOW + 1)
    for name in ("b", "c"):
        again.token_ready(name, NOW + 1)
    a, c = again.members["a"], again.members["c"]
    assert (a.state, a.reason, a.hint) == (AccountState.DEAD, "leaked", "make a new key")
    assert (a.counters["m"].served, a.counters["m"].output_tokens) == (1, 5)
    assert (c.paused, again.project_of("c"), c.sub, c.bucket) == (True, "proj", "sub-1", "ca:sub-1")
    assert waits(again, ask(pin="b"), NOW + 2).until == NOW + 30
    assert again.totals["requests"] == pool.totals["requests"] == 2


def test_mere_successes_are_not_urgent() -> None:
    """A success may be written a moment later; a rest or a state may not."""
    pool = pool_of(account("a"))
    pool.take_rows()
    pool.settle(granted(pool).lease.id, OK, NOW)
    assert not pool.urgent
    pool.settle(granted(pool).lease.id, guess(), NOW)
    assert pool.urgent


def test_clearing_by_hand() -> None:
    """A person may lift a rest or a held state at once."""
    pool = pool_of(account("a"))
    pool.settle(granted(pool).lease.id, told(3000), NOW)
    assert pool.clear_cooldown("a") == 1
    assert granted(pool)
    pool.refuse("a", AccountState.SUSPENDED, NOW, reason="terms")
    pool.clear_state("a", NOW)
    assert pool.members["a"].state is AccountState.STARTING


# ---- whatever happens ---------------------------------------------------------------------------------------------


class PoolMachine(RuleBasedStateMachine):
    """Random life of a small pool; its promises hold after every step."""

    @initialize(strategy=st.sampled_from(["adaptive", "round-robin", "weighted-random", "fill-first"]))
    def start(self, strategy: str) -> None:
        self.now = NOW
        accounts = [account(f"a{n}", quota_group="p" if n < 2 else "", priority=n % 2) for n in range(5)]
        self.pool = pool_of(*accounts, strategy=strategy)
        self.open: dict[str, Grant] = {}
        self.told_until: dict[str, float] = {}

    @rule(seconds=st.floats(0, 20))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.pool.expire(self.now)
        self.open = {k: g for k, g in self.open.items() if g.lease.expires_at > self.now}

    @rule(session=st.sampled_from(["", "s", "t"]), exclude=st.sampled_from([(), ("a0",), ("a1", "a2")]))
    def acquire(self, session: str, exclude: tuple[str, ...]) -> None:
        decision = self.pool.acquire(ask(session=session, exclude=frozenset(exclude)), self.now)
        if isinstance(decision, Grant):
            member = self.pool.members[decision.account.id]
            assert member.may_serve(self.now)
            assert member.id not in exclude
            assert self.told_until.get(member.bucket, 0.0) <= self.now
            self.open[decision.lease.id] = decision
        elif isinstance(decision, Wait):
            assert self.now <= decision.until < inf

    @rule(
        data=st.data(),
        seconds=st.floats(0.5, 30),
        what=st.sampled_from(["ok", "told", "guess", "fault", "cut"]),
    )
    def settle(self, data: st.DataObject, seconds: float, what: str) -> None:
        if not self.open:
            return
        lease_id = data.draw(st.sampled_from(sorted(self.open)))
        grant = self.open.pop(lease_id)
        bucket = self.pool.members[grant.account.id].bucket
        outcome = {
            "ok": OK, "told": told(seconds, now=self.now), "guess": guess(), "fault": FAULT,
            "cut": Outcome(Kind.CUT, Scope.ACCOUNT_MODEL),
        }[what]  # fmt: skip
        if what == "told":
            self.told_until[bucket] = max(self.told_until.get(bucket, 0.0), self.now + seconds)
        self.pool.settle(lease_id, outcome, self.now)
        with pytest.raises(UnknownLease):
            self.pool.settle(lease_id, outcome, self.now)

    @rule(name=st.sampled_from(["a0", "a3"]))
    def lose_and_find_a_token(self, name: str) -> None:
        self.pool.token_ready(name, self.now, expires_at=self.now + 5)

    @invariant()
    def in_flight_is_what_is_lent(self) -> None:
        if hasattr(self, "pool"):
            counted = {m.id: 0 for m in self.pool.members.values()}
            for lease in self.pool.leases:
                counted[lease.account_id] += 1
            assert counted == {m.id: m.in_flight for m in self.pool.members.values()}

    @invariant()
    def somebody_free_is_never_refused(self) -> None:
        if hasattr(self, "pool"):
            free = [
                m
                for m in self.pool.members.values()
                if self.pool.chooser.blocked_until(m, "m", self.now) <= self.now
            ]
            if not free:
                assert not isinstance(self.pool.acquire(ask(), self.now), Grant)
            else:
                decision = self.pool.acquire(ask(), self.now)
                assert isinstance(decision, Grant), (decision, free)
                self.pool.release(decision.lease.id, self.now)

    @invariant()
    def never_a_refusal_for_good(self) -> None:
        if hasattr(self, "pool"):
            assert not isinstance(self.pool.chooser.choose(ask(pin="a4"), self.now), Refusal)


PoolMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestPoolMachine = PoolMachine.TestCase


def test_learnt_limits_survive_a_restart() -> None:
    """What Google named for a bucket is kept by the next run from its first request on."""
    pool = pool_of(account("a"))
    refused = Outcome(
        Kind.RATE,
        Scope.BUCKET_MODEL,
        until=NOW + 1,
        told=True,
        quota_value=1.0,
        quota_window="requests/minute",
    )
    granted(pool)
    pool.settle(granted(pool).lease.id, refused, NOW)
    rows = pool.take_rows()
    assert [(row.bucket, row.model, row.rpm) for row in rows if isinstance(row, PaceRow)] == [
        ("gl:a", "m", 1)
    ]
    later = Pool(rng=lambda: 0.5)
    later.restore([row for row in rows if isinstance(row, PaceRow)], NOW + 30)
    later.configure([account("a")], NOW + 30)
    later.token_ready("a", NOW + 30)
    assert waits(later, now=NOW + 30).until > NOW + 59, "one was sent before the restart"
    granted(later, now=NOW + 61)
    assert waits(later, now=NOW + 62).until > NOW + 120


def test_a_bucket_that_nobody_uses_is_forgotten() -> None:
    """With its last account its limits go, too, from the database as well."""
    pool = pool_of(account("a", limits=Limits(rpm=5)))
    granted(pool)
    assert [row.gone for row in pool.take_rows() if isinstance(row, PaceRow)] == [False]
    pool.configure([], NOW)
    assert [row.gone for row in pool.take_rows() if isinstance(row, PaceRow)] == [True]


def test_a_large_request_keeps_no_account_from_small_ones() -> None:
    """Who has no room for many tokens still serves few; the large request is told when it fits."""
    pool = pool_of(*(account(n, limits=Limits(tpm=2_000)) for n in "ab"))
    for _ in range(2):
        granted(pool, ask(tokens=1_000))
    assert waits(pool, ask(tokens=1_500)).until == pytest.approx(NOW + 60, abs=1)
    granted(pool, ask(tokens=10))
    pool.acquire(ask(tokens=1_000), NOW + 20)
    assert waits(pool, ask(tokens=1_500), NOW + 20).until == pytest.approx(NOW + 60, abs=1)


def test_a_lease_given_back_serves_whoever_waits_at_once() -> None:
    """What was reserved and not sent is free in the same instant, for every account of the bucket."""
    pool = pool_of(
        account("a", limits=Limits(rpm=1), quota_group="g"),
        account("b", quota_group="g", limits=Limits(rpm=1)),
    )
    grant = granted(pool)
    assert waits(pool).until > NOW + 59
    pool.release(grant.lease.id, NOW)
    granted(pool)
    assert waits(pool).until > NOW + 59
