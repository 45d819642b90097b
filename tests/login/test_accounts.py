"""Adding, removing, switching and verifying accounts: the file, the pool and Google, all real but Google."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import msgspec
import pytest
from tests.login.rig import Desk, desk_of, secrets_of

from gemini_pool import wire
from gemini_poold.core.model import Account, AccountState, DiscoveryRow, Outcome
from gemini_poold.errors import PoolError
from gemini_poold.fake import CodeAssist, Fault, Match, World

KEY = 'credential = { type = "api-key", secret = { env = "KEY" } }\n'
ONE = f'# the key\n[[account]]\nid = "key"\nbackend = "developer-api"\n{KEY}'


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    world = World()
    world.add_user("ann", projects=["shop"])
    world.add_api_key("key")
    async with desk_of(tmp_path, world, environ={"KEY": "fake-key-key"}) as desk:
        yield desk


async def add(desk: Desk, account: str = "new", **more: object) -> wire.VerifyRow:
    return await desk.accounts.add(wire.AccountAddParams(account, **({"backend": "developer-api"} | more)))  # type: ignore[arg-type]


async def verify(desk: Desk, *accounts: str) -> dict[str, wire.VerifyRow]:
    result = await desk.accounts.verify(wire.VerifyParams(accounts))
    return {row.verdict.account: row for row in result.accounts}


# ---- add ---------------------------------------------------------------------------------------------------------


async def test_add_a_key_by_its_text(desk: Desk) -> None:
    """A key that comes along is kept in a private file; the account is tried at once."""
    row = await add(desk, secret_text=" fake-key-key\n", settings={"priority": 3, "models": ["gemini-*"]})
    assert (row.verdict.ok, row.verdict.state, row.call) == (True, "ready", "models.list")
    path = desk.state_dir / "secrets" / "new.key"
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("fake-key-key\n", 0o600)
    assert desk.text == (
        '[[account]]\nid = "new"\nbackend = "developer-api"\n'
        'credential = { type = "api-key", secret = { file = "secrets/new.key" } }\n'
        'priority = 3\nmodels = ["gemini-*"]\n'
    )


async def test_add_by_reference(desk: Desk) -> None:
    """A secret that lies somewhere already is only named."""
    row = await add(desk, secret={"env": "KEY"})
    assert row.verdict.ok
    assert not (desk.state_dir / "secrets").exists()


async def test_add_a_service_account(desk: Desk) -> None:
    """Google's own key file comes along as text; Vertex is asked to count a word."""
    robot = desk.fake.world.add_service_account("robot", project="shop")
    row = await add(
        desk, backend="vertex", credential="service-account", secret_text=msgspec.json.encode(robot).decode(),
        settings={"project": "shop", "location": "us-central1"},
    )  # fmt: skip
    assert (row.verdict.ok, row.call) == (True, "countTokens")
    assert (desk.state_dir / "secrets" / "new.json").stat().st_mode & 0o777 == 0o600


async def test_a_login_that_comes_from_elsewhere_is_foreign(desk: Desk) -> None:
    """A finished login that somebody hands over was not made here: its risk must be accepted, on record."""
    world = desk.fake.world
    login = msgspec.json.encode(world.authorized_user(world.users["ann"], world.add_client())).decode()
    row = await add(desk, "blocked", backend="code-assist", credential="oauth", secret_text=login)
    assert (row.verdict.ok, row.verdict.state) == (False, "blocked_by_terms")
    assert desk.fake.record.count("token") == 0
    row = await add(
        desk,
        "taken",
        backend="code-assist",
        credential="oauth",
        secret_text=login,
        accept_terms_risk="foreign-client-1",
    )
    assert row.verdict.ok
    assert [entry.client_origin for entry in desk.file.read().entries] == ["foreign", "foreign"]


