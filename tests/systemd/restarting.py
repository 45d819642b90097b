"""`systemctl --user restart` again and again under a steady load: is any request lost?

Plain and streaming: the Python client on the RPC socket, coroutines and threads; google-genai on the gateway's port,
coroutines and threads, with their pools of kept-alive connections; a bare HTTP client on the gateway's Unix socket;
requests that wait in the queue, because the one account that they name rests for three seconds now and then; and leases
that are held for up to six seconds.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp
import inside
from google import genai
from google.genai import types
from inside import GATEWAY_SOCK, MODEL, SERVICE, SOCKET, Google

from gemini_pool import AsyncPool, Pool, service_files
from gemini_poold.fake import Fault, Match
from gemini_poold.fake.throttle import overloaded

PORT = 28791
RATE = float(os.environ.get("GEMINI_POOL_TEST_RATE", "50"))  # requests a second
RESTARTS = int(os.environ.get("GEMINI_POOL_TEST_RESTARTS", "10"))
LONG_S = 9.0
BUSY, BUSY_MODEL = (
    "busy",
    "gemini-2.5-flash",
)  # an account that rests now and then, and a model that nobody else is asked for
STORE = os.environ.get("GEMINI_POOL_TEST_STORE", "1") == "1"  # whether systemd holds open connections
PAUSE_S = 1.0  # between a restart and the next
LAST_S = 90.0
THREADS = 64


def _set_up(google: Google) -> None:
    inside.write_accounts(
        inside.key_account(google, BUSY) + f'models = ["{BUSY_MODEL}"]\n',
        *[inside.key_account(google, f"key-{number}") + "lend = true\n" for number in range(16)],
    )
    inside.write_config(google)
    config = inside.CONFIG / "config.toml"
    text = config.read_text().replace("127.0.0.1:0", f"127.0.0.1:{PORT}").replace('"debug"', '"info"')
    config.write_text(text)
    inside.install()
    unit = service_files.template(service_files.PORT).replace("127.0.0.1:8790", f"127.0.0.1:{PORT}")
    (inside.USER_UNITS / service_files.PORT).write_text(unit)
    drop_in = inside.USER_UNITS / service_files.PORT_CONF
    drop_in.parent.mkdir(exist_ok=True)
    drop_in.write_text(service_files.template("gateway.conf"))
    store = "" if STORE else "[Service]\nFileDescriptorStoreMax=0\nEnvironment=FDSTORE=0\n"
    (drop_in.parent / "often.conf").write_text(f"[Unit]\nStartLimitBurst=1000\n{store}")
    inside.systemctl("daemon-reload")
    inside.systemctl("start", SOCKET, service_files.PORT, SERVICE)
    faults = google.fake.faults
    rest = Fault.status(503, body=overloaded(), headers={"Retry-After": "3"})
    faults.add(rest, when=Match(credential=BUSY, every=40), times=None)
    faults.add(Fault.stall(after=1, seconds=LONG_S), when=Match(kind="stream", every=120), times=None)
    faults.add(Fault.stall(after=1, seconds=1.5), when=Match(kind="stream", every=7), times=None)


class Load:
    """Requests at their instants, whether earlier ones have been answered or not; what became of each kind."""

    def __init__(self, kinds: dict[str, Callable[[int], Awaitable[bool]]]) -> None:
        self._kinds = kinds
        self.done: Counter[str] = Counter()
        self.lost: list[str] = []
        self.took_s: list[float] = []
        self._began = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        self._began = began = time.monotonic()
        async with asyncio.timeout(1200), asyncio.TaskGroup() as group:
            for number, kind in zip(itertools.count(), itertools.cycle(self._kinds), strict=False):
                if stop.is_set():
                    break
                await asyncio.sleep(max(0.0, began + number / RATE - time.monotonic()))
                group.create_task(self._one(kind, number))

    async def _one(self, kind: str, number: int) -> None:
        began = time.monotonic()
        try:
            async with asyncio.timeout(LAST_S):
                if not await self._kinds[kind](number):
                    raise AssertionError("an incomplete answer")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a request lost
            when, after_s = began - self._began, time.monotonic() - began
            text = f"{when:.1f} s: {kind}, after {after_s:.2f} s: {type(error).__name__}: {error}"
            self.lost.append(text[:300])
        else:
            self.done[kind] += 1
        self.took_s.append(time.monotonic() - began)


class Callers:
    """Every kind of request, `(number) -> whether the answer was whole`."""

    def __init__(self, key: str) -> None:
        base = f"http://127.0.0.1:{PORT}"
        self.sdk = genai.Client(api_key=key, http_options=types.HttpOptions(base_url=base))
        self.threaded_sdk = genai.Client(api_key=key, http_options=types.HttpOptions(base_url=base))
        self.pool, self.threaded = AsyncPool(name="coroutines"), Pool(name="threads")
        self.threads = ThreadPoolExecutor(THREADS)
        connector = aiohttp.UnixConnector(str(GATEWAY_SOCK), limit=0)
        self.http = aiohttp.ClientSession(connector=connector)

    async def aclose(self) -> None:
        await self.pool.aclose()
        await self.http.close()
        self.threaded.close()
        self.threads.shutdown()

    def kinds(self) -> dict[str, Callable[[int], Awaitable[bool]]]:
        return {
            "client plain": self.client_plain,
            "sdk plain": self.sdk_plain,
            "client stream": self.client_stream,
            "sdk stream": self.sdk_stream,
            "threads plain": lambda n: self._threaded(self.threads_plain, n),
            "sdk threads plain": lambda n: self._threaded(self.sdk_threads_plain, n),
            "threads stream": lambda n: self._threaded(self.threads_stream, n),
            "sdk threads stream": lambda n: self._threaded(self.sdk_threads_stream, n),
            "unix plain": self.unix_plain,
            "unix stream": self.unix_stream,
            "client waits": self.client_waits,
            "unix waits": self.unix_waits,
            "leases": self.leased,
        }

    async def _threaded(self, function: Callable[[int], bool], number: int) -> bool:
        return await asyncio.get_running_loop().run_in_executor(self.threads, function, number)

    async def client_plain(self, number: int) -> bool:
        return bool((await self.pool.generate(MODEL, f"question {number}"))["candidates"])

    async def client_stream(self, number: int) -> bool:
        async with self.pool.stream(MODEL, f"question {number}") as stream:
            chunks = [chunk async for chunk in stream]
            return bool(chunks) and stream.result is not None and stream.result.finish_reason == "STOP"

    async def client_waits(self, number: int) -> bool:
        answer = await self.pool.generate(BUSY_MODEL, f"question {number}", account=BUSY, wait_s=60)
        return bool(answer["candidates"])

    async def unix_waits(self, number: int) -> bool:
        named = {"x-gemini-pool-account": BUSY, "x-gemini-pool-wait-s": "60"}
        return b"candidates" in await self._post("generateContent", number, BUSY_MODEL, named)

    async def leased(self, number: int) -> bool:
        """A lease that is held for a while, over a restart now and then, and reported by its holder."""
        lease = await self.pool.acquire(MODEL)
        await asyncio.sleep(number % 7)
        return (await self.pool.report(lease, status=200)).next == "done"

    def threads_plain(self, number: int) -> bool:
        return bool(self.threaded.generate(MODEL, f"question {number}")["candidates"])

    def threads_stream(self, number: int) -> bool:
        with self.threaded.stream(MODEL, f"question {number}") as stream:
            chunks = list(stream)
            return bool(chunks) and stream.result is not None and stream.result.finish_reason == "STOP"

    async def sdk_plain(self, number: int) -> bool:
        answer = await self.sdk.aio.models.generate_content(model=MODEL, contents=f"question {number}")
        return bool(answer.text)

    async def sdk_stream(self, number: int) -> bool:
        last = None
        asked = f"question {number}"
        async for chunk in await self.sdk.aio.models.generate_content_stream(model=MODEL, contents=asked):
            last = chunk
        return bool(last and last.candidates and last.candidates[0].finish_reason)

    def sdk_threads_plain(self, number: int) -> bool:
        answer = self.threaded_sdk.models.generate_content(model=MODEL, contents=f"question {number}")
        return bool(answer.text)

    def sdk_threads_stream(self, number: int) -> bool:
        *_, last = self.threaded_sdk.models.generate_content_stream(
            model=MODEL, contents=f"question {number}"
        )
        return bool(last.candidates and last.candidates[0].finish_reason)

    async def unix_plain(self, number: int) -> bool:
        return b"candidates" in await self._post("generateContent", number)

    async def unix_stream(self, number: int) -> bool:
        body = await self._post("streamGenerateContent?alt=sse", number)
        return b'"STOP"' in body

    async def _post(
        self, method: str, number: int, model: str = MODEL, headers: dict[str, str] | None = None
    ) -> bytes:
        body = {"contents": [{"role": "user", "parts": [{"text": f"question {number}"}]}]}
        url = f"http://localhost/v1beta/models/{model}:{method}"
        async with self.http.post(url, json=body, headers=headers) as answer:
            found = await answer.read()
            assert answer.status == 200, found
            return found


async def _loaded() -> dict[str, Any]:
    callers = Callers((inside.STATE / "gateway.key").read_text().strip())
    load, stop, restarts = Load(callers.kinds()), asyncio.Event(), []
    async with asyncio.TaskGroup() as group:
        group.create_task(load.run(stop))
        await asyncio.sleep(2.0)
        for _ in range(RESTARTS):
            began = time.monotonic()
            process = await asyncio.create_subprocess_exec("systemctl", "--user", "restart", SERVICE)
            restarts.append([await process.wait(), round(time.monotonic() - began, 1)])
            await asyncio.sleep(PAUSE_S)
        stop.set()
    await callers.aclose()
    took = sorted(load.took_s)
    return {
        "done": dict(load.done),
        "total": len(took),
        "lost": [text[:160] for text in load.lost[:40]],
        "lost_count": len(load.lost),
        "restarts": restarts,
        "took_s": {name: round(took[int(len(took) * part)], 2) for name, part in PARTS.items()},
    }


PARTS = {"median": 0.5, "p90": 0.9, "p99": 0.99, "slowest": 1.0 - 1e-9}


def under_load(google: Google) -> dict[str, Any]:
    _set_up(google)
    found = asyncio.run(_loaded())
    found["unit"] = inside.show(SERVICE, "ActiveState", "Result", "NRestarts")
    texts = [str(entry.get("MESSAGE", "")) for entry in inside.journal()]
    waits = [
        int(entry["GEMINI_POOL_WAIT_MS"])
        for entry in inside.journal()
        if str(entry.get("GEMINI_POOL_WAIT_MS", "")).isdigit()
    ]
    found["waited"] = sum(wait > 500 for wait in waits)
    found["kept"] = [text for text in texts if "kept over the restart" in text]
    return found


if __name__ == "__main__":
    inside.run({"under_load": under_load})
