"""The splitter of event streams: the same events however the network cuts them, and not a byte lost."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemini_poold.backends import sse


def run(stream: bytes, cuts: list[int]) -> list[bytes]:
    splitter = sse.Splitter()
    edges = [0, *sorted(c for c in cuts if 0 < c < len(stream)), len(stream)]
    blocks = [splitter.feed(stream[a:b]) for a, b in zip(edges, edges[1:])]
    return [b for b in [*blocks, splitter.finish()] if b]


def events_of(blocks: list[bytes]) -> list[bytes]:
    return [payload for block in blocks for payload in sse.payloads(block)]


CRLF = b'data: {"t":"\xc3\xa4\xe2\x82\xac"}\r\n\r\n: keep-alive\r\n\r\ndata: {"a":\r\ndata: 1}\r\n\r\ndata:{"b":2}\r\n\r\n'
LF = CRLF.replace(b"\r\n", b"\n")
PAYLOADS = ['{"t":"ä€"}'.encode(), b'{"a":\n1}', b'{"b":2}']


@pytest.mark.parametrize("stream", [CRLF, LF], ids=["CRLF", "LF"])
def test_every_cut(stream):
    """Cut in two at every offset, inside UTF-8 and line ends too: same events, same bytes, whole events per block."""
    for cut in range(len(stream) + 1):
        blocks = run(stream, [cut])
        assert b"".join(blocks) == stream
        assert events_of(blocks) == PAYLOADS
        assert all(block.endswith((b"\n\n", b"\n\r\n")) for block in blocks)


@pytest.mark.parametrize("stream", [CRLF, LF], ids=["CRLF", "LF"])
def test_byte_by_byte(stream):
    """The same when each byte comes alone."""
    assert events_of(run(stream, list(range(len(stream))))) == PAYLOADS


def test_whole_chunk_is_not_copied():
    """A chunk that ends with an event is passed on as the very object that came."""
    chunk = b"data: 1\r\n\r\ndata: 2\r\n\r\n"
    assert sse.Splitter().feed(chunk) is chunk


def test_last_event_without_blank_line():
    """A last event that lacks only its blank line is given one, in the stream's own line ends."""
    for end, rest in ((b"\n", b""), (b"\r\n", b"\r\n"), (b"\n", b"\n")):
        splitter = sse.Splitter()
        splitter.feed(b"data: 1" + rest)
        assert splitter.finish() == b"data: 1" + (b"\r\n" if rest == b"\r\n" else b"\n") * 2, end
    assert sse.Splitter().finish() == b""


def test_blank_lines_alone():
    """Keep-alive blank lines hold no event."""
    assert events_of(run(b"\r\n\r\n\n\ndata: 1\n\n\n\n", [])) == [b"1"]


def test_too_long(monkeypatch):
    """An event without an end does not grow for ever."""
    monkeypatch.setattr(sse, "LONGEST_EVENT", 100)
    splitter = sse.Splitter()
    splitter.feed(b"x" * 60)
    with pytest.raises(sse.TooLong):
        splitter.feed(b"x" * 60)


def test_bare_json():
    """A JSON text without `data:` where an event should be is a payload, over several lines too."""
    error = json.dumps({"error": {"code": 503, "status": "UNAVAILABLE"}}, indent=2).encode()
    for text in (error, b"[" + error + b"]\n"):
        blocks = run(b"data: 1\r\n\r\n" + text, [15])
        assert [json.loads(p) for p in events_of(blocks)][1] == json.loads(text)


def test_other_fields():
    """`event:`, `id:` and comments are no payload; an event may mix them with data."""
    assert list(sse.payloads(b"event: x\nid: 1\ndata: a\n: c\ndata: b\n\nevent: y\n\n")) == [b"a\nb"]


def test_count():
    """Events in Google's one-line dress are counted, what text inside JSON says is not; any other dress counts as none."""
    assert sse.count(b'data: {"t":"data: x\\n\\ndata: "}\n\ndata: 2\n\n') == 2
    assert sse.count(b"data: 1\r\n\r\ndata: 2\r\n\r\n") == 2
    for other in (
        b"data:1\n\n",
        b"data: [\ndata: 1]\n\n",
        b": c\n\ndata: 1\n\n",
        b"data: 1\n\n\n",
        b'{"error":{}}\n\n',
    ):
        assert sse.count(other) == 0


