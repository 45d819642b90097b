"""Imports: other programs' files, composed here, tried against the fake Google before they are trusted."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.login.rig import secrets_of
from tests.transfer.rig import Office, encrypted, oauth_creds, office_of, stored

from gemini_pool import wire
from gemini_poold.core.model import AccountState
from gemini_poold.errors import ConfigInvalid, PoolError
from gemini_poold.fake import Fault, Match
from gemini_poold.login import terms


@pytest.fixture(autouse=True)
def _no_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's real keyring is asked."""
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    async with office_of(tmp_path) as office:
        yield office


def rows(result: wire.ImportResult) -> list[tuple[str, str]]:
    return [(row.result, row.account) for row in result.logins]


async def serving(office: Office, account: str) -> bool:
    await office.desk.examiner.wait_settled(account)
    return office.desk.pool.members[account].state is AccountState.READY


# ---- gemini-cli --------------------------------------------------------------------------------------------------


def plain(office: Office, refresh: str) -> None:
    office.put(".gemini/oauth_creds.json", oauth_creds(refresh))


def new_store(office: Office, refresh: str) -> None:
    content = {
        "gemini-cli-oauth": {"main-account": json.dumps(stored(refresh))},
        "gemini-cli-api-key": {"x": "y"},
    }
    office.put(".gemini/gemini-credentials.json", encrypted(content))


def old_store(office: Office, refresh: str) -> None:
    office.put(".gemini/mcp-oauth-tokens-v2.json", encrypted({"main-account": stored(refresh), "mcp": {}}))


@pytest.mark.parametrize("write", [plain, new_store, old_store])
async def test_gemini_cli(office: Office, write: Any) -> None:
    """Plain file, encrypted store and the older store: the login is tried, kept as ours, and serves."""
    write(office, office.grant().token)
    office.put(".gemini/google_accounts.json", {"active": "label@example.com", "old": []})
    before = office.seen()
    result = await office.run("gemini-cli")
    assert rows(result) == [("imported", "ann")]
    assert result.logins[0].email == "ann@example.com"
    assert office.seen() == before
    assert office.desk.secret("ann.json")["client_id"] == office.cli_client().id
    entry = office.desk.file.read().entries[0]
    assert (entry.client_origin, entry.backend) == ("foreign", "code-assist")
    assert terms.FOREIGN_CLIENT.text in entry.accepted_terms_risk
    assert await serving(office, "ann")


NODE = """
const crypto = require('node:crypto'), os = require('node:os');
const salt = `${os.hostname()}-${os.userInfo().username}-gemini-cli`;
const key = crypto.scryptSync('gemini-cli-oauth', salt, 32), iv = crypto.randomBytes(16);
const cipher = crypto.createCipheriv('aes-256-gcm', key, iv);
const text = cipher.update(process.argv[1], 'utf8', 'hex') + cipher.final('hex');
process.stdout.write(`${iv.toString('hex')}:${cipher.getAuthTag().toString('hex')}:${text}`);
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="no Node here")
async def test_gemini_cli_store_of_a_real_node(office: Office) -> None:
    """A store that Node itself encrypted, with its own idea of host, user and scrypt, is read."""
    content = json.dumps({"gemini-cli-oauth": {"main-account": json.dumps(stored(office.grant().token))}})
    made = subprocess.run(["node", "-e", NODE, content], capture_output=True, text=True, check=True)
    office.put(".gemini/gemini-credentials.json", made.stdout)
    assert rows(await office.run("gemini-cli")) == [("imported", "ann")]


async def test_gemini_cli_home(office: Office) -> None:
    """`GEMINI_CLI_HOME` moves the folder; a home that is named by the one who imports outweighs it."""
    office.put("elsewhere/.gemini/oauth_creds.json", oauth_creds(office.grant().token))
    office.desk.environ["GEMINI_CLI_HOME"] = str(office.home / "elsewhere")
    assert rows(await office.run("gemini-cli", home=str(office.home))) == [("refused", "")]
    assert rows(await office.run("gemini-cli")) == [("imported", "ann")]


@pytest.mark.parametrize("path", ["elsewhere", "elsewhere/.gemini", "elsewhere/.gemini/oauth_creds.json"])
async def test_gemini_cli_in_a_named_place(office: Office, path: str) -> None:
    """The home, the folder in it or the very file may be named."""
    office.put("elsewhere/.gemini/oauth_creds.json", oauth_creds(office.grant().token))
    assert rows(await office.run("gemini-cli", path=f"~/{path}")) == [("imported", "ann")]


async def test_gemini_cli_keychain(office: Office) -> None:
    """What only the desktop's keychain has is read through its own tool."""
    bin_ = office.desk.folder / "bin"
    bin_.mkdir()
    tool = bin_ / "secret-tool"
    value = json.dumps(stored(office.grant().token))
    tool.write_text(
        "#!/bin/sh\n"
        '[ "$*" = "lookup service gemini-cli-oauth account main-account" ] || exit 1\n'
        f"printf '%s' '{value}'\n",
        encoding="utf-8",
    )
    tool.chmod(0o755)
    office.desk.environ["PATH"] = f"{bin_}:/usr/bin:/bin"
    result = await office.run("gemini-cli")
    assert rows(result) == [("imported", "ann")]
    assert result.logins[0].found == "the keychain"


