"""Peer credentials, as two kernels tell them."""

import os
import socket
import struct

import pytest

from gemini_poold.ipc.peer import Peer, is_ours, peer_of


@pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason="Linux only")
def test_own_peer():
    """The kernel names the process at the other end, and it is ours."""
    here, there = socket.socketpair()
    with here, there:
        assert peer_of(here) == Peer(os.getpid(), os.geteuid())
        assert is_ours(peer_of(here))


class Darwin:
    """A socket of macOS: the structures of sys/ucred.h."""

    def getsockopt(self, level, option, size):
        assert level == 0
        return {1: struct.pack("=IIh", 0, 501, 2).ljust(76, b"\0"), 2: struct.pack("=i", 4321)}[option][:size]


def test_macos():
    """LOCAL_PEERCRED gives the user, LOCAL_PEERPID the process."""
    assert peer_of(Darwin(), platform="darwin") == Peer(4321, 501)


@pytest.mark.parametrize("uid", [os.geteuid() + 1, 65534])
def test_others_are_not_ours(uid):
    """Only our own user id is ours, root's neither unless we are root."""
    assert not is_ours(Peer(1, uid))
