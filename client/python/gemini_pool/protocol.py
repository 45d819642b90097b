"""The client's side of the conversation without I/O: ids, messages in and out, errors made into exceptions.

Both faces (`_sync.py`, `_aio.py`) move bytes and do nothing else. What each method takes and gives is in `calls.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from msgspec import UNSET, Raw

from gemini_pool import wire
from gemini_pool.errors import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    REQUEST_CANCELLED,
    Cancelled,
    PoolError,
    ProtocolError,
)
from gemini_pool.framing import HEADER, MAX_FRAME, Decoder, encode

if TYPE_CHECKING:
    from gemini_pool.calls import Call

_encode = msgspec.json.encode
_decode_incoming = msgspec.json.Decoder(wire.Incoming).decode
_decode_draining = msgspec.json.Decoder(wire.Draining).decode
_EMPTY = b"{}"
# One format for header and message: this runs for every call.
_REQUEST = b'Content-Length: %d\r\n\r\n{"jsonrpc":"2.0","id":%b,"method":"%b","params":%b}'
_REQUEST_SIZE = len(b'{"jsonrpc":"2.0","id":,"method":"","params":}')
_WORDS = {  # for a daemon that sends no `data`
    METHOD_NOT_FOUND: "not_found",
    INVALID_PARAMS: "bad_request",
    INVALID_REQUEST: "bad_request",
    PARSE_ERROR: "bad_request",
}

Result = TypeVar("Result")


class Session:
    """What one connection knows. `request`, `notify` and `cancel` give bytes to send, `receive` takes what came."""

    __slots__ = ("_decoder", "_last_id")

    def __init__(self) -> None:
        self._decoder = Decoder(HEADER)
        self._last_id = 0

    def request(self, method: str, params: Any = None) -> tuple[int, bytes]:
        """A new id and its request's frame. `params` is anything msgspec encodes to an object; None is `{}`."""
        self._last_id = number = self._last_id + 1
        body = _EMPTY if params is None else _encode(params)
        if len(body) > MAX_FRAME - 1024:
            raise PoolError(
                "bad_request",
                f"a request may have at most {MAX_FRAME} bytes",
                hint="send larger bodies through the HTTP gateway (`gemini-pool env`), or upload a file",
            )
        name = method.encode()
        digits = b"%d" % number
        size = _REQUEST_SIZE + len(digits) + len(name) + len(body)
        return number, _REQUEST % (size, digits, name, body)

    def notify(self, method: str, params: Any) -> bytes:
        return encode(_encode(wire.Notification(method, params)))

    def cancel(self, number: int) -> bytes:
        """Asks the daemon to end that request; its answer will be an error (-32800), unless it was done already."""
        return self.notify("$/cancelRequest", wire.CancelParams(number))

    def receive(self, data: bytes) -> list[wire.Incoming]:
        """The messages that `data` completes.

        Raises `ProtocolError` when the other end does not speak this protocol, and the daemon's own `PoolError` when
        it could not read a frame of ours (an error without an id): the connection is of no more use then.
        """
        decoder = self._decoder
        messages = []
        for frame in decoder.feed(data):
            try:
                message = _decode_incoming(frame)
            except msgspec.MsgspecError as error:
                raise ProtocolError(f"the daemon sent what is no JSON-RPC message: {error}") from None
            if message.id is None and isinstance(message.error, wire.ErrorObject):
                raise error_of(message.error)
            messages.append(message)
        if decoder.error is not None:
            raise decoder.error
        return messages


def is_reply(message: wire.Incoming) -> bool:
    """Whether the message answers a request; everything else is a notification (`method`, `params`)."""
    return message.method is UNSET


def result_of(message: wire.Incoming, call: Call[Result]) -> Result:
    """The typed result in a reply; raises what the daemon answered instead."""
    if isinstance(message.error, wire.ErrorObject):
        raise error_of(message.error)
    if not isinstance(message.result, Raw):
        raise ProtocolError(f"the daemon's answer to {call.method} has no result")
    try:
        return call.decode(message.result)
    except msgspec.MsgspecError as error:
        raise ProtocolError(f"the daemon's answer to {call.method} is not what was agreed: {error}") from None


def error_of(error: wire.ErrorObject) -> PoolError:
    """An error of the wire as the exception to raise."""
    if error.code == REQUEST_CANCELLED:
        return Cancelled(error.message)
    data = error.data or wire.ErrorData(code=_WORDS.get(error.code, "internal"))
    return PoolError(
        data.code,
        error.message,
        hint=data.hint,
        retryable=data.retryable,
        retry_at=data.retry_at,
        account=data.account,
        details=data.details,
        rpc_code=error.code,
    )


def ends_soon(message: wire.Incoming) -> bool:
    """Whether the daemon says that this connection will end with it: new calls go to its successor. One that is kept
    goes on, and what is asked on it meanwhile waits."""
    if message.method != "daemon/draining":
        return False
    try:
        return not isinstance(message.params, Raw) or _decode_draining(message.params).kept is not True
    except msgspec.MsgspecError:
        return True


def is_refused_for_stop(message: wire.Incoming) -> bool:
    """Whether the daemon did nothing because it is about to stop: the call may be sent to its successor."""
    error = message.error
    return (
        isinstance(error, wire.ErrorObject) and error.data is not None and error.data.code == "shutting_down"
    )
