"""explain: every account's verdict, a dry run, and recorded choices."""

from __future__ import annotations

from tests.core.pools import NOW, account, ask, granted, pool_of, told

from gemini_poold.core.explain import explain, explain_decision
from gemini_poold.core.model import AccountState, Cost


def test_it_names_the_choice_that_would_be_made() -> None:
    """What explain says is what acquire then does, for plain, pinned and session requests."""
    pool = pool_of(account("a"), account("b", priority=2), account("c"))
    for request in (ask(), ask(pin="c"), ask(session="s")):
        said = explain(pool, request, NOW).chosen
        assert said == granted(pool, request).account.id
    granted(pool, ask(pin="c", session="s"))
    assert (explain(pool, ask(session="s"), NOW).chosen, explain(pool, ask(session="s"), NOW).reason) == (
        "c",
        "session",
    )


def test_it_changes_nothing() -> None:
    """Asking a hundred times reserves nothing and counts nothing."""
    pool = pool_of(account("a"), account("b"))
    before = dict(pool.totals)
    assert {explain(pool, ask(), NOW).chosen for _ in range(100)} == {"a"}
    assert (dict(pool.totals), len(pool.leases)) == (before, 0)


def test_every_account_has_a_verdict_with_its_reason() -> None:
    """Cooling (told by whom), held, paid, wrong model, disabled and paused accounts each say so."""
    pool = pool_of(
        account("free"), account("cooling"), account("dead"), account("paid", cost=Cost.PAID),
        account("other", models=("x",)), account("off", enabled=False), account("paused"), account("cold"),
    )  # fmt: skip
    pool.settle(granted(pool, ask(pin="cooling")).lease.id, told(30), NOW)
    pool.refuse("dead", AccountState.DEAD, NOW, reason="leaked key")
    pool.pause("paused", NOW)
    pool.token_ready("cold", NOW, expires_at=NOW - 1)
    verdicts = {v.account_id: v for v in explain(pool, ask(allow_paid=False), NOW).verdicts}
    assert {name: v.verdict for name, v in verdicts.items()} == {
        "free": "chosen", "cooling": "cooling", "dead": "account_dead", "paid": "needs_paid",
        "other": "no_account_for_model", "off": "disabled", "paused": "paused", "cold": "token_expired",
    }  # fmt: skip
    assert verdicts["cooling"].returns_at == NOW + 30
    assert "told by RetryInfo" in verdicts["cooling"].reason
    assert verdicts["dead"].reason == "leaked key"


def test_nobody_free_says_who_returns_first() -> None:
    """All cooling: the code, the account and the instant."""
    pool = pool_of(account("a"), account("b"))
    pool.settle(granted(pool, ask(pin="a")).lease.id, told(30), NOW)
    pool.settle(granted(pool, ask(pin="b")).lease.id, told(20), NOW)
    said = explain(pool, ask(), NOW)
    assert (said.chosen, said.code, said.next_return_account, said.next_return_at) == (
        None, "all_cooling_down", "b", NOW + 20,
    )  # fmt: skip


def test_nobody_at_all_gives_the_word() -> None:
    """Where no waiting helps, explain has acquire's word."""
    assert explain(pool_of(account("a", models=("x",))), ask(), NOW).code == "no_account_for_model"


def test_a_recorded_decision_is_kept() -> None:
    """A choice can be looked up later: who was chosen, why, when, and who was out."""
    pool = pool_of(account("a"), account("b"))
    pool.settle(granted(pool, ask(pin="a")).lease.id, told(30), NOW)
    grant = granted(pool, now=NOW + 1)
    decision = pool.decisions.get(grant.lease.decision)
    assert decision is not None
    said = explain_decision(decision)
    assert (said.chosen, said.reason, said.at) == ("b", "adaptive", NOW + 1)
    assert {v.account_id: v.verdict for v in said.verdicts} == {"b": "chosen", "a": "cooling"}
