"""A D-Bus of one's own, no more of it than a client needs to subscribe; and what logind would say over it.

async with Bus(path) as bus:          # the client finds it by DBUS_SYSTEM_BUS_ADDRESS=unix:path=PATH
    await bus.subscribed.wait()
    bus.prepare_for_sleep(True)
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Any

from jeepney import DBusAddress, HeaderFields, Parser, new_method_return, new_signal

MANAGER = DBusAddress("/org/freedesktop/login1", "org.freedesktop.login1", "org.freedesktop.login1.Manager")
BUS = DBusAddress("/org/freedesktop/DBus", "org.freedesktop.DBus", "org.freedesktop.DBus")


class Bus:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._writers: list[asyncio.StreamWriter] = []
        self._serving: list[Any] = []
        self._serial = 100
        self.rules: list[str] = []
        self.subscribed = asyncio.Event()

    async def __aenter__(self) -> Bus:
        self._server = await asyncio.start_unix_server(self._serve, str(self._path))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.hang_up()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def hang_up(self) -> None:
        """As a bus does that is restarted."""
        for writer in self._writers:
            writer.close()
        self._writers.clear()
        self.subscribed.clear()

    def prepare_for_sleep(self, about_to: bool, member: str = "PrepareForSleep") -> None:
        for writer in self._writers:
            self._send(writer, new_signal(MANAGER, member, "b", (about_to,)))

    def _send(self, writer: asyncio.StreamWriter, message: Any) -> None:
        self._serial += 1
        message.header.fields[HeaderFields.sender] = ":1.0"
        writer.write(message.serialise(self._serial))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        self._serving.append(asyncio.current_task())
        while (line := await reader.readline()) not in (b"", b"BEGIN\r\n"):
            if b"AUTH" in line:
                writer.write(b"OK 0123456789abcdef\r\n")
        parser = Parser()
        while block := await reader.read(4096):
            parser.add_data(block)
            while (call := parser.get_next_message()) is not None:
                member = call.header.fields[HeaderFields.member]
                if member == "Hello":
                    self._send(writer, new_method_return(call, "s", (":1.7",)))
                    self._send(writer, new_signal(BUS, "NameAcquired", "s", (":1.7",)))
                elif member == "AddMatch":
                    self.rules.append(call.body[0])
                    self._send(writer, new_method_return(call))
                    self.subscribed.set()
        writer.close()
