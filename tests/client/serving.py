"""The real RPC server on a thread of its own, for clients that block."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.ipc.harness import Rpc


class Serving:
    """A running server. `on_loop` runs a function (or coroutine function) where the server lives."""

    def __init__(self, rpc: Rpc, loop: asyncio.AbstractEventLoop) -> None:
        self.rpc = rpc
        self.path = rpc.path
        self._loop = loop

    def on_loop(self, work: Callable[..., Any], *args: Any) -> Any:
        async def run() -> Any:
            result = work(*args)
            return await result if asyncio.iscoroutine(result) else result

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(30)

    def leases(self) -> int:
        return self.on_loop(lambda: len(self.rpc.pool.leases))


@contextlib.contextmanager
def serving(folder: Path, *accounts: Any, **options: Any) -> Iterator[Serving]:
    """A server in `folder`, stopped at the end."""
    started: list[Serving] = []
    failed: list[BaseException] = []
    ready, done = threading.Event(), threading.Event()
    holder: dict[str, Any] = {}

    async def main() -> None:
        stop = holder["stop"] = asyncio.Event()
        async with Rpc(folder, *accounts, **options) as rpc:
            holder["loop"] = asyncio.get_running_loop()
            started.append(Serving(rpc, holder["loop"]))
            ready.set()
            await stop.wait()

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            failed.append(error)
        finally:
            ready.set()
            done.set()

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(30)
    try:
        if not started:
            raise failed[0]
        yield started[0]
    finally:
        if "loop" in holder and not done.is_set():
            holder["loop"].call_soon_threadsafe(holder["stop"].set)
        thread.join(30)
    if failed:
        raise failed[0]
