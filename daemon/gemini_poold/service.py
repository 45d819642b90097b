"""The service manager's side of the daemon: readiness, status line, watchdog, inherited sockets, hardening.

Here: what systemd hands to a process (environment variables and file descriptors) and what it wants to hear. Not
here: when the daemon is ready or healthy (`app.py` knows), unit files (the client package's `units/`), binding sockets
of our own (`ipc.listen`), what launchd holds (`launchd.py`). Everything is a no-op where no manager asked for it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno as errno_names
import logging
import os
import resource
import select
import socket
import stat
import sys
from collections.abc import Callable, Collection, Iterable, MutableMapping, Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec
import sdnotify

from gemini_pool import wire
from gemini_pool.errors import ERRORS, PoolError
from gemini_poold.clock import Clock

log = logging.getLogger(__name__)

LISTEN_FDS_START: Final = 3  # sd_listen_fds(3): the first inherited descriptor
FILE_LIMIT: Final = 65_536  # sockets for two sides of the contract's 1000 requests in flight, and room
PR_SET_DUMPABLE: Final = 4  # prctl(2), linux/prctl.h
EXIT_CONFIG: Final = 78  # EX_CONFIG: the unit does not restart on it
Supervisor = Literal["systemd", "launchd", ""]


class Notifier:
    """sd_notify(3) on top of `sdnotify`, whose traps end here.

    `sdnotify` encodes to Latin-1 and says nothing when that fails: one ellipsis in a message and READY is never sent.
    So each message carries one assignment, the status is made ASCII, and errors are logged. The variables are taken
    out of the environment, so that no child (a `command` secret) takes itself for the service.
    """

    def __init__(self, environ: MutableMapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        self.watchdog_s = _watchdog_s(environ)
        self._inner: sdnotify.SystemdNotifier | None = None
        if environ.get("NOTIFY_SOCKET"):
            try:
                self._inner = sdnotify.SystemdNotifier(debug=True)
            except OSError as error:
                log.warning("the service manager's notification socket does not answer: %s", error)
        for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
            environ.pop(name, None)

    @property
    def enabled(self) -> bool:
        return self._inner is not None

    def ready(self) -> None:
        """The sockets accept. Alone in its message: nothing else may keep it from arriving."""
        self._send("READY=1")

    def status(self, text: str) -> None:
        """The one line of `systemctl status`. Line ends and what is not ASCII become `?`-marks and spaces."""
        self._send("STATUS=" + " ".join(text.encode("ascii", "replace").decode("ascii").split()))

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def extend(self, seconds: float) -> None:
        """Ask for `seconds` from now before the manager's start or stop time-out strikes."""
        self._send(f"EXTEND_TIMEOUT_USEC={max(1, round(seconds * 1e6))}")

    def failing(self, text: str, errno: int = errno_names.EINVAL) -> None:
        """Why the daemon is about to end: stays readable in `systemctl status` after the process is gone."""
        self.status(text)
        self._send(f"ERRNO={errno}")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def store(self, descriptors: Sequence[int], name: str) -> None:
        """Have the manager hold these descriptors for the next start of the service. Raises OSError."""
        if self._inner is not None:
            message = f"FDSTORE=1\nFDNAME={name}".encode()
            socket.send_fds(self._inner.socket, [message], list(descriptors))

    def unstore(self, name: str) -> None:
        """Have the manager let go of what it holds under this name."""
        self._send(f"FDSTOREREMOVE=1\nFDNAME={name}")

    def barrier(self, patience_s: float) -> None:
        """Returns when the manager has taken everything that was sent before; for the end of a process, whose messages
        count for nothing once it is reaped. Raises OSError."""
        if self._inner is None:
            return
        ours, theirs = os.pipe()
        try:
            try:
                socket.send_fds(self._inner.socket, [b"BARRIER=1"], [theirs])
            finally:
                os.close(theirs)
            select.select([ours], [], [], patience_s)
        finally:
            os.close(ours)

    def close(self) -> None:
        if self._inner is not None and self._inner.socket is not None:
            self._inner.socket.close()
        self._inner = None

    def _send(self, message: str) -> None:
        if self._inner is None:
            return
        try:
            self._inner.notify(message)
        except OSError as error:  # a manager that re-executes itself is away for a moment
            log.warning("the service manager did not take %s: %s", message.partition("=")[0], error)


async def feed_watchdog(notifier: Notifier, clock: Clock, ailing: Callable[[], str]) -> None:
    """Tell the manager three times per watchdog interval that the daemon lives, while it does. Never returns, unless
    no watchdog is on.

    `ailing()` names what no longer moves (the store, the renewer), or is "". That this coroutine runs at all speaks
    for the event loop. What ails is logged once and put on the status line; then nothing is sent and the manager acts.
    """
    if notifier.watchdog_s is None:
        return
    before = ""
    while True:
        if what := ailing():
            if what != before:
                log.error("the watchdog is not fed: %s", what)
                notifier.status(f"not healthy: {what}")
        else:
            notifier.alive()
        before = what
        await clock.sleep(notifier.watchdog_s / 3)


def _watchdog_s(environ: MutableMapping[str, str]) -> float | None:
    """sd_watchdog_enabled(3): the interval in seconds, if it is meant for this process."""
    usec, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not usec.isdecimal() or int(usec) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 1e6


def supervised(environ: MutableMapping[str, str] | None = None) -> Supervisor:
    """Which service manager started this very process, or "". Ask before a `Notifier` is made.

    INVOCATION_ID alone says nothing: a terminal started by the user manager hands it on to its shells.
    """
    environ = os.environ if environ is None else environ
    if environ.get("NOTIFY_SOCKET") or environ.get("SYSTEMD_EXEC_PID") == str(os.getpid()):
        return "systemd"
    if sys.platform == "darwin" and os.getppid() == 1 and environ.get("XPC_SERVICE_NAME", "0") != "0":
        return "launchd"
    return ""


