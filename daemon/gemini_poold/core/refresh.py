"""When an access token is renewed: fresh, stale, expired; the due instant; the retry after a failure.

Pure: instants come in, chance comes in (`jitter01`, 0 to 1). Who renews and what a token is, is not known here.

    issued ──────────── fresh ──────────── due ──── stale (served, being renewed) ──── expires ── expired (never served)
"""

from __future__ import annotations

from enum import StrEnum
from math import inf, isinf

from .model import TokenLife

JITTER = 0.05  # of a token's life: at most this much earlier than due, so that a thousand accounts do not renew at once

FIRST_RETRY_S = 1.0  # google-auth's first delay for token calls
RETRY_CAP_S = 60.0  # longest pause while somebody could be waiting for the token endpoint to come back
RARE_CAP_S = 300.0  # longest pause where a person must mend something that we can only look at again
TOLD_CAP_S = 3600.0  # a token endpoint's Retry-After is obeyed up to this
TRIES_BEFORE_EXPIRY = 4  # a dying token's retries are at most this part of its remaining life apart
SOONEST_S = 0.25  # no retry follows a failure faster than this


class Freshness(StrEnum):
    NONE = "none"
    FRESH = "fresh"
    STALE = "stale"  # renewal is due; served while it is valid
    EXPIRED = "expired"  # never leaves the daemon


def renew_by(life: TokenLife, lead_s: float) -> float:
    """The latest instant at which renewal begins: `lead_s` before expiry, or half-life if it lives shorter than
    twice `lead_s`. A token that never expires is never due."""
    if isinf(life.expires_at):
        return inf
    whole = max(0.0, life.expires_at - life.issued_at)
    if whole < 2 * lead_s:
        return life.issued_at + whole / 2
    return life.expires_at - lead_s


def due_at(life: TokenLife, lead_s: float, jitter01: float) -> float:
    """When renewal begins: `renew_by`, up to 5 % of the token's life earlier, never later."""
    latest = renew_by(life, lead_s)
    if isinf(latest):
        return inf
    return max(life.issued_at, latest - jitter01 * JITTER * max(0.0, life.expires_at - life.issued_at))


def freshness(life: TokenLife | None, now: float, lead_s: float) -> Freshness:
    """What a token is at `now`. Issued in the future means that the clock was set back: nothing is known about its
    age then, so it counts as stale and is renewed."""
    if life is None:
        return Freshness.NONE
    if now >= life.expires_at:
        return Freshness.EXPIRED
    if not isinf(life.expires_at) and now < life.issued_at - 1.0:
        return Freshness.STALE
    return Freshness.STALE if now >= renew_by(life, lead_s) else Freshness.FRESH


def retry_at(
    now: float,
    failures: int,
    jitter01: float,
    *,
    expires_at: float = -inf,
    told_s: float | None = None,
    cap_s: float = RETRY_CAP_S,
) -> float:
    """When to try again after the `failures`-th failure in a row (from 1).

    Exponential with full jitter up to `cap_s`; while the old token still lives, at most a part of what remains of it,
    so that several tries fit before it dies. `told_s`: the endpoint's own Retry-After, which is obeyed.
    """
    ceiling = min(cap_s, FIRST_RETRY_S * 2.0 ** min(failures, 16))
    remaining = expires_at - now
    if 0 < remaining < inf:
        ceiling = min(ceiling, remaining / TRIES_BEFORE_EXPIRY)
    delay = max(SOONEST_S, jitter01 * ceiling)
    if told_s is not None:
        delay = max(delay, min(told_s, TOLD_CAP_S))
    return now + delay
