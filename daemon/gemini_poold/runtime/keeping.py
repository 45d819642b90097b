"""Leases of requests that are under way here: renewed before they run out, however long an answer takes.

One timer for all of them, and none while there are none: a stream's every piece and a whole answer that is an hour in
coming cost the same, nothing. Leases that were handed out over RPC are their owners' business.
"""

from __future__ import annotations

import asyncio

from ..clock import Clock
from ..core.model import Lease
from ..errors import PoolError
from .broker import Broker

ROUND_S = 30.0
EARLY_S = 120.0  # so that a round may be missed, and the one after it


class LeaseKeeper:
    """`hold` what is sent with, `let_go` when it ends."""

    def __init__(self, broker: Broker, clock: Clock) -> None:
        self._broker = broker
        self._clock = clock
        self._held: dict[str, Lease] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, lease: Lease) -> None:
        self._held[lease.id] = lease
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(ROUND_S, self._round)

    def let_go(self, lease: Lease) -> None:
        self._held.pop(lease.id, None)

    def _round(self) -> None:
        self._timer = None
        if not self._held:
            return
        self.renew(self._clock.now() + EARLY_S)
        self._timer = asyncio.get_running_loop().call_later(ROUND_S, self._round)

    def renew(self, before: float) -> None:
        """Renew what would run out before this instant (Unix)."""
        for lease in [lease for lease in self._held.values() if lease.expires_at < before]:
            try:
                self._broker.renew(lease.id)
            except PoolError:  # it ran out while the machine slept: its outcome counts as unknown
                self.let_go(lease)
