"""Logins from the first word to an account that serves: real HTTP, a browser, the fake Google."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.login.rig import Browser, Desk, desk_of, secrets_of

from gemini_pool import wire
from gemini_poold.core.model import AccountState
from gemini_poold.errors import ConfigInvalid, PoolError
from gemini_poold.fake import CodeAssist, Fault, Match, World
from gemini_poold.login import terms


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    world = World()
    world.add_user("ann", projects=["shop"])
    async with desk_of(tmp_path, world) as desk:
        yield desk


def code_of(address: str) -> str:
    return parse_qs(urlsplit(address).query)["code"][0]


# ---- the good way ------------------------------------------------------------------------------------------------


async def test_a_browser_login_makes_an_account_that_serves(desk: Desk) -> None:
    """One address to open, one visit: the secret is kept, the entry written, the project found, the account ready."""
    started = await desk.begin()
    assert started.port
    assert started.redirect_uri == f"http://127.0.0.1:{started.port}/oauth2callback"
    status, page = await Browser.visit(started.url)
    assert (status, "work is logged in" in page) == (200, True)
    result = await desk.finish(started)
    assert (result.account, result.created, result.email, result.client_origin) == (
        "work", True, "ann@example.com", "own",
    )  # fmt: skip
    verdict = result.verdict
    assert (verdict.ok, verdict.state, verdict.licensed, verdict.project, verdict.tier, verdict.next) == (
        True, "ready", True, "shop", "standard-tier", "",
    )  # fmt: skip
    assert desk.pool.members["work"].sub
    assert desk.fake.record.count("load") == 1


async def test_what_a_login_leaves_behind(desk: Desk) -> None:
    """An `authorized_user` file of mode 0600 that google-auth can read, and an entry that says what is not default."""
    await desk.log_in()
    path = desk.state_dir / "secrets" / "work.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    info = desk.secret("work.json")
    grant = next(iter(desk.fake.world.grants.values()))
    assert info == {
        "type": "authorized_user",
        "client_id": "fake-client-own.example",
        "client_secret": "fake-secret-own",
        "refresh_token": grant.token,
        "token_uri": f"{desk.fake.url}/token",
    }
    assert desk.text == (
        '[[account]]\nid = "work"\nbackend = "code-assist"\n'
        'credential = { type = "oauth", secret = { file = "secrets/work.json" } }\n'
    )


async def test_an_editor_may_come_back_later(desk: Desk) -> None:
    """The browser's answer is kept even when nobody waits for it; who asks afterwards, and asks again, is told."""
    started = await desk.begin()
    await Browser.visit(started.url)
    assert "work" in desk.pool.members
    first, second = await desk.finish(started), await desk.finish(started)
    assert first.verdict.ok
    assert first == second


async def test_finish_waits_for_the_browser(desk: Desk) -> None:
    """Whoever asks before the browser came back gets the answer when it does."""
    started = await desk.begin()
    waiting = asyncio.create_task(desk.finish(started))
    await asyncio.sleep(0)
    await Browser.visit(started.url)
    assert (await waiting).verdict.ok


@pytest.mark.parametrize("form", ["address", "query", "code=", "bare"])
async def test_a_pasted_answer_does_as_well(desk: Desk, form: str) -> None:
    """Without a way back to us, the address that the browser shows is enough, or the code in it."""
    started = await desk.begin(listen=False)
    assert started.port == 0
    address = await Browser.consent(started.url)
    pasted = {
        "address": f'"{address}"',
        "query": urlsplit(address).query,
        "code=": f"code={code_of(address)}",
        "bare": code_of(address),
    }
    assert (await desk.finish(started, pasted[form])).verdict.ok


async def test_a_pasted_answer_wakes_who_waits(desk: Desk) -> None:
    """An editor waits while a person pastes elsewhere: both are told of the one login."""
    started = await desk.begin()
    waiting = asyncio.create_task(desk.finish(started))
    await asyncio.sleep(0)
    pasted = await desk.finish(started, await Browser.consent(started.url))
    assert (await waiting).account == pasted.account == "work"
    assert len(desk.fake.world.grants) == 1