async def test_the_plain_file_wins_over_older_stores(office: Office) -> None:
    """Gemini CLI has one login: what lies about from earlier is passed over."""
    plain(office, office.grant().token)
    old_store(office, "fake-refresh-older")
    assert rows(await office.run("gemini-cli")) == [("imported", "ann")]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("oauth_creds.json", "", "not JSON|decrypted"),
        ("oauth_creds.json", '{"access_token": "fake-access-x"', "decrypted"),
        ("oauth_creds.json", {"access_token": "fake-access-x"}, "no refresh token"),
        ("oauth_creds.json", {"type": "service_account"}, "service_account"),
        ("gemini-credentials.json", "zz:zz:zz", "decrypted"),
        ("gemini-credentials.json", "aa:bb", "decrypted"),
        ("gemini-credentials.json", encrypted({"x": 1}, host="elsewhere"), "another machine"),
        ("gemini-credentials.json", encrypted({"x": 1}, user="somebody"), "another machine"),
        ("gemini-credentials.json", encrypted({"gemini-cli-api-key": {}}), "no Google login"),
        (
            "gemini-credentials.json",
            encrypted({"gemini-cli-oauth": {"main-account": "[1]"}}),
            "no refresh token",
        ),
        ("gemini-credentials.json", encrypted([1]), "decrypted"),
    ],
)
async def test_gemini_cli_has_no_login(office: Office, name: str, content: Any, words: str) -> None:
    """What is no login is refused with its reason, and nothing is added."""
    office.put(f".gemini/{name}", content)
    result = await office.run("gemini-cli")
    assert rows(result) == [("refused", "")]
    assert re.search(words, result.logins[0].reason)
    assert office.desk.text == ""


async def test_nothing_of_gemini_cli_here(office: Office) -> None:
    """Where nothing is, the place that was looked at is named."""
    result = await office.run("gemini-cli")
    assert str(office.home / ".gemini") in result.logins[0].found
    assert result.logins[0].next


# ---- trying before trusting ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", ["revoked", "bad_request", "deleted", "rapt", "policy"])
async def test_a_dead_login_is_refused(office: Office, trouble: str) -> None:
    """A login that Google does not renew is not taken in, and its reason is Google's."""
    grant = office.grant()
    grant.trouble = trouble
    plain(office, grant.token)
    result = await office.run("gemini-cli")
    assert rows(result) == [("refused", "")]
    assert result.logins[0].reason
    assert office.desk.text == ""
    assert not (office.desk.state_dir / "secrets").exists()


async def test_a_login_of_another_client_is_refused(office: Office) -> None:
    """Antigravity may have put its own login where Gemini CLI's was: it cannot be renewed with this client."""
    office.cli_client()
    other = office.world.login(office.world.users["ann"], office.world.add_client("antigravity"))
    plain(office, other.token)
    result = await office.run("gemini-cli")
    assert rows(result) == [("refused", "")]
    assert "another OAuth client" in result.logins[0].reason


