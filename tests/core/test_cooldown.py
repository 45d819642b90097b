"""Cooldowns: what was told is kept, what was guessed backs off and can be lifted."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.core.pools import NOW, guess, told

from gemini_poold.core.cooldown import BACKOFF, LONGEST_S, Cooldowns, key_of
from gemini_poold.core.model import Kind, Outcome, Scope

KEY = key_of(Scope.BUCKET_MODEL, account="a", bucket="b", backend="developer-api", model="m")


def blocked(
    cooldowns: Cooldowns, now: float, *, account: str = "a", bucket: str = "b", model: str = "m"
) -> float:
    found = cooldowns.blocking(account=account, bucket=bucket, backend="developer-api", model=model, now=now)
    return 0.0 if found is None else found.until


def test_told_is_kept_to_the_second() -> None:
    """A told time blocks until its instant and not a moment longer; no success shortens it."""
    c = Cooldowns()
    c.start(KEY, told(30), NOW)
    assert not c.succeed(KEY, NOW + 1)
    assert NOW + 30 == blocked(c, NOW + 29.999)
    assert blocked(c, NOW + 30) == 0.0


def test_multi_hour_resets_are_not_clipped_and_nonsense_is() -> None:
    """Nineteen hours stay nineteen hours; a year is bounded."""
    c = Cooldowns()
    c.start(KEY, told(69_287), NOW)
    assert NOW + 69_287 == blocked(c, NOW)
    c.start(KEY, told(366 * 86_400), NOW)
    assert NOW + LONGEST_S == blocked(c, NOW)


def test_guesses_back_off_and_forget() -> None:
    """Each strike after the last rest doubles the guess up to a bound; quiet time forgets the strikes."""
    c, now, rests = Cooldowns(), NOW, []
    for _ in range(7):
        until = c.start(KEY, guess(), now).until
        rests.append(until - now)
        now = until
    b = BACKOFF[Kind.RATE]
    assert rests == [min(b.first_s * 2**n, b.longest_s) for n in range(7)]
    assert c.start(KEY, guess(), now + 10_000).until == now + 10_000 + b.first_s


def test_a_burst_is_one_strike() -> None:
    """Refusals that arrive while the key rests anyway do not raise the guess."""
    c = Cooldowns()
    for _ in range(20):
        c.start(KEY, guess(), NOW)
    assert NOW + BACKOFF[Kind.RATE].first_s == blocked(c, NOW)


def test_a_success_lifts_a_guess() -> None:
    """A success of the same key ends a guessed rest at once and forgets its strikes."""
    c = Cooldowns()
    c.start(KEY, guess(), NOW)
    assert c.succeed(KEY, NOW + 1)
    assert blocked(c, NOW + 1) == 0.0


def test_a_told_time_replaces_a_guess_outright() -> None:
    """Knowledge wins over a guess even where it ends earlier; a later guess never shortens what was told."""
    c = Cooldowns()
    c.start(KEY, replace(guess(), until=NOW + 60), NOW)
    c.start(KEY, told(5), NOW)
    assert NOW + 5 == blocked(c, NOW)
    c.start(KEY, told(50), NOW + 1)
    assert NOW + 50 == blocked(c, NOW + 1)
    c.start(KEY, guess(), NOW + 2)
    assert NOW + 50 == blocked(c, NOW + 2)


def test_a_rest_can_be_extended() -> None:
    """A later end told while resting extends the rest."""
    c = Cooldowns()
    c.start(KEY, told(5), NOW)
    c.start(KEY, told(500), NOW + 1)
    assert NOW + 500 == blocked(c, NOW + 1)


@pytest.mark.parametrize(
    ("scope", "reaches", "spares"),
    [
        (Scope.ACCOUNT_MODEL, [("a", "b", "m")], [("a", "b", "n"), ("z", "b", "m")]),
        (Scope.ACCOUNT, [("a", "b", "m"), ("a", "b", "n")], [("z", "b", "m")]),
        (Scope.BUCKET_MODEL, [("a", "b", "m"), ("z", "b", "m")], [("a", "b", "n"), ("z", "y", "m")]),
        (Scope.BUCKET, [("a", "b", "m"), ("z", "b", "n")], [("a", "y", "m")]),
        (Scope.BACKEND_MODEL, [("a", "b", "m"), ("z", "y", "m")], [("a", "b", "n")]),
    ],
)
def test_scopes(
    scope: Scope, reaches: list[tuple[str, str, str]], spares: list[tuple[str, str, str]]
) -> None:
    """A cooldown reaches exactly as far as its scope says."""
    c = Cooldowns()
    key = key_of(scope, account="a", bucket="b", backend="developer-api", model="m")
    c.start(key, told(10, scope=scope), NOW)
    for a, b, m in reaches:
        assert blocked(c, NOW, account=a, bucket=b, model=m) > NOW
    for a, b, m in spares:
        assert blocked(c, NOW, account=a, bucket=b, model=m) == 0.0


def test_rows_round_trip() -> None:
    """What was taken as rows brings the same rests back, with their evidence."""
    c = Cooldowns()
    c.start(KEY, told(30), NOW)
    rows = c.take_rows()
    again = Cooldowns()
    for row in rows:
        again.restore(row, NOW + 1)
    assert [x.row() for x in again.active(NOW + 1)] == rows
    assert not c.take_rows()


def test_clearing_tells_the_store() -> None:
    """A cleared cooldown is gone from the pool and leaves a `gone` row for the disk."""
    c = Cooldowns()
    c.start(KEY, told(30), NOW)
    c.take_rows()
    assert c.clear(account="a", bucket="b") == 1
    (row,) = c.take_rows()
    assert row.gone
    assert (row.scope, row.key, row.model) == KEY


def test_clear_spares_others() -> None:
    """Clearing one account and model leaves other accounts and models alone."""
    c = Cooldowns()
    for account, model in (("a", "m"), ("a", "n"), ("z", "m")):
        key = key_of(Scope.ACCOUNT_MODEL, account=account, bucket=account, backend="x", model=model)
        c.start(key, told(30, scope=Scope.ACCOUNT_MODEL), NOW)
    assert c.clear(account="a", bucket="a", model="m") == 1
    assert {(x.key, x.model) for x in c.active(NOW)} == {("a", "n"), ("z", "m")}


def test_sweep_forgets_what_no_longer_matters() -> None:
    """Ended rests go away once their strikes are forgotten, so memory does not grow."""
    c = Cooldowns()
    c.start(KEY, told(1), NOW)
    c.sweep(NOW + 300)
    assert len(c) == 1
    c.sweep(NOW + 700)
    assert len(c) == 0


def test_kinds_that_rest_have_a_guess() -> None:
    """Every kind of refusal that can start a rest knows how long to guess."""
    resting = set(Kind) - {Kind.OK, Kind.CLIENT, Kind.CANCELLED, Kind.ACCOUNT}
    assert resting == set(BACKOFF)


def test_a_later_refusal_without_time_keeps_outcome_words() -> None:
    """The evidence shown is that of the rest in force."""
    c = Cooldowns()
    c.start(
        KEY, Outcome(Kind.DAILY, Scope.BUCKET_MODEL, NOW + 9_000, True, reason="day", source="quotaId"), NOW
    )
    c.start(KEY, guess(), NOW + 1)
    (active,) = c.active(NOW + 1)
    assert (active.kind, active.source, active.reason) == (Kind.DAILY, "quotaId", "day")


def test_a_guess_beyond_a_told_end_is_lifted_down_to_it() -> None:
    """A refusal without a time may lengthen a told rest; a success lifts only the guess, and Google's word stays."""
    cooldowns = Cooldowns()
    key = key_of(Scope.BUCKET_MODEL, account="a", bucket="b", backend="gl", model="m")
    cooldowns.start(key, told(2.0), NOW)
    assert cooldowns.start(key, guess(), NOW).until == NOW + 4.0
    assert cooldowns.succeed(key, NOW + 1)
    (rest,) = cooldowns.active(NOW + 1)
    assert (rest.until, rest.told) == (NOW + 2.0, True)
    cooldowns.start(key, guess(), NOW + 1)
    assert cooldowns.start(key, told(0.5, now=NOW + 1), NOW + 1).until == NOW + 2.0
