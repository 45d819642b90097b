"""Service accounts: signed by google-auth, exchanged over our transport, each way to fail told apart."""

from __future__ import annotations

from dataclasses import replace

import pytest
from google.auth import jwt
from tests.credentials.making import TokenEndpoint, context, entry, file, served, write_secret
from tests.fakes.clock import ManualClock

from gemini_poold.accounts.schema import AccountEntry, Credential
from gemini_poold.config import Endpoints
from gemini_poold.core.model import Backend
from gemini_poold.credentials import registry
from gemini_poold.credentials.base import CLOUD_PLATFORM, RETRIEVER, CredentialError, Failure
from gemini_poold.fake import Fault, Match, World
from gemini_poold.fake.signing import verify

NAME = "robot.json"


def make(ctx, **more):
    return registry.build(entry("service-account", file(NAME), **more), ctx)


async def failure_of(credential):
    with pytest.raises(CredentialError) as caught:
        await credential.renew(0.0)
    return caught.value


@pytest.fixture
def world():
    return World()


@pytest.fixture
def robot(world, tmp_path):
    info = world.add_service_account("robot", project="vx-project")
    write_secret(tmp_path / "secrets" / NAME, info)
    return info


async def test_over_http_a_token(tmp_path, world, robot):
    """The signature holds, the token is the service account's, its life counts from the request."""
    async with served(tmp_path, world) as (_, ctx):
        credential = make(ctx)
        for _ in range(2):
            token = await credential.renew(0.0)
            issued = world.tokens[token.value.reveal()]
            assert issued.caller.name == "robot"
            assert issued.scope == CLOUD_PLATFORM
            assert token.expires_at - token.issued_at == round(world.token_life_s)


@pytest.mark.parametrize(
    ("backend", "scopes", "asked"),
    [
        (Backend.VERTEX, (), CLOUD_PLATFORM),
        (Backend.DEVELOPER_API, (), f"{CLOUD_PLATFORM} {RETRIEVER}"),
        (Backend.VERTEX, ("a", "b"), "a b"),
    ],
)
async def test_scopes(tmp_path, world, robot, backend, scopes, asked):
    """The backend's own scopes, unless the user names others."""
    async with served(tmp_path, world) as (_, ctx):
        token = await make(ctx, backend=backend, scopes=scopes).renew(0.0)
        assert world.tokens[token.value.reveal()].scope == asked


async def test_the_files_token_uri_unless_configured(tmp_path, world, robot):
    """As for logins: the user's [endpoints] win over the file."""
    google = TokenEndpoint()
    await make(context(tmp_path, google, endpoints=Endpoints())).renew(0.0)
    await make(context(tmp_path, google)).renew(0.0)
    assert google.urls == [robot["token_uri"], "http://token.example/token"]


@pytest.mark.parametrize(("state", "failure"), [("disabled", Failure.DEAD), ("deleted", Failure.DEAD)])
async def test_over_http_a_dead_account(tmp_path, world, robot, state, failure):
    """Google does not know it any more: dead, not a login to repeat."""
    world.service_account("robot").state = state
    async with served(tmp_path, world) as (_, ctx):
        error = await failure_of(make(ctx))
        assert error.failure is failure
        assert "gemini-pool login" not in error.hint


async def test_over_http_a_replaced_key(tmp_path, world, robot):
    """A new key file works without a restart; the old key is dead."""
    old = world.service_account("robot")
    async with served(tmp_path, world) as (_, ctx):
        credential = make(ctx)
        await credential.renew(0.0)
        new = World().add_service_account("robot", project="vx-project")
        write_secret(tmp_path / "secrets" / NAME, {**new, "token_uri": robot["token_uri"]})
        assert (await failure_of(credential)).failure is Failure.DEAD
        write_secret(tmp_path / "secrets" / NAME, {**robot, "private_key": old.key.pem})
        await credential.renew(0.0)


@pytest.mark.parametrize("off_s", [86_400.0, -86_400.0])
async def test_over_http_a_wrong_clock(tmp_path, robot, world, off_s):
    """A clock that is a day off is found out by Google's answer, told, and does not stop the account; once it is set
    right, the next renewal is as ever."""
    ours = ManualClock(world.clock.now() + off_s)
    async with served(tmp_path, world) as (google, ctx):
        login = make(replace(ctx, clock=ours))
        token = await login.renew(0.0)
        assert token.issued_at == ours.now()
        assert google.record.count("token") == 2
        assert ("slow" if off_s < 0 else "fast") in login.warning
        await login.renew(0.0)
        assert google.record.count("token") == 3
        ours.step(-off_s)
        await login.renew(0.0)
        assert (google.record.count("token"), login.warning) == (5, "")


async def test_a_wrong_clock_that_nobody_corrects(tmp_path, robot):
    """Without Google's time in the answer it is told as such, and passes by."""
    google = TokenEndpoint()
    text = "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe."
    google.answer = lambda form: (400, {"error": "invalid_grant", "error_description": text})
    error = await failure_of(make(context(tmp_path, google)))
    assert error.failure is Failure.TRANSIENT
    assert "clock" in error.message
    assert len(google.calls) == 1