async def test_a_login_without_the_cloud_is_refused(office: Office) -> None:
    """A login that may not use Google Cloud is no account."""
    plain(office, office.grant(scope="openid").token)
    assert "no access to Google Cloud" in (await office.run("gemini-cli")).logins[0].reason


async def test_google_cannot_be_reached(office: Office) -> None:
    """What cannot be tried is not trusted."""
    plain(office, office.grant().token)
    office.desk.fake.faults.add(Fault.status(503), when=Match(kind="token"), times=None)
    assert rows(await office.run("gemini-cli")) == [("refused", "")]
    office.desk.fake.faults.rules.clear()
    assert rows(await office.run("gemini-cli")) == [("imported", "ann")]


async def test_a_token_that_rotates_at_the_trial_is_kept(office: Office) -> None:
    """The new refresh token is the one that is kept: the old one is dead from then on."""
    grant = office.grant(rotates=True)
    plain(office, grant.token)
    assert rows(await office.run("gemini-cli")) == [("imported", "ann")]
    assert grant.trouble == "revoked"
    kept = office.desk.secret("ann.json")["refresh_token"]
    assert kept != grant.token
    assert await serving(office, "ann")


# ---- the terms ---------------------------------------------------------------------------------------------------


async def test_without_a_yes_nothing_is_sent(office: Office) -> None:
    """Not accepted: Gemini CLI's client is not even looked for, Google hears nothing, the wording is handed out."""
    plain(office, office.grant().token)
    result = await office.run("gemini-cli", accept=False)
    assert rows(result) == [("refused", "")]
    assert (result.wording, result.accept_terms_risk) == (terms.FOREIGN_CLIENT.text, terms.FOREIGN_CLIENT.id)
    assert not office.desk.fake.record.calls
    with pytest.raises(PoolError) as caught:
        await office.run("gemini-cli", accept=False, use_gemini_cli=True)
    assert caught.value.code == "blocked_by_terms"


async def test_without_a_yes_a_whole_login_is_kept_but_blocked(office: Office) -> None:
    """With its client named, the login is added, blocked, and nothing is asked of Google with it; a later yes tries
    it and lifts the block."""
    client = office.cli_client()
    plain(office, office.grant().token)
    named = {"client_secrets": office.world.client_file(client)}
    result = await office.run("gemini-cli", accept=False, account="mine", **named)
    assert rows(result) == [("blocked", "mine")]
    assert result.accept_terms_risk
    assert "gemini-pool login mine --client-secrets" in result.logins[0].next
    assert office.desk.pool.members["mine"].state is AccountState.BLOCKED_BY_TERMS
    assert not office.desk.fake.record.calls
    assert rows(await office.run("gemini-cli", **named)) == [("imported", "mine")]
    assert await serving(office, "mine")
    assert rows(await office.run("gemini-cli", **named)) == [("known", "mine")]


async def test_a_block_is_not_lifted_from_a_dead_login(office: Office) -> None:
    """A yes alone is not enough: the login must live."""
    client = office.cli_client()
    grant = office.grant()
    plain(office, grant.token)
    named = {"client_secrets": office.world.client_file(client)}
    await office.run("gemini-cli", accept=False, **named)
    grant.trouble = "revoked"
    assert rows(await office.run("gemini-cli", **named)) == [("refused", "")]
    assert office.desk.file.read().entries[0].accepted_terms_risk == ""


async def test_a_client_of_ones_own_does_not_make_an_import_ones_own(office: Office) -> None:
    """Whatever client is named, an import was not made here."""
    client = office.cli_client()
    plain(office, office.grant().token)
    await office.run("gemini-cli", client_secrets=office.world.client_file(client))
    assert office.desk.file.read().entries[0].client_origin == "foreign"


