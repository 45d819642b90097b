"""The blocking face: `Pool`. Bytes are moved here; everything else is `protocol.py` and `calls.py`.

Each call has a connection to itself while it runs, so a thread that waits in `acquire` keeps nobody waiting. Idle
connections are kept, because leases belong to them. Threads may share a Pool; after a fork the child opens its own.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket as sockets
import threading
import time
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
from gemini_pool.protocol import Session, ends_soon, is_refused_for_stop, is_reply, result_of

R = TypeVar("R")

_READ = 64 * 1024  # a larger buffer costs an allocation that outweighs a small answer
_CANCEL_S = 2.0  # how long a closed stream waits for the daemon to confirm


class Pool:
    """The daemon, as blocking calls.

    `socket`: where it listens (default: the contract's place). `name`: shown in status. `connect_s`: how long to try
    while nobody answers. `autostart`: start the daemon where nobody answers and no service manager has it, and give it
    2 s (default: when GEMINI_POOL_AUTOSTART is 1). `timeout_s`: longest silence of the daemon within a call (default: none, because waiting for
    an account has its own deadline). Every method raises `PoolError`; nothing is sent before the first call.
    """

    def __init__(
        self,
        socket: str | os.PathLike[str] | None = None,
        *,
        name: str = "",
        connect_s: float = connect.CONNECT_S,
        autostart: bool | None = None,
        timeout_s: float | None = None,
    ) -> None:
        self.socket = connect.socket_path(socket)
        self._greeting = connect.greeting(name)
        self._links = _Links(
            self.socket, self._greeting, connect_s, timeout_s, connect.wants_autostart(autostart)
        )

    # ---- leases ----------------------------------------------------------------------------------------------

    def acquire(self, model: str, **options: Unpack[AcquireOptions]) -> wire.Lease:
        """The right to send one request: where, with which headers. Must be reported or released; see `lease`."""
        return self._call(calls.ACQUIRE, wire.AcquireParams(model=model, **options))

    def report(self, lease: str | wire.Lease, **options: Unpack[ReportOptions]) -> wire.ReportResult:
        """Tell what came of a lease. When `next` is "retry", the result brings the next lease or its instant."""
        return self._call(calls.REPORT, calls.report_params(lease, options))

    def renew(self, lease: str | wire.Lease) -> wire.RenewResult:
        return self._call(calls.RENEW, wire.LeaseParams(calls.lease_id(lease)))

    def release(self, lease: str | wire.Lease) -> None:
        """Give an unused lease back."""
        self._call(calls.RELEASE, wire.LeaseParams(calls.lease_id(lease)))

    def lease(self, model: str, **options: Unpack[AcquireOptions]) -> HeldLease:
        """`with pool.lease(model) as lease:` acquires, and reports by itself at the end of the block."""
        return HeldLease(self, model, options)

    # ---- requests through the daemon -------------------------------------------------------------------------

    def generate(
        self,
        model: str,
        request: GenerateRequest,
        *,
        method: wire.Method = "generateContent",
        **options: Unpack[GenerateOptions],
    ) -> dict[str, Any]:
        """One answer. `request`: a prompt, or a body of the Gemini API (mapping, or bytes of JSON)."""
        return self._call(calls.GENERATE, calls.generate_params(model, request, options, method=method))

    def stream(self, model: str, request: GenerateRequest, **options: Unpack[GenerateOptions]) -> Stream:
        """The chunks of one answer as they come. Closing the iterator (or leaving its `with`) cancels."""
        params = calls.generate_params(model, request, options, method="streamGenerateContent", token=1)
        return Stream(self._links, params)

    # ---- everything else -------------------------------------------------------------------------------------

    def token(self, account: str = "", **options: Unpack[TokenOptions]) -> wire.TokenResult:
        """An access token of that account, or of one chosen by model or backend."""
        return self._call(calls.TOKEN, wire.TokenParams(account=account, **options))

    def initialize(self) -> wire.InitializeResult:
        """Who answers, and which methods it has. Never needed: connections introduce themselves."""
        return self._call(calls.INITIALIZE, self._greeting)

    def status(self) -> wire.StatusResult:
        return self._call(calls.STATUS)

    def quota(self, *, refresh: bool = False) -> wire.QuotaResult:
        return self._call(calls.QUOTA, wire.QuotaParams(refresh))

    def explain(self, model: str = "", *, session: str = "", decision: str = "") -> wire.ExplainResult:
        """What would be chosen for `model` now, or what was chosen in a lease's `decision`, and why."""
        return self._call(calls.EXPLAIN, wire.ExplainParams(model, session, decision))

    def accounts(self) -> list[wire.AccountInfo]:
        return self._call(calls.ACCOUNTS).accounts

    def info(self) -> wire.DaemonInfo:
        return self._call(calls.INFO)

    def reload(self) -> wire.ReloadResult:
        """Read configuration and accounts again; returns when what changed is in force."""
        return self._call(calls.RELOAD)

    def pause(self, account: str = "") -> None:
        """Nothing new is sent with that account (default: with any)."""
        self._call(calls.PAUSE, wire.PauseParams(account))

    def resume(self, account: str = "") -> None:
        self._call(calls.RESUME, wire.PauseParams(account))

    def events(self, *kinds: wire.EventKind) -> Events:
        """Notices of these kinds (default: all) as they come, without end. Subscribed when this returns."""
        return Events(self._links, wire.SubscribeParams(kinds or wire.EVENT_KINDS))

    # ---- accounts --------------------------------------------------------------------------------------------

    def login(self, params: wire.LoginParams) -> wire.LoginStarted:
        """Begin a login: open the `url` of the answer in a browser, then `login_finish`."""
        return self._call(calls.LOGIN, params)

    def login_finish(self, login: str, code: str = "") -> wire.LoginResult:
        """Wait for the browser, or hand in what a person pasted. May be asked again."""
        return self._call(calls.LOGIN_FINISH, wire.LoginFinishParams(login, code))

    def add_account(self, params: wire.AccountAddParams) -> wire.VerifyRow:
        """A new account, tried at once."""
        return self._call(calls.ADD, params)

    def remove_account(
        self, account: str, *, revoke: bool = False, delete_secret: bool = False
    ) -> wire.AccountRemoveResult:
        """Take an account out; with `revoke`, end its login at Google, too."""
        return self._call(calls.REMOVE, wire.AccountRemoveParams(account, revoke, delete_secret))

    def pin(self, account: str, model: str = "") -> None:
        """Use the account before all others, for every model or those that the glob `model` names."""
        self._call(calls.PIN, wire.PinParams(account, model))

    def unpin(self, account: str, model: str = "") -> None:
        """No more; `model`: the glob that it was pinned for, empty: all."""
        self._call(calls.UNPIN, wire.PinParams(account, model))

    def enable(self, account: str) -> wire.AccountVerdict:
        return self._call(calls.ENABLE, wire.AccountParams(account))

    def disable(self, account: str) -> wire.AccountVerdict:
        return self._call(calls.DISABLE, wire.AccountParams(account))

    def verify(self, *accounts: str) -> wire.VerifyResult:
        """One cheap real call for each account (default: all)."""
        return self._call(calls.VERIFY, wire.VerifyParams(accounts))

    def clear_cooldown(self, account: str = "", model: str = "") -> wire.ClearCooldownResult:
        """Forget cooldowns; a suspended account that is named is tried again."""
        return self._call(calls.CLEAR_COOLDOWN, wire.ClearCooldownParams(account, model))

    def import_logins(self, params: wire.ImportParams) -> wire.ImportResult:
        """Logins of other programs, each tried before it is trusted."""
        return self._call(calls.IMPORT, params)

    def export_opencode(self, params: wire.ExportOpencodeParams) -> wire.ExportResult:
        return self._call(calls.EXPORT_OPENCODE, params)

    def export_archive(self, params: wire.ArchiveParams) -> wire.ArchiveResult:
        """Accounts and secrets as an age file, for another machine."""
        return self._call(calls.EXPORT_ARCHIVE, params)

    def import_archive(self, params: wire.UnarchiveParams) -> wire.ImportResult:
        return self._call(calls.IMPORT_ARCHIVE, params)

    def call(self, method: str, params: Any = None) -> Any:
        """Any method by its name, decoded to plain values: for daemons newer than this client."""
        return self._call(Call(method, Any, repeatable=method in calls.REPEATABLE), params)

    def close(self) -> None:
        """End all idle connections; their leases are freed at once. The Pool may be used again."""
        self._links.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, call: Call[R], params: Any = None) -> R:
        repeats = 0
        while True:
            link = self._links.take(fresh=repeats > 0)
            try:
                reply = link.ask(call.method, params)
            except ConnectionLost as lost:
                if repeats == connect.REPEATS or not (call.repeatable or lost.unsent):
                    raise
            except BaseException:
                self._links.put(link)
                raise
            else:
                self._links.put(link)
                if repeats == connect.REPEATS or not is_refused_for_stop(reply):
                    return result_of(reply, call)
            repeats += 1