async def test_add_a_bad_key(desk: Desk) -> None:
    """A key that Google refuses is added, and what is wrong with it is said at once."""
    row = await add(desk, secret_text="fake-key-unknown")
    assert (row.verdict.ok, row.verdict.state) == (False, "account_dead")
    assert "valid key" in row.verdict.next
    assert desk.pool.members["new"].state is AccountState.DEAD


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"account": "A B"}, "cannot be an account's id"),
        ({"account": "key", "secret": {"env": "KEY"}}, "already"),
        ({"secret": {"command": ["rm", "-rf"]}}, "command cannot be set"),
        ({"secret": {"command": ["x"], "env": "KEY"}}, "command cannot be set"),
        ({"secret": {"key": "fake-key-key"}}, "is a reference"),
        ({"secret": {"file": "a", "env": "b"}}, "is a reference"),
        ({"secret": {"env": "KEY"}, "secret_text": "x"}, "not both"),
        ({}, "needs a secret"),
        ({"secret_text": "two words"}, "one line"),
        ({"secret_text": "x" * 2_000_000}, "too long"),
        ({"credential": "service-account", "secret_text": "fake-key-key"}, "JSON file"),
        ({"credential": "service-account", "secret_text": "[1]"}, "JSON file"),
        ({"credential": "magic", "secret": {"env": "KEY"}}, "Invalid enum"),
        ({"secret": {"env": "KEY"}, "settings": {"client_origin": "own"}}, "cannot be set"),
        ({"secret": {"env": "KEY"}, "settings": {"accepted_terms_risk": "sure"}}, "cannot be set"),
        ({"secret": {"env": "KEY"}, "settings": {"colour": "red"}}, "unknown field"),
        ({"secret": {"env": "KEY"}, "settings": {"location": "us"}}, "location belongs"),
        ({"backend": "code-assist", "secret": {"env": "KEY"}}, "takes no credential"),
        ({"credential": "oauth", "secret": {"env": "KEY"}, "accept_terms_risk": "yes"}, "not the wording"),
    ],
)
async def test_what_cannot_be_added(desk: Desk, more: dict[str, object], words: str) -> None:
    """What the rules forbid is refused before anything is written, and no secret is repeated."""
    desk.write(ONE)
    with pytest.raises(PoolError, match=words) as caught:
        await add(desk, **more)
    assert "fake-key-key" not in str(caught.value)
    assert desk.text == ONE
    assert not (desk.state_dir / "secrets").exists()


# ---- remove ------------------------------------------------------------------------------------------------------


async def test_remove_keeps_the_login_for_a_second_thought(desk: Desk) -> None:
    """Without more words an account leaves the pool and the file; where its secret still lies is said."""
    desk.write(ONE)
    await desk.log_in()
    result = await desk.accounts.remove(wire.AccountRemoveParams("work"))
    assert (result.revoked, result.secret_left) == (False, "file secrets/work.json")
    assert desk.text == ONE
    assert "work" not in desk.pool.members
    assert desk.fake.record.count("revoke") == 0


async def test_remove_and_revoke(desk: Desk) -> None:
    """Revoking ends the login at Google and deletes it here, earlier contents too."""
    await desk.log_in()
    await desk.log_in()
    grants = list(desk.fake.world.grants.values())
    result = await desk.accounts.remove(wire.AccountRemoveParams("work", revoke=True))
    assert (result.revoked, result.secret_left, result.notes) == (True, "", [])
    assert [grant.trouble for grant in grants] == ["", "revoked"]
    assert [path.name for path in (desk.state_dir / "secrets").iterdir()] == ["work.json.lock"]
    assert desk.text == ""


async def test_what_is_dead_already_is_removed_all_the_same(desk: Desk) -> None:
    """Google may have forgotten the login: that is noted and stops nothing."""
    await desk.log_in()
    desk.fake.world.revoke("ann")
    result = await desk.accounts.remove(wire.AccountRemoveParams("work", revoke=True))
    assert (result.revoked, result.secret_left) == (False, "")
    assert any("did not know" in note for note in result.notes)


async def test_a_revocation_that_fails_changes_nothing(desk: Desk) -> None:
    """If Google cannot be reached the account stays, and its owner may try again."""
    await desk.log_in()
    text = desk.text
    desk.fake.faults.add(Fault.status(503), when=Match(kind="revoke"), times=1)
    with pytest.raises(PoolError, match="did not end the login"):
        await desk.accounts.remove(wire.AccountRemoveParams("work", revoke=True))
    assert desk.text == text
    assert desk.pool.members["work"].state is AccountState.READY
    assert (await desk.accounts.remove(wire.AccountRemoveParams("work", revoke=True))).revoked


