"""Framing: both dressings, cut anywhere, and what happens to frames that are none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemini_pool.errors import INVALID_REQUEST, PARSE_ERROR
from gemini_pool.framing import HEADER, LINE, MAX_HEADER, Decoder, encode

ONE = b'{"id":1,"method":"a","params":"\xc3\xa4"}'
TWO = b'{"id":2}'


def feed_all(*pieces: bytes, **options) -> tuple[list[bytes], Decoder]:
    decoder = Decoder(**options)
    return [message for piece in pieces for message in decoder.feed(piece)], decoder


@pytest.mark.parametrize("framing", [HEADER, LINE])
def test_cut_at_every_offset(framing):
    """Two messages come out whole wherever the stream is cut in two."""
    stream = encode(ONE, framing) + encode(TWO, framing)
    for cut in range(len(stream) + 1):
        messages, decoder = feed_all(stream[:cut], stream[cut:])
        assert messages == [ONE, TWO], cut
        assert decoder.error is None
        assert decoder.framing == framing


@pytest.mark.parametrize("framing", [HEADER, LINE])
def test_byte_by_byte(framing):
    """A sender of single bytes is understood."""
    stream = encode(ONE, framing) + encode(TWO, framing)
    messages, _ = feed_all(*(stream[i : i + 1] for i in range(len(stream))))
    assert messages == [ONE, TWO]


@given(st.lists(st.binary(max_size=300), max_size=8), st.lists(st.integers(0, 3000), max_size=10))
def test_any_bodies_any_cuts(bodies, cuts):
    """Header framing carries any bytes over any cuts."""
    stream = b"".join(encode(body) for body in bodies)
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    messages, decoder = feed_all(*(stream[a:b] for a, b in zip(edges, edges[1:], strict=False)))
    assert messages == bodies
    assert decoder.error is None


@pytest.mark.parametrize(
    "header",
    [
        b"Content-Length: 8",
        b"content-length: 8",
        b"CONTENT-LENGTH:8",
        b"Content-Length:\t 8 ",
        b"Content-Length: 8\r\nContent-Type: application/vscode-jsonrpc; charset=utf-8",
        b"Content-Type: application/vscode-jsonrpc; charset=utf-8\r\nContent-Length: 8",
        b"Content-Length: 8\r\ncontent-length: 8",
        b"Content-Length: 0008",
    ],
)
def test_header_variants(header):
    """Header names are case-insensitive, blanks and other headers are allowed, before and after."""
    stream = header + b"\r\n\r\n" + TWO
    for cut in range(len(stream) + 1):
        assert feed_all(stream[:cut], stream[cut:])[0] == [TWO], cut


@pytest.mark.parametrize(
    "stream",
    [
        b"Content-Type: x\r\n\r\n",
        b"Content-Length: -8\r\n\r\n",
        b"Content-Length: 8.0\r\n\r\n",
        b"Content-Length: 0x8\r\n\r\n",
        b"Content-Length: \r\n\r\n",
        b"Content-Length 8\r\n\r\n",
        b"Content-Length: 8\r\nContent-Length: 9\r\n\r\n",
        b"Content-Length: \xd9\xa8\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00",
        b"\x93\x00\x01",
    ],
)
def test_malformed(stream):
    """A header that gives no length, or another protocol, is a parse error; nothing behind it is believed."""
    messages, decoder = feed_all(stream, encode(TWO))
    assert messages == []
    assert decoder.error is not None
    assert decoder.error.rpc_code == PARSE_ERROR


def test_a_body_that_looks_like_a_header():
    """Only what stands where a header belongs is one."""
    inner = encode(TWO)
    messages, _ = feed_all(b"Content-Length: 2\r\n\r\n{}", b"Content-Length: %d\r\n\r\n" % len(inner), inner)
    assert messages == [b"{}", inner]


def test_wrong_length_breaks_the_next_header():
    """A length that is too small leaves rubbish where a header must stand."""
    messages, decoder = feed_all(b"Content-Length: 3\r\n\r\n" + TWO, b"\r\n\r\n")
    assert messages == [b'{"i']
    assert decoder.error is not None


def test_messages_before_a_broken_frame_count():
    """What came whole before the fault in the same read is delivered."""
    messages, decoder = feed_all(encode(TWO) + b"Content-Length: x\r\n\r\n")
    assert messages == [TWO]
    assert decoder.error is not None


def test_header_block_limit():
    """A header block may have 4 KiB and not a byte more."""
    tail = b"\r\nContent-Length: 8\r\n\r\n"
    fits = b"Content-Type: " + b"x" * (MAX_HEADER - 14 - len(tail)) + tail
    assert len(fits) == MAX_HEADER
    assert feed_all(fits + TWO)[0] == [TWO]
    assert feed_all(*(fits[i : i + 7] for i in range(0, len(fits), 7)), TWO)[0] == [TWO]
    messages, decoder = feed_all(b"Content-Type: x" + fits[14:] + TWO)
    assert messages == []
    assert decoder.error.rpc_code == INVALID_REQUEST


@pytest.mark.parametrize("framing", [HEADER, LINE])
def test_frame_limit(framing):
    """A frame of the limit passes, one more is refused, in one piece or in many."""
    fits = b"{" + b" " * 98 + b"}"
    assert feed_all(encode(fits, framing), max_frame=100)[0] == [fits]
    for step in (7, 1000):
        stream = encode(b" ".join([fits[:50], fits[50:]]), framing)
        pieces = [stream[i : i + step] for i in range(0, len(stream), step)]
        messages, decoder = feed_all(*pieces, max_frame=100)
        assert messages == []
        assert decoder.error.rpc_code == INVALID_REQUEST
        assert "gateway" in str(decoder.error)


def test_limit_is_seen_from_the_header_alone():
    """A 65 MiB frame is refused before its body was sent, whatever its number looks like."""
    for number in (65 * 1024 * 1024, 10**30):
        _, decoder = feed_all(b"Content-Length: %d\r\n\r\n" % number)
        assert decoder.error.rpc_code == INVALID_REQUEST


def test_empty_body():
    """A length of zero is a message, an empty one, in a read of its own and between others."""
    assert feed_all(b"Content-Length: 0\r\n\r\n")[0] == [b""]
    assert feed_all(encode(ONE) + encode(b"") + encode(TWO))[0] == [ONE, b"", TWO]


def test_lines_of_old_tools():
    """CR LF, blank lines and blanks around a line are what shells and old editors send."""
    assert feed_all(b"\r\n\n  " + ONE + b" \r\n\r\n\t" + TWO + b"\n")[0] == [ONE, TWO]


def test_batch_is_a_line():
    """An array begins a line, too: the server must be able to refuse it."""
    assert feed_all(b"[1]\n")[0] == [b"[1]"]


def test_a_connection_stays_in_its_framing():
    """After a line, a header is only a line that is no JSON."""
    assert feed_all(b"{}\nContent-Length: 2\r\n\r\n{}")[0] == [b"{}", b"Content-Length: 2"]


def test_line_encoding_keeps_one_message_on_one_line():
    """Pretty-printed JSON (Google's own answers) does not break the line framing."""
    frame = encode(b'{\r\n  "a": "b\\n"\n}', LINE)
    assert frame.count(b"\n") == 1
    assert feed_all(frame)[0] == [b'{\r   "a": "b\\n" }']


def test_many_small_messages_in_one_read():
    """A read full of messages costs one pass."""
    assert len(feed_all(encode(TWO) * 5000)[0]) == 5000
    assert len(feed_all(encode(TWO, LINE) * 5000)[0]) == 5000


@pytest.mark.parametrize("framing", [HEADER, LINE])
def test_unfinished_goes_on_in_another_decoder(framing):
    """Cut anywhere, the rest fed to a second decoder after what the first one held makes the same messages."""
    messages = [b'{"id":1,"method":"daemon/info"}', b"{}"]
    data = b"".join(encode(message, framing) for message in messages)
    for cut in range(len(data) + 1):
        first, second = Decoder(framing), Decoder(framing)
        found = first.feed(data[:cut])
        found += second.feed(first.unfinished())
        assert found + second.feed(data[cut:]) == messages, cut