class HeldLease:
    """A lease held by a `with` block. `report` moves it on to the next attempt while the daemon says "retry"."""

    def __init__(self, pool: Pool, model: str, options: AcquireOptions) -> None:
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

    def report(self, **options: Unpack[ReportOptions]) -> wire.ReportResult:
        """Tell what came of this attempt. After "retry" the block holds the next lease: send again. Waits for one
        where none is free now; raises `PoolError` when there is none before the request's deadline."""
        self._held = False
        result = self._pool.report(self.current, **options)
        if result.next == "retry":
            following = result.lease
            if following is None:
                again = self._options.copy()
                again["request"] = self.current.request
                following = self._pool.acquire(self._model, **again)
            self.current, self._held = following, True
        return result

    def renew(self) -> wire.RenewResult:
        return self._pool.renew(self.current)

    def release(self) -> None:
        self._held = False
        self._pool.release(self.current)

    def __enter__(self) -> Self:
        self.current = self._pool.acquire(self._model, **self._options)
        return self

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if not self._held:
            return
        self._held = False
        with contextlib.suppress(
            PoolError
        ):  # what the block did is done, whether the daemon hears of it or not
            if (report := report_for(error)) is None:
                self._pool.release(self.current)
                return
            result = self._pool.report(self.current, **report)
            if result.lease is not None:
                self._pool.release(result.lease)