async def test_what_others_use_is_not_revoked(desk: Desk) -> None:
    """Two accounts with one secret: neither is ended by the other's removal."""
    await desk.log_in()
    twin = desk.text.replace('"work"', '"twin"') + desk.text
    desk.write(twin)
    with pytest.raises(PoolError, match="twin use the same secret"):
        await desk.accounts.remove(wire.AccountRemoveParams("work", revoke=True))
    result = await desk.accounts.remove(wire.AccountRemoveParams("work", delete_secret=True))
    assert result.secret_left
    assert (desk.state_dir / "secrets" / "work.json").exists()


async def test_a_key_is_not_revoked_but_deleted(desk: Desk) -> None:
    """API keys end in Google's console; ours is deleted when asked."""
    await add(desk, secret_text="fake-key-key")
    result = await desk.accounts.remove(wire.AccountRemoveParams("new", revoke=True))
    assert (result.revoked, result.secret_left) == (False, "")
    assert any("Google's console" in note for note in result.notes)


async def test_files_of_others_are_not_deleted(desk: Desk) -> None:
    """A secret outside of our folder belongs to whoever put it there."""
    path = desk.folder / "key"
    path.touch(mode=0o600)
    path.write_text("fake-key-key")
    await add(desk, secret={"file": str(path)})
    result = await desk.accounts.remove(wire.AccountRemoveParams("new", delete_secret=True))
    assert str(path) in result.secret_left
    assert path.exists()


async def test_a_removed_account_does_not_come_back(desk: Desk) -> None:
    """Neither a reload nor a new login of somebody else brings it back; its id is free again."""
    await add(desk, secret_text="fake-key-key")
    await desk.accounts.remove(wire.AccountRemoveParams("new"))
    await desk.reload()
    assert "new" not in desk.pool.members
    assert (await add(desk, secret_text="fake-key-key")).verdict.ok


@pytest.mark.parametrize("verb", ["remove", "enable", "disable"])
async def test_nobody_is_known_by_that_name(desk: Desk, verb: str) -> None:
    """An unknown account is not found."""
    params = wire.AccountRemoveParams("nobody") if verb == "remove" else wire.AccountParams("nobody")
    with pytest.raises(PoolError) as caught:
        await getattr(desk.accounts, verb)(params)
    assert caught.value.code == "not_found"


# ---- switch ------------------------------------------------------------------------------------------------------


async def test_disable_and_enable(desk: Desk) -> None:
    """The switch is in the file, in force when it is answered, and its comments stay."""
    desk.write(ONE)
    verdict = await desk.accounts.disable(wire.AccountParams("key"))
    assert (verdict.ok, verdict.state, verdict.next) == (False, "disabled", "gemini-pool account enable key")
    assert desk.text == ONE + "enabled = false\n"
    verdict = await desk.accounts.enable(wire.AccountParams("key"))
    assert (verdict.ok, verdict.state) == (True, "ready")
    assert desk.text == ONE + "enabled = true\n"


async def test_enable_tries_a_held_account_again(desk: Desk) -> None:
    """A person says so: what was given up is tried from the start."""
    await desk.log_in()
    desk.fake.world.users["ann"].code_assist.load_refusal = {
        "error": {"code": 403, "status": "PERMISSION_DENIED"}
    }
    desk.pool.refuse("work", AccountState.DEAD, desk.clock.now(), reason="old")
    desk.fake.world.users["ann"].code_assist.load_refusal = None
    assert (await desk.accounts.enable(wire.AccountParams("work"))).ok


async def test_enable_leaves_a_suspended_account_suspended(desk: Desk) -> None:
    """Google's word about a person's account is cleared by its own command only."""
    await desk.log_in()
    desk.pool.refuse("work", AccountState.SUSPENDED, desk.clock.now(), reason="terms")
    verdict = await desk.accounts.enable(wire.AccountParams("work"))
    assert (verdict.state, "clear-cooldown work" in verdict.next) == ("suspended", True)


# ---- verify ------------------------------------------------------------------------------------------------------