# ---- sockets that the manager holds -----------------------------------------------------------------------------


class Descriptors(NamedTuple):
    """What the manager passed: listening sockets, and what an earlier process of ours had it hold, by name."""

    listening: list[socket.socket]
    stored: list[tuple[str, int]]


def inherited(
    environ: MutableMapping[str, str] | None = None, *, stored_names: Collection[str] = ()
) -> Descriptors:
    """The descriptors of sd_listen_fds(3); the variables are then unset.

    Listening sockets are made close-on-exec and non-blocking. What is neither one of those nor stored under one of our
    names is closed with a warning: a unit that passes other things is not ours.
    """
    environ = os.environ if environ is None else environ
    count, pid = environ.get("LISTEN_FDS", ""), environ.get("LISTEN_PID", "")
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    for name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"):
        environ.pop(name, None)
    if not count.isdecimal() or pid != str(os.getpid()):
        return Descriptors([], [])
    sockets: list[socket.socket] = []
    stored: list[tuple[str, int]] = []
    for index in range(int(count)):
        fd = LISTEN_FDS_START + index
        label = names[index] if index < len(names) else "unknown"
        if label in stored_names:
            stored.append((label, fd))
        elif (sock := _adopt(fd)) is not None:
            sockets.append(sock)
        else:
            log.warning(
                "descriptor %d (%s) from the service manager is no listening socket: closed", fd, label
            )
    return Descriptors(sockets, stored)


def inherited_sockets(environ: MutableMapping[str, str] | None = None) -> list[socket.socket]:
    """The listening sockets among them."""
    return inherited(environ).listening


def _adopt(fd: int) -> socket.socket | None:
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            os.close(fd)
            return None
        sock = socket.socket(fileno=fd)
    except OSError:
        return None
    sock.set_inheritable(False)
    sock.setblocking(False)
    if sock.type != socket.SOCK_STREAM or not _listens(sock):
        sock.close()
        return None
    return sock


def _listens(sock: socket.socket) -> bool:
    if not hasattr(socket, "SO_ACCEPTCONN"):
        return True
    try:
        return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:  # macOS knows the name and not the question
        return True


def take_unix(sockets: list[socket.socket], path: Path) -> socket.socket | None:
    """Take the socket that listens at `path` out of the list. By path, because one .socket unit has one name for all."""
    wanted = os.path.realpath(path)
    for sock in sockets:
        if sock.family == socket.AF_UNIX and os.path.realpath(_name(sock)) == wanted:
            sockets.remove(sock)
            return sock
    return None


def take_tcp(sockets: list[socket.socket]) -> list[socket.socket]:
    """Take every TCP socket out of the list: the loopback port, in whichever unit it is written."""
    taken = [sock for sock in sockets if sock.family in (socket.AF_INET, socket.AF_INET6)]
    sockets[:] = [sock for sock in sockets if sock not in taken]
    return taken


def _name(sock: socket.socket) -> str:
    name = sock.getsockname()
    return name if isinstance(name, str) else ""


def turn_away(sockets: Iterable[socket.socket], error: PoolError) -> int:
    """Answer and close whoever waits on inherited sockets, without serving them; how many that were.

    Needed before the daemon ends on a bad configuration: a connection left in the backlog makes systemd start the
    service again at once, and again, until the start limit takes the socket down with it.
    """
    count = 0
    for listener in sockets:
        with contextlib.suppress(OSError):  # nobody (more) waits
            while True:
                connection, _ = listener.accept()
                count += 1
                refuse(connection, error)
    return count


def refuse(connection: socket.socket, error: PoolError) -> None:
    """Answer whatever was asked on it with the error, and close."""
    with connection, contextlib.suppress(OSError):
        connection.setblocking(False)
        if first := connection.recv(65_536):
            connection.send(refusal(first, error))


def refusal(first: bytes, error: PoolError) -> bytes:
    """The error in the manner of speaking that a connection's first bytes show: either framing of the RPC, or HTTP.

    The RPC answer has id null, as for anything that was not read as a request.
    """
    data = wire.ErrorData(code=error.code, retryable=error.retryable, hint=error.hint)
    reply = wire.ErrorReply(None, wire.ErrorObject(error.rpc_code, error.message, data))
    body = msgspec.json.encode(reply)
    if first.startswith(b"{"):
        return body + b"\n"
    if first.startswith(b"C"):
        return b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    word = ERRORS["shutting_down"]
    inner = {"error": {"code": word.http, "message": str(error), "status": word.status}}
    page = msgspec.json.encode(inner)
    head = (
        f"HTTP/1.1 {word.http} Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n"
    )
    return head.encode() + b"Content-Length: %d\r\n\r\n%s" % (len(page), page)


# ---- hardening --------------------------------------------------------------------------------------------------


def harden() -> None:
    """No core dump of this process, no other process of the user that reads its memory, private files by default.

    Best effort: what the platform lacks is left out. PR_SET_DUMPABLE also gives /proc/PID to root, which hides the
    daemon's environment from the user's other processes.
    """
    os.umask(0o077)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def raise_file_limit(wanted: int = FILE_LIMIT) -> int:
    """Lift the soft limit of open files towards `wanted`, as far as the hard one allows. What it is afterwards."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < target:
        with contextlib.suppress(OSError, ValueError):  # macOS caps it lower than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
            return target
    return soft
