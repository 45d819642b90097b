"""Workload identity federation by google-auth in a thread, every call of it over our transport."""

from __future__ import annotations

import asyncio
import sys
import time

import pytest
from tests.credentials.making import entry, file, served, write_secret

from gemini_poold.config import Endpoints, SecretRef
from gemini_poold.credentials import registry
from gemini_poold.credentials.base import CredentialError, Failure
from gemini_poold.credentials.credential_file import rebased
from gemini_poold.fake import Fault, Match, SetClock, World

NAME = "pool.json"


@pytest.fixture
def world():
    world = World()
    world.add_pool("ci", projects=["p"], subject_tokens=["fake-subject"])
    return world


@pytest.fixture
def info(world, tmp_path):
    """A file-sourced credential of the pool, as gcloud writes it; its URLs are Google's."""
    write_secret(tmp_path / "subject", "fake-subject")
    return {
        "type": "external_account",
        "audience": next(iter(world.pools)),
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": "https://sts.googleapis.com/v1/token",
        "credential_source": {"file": str(tmp_path / "subject")},
    }


def make(ctx, tmp_path, info):
    write_secret(tmp_path / "secrets" / NAME, info)
    return registry.build(entry("external", file(NAME)), ctx)


async def failure_of(credential):
    with pytest.raises(CredentialError) as caught:
        await credential.renew(0.0)
    return caught.value


async def test_a_subject_token_becomes_an_access_token(tmp_path, world, info):
    """The exchange goes to the configured sts, and the loop goes on meanwhile."""
    async with served(tmp_path, world) as (fake, ctx):
        credential = make(ctx, tmp_path, info)
        for _ in range(2):
            token = await credential.renew(0.0)
            assert world.tokens[token.value.reveal()].caller.name == "ci"
            assert 3500 < token.expires_at - token.issued_at < 3700
        assert fake.record.count("sts", status=200) == 2


async def test_with_impersonation(tmp_path, world, info):
    """The impersonation URL of the file is led to the configured host, too."""
    email = world.add_service_account("robot", project="p", impersonators=frozenset({"ci"}))["client_email"]
    url = f"https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/{email}:generateAccessToken"
    async with served(tmp_path, world) as (fake, ctx):
        token = await make(ctx, tmp_path, {**info, "service_account_impersonation_url": url}).renew(0.0)
        assert world.tokens[token.value.reveal()].caller.name == "robot"
        assert fake.record.count("impersonate", status=200) == 1


async def test_many_at_once_do_not_block_each_other(tmp_path, world, info):
    """More credentials than threads, a slow sts: all of them come."""
    async with served(tmp_path, world) as (fake, ctx):
        fake.faults.add(Fault.delay(0.05), when=Match(kind="sts"))
        credentials = [make(ctx, tmp_path, info) for _ in range(10)]
        tokens = await asyncio.gather(*(credential.renew(0.0) for credential in credentials))
        assert len({token.value for token in tokens}) == 10


async def test_an_executable(tmp_path, world, info, monkeypatch):
    """Run only where google-auth's own switch allows it."""
    answer = {
        "version": 1,
        "success": True,
        "token_type": info["subject_token_type"],
        "id_token": "fake-subject",
    }
    script = write_secret(tmp_path / "answer.py", f"import json; print(json.dumps({answer!r}))")
    info["credential_source"] = {
        "executable": {"command": f"{sys.executable} {script}", "timeout_millis": 20000}
    }
    async with served(tmp_path, world) as (_, ctx):
        credential = make(ctx, tmp_path, info)
        assert (await failure_of(credential)).failure is Failure.SECRET
        monkeypatch.setenv("GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES", "1")
        await credential.renew(0.0)


@pytest.mark.parametrize(
    ("fault", "failure"),
    [
        (Fault.status(503, body="<html>"), Failure.TRANSIENT),
        (Fault.status(429, body={}, headers={"Retry-After": "9"}), Failure.TRANSIENT),
        (Fault.reset_connection(), Failure.TRANSIENT),
        (Fault.status(400, body={"error": "invalid_grant", "error_description": "no"}), Failure.CONFIG),
        (Fault.status(200, body="<html>"), Failure.TRANSIENT),
    ],
)
async def test_failures_of_sts(tmp_path, world, info, fault, failure):
    """Passing ones pass; a refused identity is configuration, looked at again rarely."""
    async with served(tmp_path, world) as (fake, ctx):
        fake.faults.add(fault, when=Match(kind="sts"))
        error = await failure_of(make(ctx, tmp_path, info))
        assert error.failure is failure
        assert error.retry_after_s == (9 if fault.name == "status 429" else None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"credential_source": {"file": "/nowhere/subject"}}, "/nowhere/subject"),
        ({"credential_source": {"certificate": {}}}, "client certificate"),
        ({"credential_source": None}, "has no credential_source"),
        ({"credential_source": {}}, "cannot be had"),
        ({"type": "gdch_service_account"}, "not supported"),
        ({"type": 7}, "not supported"),
    ],
)
async def test_files_that_do_not_do(tmp_path, world, info, change, words):
    """Named with account and reason."""
    async with served(tmp_path, world) as (_, ctx):
        error = await failure_of(make(ctx, tmp_path, {**info, **change}))
        assert error.failure is Failure.SECRET
        assert words in error.message


async def test_a_workforce_login(tmp_path):
    """The same kind of file may hold a workforce person's refresh token: asked for by our own POST, Basic auth."""
    world = World()
    client = world.add_client()
    login = world.authorized_user(world.add_user("alice"), client, rotates=True)
    info = {
        **login,
        "type": "external_account_authorized_user",
        "token_url": "https://sts.googleapis.com/token",
    }
    async with served(tmp_path, world) as (_, ctx):
        credential = make(ctx, tmp_path, info)
        for _ in range(3):
            token = await credential.renew(0.0)
        assert world.tokens[token.value.reveal()].caller.name == "alice"


def test_rebased():
    """A file's URL keeps its path on the configured host, and stays as it is when nothing was configured."""
    url = "https://sts.googleapis.com/v1/token?x=1"
    assert rebased(url, Endpoints().sts, "sts") == url
    assert rebased(url, "http://127.0.0.1:1/prefix", "sts") == "http://127.0.0.1:1/prefix/v1/token?x=1"


def test_external_needs_a_file():
    """Without a secret the entry is refused where it is written."""
    with pytest.raises(ValueError, match="needs a secret"):
        entry("external", None)
    assert entry("external", SecretRef(env="POOL")).credential.type == "external"


@pytest.mark.parametrize("impersonates", [False, True])
@pytest.mark.parametrize("off_s", [86_400.0, -86_400.0])
async def test_a_wrong_clock_does_not_kill_or_prolong_a_token(tmp_path, world, info, off_s, impersonates):
    """The end of its life is Google's to say, whatever our clock says."""
    world.clock = SetClock(time.time() + off_s)  # the same to us: who is right does not matter
    if impersonates:
        robot = world.add_service_account("robot", project="p", impersonators=frozenset({"ci"}))
        info["service_account_impersonation_url"] = (
            f"https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/{robot['client_email']}:generateAccessToken"
        )
    async with served(tmp_path, world) as (_, ctx):
        token = await make(ctx, tmp_path, info).renew(0.0)
        assert 3590 <= token.expires_at - token.issued_at <= 3600
