"""Whose process is at the other end of a loopback TCP connection: Linux says so in /proc/net/tcp, nobody else does."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_TABLES = {4: Path("/proc/net/tcp"), 6: Path("/proc/net/tcp6")}
_ESTABLISHED = "01"


def is_our_connection(peer: tuple[Any, ...], own: tuple[Any, ...]) -> bool:
    """Whether the socket at `peer` (host, port, …) that is connected to `own` belongs to this user. Blocks for a read."""
    try:
        with _TABLES[6 if ":" in peer[0] else 4].open(encoding="ascii") as table:
            return uid_of(table, peer, own) == os.geteuid()
    except OSError:  # no such table: what cannot be told is not ours
        return False


def uid_of(lines: Iterable[str], peer: tuple[Any, ...], own: tuple[Any, ...]) -> int | None:
    """The owner of the connected socket `peer` -> `own` in a table of the kernel's."""
    local, remote = written(peer[0], peer[1]), written(own[0], own[1])
    for line in lines:
        fields = line.split()
        if len(fields) > 7 and fields[1] == local and fields[2] == remote and fields[3] == _ESTABLISHED:
            return int(fields[7])
    return None


def written(host: str, port: int) -> str:
    """An address as the kernel writes it: each 32 bits in the machine's order, in hex."""
    packed = socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return "".join(f"{word:08X}" for word in words) + f":{port:04X}"
