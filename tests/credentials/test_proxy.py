"""Every call that a credential makes goes through the account's proxy, but never the machine's own metadata server."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
from tests.credentials.making import context, entry, file, write_secret

from gemini_poold.config import Endpoints, Network
from gemini_poold.core.model import Account, Backend
from gemini_poold.credentials import registry
from gemini_poold.credentials.base import CredentialError
from gemini_poold.credentials.external import LoopRequest
from gemini_poold.fake import FakeGoogle, World
from gemini_poold.runtime.setup import Setup
from gemini_poold.transport import AiohttpTransport


class Proxy:
    """A real forward proxy for http (tunnels are tests/base/test_transport's). `seen`: the URLs that were asked for."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.url = ""
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Proxy]:
        server = await asyncio.start_server(self._client, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            yield self
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        writers = [writer]
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            line, rest = head.split(b"\r\n", 1)
            method, target, version = line.decode().split(" ")
            self.seen.append(target)
            parts = urlsplit(target)
            upstream, onward = await asyncio.open_connection(parts.hostname, parts.port)
            writers.append(onward)
            path = parts.path + (f"?{parts.query}" if parts.query else "")
            onward.write(f"{method} {path} {version}\r\nConnection: close\r\n".encode() + rest)
            await asyncio.wait(
                [
                    asyncio.ensure_future(_pump(reader, onward)),
                    asyncio.ensure_future(_pump(upstream, writer)),
                ],
                return_when=asyncio.FIRST_COMPLETED,
            )
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            for each in writers:
                each.close()
                with contextlib.suppress(OSError, asyncio.CancelledError):
                    await each.wait_closed()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


@contextlib.asynccontextmanager
async def proxied(tmp_path, world, configured=""):
    """A Google, a proxy before it, and a context whose transport has `configured` ("" or "proxy") as its proxy."""
    async with FakeGoogle(world) as google, Proxy().serving() as proxy:
        transport = AiohttpTransport(Network(proxy=proxy.url if configured else ""), environ={})
        try:
            yield google, proxy, context(tmp_path, transport, endpoints=Endpoints(**google.endpoints()))
        finally:
            await transport.aclose()


KINDS = ("oauth", "service-account", "external", "external-executable", "impersonated", "workforce")


def prepare(tmp_path, world, kind):
    """The secret of a login of that kind and its entry's settings; how many calls its token takes."""
    world.add_user("user", projects=["p"])
    user, client = world.users["user"], world.add_client()
    login = world.authorized_user(user, client)
    pool = world.add_pool("pool", projects=["p"])
    subject = write_secret(tmp_path / "subject", "fake-subject")
    external = {
        "type": "external_account",
        "audience": pool.audience,
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": "https://sts.googleapis.com/v1/token",
        "credential_source": {"file": str(subject)},
    }
    executable = {"command": f"{sys.executable} -c 'print(1)'", "timeout_millis": 5000}
    robot = world.add_service_account("robot", project="p", impersonators=frozenset({"user"}))
    found = {
        "oauth": ("oauth", login, 1),
        "service-account": ("service-account", robot, 1),
        "external": ("external", external, 1),
        "external-executable": ("external", external | {"credential_source": {"executable": executable}}, 0),
        "impersonated": ("impersonated", login, 2),
        "workforce": (
            "external",
            login | {"type": "external_account_authorized_user", "token_url": "https://sts.googleapis.com/token"},
            1,
        ),
    }  # fmt: skip
    kind, secret, calls = found[kind]
    write_secret(tmp_path / "secrets" / "s.json", secret)
    more = {"target": robot["client_email"]} if kind == "impersonated" else {}
    return kind, more, calls


@pytest.mark.parametrize("whose", ["account", "configured"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "external-executable"])
async def test_token_calls(tmp_path, kind, whose):
    """Token endpoint, STS and impersonation: Google hears nothing that did not come over the proxy."""
    world = World()
    kind, more, calls = prepare(tmp_path, world, kind)
    async with proxied(tmp_path, world, configured="proxy" * (whose == "configured")) as (google, proxy, ctx):
        account_proxy = proxy.url if whose == "account" else ""
        login = registry.build(entry(kind, file("s.json"), proxy=account_proxy, **more), ctx)
        await login.renew(0.0)
        assert len(proxy.seen) == google.record.received == calls
        assert all(url.startswith(google.url) for url in proxy.seen)


async def test_set_up_calls(tmp_path):
    """loadCodeAssist, onboarding, its polls and whose login it is."""
    world = World()
    prepare(tmp_path, world, "oauth")
    async with proxied(tmp_path, world) as (google, proxy, ctx):
        account_entry = entry("oauth", file("s.json"), proxy=proxy.url)
        login = registry.build(account_entry, ctx)
        headers = login.headers(await login.renew(0.0))
        account = Account("work", Backend.CODE_ASSIST, credential="oauth", proxy=proxy.url)
        await Setup(ctx.transport, ctx.endpoints, ctx.clock).run(account, headers)
        paths = [urlsplit(url).path for url in proxy.seen]
        assert paths == ["/token", "/v1internal:loadCodeAssist", "/oauth2/v2/userinfo"]
        assert google.record.received == 3


async def test_a_dead_proxy_is_a_passing_failure(tmp_path):
    """It is told as what it is, and nothing goes around it."""
    world = World()
    prepare(tmp_path, world, "oauth")
    async with proxied(tmp_path, world) as (google, _, ctx):
        login = registry.build(entry("oauth", file("s.json"), proxy="http://127.0.0.1:9"), ctx)
        with pytest.raises(CredentialError, match="the proxy cannot be reached"):
            await login.renew(0.0)
        assert google.record.received == 0


@pytest.mark.parametrize("host", ["", "127.0.0.1"])
async def test_the_metadata_server_is_asked_directly(tmp_path, host):
    """Over a proxy it would answer with the proxy's machine's identity; also when a variable names another host."""
    async with Proxy().serving() as proxy:
        transport = AiohttpTransport(Network(proxy=proxy.url), environ={})
        answered = asyncio.Event()

        async def metadata(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            body = b'{"access_token": "fake-access-m", "expires_in": 3599, "token_type": "Bearer"}'
            head = f"HTTP/1.1 200 OK\r\nMetadata-Flavor: Google\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
            answered.set()
            writer.close()

        server = await asyncio.start_server(metadata, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        environ = {"HOME": str(tmp_path), "GCE_METADATA_HOST": f"{host}:{port}" if host else ""}
        ctx = context(tmp_path, transport, environ=environ, endpoints=Endpoints())
        login = registry.build(entry("adc", proxy=proxy.url), ctx)
        async with server:
            if host:
                assert (await login.renew(0.0)).value.reveal() == "fake-access-m"
            else:
                with pytest.raises(
                    CredentialError
                ):  # no such name here: nobody was asked for it in our place
                    await login.renew(0.0)
        assert answered.is_set() is bool(host)
        assert proxy.seen == []
        await transport.aclose()


async def test_what_google_auth_asks_goes_our_way(tmp_path):
    """The library's own HTTP, called in its thread, has neither another transport nor another proxy."""
    world = World()
    prepare(tmp_path, world, "external")
    async with proxied(tmp_path, world, configured="proxy") as (google, proxy, ctx):
        from gemini_poold.credentials.base import Caller

        request = LoopRequest(asyncio.get_running_loop(), Caller("a", ctx.transport))
        reply = await asyncio.to_thread(request, f"{google.url}/v1/token", "POST", b"x=1", {})
        assert reply.status == 400
        assert proxy.seen == [f"{google.url}/v1/token"]
