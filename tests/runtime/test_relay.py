"""Streams: whole events only, fail-over before the first byte and never after, and never a cut one for a whole one."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from dataclasses import replace

import pytest
from tests.runtime.rig import HI, MODEL, rig_of

from gemini_poold.backends import sse
from gemini_poold.config import Gateway
from gemini_poold.core.model import Kind
from gemini_poold.errors import PoolError
from gemini_poold.fake import Fault, Match, Twist, replies
from gemini_poold.runtime.dispatch import ClientFault

WRAPPED = {"model": "x", "project": "x", "user_prompt_id": "p", "request": HI}


async def read(stream):
    """Every block of a stream, and its error if it has one."""
    blocks = []
    try:
        async with stream:
            async for block in stream:
                blocks.append(block)
    except PoolError as error:
        return blocks, error
    return blocks, None


def text_of(blocks, wrapped=False):
    events = [json.loads(p) for block in blocks for p in sse.payloads(block)]
    events = [e["response"] for e in events] if wrapped else events
    return "".join(
        p.get("text", "")
        for e in events
        for c in e.get("candidates", [])
        for p in c.get("content", {}).get("parts", [])
    )


async def whole_text(rig, **more):
    answer = json.loads((await rig.dispatcher.unary(rig.call(**more))).body)
    return "".join(p.get("text", "") for p in answer["candidates"][0]["content"]["parts"])


@pytest.mark.parametrize("name", ["key-a", "user-a", "robot-a"])
@pytest.mark.parametrize("surface", ["gl", "ca", "vx"])
async def test_every_surface_on_every_backend(name, surface):
    """A stream of each dialect from each backend: all of the text, its finish, its usage, its count."""
    async with rig_of(name) as rig:
        stream = await rig.dispatcher.stream(
            rig.stream_call(WRAPPED if surface == "ca" else HI, surface=surface)
        )
        assert (stream.account, stream.attempts) == (name, 1)
        blocks, error = await read(stream)
        assert error is None
        assert text_of(blocks, surface == "ca") == await whole_text(rig)
        assert (stream.finish_reason, stream.chunks) == ("STOP", sum(map(sse.count, blocks)))
        assert stream.usage.total_tokens > 0
        counter = rig.pool.members[name].counters[MODEL]
        assert counter.output_tokens >= stream.usage.output_tokens > 0
        assert rig.idle()


async def test_own_dialect_is_byte_identical():
    """Where nothing is translated, the client gets Google's very bytes."""
    async with rig_of("key-a") as rig:
        blocks, _ = await read(await rig.dispatcher.stream(rig.stream_call()))
        direct = await rig.transport.fetch(
            "POST", f"{rig.fake.url}/v1beta/models/{MODEL}:streamGenerateContent?alt=sse",
            headers={"x-goog-api-key": "fake-key-key-a", "Content-Type": "application/json"}, body=json.dumps(HI).encode(),
        )  # fmt: skip
        got, want = b"".join(blocks), direct.body
        for one, two in zip(sse.payloads(got), sse.payloads(want), strict=True):
            assert {**json.loads(one), "responseId": 0} == {**json.loads(two), "responseId": 0}
        assert got.count(b"\r\n\r\n") == want.count(b"\r\n\r\n")


@pytest.mark.parametrize("name", ["key-a", "user-a"])
@pytest.mark.parametrize(
    "twist",
    [Twist(eol="\n"), Twist(multi_line=True), Twist(comments=True), Twist(split=1), Twist(split=-1), Twist(split=-2),
     Twist(eol="\n", multi_line=True, comments=True, split=3)],
)  # fmt: skip
async def test_every_dress(name, twist):
    """Line ends, several data lines, comments, splits inside lines and characters: the same text."""
    async with rig_of(name) as rig:
        rig.fake.faults.add(Fault.styled(twist))
        stream = await rig.dispatcher.stream(rig.stream_call())
        blocks, error = await read(stream)
        assert error is None
        assert text_of(blocks) == await whole_text(rig)
        assert all(block.endswith((b"\n\n", b"\n\r\n")) for block in blocks)


