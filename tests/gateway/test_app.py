"""The server around the surfaces: doors, keys, admission, limits, probes, life and end."""

import asyncio
import logging
import os
import socket
import stat
import subprocess
import sys

import aiohttp
import pytest
from tests.fakes.gateway import ANSWER, KEY, ScriptedDispatcher, ScriptedStream, answered, gateway_site

from gemini_pool.errors import PoolError
from gemini_poold.gateway.auth import LocalClient, LocalKeys
from gemini_poold.gateway.services import Settings

PLAIN = "/v1beta/models/m:generateContent"


@pytest.fixture
def short_dir(tmp_path_factory):
    """A folder whose path leaves room for a socket's name."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="gp-") as name:
        yield __import__("pathlib").Path(name)


@pytest.mark.parametrize(
    ("headers", "query", "status"),
    [
        ({"x-goog-api-key": KEY}, "", 200),
        ({"Authorization": f"Bearer {KEY}"}, "", 200),
        ({"x-goog-api-key": "", "Authorization": f"Bearer {KEY}"}, "", 200),
        ({}, f"?key={KEY}", 200),
        ({}, "", 401),
        ({"x-goog-api-key": "wrong"}, "", 401),
        ({"Authorization": "Bearer wrong"}, f"?key={KEY}", 401),
    ],
)
async def test_keys_on_the_loopback_port(headers, query, status):
    """Every place where a key may stand, and the only 401 there is."""
    async with (
        gateway_site() as site,
        site.http.post(site.url + PLAIN + query, headers=headers, data=b"{}") as answer,
    ):
        assert answer.status == status
        if status == 401:
            assert (await answer.json())["error"]["status"] == "UNAUTHENTICATED"
            assert not site.dispatcher.calls


async def test_the_socket_needs_no_key(short_dir):
    """On the Unix socket the peer's user is enough; no Host check there; the file is private."""
    path = short_dir / "gateway.sock"
    async with gateway_site(socket_path=path) as site:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as http:
            async with http.post(f"http://anything{PLAIN}", data=b"{}") as answer:
                assert await answer.read() == ANSWER
        assert site.dispatcher.call.owner == "gateway:socket"
    assert not path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
async def test_another_user_is_refused_on_the_socket(short_dir):
    """Even where the file's mode would let it in."""
    path = short_dir / "gateway.sock"
    async with gateway_site(socket_path=path):
        path.chmod(0o666)
        short_dir.chmod(0o755)
        script = (
            "import os, socket, sys; os.setuid(65534); s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
            "s.sendall(b'GET /v1beta/models HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n');"
            "print(s.recv(100).split()[1].decode())"
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, str(path), stdout=subprocess.PIPE
        )
        out, _ = await process.communicate()
        assert out.strip() == b"403"


async def test_hosts_and_origins_over_http():
    """The guards stand before keys and routes, probes included; an allowed page gets its CORS headers."""
    settings = Settings(allowed_origins=("http://localhost:3000",))
    async with gateway_site(settings=settings) as site:
        assert (await site.post(PLAIN, Host="evil.example")).status == 403
        assert (await site.post(PLAIN, Origin="http://evil.example")).status == 403
        assert (await site.get("/healthz", Host="evil.example")).status == 403
        allowed = await site.post(PLAIN, Origin="http://localhost:3000")
        assert allowed.status == 200
        assert allowed.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
        headers = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}
        async with site.http.options(site.url + PLAIN, headers=headers) as preflight:
            assert preflight.status == 204
            assert "POST" in preflight.headers["Access-Control-Allow-Methods"]


async def test_too_many_requests_are_shed():
    """Beyond max_in_flight: 503 with Retry-After, and those under way are not harmed."""
    gate = asyncio.Event()

    async def held(call):
        await gate.wait()
        return answered()

    async with gateway_site(ScriptedDispatcher(held), settings=Settings(max_in_flight=2)) as site:
        tasks = [asyncio.ensure_future(site.post(PLAIN).__aenter__()) for _ in range(2)]
        async with asyncio.timeout(10):
            while len(site.dispatcher.calls) < 2:
                await asyncio.sleep(0)
        refused = await site.post(PLAIN)
        assert refused.status == 503
        assert refused.headers["Retry-After"] == "1"
        assert (await site.get("/healthz")).status == 200
        gate.set()
        assert [(await task).status for task in tasks] == [200, 200]


