"""Pools for tests: accounts in one line each, chance from a seed, time as literal seconds."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from gemini_poold.core.model import Account, Backend, Grant, Kind, Outcome, Refusal, Request, Scope, Wait
from gemini_poold.core.state import Pool

NOW = 1_795_000_000.0
OK = Outcome(Kind.OK)


def account(name: str, **given: Any) -> Account:
    return Account(name, **{"backend": Backend.DEVELOPER_API, "lend": True, **given})


def pool_of(*accounts: Account, warm: bool = True, seed: int = 1, **options: Any) -> Pool:
    pool = Pool(rng=random.Random(seed).random, **options)
    pool.configure(accounts, NOW)
    for each in accounts if warm else ():
        pool.token_ready(each.id, NOW)
    return pool


def ask(model: str = "m", **given: Any) -> Request:
    return Request(**{"id": "r", "model": model, **given})


def granted(pool: Pool, request: Request | None = None, now: float = NOW, **given: Any) -> Grant:
    decision = pool.acquire(request or ask(), now, **given)
    assert isinstance(decision, Grant), decision
    return decision


def waits(pool: Pool, request: Request | None = None, now: float = NOW) -> Wait:
    decision = pool.acquire(request or ask(), now)
    assert isinstance(decision, Wait), decision
    return decision


def refusal(pool: Pool, request: Request | None = None, now: float = NOW) -> Refusal:
    decision = pool.acquire(request or ask(), now)
    assert isinstance(decision, Refusal), decision
    return decision


def order(pool: Pool, count: int, request: Request | None = None, now: float = NOW) -> list[str]:
    """Who gets `count` requests, one after the other, each of them answered."""
    served = []
    for _ in range(count):
        grant = granted(pool, request, now)
        pool.settle(grant.lease.id, OK, now)
        served.append(grant.account.id)
    return served


def told(
    seconds: float, kind: Kind = Kind.RATE, scope: Scope = Scope.BUCKET_MODEL, now: float = NOW
) -> Outcome:
    return Outcome(kind, scope, now + seconds, True, rotate=True, reason="limit", source="RetryInfo")


def guess(kind: Kind = Kind.RATE, scope: Scope = Scope.BUCKET_MODEL) -> Outcome:
    return Outcome(kind, scope, rotate=True, reason="no time given")


__all__ = [
    "NOW",
    "OK",
    "account",
    "ask",
    "granted",
    "guess",
    "order",
    "pool_of",
    "refusal",
    "replace",
    "told",
    "waits",
]