class Stream:
    """Iterator over the chunks (as decoded JSON) of one streamed answer. `result` is set at its end."""

    def __init__(self, links: _Links, params: dict[str, Any]) -> None:
        self.result: wire.StreamResult | None = None
        self._links = links
        self._params = params
        self._repeats = connect.REPEATS  # left, and none once something came
        self._link: _Link | None
        self._link, self._number = links.open(calls.STREAM.method, params)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        while self._link is not None:
            message = self._next(self._link)
            if message.method == "$/progress" and isinstance(message.params, Raw):
                self._repeats = 0
                return calls.PROGRESS.decode(message.params).value
            if message.id == self._number and is_reply(message):
                self._end(self._link, message)
        raise StopIteration

    def close(self) -> None:
        """Cancel what is still running. Nothing happens when the stream has ended."""
        link, self._link = self._link, None
        if link is None:
            return
        try:
            link.cancel(self._number)
            self._links.put(link)
        except (PoolError, OSError):
            link.close()

    def _next(self, link: _Link) -> wire.Incoming:
        try:
            return link.next()
        except BaseException:
            self._link = None
            link.close()
            raise

    def _end(self, link: _Link, reply: wire.Incoming) -> None:
        self._link = None
        self._links.put(link)
        if is_refused_for_stop(reply) and self._repeats:
            self._repeats -= 1  # once more, with the daemon's successor
            self._link, self._number = self._links.open(calls.STREAM.method, self._params, fresh=True)
            return
        self.result = result_of(reply, calls.STREAM)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_link", None) is not None:
            self.close()


class Events:
    """Iterator over the pool's notices. Ends only by `close`, or by the daemon's end (`ConnectionLost`)."""

    def __init__(self, links: _Links, params: wire.SubscribeParams) -> None:
        self._link, number = links.open(calls.SUBSCRIBE.method, params)
        try:
            result_of(self._link.wait_reply(number), calls.SUBSCRIBE)
        except BaseException:
            self._link.close()
            raise

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> wire.Event:
        while True:
            message = self._link.next()
            if message.method == "pool/event" and isinstance(message.params, Raw):
                return calls.EVENT.decode(message.params)

    def close(self) -> None:
        self._link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Links:
    """The connections of one Pool. Each is used by one call at a time; idle ones wait for the next."""

    def __init__(
        self,
        socket: str,
        greeting: wire.InitializeParams,
        connect_s: float,
        timeout_s: float | None,
        autostart: bool,
    ) -> None:
        self._socket = socket
        self._greeting = greeting
        self._connect_s = connect_s
        self._timeout_s = timeout_s
        self._autostart = autostart
        self._lock = threading.Lock()
        self._idle: list[_Link] = []
        self._pid = os.getpid()

    def take(self, *, fresh: bool) -> _Link:
        """A connection for one call: an idle one, unless its like was just found dead."""
        with self._lock:
            if self._pid != os.getpid():  # a child must not speak on its parent's connections
                for link in self._idle:
                    link.close()
                self._idle, self._pid = [], os.getpid()
            while self._idle and not fresh:
                link = self._idle.pop()
                if link.lasts():
                    return link
                link.close()
        return _Link(
            _connect(self._socket, self._connect_s, autostart=self._autostart),
            self._greeting,
            self._timeout_s,
        )

    def put(self, link: _Link) -> None:
        """Keep the connection for the next call, unless it is closed."""
        if link.is_open:
            with self._lock:
                self._idle.append(link)

    def open(self, method: str, params: Any, *, fresh: bool = False) -> tuple[_Link, int]:
        """A connection that stays with its caller, on which the request was sent; and the request's id."""
        link = self.take(fresh=fresh)
        try:
            return link, link.send(method, params)
        except ConnectionLost as lost:
            if fresh or not lost.unsent:
                raise
        except BaseException:
            self.put(link)
            raise
        return self.open(method, params, fresh=True)

    def close(self) -> None:
        with self._lock:
            links, self._idle = self._idle, []
        for link in links:
            link.close()