@pytest.mark.parametrize("chunked", [False, True])
async def test_bodies_have_a_limit_together(chunked):
    """What would not fit beside those under way is shed with a 503; one alone always fits; room is given back."""

    async def pieces():
        for _ in range(3):
            yield b"x" * 300

    gate = asyncio.Event()

    async def held(call):
        await gate.wait()
        return answered()

    async with gateway_site(ScriptedDispatcher(held), settings=Settings(held_limit=800)) as site:
        first = asyncio.ensure_future(site.post(PLAIN, b"x" * 900).__aenter__())
        async with asyncio.timeout(10):
            while not site.dispatcher.calls:
                await asyncio.sleep(0)
        async with site.post(PLAIN, pieces() if chunked else b"x" * 900) as refused:
            assert refused.status == 503
            assert refused.headers["Retry-After"] == "1"
        gate.set()
        assert (await first).status == 200
        assert (await site.post(PLAIN, b"x" * 700)).status == 200
        assert site.gateway.services.meter.held_bytes == 0


@pytest.mark.parametrize("chunked", [False, True])
async def test_bodies_have_a_limit(chunked):
    """Refused in the surface's form, told or chunked."""

    async def pieces():
        for _ in range(3):
            yield b"x" * 400

    async with gateway_site(settings=Settings(body_limit=1000)) as site:
        async with site.post(PLAIN, pieces() if chunked else b"x" * 1200) as answer:
            assert answer.status == 413
            assert (await answer.json())["error"]["code"] == 413
        assert not site.dispatcher.calls
        async with site.post(PLAIN, b"x" * 1000) as answer:
            assert answer.status == 200


async def test_a_chunked_or_compressed_body_is_read_whole():
    """The dispatcher gets plain bytes, however they came."""
    import gzip

    async def pieces():
        yield b'{"a":'
        yield b"1}"

    async with gateway_site() as site:
        await (await site.post(PLAIN, pieces())).read()
        await (await site.post(PLAIN, gzip.compress(b'{"b":2}'), Content_Encoding="gzip")).read()
        assert [call.body for call in site.dispatcher.calls] == [b'{"a":1}', b'{"b":2}']


async def test_expect_100_continue():
    """curl asks before it sends a large body: told to go on, or that it is too large before it has sent any."""
    async with gateway_site(settings=Settings(body_limit=1000)) as site:
        for length, wanted in [(900, b"HTTP/1.1 100 Continue\r\n\r\n"), (2000, b"HTTP/1.1 413 ")]:
            reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
            head = (
                f"POST {PLAIN} HTTP/1.1\r\nHost: 127.0.0.1:{site.port}\r\nx-goog-api-key: {KEY}\r\n"
                f"Expect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
            )
            writer.write(head.encode())
            assert await reader.readexactly(len(wanted)) == wanted
            if length == 900:
                writer.write(b"x" * length)
                assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            writer.transport.abort()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/nowhere", 404),
        ("/v1beta/dynamic/x", 501),
        ("/v1/images/generations", 501),
        ("/v1beta/models/m:bidi", 501),
    ],
)
async def test_what_is_not_served(path, status):
    """Errors of paths are JSON, too; they need a key like everything else."""
    async with gateway_site() as site:
        answer = await site.post(path)
        assert answer.status == status
        assert "error" in await answer.json()
        async with site.http.post(site.url + path) as keyless:
            assert keyless.status == 401


async def test_a_fault_of_ours_is_told_without_its_text(caplog):
    """An unexpected exception is a 500 without details; the details are in the log."""
    async with gateway_site(ScriptedDispatcher(RuntimeError("fake-secret"))) as site:
        answer = await site.post(PLAIN)
        assert answer.status == 500
        assert "fake-secret" not in await answer.text()
    assert "RuntimeError" in caplog.text


async def test_probes():
    """Alive is not ready; both need no key, metrics do; HEAD works; metrics are Prometheus text with bounded labels."""
    state = "starting"
    async with gateway_site(state=lambda: state) as site:
        async with site.http.get(f"{site.url}/healthz") as answer:
            assert (answer.status, await answer.text()) == (200, "ok\n")
        async with site.http.get(f"{site.url}/readyz") as answer:
            assert (answer.status, await answer.text()) == (503, "starting\n")
        state = "ready"
        async with site.http.head(f"{site.url}/readyz") as answer:
            assert (answer.status, await answer.text()) == (200, "")
        await (await site.post("/v1beta/models/made-up-model:generateContent")).read()
        async with site.http.get(f"{site.url}/metrics") as answer:  # it names accounts
            assert answer.status == 401
        async with site.get("/metrics") as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            text = await answer.text()
    assert 'gemini_pool_gateway_requests_total{surface="gl",outcome="2xx"} 1' in text
    assert "gemini_pool_requests_total 7" in text
    assert "gemini_pool_queue 3" in text
    assert "made-up-model" not in text
    for line in text.splitlines():
        assert line.startswith("#") or len(line.rsplit(" ", 1)) == 2