async def test_over_http_an_ill_endpoint(tmp_path, world, robot):
    """503 with HTML passes by."""
    async with served(tmp_path, world) as (fake, ctx):
        fake.faults.add(Fault.status(503, body="<html>"), when=Match(kind="token"), times=1)
        credential = make(ctx)
        assert (await failure_of(credential)).failure is Failure.TRANSIENT
        await credential.renew(0.0)


LABEL = "PRIVATE KEY"  # put in by name: no shape of a key stands in the tree whole


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"private_key": f"-----BEGIN {LABEL}-----\nfake-key-material\n"}, "no RSA key"),
        ({"private_key": ""}, "has no private_key"),
        ({"client_email": None}, "has no client_email"),
        ({"type": "authorized_user"}, "of type 'authorized_user'"),
    ],
)
async def test_a_file_that_is_not_whole(tmp_path, robot, change, words):
    """Named with its place; the key's text is in no error."""
    write_secret(tmp_path / "secrets" / NAME, {**robot, **change})
    error = await failure_of(make(context(tmp_path, TokenEndpoint())))
    assert error.failure is Failure.SECRET
    assert words in error.message
    assert "fake-key-material" not in str(error)
    assert error.__cause__ is None


# ---- tokens that it signs itself ------------------------------------------------------------------------------------


def self_signed(ctx, **more):
    credential = Credential(type="service-account", secret=file("robot.json"), self_signed=True)
    given = {"backend": Backend.VERTEX, "project": "p", **more}
    return registry.build(AccountEntry(id="robot", credential=credential, **given), ctx)


@pytest.mark.parametrize(
    ("backend", "audience"),
    [
        (Backend.VERTEX, "https://aiplatform.googleapis.com/"),
        (Backend.DEVELOPER_API, "https://generativelanguage.googleapis.com/"),
    ],
)
async def test_a_self_signed_token_asks_nobody(tmp_path, robot, world, backend, audience):
    """Signed for the API's host, as google-auth signs it, and good for an hour."""
    google, clock = TokenEndpoint(), ManualClock(1_795_000_000.0)
    login = self_signed(context(tmp_path, google, clock=clock, endpoints=Endpoints()), backend=backend)
    token = await login.renew(0.0)
    assert google.calls == []
    assert token.expires_at - token.issued_at == 3600
    email = robot["client_email"]
    claims = verify(token.value.reveal(), world.service_accounts[email].key.public, clock.now())
    assert (claims["iss"], claims["sub"], claims["aud"]) == (email, email, audience)
    theirs = jwt.Credentials.from_service_account_info(robot, audience=audience)
    theirs.refresh(None)
    assert set(jwt.decode(theirs.token, verify=False)) >= {"iss", "sub", "aud", "iat", "exp"} == set(claims)


async def test_over_http_a_self_signed_token_serves(tmp_path, world, robot):
    """The API takes it, and the token endpoint hears nothing."""
    async with served(tmp_path, world) as (google, ctx):
        login = self_signed(replace(ctx, endpoints=Endpoints()), project="vx-project")
        token = await login.renew(0.0)
        url = (
            f"{google.url}/v1/projects/vx-project/locations/global/publishers/google/models/gemini-2.5-flash"
        )
        body = b'{"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}'
        headers = {"Content-Type": "application/json", **login.headers(token)}
        reply = await ctx.transport.fetch("POST", f"{url}:generateContent", headers=headers, body=body)
        assert reply.status == 200, reply.body
        assert google.record.count("token") == 0


async def test_who_set_a_token_endpoint_is_asked_there(tmp_path, world, robot):
    """The option gives way to `[endpoints] oauth_token`."""
    google = TokenEndpoint()
    assert (await self_signed(context(tmp_path, google)).renew(0.0)).value.reveal() == "fake-access-1"


def test_both_ways_are_two_logins(tmp_path, robot):
    """Their tokens are good for different things, so they are not shared."""
    ctx = context(tmp_path, TokenEndpoint())
    assert self_signed(ctx).identity != make(ctx).identity


@pytest.mark.parametrize(("backend", "project", "told"), [("vertex", "p", "billed"), ("developer-api", "", "billed"), ("developer-api", "p", None)])  # fmt: skip
async def test_who_is_billed(tmp_path, robot, backend, project, told):
    """A key file's quota project is told with each request, unless the account names a project for that itself."""
    write_secret(tmp_path / "secrets" / "robot.json", {**robot, "quota_project_id": "billed"})
    credential = Credential(type="service-account", secret=file("robot.json"))
    account = AccountEntry(id="robot", backend=Backend(backend), credential=credential, project=project)
    login = registry.build(account, context(tmp_path, TokenEndpoint()))
    assert login.headers(await login.renew(0.0)).get("x-goog-user-project") == told
