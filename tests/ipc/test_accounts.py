"""The verbs that manage accounts, over a real socket: each reaches its work, and a sandbox's socket has none of them.

What each does in all its cases is tested where it is done, in tests/login and tests/transfer.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.ipc.harness import Raw
from tests.login.rig import Browser
from tests.transfer.rig import Office, oauth_creds, office_of

from gemini_pool import wire
from gemini_poold.config import Config
from gemini_poold.core.model import AccountState, Kind, Outcome, Scope
from gemini_poold.core.quota import Quotas
from gemini_poold.fake import World
from gemini_poold.ipc import accounts, listen
from gemini_poold.ipc.server import Server
from gemini_poold.ipc.services import Services
from gemini_poold.runtime.dispatch import Dispatcher
from gemini_poold.runtime.poller import Poller
from gemini_poold.transfer.managing import Managing

MODEL = "gemini-2.5-flash"
HEAD = "# mine\n"


class Counter:
    """A server whose accounts can be managed, its person's home, and a connection."""

    def __init__(self, office: Office, raw: Raw, server: Server) -> None:
        self.office, self.desk, self.server = office, office.desk, server
        self.raw = raw
        self._serial = 0

    async def ask(self, verb: str, /, **params: Any) -> Any:
        """The result; an AssertionError with the error's data where there is none."""
        reply = await self.reply(verb, **params)
        assert "result" in reply, reply
        return reply["result"]

    async def error(self, verb: str, /, **params: Any) -> dict[str, Any]:
        reply = await self.reply(verb, **params)
        assert "error" in reply, reply
        return {"message": reply["error"]["message"], **reply["error"]["data"]}

    async def reply(self, verb: str, /, **params: Any) -> dict[str, Any]:
        self._serial += 1
        return await self.raw.ask(self._serial, verb, **params)

    async def log_in(self, account: str = "work") -> Any:
        started = await self.ask("account/login", account=account, client_secrets=self.desk.client())
        await Browser.visit(started["url"])
        return await self.ask("account/loginFinish", login=started["login"])


async def connect(path: Path) -> Raw:
    return Raw(*await asyncio.open_unix_connection(path, limit=2**26))


@asynccontextmanager
async def counter_of(folder: Path) -> AsyncIterator[Counter]:
    world = World()
    world.add_user("ann", projects=["shop"])
    world.add_api_key("k")
    async with office_of(folder, world) as office, AsyncExitStack() as stack:
        desk = office.desk
        desk.write(HEAD)
        managing = Managing(desk.path, desk.running, desk.reload)
        stack.push_async_callback(managing.aclose)
        server = Server(services_of(office, managing))
        stack.push_async_callback(server.close)
        path, use_path = folder / "run" / "pool.sock", folder / "run" / "use.sock"
        await server.listen(listen.bind(path))
        await server.listen(listen.bind(use_path), "use")
        raw = await connect(path)
        stack.push_async_callback(raw.close)
        yield Counter(office, raw, server)


def services_of(office: Office, managing: Managing) -> Services:
    desk, config = office.desk, Config()
    tokens, ways, clock = desk.lifecycle.tokens, desk.running.backends, desk.clock
    ca = next(way for way in ways.values() if way.form == "ca")
    return Services(
        broker=desk.broker,
        tokens=tokens,
        dispatcher=Dispatcher(
            desk.broker, tokens, ways, desk.transport, clock=clock, limits=config.gateway
        ),
        poller=Poller(
            desk.broker, tokens, ca, desk.transport, quotas=Quotas(), clock=clock, rng=lambda: 0.5, interval_s=300
        ),
        backends=ways,
        clock=clock,
        config=lambda: config,
        info=lambda: pytest.fail("not asked here"),
        reload=lambda: pytest.fail("not asked here"),
        state=lambda: "ready",
        managing=lambda: managing,
    )  # fmt: skip


@pytest.fixture
async def counter(tmp_path: Path) -> AsyncIterator[Counter]:
    async with counter_of(tmp_path) as counter:
        yield counter


async def test_log_in_through_a_browser(counter: Counter) -> None:
    """account/login brings an address; loginFinish waits for the browser and tells what the account is."""
    result = await counter.log_in()
    assert (result["account"], result["created"], result["email"]) == ("work", True, "ann@example.com")
    assert result["verdict"]["ok"]
    assert result["verdict"]["licensed"]
    assert counter.desk.text.startswith(HEAD)