async def test_events():
    """`events()` gives each payload alone; leaving it early cancels at Google."""
    async with rig_of("user-a") as rig:
        stream = await rig.dispatcher.stream(rig.stream_call())
        payloads = [json.loads(p) async for p in stream.events()]
        assert (len(payloads), stream.chunks) == (stream.chunks, len(payloads))
        assert payloads[-1]["candidates"][0]["finishReason"] == "STOP"
        rig.fake.faults.add(Fault.stall(1))
        stream = await rig.dispatcher.stream(rig.stream_call())
        async with aclosing(stream.events()) as events:
            async for _ in events:
                break
        await stream.aclose()
        assert rig.idle()


ABSORBED = [
    Fault.status(429, body=replies.rate_limited("30s")),
    Fault.status(500, body=replies.internal()),
    Fault.reset_connection("before_headers"),
    Fault.reset_connection("after_headers"),
    Fault.cut(0, "torn"),
    Fault.error_event(0, body=replies.internal()),
    Fault.error_event(0, body=replies.rate_limited("30s"), dress="bare"),
    Fault.error_event(0, body=replies.rate_limited("30s"), dress="array"),
    Fault.status(200, body=b"data: not json\r\n\r\n", content_type="text/event-stream"),
    Fault.status(200, body=b'data: {"candidates": [', content_type="text/event-stream"),
    Fault.status(200, body=replies.rate_limited("30s")),
    # An event and the error came in one piece: nothing is out yet.
    Fault.status(
        200,
        body=b'data: {"candidates":[]}\n\ndata: {"error":{"code":500,"message":"x"}}\n\n',
        content_type="text/event-stream",
    ),
]


@pytest.mark.parametrize("fault", ABSORBED, ids=[f"{i}-{f.name}" for i, f in enumerate(ABSORBED)])
async def test_absorbed_before_the_first_byte(fault):
    """What goes wrong before the first event is whole is another account's chance, and nothing the client sees."""
    async with rig_of("key-a", "key-b") as rig:
        rig.fake.faults.add(fault, when=Match(credential="key-a"), times=None)
        stream = await rig.dispatcher.stream(rig.stream_call())
        blocks, error = await read(stream)
        assert (error, stream.account, stream.attempts) == (None, "key-b", 2)
        assert text_of(blocks) == await whole_text(rig)


CUTS = [
    Fault.cut(1, "rst"),
    Fault.cut(1, "fin"),
    Fault.cut(2, "torn"),
    Fault.cut(1, "clean"),
    Fault.no_finish(),
    Fault.error_event(1, body=replies.internal()),
    Fault.error_event(2, body=replies.internal(), dress="bare"),
    Fault.error_event(1, body=replies.internal(), dress="array"),
]


def later(fault):
    """The same after a breath, so that it does not come in one piece with the events before."""
    twist = fault.twist
    place = next(p for p in (twist.break_at, twist.error_at, 1) if p)
    return replace(fault, twist=replace(twist, pause_at=place, pause_s=0.02))


@pytest.mark.parametrize("name", ["key-a", "user-a"])
@pytest.mark.parametrize("fault", CUTS, ids=[f"{i}-{f.name}" for i, f in enumerate(CUTS)])
async def test_cut_after_the_first_byte(name, fault):
    """A stream that breaks, ends without its finish or brings an error never passes for a whole one; nothing is
    repeated, no byte of the error gets among the answer's, and the account is rested."""
    async with rig_of(name, "key-z") as rig:
        rig.fake.faults.add(later(fault), times=None)
        stream = await rig.dispatcher.stream(rig.stream_call())
        blocks, error = await read(stream)
        assert (error.code, error.account) == ("stream_cut", name)
        assert text_of(blocks)
        assert b'"error"' not in b"".join(blocks)
        assert rig.fake.record.count("stream") == 1
        assert rig.idle()
        member = rig.pool.members[name]
        assert (member.counters[MODEL].failed, member.health.success < 1) == (1, True)
        assert [c.kind for c in rig.pool.cooldowns.active(rig.clock.now())] == [Kind.CUT]
        assert rig.pool.totals["failed"] == 1


