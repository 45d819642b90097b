"""The forms that an answer comes in: whole, SSE, array, wrapped; and every way a stream can go wrong."""

from __future__ import annotations

import json

import aiohttp
import pytest
from tests.fake.asking import CA, GL, KEY, VX, Asker, prompt, wrapped

from gemini_poold.fake import ANY, GENERATION, Fault, Match, Twist, World, replies

STREAM = f"{GL}:streamGenerateContent?alt=sse"


def text(events: list[dict]) -> str:
    return "".join(part["text"] for event in events for part in event["candidates"][0]["content"]["parts"])


async def test_whole_answer_tells_who_answered(asker: Asker) -> None:
    """The echo names key, project, model and prompt, with usage, version and a response id."""
    got = await asker.post(f"{GL}:generateContent", prompt("what now"), KEY)
    assert text([got.json]) == "key-a (shared) · gemini-2.5-flash — you said: what now"
    usage = got.json["usageMetadata"]
    assert usage["totalTokenCount"] == sum(
        usage[f"{name}TokenCount"] for name in ("prompt", "candidates", "thoughts")
    )
    assert got.json["candidates"][0]["finishReason"] == "STOP"
    assert got.json["modelVersion"] == "gemini-2.5-flash"
    assert got.json["responseId"]


async def test_sse_is_cumulative_and_finished(asker: Asker) -> None:
    """CRLF events whose counts only grow; the last one alone has a finishReason and a thought signature."""
    got = await asker.post(STREAM, prompt("what now"), KEY)
    assert got.headers["Content-Type"] == "text/event-stream"
    assert text(got.events).endswith("you said: what now")
    counts = [event["usageMetadata"]["candidatesTokenCount"] for event in got.events]
    assert counts == sorted(counts)
    assert ["finishReason" in event["candidates"][0] for event in got.events] == [False, False, False, True]
    assert "thoughtSignature" in got.events[-1]["candidates"][0]["content"]["parts"][0]


async def test_array_without_alt_sse(asker: Asker) -> None:
    """Without alt=sse the stream is one JSON array, errors included."""
    got = await asker.post(f"{GL}:streamGenerateContent", prompt(), KEY)
    assert len(got.json) == 4
    assert got.headers["Content-Type"].startswith("application/json")
    got = await asker.post(f"{GL}:streamGenerateContent", prompt(), {"x-goog-api-key": "fake-key-nobody"})
    assert got.json[0]["error"]["code"] == 400


async def test_code_assist_wraps(asker: Asker, login: dict[str, str]) -> None:
    """Every event of Code Assist is inside `response`, with one trace id."""
    auth = await asker.bearer(login)
    got = await asker.post(f"{CA}:streamGenerateContent?alt=sse", wrapped("hi"), auth)
    assert text([event["response"] for event in got.events]).endswith("you said: hi")
    assert {event["traceId"] for event in got.events} == {got.headers["x-cloudaicompanion-trace-id"]}
    got = await asker.post(f"{CA}:generateContent", wrapped("hi"), auth)
    assert text([got.json["response"]]) == "alice (alice-project) · gemini-2.5-pro — you said: hi"


async def test_chunks_by_prompt_header_and_model(asker: Asker, world: World) -> None:
    """Count and size of the chunks are set by a directive in the prompt, by a header, or for the model."""
    got = await asker.post(STREAM, prompt("x [[chunks=7 chars=11 finish=MAX_TOKENS]]"), KEY)
    assert [len(text([event])) for event in got.events] == [11] * 7
    assert got.events[-1]["candidates"][0]["finishReason"] == "MAX_TOKENS"
    got = await asker.post(STREAM, prompt(), {**KEY, "x-fake-chunks": "3x5"})
    assert [len(text([event])) for event in got.events] == [5] * 3
    world.models["gemini-2.5-flash"].chunks = 500
    assert len((await asker.post(STREAM, prompt(), KEY)).events) == 500


async def test_function_call_on_demand(asker: Asker) -> None:
    """`[[call=NAME]]` is answered by a function call that carries a signature beside it."""
    got = await asker.post(f"{GL}:generateContent", prompt("[[call=look_up]]"), KEY)
    part = got.json["candidates"][0]["content"]["parts"][0]
    assert part["functionCall"]["name"] == "look_up"
    assert part["thoughtSignature"]


@pytest.mark.parametrize(
    ("twist", "lines"),
    [
        (Twist(eol="\n"), b"}\n\n"),
        (Twist(multi_line=True), b'\r\ndata:  "candidates": [\r\n'),
        (Twist(comments=True), b": keep-alive\r\n\r\n\r\ndata: "),
        (Twist(split=1), b"}\r\n\r\n"),
        (Twist(split=-1), "—".encode()),
        (Twist(split=-2), b"}\r\n\r\n"),
    ],
)
async def test_dresses(asker: Asker, twist: Twist, lines: bytes) -> None:
    """LF, several data lines, comments, and writes that cut characters and line ends carry the same answer."""
    asker.fake.faults.add(Fault.styled(twist))
    got = await asker.post(STREAM, prompt("é"), KEY)
    assert lines in got.body
    joined, event = [], []
    for line in got.body.decode().splitlines():
        if line.startswith("data:"):
            event.append(line[5:])
        elif not line and event:
            joined.append(json.loads("\n".join(event)))
            event = []
    assert text(joined) == "key-a (shared) · gemini-2.5-flash — you said: é"


