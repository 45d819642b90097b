"""After a suspend, a clock step, a changed network: who is told, and which connections go."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.fakes.clock import VirtualClock, run_virtual

from gemini_poold.clock import SteadyClock
from gemini_poold.runtime.ticker import INTERVAL_S
from gemini_poold.runtime.waking import Waking


class Part:
    """Stands for each of the parts, and notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.tokens = self

    def replan(self, now: float | None = None, *, stepped_s: float = 0.0) -> None:
        self.told.append("replan" if not stepped_s else stepped_s)

    def expire(self) -> None:
        self.told.append("expire")

    async def renew(self) -> None:
        self.told.append("renew")

    def take(self) -> list[Any]:
        told, self.told = self.told, []
        return told


def lived(what) -> None:
    """`what(waking, clock, lifecycle, broker, poller, transport)` while the tasks run, in virtual time."""

    async def main() -> None:
        clock = VirtualClock()
        parts = [Part() for _ in range(4)]
        waking = Waking(*parts, SteadyClock(clock))  # type: ignore[arg-type]
        tasks = [asyncio.create_task(each) for each in (waking.run(), waking.ticker.run())]
        await asyncio.sleep(0.5)
        await what(waking, clock, *parts)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run_virtual(main())


def test_a_suspend_without_logind():
    """Within one look of the ticker everything is planned anew, once, and connections are renewed."""

    async def what(waking, clock, lifecycle, broker, poller, transport):
        clock.suspend(7200)
        await asyncio.sleep(INTERVAL_S + 0.1)
        assert lifecycle.take() == ["replan", "replan"]  # its tokens are it, here
        assert (broker.take(), poller.take(), transport.take()) == (["expire"], ["replan"], ["renew"])
        await asyncio.sleep(60)
        assert not (lifecycle.told or transport.told)

    lived(what)


def test_logind_tells_at_once():
    """No wait for the ticker, and the ticker tells nothing a second time."""

    async def what(waking, clock, lifecycle, broker, poller, transport):
        waking.sleep(about_to=True)
        assert not lifecycle.told
        clock.suspend(59)
        waking.sleep(about_to=False)
        await asyncio.sleep(0)
        assert lifecycle.take() == ["replan", "replan"]
        await asyncio.sleep(0.01)
        assert (broker.take(), poller.take(), transport.take()) == (["expire"], ["replan"], ["renew"])
        await asyncio.sleep(60)
        assert not (lifecycle.told or broker.told or transport.told)

    lived(what)


def test_a_sleep_that_no_clock_shows():
    """A virtual machine whose clocks all stood still: logind's word is enough."""

    async def what(waking, clock, lifecycle, broker, poller, transport):
        waking.sleep(about_to=False)
        await asyncio.sleep(0.01)
        assert lifecycle.take() == ["replan", "replan"]
        assert transport.take() == ["renew"]

    lived(what)


def test_a_step_keeps_connections():
    """Somebody set the clock: deadlines are corrected, the network is as it was."""

    async def what(waking, clock, lifecycle, broker, poller, transport):
        clock.step(3600)
        await asyncio.sleep(INTERVAL_S + 0.1)
        assert [round(each) if isinstance(each, float) else each for each in lifecycle.take()] == [
            3600,
            "replan",
        ]
        assert (broker.take(), transport.take()) == (["expire"], [])

    lived(what)


def test_a_changed_network_only_hurries_what_failed():
    """Cooldowns and quota have nothing to do with it."""

    async def what(waking, clock, lifecycle, broker, poller, transport):
        waking.network_changed()
        assert lifecycle.take() == ["replan", "replan"]
        assert not (broker.told or poller.told or transport.told)

    lived(what)
