"""What a subscriber is told of the pool's events: its kinds only, and each notice at most once in half a minute."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..core.model import PoolEvent

QUIET_S = 30.0  # notices of one kind, account and model come at most that often

Key = tuple[str, str, str]


class Notices:
    """One subscription. `deliver(event, dropped)` says whether the event went out.

    Within the quiet time only the newest notice is kept, and delivered at its end: a subscriber may be told late, but
    never left with a state that is past.
    """

    def __init__(self, kinds: frozenset[str], deliver: Callable[[PoolEvent, int], bool]) -> None:
        self.kinds = kinds
        self._deliver = deliver
        self._held: dict[Key, PoolEvent | None] = {}
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._dropped = 0

    def offer(self, event: PoolEvent) -> None:
        if event.kind not in self.kinds:
            return
        key = (event.kind, event.account_id, event.model)
        if key in self._held:
            self._held[key] = event
        else:
            self._send(key, event)

    def close(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._held.clear()

    def _send(self, key: Key, event: PoolEvent) -> None:
        if self._deliver(event, self._dropped):
            self._dropped = 0
        else:
            self._dropped += 1
        self._held[key] = None
        self._timers[key] = asyncio.get_running_loop().call_later(QUIET_S, self._quiet_over, key)

    def _quiet_over(self, key: Key) -> None:
        del self._timers[key]
        if (event := self._held.pop(key)) is not None:
            self._send(key, event)