async def test_no_gemini_cli_to_take_the_client_from(office: Office) -> None:
    """With a yes but without an installed Gemini CLI, what was missing is said."""
    plain(office, office.grant().token)
    office.desk.environ |= {"npm_config_prefix": "", "PATH": "/nonexistent"}
    result = await office.run("gemini-cli", gemini_cli=str(office.home))
    assert "no Gemini CLI's OAuth client" in result.logins[0].reason
    assert "--client-secrets" in result.logins[0].next


# ---- ids and doubles ----------------------------------------------------------------------------------------------


async def test_the_same_login_is_not_taken_twice(office: Office) -> None:
    """The same token is known; another token of the same person, too."""
    plain(office, office.grant().token)
    await office.run("gemini-cli")
    assert await serving(office, "ann")
    assert rows(await office.run("gemini-cli")) == [("known", "ann")]
    plain(office, office.grant().token)
    result = await office.run("gemini-cli")
    assert rows(result) == [("known", "ann")]
    assert "same Google account" in result.logins[0].reason


async def test_ids(office: Office) -> None:
    """The id that was asked for, or one made of the e-mail that is free; a taken one is refused."""
    office.desk.write(
        '[[account]]\nid = "ann"\nbackend = "developer-api"\ncredential = { type = "api-key", secret = { env = "K" } }\n'
    )
    office.put(".gemini/google_accounts.json", {"active": "ann@example.com"})
    plain(office, office.grant().token)
    assert "already" in (await office.run("gemini-cli", account="ann")).logins[0].reason
    assert rows(await office.run("gemini-cli")) == [("imported", "ann-2")]
    with pytest.raises(PoolError, match="cannot be an account's id"):
        await office.run("gemini-cli", account="No Good")


async def test_a_broken_accounts_file_is_mended_first(office: Office) -> None:
    """Nothing is tried while its entry could not be written."""
    plain(office, office.grant().token)
    office.desk.path.write_text("[[account]\n", encoding="utf-8")
    with pytest.raises(ConfigInvalid):
        await office.run("gemini-cli")
    assert not office.desk.fake.record.calls


# ---- opencode ----------------------------------------------------------------------------------------------------


def auth(refresh: str) -> dict[str, Any]:
    return {
        "google": {"type": "oauth", "refresh": refresh, "access": "fake-access-old", "expires": 1},
        "openai": {"type": "api", "key": "fake-openai"},
    }


@pytest.mark.parametrize(
    ("tail", "project"),
    [
        ("", ""),
        ("|shop", "shop"),
        ("|shop|managed-ann", "shop"),
        ("||managed-ann", ""),
        ("|projects/shop|", "shop"),
        ("|shop||ann@example.com", "shop"),
    ],
)
async def test_opencode_packed(office: Office, tail: str, project: str) -> None:
    """Every form of the packed string: the chosen project is taken over, the managed one is found anew."""
    office.put(".local/share/opencode/auth.json", auth(office.grant().token + tail))
    before = office.seen()
    result = await office.run("opencode")
    assert rows(result) == [("imported", "ann")]
    assert result.logins[0].project == project
    assert office.desk.file.read().entries[0].project == project
    assert office.seen() == before


async def test_opencode_joined(office: Office) -> None:
    """Several logins in one string are several accounts, each with a result of its own."""
    bob, dead = office.grant("bob"), office.grant("eve")
    dead.trouble = "revoked"
    office.put(
        ".local/share/opencode/auth.json", auth(f"{office.grant().token}|shop;{bob.token};{dead.token}|x")
    )
    result = await office.run("opencode", account="oc")
    assert rows(result) == [("imported", "oc-ann"), ("imported", "oc-bob"), ("refused", "")]
    assert [row.email for row in result.logins] == ["ann@example.com", "bob@example.com", ""]
    assert "no. 3" in result.logins[2].found


