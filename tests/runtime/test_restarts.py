"""What a login was refused for outlives the daemon: a restart asks Google again only when the secret is another one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gemini_poold.accounts.schema import parse
from gemini_poold.clock import SystemClock
from gemini_poold.config import Endpoints, Network
from gemini_poold.core.model import AccountState, Kind, Outcome, Request
from gemini_poold.core.state import Pool
from gemini_poold.credentials.base import Context, CredentialError
from gemini_poold.fake import FakeGoogle, World
from gemini_poold.runtime.broker import Broker
from gemini_poold.runtime.lifecycle import Lifecycle
from gemini_poold.runtime.setup import Setup
from gemini_poold.store import Store
from gemini_poold.transport import AiohttpTransport

ENTRY = (
    '[[account]]\nid = "{id}"\nbackend = "vertex"\nproject = "p"\n'
    'credential = {{ type = "oauth", secret = {{ {secret} }} }}\n'
)


class Run:
    """One life of a daemon, as far as logins go: the state of the database, no servers."""

    def __init__(self, google: FakeGoogle, folder: Path, environ: dict[str, str]) -> None:
        self.google = google
        self.clock = SystemClock()
        self.store = Store.open(folder / "state.db", self.clock)
        self.pool = Pool(rng=random.Random(1).random)
        self.pool.restore(self.store.load().rows, self.clock.now())
        self.broker = Broker(self.pool, self.clock, self.store)
        endpoints = Endpoints(**google.endpoints())
        self.transport = AiohttpTransport(Network())
        context = Context(self.transport, endpoints, self.clock, folder, environ, 600.0)
        setup = Setup(self.transport, endpoints, self.clock)
        self.lifecycle = Lifecycle(self.broker, setup, context, clock=self.clock, rng=lambda: 0.0)

    async def token(self, account: str) -> str:
        """Ask for a token as a request would; the failure's word, or "" when there is one."""
        try:
            await self.lifecycle.tokens.renew(account)
        except CredentialError as error:
            return str(error.failure)
        return ""

    def state(self, account: str) -> AccountState:
        return self.pool.members[account].shown_state


class Machine:
    """A folder and a Google that outlive the runs."""

    def __init__(self, google: FakeGoogle, folder: Path) -> None:
        self.google, self.folder, self.world = google, folder, google.world
        self.environ: dict[str, str] = {}
        self.client = self.world.add_client()
        self.accounts = ""

    def log_in(self, name: str) -> str:
        """A new login as its file's text."""
        user = self.world.users.get(name) or self.world.add_user(name, projects=["p"])
        return json.dumps(self.world.authorized_user(user, self.client))

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")

    @property
    def calls(self) -> int:
        return self.google.record.count("token")

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[Run]:
        run = Run(self.google, self.folder, dict(self.environ))
        try:
            run.lifecycle.apply(parse(self.accounts, "accounts.toml"))
            yield run
            await run.broker.flush()
        finally:
            await run.transport.aclose()
            await run.store.close()

    async def restart(self, *accounts: str) -> dict[str, tuple[str, AccountState]]:
        """A whole life in which everybody's token is wanted: what became of it."""
        async with self.run() as run:
            return {name: (await run.token(name), run.state(name)) for name in accounts}


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    tmp_path.chmod(0o700)
    async with FakeGoogle(World()) as google:
        yield Machine(google, tmp_path)


def place(machine: Machine, kind: str) -> str:
    """A secret reference of that kind for `put`."""
    return {
        "file": 'file = "login.json"',
        "env": 'env = "LOGIN"',
        "command": f'command = ["cat", "{machine.folder / "login.json"}"]',
        "systemd": 'systemd-credential = "login.json"',
    }[kind]


def put(machine: Machine, text: str) -> None:
    machine.write("login.json", text)
    machine.environ |= {"LOGIN": text, "CREDENTIALS_DIRECTORY": str(machine.folder)}


@pytest.mark.parametrize("kind", ["file", "env", "command", "systemd"])
async def test_a_dead_login_is_not_asked_again_by_ten_restarts(machine: Machine, kind: str) -> None:
    """One call finds it dead; ten further lives make none, and each says what to type. Another login in the same
    place is asked for at once by the next life."""
    machine.accounts = ENTRY.format(id="user", secret=place(machine, kind))
    put(machine, machine.log_in("user"))
    machine.world.revoke("user")
    dead = {"user": ("login", AccountState.LOGIN_REQUIRED)}
    for _ in range(11):
        assert await machine.restart("user") == dead
        async with machine.run() as run:
            assert "gemini-pool login user" in run.pool.members["user"].hint
    assert machine.calls == 1

    put(machine, machine.log_in("user"))
    assert await machine.restart("user") == {"user": ("", AccountState.READY)}
    assert machine.calls == 2


