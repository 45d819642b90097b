"""When cyclic garbage is looked for: little of it at a time, and all of it while nobody waits.

Requests leave next to none, and what a look costs everybody waits for: ten milliseconds for twenty thousand objects,
which is what 150 open streams are made of.
"""

from __future__ import annotations

import gc
from collections.abc import Callable

from .clock import Clock

YOUNG = 2_000  # new objects that a look is worth: a millisecond
SELDOM = 1_000  # such looks before what outlived them is looked at again by itself
EVERY_S = 600.0
LONGEST_S = 6 * 3600.0  # however busy
ROUND_S = 30.0


def begin() -> None:
    """What start-up made is looked at no more. For when start-up is over."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, SELDOM, SELDOM)


async def run(clock: Clock, busy: Callable[[], bool]) -> None:
    """Look at everything now and then, when nobody would have to wait for it."""
    last_at = clock.monotonic()
    while True:
        await clock.sleep(ROUND_S)
        since_s = clock.monotonic() - last_at
        if since_s >= LONGEST_S or (since_s >= EVERY_S and not busy()):
            gc.collect()
            last_at = clock.monotonic()
