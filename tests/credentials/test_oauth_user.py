"""A person's login: rotation is durable before use, whoever changed the file is heard, two processes do one refresh."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace

import pytest
from tests.credentials.making import (
    TokenEndpoint,
    context,
    entry,
    file,
    login_file,
    read_secret,
    served,
    write_secret,
)
from tests.fakes.clock import ManualClock, VirtualClock, run_virtual

from gemini_poold import files
from gemini_poold.accounts.schema import AccountEntry, Credential
from gemini_poold.clock import SystemClock
from gemini_poold.config import Endpoints, SecretRef
from gemini_poold.core.model import Backend
from gemini_poold.credentials import registry
from gemini_poold.credentials.base import CredentialError, Failure
from gemini_poold.errors import UpstreamFailure
from gemini_poold.fake import Fault, Match, World

NAME = "work.json"


@pytest.fixture
def path(tmp_path):
    return write_secret(tmp_path / "secrets" / NAME, login_file())


def make(ctx, **more):
    return registry.build(entry("oauth", file(NAME), **more), ctx)


async def failure_of(credential):
    with pytest.raises(CredentialError) as caught:
        await credential.renew(0.0)
    return caught.value


async def test_first_token(tmp_path, path):
    """The grant as Google wants it, the token with its life, the header that carries it."""
    google, clock = TokenEndpoint(), ManualClock(1000.0)
    login = make(context(tmp_path, google, clock=clock))
    token = await login.renew(1000.0)
    assert google.calls == [
        {"client_id": "fake-client", "client_secret": "fake-client-secret", "refresh_token": "fake-refresh-0", "grant_type": "refresh_token"}
    ]  # fmt: skip
    assert (token.issued_at, token.expires_at) == (1000.0, 4599.0)
    assert login.headers(token) == {"Authorization": "Bearer fake-access-1"}
    assert login.warm_nowait() is None
    assert login.client


async def test_configured_scopes_and_a_rapt_are_sent(tmp_path):
    """Only scopes that the user named are asked for."""
    write_secret(tmp_path / "secrets" / NAME, login_file(rapt_token="fake-rapt"))
    google = TokenEndpoint()
    await make(context(tmp_path, google), scopes=("a", "b")).renew(0.0)
    assert (google.calls[0]["scope"], google.calls[0]["rapt"]) == ("a b", "fake-rapt")


@pytest.mark.parametrize(
    ("endpoints", "in_file", "called"),
    [
        (Endpoints(oauth_token="http://given/token"), "http://theirs/token", "http://given/token"),
        (Endpoints(), "http://theirs/token", "http://theirs/token"),
        (Endpoints(), None, "https://oauth2.googleapis.com/token"),
    ],
)
async def test_where_the_token_is_asked_for(tmp_path, endpoints, in_file, called):
    """The configured endpoint wins over the file's, the file's over Google's."""
    write_secret(tmp_path / "secrets" / NAME, login_file(**({"token_uri": in_file} if in_file else {})))
    google = TokenEndpoint()
    await make(context(tmp_path, google, endpoints=endpoints)).renew(0.0)
    assert google.urls == [called]


async def test_a_rotated_refresh_token_is_on_the_disk_before_the_token_is_out(tmp_path, path):
    """When renew returns, the file holds the new refresh token and every field that we do not know; the old content
    is beside it."""
    write_secret(path, login_file(account="a@example.com", custom={"kept": [1, 2]}))
    google = TokenEndpoint()
    google.answer = google.rotating
    login = make(context(tmp_path, google))
    await login.renew(0.0)
    assert read_secret(path) == login_file("fake-refresh-1", account="a@example.com", custom={"kept": [1, 2]})
    assert read_secret(path.with_name(f"{NAME}.1"))["refresh_token"] == "fake-refresh-0"
    await login.renew(0.0)
    assert [call["refresh_token"] for call in google.calls] == ["fake-refresh-0", "fake-refresh-1"]


async def test_an_unrotated_login_leaves_the_file_alone(tmp_path, path):
    """Nothing to save, nothing written."""
    before = path.stat()
    await make(context(tmp_path, TokenEndpoint())).renew(0.0)
    after = path.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


