"""The RPC server on a real socket: framings, errors, cancelling, clients that misbehave, the end."""

import asyncio
import os
import socket
import subprocess
import sys
import textwrap

import msgspec
import pytest
from tests.ipc.harness import MODEL, Rpc

from gemini_pool import framing
from gemini_poold.fake import Fault
from gemini_poold.ipc import listen

BODY = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}


async def test_both_framings(tmp_path):
    """The first byte chooses the framing, and replies come in it."""
    async with Rpc(tmp_path) as rpc:
        for line in (False, True):
            raw = await rpc.connect()
            reply = await raw.ask(1, "initialize", line=line, client={"name": "vi", "version": "9"})
            assert reply["result"]["protocol"] == 1
            assert raw.decoder.framing == (framing.LINE if line else framing.HEADER)
            await raw.close()


async def test_initialize_names_the_client_and_lists_methods(tmp_path):
    """`initialize` is optional; what it says is shown in status, and the methods of the socket are told."""
    async with Rpc(tmp_path) as rpc:
        raw = await rpc.connect()
        status = (await raw.ask(0, "pool/status"))["result"]
        assert status["clients"][0]["name"] == f"pid {os.getpid()}"
        result = (await raw.ask(1, "initialize", client={"name": "vi", "version": "9"}))["result"]
        assert result["server"]["name"] == "gemini-pool"
        assert "pool/acquire" in result["methods"]
        status = (await raw.ask(2, "pool/status"))["result"]
        assert [(c["name"], c["version"], c["pid"]) for c in status["clients"]] == [("vi", "9", os.getpid())]


@pytest.mark.parametrize("ident", [0, 1, -7, "x", "", 3.0, 2.5, 2**53])
async def test_ids_come_back_as_they_are(tmp_path, ident):
    """Integers, strings and floats are ids; 0 and "" are ids, too."""
    async with Rpc(tmp_path) as rpc:
        raw = await rpc.connect()
        assert (await raw.ask(ident, "daemon/info"))["id"] == ident


async def test_notifications_get_no_reply(tmp_path):
    """A message without id, or with id null, is done and not answered; unknown ones are ignored."""
    async with Rpc(tmp_path) as rpc:
        raw = await rpc.connect()
        raw.send(
            {"method": "pool/pause", "params": {"account": "key-a"}},
            {"id": None, "method": "nothing/like/this"},
            {"method": "pool/acquire", "params": {"model": 3}},
            {"jsonrpc": "2.0", "id": 9, "result": None},
        )
        status = (await raw.ask(1, "pool/status"))["result"]
        assert [a["state"] for a in status["accounts"]] == ["paused", "ready"]
        assert raw.messages == []


@pytest.mark.parametrize(
    ("message", "code", "ident"),
    [
        ([{"id": 1, "method": "pool/status"}], -32600, None),
        (17, -32600, None),
        ("x", -32600, None),
        ({"id": 5}, -32600, 5),
        ({"id": 5, "method": 3}, -32600, 5),
        ({"id": {"a": 1}, "method": "pool/status"}, -32600, None),
        ({"id": True, "method": "pool/status"}, -32600, None),
        ({"id": 5, "method": "pool/stauts"}, -32601, 5),
        ({"id": 5, "method": "$/cancelRequest", "params": {"id": 4}}, -32601, 5),  # a notification, asked
        ({"id": 5, "method": "pool/acquire"}, -32602, 5),
        ({"id": 5, "method": "pool/acquire", "params": []}, -32602, 5),
        ({"id": 5, "method": "pool/acquire", "params": {"model": ["a"]}}, -32602, 5),
        ({"id": 5, "method": "pool/acquire", "params": {"model": "m", "forms": ["xx"]}}, -32602, 5),
    ],
)
async def test_bad_messages(tmp_path, message, code, ident):
    """JSON that is no request, no method or no such parameters is an error of its own; the connection goes on."""
    async with Rpc(tmp_path) as rpc:
        raw = await rpc.connect()
        raw.send(message)
        reply = await raw.message()
        assert (reply["error"]["code"], reply["id"]) == (code, ident)
        assert reply["error"]["data"]["code"] in ("bad_request", "not_found")
        assert "result" in await raw.ask(6, "pool/status")


