"""Notices that this machine's network changed (Linux: the kernel tells over netlink), so that what waits out a failure is
tried at once when the Wi-Fi is back. Elsewhere nobody tells, and the ordinary back-off (at most a minute) does it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable

from ..clock import Clock

log = logging.getLogger("gemini_pool.network")

# linux/rtnetlink.h: groups of links, addresses and routes of both families.
_LINK, _IPV4_ADDRESS, _IPV4_ROUTE, _IPV6_ADDRESS, _IPV6_ROUTE = 0x1, 0x10, 0x40, 0x100, 0x400
GROUPS = _LINK | _IPV4_ADDRESS | _IPV4_ROUTE | _IPV6_ADDRESS | _IPV6_ROUTE
SETTLE_S = 0.5  # addresses and routes come one after the other
GAP_S = 1.0  # containers coming and going tell a lot


def open_netlink() -> socket.socket | None:
    """A socket that becomes readable whenever the network changes; None where there is no such thing."""
    if not hasattr(socket, "AF_NETLINK"):
        return None
    try:
        found = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0
        )
    except OSError:  # forbidden by a sandbox
        return None
    try:
        found.bind((0, GROUPS))
    except OSError:
        found.close()
        return None
    return found


async def watch(on_change: Callable[[], None], clock: Clock, *, source: socket.socket | None = None) -> None:
    """Call `on_change` after each change of the network, at most every `GAP_S`. Until cancelled; takes `source` over."""
    source = source or open_netlink()
    if source is None:
        await asyncio.Event().wait()
        return
    changed, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_reader(source, _drain, source, changed)
    try:
        while True:
            await changed.wait()
            await clock.sleep(SETTLE_S)
            changed.clear()
            log.debug("the network changed")
            on_change()
            await clock.sleep(GAP_S)
    finally:
        loop.remove_reader(source)
        source.close()


def _drain(source: socket.socket, changed: asyncio.Event) -> None:
    """What exactly changed does not matter. A buffer that ran over (ENOBUFS) is a change, too."""
    changed.set()
    try:
        while os.read(source.fileno(), 65536):
            pass
    except OSError:
        pass
