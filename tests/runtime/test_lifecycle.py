"""From the accounts file to an account that serves: real credentials, set-up and HTTP, against the fake Google."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from tests.runtime.rig import Rows

from gemini_poold.accounts.schema import parse
from gemini_poold.clock import SystemClock
from gemini_poold.config import Endpoints, Network
from gemini_poold.core.model import AccountState
from gemini_poold.core.state import Pool
from gemini_poold.credentials.base import Context
from gemini_poold.fake import CodeAssist, FakeGoogle, Fault, Match, World
from gemini_poold.runtime.broker import Broker
from gemini_poold.runtime.lifecycle import Lifecycle
from gemini_poold.runtime.setup import Setup
from gemini_poold.runtime.tokens import Need
from gemini_poold.transport import AiohttpTransport

KEY = '[[account]]\nid = "key"\nbackend = "developer-api"\ncredential = { type = "api-key", secret = { env = "KEY" } }\n'
USER = (
    '[[account]]\nid = "user"\nbackend = "code-assist"\n'
    'credential = { type = "oauth", secret = { file = "user.json" } }\n'
)


class House:
    """A lifecycle with everything around it that is real."""

    def __init__(self, fake: FakeGoogle, folder: Path) -> None:
        self.fake = fake
        self.folder = folder
        self.clock = SystemClock()
        self.pool = Pool(rng=random.Random(1).random)
        self.broker = Broker(self.pool, self.clock, Rows())
        self.environ = {"KEY": "fake-key-key"}
        endpoints = Endpoints(**fake.endpoints())
        self.transport = AiohttpTransport(Network())
        context = Context(self.transport, endpoints, self.clock, folder, self.environ, 600.0)
        setup = Setup(self.transport, endpoints, self.clock)
        self.lifecycle = Lifecycle(self.broker, setup, context, clock=self.clock, rng=lambda: 0.0)

    def apply(self, text: str) -> None:
        self.lifecycle.apply(parse(text, "accounts.toml"))

    def state(self, name: str) -> AccountState:
        return self.pool.members[name].shown_state

    def log_in(self, **given: object) -> None:
        """A login of a person's, as a file of ours."""
        world = self.fake.world
        user = world.users.get("user") or world.add_user("user", projects=["proj"], **given)
        client = next(iter(world.clients.values()), None) or world.add_client()
        path = self.folder / "user.json"
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_text(json.dumps(world.authorized_user(user, client)), encoding="utf-8")

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for something to become true; every event of the pool is a moment to look."""
        woken = asyncio.Event()
        leave = self.broker.subscribe(lambda _event: woken.set())
        try:
            async with asyncio.timeout(10):
                while not holds():
                    woken.clear()
                    await woken.wait()
        finally:
            leave()


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    tmp_path.chmod(0o700)
    world = World()
    world.add_api_key("key")
    async with FakeGoogle(world) as fake:
        house = House(fake, tmp_path)
        tasks = [asyncio.create_task(run) for run in (house.lifecycle.tokens.run(), house.lifecycle.run())]
        yield house
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await house.transport.aclose()


async def test_a_key_serves_at_once(house: House) -> None:
    """An API key needs no call: its account is ready when the file is applied."""
    house.apply(KEY)
    assert house.state("key") is AccountState.READY


async def test_a_login_is_set_up_before_it_serves(house: House) -> None:
    """A Code Assist login gets a token, its project is discovered, and only then is it ready."""
    house.log_in()
    house.apply(USER)
    assert house.state("user") is AccountState.STARTING
    await house.until(lambda: house.state("user") is AccountState.READY)
    member = house.pool.members["user"]
    assert (house.pool.project_of("user"), member.email, member.bucket) == (
        "proj", "user@example.com", f"ca:{member.sub}",
    )  # fmt: skip
    assert house.fake.record.count("load") == 1


async def test_an_unlicensed_login_says_so(house: House) -> None:
    """What Google refuses at set-up becomes the account's state, with words for its owner; it is not hammered."""
    house.log_in(code_assist=CodeAssist(project="proj"))
    house.fake.faults.add(Fault.status(403, body=_unlicensed()), when=Match(kind="load"), times=None)
    house.apply(USER)
    await house.until(lambda: house.state("user") is not AccountState.STARTING)
    member = house.pool.members["user"]
    assert member.state is AccountState.UNLICENSED
    assert member.reason
    assert house.fake.record.count("load") == 1