def test_marked():
    """Only the events with a mark are found, each once, in order, with their exact bounds."""
    events = [
        b'data: {"a":1}\r\n\r\n',
        b'data: {"error":1,"finishReason":2}\r\n\r\n',
        b"data: 3\r\n\r\n",
        b'data: {"error":4}\r\n\r\n',
    ]
    block = b"".join(events)
    found = [block[a:b] for a, b in sse.marked(block, sse.ERROR, sse.FINISH)]
    assert found == [events[1], events[3]]
    assert list(sse.marked(block, sse.BLOCKED)) == []
    assert sse.last_with(block, b'"a"') == events[0]
    assert sse.last_with(block, sse.USAGE) == b""


def test_mark_in_text():
    """What a model writes cannot look like a mark: its quotes are escaped."""
    text = json.dumps({"text": 'the key "finishReason" and "error"'}).encode()
    assert sse.FINISH not in text
    assert sse.ERROR not in text


def test_first():
    """The first event with a payload, whatever stands before it."""
    assert sse.first(b": c\n\n\n\ndata: 1\n\ndata: 2\n\n") == b"data: 1\n\n"


def test_event():
    """We write one `data: ` line with the blank after the colon and an empty line, whatever the payload's layout."""
    assert sse.event(b'{"a":1}') == b'data: {"a":1}\r\n\r\n'
    assert list(sse.payloads(sse.event(b'{\n  "a": 1\r\n}'))) == [b'{ "a": 1 }']


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12), max_size=6),
    st.lists(st.integers(0, 200), max_size=12),
    st.sampled_from([b"\n", b"\r\n"]),
)
def test_chunking_changes_nothing(texts, cuts, end):
    """Any stream, any cuts: the payloads are those of the stream in one piece, and no byte is lost."""
    stream = b"".join(b"data: " + json.dumps({"t": t}).encode() + end + end for t in texts)
    blocks = run(stream, cuts)
    assert b"".join(blocks) == stream
    assert [json.loads(p)["t"] for p in events_of(blocks)] == texts


@given(st.binary(max_size=120), st.lists(st.integers(0, 120), max_size=8))
def test_any_bytes(stream, cuts):
    """Nothing that a network can bring makes the splitter or its readers raise; whole blocks come out unchanged."""
    splitter = sse.Splitter()
    edges = [0, *sorted(cuts), len(stream)]
    out = b"".join(splitter.feed(stream[a:b]) for a, b in zip(edges, edges[1:]))
    assert stream.startswith(out)
    for block in (out, splitter.finish()):
        list(sse.payloads(block))
        sse.count(block)
        list(sse.marked(block, b"\n", b"d"))


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"data: ", b"data:", b": ", b"event: x\ndata: ", b"", b"{"]),
            st.binary(max_size=6).map(lambda raw: raw.replace(b"\n", b"n")),
            st.sampled_from([b"\n\n", b"\r\n\r\n", b"\r\n\n", b"\r\n\r\n\r\n"]),
        ),
        max_size=6,
    )
)
def test_payloads_are_the_same_however_they_are_found(events: list[tuple[bytes, bytes, bytes]]) -> None:
    """Google's own dress is taken apart more quickly, not differently; whether there is an event is told by the first."""
    block = b"".join(part for event in events for part in event)
    slowly = []
    for event in re.split(rb"\r?\n(?:\r?\n)+", block):
        if event.startswith(b"data:") and b"\n" not in event:
            slowly.append(event[5:].rstrip(b"\r").removeprefix(b" "))
        elif event[:1] in (b"{", b"["):
            slowly.append(event.strip())
        elif lines := [line for line in event.splitlines() if line.startswith(b"data:")]:
            if joined := b"\n".join(line[5:].rstrip(b"\r").removeprefix(b" ") for line in lines):
                slowly.append(joined)
    assert list(sse.payloads(block)) == slowly
    assert sse.holds_event(block) == any(slowly)


def test_a_long_block_is_not_taken_apart_to_see_that_there_is_an_event(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What comes before the first byte does not grow with how much is there already."""
    seen = []
    real = sse.payloads
    monkeypatch.setattr(sse, "payloads", lambda block: seen.append(len(block)) or real(block))
    assert sse.holds_event(b"data: {}\r\n\r\n" * 1000)
    assert seen
    assert max(seen) < 20
