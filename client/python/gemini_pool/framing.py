"""Framing of the RPC socket: bytes in, whole messages out, and back. No I/O, no JSON.

Two framings share the socket and a connection stays in the one it began with: the header framing of the language
server protocol (`Content-Length: N`, blank line, N bytes) and newline-delimited JSON. The first byte tells them apart.
"""

from __future__ import annotations

from collections.abc import Callable

from gemini_pool.errors import INVALID_REQUEST, PARSE_ERROR, ProtocolError

MAX_FRAME = 64 * 1024 * 1024
MAX_HEADER = 4096  # the whole header block, blank line included

HEADER = "header"
LINE = "line"

_NAME = b"Content-Length: "
_END = b"\r\n\r\n"
_BLANK = b" \t\r\n"


class Decoder:
    """Cuts what one connection sends into messages.

    `framing` is "" until the first byte came. After a frame that cannot be read, `error` holds the reason (with the
    JSON-RPC code to answer) and whatever else comes is ignored: behind a wrong length nothing can be trusted.
    """

    __slots__ = ("_at_header", "_body_left", "_held", "_held_size", "_step", "error", "framing", "max_frame")

    def __init__(self, framing: str = "", *, max_frame: int = MAX_FRAME) -> None:
        self.framing = framing
        self.error: ProtocolError | None = None
        self.max_frame = max_frame
        self._held: list[bytes] = []  # pieces of a header block, body or line that is not whole yet
        self._held_size = 0
        self._body_left = 0
        self._at_header = framing == HEADER  # the next byte begins a header block
        self._step: Callable[[bytes, int, list[bytes]], int] = self._choose(framing)

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that `data` completes. Those before a broken frame are still returned; then see `error`."""
        # One whole small frame in one read is what nearly always comes: no copy but the message itself.
        if self._at_header and data.startswith(_NAME):
            end = data.find(_END, 17, 36)
            digits = data[16:end]
            if end > 0 and digits.isdigit() and int(digits) == len(data) - end - 4 <= self.max_frame:
                return [data[end + 4 :]]
        return self._feed(data)

    def unfinished(self) -> bytes:
        """What came of a message that is not whole yet, as it may be fed to another decoder of this framing."""
        held = b"".join(self._held)
        if not self._body_left:
            return held
        return b"Content-Length: %d\r\n\r\n%b" % (len(held) + self._body_left, held)

    def _feed(self, data: bytes) -> list[bytes]:
        messages: list[bytes] = []
        at, size = 0, len(data)
        try:
            while at < size and self.error is None:
                at = self._step(data, at, messages)
        except ProtocolError as error:
            self.error = error
            self._held.clear()
        self._at_header = (
            self.framing == HEADER and not self._held_size and not self._body_left and self.error is None
        )
        return messages

    def _choose(self, framing: str) -> Callable[[bytes, int, list[bytes]], int]:
        return {HEADER: self._header, LINE: self._line}.get(framing, self._sniff)

    def _sniff(self, data: bytes, at: int, messages: list[bytes]) -> int:
        del messages
        first = data[at : at + 1]
        if first in (b" ", b"\t", b"\r", b"\n"):
            return at + 1
        if first in (b"C", b"c"):
            self.framing = HEADER
        elif first in (b"{", b"["):
            self.framing = LINE
        else:
            raise ProtocolError(
                "this socket speaks JSON-RPC: a message begins with `Content-Length:` or with `{`",
                rpc_code=PARSE_ERROR,
            )
        self._step = self._choose(self.framing)
        return at

    # ---- one JSON text a line --------------------------------------------------------------------------------

    def _line(self, data: bytes, at: int, messages: list[bytes]) -> int:
        end = data.find(b"\n", at)
        stop = len(data) if end < 0 else end
        if self._held_size + stop - at > self.max_frame:
            raise _too_large(self.max_frame)
        if end < 0:
            self._hold(data[at:])
            return stop
        line = self._take(data[at:end]).strip(_BLANK)
        if line:
            messages.append(line)
        return end + 1

    # ---- header block, then a body ---------------------------------------------------------------------------

    def _header(self, data: bytes, at: int, messages: list[bytes]) -> int:
        held = self._held_size
        block = self._take(data[at : at + MAX_HEADER - held])
        end = block.find(_END)
        if end < 0:
            if len(block) >= MAX_HEADER:
                raise ProtocolError(f"the header block is longer than {MAX_HEADER} bytes")
            self._hold(block)
            return len(data)
        self._body_left = self._length(block[:end])
        if self._body_left:
            self._step = self._body
        else:
            messages.append(b"")
        return at + end + 4 - held

    def _length(self, block: bytes) -> int:
        lengths = set()
        for line in block.split(b"\r\n"):
            name, colon, value = line.partition(b":")
            if not colon:
                raise ProtocolError("a header line without a colon", rpc_code=PARSE_ERROR)
            if name.strip().lower() == b"content-length":
                lengths.add(value.strip())
        digits = lengths.pop() if len(lengths) == 1 else b""
        if not digits.isdigit():
            raise ProtocolError("a frame needs one Content-Length, in decimal digits", rpc_code=PARSE_ERROR)
        if len(digits) > 20 or int(digits) > self.max_frame:
            raise _too_large(self.max_frame)
        return int(digits)

    def _body(self, data: bytes, at: int, messages: list[bytes]) -> int:
        stop = min(len(data), at + self._body_left)
        self._body_left -= stop - at
        piece = data[at:stop]
        if self._body_left:
            self._hold(piece)
        else:
            messages.append(self._take(piece))
            self._step = self._header
        return stop

    # ---- what is not whole yet -------------------------------------------------------------------------------

    def _hold(self, piece: bytes) -> None:
        self._held.append(piece)
        self._held_size += len(piece)

    def _take(self, last: bytes) -> bytes:
        """Everything held, and `last` behind it; nothing is held afterwards."""
        if not self._held_size:
            return last
        self._held.append(last)
        whole = b"".join(self._held)
        self._held.clear()
        self._held_size = 0
        return whole


def encode(message: bytes, framing: str = HEADER) -> bytes:
    """`message` (one JSON text) as a frame. In the line framing its own line breaks become blanks: outside of
    strings they mean the same, and inside of strings JSON allows none."""
    if framing == LINE:
        if b"\n" in message:
            message = message.replace(b"\n", b" ")
        return message + b"\n"
    return b"Content-Length: %d\r\n\r\n%b" % (len(message), message)


def _too_large(limit: int) -> ProtocolError:
    return ProtocolError(
        f"a frame may have at most {_size(limit)}: send larger bodies through the HTTP gateway, or upload a file",
        rpc_code=INVALID_REQUEST,
    )


def _size(limit: int) -> str:
    return f"{limit >> 20} MiB" if limit >= 1 << 20 and limit % (1 << 20) == 0 else f"{limit} bytes"
