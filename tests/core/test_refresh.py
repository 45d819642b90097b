"""The renewal schedule by tables with literal seconds."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemini_poold.core.model import TokenLife
from gemini_poold.core.refresh import (
    RETRY_CAP_S,
    SOONEST_S,
    TOLD_CAP_S,
    Freshness,
    due_at,
    freshness,
    renew_by,
    retry_at,
)


@pytest.mark.parametrize(
    ("issued", "expires", "lead", "jitter", "due"),
    [
        (0, 3600, 600, 0.0, 3000),  # lead_s before expiry
        (0, 3600, 600, 1.0, 2820),  # 5 % of its life earlier
        (0, 3600, 600, 0.5, 2910),
        (1000, 4600, 600, 0.0, 4000),
        (0, 1200, 600, 0.0, 600),  # exactly twice lead_s: both rules agree
        (0, 1199, 600, 0.0, 599.5),  # shorter: half-life
        (0, 20, 600, 0.0, 10),
        (0, 20, 600, 1.0, 9),
        (0, 1, 600, 1.0, 0.45),
        (0, 3600, 0, 0.0, 3600),
        (0, 0, 600, 1.0, 0),  # dead on arrival
        (50, 10, 600, 1.0, 50),  # a clock that ran backwards: due at once, never before it was issued
        (0, inf, 600, 1.0, inf),  # an API key
    ],
)
def test_due(issued, expires, lead, jitter, due):
    """A token is renewed lead_s early, at half-life when short-lived, up to 5 % of its life earlier."""
    assert due_at(TokenLife(issued, expires), lead, jitter) == pytest.approx(due)


@given(
    issued=st.floats(0, 2e9),
    life=st.floats(0, 1e6),
    lead=st.floats(0, 1e5),
    jitter=st.floats(0, 1),
)
def test_due_is_never_late_and_never_earlier_than_said(issued, life, lead, jitter):
    """For every life and lead: within 5 % of the life before the latest instant, never after it."""
    token = TokenLife(issued, issued + life)
    whole = token.expires_at - token.issued_at
    due = due_at(token, lead, jitter)
    latest = renew_by(token, lead)
    assert max(issued, latest - 0.05 * whole - 1e-6) <= due <= latest
    assert latest <= token.expires_at


@pytest.mark.parametrize(
    ("life", "now", "state"),
    [
        (None, 0, Freshness.NONE),
        (TokenLife(0, 3600), 0, Freshness.FRESH),
        (TokenLife(0, 3600), 2999, Freshness.FRESH),
        (TokenLife(0, 3600), 3000, Freshness.STALE),
        (TokenLife(0, 3600), 3599.9, Freshness.STALE),
        (TokenLife(0, 3600), 3600, Freshness.EXPIRED),
        (TokenLife(0, 3600), 90000, Freshness.EXPIRED),
        (TokenLife(1000, 4600), 900, Freshness.STALE),  # the clock was set back
        (TokenLife(0, inf), 1e12, Freshness.FRESH),
        (TokenLife(1000, inf), 0, Freshness.FRESH),  # a key does not care about clocks
    ],
)
def test_freshness(life, now, state):
    """Fresh until due, stale until it expires, expired from that very instant on."""
    assert freshness(life, now, 600) is state


@pytest.mark.parametrize(
    ("failures", "jitter", "remaining", "told", "delay"),
    [
        (1, 1.0, inf, None, 2),  # exponential …
        (2, 1.0, inf, None, 4),
        (3, 1.0, inf, None, 8),
        (3, 0.5, inf, None, 4),  # … with full jitter …
        (3, 0.0, inf, None, SOONEST_S),
        (10, 1.0, inf, None, RETRY_CAP_S),  # … and bounded
        (5000, 1.0, inf, None, RETRY_CAP_S),
        (5, 1.0, 40, None, 10),  # faster when the token is about to die
        (5, 1.0, 0.4, None, SOONEST_S),
        (5, 1.0, -10, None, 32),  # dead already: nothing left to hurry for
        (1, 1.0, inf, 30, 30),  # the endpoint's own word
        (1, 1.0, 8, 30, 30),
        (9, 1.0, -1, 5, 60),
        (1, 1.0, inf, 1e9, TOLD_CAP_S),
    ],
)
def test_retry(failures, jitter, remaining, told, delay):
    """Retries back off, hurry before expiry, and obey a told pause."""
    now = 1000.0
    at = retry_at(now, failures, jitter, expires_at=now + remaining, told_s=told)
    assert at - now == pytest.approx(delay)


def test_several_tries_fit_before_a_token_dies():
    """However many failures came before, the unluckiest jitter leaves at least five tries to a token's last minute."""
    now, tries = 0.0, 0
    while now < 60.0:
        tries += 1
        now = retry_at(now, 10 + tries, 1.0, expires_at=60.0)
    assert tries >= 5
