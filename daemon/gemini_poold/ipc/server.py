"""The RPC server: its sockets, its connections, its end.

What a connection does with bytes is `connection.py`; binding is `listen.py`; the verbs are `verbs.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import socket
import sys
from collections.abc import Mapping
from typing import Any, Literal

from msgspec import UNSET

from gemini_pool import wire
from gemini_pool.errors import METHOD_NOT_FOUND, PoolError

from ..accepting import stop_accepting
from ..core.model import PoolEvent
from ..runtime.broker import stopping
from . import left, verbs
from .connection import MAX_IN_FLIGHT, Connection
from .left import Keep
from .listen import BACKLOG, Listening
from .peer import is_ours, peer_of
from .services import Client, Services
from .verbs import Verb

log = logging.getLogger("gemini_pool.rpc")

READ = 256 * 1024
RETURN_S = 10.0  # a client whose connection we ended has that long to come back for its leases
_FLUSH_S = 1.0  # what clients get to read their last replies
_NOTICE_S = 0.1  # what clients get to read that we are about to stop, before we hang up
_LOOK_S = 0.02
_SERVER_OPTIONS: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}

Scope = Literal["use", "admin"]


class Server:
    """Serves the verbs of `services` on any number of sockets."""

    def __init__(
        self,
        services: Services,
        *,
        table: Mapping[str, Verb] = verbs.VERBS,
        max_in_flight: int = MAX_IN_FLIGHT,
        prefix: str = "",
    ) -> None:
        """`prefix` makes the names of connections unique over restarts: leases are held under them."""
        self.services = services
        services.clients = self.clients
        self.draining = False
        self.keep: Keep | None = None  # takes connections to our successor
        self.note = wire.Draining("", 0.0)
        self.buffer = memoryview(bytearray(READ))  # what any connection reads next
        self._table = table
        self._max_in_flight = max_in_flight
        self._prefix = prefix
        self._listening: list[tuple[Listening, asyncio.Server, Mapping[str, Verb]]] = []
        self._connections: dict[str, Connection] = {}
        self._serial = itertools.count(1)
        self._quiet = asyncio.Event()
        self._closed = False
        self._unsubscribe = services.broker.subscribe(self._publish)

    async def listen(self, listening: Listening, scope: Scope = "admin") -> None:
        """Accept on this socket. `scope` "use" serves the verbs of that scope alone, "admin" all of them."""
        table = self._table
        if scope == "use":
            table = {name: verb for name, verb in table.items() if verb.scope == "use"}

        def connection() -> Connection:
            owner = f"c{self._prefix}{next(self._serial)}"
            return Connection(self, table, owner, max_in_flight=self._max_in_flight)

        loop = asyncio.get_running_loop()
        # From 3.13 on asyncio would remove the socket's file at close, a service manager's included.
        server = await loop.create_unix_server(
            connection, sock=listening.sock, backlog=BACKLOG, **_SERVER_OPTIONS
        )
        self._listening.append((listening, server, table))

    async def adopt(self, sock: socket.socket, state: Any) -> bool:
        """Go on with a connection of our predecessor's (`state`: what it left); False when it cannot be."""
        known, path = left.read(state), sock.getsockname()
        table = next((table for door, _, table in self._listening if str(door.path) == path), None)
        if known is None or table is None or known.owner in self._connections:
            return False
        connection = Connection(self, table, known.owner, max_in_flight=self._max_in_flight, left=known)
        await asyncio.get_running_loop().connect_accepted_socket(lambda: connection, sock)
        return True

    def expect_back(self) -> None:
        """Leases of an earlier run whose connections did not come along: their clients have some time to come back."""
        broker, loop = self.services.broker, asyncio.get_running_loop()
        for owner in broker.pool.leases.owners - self._connections.keys():
            loop.call_later(RETURN_S, broker.release_owner, owner)

    async def drain(self, grace_s: float, reason: str = "stopping", keep: Keep | None = None) -> None:
        """Take no new connection and no new work, tell every client, and wait for what is running, `grace_s` at most.

        `keep(socket, state)` takes a connection to our successor as soon as nothing runs on it, with whatever was asked
        meanwhile. Where there is none to take it, new work is answered `shutting_down`.
        """
        self.draining, self.keep = True, keep
        self.note = wire.Draining(reason, grace_s, UNSET if keep is None else True)
        for connection in self._connections.values():
            connection.tell_draining()
            connection.cancel_waiting()
        self.services.broker.end_at(self.services.clock.now() + grace_s)
        listening, self._listening = self._listening, []
        await stop_accepting([server for _, server, _ in listening])
        for door, _, _ in listening:
            door.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                if keep is not None:
                    await self._give_all(keep)
                elif self._connections:
                    await asyncio.sleep(_NOTICE_S)
                await self._wait_quiet(lambda: any(c.busy for c in self._connections.values()))

    async def _give_all(self, keep: Keep) -> None:
        while left_over := [c for c in list(self._connections.values()) if not (c.given or c.give(keep))]:
            if not any(c.busy or c.unsaid for c in left_over):
                return  # nobody takes them
            await asyncio.sleep(_LOOK_S)

    async def close(self) -> None:
        """End every connection, running calls included. Call `drain` before to be kind. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if not self.draining:
            await self.drain(0.0)
        self._unsubscribe()
        self.services.requests.close()
        for connection in list(self._connections.values()):
            connection.cancel_all()
        await self._wait_quiet(lambda: any(c.busy for c in self._connections.values()))
        for connection in list(self._connections.values()):
            if self.keep is None or not connection.give(self.keep):
                connection.last_look()
        await self._wait_quiet(lambda: any(c.busy for c in self._connections.values()))
        for connection in list(self._connections.values()):
            connection.finish()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_S):
                await self._wait_quiet(lambda: bool(self._connections))
        for connection in list(self._connections.values()):
            connection.abort()

    def clients(self) -> list[Client]:
        """Who is connected now."""
        return [
            Client(c.owner, c.name or f"pid {c.peer.pid}", c.version, c.peer.pid, c.connected_at, c.in_flight)
            for c in self._connections.values()
        ]

    # ---- for connections -------------------------------------------------------------------------------------

    def connected(self, connection: Connection) -> None:
        """Admit a new connection, or end it before a byte of it was read."""
        try:
            peer = peer_of(connection.peer_socket())
        except OSError as error:
            log.warning("refused a connection whose peer the system does not name: %s", error)
            connection.abort()
            return
        if not is_ours(peer):
            log.warning("refused a connection of user id %d (pid %d): not ours", peer.uid, peer.pid)
            connection.abort()
            return
        connection.peer = peer
        connection.connected_at = self.services.clock.now()
        self._connections[connection.owner] = connection

    def disconnected(self, connection: Connection, *, by_us: bool) -> None:
        """Free what the connection held: at once, or when it does not come back after an end that we made."""
        if self._connections.pop(connection.owner, None) is None:
            return
        if connection.given:
            self._quiet.set()
            return
        release = self.services.broker.release_owner
        if by_us or self.draining:  # its client was told to go
            asyncio.get_running_loop().call_later(RETURN_S, release, connection.owner)
        else:
            release(connection.owner)
        self._quiet.set()

    def finished(self) -> None:
        """A call has ended."""
        self._quiet.set()

    stopping = staticmethod(stopping)

    @staticmethod
    def no_method(method: object, served: Mapping[str, Verb]) -> PoolError:
        names = ", ".join(sorted(served))
        return PoolError(
            "not_found",
            f"no method {method!r} on this socket",
            hint=f"there are: {names}",
            rpc_code=METHOD_NOT_FOUND,
        )

    # ---- inside ----------------------------------------------------------------------------------------------

    def _publish(self, event: PoolEvent) -> None:
        for connection in list(self._connections.values()):
            connection.offer(event)

    async def _wait_quiet(self, busy: Any) -> None:
        while busy():
            self._quiet.clear()
            await self._quiet.wait()
