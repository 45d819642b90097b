"""The Live API through the real daemon: a WebSocket that is one account's for as long as it stands."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from tests.fakes.daemon import DaemonProcess, api_key_account, fake_google

from gemini_poold.fake import FakeGoogle, Fault, Match, World

MODEL = "gemini-2.5-flash"
GL = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"
VX = "/ws/google.cloud.aiplatform.v1beta1.LlmBidiService/BidiGenerateContent"
CONFIG = """
[gateway]
listen = "127.0.0.1:0"
clients = [{ name = "limited", key = { env = "LIMITED" }, models = ["gemini-3*"] }]
[selection]
strategy = "round-robin"
[models]
aliases = { "live" = "gemini-2.5-flash" }
"""
ROBOT = """
[[account]]
id = "robot"
backend = "vertex"
project = "cloud-project"
credential = { type = "service-account", secret = { file = "secrets/robot.json" } }
"""


class Site:
    def __init__(self, daemon: DaemonProcess, google: FakeGoogle) -> None:
        self.daemon, self.google = daemon, google

    @asynccontextmanager
    async def connected(self, path: str = GL, *, key: str = "", **headers: str) -> AsyncIterator[Any]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with (
            aiohttp.ClientSession() as http,
            http.ws_connect(
                f"{self.daemon.url}{path}?key={key or self.daemon.key}", headers=named, max_msg_size=32 << 20
            ) as link,
        ):
            yield link

    @asynccontextmanager
    async def session(
        self, model: str = f"models/{MODEL}", path: str = GL, **more: Any
    ) -> AsyncIterator[Any]:
        """Set up, and told so."""
        async with self.connected(path) as link:
            await link.send_json({"setup": {"model": model, **more}})
            assert (await heard(link)) == {"setupComplete": {}}
            yield link

    def leases(self) -> int:
        with self.daemon.pool() as pool:
            return len(pool.status().leases)

    async def idle(self) -> None:
        async with asyncio.timeout(10):
            while self.leases():
                await asyncio.sleep(0.02)


async def heard(link: Any) -> Any:
    message = await link.receive(timeout=10)
    assert message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY), message
    return json.loads(message.data)


async def said(link: Any, text: str) -> str:
    """One turn: what the model says to it."""
    await link.send_json(
        {"clientContent": {"turns": [{"role": "user", "parts": [{"text": text}]}], "turnComplete": True}}
    )
    answer = ""
    while "turnComplete" not in (content := (await heard(link))["serverContent"]):
        answer += content["modelTurn"]["parts"][0]["text"]
    return answer


async def ended(link: Any) -> tuple[int, str]:
    message = await link.receive(timeout=10)
    assert message.type is aiohttp.WSMsgType.CLOSE or message.type is aiohttp.WSMsgType.CLOSED, message
    return link.close_code, message.extra or ""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    world = World()
    for name in ("a", "b"):
        world.add_api_key(name)
    secret = world.add_service_account("robot", project="cloud-project")
    accounts = api_key_account("a") + api_key_account("b") + ROBOT
    with fake_google(world) as google:
        folder, env = tmp_path_factory.mktemp("live"), {"LIMITED": "gp-limited"}
        daemon = DaemonProcess(folder, fake=google, accounts=accounts, config=CONFIG, env=env)
        daemon.write_secret("robot.json", json.dumps({**secret, "token_uri": world.token_uri}))
        with daemon:
            yield Site(daemon, google)


@pytest.fixture(autouse=True)
def clean(site: Site) -> None:
    site.google.faults.clear()
    site.google.record.clear()
    site.google.live.closed.clear()
    with site.daemon.pool() as pool:
        for name in ("a", "b", "robot"):
            pool.call("account/clearCooldown", {"account": name})


async def test_a_conversation_stays_with_its_account(site: Site) -> None:
    """Several turns, both ways, one lease for all of them; it is free when the client goes, and Google hears of it."""
    async with site.session() as link:
        first = await said(link, "hello")
        assert first.endswith("you said: hello")
        assert (await said(link, "again")).partition(" ")[0] == first.partition(" ")[0]
        assert site.leases() == 1
    await site.idle()
    assert site.google.live.closed == [1000]
    (call,) = site.google.record.find("live")
    assert "key=" not in str(call.query)
    assert site.daemon.key not in str(call.headers)


async def test_a_slash_too_many(site: Site) -> None:
    """google-genai for JavaScript makes a path of two; Google is asked for the one."""
    async with site.session(path=f"/{GL}") as link:
        await said(link, "hello")
    assert [call.path for call in site.google.record.find("live")] == [GL]


async def test_accounts_take_turns(site: Site) -> None:
    """Each connection is chosen for like a request."""
    found = set()
    for _ in range(2):
        async with site.session() as link:
            found.add((await said(link, "x")).partition(" ")[0])
    assert found == {"a", "b"}


async def test_vertex(site: Site) -> None:
    """On Vertex's path a Vertex account serves, with the model in its own project and location."""
    async with site.session(f"projects/mine/locations/here/publishers/google/models/{MODEL}", VX) as link:
        assert (await said(link, "hello")).startswith("robot")
    (call,) = site.google.record.find("live")
    assert (
        json.loads(call.body)["model"]
        == f"projects/cloud-project/locations/global/publishers/google/models/{MODEL}"
    )


