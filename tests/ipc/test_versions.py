"""Client and daemon of different versions: what one end does not know yet, the other end may say."""

import asyncio

import msgspec
from tests.ipc.harness import MODEL, Rpc

from gemini_pool import AsyncPool, framing

BODY = {"contents": [{"parts": [{"text": "hi"}]}]}


async def test_a_client_of_tomorrow(tmp_path):
    """Parameters that today's daemon does not know are passed over, a method that it lacks is `not_found` with those
    there are, a notification that it does not know is nobody's fault; the connection goes on."""
    async with Rpc(tmp_path) as rpc:
        raw = await rpc.connect()
        client = {"name": "editor", "version": "99.0", "mood": "fine"}
        greeted = await raw.ask(1, "initialize", client=client, protocol=[1, 2], trace="off")
        assert greeted["result"]["protocol"] == 1
        lease = await raw.ask(2, "pool/acquire", model=MODEL, tomorrow={"a": [1]})
        assert lease["result"]["account"]
        missing = (await raw.ask(3, "pool/tomorrow", a=1))["error"]
        assert (missing["code"], missing["data"]["code"]) == (-32601, "not_found")
        assert "pool/acquire" in missing["data"]["hint"]
        raw.send({"jsonrpc": "2.0", "method": "client/tomorrow", "params": {"x": 1}})
        answer = await raw.ask(4, "pool/generate", model=MODEL, request=BODY, lane="fast")
        assert answer["result"]["candidates"]


async def test_a_client_of_yesterday(tmp_path):
    """One that says no more than it must, not even who it is, and has never heard of kept connections."""
    async with Rpc(tmp_path) as rpc:
        raw = await rpc.connect()
        raw.writer.write(b'{"id":1,"method":"pool/acquire","params":{"model":"%s"}}\n' % MODEL.encode())
        lease = (await raw.reply(1))["result"]["lease"]
        raw.writer.write(b'{"id":2,"method":"pool/report","params":{"lease":"%s"}}\n' % lease.encode())
        assert (await raw.reply(2))["result"]["next"] == "done"


async def test_a_daemon_of_tomorrow(tmp_path):
    """Fields and notifications that today's client does not know change nothing for it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        decoder = framing.Decoder()
        while data := await reader.read(65536):
            for message in map(msgspec.json.decode, decoder.feed(data)):
                reply = {"jsonrpc": "2.0", "id": message["id"], "result": results[message["method"]]}
                notice = {"jsonrpc": "2.0", "method": "daemon/tomorrow", "params": {"x": [1]}}
                writer.writelines(framing.encode(msgspec.json.encode(one)) for one in (notice, reply))
        writer.close()

    info = msgspec.to_builtins(Rpc(tmp_path).info())
    results = {
        "initialize": {"server": {"name": "gemini-pool", "version": "99.0"}, "protocol": 2, "methods": []},
        "daemon/info": {**info, "version": "99.0", "tomorrow": {"a": 1}},
    }
    async with await asyncio.start_unix_server(serve, tmp_path / "sock"):
        async with AsyncPool(tmp_path / "sock") as pool:
            assert (await pool.info()).version == "99.0"
            assert (await pool.initialize()).protocol == 2