@pytest.mark.parametrize(
    ("backend", "more"),
    [("developer-api", {"project": "shop"}), ("vertex", {"project": "shop", "location": "us-central1"})],
)
async def test_other_backends(desk: Desk, backend: str, more: dict[str, str]) -> None:
    """A login may serve the Developer API or Vertex: then one cheap real call is the proof, and the e-mail is known."""
    result = await desk.log_in("other", backend=backend, **more)
    assert (result.verdict.ok, result.verdict.email, result.verdict.licensed) == (
        True,
        "ann@example.com",
        None,
    )
    kinds = [call.kind for call in desk.fake.record.calls if call.kind in {"models", "count"}]
    assert kinds == [{"developer-api": "models", "vertex": "count"}[backend]]
    member = desk.pool.members["other"]
    assert (member.email, bool(member.sub)) == ("ann@example.com", True)


async def test_comments_of_the_file_stay(desk: Desk) -> None:
    """A login adds its entry behind what its owner wrote."""
    text = '# mine\n[[account]]\nid = "key"\nbackend = "developer-api"\ncredential = { type = "api-key", secret = { env = "K" } }\n'
    desk.write(text)
    await desk.log_in()
    assert desk.text.startswith(text)


async def test_who_is_asked_where_the_answer_does_not_say(desk: Desk) -> None:
    """Without an id token, userinfo tells the e-mail; when that fails, too, the login is as good."""
    desk.fake.faults.add(Fault.status(503), when=Match(kind="userinfo"), times=None)
    desk.fake.world.login_as = desk.fake.world.users["ann"]
    result = await desk.log_in(backend="developer-api")
    assert result.verdict.ok


# ---- once more ---------------------------------------------------------------------------------------------------


async def test_a_dead_login_is_replaced_with_its_own_client(desk: Desk) -> None:
    """`gemini-pool login ID` alone mends an account: same client, same place, its e-mail named to Google."""
    await desk.log_in()
    old = desk.secret("work.json")
    desk.fake.world.revoke("ann")
    with pytest.raises(PoolError):
        await desk.lifecycle.tokens.renew("work", "refused")  # type: ignore[arg-type]
    assert desk.pool.members["work"].state is AccountState.LOGIN_REQUIRED
    text = desk.text
    started = await desk.begin(client_secrets=None)
    assert parse_qs(urlsplit(started.url).query)["login_hint"] == ["ann@example.com"]
    await Browser.visit(started.url)
    result = await desk.finish(started)
    assert (result.created, result.verdict.ok, result.verdict.notes) == (False, True, [])
    assert desk.text == text
    new = desk.secret("work.json")
    assert {**new, "refresh_token": ""} == {**old, "refresh_token": ""}
    assert new["refresh_token"] != old["refresh_token"]
    assert json.loads((desk.state_dir / "secrets" / "work.json.1").read_bytes()) == old


async def test_another_person_is_noticed(desk: Desk) -> None:
    """Whoever logs in with another Google account than before is told so."""
    await desk.log_in()
    desk.fake.world.login_as = desk.fake.world.add_user("bob", projects=["shop"])
    result = await desk.log_in()
    assert result.email == "bob@example.com"
    assert any(
        "another Google account than before (ann@example.com)" in note for note in result.verdict.notes
    )


async def test_two_accounts_of_one_person_share_a_quota(desk: Desk) -> None:
    """A second Code Assist account of the same person brings no more quota, and the login says it."""
    await desk.log_in("one")
    result = await desk.log_in("two")
    assert any("the same Google account is one" in note for note in result.verdict.notes)


async def test_a_place_that_cannot_be_written_is_left(desk: Desk) -> None:
    """An account whose login comes from a variable gets a file of its own, and its owner is told."""
    desk.write(
        '[[account]]\nid = "work"\nbackend = "code-assist"\ncredential = { type = "oauth", secret = { env = "L" } }  # mine\n'
    )
    result = await desk.log_in()
    assert result.verdict.ok
    assert 'secret = { file = "secrets/work.json" } }  # mine' in desk.text
    assert any("cannot be written" in note for note in result.verdict.notes)