async def test_a_taken_port_degrades_only_itself(short_dir):
    """The error says what to do, the Unix socket goes on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        path = short_dir / "gateway.sock"
        async with gateway_site(listen=taken.getsockname(), socket_path=path) as site:
            assert site.url == ""
            assert "taken by another program" in site.gateway.error
            assert "listen" in site.gateway.error
            async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as http:
                assert (await http.get("http://x/healthz")).status == 200


async def test_given_sockets_are_served_and_left(short_dir):
    """Sockets from a service manager are used as they are; their file outlives us."""
    path = short_dir / "gateway.sock"
    tcp, unix = socket.socket(), socket.socket(socket.AF_UNIX)
    tcp.bind(("127.0.0.1", 0))
    unix.bind(str(path))
    for sock in (tcp, unix):
        sock.listen()
        sock.setblocking(False)
    port = tcp.getsockname()[1]
    async with gateway_site(listen=("127.0.0.1", 1), socket_path=path, tcp=[tcp], unix=[unix]) as site:
        assert site.url == f"http://127.0.0.1:{port}"
        assert site.gateway.socket == str(path)
        assert (await site.post(PLAIN)).status == 200
    assert path.exists()


async def test_a_stale_socket_is_replaced_a_living_one_is_not(short_dir):
    """The file of a killed daemon does not keep us out; another process's does, in words."""
    path = short_dir / "gateway.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    async with gateway_site(listen=None, socket_path=path) as site:
        assert site.gateway.error == ""
        async with gateway_site(listen=None, socket_path=path) as second:
            assert "another process serves" in second.gateway.error
        assert path.exists()


@pytest.mark.parametrize("kind", ["file", "link", "folder", "long"])
async def test_what_is_no_socket_is_not_touched(short_dir, kind):
    """A file, a link, a loose folder or too long a path in the socket's place: an error that names the remedy."""
    path = short_dir / "gateway.sock"
    if kind == "file":
        path.write_text("mine")
    elif kind == "link":
        path.symlink_to(short_dir / "elsewhere")
    elif kind == "folder":
        short_dir.chmod(0o755)
    else:
        path = short_dir / ("x" * 100) / "gateway.sock"
    async with gateway_site(socket_path=path) as site:
        assert site.gateway.error
        assert (await site.post(PLAIN)).status == 200
    if kind == "file":
        assert path.read_text() == "mine"


async def test_a_reload_changes_keys_and_hosts():
    """Requests from then on; connections stay."""
    async with gateway_site() as site:
        assert (await site.post(PLAIN)).status == 200
        site.gateway.configure(
            Settings(allowed_hosts=("sandbox",)), LocalKeys([(LocalClient("new"), "fake-key-new")])
        )
        assert (await site.post(PLAIN)).status == 401
        assert (await site.post(PLAIN, x_goog_api_key="fake-key-new", Host="sandbox")).status == 200


async def test_a_reload_gives_no_client_its_minute_back():
    """What it has used stays used; what its limit was raised by is free at once."""

    def keys(rpm):
        return LocalKeys([(LocalClient("ci", rpm=rpm), KEY)])

    async with gateway_site(keys=keys(2)) as site:
        for status in (200, 200, 429):
            assert (await site.post(PLAIN)).status == status
        site.gateway.configure(Settings(), keys(2))
        assert (await site.post(PLAIN)).status == 429
        site.gateway.configure(Settings(), keys(3))
        for status in (200, 429):
            assert (await site.post(PLAIN)).status == status


async def test_the_end():
    """Draining: a stream under way finishes; whoever still asks on a kept connection is answered, and told that this was
    the last answer on it; then the connection is gone."""
    gate = asyncio.Event()
    stream = ScriptedStream([b"data: 1\n\n", gate, b"data: 2\n\n"])
    async with gateway_site(ScriptedDispatcher(answered(), stream)) as site:
        async with site.post("/v1beta/models/m:streamGenerateContent?alt=sse") as answer:
            await (await site.post(PLAIN)).read()
            stopping = asyncio.ensure_future(site.gateway.stop(10.0))
            await asyncio.sleep(0)
            async with site.post(PLAIN) as last:
                assert last.status == 200
                assert last.headers["Connection"] == "close"
                await last.read()
            assert not stopping.done()
            gate.set()
            assert await answer.read() == b"data: 1\n\ndata: 2\n\n"
            await stopping
        with pytest.raises(aiohttp.ClientConnectorError):
            await site.post(PLAIN)