async def test_errors_name_the_field_and_the_methods(tmp_path):
    """What is wrong is named: the parameter by its path, an unknown method with those there are."""
    async with Rpc(tmp_path) as rpc:
        raw = await rpc.connect()
        error = (await raw.ask(1, "pool/acquire", model="m", exclude=[1]))["error"]
        assert "$.exclude[0]" in error["message"]
        error = (await raw.ask(2, "pool/stauts"))["error"]
        assert "pool/status" in error["data"]["hint"]


async def test_errors_always_say_whether_to_try_again(tmp_path):
    """`data` has `code`, `retryable` and `hint` whether or not there is much to say."""
    async with Rpc(tmp_path) as rpc:
        raw = await rpc.connect()
        for method in ("pool/acquire", "pool/stauts"):
            data = (await raw.ask(1, method))["error"]["data"]
            assert data["retryable"] is False
            assert isinstance(data["hint"], str)


@pytest.mark.parametrize("params", [None, {}])
async def test_params_may_be_null_or_missing(tmp_path, params):
    """Clients that send `params: null`, or none, mean no parameters."""
    async with Rpc(tmp_path) as rpc:
        raw = await rpc.connect()
        raw.send({"id": 1, "method": "pool/status", "params": params}, {"id": 2, "method": "pool/status"})
        assert "result" in await raw.reply(1)
        assert "result" in await raw.reply(2)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"{nonsense\n", -32700),
        (b"Content-Length: 5\r\n\r\n{nons", -32700),
        (b"Content-Length: 7\r\n\r\n{}", None),
        (b"Content-Length: 0\r\n\r\n", -32700),
        (b"Content-Length: x\r\n\r\n{}", -32700),
        (b"Content-Length: 68157440\r\n\r\n", -32600),
        (b"Content-Type: " + b"x" * 4096, -32600),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", -32700),
        (b"\x16\x03\x01", -32700),
        (b'{"a":"\xff\xfe', None),
        (b'{"method":"\xff"}\n', -32700),
        (b'{"id":1,"method":"pool/generate","params":{"model":"m","request":{"a":"\xff"}}}\n', -32700),
        (b'{"id":1,"method":"pool/generate","params":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", -32700),
        (b'{"id":1,"method":3,nonsense}\n', -32700),
        (b"[nonsense\n", -32700),
        (b"[" * 100_000 + b"]" * 100_000 + b"\n", -32700),
    ],
)
async def test_frames_that_cannot_be_read(tmp_path, sent, code):
    """A broken or oversize frame gets an error with id null and the end of its connection; nobody else notices."""
    async with Rpc(tmp_path) as rpc:
        other = await rpc.connect()
        raw = await rpc.connect()
        raw.writer.write(sent)
        if code is None:  # only the start of a frame: its sender goes away
            raw.writer.write_eof()
        else:
            reply = await raw.message()
            assert (reply["id"], reply["error"]["code"]) == (None, code)
        assert await raw.ended()
        assert "result" in await other.ask(1, "pool/status")


async def test_65_mib(tmp_path):
    """A frame of 65 MiB is refused with the way that works, even while its sender still writes."""
    async with Rpc(tmp_path) as rpc:
        raw = await rpc.connect()
        raw.writer.write(b"Content-Length: %d\r\n\r\n" % (65 << 20))
        raw.writer.write(b" " * (65 << 20))
        reply = await raw.message()
        assert reply["id"] is None
        assert "gateway" in reply["error"]["message"]
        assert await raw.ended()


async def test_large_frame_passes(tmp_path):
    """Megabytes below the limit are served."""
    async with Rpc(tmp_path) as rpc:
        raw = await rpc.connect()
        large = {"contents": [{"role": "user", "parts": [{"text": "a" * (9 << 20)}]}]}
        reply = await raw.ask(1, "pool/generate", model=MODEL, request=large)
        assert reply["result"]["candidates"]