# ---- what ends a login, and what does not -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "word", ["access_denied", "admin_policy_enforced", "org_internal", "disallowed_useragent"]
)
async def test_google_says_no(desk: Desk, word: str) -> None:
    """An error ends the login, in words, for the browser and for whoever waits."""
    desk.fake.world.login_error = word
    started = await desk.begin()
    page = (await Browser.visit(started.url))[1]
    assert word in page
    with pytest.raises(PoolError, match=word) as caught:
        await desk.finish(started)
    assert caught.value.hint
    assert desk.text == ""


async def test_an_old_tab_ends_nothing(desk: Desk) -> None:
    """A code that Google does not know, of the right state, is passed over; the newest tab still counts."""
    started = await desk.begin()
    address = await Browser.consent(started.url)
    assert "another login" in (await Browser.get(address.replace(code_of(address)[2:], "fake-old")))[1]
    with pytest.raises(PoolError, match="does not know this code"):
        await desk.finish(started, "4/fake-slip")
    await Browser.get(address)
    assert (await desk.finish(started)).verdict.ok


async def test_the_network_ends_nothing(desk: Desk) -> None:
    """While the token endpoint fails, the same answer may be given again."""
    started = await desk.begin()
    address = await Browser.consent(started.url)
    desk.fake.faults.add(Fault.status(503), when=Match(kind="token"), times=2)
    assert "did not work" in (await Browser.get(address))[1]
    with pytest.raises(PoolError) as caught:
        await desk.finish(started, address)
    assert caught.value.retryable or caught.value.code == "upstream_error"
    await Browser.get(address)
    assert (await desk.finish(started)).verdict.ok


async def test_a_code_is_spent_once(desk: Desk) -> None:
    """The same answer twice makes one login."""
    started = await desk.begin()
    address = await Browser.consent(started.url)
    await Browser.get(address)
    await desk.finish(started, address)
    assert desk.fake.record.count("token") - 1 == 1  # the exchange, and the account's own first renewal
    assert len(desk.fake.world.grants) == 1


async def test_no_refresh_token_is_no_login(desk: Desk) -> None:
    """An answer without a refresh token would last an hour: it is refused, with the way out."""
    started = await desk.begin()
    address = await Browser.consent(started.url.replace("access_type=offline", "access_type=online"))
    await Browser.get(address)
    with pytest.raises(PoolError, match="no refresh token") as caught:
        await desk.finish(started)
    assert "myaccount.google.com" in caught.value.hint
    assert desk.text == ""


async def test_a_box_that_was_not_ticked(desk: Desk) -> None:
    """A login without Google Cloud's scope is refused before anything is kept."""
    started = await desk.begin()
    url = started.url.replace("https%3A%2F%2Fwww.googleapis.com%2Fauth%2Fcloud-platform+", "")
    await Browser.get(await Browser.consent(url))
    with pytest.raises(PoolError, match="not granted") as caught:
        await desk.finish(started)
    assert "ticked" in caught.value.hint
    assert not (desk.state_dir / "secrets").exists()


async def test_a_wrong_client_secret(desk: Desk) -> None:
    """Google refuses the client at the exchange: said as such, and over."""
    wrong = desk.client()
    wrong["installed"]["client_secret"] = "fake-wrong"
    started = await desk.begin(client_secrets=wrong)
    await Browser.visit(started.url)
    with pytest.raises(PoolError, match="refuses the OAuth client"):
        await desk.finish(started)


async def test_a_verifier_that_is_not_ours(desk: Desk) -> None:
    """A code that was asked for with another verifier is worth nothing (PKCE), and ends the login."""
    started, other = await desk.begin(), await desk.begin("other")
    stolen = code_of(await Browser.consent(other.url))
    with pytest.raises(PoolError, match="invalid_grant|redirect"):
        await desk.finish(started, stolen)


