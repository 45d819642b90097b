"""The asyncio face against the real server: the same promises as the blocking one, and what only asyncio has."""

import asyncio
import os
import socket

import msgspec
import pytest
from tests.ipc.harness import MODEL, Rpc

from gemini_pool import AsyncPool, NotRunning, PoolError, wire
from gemini_pool.errors import ConnectionLost
from gemini_pool.framing import encode
from gemini_poold.fake import Fault, replies


async def test_every_verb(tmp_path):
    """Typed results for each verb of the table."""
    async with Rpc(tmp_path) as rpc, AsyncPool(rpc.path, name="test") as pool:
        assert isinstance(await pool.initialize(), wire.InitializeResult)
        lease = await pool.acquire(MODEL, session="s", wait_s=1)
        assert isinstance(lease, wire.Lease)
        assert isinstance(await pool.renew(lease), wire.RenewResult)
        assert (await pool.report(lease, status=200, usage={"totalTokenCount": 3})).next == "done"
        await pool.release((await pool.acquire(MODEL)).lease)
        assert (await pool.generate(MODEL, "hello"))["candidates"]
        assert (await pool.token("key-a")).token == "fake-key-key-a"
        status = await pool.status()
        assert [(c.name, c.version, c.pid) for c in status.clients] == [("test", wire.VERSION, os.getpid())]
        assert [a.id for a in await pool.accounts()] == ["key-a", "key-b"]
        assert isinstance(await pool.quota(), wire.QuotaResult)
        assert (await pool.explain(MODEL)).chosen
        assert (await pool.info()).socket == str(rpc.path)
        assert (await pool.reload()).unchanged == 2
        await pool.pause("key-a")
        assert (await pool.acquire(MODEL)).account == "key-b"
        await pool.resume("key-a")
        assert (await pool.call("pool/status"))["state"] == "ready"
        with pytest.raises(PoolError) as caught:
            await pool.acquire(MODEL, account="nobody")
        assert caught.value.code == "not_found"


async def test_calls_run_concurrently_on_one_connection(tmp_path):
    """Many calls at once share a connection, and one that waits holds up none."""
    async with Rpc(tmp_path) as rpc, AsyncPool(rpc.path) as pool:
        rpc.fake.faults.add(Fault.silence())
        waiting = asyncio.create_task(pool.generate(MODEL, "hello"))
        leases = await asyncio.gather(*(pool.acquire(MODEL, account=f"key-{'ab'[n % 2]}") for n in range(50)))
        assert [lease.account for lease in leases] == ["key-a", "key-b"] * 25
        assert len((await pool.status()).clients) == 1
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def test_cancelling_cancels_in_the_daemon(tmp_path):
    """A cancelled call ends its request at once; the connection goes on."""
    async with Rpc(tmp_path) as rpc, AsyncPool(rpc.path) as pool:
        rpc.fake.faults.add(Fault.silence())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await pool.generate(MODEL, "hello")
        await pool.info()
        assert len(rpc.pool.leases) == 0


async def test_a_lease_that_comes_too_late_is_given_back(tmp_path):
    """A caller that gave up in the very moment its lease was granted leaves no lease behind."""
    async with Rpc(tmp_path) as rpc, AsyncPool(rpc.path) as pool:
        await pool.info()
        for _ in range(5):
            task = asyncio.create_task(pool.acquire(MODEL))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        while len(rpc.pool.leases):
            await pool.info()


async def test_streams(tmp_path):
    """Chunks in order, the summary at the end; streams run beside each other and keep their connections."""
    async with Rpc(tmp_path) as rpc, AsyncPool(rpc.path) as pool:

        async def one() -> int:
            async with pool.stream(MODEL, "hello") as stream:
                chunks = [chunk async for chunk in stream]
            assert stream.result.chunks == len(chunks) > 1
            assert stream.result.finish_reason == "STOP"
            return len(chunks)

        assert len(set(await asyncio.gather(*(one() for _ in range(5))))) == 1
        before = len((await pool.status()).clients)
        await one()
        assert len((await pool.status()).clients) == before <= 6


async def test_closing_a_stream_cancels_it(tmp_path):
    """Leaving the loop ends the request in the daemon."""
    async with Rpc(tmp_path) as rpc, AsyncPool(rpc.path) as pool:
        rpc.fake.faults.add(Fault.stall(after=1))
        async with pool.stream(MODEL, "hello") as stream:
            async for _ in stream:
                break
        assert len(rpc.pool.leases) == 0
        assert [chunk async for chunk in stream] == []
        never_begun = pool.stream(MODEL, "hello")
        await never_begun.aclose()


async def test_a_cut_stream_raises(tmp_path):
    """A broken stream is an error after its chunks, never an end."""
    async with Rpc(tmp_path) as rpc, AsyncPool(rpc.path) as pool:
        rpc.fake.faults.add(Fault.cut(after=1))
        stream = pool.stream(MODEL, "hello")
        with pytest.raises(PoolError) as caught:
            async for _ in stream:
                pass
        assert caught.value.code == "stream_cut"
        assert stream.result is None


async def test_a_slow_reader_holds_up_its_own_stream_only(tmp_path):
    """A consumer that pauses stops reading its connection, not the daemon's memory or anybody's calls."""
    async with Rpc(tmp_path) as rpc, AsyncPool(rpc.path) as pool:
        rpc.world.models[MODEL].chunks = 300
        rpc.world.models[MODEL].chunk_chars = 40_000
        async with pool.stream(MODEL, "hello") as stream:
            await anext(stream)
            link = stream._link
            while not link._paused:
                await pool.info()
            for _ in range(20):
                await pool.info()
            assert len(link._inbox) < 100
            count = 1
            async for _ in stream:
                count += 1
        assert stream.result.chunks == count


