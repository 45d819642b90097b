"""What a stopping daemon leaves to its successor of a connection that it hands on: who it is, and what was not answered.

The socket itself goes another way (`handover.py`); what the kernel still holds of the client's bytes goes with it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import msgspec

Keep = Callable[[socket.socket, dict[str, Any]], bool]


class Left(msgspec.Struct, omit_defaults=True):
    """`unread`: messages and the beginning of one, as they came in. `events`: kinds that it is subscribed to."""

    owner: str
    name: str = ""
    version: str = ""
    framing: str = ""
    connected_at: float = 0.0
    events: list[str] | None = None
    unread: bytes = b""


def read(state: Any) -> Left | None:
    """None for what no version of ours has written."""
    try:
        return msgspec.convert(state, Left)
    except msgspec.ValidationError:
        return None