async def test_verify_asks_each_account_once(desk: Desk) -> None:
    """One cheap call each, in the file's order; nothing is generated."""
    await desk.log_in()
    await add(desk, "key", secret={"env": "KEY"})
    desk.fake.record.calls.clear()
    rows = await verify(desk)
    assert list(rows) == ["work", "key"]
    assert {name: (row.verdict.ok, row.call) for name, row in rows.items()} == {
        "work": (True, "retrieveUserQuota"), "key": (True, "models.list"),
    }  # fmt: skip
    assert all(row.took_s is not None for row in rows.values())
    assert sorted(call.kind for call in desk.fake.record.calls) == ["models", "quota"]


async def test_verify_one(desk: Desk) -> None:
    """Only who is named is asked; a wrong name is said."""
    await add(desk, "key", secret={"env": "KEY"})
    await add(desk, "other", secret={"env": "KEY"})
    assert list(await verify(desk, "other")) == ["other"]
    with pytest.raises(PoolError, match="nobody"):
        await verify(desk, "nobody")


async def test_verify_finds_what_the_pool_does_not_know_yet(desk: Desk) -> None:
    """An account that looked well and is refused becomes what Google says."""
    await desk.log_in()
    desk.fake.world.projects["shop"].licensed = False
    row = (await verify(desk))["work"]
    assert (row.verdict.ok, row.verdict.state, row.verdict.licensed) == (False, "unlicensed", False)
    assert "licence" in row.verdict.next
    assert desk.pool.members["work"].state is AccountState.UNLICENSED


