"""A day with tokens that live 20 s: the production keeper and credentials in virtual time, and nobody ever waits.

The token endpoint takes up to 2 s, answers 503 now and then, and rotates one login's refresh token each time. The
numbers are printed (`pytest -s`).
"""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from tests.credentials.making import (
    TokenEndpoint,
    context,
    entry,
    file,
    login_file,
    read_secret,
    write_secret,
)
from tests.fakes.clock import VirtualClock, run_virtual

from gemini_poold.config import SecretRef
from gemini_poold.credentials import registry
from gemini_poold.fake import World
from gemini_poold.runtime.ticker import Ticker
from gemini_poold.runtime.tokens import TokenKeeper

SEED = 20261124
DAY_S = 86_400.0
LIFE_S = 20.0
HALF_S = LIFE_S / 2
JITTER_S = 0.05 * LIFE_S
SLOWEST_S = 2.0
ILL = 0.02  # of all answers
ACCOUNTS = ("alice", "bob", "robot", "robot-too", "key")
LOGINS = 3  # both robots are one login, the key needs no call


class Google(TokenEndpoint):
    """Slow, sometimes ill, and strict: a refresh token that was rotated away is dead."""

    def __init__(self, rng):
        super().__init__(self.respond, latency_s=lambda: rng.uniform(0.05, SLOWEST_S))
        self.rng = rng
        self.life_s = LIFE_S
        self.seen = Counter()
        self.alive = {"fake-refresh-alice": "alice", "fake-refresh-bob": "bob"}

    def respond(self, form):
        if self.rng.random() < ILL:
            self.seen["503"] += 1
            return 503, b"<html>Error 503</html>"
        if form["grant_type"].endswith("jwt-bearer"):
            self.seen["robot"] += 1
            return self.token(form)
        owner = self.alive.get(form["refresh_token"])
        if owner is None:
            self.seen["dead"] += 1
            return 400, {"error": "invalid_grant", "error_description": "Token has been expired or revoked."}
        self.seen[owner] += 1
        if owner == "alice":
            return self.token(form)
        status, answer = self.rotating(form)
        del self.alive[form["refresh_token"]]
        self.alive[answer["refresh_token"]] = owner
        return status, answer


def credentials(tmp_path, google, clock):
    """Two persons, a service account that two accounts use, a key."""
    ctx = context(tmp_path, google, clock=clock, environ={"KEY": "fake-key"})
    secrets = tmp_path / "secrets"
    for name in ("alice", "bob"):
        write_secret(secrets / f"{name}.json", login_file(f"fake-refresh-{name}"))
    write_secret(secrets / "robot.json", World().add_service_account("robot", project="p"))
    entries = [
        entry("oauth", file("alice.json"), name="alice"),
        entry("oauth", file("bob.json"), name="bob"),
        entry("service-account", file("robot.json"), name="robot"),
        entry("service-account", file("robot.json"), name="robot-too"),
        entry("api-key", SecretRef(env="KEY"), name="key"),
    ]
    return {each.id: registry.build(each, ctx) for each in entries}


async def a_day(tmp_path):
    rng, clock = random.Random(SEED), VirtualClock()
    google = Google(rng)
    keeper = TokenKeeper(clock, lead_s=600.0, rng=rng.random)
    ticker = Ticker(clock, lambda _kind, _seconds: keeper.replan(clock.now()))
    keeper.set_accounts(credentials(tmp_path, google, clock))
    tasks = [asyncio.create_task(keeper.run()), asyncio.create_task(ticker.run())]
    await asyncio.sleep(3 * SLOWEST_S)  # the start: nothing is warm yet
    waited, requests, youngest = 0, 0, LIFE_S
    ends_at = clock.now() + DAY_S
    while clock.now() < ends_at:
        await asyncio.sleep(rng.expovariate(0.5))
        account = rng.choice(ACCOUNTS)
        requests += 1
        if keeper.headers_nowait(account) is None:
            waited += 1
            await keeper.renew(account)
        token = keeper.token_nowait(account, clock.now())
        youngest = min(youngest, token.expires_at - clock.now())
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return {
        "requests": requests,
        "waited": waited,
        "waited_for_token": keeper.counters.waited_for_token,
        "token_calls": len(google.calls),
        "refused_503": google.seen["503"],
        "refused_dead": google.seen["dead"],
        "renewals": keeper.counters.renewals,
        "ahead": keeper.counters.ahead,
        "least_validity_s": round(youngest, 3),
        "living": google.alive,
    }


@pytest.fixture
def memory(tmp_path):
    """A folder whose fsync costs nothing, where the system has one: there are tens of thousands of them."""
    shm = Path("/dev/shm")
    if not shm.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=shm) as name:
        yield Path(name)


def test_a_day_of_short_tokens(memory):
    """No request waits, every renewal but the first is ahead of time, and no more calls than the schedule allows."""
    seen = run_virtual(a_day(memory))
    print(json.dumps({name: value for name, value in seen.items() if name != "living"}))
    assert seen["waited"] == 0
    assert seen["waited_for_token"] == 0
    assert seen["requests"] > 40_000
    assert seen["renewals"] - seen["ahead"] == LOGINS
    assert seen["renewals"] == seen["token_calls"] - seen["refused_503"]
    # Renewed at half-life, at most 5 % of the life earlier; a call itself takes its time, too.
    assert seen["renewals"] <= LOGINS * (DAY_S + 3 * SLOWEST_S) / (HALF_S - JITTER_S) + LOGINS
    assert seen["renewals"] >= LOGINS * DAY_S / (HALF_S + SLOWEST_S + 1.0)
    assert seen["refused_dead"] == 0
    # The login that rotated thousands of times: its file holds the one refresh token that lives.
    kept = read_secret(memory / "secrets" / "bob.json")["refresh_token"]
    assert seen["living"][kept] == "bob"
