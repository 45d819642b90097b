"""The asyncio face: `AsyncPool`, the twin of `Pool`. Bytes are moved here; the rest is `protocol.py` and `calls.py`.

All calls of one AsyncPool share a connection and run concurrently on it; each stream and each subscription has one of
its own, so that a reader that is slow holds up nobody else. An AsyncPool belongs to the event loop that first uses it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket as sockets
from collections import deque
from typing import Any, Self, TypeVar, Unpack

from msgspec import UNSET, Raw

from gemini_pool import calls, connect, wire
from gemini_pool.calls import (
    AcquireOptions,
    Call,
    GenerateOptions,
    GenerateRequest,
    ReportOptions,
    TokenOptions,
)
from gemini_pool.errors import ConnectionLost, PoolError
from gemini_pool.lease import report_for
from gemini_pool.protocol import Session, ends_soon, is_refused_for_stop, result_of

R = TypeVar("R")

_READ = 32 * 1024
_HIGH = 64  # chunks that wait for a slow reader, from which on nothing more is read
_CANCEL_S = 2.0  # how long a closed stream waits for the daemon to confirm


class AsyncPool:
    """The daemon, as coroutines. Parameters as for `Pool`; cancelling a call cancels it in the daemon, too."""

    def __init__(
        self,
        socket: str | os.PathLike[str] | None = None,
        *,
        name: str = "",
        connect_s: float = connect.CONNECT_S,
        autostart: bool | None = None,
    ) -> None:
        self.socket = connect.socket_path(socket)
        self._greeting = connect.greeting(name)
        self._links = _Links(self.socket, self._greeting, connect_s, connect.wants_autostart(autostart))

    # ---- leases ----------------------------------------------------------------------------------------------

    async def acquire(self, model: str, **options: Unpack[AcquireOptions]) -> wire.Lease:
        """The right to send one request: where, with which headers. Must be reported or released; see `lease`."""
        return await self._call(calls.ACQUIRE, wire.AcquireParams(model=model, **options))

    async def report(self, lease: str | wire.Lease, **options: Unpack[ReportOptions]) -> wire.ReportResult:
        """Tell what came of a lease. When `next` is "retry", the result brings the next lease or its instant."""
        return await self._call(calls.REPORT, calls.report_params(lease, options))

    async def renew(self, lease: str | wire.Lease) -> wire.RenewResult:
        return await self._call(calls.RENEW, wire.LeaseParams(calls.lease_id(lease)))

    async def release(self, lease: str | wire.Lease) -> None:
        """Give an unused lease back."""
        await self._call(calls.RELEASE, wire.LeaseParams(calls.lease_id(lease)))

    def lease(self, model: str, **options: Unpack[AcquireOptions]) -> AsyncHeldLease:
        """`async with pool.lease(model) as lease:` acquires, and reports by itself at the end of the block."""
        return AsyncHeldLease(self, model, options)

    # ---- requests through the daemon -------------------------------------------------------------------------

    async def generate(
        self,
        model: str,
        request: GenerateRequest,
        *,
        method: wire.Method = "generateContent",
        **options: Unpack[GenerateOptions],
    ) -> dict[str, Any]:
        """One answer. `request`: a prompt, or a body of the Gemini API (mapping, or bytes of JSON)."""
        return await self._call(calls.GENERATE, calls.generate_params(model, request, options, method=method))

    def stream(self, model: str, request: GenerateRequest, **options: Unpack[GenerateOptions]) -> AsyncStream:
        """The chunks of one answer as they come. Closing the iterator (or leaving its `async with`) cancels."""
        params = calls.generate_params(model, request, options, method="streamGenerateContent", token=1)
        return AsyncStream(self._links, params)

    # ---- everything else -------------------------------------------------------------------------------------

    async def token(self, account: str = "", **options: Unpack[TokenOptions]) -> wire.TokenResult:
        """An access token of that account, or of one chosen by model or backend."""
        return await self._call(calls.TOKEN, wire.TokenParams(account=account, **options))

    async def initialize(self) -> wire.InitializeResult:
        """Who answers, and which methods it has. Never needed: connections introduce themselves."""
        return await self._call(calls.INITIALIZE, self._greeting)

    async def status(self) -> wire.StatusResult:
        return await self._call(calls.STATUS)

    async def quota(self, *, refresh: bool = False) -> wire.QuotaResult:
        return await self._call(calls.QUOTA, wire.QuotaParams(refresh))

    async def explain(self, model: str = "", *, session: str = "", decision: str = "") -> wire.ExplainResult:
        """What would be chosen for `model` now, or what was chosen in a lease's `decision`, and why."""
        return await self._call(calls.EXPLAIN, wire.ExplainParams(model, session, decision))

    async def accounts(self) -> list[wire.AccountInfo]:
        return (await self._call(calls.ACCOUNTS)).accounts

    async def info(self) -> wire.DaemonInfo:
        return await self._call(calls.INFO)

    async def reload(self) -> wire.ReloadResult:
        """Read configuration and accounts again; returns when what changed is in force."""
        return await self._call(calls.RELOAD)

    async def pause(self, account: str = "") -> None:
        """Nothing new is sent with that account (default: with any)."""
        await self._call(calls.PAUSE, wire.PauseParams(account))

    async def resume(self, account: str = "") -> None:
        await self._call(calls.RESUME, wire.PauseParams(account))

    async def events(self, *kinds: wire.EventKind) -> AsyncEvents:
        """Notices of these kinds (default: all) as they come, without end. Subscribed when this returns."""
        params = wire.SubscribeParams(kinds or wire.EVENT_KINDS)
        link = await self._links.connect()
        try:
            reply = await link.wait_reply(link.send(calls.SUBSCRIBE.method, params))
            result_of(reply, calls.SUBSCRIBE)
        except BaseException:
            link.close()
            raise
        return AsyncEvents(link)

    # ---- accounts --------------------------------------------------------------------------------------------

    async def login(self, params: wire.LoginParams) -> wire.LoginStarted:
        """Begin a login: open the `url` of the answer in a browser, then `login_finish`."""
        return await self._call(calls.LOGIN, params)

    async def login_finish(self, login: str, code: str = "") -> wire.LoginResult:
        """Wait for the browser, or hand in what a person pasted. May be asked again."""
        return await self._call(calls.LOGIN_FINISH, wire.LoginFinishParams(login, code))

    async def add_account(self, params: wire.AccountAddParams) -> wire.VerifyRow:
        """A new account, tried at once."""
        return await self._call(calls.ADD, params)

    async def remove_account(
        self, account: str, *, revoke: bool = False, delete_secret: bool = False
    ) -> wire.AccountRemoveResult:
        """Take an account out; with `revoke`, end its login at Google, too."""
        return await self._call(calls.REMOVE, wire.AccountRemoveParams(account, revoke, delete_secret))

    async def pin(self, account: str, model: str = "") -> None:
        """Use the account before all others, for every model or those that the glob `model` names."""
        await self._call(calls.PIN, wire.PinParams(account, model))

    async def unpin(self, account: str, model: str = "") -> None:
        """No more; `model`: the glob that it was pinned for, empty: all."""
        await self._call(calls.UNPIN, wire.PinParams(account, model))

    async def enable(self, account: str) -> wire.AccountVerdict:
        return await self._call(calls.ENABLE, wire.AccountParams(account))

    async def disable(self, account: str) -> wire.AccountVerdict:
        return await self._call(calls.DISABLE, wire.AccountParams(account))

    async def verify(self, *accounts: str) -> wire.VerifyResult:
        """One cheap real call for each account (default: all)."""
        return await self._call(calls.VERIFY, wire.VerifyParams(accounts))

    async def clear_cooldown(self, account: str = "", model: str = "") -> wire.ClearCooldownResult:
        """Forget cooldowns; a suspended account that is named is tried again."""
        return await self._call(calls.CLEAR_COOLDOWN, wire.ClearCooldownParams(account, model))

    async def import_logins(self, params: wire.ImportParams) -> wire.ImportResult:
        """Logins of other programs, each tried before it is trusted."""
        return await self._call(calls.IMPORT, params)

    async def export_opencode(self, params: wire.ExportOpencodeParams) -> wire.ExportResult:
        return await self._call(calls.EXPORT_OPENCODE, params)

    async def export_archive(self, params: wire.ArchiveParams) -> wire.ArchiveResult:
        """Accounts and secrets as an age file, for another machine."""
        return await self._call(calls.EXPORT_ARCHIVE, params)

    async def import_archive(self, params: wire.UnarchiveParams) -> wire.ImportResult:
        return await self._call(calls.IMPORT_ARCHIVE, params)

    async def call(self, method: str, params: Any = None) -> Any:
        """Any method by its name, decoded to plain values: for daemons newer than this client."""
        return await self._call(Call(method, Any, repeatable=method in calls.REPEATABLE), params)

    async def aclose(self) -> None:
        """End all connections but those of streams that still run; leases are freed at once."""
        await self._links.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _call(self, call: Call[R], params: Any = None) -> R:
        link = self._links.shared_nowait() or await self._links.shared()
        for _ in range(connect.REPEATS):
            try:
                reply = await link.ask(call.method, params)
            except ConnectionLost as lost:
                if not (call.repeatable or lost.unsent):
                    raise
            else:
                if not is_refused_for_stop(reply):
                    return result_of(reply, call)
            link = await self._links.shared(instead_of=link)
        return result_of(await link.ask(call.method, params), call)


