"""aiohttp: sessions to the gateway over its Unix socket.

async with aiohttp.ClientSession(BASE_URL, connector=connector()) as session: …
"""

from __future__ import annotations

import os
from typing import Any

import aiohttp

from gemini_pool.adapters import BASE_URL, gateway_socket

__all__ = ["BASE_URL", "connector"]


def connector(socket: str | os.PathLike[str] | None = None, **options: Any) -> aiohttp.UnixConnector:
    """Make it within a running loop. Asks the daemon for the socket's place, blocking a millisecond, unless given."""
    return aiohttp.UnixConnector(path=gateway_socket(socket), **options)
