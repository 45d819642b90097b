"""Sleeping and waking up as logind tells it; and no harm where there is no logind, no bus or no library."""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.fakes.clock import ManualClock

from gemini_poold.runtime import logind

pytest.importorskip("jeepney")  # Linux only
from tests.fakes.bus import Bus  # noqa: E402

PATIENCE_S = 10


class Clock(ManualClock):
    """Counts naps, and takes none."""

    naps = 0

    async def sleep(self, seconds: float) -> None:
        self.naps += 1
        await asyncio.sleep(0.01)


@asynccontextmanager
async def heard(path: Path, monkeypatch: pytest.MonkeyPatch):
    """A watch of the bus at `path`: what it told, and its clock."""
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={path}")
    told: asyncio.Queue[bool] = asyncio.Queue()
    clock = Clock()
    task = asyncio.create_task(logind.watch(told.put_nowait, clock))
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield told, clock
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_it_hears_of_sleep(tmp_path, monkeypatch):
    """Both signals come through, others do not; only logind's are subscribed to."""
    async with Bus(tmp_path / "bus") as bus, heard(tmp_path / "bus", monkeypatch) as (told, _):
        await bus.subscribed.wait()
        bus.prepare_for_sleep(True)
        bus.prepare_for_sleep(True, member="PrepareForShutdown")
        bus.prepare_for_sleep(False)
        assert [await told.get(), await told.get()] == [True, False]
        assert told.empty()
        for part in ("sender='org.freedesktop.login1'", "member='PrepareForSleep'", "type='signal'"):
            assert part in bus.rules[0]


async def test_a_bus_that_restarts_is_found_again(tmp_path, monkeypatch):
    """After a while, and without a busy loop."""
    async with Bus(tmp_path / "bus") as bus, heard(tmp_path / "bus", monkeypatch) as (told, clock):
        await bus.subscribed.wait()
        assert clock.naps == 0
        bus.hang_up()
        await bus.subscribed.wait()
        assert clock.naps >= 1
        bus.prepare_for_sleep(False)
        assert await told.get() is False


async def test_a_bus_may_come_later(tmp_path, monkeypatch):
    """No socket, then one."""
    async with heard(tmp_path / "bus", monkeypatch) as (told, clock):
        while clock.naps < 2:
            await asyncio.sleep(0.01)
        async with Bus(tmp_path / "bus") as bus:
            await bus.subscribed.wait()
            bus.prepare_for_sleep(True)
            assert await told.get() is True


@pytest.mark.parametrize("address", ["tcp:host=localhost", "unix:runtime=yes", "nonsense", ""])
async def test_a_strange_address_is_no_trouble(address, tmp_path, monkeypatch):
    """Nothing is told, and nothing ends."""
    async with heard(tmp_path, monkeypatch) as (told, clock):
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address or f"unix:path={tmp_path}/none")
        while clock.naps < 2:
            await asyncio.sleep(0.01)
        assert told.empty()


async def test_without_the_library_nothing_happens(tmp_path, monkeypatch):
    """The extra is not installed: no tries, no log."""
    monkeypatch.setitem(sys.modules, "jeepney", None)
    async with Bus(tmp_path / "bus") as bus, heard(tmp_path / "bus", monkeypatch) as (_, clock):
        await asyncio.sleep(0.05)
        assert clock.naps == 0
        assert not bus.subscribed.is_set()