async def test_generate_and_stream(tmp_path):
    """An answer comes as Google gave it; a stream's chunks come as progress under the client's token, then its end."""
    async with Rpc(tmp_path) as rpc:
        raw = await rpc.connect()
        reply = await raw.ask(1, "pool/generate", model=MODEL, request=BODY)
        assert reply["result"]["candidates"][0]["finishReason"] == "STOP"
        raw.send(
            raw.request(
                2, "pool/generate", model=MODEL, method="streamGenerateContent", request=BODY, token="t"
            )
        )
        end = await raw.reply(2)
        assert end["result"]["finish_reason"] == "STOP"
        assert end["result"]["chunks"] == len(raw.messages) > 1
        assert {(m["method"], m["params"]["token"]) for m in raw.messages} == {("$/progress", "t")}
        assert raw.messages[0]["params"]["value"]["candidates"]


async def test_stream_over_lines_stays_on_lines(tmp_path):
    """Google's own line breaks inside a chunk do not break the newline framing."""
    async with Rpc(tmp_path) as rpc:
        raw = await rpc.connect()
        request = raw.request(1, "pool/generate", model=MODEL, request=BODY)
        raw.send(request, line=True)
        line = await raw.reader.readline()
        assert msgspec.json.decode(line)["result"]["candidates"]


async def test_stream_without_a_token_is_told(tmp_path):
    """A stream needs a name for its progress."""
    async with Rpc(tmp_path) as rpc:
        raw = await rpc.connect()
        error = (
            await raw.ask(1, "pool/generate", model=MODEL, method="streamGenerateContent", request=BODY)
        )["error"]
        assert error["data"]["code"] == "bad_request"
        assert "token" in error["message"]


@pytest.mark.parametrize("by", ["id", "token"])
async def test_cancel_in_the_same_packet(tmp_path, by):
    """A request that is cancelled before its first step still gets its -32800, and its lease is free."""
    async with Rpc(tmp_path) as rpc:
        raw = await rpc.connect()
        request = raw.request(
            7, "pool/generate", model=MODEL, method="streamGenerateContent", request=BODY, token=3
        )
        cancel = (
            {"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": 7}}
            if by == "id"
            else {"jsonrpc": "2.0", "id": 8, "method": "pool/cancel", "params": {"token": 3}}
        )
        raw.send(request, cancel)
        assert (await raw.reply(7))["error"]["code"] == -32800
        if by == "token":
            assert "result" in await raw.reply(8)
        assert len(rpc.pool.leases) == 0


async def test_cancel_in_mid_stream(tmp_path):
    """A running stream ends with -32800; what it held is free, and the connection goes on."""
    async with Rpc(tmp_path) as rpc:
        rpc.fake.faults.add(Fault.stall(after=1))
        raw = await rpc.connect()
        raw.send(
            raw.request(
                1, "pool/generate", model=MODEL, method="streamGenerateContent", request=BODY, token=1
            )
        )
        assert (await raw.message())["method"] == "$/progress"
        raw.send({"method": "$/cancelRequest", "params": {"id": 1}})
        assert (await raw.reply(1))["error"]["code"] == -32800
        assert len(rpc.pool.leases) == 0
        assert "result" in await raw.ask(2, "pool/status")


async def test_cancelling_what_is_not_there(tmp_path):
    """A cancel that comes too late, or names nothing, does nothing."""
    async with Rpc(tmp_path) as rpc:
        raw = await rpc.connect()
        raw.send({"method": "$/cancelRequest", "params": {"id": 99}}, {"method": "$/cancelRequest"})
        assert "result" in await raw.ask(1, "pool/cancel", token="gone")


async def test_one_id_at_a_time(tmp_path):
    """An id or token that still belongs to a running request is refused; the first request goes on."""
    async with Rpc(tmp_path) as rpc:
        rpc.fake.faults.add(Fault.stall(after=1))
        raw = await rpc.connect()
        stream = raw.request(
            1, "pool/generate", model=MODEL, method="streamGenerateContent", request=BODY, token=1
        )
        raw.send(stream, stream, {**stream, "id": 2})
        for ident in (1, 2):
            assert (await raw.reply(ident))["error"]["code"] == -32600
        raw.send({"method": "$/cancelRequest", "params": {"id": 1}})
        assert (await raw.reply(1))["error"]["code"] == -32800