async def test_limit_told_in_mid_stream():
    """A rate limit inside a stream cuts it and still rests the account as long as told; the error holds its text."""
    async with rig_of("key-a") as rig:
        rig.fake.faults.add(later(Fault.error_event(1, body=replies.rate_limited("90s"))))
        _, error = await read(await rig.dispatcher.stream(rig.stream_call()))
        assert error.code == "stream_cut"
        assert (error.details["status"], "RetryInfo" in error.details["body"]) == (429, True)
        (cooldown,) = rig.pool.cooldowns.active(rig.clock.now())
        assert (cooldown.kind, cooldown.told) == (Kind.RATE, True)
        assert cooldown.until - rig.clock.now() == pytest.approx(90, abs=5)


@pytest.mark.parametrize(
    "fault",
    [Fault.finish("SAFETY"), Fault.finish("MAX_TOKENS"), Fault.blocked("SAFETY")],
    ids=lambda f: f.name,
)
async def test_stops_are_answers(fault):
    """A safety stop, a full length and a blocked prompt end a stream properly, on one account."""
    async with rig_of("key-a", "key-b") as rig:
        rig.fake.faults.add(fault)
        stream = await rig.dispatcher.stream(rig.stream_call())
        _, error = await read(stream)
        assert error is None
        assert stream.finish_reason in ("SAFETY", "MAX_TOKENS", "BLOCKED_SAFETY")
        assert rig.fake.record.received == 1
        assert rig.pool.members["key-a"].counters[MODEL].served == 1


async def test_break_after_the_finish():
    """What breaks after the finish marker breaks nothing: the answer was whole."""
    async with rig_of("key-a") as rig:
        rig.fake.faults.add(Fault.cut(4, "rst"))
        stream = await rig.dispatcher.stream(rig.stream_call())
        blocks, error = await read(stream)
        assert (error, stream.finish_reason) == (None, "STOP")
        assert text_of(blocks) == await whole_text(rig)


async def test_empty_stream_is_repeated_once():
    """A stream without any event is asked for once more; a second empty one is an error."""
    empty = Fault.cut(0, "clean")
    async with rig_of("key-a", "key-b") as rig:
        rig.fake.faults.add(empty)
        stream = await rig.dispatcher.stream(rig.stream_call())
        _, error = await read(stream)
        assert (error, stream.account, stream.attempts) == (None, "key-a", 2)
        rig.fake.faults.add(empty, times=2)
        with pytest.raises(PoolError) as caught:
            await rig.dispatcher.stream(rig.stream_call())
        assert caught.value.code == "upstream_error"
        assert rig.fake.record.received == 4


async def test_client_fault():
    """Google's own 400 comes as ClientFault with what Google said, from the status and from inside a stream."""
    async with rig_of("key-a", "key-b") as rig:
        for fault in (
            Fault.status(400, body=replies.invalid_argument("bad")),
            Fault.error_event(0, body=replies.invalid_argument("bad")),
        ):
            rig.fake.faults.add(fault)
            with pytest.raises(ClientFault) as caught:
                await rig.dispatcher.stream(rig.stream_call())
            answer = caught.value.answer
            assert (answer.status, json.loads(answer.body)["error"]["message"]) == (400, "bad")
        assert (rig.fake.record.received, rig.cooldowns()) == (2, [])


async def test_silence_in_mid_stream():
    """A stream that falls silent is cut after the silence that is allowed."""
    async with rig_of("key-a", limits=Gateway(silence_timeout_s=0.2)) as rig:
        rig.fake.faults.add(Fault.stall(2))
        blocks, error = await read(await rig.dispatcher.stream(rig.stream_call()))
        assert error.code == "stream_cut"
        assert sum(map(sse.count, blocks)) == 2


