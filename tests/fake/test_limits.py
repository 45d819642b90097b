"""Real limits: minutes, days, tokens; what is one bucket; what the refusals say."""

from __future__ import annotations

import pytest
from tests.fake.asking import CA, GL, KEY, VX, Asker, prompt, wrapped

from gemini_poold.fake import SetClock, World, pacific_day_end
from gemini_poold.fake.limits import Limits, Meter


def test_rolling_minute_frees_one_by_one(clock: SetClock) -> None:
    """A request fits again exactly when the oldest of the window has left it."""
    meter = Meter(clock)
    meter.set("p", "*", Limits(rpm=2))
    assert meter.take("p", "m", 1) is None
    clock.advance(20)
    assert meter.take("p", "m", 1) is None
    exceeded = meter.take("p", "m", 1)
    assert exceeded and (exceeded.what, exceeded.wait_s) == ("rpm", pytest.approx(40.0))
    clock.advance(exceeded.wait_s)
    assert meter.take("p", "m", 1) is None
    assert meter.take("p", "m", 1) is not None


def test_fixed_window_frees_all_at_once() -> None:
    """Fixed windows begin at multiples of their length, shifted by their phase."""
    clock = SetClock(1000.0)
    meter = Meter(clock)
    meter.set("p", "*", Limits(rpm=1, window_s=10, fixed=True, phase_s=3))
    assert meter.take("p", "m", 1) is None
    exceeded = meter.take("p", "m", 1)
    assert exceeded and exceeded.resets_at == 1003.0
    clock.set(1003.0)
    assert meter.take("p", "m", 1) is None


def test_tokens_wait_for_enough_to_leave(clock: SetClock) -> None:
    """A token limit says when enough old tokens will have left, and never lets one too large through."""
    meter = Meter(clock)
    meter.set("p", "*", Limits(tpm=100))
    for tokens in (30, 30, 30):
        assert meter.take("p", "m", tokens) is None
        clock.advance(10)
    exceeded = meter.take("p", "m", 50)
    assert exceeded and (exceeded.what, exceeded.wait_s) == ("tpm", pytest.approx(40.0))
    assert meter.take("p", "m", 101) is not None
    assert meter.take("p", "m", 10) is None


def test_last_rule_wins_and_models_count_apart(clock: SetClock) -> None:
    """Later rules override earlier ones; each model of a bucket has its own window."""
    meter = Meter(clock)
    meter.set("*", "*", Limits(rpm=1))
    meter.set("p", "big", Limits())
    assert [meter.take("p", "big", 1) for _ in range(5)] == [None] * 5
    assert meter.take("p", "small", 1) is None
    assert meter.take("p", "small", 1) is not None
    assert meter.take("q", "small", 1) is None


async def test_two_keys_of_a_project_drain_one_bucket(asker: Asker, world: World, clock: SetClock) -> None:
    """Keys a and b share the minute; key c has its own; a refusal carries the right wait and costs nothing."""
    world.limit("*", rpm=2)
    for name in ("a", "b"):
        assert (
            await asker.post(f"{GL}:generateContent", prompt(), {"x-goog-api-key": f"fake-key-key-{name}"})
        ).status == 200
    clock.advance(15)
    refused = await asker.post(f"{GL}:generateContent", prompt(), KEY)
    assert refused.status == 429
    assert refused.detail("RetryInfo")["retryDelay"] == "45.000000000s"
    violation = refused.detail("QuotaFailure")["violations"][0]
    assert violation["quotaId"] == "GenerateRequestsPerMinutePerProjectPerModel-FreeTier"
    assert violation["quotaValue"] == "2"
    assert "Please retry in 45" in refused.error["message"]
    assert (
        refused.detail("ErrorInfo")["metadata"]["consumer"] == f"projects/{world.projects['shared'].number}"
    )
    assert (
        await asker.post(f"{GL}:generateContent", prompt(), {"x-goog-api-key": "fake-key-key-c"})
    ).status == 200
    clock.advance(45)
    assert (await asker.post(f"{GL}:generateContent", prompt(), KEY)).status == 200


