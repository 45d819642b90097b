"""Virtual time for tests: an event loop whose clock jumps to the next timer, and a `Clock` that reads it.

A day in which nothing happens costs milliseconds, because the loop never waits for a timer: when nothing is ready it
moves its own time to the next one. Real sockets do not belong here (their peers live in real time); threads do, within
reason: while a job runs in an executor the loop gives it a moment of real time before it jumps on.

    async def main() -> None:
        clock = VirtualClock()
        await asyncio.sleep(86400)
        clock.suspend(3600)

    run_virtual(main())
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

START_AT = 1_795_000_000.0  # 2026-11-18, a Wednesday

# A thread that does not come back within this much real time is taken for one that waits for the loop itself.
THREAD_PATIENCE_S = 1.0
# With no timer, no executor job and no descriptor ready, only a thread of somebody's own could still wake the loop.
DEADLOCK_S = 10.0


class Deadlock(RuntimeError):
    """The loop has nothing left to do, and what runs in it waits for something that cannot come."""


class _JumpingSelector(selectors.DefaultSelector):  # type: ignore[misc,valid-type]
    """Never waits for a timer: reports nothing and moves the loop's time instead."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if self.loop.jobs:
            ready = super().select(THREAD_PATIENCE_S)
            if ready:
                return ready
        if timeout is not None:
            self.loop.advance(timeout)
            return ready
        ready = super().select(DEADLOCK_S)
        if not ready:
            raise Deadlock("nothing is scheduled and nothing is ready")
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """A selector loop with a clock of its own. `jobs` counts what runs in executors now."""

    def __init__(self) -> None:
        self._virtual = 1000.0
        self.jobs = 0
        selector = _JumpingSelector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self._virtual

    def advance(self, seconds: float) -> None:
        """Moves the clock. Timers that fall due run in the next round, in the order of their instants."""
        self._virtual += seconds

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        future = super().run_in_executor(executor, func, *args)
        self.jobs += 1
        future.add_done_callback(self._job_done)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Without the limit that Python 3.12 and newer give it: virtual time would jump to it at once."""
        del timeout
        await super().shutdown_default_executor()

    def _job_done(self, _future: asyncio.Future[Any]) -> None:
        self.jobs -= 1


class VirtualClock:
    """`gemini_poold.clock.Clock` over a virtual loop (or over any loop, then in real time).

    Wall, monotonic and boot time progress together with the loop; `suspend` and `step` part them.
    Made inside the loop that it follows, or used there first.
    """

    def __init__(self, start_at: float = START_AT) -> None:
        self._start_at = start_at
        self._loop: asyncio.AbstractEventLoop | None = None
        self._began = 0.0
        self._asleep_s = 0.0
        self._stepped_s = 0.0
        try:
            self._bind(asyncio.get_running_loop())
        except RuntimeError:
            pass

    def now(self) -> float:
        return self._start_at + self._elapsed() + self._asleep_s + self._stepped_s

    def monotonic(self) -> float:
        return self._elapsed()

    def boottime(self) -> float:
        return self._elapsed() + self._asleep_s

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def suspend(self, seconds: float) -> None:
        """The machine slept: wall and boot clocks went on, monotonic and every timer stood still."""
        self._asleep_s += seconds

    def step(self, seconds: float) -> None:
        """Somebody (NTP, a person) set the wall clock by so much, forwards or backwards."""
        self._stepped_s += seconds

    def advance(self, seconds: float) -> None:
        """Time passes while nothing runs, as in a process that was stopped. Virtual loops only."""
        self._elapsed()
        assert isinstance(self._loop, VirtualLoop)
        self._loop.advance(seconds)

    def _elapsed(self) -> float:
        if self._loop is None:
            self._bind(asyncio.get_running_loop())
        assert self._loop is not None
        return self._loop.time() - self._began

    def _bind(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._began = loop.time()


class ManualClock:
    """A clock that stands still until a test moves it: for pure shells that never sleep."""

    def __init__(self, start_at: float = START_AT) -> None:
        self._wall = start_at
        self._monotonic = 1000.0
        self._boot = 1000.0

    def now(self) -> float:
        return self._wall

    def monotonic(self) -> float:
        return self._monotonic

    def boottime(self) -> float:
        return self._boot

    async def sleep(self, seconds: float) -> None:
        """Passes the time at once and lets other tasks run."""
        self.advance(seconds)
        await asyncio.sleep(0)

    def advance(self, seconds: float) -> None:
        self._wall += seconds
        self._monotonic += seconds
        self._boot += seconds

    def suspend(self, seconds: float) -> None:
        self._wall += seconds
        self._boot += seconds

    def step(self, seconds: float) -> None:
        self._wall += seconds


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Runs `main` to its end on a virtual loop of its own, and returns what it returns."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
