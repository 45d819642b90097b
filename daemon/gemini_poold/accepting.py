"""Ending to accept connections without losing one: on a socket that outlives us, whoever is not taken waits for the next.

`asyncio.Server.close` drops a connection that was taken in the same turn of the loop: its transport finds the server
gone, and the client is hung up on. So first nobody new is taken, then those who were are let in, then it is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

_TURNS = 4  # of the loop, from `accept` to `connection_made`


async def stop_accepting(servers: Iterable[asyncio.Server]) -> None:
    """Close the listening sockets. When this returns, every connection that was ever taken has its protocol."""
    loop, servers = asyncio.get_running_loop(), list(servers)
    for server in servers:
        for sock in server.sockets:
            loop.remove_reader(sock.fileno())
    for _ in range(_TURNS):
        await asyncio.sleep(0)
    for server in servers:
        server.close()
