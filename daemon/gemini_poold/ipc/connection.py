"""One client's connection: frames to calls, calls to replies, and the tasks of the calls that have to wait.

A verb that answers at once is answered within the read that brought it, without a task; all replies of one read leave
in one write. What the verbs do is `verbs.py`'s business, who else is connected `server.py`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import socket
from collections import deque
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from types import CoroutineType
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from gemini_pool import wire
from gemini_pool.errors import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    PARSE_ERROR,
    Cancelled,
    PoolError,
)
from gemini_pool.framing import HEADER, MAX_FRAME, Decoder, encode

from ..core.model import PoolEvent
from ..errors import UNREADABLE
from .left import Keep, Left
from .notices import Notices
from .peer import Peer

if TYPE_CHECKING:
    from .server import Server
    from .verbs import Verb

log = logging.getLogger("gemini_pool.rpc")

MAX_IN_FLIGHT = 1000  # calls of one connection that wait for something; then it is not read any further
WRITE_HIGH = 512 * 1024  # bytes that a client has not read yet, from which on nothing is produced for it
_HANGUP_POLL_S = 1.0
_ASIDE_HIGH = 1024 * 1024  # bytes put aside for the successor, from which on a client is not read any further

_encode = msgspec.json.encode
_MAX_BODY = MAX_FRAME - 4096  # what a frame may hold besides the message's own words and an id
_NO_PARAMS = b"{}"
_REPLY = b'Content-Length: %d\r\n\r\n{"jsonrpc":"2.0","id":%b,"result":%b}'
_REPLY_SIZE = len(b'{"jsonrpc":"2.0","id":,"result":}')
_ABSENT = (b"", b"null")
_HIDDEN = "something went wrong inside the daemon"


class Envelope(msgspec.Struct, gc=False):
    """A message as it comes in. `jsonrpc` is not looked at: old editors leave it out."""

    method: str | UnsetType = UNSET
    id: int | str | float | UnsetType | None = UNSET
    params: Raw = Raw()
    result: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET


Id = int | str | float | None
_decode = msgspec.json.Decoder(Envelope).decode
_cancel_params = msgspec.json.Decoder(wire.CancelParams)


@dataclass(slots=True, eq=False)
class Running:
    """A call that could not be answered at once. `token`: the client's name for its progress. `by_client`: the
    client itself cancelled it."""

    id: Id
    verb: Verb
    token: int | str | None = None
    task: asyncio.Task[Any] | None = None
    by_client: bool = False


class Connection(asyncio.BufferedProtocol):
    """`owner` is what its leases are held under, `name` and `version` what the client calls itself."""

    def __init__(
        self,
        server: Server,
        verbs: Mapping[str, Verb],
        owner: str,
        *,
        max_in_flight: int,
        left: Left | None = None,
    ) -> None:
        self._server = server
        self._verbs = verbs
        self._max_in_flight = max_in_flight
        self._decoder = Decoder(left.framing if left is not None else "")
        self._transport: asyncio.Transport
        self._out: list[bytes] = []
        self._out_size = 0
        self._corked = False  # replies are collected until the end of the read
        self._flush_due = False
        self._backlog: deque[bytes] = deque()  # messages read but not looked at yet
        self._reading = True
        self._behind = (
            False  # the client has not read what was written; `_writable` is for who waits for that
        )
        self._writable = asyncio.Event()
        self._writable.set()
        self._running: dict[object, Running] = {}
        self._tokens: dict[int | str, Running] = {}
        self._notices: Notices | None = None
        self._half_closed = False
        self._told = False  # that the daemon is about to stop
        self._aside: list[bytes] = []  # messages for our successor
        self._aside_size = 0
        self._left = left  # by our predecessor
        self.given = False  # to our successor
        self.closing = False
        self.owner = owner
        self.name = ""
        self.version = ""
        self.peer = Peer(0, 0)
        self.connected_at = 0.0

    # ---- asyncio's side --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=WRITE_HIGH)
        self._server.connected(self)
        if self._left is not None and not self.closing:
            self._take_up(self._left)
            self._left = None

    def _take_up(self, left: Left) -> None:
        self.name, self.version, self.connected_at = left.name, left.version, left.connected_at
        if left.events is not None:
            self.subscribe(frozenset(left.events))
        self._take(self._decoder.feed(left.unread))

    def get_buffer(self, sizehint: int) -> memoryview:
        """One buffer for all connections: what is in it is taken out before anybody else is read. `data_received`
        would have asyncio allocate a quarter of a megabyte for each read."""
        del sizehint
        return self._server.buffer

    def buffer_updated(self, nbytes: int) -> None:
        decoder = self._decoder
        messages = decoder.feed(bytes(self._server.buffer[:nbytes]))
        if self._server.draining:
            self.tell_draining()
        if self._backlog:
            self._backlog.extend(messages)
        else:
            self._take(messages)
        if decoder.error is not None and not self.closing:
            self._refuse_frame(decoder.error)

    def eof_received(self) -> bool:
        """A client that only ended its sending side (`nc -N`) still gets its replies."""
        self._flush()
        if not (self._running or self._backlog or self._aside) or self._hung_up():
            return False
        self._half_closed = True
        self._watch_hangup()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        by_us = self.closing
        self.closing = True
        self._writable.set()
        self._backlog.clear()
        if self._notices is not None:
            self._notices.close()
        for running in self._running.values():
            if running.task is not None:
                running.task.cancel()
        self._server.disconnected(self, by_us=by_us)

    def pause_writing(self) -> None:
        self._behind = True
        self._writable.clear()
        self._throttle()

    def resume_writing(self) -> None:
        self._behind = False
        self._writable.set()
        self._resume()

    # ---- messages in -----------------------------------------------------------------------------------------

    @property
    def _blocked(self) -> bool:
        return self._behind or len(self._running) >= self._max_in_flight or self._aside_size > _ASIDE_HIGH

    def _take(self, messages: list[bytes]) -> None:
        """Look at these messages in order, as far as the client reads what it gets."""
        self._corked = True
        for number, message in enumerate(messages, 1):
            self._dispatch(message)
            if self._out_size > WRITE_HIGH:
                self._flush()
            if self.closing:
                break
            if self._blocked:
                self._backlog.extend(messages[number:])
                self._throttle()
                break
        self._corked = False
        if self._out:
            self._flush()

    def _dispatch(self, message: bytes) -> None:
        try:
            if not message.isascii():
                message.decode()  # parameters that are passed on as they are would not be looked at
            call = _decode(message)
        except msgspec.ValidationError as error:
            self._refuse_message(message, str(error))
            return
        except UNREADABLE as error:
            self._refuse_frame(PoolError("bad_request", f"not JSON: {error}", rpc_code=PARSE_ERROR))
            return
        verb = self._verbs.get(call.method)  # type: ignore[arg-type] # UNSET is a key that no table has
        if verb is None:
            self._dispatch_other(call, message)
            return
        if self._server.draining and self._server.keep is not None and self._for_successor(verb):
            self._put_aside(message)
            return
        ident = None if call.id is UNSET else call.id
        raw: bytes | Raw = call.params
        if len(raw) < 5 and bytes(raw) in _ABSENT:
            raw = _NO_PARAMS
        try:
            if self._server.draining and not verb.late:
                raise self._server.stopping()
            params = verb.decode(raw)
            result = verb.run(self._server.services, self, params)
        except Exception as error:  # noqa: BLE001 - the edge of a call: whatever it is, its client is told
            self._reply_error(ident, error, verb)
            return
        if type(result) is CoroutineType:
            self._spawn(Running(ident, verb, params.token if verb.streams else None), result)
        else:
            self._reply(ident, result)

    def _for_successor(self, verb: Verb) -> bool:
        return not verb.late or (bool(self._aside) and verb.method == "pool/cancel")

    def _put_aside(self, message: bytes) -> None:
        self._aside.append(message)
        self._aside_size += len(message)

    def _dispatch_other(self, call: Envelope, message: bytes) -> None:
        ident = None if call.id is UNSET else call.id
        if call.method is UNSET:
            if call.result is UNSET and call.error is UNSET:  # else a reply to a question that we never ask
                error = PoolError("bad_request", "a message without a method", rpc_code=INVALID_REQUEST)
                self._send_error(ident, error)
        elif call.method == "$/cancelRequest" and ident is None:
            try:
                running = self._running.get(_cancel_params.decode(call.params).id)
                if running is None and self._aside:  # perhaps of one of those
                    self._put_aside(message)
                self._cancel(running)
            except UNREADABLE as error:
                log.debug("a $/cancelRequest that names no request: %s", error)
        elif ident is not None:
            self._reply_error(ident, self._server.no_method(call.method, self._verbs), None)
        # A notification that we do not know is none of our business: `exit`, `$/setTrace`.

    def _refuse_message(self, message: bytes, why: str) -> None:
        """JSON, but no request: the connection goes on. The id is given back where one can be found."""
        ident: Id = None
        try:
            value = msgspec.json.decode(message)
        except UNREADABLE as error:
            self._refuse_frame(PoolError("bad_request", f"not JSON: {error}", rpc_code=PARSE_ERROR))
            return
        if isinstance(value, list):
            why = "batches are not supported: send the requests one by one, they run concurrently"
        elif isinstance(value, dict) and type(value.get("id")) in (int, str, float):
            ident = value["id"]
        self._send_error(ident, PoolError("bad_request", why, rpc_code=INVALID_REQUEST))

    def _refuse_frame(self, error: PoolError) -> None:
        """After a frame that cannot be read nobody knows where the next one begins: tell, and hang up."""
        log.info("closing the connection of %s: %s", self.label, error)
        self._send_error(None, PoolError("bad_request", error.message, rpc_code=error.rpc_code))
        self.finish()

    # ---- calls that wait -------------------------------------------------------------------------------------

    def _spawn(self, running: Running, work: Coroutine[Any, Any, Any]) -> None:
        key = object() if running.id is None else running.id
        taken = "id" if key in self._running else "token" if running.token in self._tokens else ""
        if taken:
            work.close()
            text = f"this {taken} belongs to a request that is still running"
            self._send_error(running.id, PoolError("bad_request", text, rpc_code=INVALID_REQUEST))
            return
        self._running[key] = running
        if running.token is not None:
            self._tokens[running.token] = running
        # The answer comes from the callback: a task that is cancelled before its first step never runs its own code.
        running.task = asyncio.get_running_loop().create_task(work)
        running.task.add_done_callback(lambda task: self._finished(key, running, task))

    def _finished(self, key: object, running: Running, task: asyncio.Task[Any]) -> None:
        del self._running[key]
        if running.token is not None:
            del self._tokens[running.token]
        error: BaseException | None
        if task.cancelled():
            stopping = self._server.draining and not running.by_client
            error = self._server.stopping() if stopping else Cancelled()
        else:
            error = task.exception()
        if error is None:
            self._reply(running.id, task.result())
        else:
            self._reply_error(running.id, error, running.verb)
        self._server.finished()
        if self._half_closed and not (self._running or self._backlog or self._aside):
            self.finish()
        self._resume()

    @staticmethod
    def _cancel(running: Running | None) -> None:
        if running is not None and running.task is not None:
            running.by_client = True
            running.task.cancel()

    def cancel_token(self, token: int | str) -> None:
        """Cancel the call that streams under this token, if it still runs."""
        self._cancel(self._tokens.get(token))

    def cancel_all(self) -> None:
        """The daemon stops: calls still running are told so."""
        for running in list(self._running.values()):
            if running.task is not None:
                running.task.cancel()

    def cancel_waiting(self) -> None:
        """The daemon stops: whoever only waits for a person had better ask its successor."""
        for running in list(self._running.values()):
            if running.verb.waits and running.task is not None:
                running.task.cancel()

    # ---- messages out ----------------------------------------------------------------------------------------

    async def progress(self, token: int | str, value: bytes) -> None:
        """Send one `$/progress` whose value is this JSON text; waits while the client does not read."""
        if len(value) > _MAX_BODY:
            raise _too_large(len(value))
        self._send(
            b'{"jsonrpc":"2.0","method":"$/progress","params":{"token":%b,"value":%b}}'
            % (_encode(token), value)
        )
        if self._out_size > WRITE_HIGH:
            self._flush()
        if self._behind:
            await self._writable.wait()

    def subscribe(self, kinds: frozenset[str]) -> None:
        """From now on tell this client of these kinds of events."""
        if self._notices is not None:
            self._notices.close()
        self._notices = Notices(kinds, self._tell)

    def offer(self, event: PoolEvent) -> None:
        if self._notices is not None:
            self._notices.offer(event)

    def _tell(self, event: PoolEvent, dropped: int) -> bool:
        """Send an event unless the client is behind with reading; whether it was sent."""
        if self.closing or self._behind or self._out_size > WRITE_HIGH:
            return False
        # The core's words are the wire's; `Any` because it spells them as plain strings.
        kind: Any = event.kind
        level: Any = event.level
        notice = wire.Event(
            kind, level, event.at, event.text, event.account_id, event.model, dict(event.data), dropped
        )
        self.notify("pool/event", notice)
        return True

    def notify(self, method: str, params: Any) -> None:
        self._send(_encode(wire.Notification(method, params)))

    def tell_draining(self) -> None:
        """The daemon is about to stop. Who has not said a byte yet would not understand it: its framing is not known."""
        if not self._told and self._decoder.framing:
            self._told = True
            self.notify("daemon/draining", self._server.note)

    def _reply(self, ident: Id, result: Any) -> None:
        if ident is None:
            return
        try:
            body = _encode(result)
        except Exception as error:  # noqa: BLE001 - a result that is no JSON is our mistake; its client is told
            self._reply_error(ident, error, None)
            return
        if len(body) > _MAX_BODY:
            self._send_error(ident, _too_large(len(body)))
            return
        number = b"%d" % ident if type(ident) is int else _encode(ident)
        if self._corked and self._decoder.framing == HEADER:  # what is usual is framed in one go
            frame = _REPLY % (_REPLY_SIZE + len(number) + len(body), number, body)
            self._out.append(frame)
            self._out_size += len(frame)
        else:
            self._send(b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (number, body))

    def _reply_error(self, ident: Id, error: BaseException, verb: Verb | None) -> None:
        if ident is None and verb is not None:
            log.debug("%s by notification: %s", verb.method, error)
            return
        if isinstance(error, PoolError):
            self._send_error(ident, error)
        elif isinstance(error, (msgspec.MsgspecError, UnicodeDecodeError)):
            method = verb.method if verb is not None else "result"
            self._send_error(ident, PoolError("bad_request", f"{method}: {error}", rpc_code=INVALID_PARAMS))
        else:
            log.error("%s failed", verb.method if verb is not None else "reply", exc_info=error)
            hint = "the daemon's log says more: `journalctl --user -u gemini-pool`"
            self._send_error(ident, PoolError("internal", _HIDDEN, hint=hint, rpc_code=INTERNAL_ERROR))

    def _send_error(self, ident: Id, error: PoolError) -> None:
        data = wire.ErrorData(
            error.code, error.retryable, error.hint, error.retry_at, error.account, error.details
        )
        self._send(_encode(wire.ErrorReply(ident, wire.ErrorObject(error.rpc_code, error.message, data))))

    def _send(self, message: bytes) -> None:
        """Queue one message; it leaves with the others of this read, or of this turn of the loop."""
        if self.closing:
            return
        if self._decoder.framing != HEADER:
            frame = message.replace(b"\n", b" ") + b"\n"
        else:
            frame = b"Content-Length: %d\r\n\r\n%b" % (len(message), message)
        self._out.append(frame)
        self._out_size += len(frame)
        if not (self._corked or self._flush_due):
            self._flush_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        out = self._out
        if not out or self.closing:
            return
        self._out, self._out_size = [], 0
        self._transport.write(out[0] if len(out) == 1 else b"".join(out))

    # ---- life ------------------------------------------------------------------------------------------------

    @property
    def methods(self) -> list[str]:
        """The methods that this connection may call."""
        return sorted(self._verbs)

    @property
    def busy(self) -> bool:
        return bool(self._running)

    @property
    def unsaid(self) -> bool:
        """Not everything that was said to the client has left."""
        return bool(self._out) or (not self.closing and self._transport.get_write_buffer_size() > 0)

    @property
    def in_flight(self) -> int:
        return len(self._running)

    @property
    def label(self) -> str:
        return f"{self.name or 'a client'} (pid {self.peer.pid})"

    def peer_socket(self) -> Any:
        return self._transport.get_extra_info("socket")

    def give(self, keep: Keep) -> bool:
        """Hand the connection on, if nothing of ours is left to be said on it; False when it is not taken."""
        self._flush()
        if self.closing or self._running or self.unsaid:
            return False
        framing = self._decoder.framing
        unread = b"".join(encode(message, framing) for message in (*self._aside, *self._backlog))
        events = None if self._notices is None else sorted(self._notices.kinds)
        left = Left(
            self.owner, self.name, self.version, framing, self.connected_at, events,
            unread + self._decoder.unfinished(),
        )  # fmt: skip
        sock = socket.socket(fileno=os.dup(self.peer_socket().fileno()))
        if not keep(sock, msgspec.to_builtins(left)):
            sock.close()
            return False
        self.given = True
        self.abort()
        return True

    def last_look(self) -> None:
        """Read what has arrived already, so that it is answered rather than lost when we hang up. What the client
        sends from now on fails at once, and it knows that we have not seen it."""
        if self.closing or self._half_closed:
            return
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self.peer_socket().fileno())) as sock:
            sock.shutdown(socket.SHUT_RD)
            while (count := sock.recv_into(self._server.buffer)) and not self.closing:
                self.buffer_updated(count)

    def finish(self) -> None:
        """Hang up once everything written has left."""
        if not self.closing:
            self._flush()
            self.closing = True
            self._transport.close()

    def abort(self) -> None:
        """Hang up now."""
        self.closing = True
        self._transport.abort()

    def _throttle(self) -> None:
        if self._reading and not self.closing:
            self._reading = False
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self.closing or self._blocked:
            return
        if self._backlog:
            messages = list(self._backlog)
            self._backlog.clear()
            self._take(messages)
        if not (self._reading or self._blocked or self.closing):
            self._reading = True
            self._transport.resume_reading()

    def _hung_up(self) -> bool:
        """Whether the client is gone altogether, rather than done with sending."""
        poll = select.poll()
        poll.register(self.peer_socket().fileno(), 0)
        return bool(poll.poll(0))

    def _watch_hangup(self) -> None:
        """After its end of sending the loop does not notice any more that a client is gone, unless we write."""
        if self.closing:
            return
        if self._hung_up():
            self.abort()
        else:
            asyncio.get_running_loop().call_later(_HANGUP_POLL_S, self._watch_hangup)


def _too_large(size: int) -> PoolError:
    """Instead of a frame that no client may read. Asking again would cost the same and end the same."""
    return PoolError(
        "bad_request",
        f"the answer has {size >> 20} MiB, and a frame at most {MAX_FRAME >> 20}",
        hint="ask for it through the HTTP gateway, whose answers have no limit: `gemini-pool env genai`",
    )
