"""Who is at the other end of a Unix socket, as the kernel says. Asked before the first byte is read."""

from __future__ import annotations

import os
import socket
import struct
import sys
from typing import NamedTuple, Protocol

# macOS, sys/un.h and sys/ucred.h: level 0, option 1 gives struct xucred {version, uid, ngroups, groups[16]}.
_SOL_LOCAL, _LOCAL_PEERCRED, _LOCAL_PEERPID, _XUCRED_SIZE = 0, 1, 2, 76


class Options(Protocol):
    """A socket, or asyncio's stand-in for one."""

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes: ...


class Peer(NamedTuple):
    pid: int
    uid: int


def peer_of(sock: Options, *, platform: str = sys.platform) -> Peer:
    """The process that connected. Raises OSError where the kernel does not tell: such a peer is not served."""
    if platform == "darwin":
        _version, uid = struct.unpack_from("=II", sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED_SIZE))
        (pid,) = struct.unpack("=i", sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERPID, 4))
        return Peer(pid, uid)
    size = struct.calcsize("=iII")
    pid, uid, _gid = struct.unpack("=iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return Peer(pid, uid)


def is_ours(peer: Peer) -> bool:
    """Whether the peer runs as the same user as we do. Root is somebody else."""
    return peer.uid == os.geteuid()