async def test_client_that_vanishes(tmp_path):
    """A client that dies in mid-stream frees everything it held at once; the upstream request ends."""
    async with Rpc(tmp_path) as rpc:
        rpc.fake.faults.add(Fault.stall(after=1))
        raw = await rpc.connect()
        await raw.ask(1, "pool/acquire", model=MODEL)
        raw.send(
            raw.request(
                2, "pool/generate", model=MODEL, method="streamGenerateContent", request=BODY, token=1
            )
        )
        await raw.message()
        assert len(rpc.pool.leases) == 2
        raw.writer.transport.abort()
        await asyncio.sleep(0)
        other = await rpc.connect()
        while len(rpc.pool.leases):
            await other.ask(3, "daemon/info")
        status = (await other.ask(4, "pool/status"))["result"]
        assert len(status["clients"]) == 1
        assert [a["in_flight"] for a in status["accounts"]] == [0, 0]


async def test_detached_lease_survives_its_connection(tmp_path):
    """`detach` leaves a lease to its time alone; any connection may report it."""
    async with Rpc(tmp_path) as rpc:
        raw = await rpc.connect()
        lease = (await raw.ask(1, "pool/acquire", model=MODEL, detach=True))["result"]["lease"]
        await raw.ask(2, "pool/acquire", model=MODEL)
        await raw.close()
        other = await rpc.connect()
        while len(rpc.pool.leases) > 1:
            await other.ask(3, "daemon/info")
        assert (await other.ask(4, "pool/report", lease=lease, status=200))["result"]["next"] == "done"


async def test_leases_of_a_connection_that_the_daemon_ended_wait_for_their_client(tmp_path):
    """Who was hung up on (here for a frame that is none) may come back and report."""
    async with Rpc(tmp_path) as rpc:
        raw = await rpc.connect()
        lease = (await raw.ask(1, "pool/acquire", model=MODEL))["result"]["lease"]
        raw.writer.write(b"nonsense\r\n\r\n")
        assert await raw.ended()
        other = await rpc.connect()
        assert (await other.ask(2, "pool/report", lease=lease, status=200))["result"]["next"] == "done"


async def test_half_closed_client_gets_its_replies(tmp_path):
    """`nc -N` ends its sending side at once and still waits for the answer, be it immediate or not."""
    async with Rpc(tmp_path) as rpc:
        for verb, params in (("pool/status", {}), ("pool/generate", {"model": MODEL, "request": BODY})):
            raw = await rpc.connect()
            raw.send(raw.request(1, verb, **params), line=True)
            raw.writer.write_eof()
            assert "result" in await raw.reply(1)
            assert await raw.ended()
            await raw.close()


async def test_half_closed_client_that_dies(tmp_path):
    """After its end of sending, a client's death is still noticed."""
    async with Rpc(tmp_path) as rpc:
        rpc.fake.faults.add(Fault.silence())
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(str(rpc.path))
        body = msgspec.json.encode(
            {"id": 1, "method": "pool/generate", "params": {"model": MODEL, "request": BODY}}
        )
        sock.sendall(body + b"\n")
        sock.shutdown(socket.SHUT_WR)
        other = await rpc.connect()
        while not len(rpc.pool.leases):
            await other.ask(1, "daemon/info")
        sock.close()
        while len(rpc.pool.leases):
            await other.ask(2, "daemon/info")


async def test_two_scopes(tmp_path):
    """The `use` socket serves `initialize` and `pool/*` but for pausing; the rest is not there."""
    async with Rpc(tmp_path) as rpc:
        raw = await rpc.connect(rpc.use_path)
        methods = (await raw.ask(1, "initialize"))["result"]["methods"]
        assert {m.split("/")[0] for m in methods} == {"initialize", "pool"}
        for method in ("pool/pause", "pool/resume", "account/list", "daemon/info", "daemon/reload"):
            assert method not in methods
            assert (await raw.ask(2, method))["error"]["code"] == -32601
        assert "result" in await raw.ask(3, "pool/acquire", model=MODEL)


