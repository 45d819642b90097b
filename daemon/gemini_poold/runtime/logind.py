"""Hears from logind, over the system's D-Bus, that the machine goes to sleep and that it is awake again.

A nicety, for Linux with the extra `dbus`: the ticker notices a suspend by itself, a little later. Without the library,
a bus or logind nobody tells anything, and nothing is missing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from ..clock import Clock

log = logging.getLogger("gemini_pool.logind")

CALL_S = 10.0  # for the bus to let us in
RETRY_S = 60.0  # a bus that is not there yet, or is being restarted
OnSleep = Callable[[bool], None]


async def watch(on_sleep: OnSleep, clock: Clock) -> None:
    """Call `on_sleep(True)` when the machine is about to sleep, `on_sleep(False)` when it woke up. Until cancelled."""
    try:
        import jeepney  # noqa: F401
    except ImportError:
        await asyncio.Event().wait()
    before = ""
    while True:
        try:
            await _listen(on_sleep)
        except Exception as error:  # noqa: BLE001  (a nicety may not end the daemon, whatever the library raises)
            if (text := f"{type(error).__name__}: {error}") != before:
                log.debug("logind tells nothing: %s", text)
            before = text
        await clock.sleep(RETRY_S)


async def _listen(on_sleep: OnSleep) -> None:
    """Subscribe and pass on, until the bus ends the connection (EOFError)."""
    from jeepney import MatchRule, MessageType, message_bus
    from jeepney.bus import get_bus
    from jeepney.io.asyncio import DBusConnection

    rule = MatchRule(
        type="signal",
        sender="org.freedesktop.login1",
        path="/org/freedesktop/login1",
        interface="org.freedesktop.login1.Manager",
        member="PrepareForSleep",
    )
    reader, writer = await asyncio.open_unix_connection(get_bus("SYSTEM"))
    try:
        async with asyncio.timeout(CALL_S):
            await _authenticate(reader, writer)
        connection = DBusConnection(reader, writer)
        await connection.send(message_bus.Hello())
        await connection.send(message_bus.AddMatch(rule))
        while True:
            message = await connection.receive()
            if message.header.message_type is MessageType.error:
                raise ConnectionError(str(message.body))
            if message.header.message_type is MessageType.signal and (told := _told(message)) is not None:
                on_sleep(told)
    finally:
        writer.close()


async def _authenticate(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    from jeepney.auth import BEGIN, Authenticator

    dialogue = Authenticator()
    for line in dialogue:
        writer.write(line)
        if not (answer := await reader.read(1024)):
            raise EOFError("the bus hung up")
        dialogue.feed(answer)
    writer.write(BEGIN)


def _told(message: Any) -> bool | None:
    """What a signal says; None for another one (the bus greets everybody with NameAcquired)."""
    from jeepney import HeaderFields

    if message.header.fields.get(HeaderFields.member) != "PrepareForSleep":
        return None
    return bool(message.body[0]) if message.body else None