async def test_the_end_of_the_grace(caplog):
    """What still runs is answered `shutting_down`; a begun stream is broken off after the error, never merely cut."""
    caplog.set_level(logging.INFO, "gemini_pool.gateway")
    never = asyncio.Event()
    stream = ScriptedStream([b"data: 1\n\n", never])
    async with gateway_site(ScriptedDispatcher(lambda _: never.wait(), stream)) as site:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        head = f"POST /v1beta/models/m:streamGenerateContent?alt=sse&key={KEY} HTTP/1.1\r\n"
        writer.write(f"{head}Host: 127.0.0.1:{site.port}\r\nContent-Length: 2\r\n\r\n{{}}".encode())
        await reader.readuntil(b"data: 1\n\n")
        plain = asyncio.ensure_future(site.post(PLAIN))
        while len(site.dispatcher.calls) < 2:
            await asyncio.sleep(0)
        await site.gateway.stop(0.0)
        refused = await plain
        assert refused.status == 503
        assert "SHUTTING_DOWN" in await refused.text()
        rest = await reader.read()
        assert b'{"error":{"code":503' in rest
        assert not rest.endswith(b"0\r\n\r\n")
        writer.close()
        assert stream.closed
    assert [r.code for r in caplog.records if hasattr(r, "code")] == ["shutting_down", "shutting_down"]


@pytest.mark.parametrize(
    "request_",
    [
        f"GET / HTTP/1.1\r\nx-goog-api-key: {KEY}\x01\r\n\r\n",
        f"GET / HTTP/1.1\r\nx-goog-api-key : {KEY}\r\n\r\n",
        f"GET / HTTP/1.1\r\nx-goog-api-key: {KEY * 1000}\r\n\r\n",
        f"{KEY} / HTTP/1.1\r\n\r\n",
        f"POST {PLAIN}?key={KEY} HTTP/1.1\r\nHost: localhost:%d\r\nTransfer-Encoding: chunked\r\n\r\na-prompt\r\n",
        f"POST {PLAIN}?key={KEY} HTTP/1.1\r\nHost: localhost:%d\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\na-prompt\r\n",
        f"POST {PLAIN}?key={KEY} HTTP/1.1\r\nHost: localhost:%d\r\nContent-Encoding: gzip\r\nContent-Length: 8\r\n\r\na-prompt",
    ],
)
async def test_what_is_no_http_is_not_quoted(request_, caplog):
    """The log has a line for it at most at level info, without a key or a body of the request."""
    caplog.set_level(logging.DEBUG)
    async with gateway_site() as site:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write((request_.replace("%d", str(site.port))).encode())
        assert b" 400 " in await reader.readline()
        await reader.read()
        writer.close()
    assert caplog.text
    assert KEY not in caplog.text
    assert "a-prompt" not in caplog.text
    assert max(record.levelno for record in caplog.records) <= logging.INFO


async def test_one_line_a_request(caplog):
    """Client, account, model and outcome as fields; never a prompt, an answer or a key."""
    caplog.set_level(logging.INFO, "gemini_pool.gateway")
    dispatcher = ScriptedDispatcher(answered(account="work", attempts=2, finish_reason="STOP"))
    async with gateway_site(dispatcher) as site:
        await (await site.post(PLAIN, b'{"secret prompt": 1}')).read()
        dispatcher.answer = PoolError("all_cooling_down", "later", account="b")
        await (await site.post(PLAIN)).read()
        await (await site.get("/healthz")).read()
    lines = [record for record in caplog.records if record.name == "gemini_pool.gateway"]
    assert len(lines) == 2
    served, refused = lines
    assert (served.client, served.account, served.model, served.code) == ("default", "work", "m", "")
    assert (refused.account, refused.code) == ("b", "all_cooling_down")
    assert "2 attempts" in served.getMessage()
    assert (served.surface, served.attempts, served.outcome, served.bytes_in) == ("gl", 2, "STOP", 20)
    assert 0 <= served.first_byte_ms <= served.total_ms
    assert refused.first_byte_ms == ""
    assert "prompt" not in caplog.text
    assert KEY not in caplog.text