async def test_a_rewritten_file_with_the_same_login_is_the_same_login(machine: Machine) -> None:
    """What counts is the content: a restored backup or another inode is no reason to ask."""
    machine.accounts = ENTRY.format(id="user", secret=place(machine, "file"))
    text = machine.log_in("user")
    put(machine, text)
    machine.world.revoke("user")
    await machine.restart("user")
    put(machine, text)
    await machine.restart("user")
    assert machine.calls == 1


async def test_a_refused_client_is_asked_once_for_all_of_its_logins(machine: Machine) -> None:
    """Ten logins of one OAuth client that Google does not know: one call, over any number of lives."""
    names = [f"user{n}" for n in range(10)]
    for name in names:
        machine.write(f"{name}.json", machine.log_in(name))
    machine.accounts = "".join(ENTRY.format(id=name, secret=f'file = "{name}.json"') for name in names)
    client = machine.world.clients.pop(machine.client.id)
    held = {name: ("client", AccountState.CLIENT_INVALID) for name in names}
    async with machine.run() as run:
        for name in names:
            await run.token(name)
    assert machine.calls == 1  # the others were not even read by then
    for _ in range(5):
        assert await machine.restart(*names) == held
    assert machine.calls == 1

    machine.world.clients[client.id] = client
    async with machine.run() as run:  # a person says so
        run.lifecycle.retry("user0")
        assert await run.token("user0") == ""


@pytest.mark.parametrize("change", ["accounts", "endpoints"])
async def test_an_edit_while_no_daemon_ran_is_a_reason_to_ask(machine: Machine, change: str) -> None:
    """Another scope in the entry, or another token endpoint: somebody acted."""
    machine.accounts = ENTRY.format(id="user", secret=place(machine, "file"))
    put(machine, machine.log_in("user"))
    machine.world.revoke("user")
    await machine.restart("user")
    if change == "accounts":
        machine.accounts = machine.accounts.replace('type = "oauth"', 'type = "oauth", scopes = ["x"]')
    else:
        await machine.google.stop()
        await machine.google.start()  # on another port
    await machine.restart("user")
    assert machine.calls == 2


async def test_an_account_that_google_calls_deleted_comes_back_with_a_new_login(machine: Machine) -> None:
    """`account_dead` outlives restarts and ends with another secret."""
    machine.accounts = ENTRY.format(id="user", secret=place(machine, "file"))
    put(machine, machine.log_in("user"))
    machine.world.revoke("user", trouble="deleted")
    for _ in range(3):
        assert await machine.restart("user") == {"user": ("dead", AccountState.DEAD)}
    assert machine.calls == 1
    put(machine, machine.log_in("user"))
    assert await machine.restart("user") == {"user": ("", AccountState.READY)}


async def test_a_key_that_was_replaced_while_no_daemon_ran(machine: Machine) -> None:
    """A key that the API called invalid stays out over restarts, until the file holds another one."""
    machine.accounts = (
        '[[account]]\nid = "key"\nbackend = "developer-api"\n'
        'credential = { type = "api-key", secret = { file = "key" } }\n'
    )
    machine.write("key", "fake-key-1")
    async with machine.run() as run:
        grant = run.broker.acquire_nowait(Request("r", "gemini-3"), owner="")
        invalid = Outcome(Kind.ACCOUNT, state=AccountState.DEAD, reason="API_KEY_INVALID")
        run.broker.settle(grant.lease.id, invalid)
    for _ in range(2):
        assert await machine.restart("key") == {"key": ("", AccountState.DEAD)}
    machine.write("key", "fake-key-2")
    assert await machine.restart("key") == {"key": ("", AccountState.READY)}


async def test_a_key_that_is_replaced_while_the_daemon_runs(machine: Machine) -> None:
    """The file is looked at as long as the account is held; no reload, no restart."""
    machine.accounts = (
        '[[account]]\nid = "key"\nbackend = "developer-api"\n'
        'credential = { type = "api-key", secret = { file = "key" } }\n'
    )
    machine.write("key", "fake-key-1")
    async with machine.run() as run:
        dead = AccountState.DEAD
        run.pool.refuse("key", dead, run.clock.now(), reason="API_KEY_INVALID")
        machine.write("key", "fake-key-2")
        woken = asyncio.Event()
        run.broker.subscribe(lambda _event: woken.set())
        task = asyncio.create_task(run.lifecycle.run())
        async with asyncio.timeout(10):
            while run.state("key") is not AccountState.READY:
                woken.clear()
                await woken.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