async def test_a_disk_that_refuses(tmp_path, path, monkeypatch):
    """The rotated token is held and no access token leaves; once the disk takes it, it is written before Google is
    asked again, even by a credential that a reload made anew."""
    google = TokenEndpoint()
    google.answer = google.rotating
    ctx = context(tmp_path, google)
    write = files.atomic_write

    def full(*_args, **_more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "atomic_write", full)
    error = await failure_of(make(ctx))
    assert error.failure is Failure.TRANSIENT
    assert "No space left" in error.message
    await failure_of(make(ctx))
    assert len(google.calls) == 1  # the second try asked the disk, not Google
    monkeypatch.setattr(files, "atomic_write", write)
    token = await make(replace(ctx, lead_s=300.0)).renew(0.0)
    assert read_secret(path)["refresh_token"] == "fake-refresh-1"
    assert token.value.reveal() == "fake-access-1"
    assert len(google.calls) == 1


async def test_a_login_in_a_variable_rotates_in_memory_and_says_so(tmp_path):
    """It cannot be written back: the rotated one is used as long as the process lives, and a warning tells."""
    google = TokenEndpoint()
    google.answer = google.rotating
    ctx = context(tmp_path, google, environ={"LOGIN": json.dumps(login_file())})
    for _ in range(3):  # made anew each time, as by reloads
        login = registry.build(entry("oauth", SecretRef(env="LOGIN")), ctx)
        await login.renew(0.0)
        assert "LOGIN" in login.warning
        assert "gemini-pool login work" in login.warning
    assert [call["refresh_token"] for call in google.calls] == [
        "fake-refresh-0",
        "fake-refresh-1",
        "fake-refresh-2",
    ]


async def test_a_new_login_in_the_file_is_used(tmp_path, path):
    """Each renewal reads the file again."""
    google = TokenEndpoint()
    login = make(context(tmp_path, google))
    await login.renew(0.0)
    write_secret(path, login_file("fake-refresh-new"))
    await login.renew(0.0)
    assert google.calls[-1]["refresh_token"] == "fake-refresh-new"


async def test_a_login_that_came_while_google_answered_is_not_overwritten(tmp_path, path):
    """The file that changed meanwhile is the newer word: it stays, and its token is what comes out."""
    google = TokenEndpoint()

    def answer(form):
        if form["refresh_token"] == "fake-refresh-0":
            write_secret(path, login_file("fake-refresh-new"))
            return google.rotating(form)
        return google.token(form)

    google.answer = answer
    token = await make(context(tmp_path, google)).renew(0.0)
    assert read_secret(path)["refresh_token"] == "fake-refresh-new"
    assert google.calls[-1]["refresh_token"] == "fake-refresh-new"
    assert token.value.reveal() == "fake-access-2"


@pytest.mark.parametrize(
    ("content", "words", "hint"),
    [
        ("{", "not a JSON credential file", ""),
        ("[]", "not a JSON credential file", ""),
        (
            {"installed": {"client_id": "x"}},
            "an OAuth client, not a login",
            "gemini-pool login work --client-secrets FILE",
        ),
        ({"type": "service_account"}, "of type 'service_account'", "credential.type"),
        (login_file(""), "has no refresh_token", ""),
        ({"client_id": "x", "client_secret": "y"}, "has no refresh_token", ""),
    ],
)
async def test_a_file_that_holds_no_login(tmp_path, content, words, hint):
    """Named with its account, place and remedy; never overwritten, never sent anywhere."""
    path = write_secret(tmp_path / "secrets" / NAME, content)
    before, google = path.read_bytes(), TokenEndpoint()
    error = await failure_of(make(context(tmp_path, google)))
    assert error.failure is Failure.SECRET
    assert words in error.message
    assert str(path) in error.message
    assert hint in error.hint
    assert path.read_bytes() == before
    assert google.calls == []


async def test_a_missing_login_asks_for_one(tmp_path):
    """The hint is the login command."""
    error = await failure_of(make(context(tmp_path, TokenEndpoint())))
    assert (error.failure, error.hint) == (Failure.SECRET, "gemini-pool login work")


async def test_the_refresh_token_is_not_in_an_error(tmp_path, path):
    """Not even when the endpoint echoes it."""
    google = TokenEndpoint(
        lambda form: (400, {"error": "invalid_grant", "error_description": f"bad {form['refresh_token']}"})
    )
    assert "fake-refresh-0" not in str(await failure_of(make(context(tmp_path, google))))


async def test_a_network_failure_passes_by(tmp_path, path):
    """Whatever keeps us from the endpoint is transient."""

    def down(_form):
        raise UpstreamFailure("token.example: cannot connect", kind="refused", sent=False)

    error = await failure_of(make(context(tmp_path, TokenEndpoint(down))))
    assert (error.failure, error.retryable) == (Failure.TRANSIENT, True)
    assert "cannot connect" in error.message


