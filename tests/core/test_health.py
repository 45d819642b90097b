"""Account health: every transition of the table, and a score that moves the right way."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.core.pools import NOW

from gemini_poold.core.health import ERROR_WORD, HEALING, HELD, STATES, Event, Health, mermaid, next_state
from gemini_poold.core.model import AccountState as S

DESIGN = Path(__file__).parents[2] / "daemon" / "DESIGN.md"


@pytest.mark.parametrize("state", STATES)
def test_usable_leads_to_ready_unless_a_person_must_mend(state: S) -> None:
    """A warm token makes an account ready, but never lifts what only a person can mend."""
    expected = state if state in HELD - HEALING else S.READY
    assert expected is next_state(state, Event.USABLE)


@pytest.mark.parametrize("state", STATES)
def test_unreachable_never_forgets_a_held_state(state: S) -> None:
    """A passing failure says nothing new about an account that is held."""
    expected = state if state in HELD else S.OFFLINE
    assert expected is next_state(state, Event.UNREACHABLE)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("target", sorted(HELD))
def test_refusals_name_the_state_and_suspension_stays(state: S, target: S) -> None:
    """Google's word becomes the state; nothing but a person's clearing ends a suspension."""
    expected = S.SUSPENDED if state is S.SUSPENDED else target
    assert expected is next_state(state, Event.REFUSED, target)


@pytest.mark.parametrize("state", STATES)
def test_a_change_starts_anew_but_for_the_suspended(state: S) -> None:
    """Editing the entry or logging in again starts anew; a suspension needs explicit clearing."""
    assert next_state(state, Event.CHANGED) is (S.SUSPENDED if state is S.SUSPENDED else S.STARTING)
    assert next_state(state, Event.CLEARED) is S.STARTING


def test_every_held_state_has_an_error_word() -> None:
    """A pin on any held account can be answered with a word of the wire."""
    assert set(ERROR_WORD) == HELD


def test_the_diagram_in_the_design_is_the_table() -> None:
    """DESIGN.md shows what the code does."""
    assert mermaid() in DESIGN.read_text(encoding="utf-8")


def test_score_moves_with_answers() -> None:
    """Failures lower the score, successes raise it again, a quiet time heals part of it."""
    h = Health()
    best = h.score(NOW)
    h.failed(NOW)
    after_one = h.score(NOW)
    h.failed(NOW)
    after_two = h.score(NOW)
    assert best == 1.0 > after_one > after_two
    assert h.score(NOW + 300) > after_two
    h.succeeded(0.2)
    assert h.score(NOW + 1) > after_two


def test_score_weighs_quota_and_latency() -> None:
    """Little quota left and slow first bytes make an account less attractive."""
    assert Health(quota=0.1).score(NOW) < Health(quota=0.9).score(NOW)
    slow = Health()
    slow.succeeded(20.0)
    quick = Health()
    quick.succeeded(0.5)
    assert slow.score(NOW) < quick.score(NOW)


@pytest.mark.parametrize(("failures", "band"), [(0, 0), (1, 0), (4, 1), (12, 2)])
def test_bands_are_coarse(failures: int, band: int) -> None:
    """One failure does not move an account out of its band; many do."""
    h = Health(quota=0.6)
    for _ in range(failures):
        h.failed(NOW)
    assert band == h.band(NOW)