async def test_opencode_accounts_file(office: Office) -> None:
    """`gemini-auth.json`: ids that are tokens are never used; only a plain no switches an account off."""
    ann, bob = office.grant(), office.grant("bob")
    accounts = [
        {"id": ann.token[:10], "email": "ann@example.com", "refreshToken": ann.token, "projectId": "shop"},
        {"id": "bob@example.com", "refreshToken": bob.token, "enabled": False},
        {"id": "x", "email": "nobody@example.com"},
        "nonsense",
    ]
    office.put(".config/opencode/gemini-auth.json", {"accounts": accounts}, mode=0o644)
    result = await office.run("opencode")
    assert rows(result) == [("imported", "ann"), ("imported", "bob"), ("refused", ""), ("refused", "")]
    entries = {entry.id: entry for entry in office.desk.file.read().entries}
    assert (entries["ann"].project, entries["ann"].enabled, entries["bob"].enabled) == ("shop", True, False)
    assert any("can be read by others" in note for note in result.notes)


async def test_opencode_in_other_places(office: Office) -> None:
    """XDG folders, opencode's own variable, and a named file."""
    office.put("data/opencode/auth.json", auth(office.grant().token))
    office.put(
        "oc/gemini-auth.json",
        {"accounts": [{"email": "bob@example.com", "refreshToken": office.grant("bob").token}]},
    )
    office.desk.environ |= {
        "XDG_DATA_HOME": str(office.home / "data"),
        "OPENCODE_CONFIG_DIR": str(office.home / "oc"),
    }
    assert [row.result for row in (await office.run("opencode")).logins] == ["imported", "imported"]
    assert [
        row.result for row in (await office.run("opencode", path="~/data/opencode/auth.json")).logins
    ] == ["known"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "not logged in"),
        ({"google": {"type": "api", "key": "fake-key"}}, "API key"),
        ({"google": {"type": "oauth", "refresh": ""}}, "empty"),
        ({"google": {"type": "oauth", "refresh": "|p|m"}}, "empty"),
        ({"google": "x"}, "not logged in"),
        ({"accounts": []}, "no account"),
        ("{", "not JSON"),
        ("[]", "not JSON"),
    ],
)
async def test_opencode_has_no_login(office: Office, content: Any, words: str) -> None:
    """Each with its reason."""
    office.put(".local/share/opencode/auth.json", content)
    result = await office.run("opencode")
    assert [row.result for row in result.logins] == ["refused"]
    assert words in result.logins[0].reason


async def test_antigravitys_logins_are_named_and_left(office: Office) -> None:
    """Logins of another client are seen, and said to be of no use."""
    office.put(
        ".config/opencode/antigravity-accounts.json", {"accounts": [{"refreshToken": "fake-refresh-x"}]}
    )
    assert "another OAuth client" in (await office.run("opencode")).logins[0].reason
    assert not office.desk.fake.record.calls


# ---- adc ---------------------------------------------------------------------------------------------------------


async def test_adc_login(office: Office) -> None:
    """gcloud's login stays where it is; it is tried there, and foreign."""
    client = office.world.add_client("gcloud")
    info = office.world.authorized_user(office.world.users["ann"], client) | {"quota_project_id": "shop"}
    file = office.put(".config/gcloud/application_default_credentials.json", info)
    before = office.seen()
    result = await office.run("adc")
    assert rows(result) == [("imported", "adc")]
    assert office.seen() == before
    assert 'credential = { type = "adc" }' in office.desk.text
    assert 'client_origin = "foreign"' in office.desk.text
    assert office.desk.file.read().entries[0].project == "shop"
    assert await serving(office, "adc")
    assert rows(await office.run("adc")) == [("known", "adc")]
    assert file.exists()


async def test_adc_service_account_by_name(office: Office) -> None:
    """A key file that is named is pointed to; it is nobody's login, so there is nothing to accept."""
    robot = office.world.add_service_account("robot", project="shop")
    file = office.put("keys/robot.json", robot)
    result = await office.run("adc", path=str(file), accept=False, account="robot")
    assert rows(result) == [("imported", "robot")]
    entry = office.desk.file.read().entries[0]
    assert entry.credential.secret is not None
    assert (entry.credential.secret.file, entry.client_origin, entry.project) == (str(file), "own", "shop")
    assert await serving(office, "robot")


