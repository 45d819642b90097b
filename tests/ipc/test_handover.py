"""A restart that a connection survives: what runs ends, what is asked meanwhile waits, and the successor goes on."""

import asyncio
import socket

import pytest
from tests.ipc.harness import MODEL, Raw, Rpc

from gemini_pool import AsyncPool, Pool
from gemini_poold.fake import Fault
from gemini_poold.ipc import listen
from gemini_poold.ipc.server import Server

BODY = {"contents": [{"parts": [{"text": "hi"}]}]}


class Restart:
    """Two servers after each other over one pool, and the connections that the first one gave away."""

    def __init__(self, rpc: Rpc) -> None:
        self.rpc = rpc
        self.kept: list[tuple[socket.socket, dict]] = []

    def keep(self, sock: socket.socket, state: dict) -> bool:
        self.kept.append((sock, state))
        return True

    async def stop(self, grace_s: float = 10.0) -> None:
        await self.rpc.server.drain(grace_s, keep=self.keep)
        await self.rpc.server.close()

    async def start(self) -> list[bool]:
        rpc = self.rpc
        rpc.broker.end_at(float("inf"))
        rpc.server = Server(rpc.services, prefix="2-")
        rpc._stack.push_async_callback(rpc.server.close)
        await rpc.server.listen(listen.bind(rpc.path))
        await rpc.server.listen(listen.bind(rpc.use_path), "use")
        return [await rpc.server.adopt(sock, state) for sock, state in self.kept]


async def greeted(rpc: Rpc) -> Raw:
    raw = await rpc.connect()
    await raw.ask(0, "initialize", client={"name": "editor", "version": "9"})
    return raw


async def test_an_idle_connection_goes_on(tmp_path):
    """It is told of the drain, and that it is kept; name, subscription and leases are what they were."""
    async with Rpc(tmp_path) as rpc:
        raw, restart = await greeted(rpc), Restart(rpc)
        await raw.ask(1, "pool/subscribe", events=["account"])
        lease = (await raw.ask(2, "pool/acquire", model=MODEL))["result"]["lease"]
        await restart.stop()
        assert (await raw.message())["params"] == {"reason": "stopping", "grace_s": 10.0, "kept": True}
        raw.send(raw.request(3, "daemon/info"))
        assert await restart.start() == [True]
        assert "result" in await raw.reply(3)
        (client,) = rpc.server.clients()
        assert (client.name, client.version) == ("editor", "9")
        await raw.ask(4, "pool/pause", account="key-a")
        assert (await raw.message())["method"] == "pool/event"
        assert [held.id for held in rpc.pool.leases] == [lease]
        await raw.close()
        while len(rpc.pool.leases):  # its client ended it: freed at once
            await asyncio.sleep(0)


async def test_what_is_asked_meanwhile_waits_for_the_successor(tmp_path):
    """While a call runs, new ones are put aside, whole or in part, and a cancel finds its call there; what may be
    served late still is."""
    async with Rpc(tmp_path) as rpc:
        raw, restart = await greeted(rpc), Restart(rpc)
        lease = (await raw.ask(1, "pool/acquire", model=MODEL))["result"]["lease"]
        rpc.world.models[MODEL].think_s = 0.2
        raw.send(raw.request(2, "pool/generate", model=MODEL, request=BODY))
        while len(rpc.pool.leases) < 2:
            await asyncio.sleep(0)
        stopping = asyncio.create_task(restart.stop())
        await raw.message()
        raw.send(
            raw.request(3, "pool/acquire", model=MODEL),
            raw.request(4, "pool/generate", model=MODEL, request=BODY),
            {"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": 4}},
        )
        assert (await raw.ask(5, "pool/release", lease=lease))["result"] == {}
        whole = b'Content-Length: 47\r\n\r\n{"jsonrpc":"2.0","id":6,"method":"daemon/info"}'
        raw.writer.write(whole[:40])
        assert "result" in await raw.reply(2)
        await stopping
        assert not raw.messages
        await restart.start()
        raw.writer.write(whole[40:])
        assert "lease" in (await raw.reply(3))["result"]
        assert (await raw.reply(4))["error"]["code"] == -32800
        assert "result" in await raw.reply(6)


async def test_a_connection_that_has_not_said_a_byte(tmp_path):
    """Nothing is written to it before its framing is known: neither when it is kept nor when it is not."""
    async with Rpc(tmp_path) as rpc:
        raw, restart = await rpc.connect(), Restart(rpc)
        while not rpc.server.clients():
            await asyncio.sleep(0)
        await restart.stop()
        await restart.start()
        assert "result" in await raw.ask(1, "daemon/info")
        mute = await rpc.connect()
        while len(rpc.server.clients()) < 2:
            await asyncio.sleep(0)
        draining = asyncio.create_task(rpc.server.drain(10.0))
        await asyncio.sleep(0)
        mute.send(mute.request(1, "pool/acquire", model=MODEL))
        assert (await mute.message())["method"] == "daemon/draining"
        assert (await mute.message())["error"]["data"]["code"] == "shutting_down"
        await draining