async def test_log_in_with_a_pasted_address(counter: Counter) -> None:
    """Without a listener the redirect's address is handed in; a slip of the hand does not end the login."""
    secrets = counter.desk.client()
    started = await counter.ask("account/login", account="work", client_secrets=secrets, listen=False)
    assert started["port"] == 0
    error = await counter.error("account/loginFinish", login=started["login"], code="two words")
    assert error["code"] == "bad_request"
    assert "two words" not in error["message"]
    back = await Browser.consent(started["url"])
    result = await counter.ask("account/loginFinish", login=started["login"], code=back)
    assert result["verdict"]["ok"]


async def test_a_foreign_login_needs_its_wording_accepted(counter: Counter) -> None:
    """The refusal carries the wording and the id that accepts it; with that id the login begins."""
    counter.office.cli_client()
    error = await counter.error("account/login", account="work", use_gemini_cli=True)
    assert error["code"] == "blocked_by_terms"
    assert "violates its terms" in error["details"]["wording"]
    started = await counter.ask(
        "account/login",
        account="work",
        use_gemini_cli=True,
        accept_terms_risk=error["details"]["accept_terms_risk"],
    )
    assert started["client_origin"] == "foreign"


async def test_a_stopping_daemon_does_not_wait_for_a_person(counter: Counter) -> None:
    """Who waits for a browser is told at once that the daemon stops."""
    started = await counter.ask("account/login", account="work", client_secrets=counter.desk.client())
    counter.raw.send(counter.raw.request(99, "account/loginFinish", login=started["login"]))
    await counter.ask("account/list")  # the one before it is under way
    async with asyncio.timeout(20):
        await counter.server.drain(600.0)
    reply = await counter.raw.reply(99)
    assert reply["error"]["data"]["code"] == "shutting_down"


async def test_keys_come_and_go(counter: Counter) -> None:
    """add, disable, enable, verify and remove, each in force when it is answered."""
    added = await counter.ask(
        "account/add", account="k", backend="developer-api", secret_text="fake-key-k", settings={"priority": 3}
    )  # fmt: skip
    assert added["verdict"]["ok"]
    assert [a["priority"] for a in (await counter.ask("account/list"))["accounts"]] == [3]
    assert (await counter.ask("account/disable", account="k"))["state"] == "disabled"
    assert (await counter.ask("account/enable", account="k"))["ok"]
    rows = (await counter.ask("account/verify"))["accounts"]
    assert [(row["verdict"]["account"], row["verdict"]["ok"]) for row in rows] == [("k", True)]
    assert rows[0]["call"]
    removed = await counter.ask("account/remove", account="k", delete_secret=True)
    assert removed == {"account": "k", "revoked": False, "secret_left": "", "notes": removed["notes"]}
    assert (await counter.ask("account/list"))["accounts"] == []
    assert counter.desk.text == HEAD


async def test_a_command_cannot_be_set(counter: Counter) -> None:
    """A secret that is a program's output is never set over RPC."""
    error = await counter.error(
        "account/add", account="k", backend="developer-api", secret={"command": ["touch", "it"]}
    )
    assert error["code"] == "bad_request"
    assert counter.desk.text == HEAD


@pytest.mark.parametrize("verb", ["remove", "enable", "disable", "verify", "clearCooldown", "exportOpencode"])
async def test_nobody_s_account(counter: Counter, verb: str) -> None:
    """An account that is not there is `not_found`, whatever was wanted of it."""
    params: dict[str, Any] = {"account": "nobody", "accounts": ["nobody"]}
    error = await counter.error(f"account/{verb}", **params)
    assert error["code"] == "not_found"
    assert error["hint"] == "gemini-pool account list"