async def test_a_new_token_does_not_make_an_account_licensed(house: House) -> None:
    """What a backend said of an account in the middle of its work is not undone by the token endpoint: Code Assist is
    asked again, and its word counts."""
    house.log_in()
    house.apply(USER)
    await house.until(lambda: house.state("user") is AccountState.READY)
    house.pool.refuse("user", AccountState.UNLICENSED, house.clock.now(), reason="no licence")
    rule = house.fake.faults.add(Fault.status(403, body=_unlicensed()), when=Match(kind="load"), times=None)
    states: list[AccountState] = []
    house.broker.subscribe(lambda _event: states.append(house.state("user")))
    await house.lifecycle.tokens.renew("user", Need.SHORT)
    await house.until(lambda: house.fake.record.count("load") == 2)
    await asyncio.sleep(0)
    assert house.state("user") is AccountState.UNLICENSED
    assert AccountState.READY not in states
    house.fake.faults.remove(rule)
    await house.lifecycle.tokens.renew("user", Need.SHORT)
    house.lifecycle.set_up_again("user")  # as a person's `verify` does; by itself only after a while
    await house.until(lambda: house.state("user") is AccountState.READY)


async def test_a_set_up_that_fails_for_now_is_tried_again(house: House) -> None:
    """A 503 at set-up is a passing state; the next try makes the account ready."""
    house.fake.faults.add(Fault.status(503), when=Match(kind="load"), times=1)
    house.log_in()
    house.apply(USER)
    await house.until(lambda: house.state("user") is AccountState.OFFLINE)
    await house.until(lambda: house.state("user") is AccountState.READY)


async def test_a_token_refused_at_set_up_is_renewed_once(house: House) -> None:
    """A 401 in the set-up renews the token and repeats, whatever the clock says."""
    house.fake.faults.add(Fault.status(401), when=Match(kind="load"), times=1)
    house.log_in()
    house.apply(USER)
    await house.until(lambda: house.state("user") is AccountState.READY)
    assert (house.fake.record.count("token"), house.fake.record.count("load")) == (2, 2)


async def test_a_dead_login_waits_for_a_new_one(house: House) -> None:
    """invalid_grant holds the account without further calls; a new login in the same file brings it back."""
    house.log_in()
    house.fake.world.revoke("user")
    house.apply(USER)
    await house.until(lambda: house.state("user") is AccountState.LOGIN_REQUIRED)
    calls = house.fake.record.count("token")
    house.apply(USER)
    assert house.fake.record.count("token") == calls
    assert "gemini-pool login user" in house.pool.members["user"].hint

    house.log_in()
    house.apply(USER)
    await house.until(lambda: house.state("user") is AccountState.READY)


async def test_a_foreign_login_needs_its_owners_word(house: House) -> None:
    """A login made with another program's client is refused until the risk is accepted on record; no call before."""
    house.log_in()
    foreign = USER + 'client_origin = "foreign"\n'
    house.apply(foreign)
    assert house.state("user") is AccountState.BLOCKED_BY_TERMS
    assert house.fake.record.count("token") == 0
    house.apply(foreign + 'accepted_terms_risk = "2026-11-24: I know"\n')
    await house.until(lambda: house.state("user") is AccountState.READY)


async def test_a_missing_secret_heals_when_it_appears(house: House) -> None:
    """A variable or file that is not there keeps one account out, with its name; the next reload finds it."""
    del house.environ["KEY"]
    house.apply(KEY)
    assert house.state("key") is AccountState.SECRET_MISSING
    assert "KEY" in house.pool.members["key"].reason
    house.environ["KEY"] = "fake-key-key"
    house.lifecycle.retry("key")
    assert house.state("key") is AccountState.READY


async def test_disabling_and_enabling(house: House) -> None:
    """A disabled account asks Google nothing; enabled again it serves."""
    house.log_in()
    house.apply(USER + "enabled = false\n")
    assert house.state("user") is AccountState.DISABLED
    house.apply(USER)
    await house.until(lambda: house.state("user") is AccountState.READY)


async def test_an_edit_that_changes_nothing_about_the_login_asks_nothing(house: House) -> None:
    """Another priority is no reason for a token call or a set-up."""
    house.log_in()
    house.apply(USER)
    await house.until(lambda: house.state("user") is AccountState.READY)
    calls = house.fake.record.received
    house.apply(USER + "priority = 3\n")
    assert house.state("user") is AccountState.READY
    assert house.fake.record.received == calls
    assert house.pool.members["user"].account.priority == 3


async def test_renewals_are_counted(house: House) -> None:
    """The pool's totals know how many tokens were renewed, over restarts."""
    house.log_in()
    house.apply(USER)
    await house.until(lambda: house.state("user") is AccountState.READY)
    assert house.pool.totals["renewals"] == 1


def _unlicensed() -> bytes:
    return json.dumps({
        "error": {"code": 403, "status": "PERMISSION_DENIED", "message": "no licence (#3501)", "details": [
            {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "SUBSCRIPTION_REQUIRED",
             "domain": "cloudaicompanion.googleapis.com", "metadata": {"uiMessage": "true"}},
        ]}
    }).encode()  # fmt: skip