async def test_adc_for_another_backend(office: Office) -> None:
    """A person's login may serve Code Assist, too."""
    info = office.world.authorized_user(office.world.users["ann"], office.world.add_client("gcloud"))
    office.put(".config/gcloud/application_default_credentials.json", info)
    assert rows(await office.run("adc", backend="code-assist")) == [("imported", "adc")]
    assert await serving(office, "adc")


async def test_adc_without_a_yes_is_blocked(office: Office) -> None:
    """gcloud's login, like every import, waits for a yes."""
    info = office.world.authorized_user(office.world.users["ann"], office.world.add_client("gcloud"))
    office.put(".config/gcloud/application_default_credentials.json", info)
    assert rows(await office.run("adc", accept=False, project="shop")) == [("blocked", "adc")]
    assert not office.desk.fake.record.calls


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [
        (None, 0o600, "there are none"),
        ("{", 0o600, "not JSON"),
        ({"type": "gdch_service_account"}, 0o600, "not supported"),
        ({"installed": {}}, 0o600, "OAuth client"),
        (
            {"type": "authorized_user", "client_id": "x", "client_secret": "y", "refresh_token": "z"},
            0o644,
            "open to others",
        ),
        (
            {"type": "authorized_user", "client_id": "x", "client_secret": "y", "refresh_token": "z"},
            0o600,
            "refused",
        ),
    ],
)
async def test_adc_that_is_none(office: Office, content: Any, mode: int, words: str) -> None:
    """What cannot be used is refused with its reason."""
    if content is not None:
        office.put(".config/gcloud/application_default_credentials.json", content, mode)
    result = await office.run("adc", project="shop")
    assert rows(result) == [("refused", "")]
    assert words in result.logins[0].reason
    assert office.desk.text == ""


async def test_adc_needs_a_project(office: Office) -> None:
    """Vertex without a project cannot be; how to name one is said."""
    info = office.world.authorized_user(office.world.users["ann"], office.world.add_client("gcloud"))
    office.put(".config/gcloud/application_default_credentials.json", info)
    row = (await office.run("adc")).logins[0]
    assert (row.result, "--project" in row.next) == ("refused", True)


# ---- cliproxyapi --------------------------------------------------------------------------------------------------


async def test_cliproxyapi_folder(office: Office) -> None:
    """A folder of JSON files: Google's logins and service accounts are taken, the rest is passed by, each in words."""
    client = office.cli_client()
    token = {
        "access_token": "fake-access-old", "refresh_token": office.grant().token, "client_id": client.id,
        "client_secret": client.secret, "token_uri": "https://elsewhere.example/token", "scopes": ["x"],
    }  # fmt: skip
    bob = {**token, "refresh_token": office.grant("bob").token}
    robot = office.world.add_service_account("robot", project="shop")
    folder = ".cli-proxy-api"
    office.put(
        f"{folder}/a.json",
        {"type": "gemini", "token": token, "project_id": "shop", "email": "ann@example.com", "auto": True},
    )
    office.put(
        f"{folder}/b.json",
        {"type": "gemini-cli", "token": json.dumps(bob), "project_id": "ALL", "disabled": True},
    )
    office.put(
        f"{folder}/c.json",
        {
            "type": "vertex",
            "service_account": robot,
            "location": "us-central1",
            "email": robot["client_email"],
        },
    )
    office.put(f"{folder}/d.json", {"type": "antigravity", "refresh_token": "fake-refresh-x"})
    office.put(f"{folder}/e.json", {"type": "claude", "access_token": "fake-access-x"})
    office.put(f"{folder}/f.json", "{")
    office.put(f"{folder}/g.json", {"type": "gemini", "token": {}})
    office.put(f"{folder}/h.json", {"type": "vertex"})
    office.put(f"{folder}/i.json", {})
    office.put(f"{folder}/readme.txt", "x")
    before = office.seen()
    result = await office.run("cliproxyapi")
    assert rows(result) == [
        ("imported", "ann"), ("imported", "bob"), ("imported", "robot"), *[("refused", "")] * 6,
    ]  # fmt: skip
    assert office.seen() == before
    entries = {entry.id: entry for entry in office.desk.file.read().entries}
    assert (entries["ann"].project, entries["bob"].project) == ("shop", "")
    assert not entries["bob"].enabled
    robot_entry = entries["robot"]
    assert (robot_entry.backend, robot_entry.location, robot_entry.project, robot_entry.client_origin) == (
        "vertex", "us-central1", "shop", "own",
    )  # fmt: skip
    assert office.desk.secret("robot.json")["private_key"] == robot["private_key"]
    assert await serving(office, "robot")
    assert await serving(office, "ann")


