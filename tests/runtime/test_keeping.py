"""Leases of requests under way are renewed, however long the answer takes and whatever it is."""

from __future__ import annotations

import asyncio

import pytest
from tests.runtime.rig import rig_of

from gemini_poold.fake import Fault
from gemini_poold.runtime import keeping


@pytest.mark.parametrize("method", ["generateContent", "streamGenerateContent"])
async def test_a_long_request_keeps_its_lease(method, monkeypatch):
    """Before the first byte, too: nothing comes for longer than a lease lives, and the lease lives on."""
    monkeypatch.setattr(keeping, "ROUND_S", 0.001)
    async with rig_of("key-a") as rig:
        rig.fake.faults.add(Fault.silence())
        ask = rig.dispatcher.stream if method.startswith("stream") else rig.dispatcher.unary
        task = asyncio.ensure_future(ask(rig.call(method=method)))
        async with asyncio.timeout(10):
            while not rig.leases:
                await asyncio.sleep(0)
            (lease,) = rig.pool.leases
            for _ in range(2):
                lease.expires_at = rig.clock.now() + 1.0
                while lease.expires_at < rig.clock.now() + 500.0:
                    await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert len(rig.dispatcher.keeper) == 0


async def test_a_lease_that_ran_out_is_let_go():
    """The machine slept: it is not asked for again and again, and the request goes on."""
    async with rig_of("key-a") as rig:
        stream = await rig.dispatcher.stream(rig.stream_call())
        (lease,) = rig.pool.leases
        lease.expires_at = rig.clock.now() - 1
        rig.pool.leases.renew(lease.id, lease.expires_at)
        rig.broker.expire()
        rig.dispatcher.keeper.renew(rig.clock.now() + keeping.EARLY_S)
        assert len(rig.dispatcher.keeper) == 0
        async with stream:
            assert b"".join([block async for block in stream])