async def test_the_line_framing_goes_on_too(tmp_path):
    """A script's connection with its begun line."""
    async with Rpc(tmp_path) as rpc:
        raw, restart = await rpc.connect(), Restart(rpc)
        await raw.ask(1, "daemon/info", line=True)
        raw.writer.write(b'{"id":2,"method":"daem')
        await asyncio.sleep(0.01)
        await restart.stop()
        await restart.start()
        raw.writer.write(b'on/info"}\n')
        assert "result" in await raw.reply(2)


async def test_what_outlasts_the_grace_is_refused_and_its_connection_goes_on(tmp_path):
    """The call is answered `shutting_down`, to be asked again; the connection is there for it."""
    async with Rpc(tmp_path, "key-a") as rpc:
        raw, restart = await greeted(rpc), Restart(rpc)
        rpc.fake.faults.add(Fault.silence())
        raw.send(raw.request(2, "pool/generate", model=MODEL, request=BODY))
        while not len(rpc.pool.leases):
            await asyncio.sleep(0)
        await restart.stop(grace_s=0.05)
        assert (await raw.reply(2))["error"]["data"]["code"] == "shutting_down"
        assert await restart.start() == [True]
        assert "lease" in (await raw.ask(4, "pool/acquire", model=MODEL))["result"]


async def test_a_connection_keeps_its_scope(tmp_path):
    """What came in through the socket for use alone manages nothing afterwards either."""
    async with Rpc(tmp_path) as rpc:
        restart = Restart(rpc)
        raw = await rpc.connect(rpc.use_path)
        await raw.ask(1, "pool/status")
        await restart.stop()
        assert await restart.start() == [True]
        assert "result" in await raw.ask(2, "pool/status")
        assert (await raw.ask(3, "account/list"))["error"]["data"]["code"] == "not_found"


@pytest.mark.parametrize("state", [{}, {"owner": 7}, {"owner": "c1", "unread": "no base64!"}])
async def test_a_state_that_is_none_is_not_adopted(tmp_path, state):
    """What another version or nobody wrote: the connection cannot go on."""
    async with Rpc(tmp_path) as rpc:
        raw, restart = await greeted(rpc), Restart(rpc)
        await restart.stop()
        restart.kept = [(restart.kept[0][0], state)]
        assert await restart.start() == [False]
        restart.kept[0][0].close()
        assert await raw.ended()


async def test_python_clients_notice_nothing(tmp_path):
    """Calls, leases and streams of both pools over a restart: each on the connection that it had."""
    async with Rpc(tmp_path) as rpc:
        restart, loop = Restart(rpc), asyncio.get_running_loop()
        with Pool(rpc.path) as pool:
            async with AsyncPool(rpc.path) as other:
                mine = await loop.run_in_executor(None, pool.acquire, MODEL)
                theirs = await other.acquire(MODEL)
                before = {client.owner for client in rpc.server.clients()}
                await restart.stop()
                asked = asyncio.create_task(other.generate(MODEL, "hi"))
                await asyncio.sleep(0)
                await restart.start()
                assert (await asked)["candidates"]
                assert (await other.report(theirs, status=200)).next == "done"
                report = loop.run_in_executor(None, lambda: pool.report(mine, status=200))
                assert (await report).next == "done"
                assert {client.owner for client in rpc.server.clients()} == before


async def test_a_client_that_comes_back_takes_its_lease_along(tmp_path):
    """Where connections end with the daemon: renewed on a new one, the lease is that one's, and is not freed when the
    time for coming back is over."""
    async with Rpc(tmp_path) as rpc:
        raw = await greeted(rpc)
        kept, lost = [(await raw.ask(n, "pool/acquire", model=MODEL))["result"]["lease"] for n in (1, 2)]
        restart = Restart(rpc)
        await rpc.server.drain(0.5)
        await rpc.server.close()
        await restart.start()
        again = await rpc.connect()
        assert "expires_at" in (await again.ask(1, "pool/renew", lease=kept))["result"]
        for owner in rpc.pool.leases.owners - rpc.server._connections.keys():
            rpc.broker.release_owner(owner)
        assert [lease.id for lease in rpc.pool.leases] == [kept]
        assert (await again.ask(2, "pool/report", lease=lost))["error"]["data"]["code"] == "not_found"
        other = await rpc.connect()
        await other.ask(1, "pool/renew", lease=kept)  # somebody else's: longer, and still not theirs
        await other.close()
        assert (await again.ask(3, "pool/report", lease=kept))["result"]["next"] == "done"