async def test_closing_early_cancels_at_google():
    """A client that stops reading ends the stream at Google; the lease is free, nobody is blamed."""
    async with rig_of("key-a") as rig:
        rig.fake.faults.add(Fault.stall(1))
        stream = await rig.dispatcher.stream(rig.stream_call())
        await stream.aclose()
        assert rig.idle()
        (call,) = await rig.fake.record.wait_for(1, done=True)
        assert call.gone
        assert (rig.cooldowns(), rig.pool.members["key-a"].health.success) == ([], 1.0)
        await stream.aclose()  # a second time is nothing


async def test_cancelled_in_every_place():
    """Cancelling before the headers, before the first event and in mid-stream: the lease is free each time."""
    async with rig_of("key-a") as rig:
        for fault in (Fault.silence(), Fault.stall(0), Fault.stall(1), Fault.stall(2)):
            rig.fake.record.clear()
            rig.fake.faults.clear()
            rig.fake.faults.add(fault)

            async def consume():
                async with await rig.dispatcher.stream(rig.stream_call()) as stream:
                    async for _ in stream:
                        pass

            task = asyncio.create_task(consume())
            (call,) = await rig.fake.record.wait_for(1)
            for _ in range(50):  # let it get as far as it can
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert rig.idle()
            await rig.fake.record.wait_for(1, done=True)


async def test_reader_that_fails():
    """An error in the reader's own code ends the stream as well."""
    async with rig_of("key-a") as rig:
        rig.fake.faults.add(Fault.stall(1))
        with pytest.raises(ZeroDivisionError):
            async with await rig.dispatcher.stream(rig.stream_call()) as stream:
                async for _ in stream:
                    _ = 1 / 0
        assert rig.idle()


async def test_leaving_after_the_finish_counts_as_served():
    """Many readers stop at the finish marker: the answer is complete and counted so."""
    async with rig_of("key-a") as rig:
        rig.fake.faults.add(Fault.stall(4))
        async with await rig.dispatcher.stream(rig.stream_call()) as stream:
            async for block in stream:
                if sse.FINISH in block:
                    break
        counter = rig.pool.members["key-a"].counters[MODEL]
        assert (counter.served, counter.output_tokens > 0) == (1, True)


async def test_connections_are_kept():
    """Streams that end properly leave their connection for the next."""
    async with rig_of("key-a") as rig:
        for _ in range(5):
            await read(await rig.dispatcher.stream(rig.stream_call()))
        assert len(rig.fake.record.connections()) == 1


@pytest.mark.parametrize("wanted", [1, 3])
async def test_every_candidate_must_finish(wanted):
    """Of several candidates one is finished before the others: the stream is not, until each is."""

    def event(index, finish=""):
        found = {"index": index, "content": {"role": "model", "parts": [{"text": f"{index} "}]}}
        return {"candidates": [found | ({"finishReason": finish} if finish else {})]}

    def stream_of(*events):
        raw = b"".join(sse.event(json.dumps(e).encode()) for e in events)
        return Fault.status(200, body=raw, content_type="text/event-stream")

    body = {**HI, "generationConfig": {"candidateCount": wanted}}
    async with rig_of("key-a") as rig:
        rig.fake.faults.add(stream_of(event(0), event(1), event(0, "STOP"), event(1)))
        blocks, error = await read(await rig.dispatcher.stream(rig.stream_call(body)))
        assert text_of(blocks) == "0 1 0 1 "
        assert (error.code if error else "") == ("stream_cut" if wanted > 1 else "")
        rig.pool.clear_cooldown()
        # Google may leave some out, for safety: those that came are whole
        rig.fake.faults.add(stream_of(event(0), event(1, "SAFETY"), event(0, "STOP")))
        blocks, error = await read(await rig.dispatcher.stream(rig.stream_call(body)))
        assert error is None
