"""The demo's daemon: the real one, as a process of its own, from its start to its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from types import TracebackType
from typing import Self

from gemini_pool import AsyncPool, PoolError

from .scene import Places

START_S = 20.0
WARM_S = 10.0
STOP_S = 8.0
# What the user's own session says about another daemon, or about how to reach Google.
_FOREIGN = (
    "NOTIFY_SOCKET",
    "LISTEN_",
    "WATCHDOG_",
    "JOURNAL_STREAM",
    "INVOCATION_ID",
    "GEMINI_POOL_",
    "CREDENTIALS_",
)


class DaemonProcess:
    """`async with DaemonProcess(places) as daemon:` starts it; leaving the block ends it, whatever happened."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        with self._places.log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "gemini_poold", "run",
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
                env=self._environment(), start_new_session=True,  # Ctrl-C is for the demo; it ends the daemon itself
            )  # fmt: skip
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
            try:
                async with asyncio.timeout(STOP_S):
                    await process.wait()
            except (TimeoutError, asyncio.CancelledError):
                process.kill()
                await process.wait()

    async def wait_ready(self, pool: AsyncPool) -> float:
        """Seconds until it answered. Then wait a while for every account to be usable. PoolError: it never came."""
        begun = time.monotonic()
        while True:
            try:
                await pool.initialize()
                break
            except PoolError:
                if self._ended() or time.monotonic() - begun > START_S:
                    raise
                await asyncio.sleep(0.05)
        answered_s = time.monotonic() - begun
        while time.monotonic() - begun < answered_s + WARM_S:
            if all(account.available for account in (await pool.status()).accounts):
                break
            await asyncio.sleep(0.05)
        return answered_s

    async def wait_end(self) -> None:
        """Until it ends by itself."""
        if self._process is not None:
            await self._process.wait()

    def last_words(self, lines: int = 15) -> str:
        """The end of its log."""
        return "\n".join(self._places.log.read_text(errors="replace").splitlines()[-lines:])

    def _ended(self) -> bool:
        return self._process is None or self._process.returncode is not None

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        return {**kept, **self._places.environment(), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