async def test_split_cuts_inside_a_character(asker: Asker) -> None:
    """With -1 a write really ends inside a multi-byte character."""
    asker.fake.faults.add(Fault.styled(Twist(split=-1, gap_s=0.001)))
    async with asker.session.post(asker.fake.url + STREAM, json=prompt("é"), headers=KEY) as response:
        pieces = [piece async for piece in response.content.iter_any()]
    assert any(piece[-1] >= 0xC2 for piece in pieces)


@pytest.mark.parametrize("after", [0, 2])
@pytest.mark.parametrize(
    ("dress", "start"), [("data", b'data: {"error"'), ("bare", b'{"error"'), ("array", b'[{"error"')]
)
async def test_error_inside_a_good_stream(asker: Asker, after: int, dress: str, start: bytes) -> None:
    """An error first or in the middle of a 200, as an event, bare, or in an array."""
    asker.fake.faults.add(Fault.error_event(after, body=replies.rate_limited("3s"), dress=dress))
    got = await asker.post(STREAM, prompt(), KEY)
    *good, bad = [block for block in got.body.split(b"\r\n\r\n") if block]
    assert (got.status, len(good), bad.startswith(start)) == (200, after, True)


@pytest.mark.parametrize("path", [STREAM, f"{GL}:streamGenerateContent", f"{GL}:generateContent"])
@pytest.mark.parametrize("how", ["rst", "fin", "torn"])
async def test_broken_in_the_middle(asker: Asker, path: str, how: str) -> None:
    """A cut answer is seen as broken by an HTTP client, streamed or whole."""
    asker.fake.faults.add(Fault.cut(2, how))
    with pytest.raises(aiohttp.ClientPayloadError):
        await asker.post(path, prompt(), KEY)
    assert asker.fake.record.last().fault == f"cut {how}"


async def test_cut_delivers_what_was_before_it(asker: Asker) -> None:
    """What was sent before the reset arrives."""
    asker.fake.faults.add(Fault.cut(2))
    async with asker.session.post(asker.fake.url + STREAM, json=prompt(), headers=KEY) as response:
        seen = b""
        with pytest.raises(aiohttp.ClientPayloadError):
            async for piece in response.content.iter_any():
                seen += piece
    assert seen.count(b"data: ") == 2


async def test_clean_end_without_finish(asker: Asker) -> None:
    """Both forms: cut short but properly ended, and complete but for its finishReason."""
    asker.fake.faults.add(Fault.cut(1, "clean"))
    asker.fake.faults.add(Fault.no_finish())
    assert len((await asker.post(STREAM, prompt(), KEY)).events) == 1
    events = (await asker.post(STREAM, prompt(), KEY)).events
    assert len(events) == 4
    assert not any("finishReason" in event["candidates"][0] for event in events)


async def test_safety_and_blocked_are_answers(asker: Asker, robot: dict[str, str], world: World) -> None:
    """A SAFETY finish has no content; a blocked prompt has no candidates; on Vertex as well."""
    auth = {"Authorization": f"Bearer {world.issue(world.service_account('robot')).token}"}
    for path, headers in ((GL, KEY), (VX, auth)):
        asker.fake.faults.add(Fault.finish("SAFETY"))
        got = await asker.post(f"{path}:generateContent", prompt(), headers)
        assert got.json["candidates"][0] == {"index": 0, "finishReason": "SAFETY"}
        asker.fake.faults.add(Fault.blocked())
        events = (await asker.post(f"{path}:streamGenerateContent?alt=sse", prompt(), headers)).events
        assert [event["promptFeedback"] for event in events] == [{"blockReason": "SAFETY"}]
        assert "candidates" not in events[0]


async def test_silence_ends_when_the_client_leaves(asker: Asker) -> None:
    """A silent call, and one that falls silent in mid-stream, are over and marked when the client goes away."""
    for fault in (Fault.silence(), Fault.stall(1)):
        asker.fake.record.clear()
        asker.fake.faults.add(fault)
        timeout = aiohttp.ClientTimeout(total=0.05)
        with pytest.raises(TimeoutError):
            await asker.ask("POST", STREAM, json=prompt(), headers=KEY, timeout=timeout)
        (call,) = await asker.fake.record.wait_for(1, "stream", done=True)
        assert call.gone
        assert call.chunks == (1 if fault.twist.pause_at else 0)


async def test_resets_around_the_headers(asker: Asker) -> None:
    """Reset before any byte, and after the headers of a 200."""
    asker.fake.faults.add(Fault.reset_connection("before_headers"))
    with pytest.raises(aiohttp.ClientOSError):
        await asker.post(STREAM, prompt(), KEY)
    asker.fake.faults.add(Fault.reset_connection("after_headers"))
    with pytest.raises(aiohttp.ClientPayloadError):
        await asker.post(STREAM, prompt(), KEY)
    assert [call.status for call in asker.fake.record.find("stream")] == [0, 200]


async def test_refused_connections_and_back(asker: Asker) -> None:
    """A fake that is down refuses; up again it is where it was."""
    await asker.fake.down()
    async with aiohttp.ClientSession() as other:
        with pytest.raises(aiohttp.ClientConnectorError):
            await other.get(asker.fake.url)
        await asker.fake.up()
        async with other.get(asker.fake.url) as response:
            assert response.status == 404


def test_matching_words() -> None:
    """The common groups are there to be named."""
    assert Match(kind=GENERATION).kind == ("generate", "stream")
    assert ANY == Match()
