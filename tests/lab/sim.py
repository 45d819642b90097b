"""Virtual time: events in a heap, processes as generators. Knows nothing of Google or of pools.

A process yields seconds to sleep or a `Later` to wait for (its value is what the yield returns). The same calls in the
same order give the same run, because ties are broken by the order in which events were made.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from heapq import heappop, heappush
from typing import Any

START_AT = 1_795_000_000.0  # 2026-11-18 11:06:40 UTC; Unix time, because the pool decides with Unix time

Process = Generator[Any, Any, Any]


class Later:
    """A value that comes once. `then` is called with it, at once when it is there already."""

    __slots__ = ("_then", "done", "value")

    def __init__(self) -> None:
        self.done = False
        self.value: Any = None
        self._then: Callable[[Any], None] | None = None

    def set(self, value: Any) -> None:
        if not self.done:
            self.done, self.value = True, value
            if self._then is not None:
                self._then(value)

    def then(self, call: Callable[[Any], None]) -> None:
        self._then = call
        if self.done:
            call(self.value)


class Sim:
    """`now` is Unix seconds and moves from event to event."""

    def __init__(self, start_at: float = START_AT) -> None:
        self.now = start_at
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._serial = 0

    def at(self, when: float, call: Callable[..., None], *args: Any) -> None:
        """Call at `when`; an instant that has passed means now."""
        self._serial += 1
        heappush(self._events, (max(when, self.now), self._serial, call, args))

    def spawn(self, process: Process) -> None:
        self._step(process, None)

    def run(self) -> None:
        """Until nothing is left to happen."""
        while self._events:
            self.now, _, call, args = heappop(self._events)
            call(*args)

    def _step(self, process: Process, value: Any) -> None:
        try:
            wanted = process.send(value)
        except StopIteration:
            return
        if isinstance(wanted, Later):
            wanted.then(lambda got: self._step(process, got))
        else:
            self.at(self.now + wanted, self._step, process, None)