class _Link:
    """One connection, used by one call at a time. The greeting travels with the first request."""

    def __init__(
        self, sock: sockets.socket, greeting: wire.InitializeParams, timeout_s: float | None
    ) -> None:
        self._sock = sock
        self._timeout_s = timeout_s
        self._session = Session()
        self._inbox: deque[wire.Incoming] = deque()
        self._ahead = self._session.request(calls.INITIALIZE.method, greeting)[1]
        sock.settimeout(timeout_s)
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)

    def ask(self, method: str, params: Any) -> wire.Incoming:
        """Send a request and wait for its reply. An interrupted call ends its connection, and thereby itself."""
        number = self.send(method, params)
        try:
            return self.wait_reply(number)
        except BaseException:
            self.close()
            raise

    def send(self, method: str, params: Any) -> int:
        """Send a request; its id."""
        number, frame = self._session.request(method, params)
        if self._ahead:
            frame, self._ahead = self._ahead + frame, b""
        self._write(frame)
        return number

    def wait_reply(self, number: int) -> wire.Incoming:
        """The reply to that request; other messages before it are dropped, those behind it stay for `next`."""
        while True:
            message = self.next()
            if message.id == number and message.method is UNSET:
                return message

    def next(self) -> wire.Incoming:
        """The next message; waits for one."""
        while not self._inbox:
            self._inbox.extend(self._session.receive(self._recv()))
        return self._inbox.popleft()

    def cancel(self, number: int) -> None:
        """Cancel a request and read until its reply, so that the connection can be used again."""
        self._write(self._session.cancel(number))
        self._sock.settimeout(_CANCEL_S)
        self.wait_reply(number)
        self._sock.settimeout(self._timeout_s)

    def lasts(self) -> bool:
        """Whether an idle connection may be used again: it has neither ended nor been told to end soon."""
        if not self._poll.poll(0):
            return True
        try:
            self._inbox.extend(self._session.receive(self._recv()))
        except PoolError:
            return False
        messages = list(self._inbox)
        self._inbox.clear()
        return not any(map(ends_soon, messages))

    @property
    def is_open(self) -> bool:
        return self._sock.fileno() >= 0

    def close(self) -> None:
        self._sock.close()

    def _recv(self) -> bytes:
        try:
            data = self._sock.recv(_READ)
        except TimeoutError:
            raise PoolError(
                "deadline", f"the daemon said nothing for {self._sock.gettimeout():g} s"
            ) from None
        except OSError:
            raise ConnectionLost from None
        if not data:
            raise ConnectionLost
        return data

    def _write(self, frame: bytes) -> None:
        sent = 0
        try:
            sent = self._sock.send(frame)
            if sent < len(frame):
                self._sock.sendall(memoryview(frame)[sent:])
        except OSError:
            self.close()
            raise ConnectionLost(unsent=sent == 0) from None


def _connect(path: str, patience_s: float, *, autostart: bool) -> sockets.socket:
    give_up_at = time.monotonic() + patience_s
    while True:
        sock = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
        try:
            sock.connect(path)
            return sock
        except OSError as error:
            sock.close()
            if autostart and error.errno in connect.ABSENT and connect.start_daemon(path):
                give_up_at = time.monotonic() + max(patience_s, connect.CONNECT_S)
            autostart = False
            if error.errno not in connect.ABSENT or time.monotonic() >= give_up_at:
                raise connect.failure(error, path) from None
        time.sleep(connect.RETRY_S)