async def test_cliproxyapi_carries_its_client(office: Office) -> None:
    """The client stands in the file: no Gemini CLI is needed, and without a yes the login is kept but blocked."""
    client = office.cli_client()
    token = {"refresh_token": office.grant().token, "client_id": client.id, "client_secret": client.secret}
    office.desk.environ["npm_config_prefix"] = ""
    file = office.put("x/a.json", {"type": "gemini", "token": token, "email": "ann@example.com"})
    assert rows(await office.run("cliproxyapi", path=str(file.parent), accept=False)) == [("blocked", "ann")]
    assert rows(await office.run("cliproxyapi", path=str(file))) == [("imported", "ann")]


@pytest.mark.parametrize("exists", [False, True])
async def test_cliproxyapi_has_nothing(office: Office, exists: bool) -> None:
    """No folder, or an empty one."""
    if exists:
        (office.home / ".cli-proxy-api").mkdir()
    assert rows(await office.run("cliproxyapi")) == [("refused", "")]


async def test_a_dead_service_account_is_refused(office: Office) -> None:
    """Its key is tried before it is kept."""
    robot = office.world.add_service_account("robot", project="shop")
    office.world.service_account("robot").state = "deleted"
    office.put(".cli-proxy-api/c.json", {"type": "vertex", "service_account": robot})
    result = await office.run("cliproxyapi")
    assert rows(result) == [("refused", "")]
    assert not (office.desk.state_dir / "secrets").exists()


# ---- files that are no files, and secrets ------------------------------------------------------------------------------


async def test_odd_files_are_not_read(office: Office) -> None:
    """A pipe does not hang us, a folder is none, a flood is cut; links of dot-file folders are followed."""
    (office.home / ".gemini").mkdir()
    os.mkfifo(office.home / ".gemini" / "oauth_creds.json")
    assert "no regular file" in (await office.run("gemini-cli")).logins[0].reason
    (office.home / ".gemini" / "oauth_creds.json").unlink()
    real = office.put("dotfiles/creds.json", oauth_creds(office.grant().token))
    (office.home / ".gemini" / "oauth_creds.json").symlink_to(real)
    assert rows(await office.run("gemini-cli")) == [("imported", "ann")]


async def test_no_secret_is_anywhere_else(office: Office, caplog: pytest.LogCaptureFixture) -> None:
    """Results, errors, log and accounts file hold no token, key or client secret of any import, good or bad."""
    caplog.set_level(logging.DEBUG)
    said = []
    dead = office.grant("eve")
    dead.trouble = "revoked"
    office.put(".local/share/opencode/auth.json", auth(f"{office.grant().token}|shop;{dead.token}"))
    office.put(".gemini/oauth_creds.json", oauth_creds(dead.token))
    robot = office.world.add_service_account("robot", project="shop")
    office.put(".cli-proxy-api/c.json", {"type": "vertex", "service_account": robot})
    office.put(".cli-proxy-api/d.json", {"type": "gemini", "token": {"refresh_token": dead.token}})
    for source in ("opencode", "gemini-cli", "cliproxyapi", "adc"):
        for accept in (False, True):
            said.append(repr(await office.run(source, accept=accept)))
    everything = "\n".join([*said, *office.desk.events, caplog.text, office.desk.text])
    found = [*secrets_of(office.desk.fake), robot["private_key"][40:80]]
    assert not [secret for secret in found if secret in everything]
