"""Server-sent events as Google sends them, without ever looking at more bytes than must be.

`Splitter` cuts a stream into blocks of whole events, wherever the network cut it; a chunk that ends with an event
goes through as it came. `payloads` takes a block apart where somebody must see its events. Line ends are CRLF or LF.
Not here: what a payload means (the backends), and any sending.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

LONGEST_EVENT = 64 << 20  # an event of images may be large; beyond this it is no event

# Only blocks with one of these can hold anything the daemon must act on. A quote inside a JSON string is escaped, so
# these bytes can only be a key or a whole string; the reader that is then called decides.
FINISH, BLOCKED, ERROR, USAGE = b'"finishReason"', b'"promptFeedback"', b'"error"', b'"usageMetadata"'

_BLANK_LINE = re.compile(rb"\r?\n(?:\r?\n)+")


class TooLong(ValueError):
    """One event without an end. The stream is of no use any more."""


class Splitter:
    """Bytes in as the network cut them, blocks of whole events out. What went in comes out, byte for byte.

    >>> s = Splitter()
    >>> s.feed(b"data: 1\\n\\ndata"), s.feed(b": 2\\n\\n")
    (b'data: 1\\n\\n', b'data: 2\\n\\n')
    """

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, chunk: bytes) -> bytes:
        """Every whole event so far, b"" when there is none yet."""
        rest = self._rest
        if not rest:
            if chunk.endswith((b"\n\n", b"\n\r\n")):
                return chunk
            cut = _last_end(chunk, 0)
            if cut:
                rest += chunk[cut:]
                return chunk[:cut]
            rest += chunk
            return b""
        seam = max(0, len(rest) - 3)  # a blank line may be cut as well
        rest += chunk
        cut = _last_end(rest, seam)
        if not cut:
            if len(rest) > LONGEST_EVENT:
                raise TooLong("an event of the stream is too long")
            return b""
        block = bytes(rest[:cut])
        del rest[:cut]
        return block

    def finish(self) -> bytes:
        """What is left at the end of the stream: an event that lacks nothing but its blank line gets one."""
        rest, self._rest = bytes(self._rest), bytearray()
        if not rest.strip():
            return b""
        end = b"\r\n" if b"\r\n" in rest else b"\n"
        return rest.rstrip(b"\r\n") + end + end


def _last_end(data: bytes | bytearray, start: int) -> int:
    """The offset behind the last blank line of `data` that begins at `start` or later; 0 when there is none."""
    lf, crlf = data.rfind(b"\n\n", start), data.rfind(b"\n\r\n", start)
    return max(lf + 2 if lf >= 0 else 0, crlf + 3 if crlf >= 0 else 0)


def payloads(block: bytes) -> Iterator[bytes]:
    """The payload of each event in a block of whole ones; comments and events without data are left out.

    A bare JSON text where an event should be (an error, as Google sends it at times) counts as one.
    """
    events = count(block)
    if events and block.count(b"\r\n\r\n") == events:  # dressed as Google does: no need to look at every byte
        for line in block.split(b"\r\n\r\n")[:events]:
            yield line[6:].rstrip(b"\r")
        return
    for event in _BLANK_LINE.split(block):
        if event.startswith(b"data:") and b"\n" not in event:
            yield _value(event)
        elif event[:1] in (b"{", b"["):
            yield event.strip()
        elif payload := _joined(event):
            yield payload


def holds_event(block: bytes) -> bool:
    """Whether an event of the block has a payload. Those behind the first such one are not looked at."""
    return any(payloads(first(block)))


def first(block: bytes) -> bytes:
    """The first event of a block that holds one with a payload."""
    at = 0
    for blank in _BLANK_LINE.finditer(block):
        if any(payloads(block[at : blank.end()])):
            return block[at : blank.end()]
        at = blank.end()
    return block[at:]


def marked(block: bytes, *marks: bytes) -> Iterator[tuple[int, int]]:
    """Where the events begin and end that hold one of `marks`, in order. The others are not looked at."""
    places = sorted(place for mark in marks for place in _all(block, mark))
    done = 0
    for place in places:
        if place >= done:
            begin, done = _around(block, place)
            yield begin, done


def last_with(block: bytes, mark: bytes) -> bytes:
    """The last event that holds `mark`, or b""."""
    place = block.rfind(mark)
    if place < 0:
        return b""
    begin, end = _around(block, place)
    return block[begin:end]


def _all(block: bytes, mark: bytes) -> Iterator[int]:
    place = block.find(mark)
    while place >= 0:
        yield place
        place = block.find(mark, place + len(mark))


def _around(block: bytes, place: int) -> tuple[int, int]:
    crlf = block.rfind(b"\n\r\n", 0, place)
    lf = block.rfind(b"\n\n", max(crlf, 0), place)  # one further back would not count
    begin = max(lf + 2 if lf >= 0 else 0, crlf + 3 if crlf >= 0 else 0)
    blank = _BLANK_LINE.search(block, place)
    return begin, len(block) if blank is None else blank.end()


def count(block: bytes) -> int:
    """How many events a block of whole ones holds if each is one line `data: …`; 0 when it is dressed otherwise.

    That dress is Google's and the only one that every client reads; anything else is to be written anew (`event`).
    A raw line break cannot stand inside JSON.
    """
    events, lines = block.startswith(b"data: ") + block.count(b"\n\r\ndata: "), block.count(b"\n")
    if lines != 2 * events:
        events += block.count(b"\n\ndata: ")
    return events if lines == 2 * events else 0


def event(payload: bytes) -> bytes:
    """`payload` as one event. Readers that know only `data: ` with the blank exist, and ones that take one line."""
    return b"data: " + (payload if b"\n" not in payload else _one_line(payload)) + b"\r\n\r\n"


def _one_line(payload: bytes) -> bytes:
    """JSON over several lines on one: a line break in JSON is mere white space."""
    return b" ".join(line.strip() for line in payload.splitlines())


def _value(line: bytes) -> bytes:
    line = line[5:].rstrip(b"\r")
    return line[1:] if line.startswith(b" ") else line


def _joined(event: bytes) -> bytes:
    return b"\n".join(_value(line) for line in event.splitlines() if line.startswith(b"data:"))
