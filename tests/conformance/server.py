"""A daemon that knows one transcript by heart, for testing clients of any language.

    python -m tests.conformance.server TRANSCRIPT SOCKET

It prints `ready` when it listens, plays the daemon's side, and then answers nothing but `initialize`. At the end of
its standard input it exits: 0 when the whole transcript was played, 1 (and what went wrong) when not.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[2] / "client" / "python"))

from tests.conformance.script import FOLDER, Script, is_message

from gemini_pool.framing import Decoder, encode

_TO_ALL = "daemon/draining"


class FakeDaemon:
    """`async with FakeDaemon(script, socket) as fake:` … then `fake.check()`."""

    def __init__(self, script: Script, socket: Path) -> None:
        self.script = script
        self.socket = socket
        self.wrong: list[str] = []
        self._at = 0
        self._taken: set[int] = set()  # steps of the client's that came before others of their group
        self._writers: dict[asyncio.StreamWriter, Decoder] = {}
        self._asked: dict[str, asyncio.StreamWriter] = {}  # by id, token or method: where the answer belongs
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> FakeDaemon:
        self._at = 0
        await self._listen()
        await self._play()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._close()

    def check(self) -> None:
        """Raise AssertionError unless everything was said that should be, and nothing else."""
        left = len(self.script.wire) - self._at
        if left:
            self.wrong.append(f"{left} steps were not played, the next is {self.script.wire[self._at]}")
        assert not self.wrong, f"{self.script.name}: " + "; ".join(self.wrong)

    # ---- the transcript --------------------------------------------------------------------------------------

    async def _play(self) -> None:
        """Do all that is the daemon's until it is the client's turn."""
        wire = self.script.wire
        while self._at < len(wire) and "client" not in wire[self._at]:
            step = wire[self._at]
            self._at += 1
            if "server" in step:
                await self._say(self.script.fill(step["server"]), step["server"])
            elif step.get("stage") == "drain":
                self._close_door()
            elif step.get("stage") == "restart":
                await self._close()
                await self._listen()
            elif step.get("stage") == "absent":
                await self._close()

    def _expected(self) -> list[int]:
        """The client's steps that may come now: one group, in any order."""
        found, at = [], self._at
        while at < len(self.script.wire) and "client" in self.script.wire[at]:
            if at not in self._taken:
                found.append(at)
            at += 1
        return found

    async def _hear(self, message: Any, writer: asyncio.StreamWriter) -> None:
        for at in self._expected():
            pattern = self.script.wire[at]["client"]
            if is_message(pattern, message) and self.script.fits(pattern, message):
                self._taken.add(at)
                self._remember(pattern, message, writer)
                break
        else:
            await self._hear_other(message, writer)
            return
        while self._at in self._taken:
            self._at += 1
        await self._play()

    async def _hear_other(self, message: Any, writer: asyncio.StreamWriter) -> None:
        if isinstance(message, dict) and message.get("method") == "initialize":
            hello = self.script.initialize
            answer = hello if "error" in hello else {"result": hello}
            await _write(writer, {"jsonrpc": "2.0", "id": message.get("id"), **answer}, self._writers[writer])
            return
        expected = [self.script.wire[at]["client"] for at in self._expected()]
        self.wrong.append(
            f"the client said {json.dumps(message)}, expected was one of {json.dumps(expected)}"
        )

    def _remember(self, pattern: Any, message: Any, writer: asyncio.StreamWriter) -> None:
        if isinstance(name := pattern.get("id"), str):
            self._asked[name] = writer
        params = message.get("params") or {}
        if (token := params.get("token")) is not None:
            self._asked[f"token {token}"] = writer
        self._asked[str(message.get("method"))] = writer

    async def _say(self, message: dict[str, Any], pattern: dict[str, Any]) -> None:
        if message.get("method") == _TO_ALL:
            writers = list(self._writers)
        elif message.get("method") == "pool/event":
            writers = [self._asked["pool/subscribe"]]
        elif message.get("method") == "$/progress":
            writers = [self._asked.get(f"token {message['params']['token']}") or [*self._writers][-1]]
        else:
            writers = [self._asked.get(pattern.get("id", ""), [*self._writers][-1])]
        for writer in writers:
            with contextlib.suppress(KeyError, ConnectionError):
                await _write(writer, message, self._writers[writer])

    # ---- the socket ------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        self.socket.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._connected, str(self.socket))

    def _close_door(self) -> None:
        """Take no new connection; those that are there stay."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.socket.unlink(missing_ok=True)

    async def _close(self) -> None:
        self._close_door()
        for writer in list(self._writers):
            writer.close()
        self._writers.clear()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        decoder = self._writers[writer] = Decoder()
        try:
            while (data := await reader.read(2**16)) and writer in self._writers:
                for frame in decoder.feed(data):
                    await self._hear(json.loads(frame), writer)
        except ConnectionError:
            pass
        except Exception as error:
            self.wrong.append(f"{type(error).__name__}: {error}")
        finally:
            self._writers.pop(writer, None)
            writer.close()


async def _write(writer: asyncio.StreamWriter, message: Any, decoder: Decoder) -> None:
    """One message, torn in the middle of its header and of its text: a client must put it together."""
    data = encode(json.dumps(message, ensure_ascii=False).encode(), decoder.framing)
    for piece in (data[:9], data[9 : len(data) // 2], data[len(data) // 2 :]):
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0)


async def main(transcript: str, socket: str) -> int:
    path = Path(transcript)
    script = Script.load(path if path.exists() else FOLDER / f"{transcript}.json")
    async with FakeDaemon(script, Path(socket)) as fake:
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        try:
            fake.check()
        except AssertionError as error:
            print(error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