async def test_day_lasts_until_pacific_midnight(asker: Asker, world: World, clock: SetClock) -> None:
    """A spent day says PerDay with Google's misleading 44 s by default, and is over at midnight."""
    world.limit("shared", rpd=1)
    ask = lambda: asker.post(f"{GL}:generateContent", prompt(), KEY)  # noqa: E731
    assert (await ask()).status == 200
    refused = await ask()
    assert "PerDay" in refused.detail("QuotaFailure")["violations"][0]["quotaId"]
    assert refused.detail("RetryInfo")["retryDelay"].startswith("44.")
    world.projects["shared"].hints = "honest"
    wait_s = float((await ask()).detail("RetryInfo")["retryDelay"].rstrip("s"))
    assert wait_s == pytest.approx(pacific_day_end(clock.now()) - clock.now())
    clock.advance(44)
    assert (await ask()).status == 429
    clock.set(pacific_day_end(clock.now()))
    assert (await ask()).status == 200


async def test_no_hints_at_all(asker: Asker, world: World, login: dict[str, str]) -> None:
    """A project whose refusals tell nothing says only that a resource is exhausted."""
    world.limit("*", rpm=0)
    for project in world.projects.values():
        project.hints = "none"
    auth = await asker.bearer(login)
    for refused in (
        await asker.post(f"{GL}:generateContent", prompt(), KEY),
        await asker.post(f"{CA}:generateContent", wrapped(), auth),
    ):
        assert (refused.status, refused.error.get("details")) == (429, None)


async def test_no_access_is_limit_zero(asker: Asker, world: World) -> None:
    """A tier without the model answers a limit of 0."""
    world.limit("shared", "gemini-2.5-flash", rpd=0)
    refused = await asker.post(f"{GL}:generateContent", prompt(), KEY)
    assert "limit: 0" in refused.error["message"]
    assert refused.detail("QuotaFailure")["violations"][0]["quotaValue"] == "0"


async def test_code_assist_counts_the_person_and_quota_shows_it(
    asker: Asker, world: World, login: dict[str, str], clock: SetClock
) -> None:
    """Alice's day is told by retrieveUserQuota, and its end by QUOTA_EXHAUSTED with both resets."""
    world.limit("alice", "gemini-2.5-pro", rpd=4)
    auth = await asker.bearer(login)
    for _ in range(3):
        assert (await asker.post(f"{CA}:generateContent", wrapped(), auth)).status == 200
    quota = await asker.post(f"{CA}:retrieveUserQuota", {"project": "alice-project"}, auth)
    bucket = next(each for each in quota.json["buckets"] if each["modelId"] == "gemini-2.5-pro")
    assert (bucket["remainingFraction"], bucket["remainingAmount"]) == (0.25, "1")
    await asker.post(f"{CA}:generateContent", wrapped(), auth)
    refused = await asker.post(f"{CA}:generateContent", wrapped(), auth)
    info = refused.detail("ErrorInfo")
    assert (refused.status, info["reason"]) == (429, "QUOTA_EXHAUSTED")
    assert info["metadata"]["quotaResetTimeStamp"] == bucket["resetTime"]
    assert "h" in info["metadata"]["quotaResetDelay"]


async def test_code_assist_minute(asker: Asker, world: World, login: dict[str, str]) -> None:
    """A short window of Code Assist is RATE_LIMIT_EXCEEDED with a delay in words and in RetryInfo."""
    world.limit("alice", rpm=0)
    refused = await asker.post(f"{CA}:generateContent", wrapped(), await asker.bearer(login))
    assert refused.detail("ErrorInfo")["reason"] == "RATE_LIMIT_EXCEEDED"
    assert refused.detail("RetryInfo")["retryDelay"] == "60.000000000s"


async def test_vertex_counts_project_and_location(asker: Asker, world: World, robot: dict[str, str]) -> None:
    """Vertex's bucket is project and location; by default it gives no hint when to come back."""
    world.limit("vx-project/global", rpm=0)
    token = world.issue(world.service_account("robot"))
    auth = {"Authorization": f"Bearer {token.token}"}
    refused = await asker.post(f"{VX}:generateContent", prompt(), auth)
    assert refused.detail("ErrorInfo")["metadata"]["quota_location"] == "global"
    assert "RetryInfo" not in refused.body.decode()
    assert (
        await asker.post(f"{VX.replace('global', 'us-east5')}:generateContent", prompt(), auth)
    ).status == 200


def test_use_up(clock: SetClock, world: World) -> None:
    """A test may spend a day without asking for it."""
    world.limit("shared", rpd=100)
    world.meter.use_up("shared", "m")
    exceeded = world.meter.take("shared", "m", 1)
    assert exceeded and exceeded.what == "rpd"