async def test_a_newer_login_for_the_account_ends_the_older(desk: Desk) -> None:
    """Two tabs, one account: the newer one counts, who waits for the older is told."""
    older = await desk.begin()
    waiting = asyncio.create_task(desk.finish(older))
    await asyncio.sleep(0)
    newer = await desk.begin()
    with pytest.raises(PoolError, match="another login"):
        await waiting
    await Browser.visit(newer.url)
    assert (await desk.finish(newer)).verdict.ok


async def test_many_logins_do_not_pile_up(desk: Desk) -> None:
    """The oldest of too many open logins is given up."""
    first = await desk.begin("a0")
    for number in range(1, 17):
        await desk.begin(f"a{number}", listen=False)
    with pytest.raises(PoolError) as caught:
        await desk.finish(first)
    assert caught.value.code == "not_found"


async def test_nobody_comes_back(desk: Desk) -> None:
    """After the limit, waiting ends and says what is left to do; pasting still works."""
    desk.login._limit_s = 0.0
    started = await desk.begin()
    with pytest.raises(PoolError) as caught:
        await desk.finish(started)
    assert caught.value.code == "deadline"
    assert (await desk.finish(started, await Browser.consent(started.url))).verdict.ok


async def test_without_a_listener_there_is_nothing_to_wait_for(desk: Desk) -> None:
    """Who asked for no listener must paste."""
    with pytest.raises(PoolError, match="give the code"):
        await desk.finish(await desk.begin(listen=False))


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"account": "No Good"}, "cannot be an account's id"),
        ({"account": "x", "client_secrets": None}, "needs an OAuth client"),
        ({"account": "x", "client_secrets": {"type": "service_account"}}, "service account"),
        ({"account": "x", "client_secrets": {"installed": {"client_id": "c"}}}, "no client_secret"),
        ({"account": "x", "use_gemini_cli": True}, "not both"),
        ({"account": "x", "backend": "vertex"}, "needs a project"),
        ({"account": "x", "location": "us"}, "location belongs"),
        ({"account": "key"}, "is no login"),
    ],
)
async def test_what_cannot_be_begun(desk: Desk, params: dict[str, object], words: str) -> None:
    """Whatever stands against a login is said before a browser opens."""
    desk.write(
        '[[account]]\nid = "key"\nbackend = "developer-api"\ncredential = { type = "api-key", secret = { env = "K" } }\n'
    )
    with pytest.raises(PoolError, match=words) as caught:
        await desk.begin(**params)
    assert caught.value.code == "bad_request"


async def test_a_broken_accounts_file_is_mended_first(desk: Desk) -> None:
    """A login is not begun when its entry could not be written in the end."""
    desk.path.write_text("[[account]\n", encoding="utf-8")
    with pytest.raises(ConfigInvalid):
        await desk.begin()


async def test_a_file_that_broke_meanwhile_loses_no_login(desk: Desk) -> None:
    """The login is kept although its entry cannot be written; what is wrong with the file is said."""
    started = await desk.begin()
    desk.path.write_text("[[account]\n", encoding="utf-8")
    assert "did not work" in (await Browser.visit(started.url))[1]
    with pytest.raises(PoolError) as caught:
        await desk.finish(started)
    assert caught.value.code == "config_invalid"
    assert desk.secret("work.json")["refresh_token"] in desk.fake.world.grants
    assert desk.text == "[[account]\n"


async def test_a_client_that_goes_loses_no_login(desk: Desk) -> None:
    """Whoever pasted may go away while the code is being spent: what it brings is kept all the same."""
    started = await desk.begin()
    address = await Browser.consent(started.url)
    pasting = asyncio.create_task(desk.finish(started, address))
    while not desk.fake.record.count("token"):
        await asyncio.sleep(0)
    pasting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pasting
    assert (await desk.finish(started)).verdict.ok


async def test_many_log_in_at_once(desk: Desk) -> None:
    """Logins of several accounts do not write over each other's entries."""
    names = [f"a{number}" for number in range(5)]
    results = await asyncio.gather(*(desk.log_in(name) for name in names))
    assert all(result.verdict.ok for result in results)
    assert sorted(entry.id for entry in desk.file.read().entries) == names


