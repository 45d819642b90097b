"""Open connections over a planned restart: systemd's descriptor store holds them between the two processes.

A client that keeps a connection notices nothing: what it sends meanwhile waits in the kernel. Listening sockets need
none of this, for they are systemd's own. When the service is stopped for good, systemd closes what it holds.
What belongs to a connection travels beside it in an anonymous file, found again by the socket's inode.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
from collections.abc import MutableMapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from .errors import UNREADABLE
from .service import Notifier

log = logging.getLogger(__name__)

CONNECTION: Final = "kept-connection"  # names in the store
STATE: Final = "kept-state"
NAMES: Final = (CONNECTION, STATE)
_MOST: Final = 200  # descriptors in one message; the kernel takes 253
_SETTLED_S: Final = 1.0


class Given(NamedTuple):
    """A connection of our predecessor's, and what it left of it."""

    sock: socket.socket
    state: dict[str, Any]


def room(environ: MutableMapping[str, str] | None = None) -> int:
    """How many descriptors systemd will hold for us. It says so itself from 254 on, else our unit does."""
    environ = os.environ if environ is None else environ
    text = environ.pop("FDSTORE", "")
    return int(text) if text.isdecimal() and sys.platform == "linux" else 0


class Keeper:
    """Collects connections (`keep`), then gives them to systemd (`send`)."""

    def __init__(self, notifier: Notifier, room: int) -> None:
        self._notifier = notifier
        self._room = room - 1 if notifier.enabled else 0  # one is for the state
        self._socks: list[socket.socket] = []
        self._states: dict[str, dict[str, Any]] = {}

    @property
    def possible(self) -> bool:
        return self._room > 0

    def keep(self, sock: socket.socket, state: dict[str, Any]) -> bool:
        """Take a connection over, whose bytes nobody reads any more; False when there is no room for it."""
        if len(self._socks) >= self._room:
            return False
        self._socks.append(sock)
        if state:
            self._states[str(os.fstat(sock.fileno()).st_ino)] = state
        return True

    def send(self) -> int:
        """Give systemd what was collected, and wait until it has it; how many connections that were."""
        socks, self._socks = self._socks, []
        if not socks:
            return 0
        try:
            with os.fdopen(os.memfd_create(STATE), "wb") as file:
                file.write(msgspec.json.encode(self._states))
                file.flush()
                self._notifier.store([file.fileno()], STATE)
                for start in range(0, len(socks), _MOST):
                    self._notifier.store([sock.fileno() for sock in socks[start : start + _MOST]], CONNECTION)
                self._notifier.barrier(_SETTLED_S)
        except OSError as error:
            log.warning("%d connections could not be kept over the restart: %s", len(socks), error)
        finally:
            for sock in socks:
                sock.close()
        return len(socks)


def take_up(descriptors: Sequence[tuple[str, int]]) -> list[Given]:
    """What our predecessor left, out of the descriptors that systemd passed under these names. Call `release` once they
    are served; a start that fails leaves them to the next one."""
    states: dict[str, dict[str, Any]] = {}
    socks = []
    for name, fd in descriptors:
        if name == STATE:
            states |= _read(fd)
        else:
            with contextlib.suppress(OSError):
                sock = socket.socket(fileno=fd)
                sock.setblocking(False)
                sock.set_inheritable(False)
                socks.append(sock)
    return [Given(sock, states.get(str(os.fstat(sock.fileno()).st_ino), {})) for sock in socks]


def release(notifier: Notifier) -> None:
    """From now on only we hold them, so that a client notices when we hang up."""
    for name in NAMES:
        notifier.unstore(name)


def _read(fd: int) -> dict[str, dict[str, Any]]:
    try:
        with os.fdopen(fd, "rb") as file:
            file.seek(0)
            return msgspec.json.decode(file.read(), type=dict[str, dict[str, Any]])
    except (OSError, *UNREADABLE) as error:
        log.warning("what was kept over the restart cannot be read: %s", error)
        return {}