class AsyncHeldLease:
    """A lease held by an `async with` block; see `HeldLease`."""

    def __init__(self, pool: AsyncPool, model: str, options: AcquireOptions) -> None:
        self._pool = pool
        self._model = model
        self._options = options
        self._held = True
        self.current: wire.Lease

    @property
    def url(self) -> str:
        return self.current.url

    @property
    def headers(self) -> dict[str, str]:
        return self.current.headers

    @property
    def form(self) -> wire.Form:
        return self.current.form

    @property
    def account(self) -> str:
        return self.current.account

    async def report(self, **options: Unpack[ReportOptions]) -> wire.ReportResult:
        """Tell what came of this attempt. After "retry" the block holds the next lease: send again. Waits for one
        where none is free now; raises `PoolError` when there is none before the request's deadline."""
        self._held = False
        result = await self._pool.report(self.current, **options)
        if result.next == "retry":
            following = result.lease
            if following is None:
                again = self._options.copy()
                again["request"] = self.current.request
                following = await self._pool.acquire(self._model, **again)
            self.current, self._held = following, True
        return result

    async def renew(self) -> wire.RenewResult:
        return await self._pool.renew(self.current)

    async def release(self) -> None:
        self._held = False
        await self._pool.release(self.current)

    async def __aenter__(self) -> Self:
        self.current = await self._pool.acquire(self._model, **self._options)
        return self

    async def __aexit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if not self._held:
            return
        self._held = False
        with contextlib.suppress(
            PoolError
        ):  # what the block did is done, whether the daemon hears of it or not
            if (report := report_for(error)) is None:
                await self._pool.release(self.current)
                return
            result = await self._pool.report(self.current, **report)
            if result.lease is not None:
                await self._pool.release(result.lease)