async def test_an_alias(site: Site) -> None:
    """A name of the user's own is Google's before it leaves."""
    async with site.session("models/live") as link:
        await said(link, "hello")
    assert json.loads(site.google.record.find("live")[0].body)["model"] == f"models/{MODEL}"


@pytest.mark.parametrize("refusal", ["429", "503", "quota", "trouble"])
async def test_another_account_is_tried_until_the_first_word(site: Site, refusal: str) -> None:
    """A refused handshake and a closing before anything was said are absorbed."""
    if refusal.isdigit():
        site.google.faults.add(Fault.status(int(refusal)), when=Match(kind="live"), times=1)
    else:
        told = {
            "quota": (1011, "You exceeded your current quota, please check"),
            "trouble": (1011, "Internal error"),
        }
        site.google.live.closings.append(told[refusal])
    async with site.session(
        "models/gemini-2.5-pro"
    ) as link:  # what is learnt of its limits is no other test's
        assert (await said(link, "hello")).endswith("you said: hello")
    assert len(site.google.record.find("live")) == 2


async def test_what_google_has_against_the_setup_is_handed_on(site: Site) -> None:
    """Its code and its words; nobody else is asked."""
    async with site.connected() as link:
        await link.send_json({"setup": {"model": "models/none"}})
        code, words = await ended(link)
    assert (code, words.startswith("models/none is not found")) == (1008, True)
    assert len(site.google.record.find("live")) == 1
    await site.idle()


@pytest.mark.parametrize(("first", "key", "word"), [
    ("no json", "", "bad_request"), ('{"clientContent": {}}', "", "bad_request"), ('{"setup": {}}', "", "bad_request"),
    ('{"setup": {"model": "models/../x"}}', "", "bad_request"), (json.dumps({"setup": {"model": MODEL}}), "gp-limited", "forbidden"),
])  # fmt: skip
async def test_our_own_refusals(site: Site, first: str, key: str, word: str) -> None:
    """Told in the closing, since an answer cannot be sent any more; no account is asked."""
    async with site.connected(key=key) as link:
        await link.send_str(first)
        code, words = await ended(link)
    assert (code, words.partition(":")[0]) == (1008, word)
    assert not site.google.record.find("live")


@pytest.mark.parametrize(("path", "headers", "status"), [
    (GL, {"x-goog-api-key": "wrong"}, 401), (GL, {}, 400), (GL.replace("BidiGenerateContent", "BidiGenerateContentConstrained"), {}, 501),
    (GL, {"Origin": "https://evil.example"}, 403), (GL, {"Host": "evil.example"}, 403),
])  # fmt: skip
async def test_the_handshake_is_guarded_like_everything(
    site: Site, path: str, headers: dict[str, str], status: int
) -> None:
    """Keys, Host and Origin before any upgrade; a plain request is told what is wanted."""
    sent = {"x-goog-api-key": site.daemon.key, **headers}
    async with aiohttp.ClientSession() as http, http.get(site.daemon.url + path, headers=sent) as answer:
        assert answer.status == status
        assert (await answer.json())["error"]["code"] == status


async def test_a_session_is_resumed_where_it_was(site: Site) -> None:
    """A handle leads to its account, also after a crash of the daemon; nobody else could take it."""
    handles = {}
    for name in ("a", "b"):
        async with site.connected(x_gemini_pool_account=name) as link:
            await link.send_json({"setup": {"model": f"models/{MODEL}", "sessionResumption": {}}})
            await heard(link)
            handles[name] = (await heard(link))["sessionResumptionUpdate"]["newHandle"]
    site.daemon.kill()
    site.daemon.start()
    for _ in range(2):
        for name, handle in handles.items():
            async with site.session(sessionResumption={"handle": handle}) as link:
                assert "newHandle" in str(await heard(link))
                assert (await said(link, "x")).startswith(name)


async def test_a_break_is_told(site: Site) -> None:
    """Google's goodbye comes with its words; a connection that broke is never a clean end. The lease is free."""
    async with site.session() as link:
        await said(link, "[[goodbye]]")
        assert await ended(link) == (1008, "The session is over.")
    async with site.session() as link:
        await link.send_json({"realtimeInput": {"text": "[[break]]"}})
        code, words = await ended(link)
        assert (code, "broke" in words) == (1011, True)
    await site.idle()


async def test_a_client_that_vanishes(site: Site) -> None:
    """No goodbye: Google is left, the lease is free."""
    async with site.session() as link:
        link._response.connection.transport.abort()
    await site.idle()


async def test_large_messages_go_both_ways(site: Site) -> None:
    """Media come in large pieces."""
    async with site.session() as link:
        text = "z" * (5 << 20)
        assert (await said(link, text)).endswith(text)


async def test_a_stop_says_goodbye_at_once(site: Site) -> None:
    """A standing connection does not hold up the end: 1001, and the client comes back."""
    async with site.session() as link:
        loop = asyncio.get_running_loop()
        stopping = loop.run_in_executor(None, site.daemon.stop)
        code, words = await ended(link)
        assert (code, words.partition(":")[0]) == (1001, "shutting_down")
        async with asyncio.timeout(8):  # the grace for requests is longer
            assert await stopping == 0
    site.daemon.start()