async def test_the_daemon_stops(desk: Desk) -> None:
    """Open logins end with the daemon, and who waits is told."""
    started = await desk.begin()
    waiting = asyncio.create_task(desk.finish(started))
    await asyncio.sleep(0)
    await desk.login.aclose()
    with pytest.raises(PoolError) as caught:
        await waiting
    assert caught.value.code == "shutting_down"


# ---- web clients -------------------------------------------------------------------------------------------------


async def test_a_web_client_is_listened_for_where_it_is_registered(desk: Desk) -> None:
    """A client of type web comes back to its registered address, port and path included."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    uri = f"http://localhost:{port}/back"
    client = desk.fake.world.add_client("web", kind="web", redirect_uris=(uri,))
    started = await desk.begin(client_secrets=desk.fake.world.client_file(client))
    assert (started.redirect_uri, started.port) == (uri, port)
    address = await Browser.consent(started.url)
    await Browser.get(address.replace("localhost", "127.0.0.1"))
    assert (await desk.finish(started)).verdict.ok


async def test_a_web_client_without_a_local_address_is_pasted(desk: Desk) -> None:
    """Its answer arrives at its site; the address that the browser shows there is pasted."""
    client = desk.fake.world.add_client("web", kind="web", redirect_uris=("https://site.example/cb",))
    started = await desk.begin(client_secrets=desk.fake.world.client_file(client))
    assert started.port == 0
    assert (await desk.finish(started, await Browser.consent(started.url))).verdict.ok


# ---- what Code Assist says about the account -----------------------------------------------------------------------


def ineligible(code: str, **more: str) -> CodeAssist:
    tier = {"reasonCode": code, "reasonMessage": f"composed {code}", "tierId": "free-tier", **more}
    return CodeAssist(tier="", ineligible=[tier])


def error(reason: str, *, links: list[str] | None = None, **metadata: str) -> dict[str, object]:
    info = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": reason,
        "domain": "x",
        "metadata": metadata,
    }
    help_ = {
        "@type": "type.googleapis.com/google.rpc.Help",
        "links": [{"description": "go", "url": u} for u in links or []],
    }
    details = [info, *([help_] if links else [])]
    return {"error": {"code": 403, "status": "PERMISSION_DENIED", "message": "composed", "details": details}}


REFUSALS = {
    "individuals": (ineligible("UNSUPPORTED_CLIENT"), "unsupported_client", False, ["aistudio.google.com/apikey", "account add"]),
    "no licence": (
        CodeAssist(load_refusal=error("SUBSCRIPTION_REQUIRED", links=["https://licence.example/"])),
        "unlicensed", False, ["https://licence.example/", "account verify work"],
    ),
    "workspace": (ineligible("DASHER_USER"), "unlicensed", False, ["request-license", "account verify work"]),
    "validation": (
        ineligible("VALIDATION_REQUIRED", validationUrl="https://check.example/v"),
        "needs_validation", None, ["https://check.example/v", "account verify work"],
    ),
    "suspended": (
        CodeAssist(load_refusal=error("TOS_VIOLATION", appeal_url="https://appeal.example/")),
        "suspended", None, ["appeal", "account clear-cooldown work"],
    ),
    "api off": (
        CodeAssist(load_refusal=error("SERVICE_DISABLED", activationUrl="https://enable.example/", service="s")),
        "project_misconfigured", None, ["https://enable.example/", "account verify"],
    ),
    "wrong project": (
        CodeAssist(load_refusal=error("CONSUMER_INVALID", consumer="projects/x")),
        "project_misconfigured", None, ["`project`", "account verify work"],
    ),
    "project denied": (
        CodeAssist(load_refusal=error("USER_PROJECT_DENIED")),
        "project_misconfigured", None, ["serviceUsageConsumer", "account verify work"],
    ),
    "no project": (
        CodeAssist(tier="standard-tier", project=""), "project_misconfigured", None, ["`project`", "account verify work"],
    ),
    "vpc-sc": (
        CodeAssist(load_refusal=error("SECURITY_POLICY_VIOLATED")), "project_misconfigured", None, ["`project`"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_refused_set_up_says_the_next_step(tmp_path: Path, name: str) -> None:
    """The login is kept; what stands against its use is named with the page to open and the command to type."""
    assist, state, licensed, steps = REFUSALS[name]
    world = World()
    world.add_user("ann", code_assist=assist)
    async with desk_of(tmp_path, world) as desk:
        verdict = (await desk.log_in()).verdict
        assert (verdict.ok, verdict.state, verdict.licensed) == (False, state, licensed)
        assert verdict.reason
        assert not [step for step in steps if step not in verdict.next], verdict.next
        assert "work" in desk.text


async def test_vpc_sc_with_a_project_goes_on(tmp_path: Path) -> None:
    """A perimeter hides loadCodeAssist only: with a configured project the account serves."""
    world = World()
    world.add_user(
        "ann",
        projects=["shop"],
        code_assist=CodeAssist(project="shop", load_refusal=error("SECURITY_POLICY_VIOLATED")),
    )
    async with desk_of(tmp_path, world) as desk:
        verdict = (await desk.log_in(project="shop")).verdict
        assert (verdict.ok, verdict.project) == (True, "shop")


async def test_a_new_user_is_onboarded(tmp_path: Path) -> None:
    """Who was never here is made known to Google, with the project he named."""
    world = World()
    world.add_user("ann", projects=["shop"], code_assist=CodeAssist(tier="", onboarding=0))
    async with desk_of(tmp_path, world) as desk:
        verdict = (await desk.log_in(project="shop")).verdict
        assert (verdict.ok, verdict.project, verdict.tier) == (True, "shop", "standard-tier")


async def test_google_cannot_be_reached_for_the_set_up(desk: Desk) -> None:
    """The login is good, its set-up is tried again by itself, and the verdict says so."""
    desk.fake.faults.add(Fault.status(503), when=Match(kind="load"), times=None)
    verdict = (await desk.log_in()).verdict
    assert (verdict.ok, verdict.state) == (False, "offline")
    assert "by itself" in verdict.next


# ---- another program's client ------------------------------------------------------------------------------------


def install(folder: Path, client_id: str, secret: str) -> Path:
    """A Gemini CLI as npm installs it: a package, its bundle, and a command that links to it."""
    root = folder / "lib" / "node_modules" / "@google" / "gemini-cli"
    (root / "bundle").mkdir(parents=True)
    (root / "package.json").write_text(json.dumps({"name": "@google/gemini-cli"}), encoding="utf-8")
    text = f'var OAUTH_CLIENT_ID = "{client_id}";\n// why\nvar OAUTH_CLIENT_SECRET = "{secret}";\n'
    (root / "bundle" / "gemini.js").write_text(text, encoding="utf-8")
    (root / "bundle" / "gemini.js").chmod(0o755)
    (folder / "bin").mkdir()
    (folder / "bin" / "gemini").symlink_to(root / "bundle" / "gemini.js")
    return folder / "bin"


@pytest.fixture
async def foreign(tmp_path: Path) -> AsyncIterator[Desk]:
    """A desk beside an installed Gemini CLI whose OAuth client Google knows."""
    world = World()
    world.add_user("ann", projects=["shop"])
    client = world.add_client("cli")
    world.clients.pop(client.id)
    client.id = "123456789-fakefakefake.apps.googleusercontent.com"
    world.clients[client.id] = client
    path = install(tmp_path / "npm", client.id, client.secret)
    async with desk_of(tmp_path, world, environ={"PATH": str(path)}) as desk:
        yield desk


async def test_another_programs_client_is_refused_by_default(foreign: Desk) -> None:
    """Without a yes nothing is read and nothing begun; the refusal brings the wording and how to say yes."""
    with pytest.raises(PoolError) as caught:
        await foreign.begin(client_secrets=None, use_gemini_cli=True)
    assert caught.value.code == "blocked_by_terms"
    assert caught.value.details == {
        "wording": terms.FOREIGN_CLIENT.text, "accept_terms_risk": terms.FOREIGN_CLIENT.id,
    }  # fmt: skip


@pytest.mark.parametrize("answer", ["yes", "true", "foreign-client-0"])
async def test_a_yes_names_what_was_read(foreign: Desk, answer: str) -> None:
    """Only the id of the wording in force is a yes."""
    with pytest.raises(PoolError) as caught:
        await foreign.begin(client_secrets=None, use_gemini_cli=True, accept_terms_risk=answer)
    assert caught.value.code == "blocked_by_terms"


async def test_an_accepted_risk_is_on_record(foreign: Desk) -> None:
    """After the yes the login works; the entry is foreign and holds the day and the wording."""
    result = await foreign.log_in(
        client_secrets=None, use_gemini_cli=True, accept_terms_risk="foreign-client-1"
    )
    assert (result.verdict.ok, result.client_origin) == (True, "foreign")
    entry = foreign.file.read().entries[0]
    assert entry.client_origin == "foreign"
    assert terms.FOREIGN_CLIENT.text in entry.accepted_terms_risk
    assert entry.accepted_terms_risk.startswith("20")


async def test_once_accepted_a_new_login_needs_no_second_yes(foreign: Desk) -> None:
    """The record is the account's: logging in again asks nothing."""
    await foreign.log_in(client_secrets=None, use_gemini_cli=True, accept_terms_risk="foreign-client-1")
    before = foreign.text
    assert (await foreign.log_in(client_secrets=None)).verdict.ok
    assert foreign.text == before


