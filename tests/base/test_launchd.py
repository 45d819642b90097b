"""Sockets that launchd hands over, against a library of the same signature."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from typing import Any

from gemini_poold.launchd import activated_sockets


class Library:
    """launch_activate_socket(3) with an array of its own, which must be freed exactly once."""

    def __init__(self, held: dict[str, list[int]]) -> None:
        self.held = held
        self.seen: list[str] = []
        self.freed: list[int] = []
        self._arrays: dict[int, Any] = {}
        self.free = self._Free(self.freed)

    class _Free:
        argtypes: Any = None
        restype: Any = None

        def __init__(self, freed: list[int]) -> None:
            self._freed = freed

        def __call__(self, pointer: Any) -> None:
            self._freed.append(ctypes.cast(pointer, ctypes.c_void_p).value or 0)

    def launch_activate_socket(self, name: bytes, fds: Any, count: Any) -> int:
        word = name.decode()
        if word in self.seen:
            return errno.EALREADY
        if word not in self.held:
            return errno.ENOENT
        self.seen.append(word)
        numbers = self.held[word]
        array = (ctypes.c_int * len(numbers))(*numbers)
        self._arrays[ctypes.addressof(array)] = array
        fds._obj.contents = ctypes.c_int.from_address(ctypes.addressof(array))
        count._obj.value = len(numbers)
        return 0


def test_every_socket_is_taken_and_the_array_freed() -> None:
    """All descriptors under our names become sockets, non-blocking and not for children."""
    made = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    fds = [os.dup(one.fileno()) for one in made]
    library = Library({"pool": fds[:1], "port": fds[1:]})
    found = activated_sockets(library=library)
    assert [one.fileno() for one in found] == fds
    assert not any(one.getblocking() or one.get_inheritable() for one in found)
    assert len(library.freed) == 2 and all(library.freed)
    assert activated_sockets(library=library) == []
    for one in (*made, *found):
        one.close()


def test_a_platform_without_the_call_has_no_sockets() -> None:
    """On Linux the C library knows no such function."""
    assert activated_sockets() == []
