"""Adapters whose libraries the daemon has anyway, against the real daemon: aiohttp and google-auth."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import google.auth.transport.requests
import pytest
from google.auth import exceptions
from tests.fakes.daemon import DaemonProcess, api_key_account, fake_google

from gemini_pool import Pool
from gemini_pool.adapters import aiohttp as over_aiohttp
from gemini_pool.adapters import gateway_socket
from gemini_pool.adapters.google_auth import PoolCredentials
from gemini_poold.fake import World

MODEL = "gemini-2.5-flash"
PROMPT = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}
WORK = """
[[account]]
id = "work"
backend = "code-assist"
credential = { type = "oauth", secret = { file = "secrets/work.json" } }
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    world = World()
    world.add_api_key("key-a")
    alice = world.add_user("alice", projects=["alice-project"])
    with fake_google(world) as google:
        folder = tmp_path_factory.mktemp("adapters")
        accounts = api_key_account("key-a", priority=10) + WORK
        daemon = DaemonProcess(folder, fake=google, accounts=accounts)
        daemon.write_secret("work.json", json.dumps(world.authorized_user(alice, world.add_client())))
        with daemon:
            yield daemon


async def test_aiohttp(daemon, monkeypatch):
    """A session over the gateway's socket, found by itself, without a key."""
    monkeypatch.setenv("GEMINI_POOL_SOCKET", str(daemon.socket))
    session = aiohttp.ClientSession(over_aiohttp.BASE_URL, connector=over_aiohttp.connector())
    async with session, session.post(f"/v1beta/models/{MODEL}:generateContent", json=PROMPT) as answer:
        assert answer.status == 200
        assert answer.headers["x-gemini-pool-account"] == "key-a"


def test_google_auth(daemon):
    """google-auth asks for a token when it has none, signs with it, and knows when to ask again."""
    with Pool(daemon.socket) as pool:
        found = PoolCredentials("work", pool=pool)
        assert not found.valid
        headers: dict[str, str] = {}
        found.before_request(google.auth.transport.requests.Request(), "GET", "http://x/", headers)
        assert headers["authorization"] == f"Bearer {pool.token('work').token}"
        assert found.valid
        assert found.expiry > datetime.now(UTC).replace(tzinfo=None)


@pytest.mark.parametrize(("account", "says"), [("nobody", "no account"), ("key-a", "lend|API key|not lent")])
def test_google_auth_refused(daemon, account, says):
    """What the daemon refuses is google-auth's error, with the daemon's sentence."""
    with Pool(daemon.socket) as pool, pytest.raises(exceptions.RefreshError, match=says):
        PoolCredentials(account, pool=pool).refresh(None)


def test_the_sockets_place_without_a_daemon(tmp_path, monkeypatch):
    """Nobody running: the contract's place, so that a client may be made before the daemon is."""
    monkeypatch.setenv("GEMINI_POOL_SOCKET", str(tmp_path / "pool.sock"))
    assert gateway_socket() == str(tmp_path / "gateway.sock")
    assert gateway_socket("/x/y.sock") == "/x/y.sock"


def test_adapters_are_optional():
    """Importing the client loads no adapter and none of their libraries."""
    code = "import gemini_pool, sys; gemini_pool.Pool; gemini_pool.AsyncPool; print(*sys.modules)"
    paths = str(Path(sys.modules["gemini_pool"].__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": paths}, capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"aiohttp", "google", "httpx", "httpx2", "litellm", "requests"}
    assert "gemini_pool.adapters" not in done.stdout.split()