async def test_ones_own_client_ends_being_foreign(foreign: Desk) -> None:
    """An account that is logged in anew with a client of one's own is one's own."""
    await foreign.log_in(client_secrets=None, use_gemini_cli=True, accept_terms_risk="foreign-client-1")
    await foreign.log_in()
    entry = foreign.file.read().entries[0]
    assert (entry.client_origin, entry.accepted_terms_risk) == ("own", "")


async def test_no_gemini_cli_here(desk: Desk) -> None:
    """Where none is installed, that is said."""
    desk.environ["PATH"] = "/nonexistent"
    with pytest.raises(PoolError) as caught:
        await desk.begin(
            client_secrets=None,
            use_gemini_cli=True,
            accept_terms_risk="foreign-client-1",
            gemini_cli=str(desk.folder),
        )
    assert caught.value.code == "not_found"


# ---- secrets -----------------------------------------------------------------------------------------------------


async def test_no_secret_is_anywhere_else(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """Through good and bad logins, tokens, codes and client secrets are in the files that own them and nowhere else."""
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    said.append(repr(await desk.log_in()))
    for account, params in (("denied", {}), ("malformed", {}), ("spent", {})):
        started = await desk.begin(account, **params)
        said.append(repr(started))
        address = await Browser.consent(started.url)
        attempts = {
            "denied": ["error=access_denied"],
            "malformed": ["4/fake-code-nobody"],
            "spent": [address, address],
        }
        for pasted in attempts[account]:
            try:
                said.append(repr(await desk.finish(started, pasted)))
            except PoolError as problem:
                said += [str(problem), repr(problem), repr(problem.details), problem.hint]
    everything = "\n".join([*said, *desk.events, caplog.text])
    found = secrets_of(desk.fake)
    assert not [secret for secret in found if secret in everything]
    owners = {"secrets", "tokens"}
    leaks = [
        (path, secret)
        for path, text in desk.written()
        if path.parent.name not in owners
        for secret in found
        if secret in text
    ]
    assert leaks == []


def test_parameters_do_not_show_what_they_hold() -> None:
    """A traceback may show a repr: the parameters that hold secrets tell their type alone."""
    shown = [
        wire.LoginParams("x", client_secrets={"installed": {"client_secret": "fake-secret"}}),
        wire.LoginFinishParams("x", "4/fake-code"),
        wire.AccountAddParams("x", "developer-api", secret_text="fake-key"),
        wire.ArchiveParams("fake-pass"),
        wire.UnarchiveParams("x", "fake-pass"),
    ]
    assert not [each for each in map(repr, shown) if "fake" in each]