def test_a_cancelled_caller_does_not_lose_the_rotated_token(tmp_path):
    """Cancelled while Google answers: the answer is still saved."""
    path = write_secret(tmp_path / "secrets" / NAME, login_file())

    async def main():
        google = TokenEndpoint(latency_s=lambda: 2.0)
        google.answer = google.rotating
        login = make(context(tmp_path, google, clock=VirtualClock()))
        task = asyncio.create_task(login.renew(0.0))
        await asyncio.sleep(1.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_virtual(main())
    assert read_secret(path)["refresh_token"] == "fake-refresh-1"


async def test_a_second_process_takes_the_first_ones_token(tmp_path, path):
    """A token that was got a moment ago by somebody else is used; one that is due, refused or of another login is not."""
    google, clock = TokenEndpoint(), ManualClock()

    def process(**more):
        return make(context(tmp_path, google, clock=clock, **more))

    first, second = process(), process()
    token = await first.renew(0.0)
    assert await second.renew(0.0) == token
    assert len(google.calls) == 1
    assert await second.renew(0.0) != token  # it had that one already: due or refused
    assert len(google.calls) == 2
    clock.advance(3000)
    await process().renew(0.0)
    assert len(google.calls) == 3
    write_secret(path, login_file("fake-refresh-new"))
    await process().renew(0.0)
    assert len(google.calls) == 4
    await process(share_tokens=False).renew(0.0)
    assert len(google.calls) == 5
    clock.step(-86400)
    await process().renew(0.0)
    assert len(google.calls) == 6


async def test_shared_tokens_are_private(tmp_path, path):
    """They lie in our own folder, 0700, in files of 0600; an unreadable one is passed over."""
    google = TokenEndpoint()
    await make(context(tmp_path, google)).renew(0.0)
    folder = tmp_path / "tokens"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {item.stat().st_mode & 0o777 for item in folder.iterdir()} == {0o600}
    next(folder.glob("*.json")).write_bytes(b"{")
    await make(context(tmp_path, google)).renew(0.0)
    assert len(google.calls) == 2


def test_one_refresh_at_a_time(tmp_path):
    """Two processes (two locks) ask at once: one call, whose token both use; never two with one refresh token."""
    write_secret(tmp_path / "secrets" / NAME, login_file())

    async def main():
        google = TokenEndpoint(latency_s=lambda: 1.5)
        google.answer = google.rotating
        clock = VirtualClock()
        logins = [make(context(tmp_path, google, clock=clock)) for _ in range(8)]
        tokens = await asyncio.gather(*(login.renew(0.0) for login in logins))
        assert len({token.value for token in tokens}) == 1
        assert (len(google.calls), google.most_under_way) == (1, 1)

    run_virtual(main())


def test_a_hung_holder_is_not_waited_for_for_ever(tmp_path):
    """The lock has a time limit, and the error names it."""
    write_secret(tmp_path / "secrets" / NAME, login_file())

    async def main():
        clock, google = VirtualClock(), TokenEndpoint(latency_s=lambda: 3600.0)
        first, second = (make(context(tmp_path, google, clock=clock)) for _ in range(2))
        holder = asyncio.create_task(first.renew(0.0))
        await asyncio.sleep(1)
        error = await failure_of(second)
        holder.cancel()
        await asyncio.gather(holder, return_exceptions=True)
        return error, len(google.calls)

    error, calls = run_virtual(main())
    assert (error.failure, calls) == (Failure.TRANSIENT, 1)
    assert "another process" in error.message


# ---- over real HTTP -----------------------------------------------------------------------------------------------


def world_with(**settings):
    world = World()
    alice = world.add_user("alice", projects=["p"])
    return world, world.authorized_user(alice, world.add_client(), **settings)


async def test_over_http_rotation_survives_ten_renewals(tmp_path):
    """Each renewal ends the refresh token before it; the file always holds the living one."""
    world, login = world_with(rotates=True)
    path = write_secret(tmp_path / "secrets" / NAME, login)
    async with served(tmp_path, world) as (fake, ctx):
        credential = make(ctx)
        for _ in range(10):
            token = await credential.renew(0.0)
            assert world.tokens[token.value.reveal()].caller.name == "alice"
            assert world.grants[read_secret(path)["refresh_token"]].trouble == ""
        assert fake.record.count("token", status=200) == 10


@pytest.mark.parametrize(
    ("trouble", "failure"),
    [
        ("revoked", Failure.LOGIN),
        ("bad_request", Failure.LOGIN),
        ("deleted", Failure.DEAD),
        ("rapt", Failure.REAUTH),
        ("rapt_required", Failure.REAUTH),
        ("policy", Failure.POLICY),
    ],
)
async def test_over_http_dead_logins(tmp_path, trouble, failure):
    """What the fake's token endpoint answers for each way of a login's death."""
    world, login = world_with(trouble=trouble)
    write_secret(tmp_path / "secrets" / NAME, login)
    async with served(tmp_path, world) as (_, ctx):
        assert (await failure_of(make(ctx))).failure is failure


async def test_over_http_wrong_clients(tmp_path):
    """An unknown client is everybody's problem, another's login is this account's."""
    world, login = world_with()
    other = world.add_client("other")
    async with served(tmp_path, world) as (_, ctx):
        write_secret(tmp_path / "secrets" / NAME, {**login, "client_id": "fake-unknown"})
        assert (await failure_of(make(ctx))).failure is Failure.CLIENT
        write_secret(
            tmp_path / "secrets" / NAME, {**login, "client_id": other.id, "client_secret": other.secret}
        )
        assert (await failure_of(make(ctx))).failure is Failure.LOGIN


@pytest.mark.parametrize(
    "fault",
    [
        Fault.status(503, body="<html>Sorry</html>"),
        Fault.status(200, body="<html>log in to the wifi</html>"),
        Fault.status(429, body={"error": "rate_limit"}, headers={"Retry-After": "7"}),
        Fault.reset_connection(),
    ],
)
async def test_over_http_passing_failures(tmp_path, fault):
    """An endpoint that is ill, hijacked or gone is tried again, and the login is none the worse."""
    world, login = world_with(rotates=True)
    path = write_secret(tmp_path / "secrets" / NAME, login)
    async with served(tmp_path, world) as (fake, ctx):
        fake.faults.add(fault, when=Match(kind="token"), times=1)
        credential = make(ctx)
        error = await failure_of(credential)
        assert error.failure is Failure.TRANSIENT
        assert error.retry_after_s == (7 if fault.name == "status 429" else None)
        await credential.renew(0.0)
        assert read_secret(path)["refresh_token"] != login["refresh_token"]


# ---- what a login's age tells ---------------------------------------------------------------------------------------

DAY = 86400.0


@pytest.mark.parametrize(
    ("age_s", "trouble", "likely"),
    [
        (7 * DAY - 3500, "revoked", True),
        (7 * DAY + 3500, "revoked", True),
        (7 * DAY - 3700, "revoked", False),
        (7 * DAY + 3700, "revoked", False),
        (30 * DAY, "revoked", False),
        (7 * DAY, "deleted", False),
        (7 * DAY, "rapt", False),
    ],
)
@pytest.mark.parametrize("told", [True, False])
async def test_a_login_that_dies_after_a_week(tmp_path, age_s, trouble, likely, told):
    """Google ends logins of an app in testing after 7 days: said as the likely reason, from what the file says about
    its age, else from its time stamp."""
    world, login = world_with(trouble=trouble)
    clock = SystemClock()
    at = clock.now() - age_s
    path = write_secret(tmp_path / "secrets" / NAME, login | ({"logged_in_at": at} if told else {}))
    if not told:
        os.utime(path, (at, at))
    async with served(tmp_path, world) as (_, ctx):
        error = await failure_of(make(ctx))
    assert ("consent screen" in error.message) is likely
    assert ("publish" in error.hint) is likely
    if likely:
        assert error.failure is Failure.LOGIN
        assert "gemini-pool login work" in error.hint


# ---- who is billed --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backend", "project", "told"),
    [
        (Backend.VERTEX, "p", "billed"),
        (Backend.DEVELOPER_API, "", "billed"),
        (Backend.DEVELOPER_API, "p", None),
        (Backend.CODE_ASSIST, "", None),
    ],
)
async def test_a_files_quota_project(tmp_path, backend, project, told):
    """Told with each request where that names who pays; not where the account says it, nor to Code Assist."""
    write_secret(tmp_path / "secrets" / NAME, login_file(quota_project_id="billed"))
    credential = Credential(type="oauth", secret=file(NAME))
    account = AccountEntry(id="work", backend=backend, credential=credential, project=project)
    login = registry.build(account, context(tmp_path, TokenEndpoint()))
    assert login.headers(await login.renew(0.0)).get("x-goog-user-project") == told


async def test_a_rotated_login_keeps_its_digest(tmp_path, path):
    """What names the secret follows our own writing, and is the same for who reads it anew."""
    google = TokenEndpoint()
    google.answer = google.rotating
    ctx = context(tmp_path, google)
    login = make(ctx)
    await login.renew(0.0)
    assert login.digest == await make(ctx).look() != ""
