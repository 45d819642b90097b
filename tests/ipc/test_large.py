"""Answers that no frame can hold: an error that says so, and a connection that goes on."""

import msgspec
from tests.ipc.harness import Rpc

from gemini_pool import wire
from gemini_pool.framing import MAX_FRAME
from gemini_poold.ipc.verbs import Verb

TOO_LARGE = b'"' + b"x" * MAX_FRAME + b'"'


async def _streams(_services, caller, params):
    await caller.progress(params.token, b'"small"')
    await caller.progress(params.token, TOO_LARGE)
    return wire.Empty()


TABLE = {
    verb.method: verb
    for verb in (
        Verb("large", wire.Empty, lambda s, c, p: msgspec.Raw(TOO_LARGE)),
        Verb("small", wire.Empty, lambda s, c, p: msgspec.Raw(b'"fits"')),
        Verb("stream", wire.CancelTokenParams, _streams, streams=True),
    )
}


async def test_an_answer_above_a_frame_is_an_error(tmp_path):
    """Not one byte of it is sent; the error names the way that has no such limit, and is not worth a repeat."""
    async with Rpc(tmp_path, table=TABLE) as rpc:
        client = await rpc.connect()
        error = (await client.ask(1, "large"))["error"]
        assert "64 MiB" in error["message"] or "at most 64" in error["message"]
        assert error["data"]["code"] == "bad_request"
        assert "gateway" in error["data"]["hint"]
        assert not error["data"].get("retryable")
        assert (await client.ask(2, "small"))["result"] == "fits"


async def test_a_chunk_above_a_frame_ends_its_stream(tmp_path):
    """What came before it was sent; the stream ends as that error, the connection goes on."""
    async with Rpc(tmp_path, table=TABLE) as rpc:
        client = await rpc.connect()
        client.send(client.request(1, "stream", token="t"))
        assert (await client.message())["params"]["value"] == "small"
        assert "at most 64" in (await client.message())["error"]["message"]
        assert (await client.ask(2, "small"))["result"] == "fits"