async def test_events(tmp_path):
    """Notices come as they happen, on a connection of their own."""
    async with Rpc(tmp_path) as rpc, AsyncPool(rpc.path) as pool:
        async with await pool.events("account") as events:
            await pool.pause("key-a")
            event = await anext(events)
            assert (event.kind, event.account) == ("account", "key-a")
        with pytest.raises(PoolError):
            await pool.events("weather")


class Answered(Exception):
    """What HTTP libraries raise: the answer hangs on it."""

    def __init__(self, status: int, body: str) -> None:
        self.response = type("Response", (), {"status_code": status, "headers": {"a": "b"}, "text": body})()


async def test_leases(tmp_path):
    """A block reports by itself: an answer, an HTTP error, its own mistake; and moves on when told to retry."""
    limited = replies.rate_limited(retry="50s")
    async with Rpc(tmp_path) as rpc, AsyncPool(rpc.path) as pool:
        async with pool.lease(MODEL) as lease:
            assert lease.headers["x-goog-api-key"] == f"fake-key-{lease.account}"
            assert (lease.form, lease.url[:4]) == ("gl", "http")
            await lease.renew()
        async with pool.lease(MODEL) as lease:
            await lease.release()
        with pytest.raises(ZeroDivisionError):
            async with pool.lease(MODEL):
                1 / 0
        async with pool.lease(MODEL) as lease:
            first = lease.account
            assert (await lease.report(status=429, body=limited)).next == "retry"
            assert lease.account != first
        with pytest.raises(Answered):
            async with pool.lease(MODEL) as lease:
                raise Answered(429, msgspec.json.encode(limited).decode())
        assert len(rpc.pool.leases) == 0
        assert [len(a.cooldowns) for a in await pool.accounts()] == [1, 1]
        pool_status = await pool.status()
        assert pool_status.counters.answered == 2


async def test_lease_waits_for_the_next_account(tmp_path):
    """Where none is free now the report waits for one, within the request's deadline."""
    async with Rpc(tmp_path) as rpc, AsyncPool(rpc.path) as pool:
        await pool.pause("key-b")

        async def resume() -> None:
            while not rpc.broker.waiting:
                await asyncio.sleep(0)
            await pool.resume("key-b")

        async with pool.lease(MODEL, wait_s=60) as lease, asyncio.TaskGroup() as group:
            group.create_task(resume())
            await lease.report(status=429, body=replies.rate_limited(retry="40s"))
            assert lease.account == "key-b"


async def test_not_running(tmp_path):
    """Nobody there: the hint names the command that starts the daemon."""
    with pytest.raises(NotRunning) as caught:
        await AsyncPool(tmp_path / "pool.sock", connect_s=0).status()
    assert "gemini-pool" in caught.value.hint


async def test_restart(tmp_path):
    """After a restart the next call just works, and a draining daemon's refusal goes to its successor."""
    async with Rpc(tmp_path) as rpc:
        pool = AsyncPool(rpc.path, connect_s=20)
        await pool.status()
        await rpc.server.drain(0)
        tasks = [
            asyncio.create_task(pool.acquire(MODEL)),
            asyncio.create_task(pool.generate(MODEL, "hello")),
            asyncio.create_task(anext(pool.stream(MODEL, "hello"))),
        ]
        await asyncio.sleep(0)
    async with Rpc(tmp_path) as rpc:
        assert len(await asyncio.gather(*tasks)) == 3
        assert (await pool.acquire(MODEL)).account
    async with Rpc(tmp_path) as rpc:
        assert (await pool.acquire(MODEL)).account
        await pool.aclose()


async def _hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(65536)
    writer.close()


async def test_lost_in_the_middle(tmp_path):
    """What may have taken effect is not repeated by itself."""
    server = await asyncio.start_unix_server(_hang_up, tmp_path / "x")
    async with AsyncPool(tmp_path / "x") as pool:
        with pytest.raises(ConnectionLost) as caught:
            await pool.acquire(MODEL)
        assert not caught.value.unsent
        with pytest.raises(ConnectionLost):
            await pool.status()
    server.close()
    await server.wait_closed()


async def test_not_this_protocol(tmp_path):
    """Another program's socket, or a frame the daemon could not read, is told as such."""
    answers = [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        encode(b'{"id":null,"error":{"code":-32700,"message":"not JSON"}}'),
    ]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(answers.pop(0))
        await reader.read(1)
        writer.close()

    server = await asyncio.start_unix_server(answer, tmp_path / "x")
    async with AsyncPool(tmp_path / "x") as pool:
        with pytest.raises(PoolError) as caught:
            await pool.acquire(MODEL)
        assert caught.value.code == "protocol"
        with pytest.raises(PoolError, match="not JSON"):
            await pool.acquire(MODEL)
    server.close()
    await server.wait_closed()


async def test_stale_socket(tmp_path):
    """A socket nobody listens on is no daemon."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "x"))
    with pytest.raises(NotRunning):
        await AsyncPool(tmp_path / "x", connect_s=0).status()


async def test_a_full_queue_is_no_connection(tmp_path):
    """Where the kernel has no place for one more, nobody is there yet: no connection that was never made is used."""
    path = str(tmp_path / "full.sock")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(path)
        listener.listen(0)
        first.connect(path)
        async with AsyncPool(path, connect_s=0.0) as pool:
            with pytest.raises(NotRunning):
                await pool.info()
            with pytest.raises(NotRunning):
                async for _ in pool.stream(MODEL, "hello"):
                    pass