async def test_requests_run_concurrently(tmp_path):
    """A request that waits holds up nobody on its connection."""
    async with Rpc(tmp_path) as rpc:
        rpc.fake.faults.add(Fault.silence())
        raw = await rpc.connect()
        raw.send(raw.request(1, "pool/generate", model=MODEL, request=BODY), raw.request(2, "pool/status"))
        assert "result" in await raw.reply(2)
        assert raw.messages == []


async def test_too_many_in_flight_are_not_read_any_further(tmp_path):
    """Beyond its limit a connection is not read; its requests are served when earlier ones end, none is lost."""
    async with Rpc(tmp_path, max_in_flight=2) as rpc:
        rpc.fake.faults.add(Fault.silence(), times=2)
        raw = await rpc.connect()
        generate = [raw.request(n, "pool/generate", model=MODEL, request=BODY) for n in (1, 2)]
        raw.send(*generate, *(raw.request(n, "pool/status") for n in range(3, 200)))
        other = await rpc.connect()
        while len(rpc.pool.leases) < 2:
            await other.ask(1, "daemon/info")
        assert raw.messages == []
        assert rpc.server.clients()[0].in_flight == 2
        await other.ask(2, "daemon/info")
        for lease in list(rpc.pool.leases):  # what silences ends is their fault; here the daemon does it
            assert lease.owner == "c1"
        connection = rpc.server._connections["c1"]
        connection.cancel_all()
        assert "error" in await raw.reply(1)
        for n in range(3, 200):
            assert "result" in await raw.reply(n)


async def test_slow_reader_of_a_stream_slows_the_stream(tmp_path):
    """Whoever does not read holds up their own stream, not the daemon's memory."""
    async with Rpc(tmp_path) as rpc:
        rpc.world.models[MODEL].chunks = 400
        rpc.world.models[MODEL].chunk_chars = 40_000
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(str(rpc.path))
        request = {
            "id": 1,
            "method": "pool/generate",
            "params": {"model": MODEL, "method": "streamGenerateContent", "request": BODY, "token": 1},
        }
        sock.sendall(framing.encode(msgspec.json.encode(request)))
        other = await rpc.connect()
        connection = None
        while connection is None or connection._writable.is_set():
            await other.ask(1, "daemon/info")
            connection = rpc.server._connections["c1"]
        for _ in range(50):
            await other.ask(1, "daemon/info")
        assert connection._transport.get_write_buffer_size() < 2 << 20
        assert connection._out_size < 2 << 20
        sock.setblocking(False)
        decoder, loop = framing.Decoder(), asyncio.get_running_loop()
        messages = []
        while not messages or b'"id":1' not in messages[-1][:40]:
            messages += decoder.feed(await loop.sock_recv(sock, 1 << 20))
        assert msgspec.json.decode(messages[-1])["result"]["chunks"] == len(messages) - 1
        sock.close()


async def test_slow_reader_of_replies_is_not_served_further(tmp_path):
    """A client that asks and never reads is stopped before its replies fill the memory, and served when it reads."""
    async with Rpc(tmp_path, *(f"key-{n}" for n in range(50))) as rpc:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(str(rpc.path))
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        packet = b"".join(framing.encode(b'{"id":%d,"method":"pool/status"}' % n) for n in range(500))
        await loop.sock_sendall(sock, packet)
        other = await rpc.connect()
        connection = None
        while connection is None or connection._writable.is_set():
            await other.ask(1, "daemon/info")
            connection = rpc.server._connections["c1"]
        assert connection._transport.get_write_buffer_size() < 2 << 20
        decoder, count = framing.Decoder(), 0
        while count < 500:
            count += len(decoder.feed(await loop.sock_recv(sock, 1 << 20)))
        sock.close()


