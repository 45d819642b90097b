"""Impersonation over any other credential of ours."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.credentials.making import entry, file, read_secret, served, write_secret
from tests.fakes.clock import ManualClock

from gemini_poold.credentials import registry
from gemini_poold.credentials.base import CredentialError, Failure
from gemini_poold.credentials.impersonated import _instant
from gemini_poold.fake import Fault, Match, World

NAME = "source.json"


@pytest.fixture
def world():
    world = World()
    world.add_user("alice", projects=["p"])
    world.add_client()
    world.add_service_account("robot", project="p", impersonators=frozenset({"alice", "boss"}))
    return world


def target(world):
    return world.service_account("robot").email


def login(world, **settings):
    return world.authorized_user(world.users["alice"], next(iter(world.clients.values())), **settings)


def make(ctx, tmp_path, world, source):
    write_secret(tmp_path / "secrets" / NAME, source)
    return registry.build(entry("impersonated", file(NAME), target=target(world)), ctx)


async def failure_of(credential):
    with pytest.raises(CredentialError) as caught:
        await credential.renew(0.0)
    return caught.value


async def test_from_a_login(tmp_path, world):
    """A person's token buys the service account's; the person's own is bought once, and kept when it rotates."""
    async with served(tmp_path, world) as (fake, ctx):
        credential = make(ctx, tmp_path, world, login(world, rotates=True))
        for _ in range(2):
            token = await credential.renew(0.0)
            assert world.tokens[token.value.reveal()].caller.name == "robot"
            assert 3500 < token.expires_at - token.issued_at < 3700
        assert (fake.record.count("token"), fake.record.count("impersonate")) == (1, 2)
        assert world.grants[read_secret(tmp_path / "secrets" / NAME)["refresh_token"]].trouble == ""
        assert credential.client


async def test_from_a_service_account(tmp_path, world):
    """Any kind of file may be the source."""
    boss = world.add_service_account("boss", project="p")
    async with served(tmp_path, world) as (_, ctx):
        token = await make(ctx, tmp_path, world, boss).renew(0.0)
        assert world.tokens[token.value.reveal()].caller.name == "robot"


async def test_from_gclouds_own_file(tmp_path, world):
    """An `impersonated_service_account` file holds its source inside, and names a target of its own; the entry's wins."""
    info = {
        "type": "impersonated_service_account",
        "service_account_impersonation_url": "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/other@p:generateAccessToken",
        "source_credentials": login(world),
        "delegates": [],
    }
    async with served(tmp_path, world) as (fake, ctx):
        await make(ctx, tmp_path, world, info).renew(0.0)
        assert target(world) in fake.record.last("impersonate").path


async def test_the_sources_token_died_early(tmp_path, world):
    """A 401 renews the source once and repeats once."""
    async with served(tmp_path, world) as (fake, ctx):
        credential = make(ctx, tmp_path, world, login(world))
        await credential.renew(0.0)
        world.expire_tokens("alice")
        await credential.renew(0.0)
        assert fake.record.count("token") == 2
        assert fake.record.count("impersonate", status=401) == 1


@pytest.mark.parametrize(
    ("fault", "failure"),
    [
        (Fault.status(503, body="<html>"), Failure.TRANSIENT),
        (Fault.status(429, body={}, headers={"Retry-After": "4"}), Failure.TRANSIENT),
        (Fault.status(200, body="<html>"), Failure.TRANSIENT),
        (Fault.status(404, body={"error": {"code": 404, "status": "NOT_FOUND"}}), Failure.CONFIG),
        (Fault.reset_connection(), Failure.TRANSIENT),
    ],
)
async def test_failures(tmp_path, world, fault, failure):
    """Passing ones pass, a wrong target is configuration."""
    async with served(tmp_path, world) as (fake, ctx):
        fake.faults.add(fault, when=Match(kind="impersonate"))
        error = await failure_of(make(ctx, tmp_path, world, login(world)))
        assert error.failure is failure


async def test_a_missing_role_names_it(tmp_path, world):
    """403: the role to grant is the hint; it may be granted without us, so it is looked at again."""
    world.service_account("robot").impersonators = frozenset()
    async with served(tmp_path, world) as (_, ctx):
        error = await failure_of(make(ctx, tmp_path, world, login(world)))
        assert error.failure is Failure.CONFIG
        assert "roles/iam.serviceAccountTokenCreator" in error.hint


async def test_a_dead_source_is_told_as_such(tmp_path, world):
    """The source's own failure comes through unchanged."""
    async with served(tmp_path, world) as (_, ctx):
        error = await failure_of(make(ctx, tmp_path, world, login(world, trouble="revoked")))
        assert (error.failure, error.hint) == (Failure.LOGIN, "gemini-pool login work")


@pytest.mark.parametrize("inner", [None, {"type": "gdch_service_account"}])
async def test_a_file_that_is_not_whole(tmp_path, world, inner):
    """Neither a missing source nor one of an unknown type is guessed at."""
    url = f"https://x/v1/projects/-/serviceAccounts/{target(world)}:generateAccessToken"
    info = {
        "type": "impersonated_service_account",
        "service_account_impersonation_url": url,
        "source_credentials": inner,
    }
    async with served(tmp_path, world) as (_, ctx):
        assert (await failure_of(make(ctx, tmp_path, world, info))).failure is Failure.SECRET


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("1970-01-01T00:01:00Z", 60.0),
        ("1970-01-01T00:00:01.5Z", 1.5),
        ("1970-01-01T00:00:00.123456789Z", 0.123456789),
    ],
)
def test_googles_instants(text, instant):
    """RFC 3339 with up to nine digits of a fraction."""
    assert _instant(text) == pytest.approx(instant)


@pytest.mark.parametrize("off_s", [86_400.0, -86_400.0])
async def test_a_wrong_clock_does_not_kill_or_prolong_a_token(tmp_path, world, off_s):
    """The end of its life is an instant of Google's clock, whatever ours says."""
    clock = ManualClock(world.clock.now() + off_s)
    async with served(tmp_path, world) as (_, ctx):
        token = await make(replace(ctx, clock=clock), tmp_path, world, login(world)).renew(0.0)
        assert 3595 <= token.expires_at - clock.now() <= 3600
