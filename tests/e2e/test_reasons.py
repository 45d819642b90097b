"""Why, who and how much, through the real daemon and the real command: replay, pins, quota, status and top."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes.daemon import DaemonProcess, api_key_account, fake_google

from gemini_pool import Pool
from gemini_pool.errors import PoolError
from gemini_poold.fake import FakeGoogle, World

MODEL = "gemini-2.5-flash"
ACCOUNTS = "\n".join(
    (
        api_key_account("a", lend=True),
        api_key_account("b", priority=2, lend=True),
        api_key_account("c", priority=1, lend=True) + "limits = { rpm = 50, rpd = 200 }\nreserve = 0.1\n",
    )
)


@pytest.fixture
def google() -> Iterator[FakeGoogle]:
    world = World()
    for name in "abc":
        world.add_api_key(name)
    with fake_google(world) as fake:
        yield fake


@pytest.fixture
def daemon(google: FakeGoogle, tmp_path: Path) -> Iterator[DaemonProcess]:
    with DaemonProcess(tmp_path, fake=google, accounts=ACCOUNTS) as process:
        yield process


def run(daemon: DaemonProcess, *args: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "gemini_pool.cli", *args], env=daemon.env, capture_output=True, text=True, timeout=30,
        check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


def verdicts(pool: Pool, **what: str) -> tuple[str | None, dict[str, tuple[str, str, float | None]]]:
    said = pool.explain(**what)
    return said.chosen, {v.account: (v.verdict, v.reason, v.returns_at) for v in said.accounts}


def refuse(pool: Pool, lease: str, delay: str = "40s") -> None:
    body = {
        "error": {
            "code": 429, "status": "RESOURCE_EXHAUSTED", "message": "quota",
            "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}],
        }
    }  # fmt: skip
    report = pool.report(lease, status=429, body=body)
    if report.lease is not None:
        pool.release(report.lease.lease)


def test_a_stored_decision_is_replayed_with_the_same_verdicts(daemon: DaemonProcess) -> None:
    """What explain said before the request is what the replay says after everything has changed; the command prints it."""
    with daemon.pool() as pool:
        refuse(pool, pool.acquire(MODEL, account="b").lease)
        pool.pause("a")
        before = verdicts(pool, model=MODEL)
        assert before[0] == "c"
        assert (before[1]["b"][0], before[1]["a"][0]) == ("cooling", "paused")
        lease = pool.acquire(MODEL)
        assert lease.account == "c"
        pool.release(lease.lease)
        pool.resume("a")
        pool.clear_cooldown()
        pool.pin("a")
        assert verdicts(pool, model=MODEL)[0] == "a"
        assert verdicts(pool, decision=lease.decision) == before
    shown = run(daemon, "explain", MODEL, "--replay", lease.decision)
    assert re.search(rf"{lease.decision}, .* ago: {MODEL}: c \(adaptive\)", shown)
    assert re.search(rf"b: {MODEL} in bucket gl:b rests until \d\d:\d\d \((40|3\d) s\)", shown)
    assert "told by Google, kept to the second" in shown
    said = json.loads(run(daemon, "explain", "--replay", lease.decision, "--json"))
    assert (said["recorded"], said["decision"], said["chosen"]) == (True, lease.decision, "c")
    assert "was about" in run(daemon, "explain", "other", "--replay", lease.decision, code=1)


def test_a_refusal_names_the_decision_that_explains_it(daemon: DaemonProcess) -> None:
    """The details of all_cooling_down lead to everybody's verdict; after a restart the decision is unknown, and nothing else's."""
    with daemon.pool() as pool:
        for name in "abc":
            refuse(pool, pool.acquire(MODEL, account=name).lease)
        with pytest.raises(PoolError) as caught:
            pool.acquire(MODEL, wait_s=0.0)
    assert caught.value.code == "all_cooling_down"
    command = ("explain", MODEL, "--replay", caught.value.details["decision"])
    shown = run(daemon, *command)
    assert "all_cooling_down" in shown
    assert shown.count("cooling") >= 3
    daemon.stop()
    daemon.start()
    assert "is remembered" in run(daemon, *command, code=1)


def test_pins_hold_over_a_restart(daemon: DaemonProcess) -> None:
    """`account pin` and `unpin`, seen in status; a kill -9 behind the answer loses nothing."""
    assert (
        run(daemon, "account", "pin", "a", "--model", "gemini-2.5*")
        == "a: pinned, used before all others for gemini-2.5*\n"
    )
    daemon.kill()
    daemon.start()
    assert "a: pinned, used before all others for gemini-2.5*" in run(daemon, "status")
    with daemon.pool() as pool:
        lease = pool.acquire(MODEL)
        assert (lease.account, lease.reason) == ("a", "pin")
        assert pool.acquire("gemini-3-flash-preview").account == "b"
    run(daemon, "account", "unpin", "a", "--model", "gemini-3*", code=1)
    assert run(daemon, "account", "unpin", "a") == "a: not pinned\n"
    with daemon.pool() as pool:
        assert pool.acquire(MODEL).account == "b"
    assert "there is no account" in run(daemon, "account", "pin", "nobody", code=1)


def test_counters_add_up(daemon: DaemonProcess) -> None:
    """Answered, given back, left by a client that went away, lost in a crash: the sum is what was asked."""
    with daemon.pool() as pool:
        pool.generate(MODEL, "hi")
        pool.release(pool.acquire(MODEL).lease)
        with daemon.pool() as other:
            other.acquire(MODEL)
        with pytest.raises(PoolError):
            pool.acquire(MODEL, account="nobody")
        pool.acquire(MODEL, detach=True)
        pool.acquire(MODEL, detach=True)

        def whole() -> tuple[int, int]:
            s = pool.status()
            c = s.counters
            assert c.requests == c.answered + c.failed + c.cancelled + c.released + c.expired + s.in_flight
            return c.requests, s.in_flight

        assert whole()[0] == 6
        assert whole()[1] >= 2
        pool.generate(MODEL, "later")  # whatever was counted before is on the disk a second after this
    daemon.stop()
    daemon.start()
    with daemon.pool() as pool:
        assert whole() == (7, 2)  # a planned end hands leases on
    daemon.kill()
    daemon.start()
    with daemon.pool() as pool:
        assert whole() == (7, 0)
        assert pool.status().counters.expired == 2


def test_quota_status_and_top_show_our_own_count(daemon: DaemonProcess) -> None:
    """A day's limit that is known is shown with what is used, left and to come; top prints looks, plain and as JSON."""
    with daemon.pool() as pool:
        for _ in range(20):
            pool.release(pool.acquire(MODEL, account="c", detach=True).lease)
            pool.generate(MODEL, "hi", account="c")
    shown = run(daemon, "quota")
    assert re.search(r"gemini-2.5:  ?90 % left over 1 account, 20 used and 180 left; first reset in", shown)
    assert re.search(rf"c +{MODEL} +a day +10 % +90 % +180 of 200 .*config", shown)
    entry = json.loads(run(daemon, "quota", "--json"))["accounts"][0]
    assert (entry["used"], entry["remaining"], entry["source"]) == (20.0, 180.0, "config")
    assert (entry["empty_at"] is None) != (entry["unused_at_reset"] is None)
    status = run(daemon, "status")
    assert "c: 10 % of its quota is kept for requests that ask for it" in status
    assert "gemini-2.5:  90 % left" in status
    assert "\x1b" not in shown + status
    look = json.loads(run(daemon, "top", "--once", "--json"))
    assert [(a["id"], a["served"], a["left"]) for a in look["accounts"]] == [
        ("a", 0, None),
        ("b", 0, None),
        ("c", 20, 0.9),
    ]
    assert look["decisions"][0]["account"] == "c"
    text = run(daemon, "top", "--once")
    assert "0 in flight" in text
    assert look["decisions"][0]["decision"] in text
    limits = json.loads(run(daemon, "explain", MODEL, "--json"))["accounts"]
    (known,) = [a["limits"] for a in limits if a["account"] == "c"]
    assert {k["what"]: (k["limit"], k["used"], k["source"]) for k in known} == {
        "requests/minute": (50, 20, "configured"),
        "requests/day": (200, 20, "configured"),
    }