async def test_drain(tmp_path):
    """Before a stop everybody is told, nothing new begins, what runs ends, what waits is refused, and then it is over."""
    async with Rpc(tmp_path) as rpc:
        raw = await rpc.connect()
        rpc.world.models[MODEL].think_s = 0.05
        raw.send(
            raw.request(1, "pool/generate", model=MODEL, request=BODY),
            raw.request(2, "pool/acquire", model=MODEL, account="key-a"),
        )
        lease = (await raw.reply(2))["result"]["lease"]
        await raw.ask(3, "pool/pause", account="key-b")
        ending = asyncio.create_task(rpc.server.drain(10, "restart"))
        assert (await raw.message()) == {
            "jsonrpc": "2.0",
            "method": "daemon/draining",
            "params": {"reason": "restart", "grace_s": 10.0},
        }
        assert (await raw.ask(4, "pool/acquire", model=MODEL))["error"]["data"]["code"] == "shutting_down"
        assert (await raw.ask(5, "pool/report", lease=lease, status=200))["result"]["next"] == "done"
        assert "result" in await raw.reply(1)
        await ending
        with pytest.raises(FileNotFoundError):
            await rpc.connect()
        await rpc.server.close()
        assert await raw.ended()


async def test_close_tells_who_still_runs(tmp_path):
    """What outlasts the grace is answered `shutting_down`, whether it ran or waited."""
    async with Rpc(tmp_path, "key-a") as rpc:
        rpc.fake.faults.add(Fault.silence())
        raw = await rpc.connect()
        raw.send(raw.request(1, "pool/generate", model=MODEL, request=BODY))
        while not len(rpc.pool.leases):
            await asyncio.sleep(0)
        await rpc.server.close()
        error = (await raw.reply(1))["error"]
        assert error["data"]["code"] == "shutting_down"
        assert error["data"]["retryable"] is True
        assert await raw.ended()


async def test_a_failing_verb_is_an_error_not_the_end(tmp_path, caplog):
    """An exception nobody thought of is answered -32603 without its text, logged, and the connection goes on."""
    async with Rpc(tmp_path) as rpc:
        rpc.services.info = lambda: 1 / 0
        raw = await rpc.connect()
        error = (await raw.ask(1, "daemon/info"))["error"]
        assert error["code"] == -32603
        assert "division" not in str(error)
        assert "ZeroDivisionError" in caplog.text
        rpc.services.info = rpc.info
        assert "result" in await raw.ask(2, "daemon/info")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
async def test_another_user_is_refused(tmp_path, caplog):
    """A process of another user is hung up on before a byte of it is read, and logged with its uid."""
    async with Rpc(tmp_path) as rpc:
        for folder in (*tmp_path.parents, tmp_path, rpc.path.parent):
            if (
                not folder.stat().st_mode & 0o001
            ):  # pytest's own; never one that is open already, such as /tmp
                folder.chmod(0o711)
        rpc.path.chmod(0o666)
        script = textwrap.dedent(f"""
            import os, socket
            os.setgid(65534); os.setuid(65534)
            s = socket.socket(socket.AF_UNIX)
            s.connect({str(rpc.path)!r})
            try:
                s.sendall(b'{{"id":1,"method":"daemon/info"}}\\n')
                print(s.recv(100))
            except (BrokenPipeError, ConnectionResetError):
                print(b"")
        """)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, err = await process.communicate()
        assert (out, err) == (b"b''\n", b"")
        assert "user id 65534" in caplog.text
        assert rpc.server.clients() == []


async def test_second_server_on_the_socket(tmp_path):
    """A second daemon is refused with the first one's pid; the first goes on."""
    async with Rpc(tmp_path) as rpc:
        with pytest.raises(listen.AlreadyRunning) as caught:
            listen.bind(rpc.path)
        assert str(os.getpid()) in str(caught.value)
        raw = await rpc.connect()
        assert "result" in await raw.ask(1, "daemon/info")


async def test_many_may_wait_to_be_accepted(tmp_path):
    """Hundreds connect while the loop is busy (or while the daemon restarts, and its socket is systemd's): each has a
    place in the kernel's queue."""
    async with Rpc(tmp_path) as rpc:
        clients = [socket.socket(socket.AF_UNIX) for _ in range(300)]
        try:
            for client in clients:
                client.setblocking(False)
                client.connect(str(rpc.path))  # BlockingIOError where the queue is full
        finally:
            for client in clients:
                client.close()
