"""The end of a listening socket: who was taken is served, who was not waits."""

from __future__ import annotations

import asyncio
import socket

from gemini_poold.accepting import stop_accepting


class Hello(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"hello")


async def test_who_was_taken_in_the_last_turn_is_served_and_who_comes_later_waits() -> None:
    """A connection that the loop takes in the very turn in which the server ends has its protocol; one that comes
    afterwards stays in the socket's queue, for whoever listens on it next."""
    loop = asyncio.get_running_loop()
    listening = socket.create_server(("127.0.0.1", 0))
    for _ in range(20):
        server = await loop.create_server(Hello, sock=listening.dup())
        early = socket.create_connection(listening.getsockname())
        early.setblocking(False)
        await asyncio.sleep(0)  # it is accepted, and not more than that
        ending = asyncio.ensure_future(stop_accepting([server]))
        late = socket.create_connection(listening.getsockname())
        late.setblocking(False)
        await ending
        second = await loop.create_server(Hello, sock=listening.dup())
        async with asyncio.timeout(10):
            assert await loop.sock_recv(early, 100) == b"hello"
            assert await loop.sock_recv(late, 100) == b"hello"
        await stop_accepting([second])
        early.close()
        late.close()
    listening.close()