class AsyncStream:
    """Asynchronous iterator over the chunks (as decoded JSON) of one streamed answer. `result` is set at its end."""

    def __init__(self, links: _Links, params: dict[str, Any]) -> None:
        self.result: wire.StreamResult | None = None
        self._links = links
        self._params = params
        self._link: _Link | None = None
        self._number = 0
        self._repeats = connect.REPEATS  # left, and none once something came
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        while not self._ended:
            link = self._link or await self._start()
            try:
                message = await link.next()
            except BaseException:
                self._ended = True
                link.close()
                raise
            if message.method == "$/progress" and isinstance(message.params, Raw):
                self._repeats = 0
                return calls.PROGRESS.decode(message.params).value
            if message.id == self._number and message.method is UNSET:
                self._end(link, message)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Cancel what is still running. Nothing happens when the stream has ended, or never began."""
        ended, self._ended = self._ended, True
        link = self._link
        if ended or link is None:
            return
        try:
            async with asyncio.timeout(_CANCEL_S):
                await link.cancel(self._number)
            self._links.put(link)
        except (PoolError, TimeoutError):
            link.close()
        except BaseException:
            link.close()
            raise

    async def _start(self) -> _Link:
        link = await self._links.own()
        try:
            self._number = link.send(calls.STREAM.method, self._params)
        except ConnectionLost:
            link = await self._links.connect()
            self._number = link.send(calls.STREAM.method, self._params)
        self._link = link
        return link

    def _end(self, link: _Link, reply: wire.Incoming) -> None:
        if is_refused_for_stop(reply) and self._repeats:
            self._repeats, self._link = self._repeats - 1, None  # once more, with the daemon's successor
            link.close()
            return
        self._links.put(link)
        self._ended = True
        self.result = result_of(reply, calls.STREAM)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class AsyncEvents:
    """Asynchronous iterator over the pool's notices. Ends only by `aclose`, or by the daemon's end
    (`ConnectionLost`)."""

    def __init__(self, link: _Link) -> None:
        self._link = link

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> wire.Event:
        while True:
            message = await self._link.next()
            if message.method == "pool/event" and isinstance(message.params, Raw):
                return calls.EVENT.decode(message.params)

    async def aclose(self) -> None:
        self._link.close()
        await self._link.wait_closed()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class _Links:
    """The connections of one AsyncPool: one that all calls share, and those of streams."""

    def __init__(
        self, socket: str, greeting: wire.InitializeParams, connect_s: float, autostart: bool
    ) -> None:
        self._socket = socket
        self._autostart = autostart
        self._greeting = greeting
        self._connect_s = connect_s
        self._shared: _Link | None = None
        self._connecting: asyncio.Lock | None = None
        self._idle: list[_Link] = []  # of streams that ended

    def shared_nowait(self) -> _Link | None:
        link = self._shared
        return None if link is None or link.lost or link.draining else link

    async def shared(self, *, instead_of: _Link | None = None) -> _Link:
        """The connection of all calls, a new one where needed. Whoever comes meanwhile waits for the same."""
        if self._connecting is None:
            self._connecting = asyncio.Lock()
        async with self._connecting:
            link = self.shared_nowait()
            if link is None or link is instead_of:
                if self._shared is not None:
                    self._shared.retire()
                link = self._shared = await self.connect()
            return link

    async def own(self) -> _Link:
        """A connection for one stream."""
        while self._idle:
            link = self._idle.pop()
            if not (link.lost or link.draining):
                return link
            link.close()
        return await self.connect()

    def put(self, link: _Link) -> None:
        self._idle.append(link)

    async def connect(self) -> _Link:
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + self._connect_s
        autostart = self._autostart
        while True:
            try:
                sock = _connected(self._socket)
                _, link = await loop.create_unix_connection(lambda: _Link(self._greeting), sock=sock)
                return link
            except OSError as error:
                if autostart and error.errno in connect.ABSENT:
                    if await asyncio.to_thread(connect.start_daemon, self._socket):
                        give_up_at = loop.time() + max(self._connect_s, connect.CONNECT_S)
                    autostart = False
                if error.errno not in connect.ABSENT or loop.time() >= give_up_at:
                    raise connect.failure(error, self._socket) from None
            await asyncio.sleep(connect.RETRY_S)

    async def aclose(self) -> None:
        links, self._idle = self._idle, []
        if self._shared is not None:
            links.append(self._shared)
            self._shared = None
        for link in links:
            link.close()
        for link in links:
            await link.wait_closed()


def _connected(path: str) -> sockets.socket:
    """A Unix socket connects at once or not at all. asyncio takes a full backlog (EAGAIN) for a connection under way,
    and gives out one that was never made."""
    sock = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return sock


class _Link(asyncio.BufferedProtocol):
    """One connection. Replies go to who asked; everything else waits in a bounded inbox for `next`."""

    def __init__(self, greeting: wire.InitializeParams) -> None:
        self._session = Session()
        self._ahead = self._session.request(calls.INITIALIZE.method, greeting)[1]
        self._transport: asyncio.Transport
        self._buffer = memoryview(bytearray(_READ))
        self._asked: dict[int, tuple[str, asyncio.Future[wire.Incoming]]] = {}
        self._inbox: deque[wire.Incoming] = deque()
        self._news: asyncio.Future[None] | None = None
        self._paused = False
        self._error: PoolError | None = None
        self._closed = asyncio.get_running_loop().create_future()
        self._keeps = False  # whether anybody reads with `next`
        self._retired = False
        self.lost = False
        self.draining = False  # the daemon is about to stop: new calls go to its successor

    # ---- asyncio's side --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        """A buffer that is kept: `data_received` would have asyncio allocate a quarter of a megabyte a read."""
        del sizehint
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        try:
            messages = self._session.receive(bytes(self._buffer[:nbytes]))
        except PoolError as error:
            self._error = error
            self._transport.abort()
            return
        for message in messages:
            number = message.id if message.method is UNSET else None
            asked = self._asked.pop(number, None) if isinstance(number, int) else None
            if asked is None:
                self._keep(message)
            elif not asked[1].done():
                asked[1].set_result(message)
            else:  # who asked has gone: what the reply brings is given back
                for lease in calls.leases_in(asked[0], message):
                    self._write(self._session.notify(calls.RELEASE.method, wire.LeaseParams(lease)))
        if self._retired and not self._asked:
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.lost = True
        for _, future in self._asked.values():
            if not future.done():
                future.set_exception(self._error or ConnectionLost())
        self._asked.clear()
        self._wake()
        if not self._closed.done():
            self._closed.set_result(None)

    # ---- for the pool ----------------------------------------------------------------------------------------

    async def ask(self, method: str, params: Any) -> wire.Incoming:
        """Send a request and wait for its reply. Cancelling asks the daemon to stop it."""
        number, frame = self._session.request(method, params)
        self._write(frame)
        future: asyncio.Future[wire.Incoming] = asyncio.get_running_loop().create_future()
        self._asked[number] = (method, future)
        try:
            return await future
        except asyncio.CancelledError:
            if not self.lost:
                self._write(self._session.cancel(number))
            raise

    def send(self, method: str, params: Any) -> int:
        """Send a request whose progress and reply are read with `next`; its id."""
        self._keeps = True
        number, frame = self._session.request(method, params)
        self._write(frame)
        return number

    async def next(self) -> wire.Incoming:
        """The next message that nobody asked for with `ask`."""
        while not self._inbox:
            if self.lost:
                raise self._error or ConnectionLost()
            self._news = asyncio.get_running_loop().create_future()
            try:
                await self._news
            finally:
                self._news = None
        message = self._inbox.popleft()
        if self._paused and len(self._inbox) < _HIGH // 2 and not self.lost:
            self._paused = False
            self._transport.resume_reading()
        return message

    async def cancel(self, number: int) -> None:
        """Cancel a request sent with `send` and read until its reply, so that the connection can be used again."""
        self._write(self._session.cancel(number))
        await self.wait_reply(number)

    async def wait_reply(self, number: int) -> wire.Incoming:
        """The reply to a request sent with `send`; other messages before it are dropped."""
        while True:
            message = await self.next()
            if message.id == number and message.method is UNSET:
                return message

    def retire(self) -> None:
        """No new calls here; close as soon as those that run are answered."""
        self._retired = True
        if not self._asked:
            self.close()

    def close(self) -> None:
        self._transport.close()

    async def wait_closed(self) -> None:
        await asyncio.shield(self._closed)

    # ---- inside ----------------------------------------------------------------------------------------------

    def _keep(self, message: wire.Incoming) -> None:
        if ends_soon(message):
            self.draining = True
        if not self._keeps:
            return
        self._inbox.append(message)
        if len(self._inbox) >= _HIGH and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    def _write(self, frame: bytes) -> None:
        if self.lost or self._transport.is_closing():
            raise ConnectionLost(unsent=True)
        if self._ahead:
            frame, self._ahead = self._ahead + frame, b""
        self._transport.write(frame)