async def test_verify_waits_for_a_set_up_that_is_under_way(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A set-up that ends after the real call would make an account ready that was just refused."""
    await desk.log_in()
    desk.fake.world.projects["shop"].licensed = False
    setup, asked, go_on = desk.lifecycle._setup, asyncio.Event(), asyncio.Event()

    class Slow:
        async def run(self, account: Account, headers: Mapping[str, str]) -> DiscoveryRow | Outcome:
            found = await setup.run(account, headers)
            asked.set()
            await go_on.wait()
            return found

    monkeypatch.setattr(desk.lifecycle, "_setup", Slow())
    desk.lifecycle.retry("work")
    await asked.wait()
    heard = len(desk.broker._listeners)
    verifying = asyncio.create_task(verify(desk))
    while not verifying.done() and len(desk.broker._listeners) == heard:
        await asyncio.sleep(0)
    assert not verifying.done()
    go_on.set()
    assert (await verifying)["work"].verdict.state == "unlicensed"
    assert desk.pool.members["work"].state is AccountState.UNLICENSED


async def test_verify_brings_back_what_was_mended(desk: Desk) -> None:
    """The way back that the hints promise: mend it at Google, then verify."""
    await desk.log_in()
    project = desk.fake.world.projects["shop"]
    project.licensed = False
    await verify(desk)
    project.licensed = True
    assert (await verify(desk))["work"].verdict.ok
    assert desk.pool.members["work"].state is AccountState.READY


async def test_verify_tries_a_dead_login_again(desk: Desk) -> None:
    """A login that was given up is asked about once more, because a person said so."""
    await desk.log_in()
    desk.fake.world.revoke("ann")
    row = (await verify(desk))["work"]
    assert (row.verdict.ok, row.verdict.state, row.verdict.next) == (
        False,
        "login_required",
        "gemini-pool login work",
    )
    for grant in desk.fake.world.grants.values():
        grant.trouble = ""
    assert (await verify(desk))["work"].verdict.ok


async def test_verify_renews_a_refused_token_once(desk: Desk) -> None:
    """A token that Google no longer takes is renewed, whatever its clock says."""
    await desk.log_in()
    desk.fake.world.expire_tokens()
    assert (await verify(desk))["work"].verdict.ok


async def test_verify_of_a_disabled_account(desk: Desk) -> None:
    """An account that is switched off can be asked about, and stays switched off."""
    await desk.log_in()
    await desk.accounts.disable(wire.AccountParams("work"))
    row = (await verify(desk))["work"]
    assert (row.verdict.state, row.call, row.verdict.reason) == ("disabled", "retrieveUserQuota", "")
    desk.fake.world.projects["shop"].licensed = False
    row = (await verify(desk))["work"]
    assert (row.verdict.state, row.verdict.ok) == ("unlicensed", False)
    assert desk.pool.members["work"].shown_state is AccountState.DISABLED


async def test_verify_of_a_disabled_account_that_was_never_set_up(desk: Desk) -> None:
    """Its project is found on the way."""
    world = desk.fake.world
    (desk.state_dir / "secrets").mkdir(mode=0o700)
    path = desk.state_dir / "secrets" / "work.json"
    path.touch(mode=0o600)
    path.write_bytes(msgspec.json.encode(world.authorized_user(world.users["ann"], world.add_client())))
    desk.write(
        '[[account]]\nid = "work"\nbackend = "code-assist"\nenabled = false\n'
        'credential = { type = "oauth", secret = { file = "secrets/work.json" } }\n'
    )
    row = (await verify(desk))["work"]
    assert (row.call, row.verdict.project, row.verdict.email) == (
        "retrieveUserQuota",
        "shop",
        "ann@example.com",
    )
    world.users["ann"].code_assist = CodeAssist(tier="", ineligible=[{"reasonCode": "UNSUPPORTED_CLIENT"}])
    desk.lifecycle.context.memory.handed_out.clear()
    row = (await verify(desk))["work"]
    assert (row.call, row.verdict.state) == ("loadCodeAssist", "unsupported_client")


async def test_verify_does_not_touch_a_suspended_account(desk: Desk) -> None:
    """Nothing is sent for an account that Google has suspended."""
    await desk.log_in()
    desk.pool.refuse("work", AccountState.SUSPENDED, desk.clock.now(), reason="terms")
    desk.fake.record.calls.clear()
    row = (await verify(desk))["work"]
    assert (row.verdict.state, row.call) == ("suspended", "")
    assert not desk.fake.record.calls


async def test_verify_when_google_cannot_be_reached(desk: Desk) -> None:
    """A network that is down blames no account."""
    await add(desk, "key", secret={"env": "KEY"})
    desk.fake.faults.add(Fault.reset_connection(), when=Match(kind="models"), times=None)
    row = (await verify(desk))["key"]
    assert (row.verdict.ok, row.verdict.state) == (False, "ready")
    assert row.verdict.reason
    assert desk.pool.members["key"].state is AccountState.READY


async def test_a_used_up_limit_is_no_fault(desk: Desk) -> None:
    """429 at the real call: the account is fine, the limit is noted."""
    await add(desk, "key", secret={"env": "KEY"})
    desk.fake.faults.add(Fault.status(429), when=Match(kind="models"), times=1)
    row = (await verify(desk))["key"]
    assert row.verdict.ok
    assert row.verdict.notes


async def test_a_secret_that_is_missing(desk: Desk) -> None:
    """An account whose secret cannot be read says which command mends it."""
    row = await add(desk, secret={"env": "NOT_SET"})
    assert (row.verdict.ok, row.verdict.state) == (False, "secret_missing")
    assert "systemctl" in row.verdict.next


async def test_an_iam_permission_that_is_missing_concerns_the_account(desk: Desk) -> None:
    """Code Assist's plain PERMISSION_DENIED, no model asked for, is the project's."""
    await desk.log_in()
    desk.fake.world.users["ann"].projects = frozenset()
    row = (await verify(desk))["work"]
    assert (row.verdict.state, row.verdict.ok) == ("project_misconfigured", False)
    assert "`project`" in row.verdict.next


async def test_no_secret_is_anywhere_else(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """Keys and logins are in the files that own them: not in answers, errors, the log or the accounts file."""
    caplog.set_level(logging.DEBUG)
    said = [repr(await add(desk, secret_text="fake-key-key")), repr(await desk.log_in())]
    said += [repr(await verify(desk))]
    desk.fake.world.revoke("ann")
    said += [repr(await verify(desk)), repr(await add(desk, "bad", secret_text="fake-key-none"))]
    said += [repr(await desk.accounts.remove(wire.AccountRemoveParams("work", revoke=True)))]
    everything = "\n".join([*said, *desk.events, caplog.text, desk.text])
    assert not [secret for secret in [*secrets_of(desk.fake), "fake-key-none"] if secret in everything]