async def test_clear_a_cooldown(counter: Counter) -> None:
    """Cooldowns are forgotten for one account, one model, or altogether; the number is told."""
    await counter.ask("account/add", account="k", backend="developer-api", secret_text="fake-key-k")
    pool, until = counter.desk.pool, counter.desk.clock.now() + 600
    for model in (MODEL, "gemini-3-flash-preview"):
        grant = await counter.desk.broker.acquire(_request(model), owner="t", wait_until=until)
        outcome = Outcome(Kind.RATE, Scope.ACCOUNT_MODEL, until=until, told=True, source="RetryInfo")
        counter.desk.broker.settle(grant.lease.id, outcome)
    assert len(list(pool.cooldowns.active(counter.desk.clock.now()))) == 2
    assert await counter.ask("account/clearCooldown", account="k", model=MODEL) == {
        "cleared": 1,
        "revived": False,
    }
    assert await counter.ask("account/clearCooldown") == {"cleared": 1, "revived": False}


async def test_only_a_person_clears_a_suspension(counter: Counter) -> None:
    """A suspended account stays out through verify, enable and a clearing of everything; its own name brings it back."""
    await counter.ask("account/add", account="k", backend="developer-api", secret_text="fake-key-k")
    pool, clock = counter.desk.pool, counter.desk.clock
    pool.refuse("k", AccountState.SUSPENDED, clock.now(), reason="Google has suspended the account")
    assert (await counter.ask("account/verify"))["accounts"][0]["verdict"]["state"] == "suspended"
    await counter.ask("account/enable", account="k")
    assert not (await counter.ask("account/clearCooldown"))["revived"]
    assert not (await counter.ask("account/clearCooldown", account="k", model=MODEL))["revived"]
    assert pool.members["k"].state is AccountState.SUSPENDED
    assert (await counter.ask("account/clearCooldown", account="k"))["revived"]
    assert pool.members["k"].state is not AccountState.SUSPENDED
    assert (await counter.ask("account/verify"))["accounts"][0]["verdict"]["ok"]


async def test_import_and_export(counter: Counter) -> None:
    """A login of Gemini CLI is taken over and given to opencode."""
    office = counter.office
    office.put(".gemini/oauth_creds.json", oauth_creds(office.grant().token))
    blocked = await counter.ask("account/import", source="gemini-cli")
    assert blocked["accept_terms_risk"]
    taken = await counter.ask(
        "account/import", source="gemini-cli", accept_terms_risk=blocked["accept_terms_risk"]
    )
    (row,) = taken["logins"]
    assert row["result"] == "imported"
    written = await counter.ask("account/exportOpencode", accounts=[row["account"]])
    assert Path(written["path"]).is_relative_to(office.home)


async def test_an_archive(counter: Counter) -> None:
    """What is exported comes back, under the same passphrase only."""
    await counter.ask("account/add", account="k", backend="developer-api", secret_text="fake-key-k")
    sealed = await counter.ask("account/exportArchive", passphrase="long enough")
    assert sealed["accounts"] == ["k"]
    assert b"fake-key-k" not in base64.b64decode(sealed["archive"])
    await counter.ask("account/remove", account="k", delete_secret=True)
    error = await counter.error("account/importArchive", archive=sealed["archive"], passphrase="another")
    assert error["code"] == "bad_request"
    back = await counter.ask("account/importArchive", archive=sealed["archive"], passphrase="long enough")
    assert [row["result"] for row in back["logins"]] == ["imported"]


async def test_a_sandbox_s_socket_has_none_of_them(counter: Counter, tmp_path: Path) -> None:
    """On the socket of scope "use" no account verb exists, and none is listed."""
    raw = await connect(tmp_path / "run" / "use.sock")
    try:
        listed = (await raw.ask(0, "initialize"))["result"]["methods"]
        assert not [method for method in listed if method.startswith("account/")]
        for number, (method, _, _) in enumerate(accounts.VERBS, 1):
            assert (await raw.ask(number, method))["error"]["code"] == -32601
    finally:
        await raw.close()


def _request(model: str) -> Any:
    from gemini_poold.core.model import Request

    return Request(f"r-{model}", model)


def test_secrets_are_not_in_a_repr() -> None:
    """What a traceback may show of parameters is their type alone."""
    shown = repr(wire.UnarchiveParams("archive", "a passphrase")) + repr(wire.ArchiveParams("a passphrase"))
    shown += repr(wire.LoginFinishParams("l", "4/fake-code")) + repr(
        wire.AccountAddParams("k", "developer-api", secret_text="fake-key-k")
    )
    assert "fake" not in shown
    assert "passphrase" not in shown
