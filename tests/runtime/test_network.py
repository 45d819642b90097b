"""The network's changes: told once for a burst, not too often, and really heard from the kernel where that is allowed."""

from __future__ import annotations

import asyncio
import socket

from tests.fakes.clock import ManualClock

from gemini_poold.runtime import network


class Hearing:
    """A watch over a socket of the test's, with a clock that passes its own time."""

    async def __aenter__(self):
        self.ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        theirs.setblocking(False)
        self.told, self.heard, self.clock = [], asyncio.Event(), ManualClock()
        self.task = asyncio.create_task(network.watch(self._on_change, self.clock, source=theirs))
        return self

    async def __aexit__(self, *_):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.ours.close()

    def _on_change(self):
        self.told.append(self.clock.now())
        self.heard.set()

    async def next(self):
        async with asyncio.timeout(10):
            await self.heard.wait()
        self.heard.clear()


async def test_a_burst_is_told_once():
    """Link, addresses and routes come one after the other."""
    async with Hearing() as hearing:
        for _ in range(20):
            hearing.ours.send(b"x")
        await hearing.next()
        assert len(hearing.told) == 1


async def test_changes_are_told_with_a_gap():
    """What goes on all the time is not told all the time."""
    async with Hearing() as hearing:
        for _ in range(3):
            hearing.ours.send(b"x")
            await hearing.next()
        gaps = [after - before for before, after in zip(hearing.told, hearing.told[1:], strict=False)]
        assert min(gaps) >= network.GAP_S


async def test_no_netlink_no_harm(monkeypatch):
    """Where nobody tells, the watch waits without an end."""
    monkeypatch.setattr(network, "open_netlink", lambda: None)
    task = asyncio.create_task(network.watch(lambda: None, ManualClock()))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_the_kernel_lets_us_listen():
    """The groups are those of rtnetlink.h, and binding to them needs no right."""
    found = network.open_netlink()
    assert network.GROUPS == 0x551
    if found is not None:  # another system, or a sandbox that forbids it
        assert found.getsockname()[1] == network.GROUPS
        found.close()
