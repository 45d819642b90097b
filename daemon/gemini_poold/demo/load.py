"""The two clients of the demo: an editor on the RPC socket and a script on the HTTP gateway, both checking every answer."""

from __future__ import annotations

import asyncio
import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self

import aiohttp
import msgspec

from gemini_pool import AsyncPool, PoolError

from .scene import MODEL

WORKERS = 3
REST_S = 0.15  # between the requests of one worker
REQUEST_S = 60.0  # a request that takes longer counts as failed


class WrongAnswer(Exception):
    """What came is not what was asked for."""


class Load(ABC):
    """A client that sends plain and streaming requests in turn and counts what came of them."""

    name = ""

    def __init__(self) -> None:
        self.sent = self.answered = self.failed = self.streams = 0
        self.in_flight = 0
        self.slowest_s = 0.0
        self.failures: list[str] = []  # the first few, in words

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    async def run(self, until: float) -> None:
        """Send until the monotonic clock shows `until`; requests under way are finished."""
        numbers = itertools.count(1)
        async with asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(self._work(numbers, until))

    async def _work(self, numbers: Iterable[int], until: float) -> None:
        for number in numbers:
            if time.monotonic() >= until:
                return
            await self._one(f"greeting {number} of the {self.name}", stream=number % 2 == 0)
            await asyncio.sleep(REST_S)

    async def _one(self, prompt: str, *, stream: bool) -> None:
        self.sent += 1
        self.in_flight += 1
        begun = time.monotonic()
        try:
            async with asyncio.timeout(REQUEST_S):
                await (self._stream(prompt) if stream else self._plain(prompt))
        except (PoolError, WrongAnswer, aiohttp.ClientError, TimeoutError, msgspec.DecodeError) as error:
            self.failed += 1
            self.failures.append(f"{self.name}, {prompt}: {type(error).__name__} {error}")
        else:
            self.answered += 1
            self.streams += stream
        finally:
            self.in_flight -= 1
            self.slowest_s = max(self.slowest_s, time.monotonic() - begun)

    async def _plain(self, prompt: str) -> None:
        check(prompt, [await self.ask(prompt)])

    async def _stream(self, prompt: str) -> None:
        async with aclosing(self.ask_stream(prompt)) as chunks:
            check(prompt, [chunk async for chunk in chunks])

    @abstractmethod
    async def ask(self, prompt: str) -> Any:
        """One answer, decoded."""

    @abstractmethod
    def ask_stream(self, prompt: str) -> AsyncGenerator[Any, None]:
        """The chunks of one answer, decoded."""


class Editor(Load):
    """Speaks to the daemon's socket with the Python client."""

    name = "editor"

    def __init__(self, socket: Any) -> None:
        super().__init__()
        self._pool = AsyncPool(socket, name="demo-editor")

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pool.aclose()

    async def ask(self, prompt: str) -> Any:
        return await self._pool.generate(MODEL, prompt)

    async def ask_stream(self, prompt: str) -> AsyncGenerator[Any, None]:
        async with self._pool.stream(MODEL, prompt) as stream:
            async for chunk in stream:
                yield chunk


class Script(Load):
    """Speaks the Gemini API to the gateway, as any SDK would."""

    name = "script"

    def __init__(self, url: str, key: str) -> None:
        super().__init__()
        self._models = f"{url}/v1beta/models/{MODEL}"
        self._headers = {"x-goog-api-key": key, "User-Agent": "demo-script/1"}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(headers=self._headers)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def ask(self, prompt: str) -> Any:
        async with self._post("generateContent", prompt) as response:
            await _fine(response)
            return msgspec.json.decode(await response.read())

    async def ask_stream(self, prompt: str) -> AsyncGenerator[Any, None]:
        async with self._post("streamGenerateContent?alt=sse", prompt) as response:
            await _fine(response)
            async for line in response.content:
                if line.startswith(b"data: "):
                    yield msgspec.json.decode(line[6:])

    def _post(self, method: str, prompt: str) -> Any:
        assert self._session is not None
        body = {"contents": [{"role": "user", "parts": [{"text": prompt}]}]}
        return self._session.post(f"{self._models}:{method}", json=body)


def check(prompt: str, chunks: list[Any]) -> None:
    """An answer is good when it is whole: it repeats the prompt to its end and says that it is finished."""
    candidates = [candidate for chunk in chunks for candidate in chunk.get("candidates", ())]
    parts = [part for candidate in candidates for part in candidate.get("content", {}).get("parts", ())]
    text = "".join(part.get("text", "") for part in parts)
    if not text.endswith(f"you said: {prompt}"):
        raise WrongAnswer(f"the text is {text!r}")
    if not candidates[-1].get("finishReason"):
        raise WrongAnswer("the answer has no end")


async def _fine(response: aiohttp.ClientResponse) -> None:
    if response.status != 200:
        raise WrongAnswer(f"{response.status} {(await response.text())[:300]}")
