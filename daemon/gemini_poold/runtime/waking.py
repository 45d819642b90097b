"""What is done anew after the machine slept, somebody set the clock, or the network changed.

Who notices is `ticker` (always), `logind` (where there is one; a little sooner) and `network`. What was planned in time is
planned from the clocks as they are now: tokens, set-ups, cooldowns, quota. What failed before is tried at once.
No new request takes a connection of before a suspend: the other end may have gone without our having heard.
"""

from __future__ import annotations

import asyncio
import logging

from ..clock import SteadyClock
from ..transport import AiohttpTransport
from .broker import Broker
from .lifecycle import Lifecycle
from .poller import Poller
from .ticker import STEP, SUSPEND, Ticker

log = logging.getLogger("gemini_pool")


class Waking:
    """`run` and `ticker.run` are tasks of the daemon; the rest is called by those who notice."""

    def __init__(
        self,
        lifecycle: Lifecycle,
        broker: Broker,
        poller: Poller,
        transport: AiohttpTransport,
        clock: SteadyClock,
    ) -> None:
        self.ticker = Ticker(clock, self.jumped)
        self._lifecycle = lifecycle
        self._broker = broker
        self._poller = poller
        self._transport = transport
        self._clock = clock
        self._woke = asyncio.Event()

    async def run(self) -> None:
        """Replace connections after each sleep. Until cancelled."""
        while True:
            await self._woke.wait()
            self._woke.clear()
            await self._transport.renew()

    def jumped(self, kind: str, seconds: float) -> None:
        """From the ticker: the machine slept, somebody set the clock, or the process stood still."""
        log.info("%s of %.0f s noticed", kind, seconds)
        self._replan(seconds if kind == STEP else 0.0)
        if kind == SUSPEND:
            self._woke.set()

    def sleep(self, about_to: bool) -> None:
        """From logind. Awake again, the clocks are read at once; that they show no sleep does not make it none."""
        if about_to:
            log.info("the machine goes to sleep")
            return
        log.info("the machine woke up")
        if not any(jump.kind == SUSPEND for jump in self.ticker.tick()):
            self._replan(0.0)
            self._woke.set()

    def network_changed(self) -> None:
        """What failed for want of a network is tried again now, not when its back-off ends."""
        self._lifecycle.tokens.replan(self._clock.now())
        self._lifecycle.replan()

    def _replan(self, stepped_s: float) -> None:
        self._lifecycle.tokens.replan(self._clock.now(), stepped_s=stepped_s)
        self._lifecycle.replan()
        self._broker.expire()
        self._poller.replan()
