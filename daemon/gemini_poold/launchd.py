"""Listening sockets that launchd holds for us, by launch_activate_socket(3) through ctypes.

A LaunchAgent names them "pool", "gateway" and "port"; each may be several descriptors (IPv4 and IPv6). Elsewhere than
on a Mac, or not started by launchd, there are none.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import socket
from collections.abc import Callable, Iterable
from typing import Any

log = logging.getLogger(__name__)

NAMES = ("pool", "gateway", "port")
# Unknown name, not started by launchd, activated before: nothing to take.
_NOTHING = frozenset({errno.ENOENT, errno.ESRCH, errno.EALREADY})


def activated_sockets(names: Iterable[str] = NAMES, *, library: Any = None) -> list[socket.socket]:
    """The sockets under these names, non-blocking and close-on-exec. `library`: where the call is (default: libSystem)."""
    library = ctypes.CDLL(None) if library is None else library
    try:
        activate: Callable[..., int] = library.launch_activate_socket
    except AttributeError:
        return []
    found = []
    for name in names:
        found += [_adopt(fd) for fd in _activate(activate, library.free, name)]
    return found


def _activate(activate: Callable[..., int], free: Any, name: str) -> list[int]:
    fds, count = ctypes.POINTER(ctypes.c_int)(), ctypes.c_size_t(0)
    free.argtypes, free.restype = [ctypes.c_void_p], None
    code = activate(name.encode(), ctypes.byref(fds), ctypes.byref(count))
    if code:
        if code not in _NOTHING:
            log.warning("launchd does not hand over the socket %s: %s", name, os.strerror(code))
        return []
    numbers = [fds[index] for index in range(count.value)]
    free(ctypes.cast(fds, ctypes.c_void_p))  # the array is ours to free
    return numbers


def _adopt(fd: int) -> socket.socket:
    sock = socket.socket(fileno=fd)
    sock.set_inheritable(False)
    sock.setblocking(False)
    return sock
