"""What was asked of the fake: every call with headers, body, instant and connection, for assertions and counting."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Iterator
from fnmatch import fnmatchcase

from .call import Call


class Record:
    """The newest `keep` calls whole, and counters over all of them. `keep` 0 records nothing but the counters."""

    def __init__(self, keep: int = 20_000) -> None:
        self.calls: deque[Call] = deque(maxlen=keep)
        self.totals: Counter[tuple[str, str, int]] = Counter()  # (kind, credential, status)
        self.received = 0
        self.in_flight = 0
        self.peak_in_flight = 0
        self._changed: asyncio.Event | None = None

    def begin(self, call: Call) -> None:
        self.received += 1
        call.number = self.received
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        self.calls.append(call)
        self._wake()

    def end(self, call: Call) -> None:
        call.done = True
        self.in_flight -= 1
        self.totals[call.kind, call.credential, call.status] += 1
        self._wake()

    def find(
        self,
        kind: str = "*",
        *,
        credential: str = "*",
        model: str = "*",
        status: int | None = None,
        backend: str = "*",
    ) -> list[Call]:
        """Recorded calls that match, oldest first; the words are globs. `status` 0 finds the unanswered."""
        return list(self._matching(kind, credential, model, status, backend))

    def count(
        self,
        kind: str = "*",
        *,
        credential: str = "*",
        model: str = "*",
        status: int | None = None,
        backend: str = "*",
    ) -> int:
        return sum(1 for _ in self._matching(kind, credential, model, status, backend))

    def total(self, kind: str = "*", *, credential: str = "*", status: int | None = None) -> int:
        """Finished calls, forgotten ones included."""
        return sum(
            number
            for (what, who, answered), number in self.totals.items()
            if fnmatchcase(what, kind) and fnmatchcase(who, credential) and status in {None, answered}
        )

    def last(self, kind: str = "*") -> Call:
        return self.find(kind)[-1]

    def connections(self) -> set[int]:
        """The client ports seen: how many connections were really made."""
        return {call.connection for call in self.calls}

    def clear(self) -> None:
        """Forget the calls and the counters; what is in flight stays counted."""
        self.calls.clear()
        self.totals.clear()
        self.received = 0
        self.peak_in_flight = self.in_flight

    async def wait_for(
        self, number: int, kind: str = "*", *, credential: str = "*", done: bool = False
    ) -> list[Call]:
        """Return once `number` matching calls have arrived (or, with `done`, have ended)."""
        while True:
            found = [call for call in self.find(kind, credential=credential) if call.done or not done]
            if len(found) >= number:
                return found
            self._changed = self._changed or asyncio.Event()
            await self._changed.wait()

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    def _matching(
        self, kind: str, credential: str, model: str, status: int | None, backend: str
    ) -> Iterator[Call]:
        for call in self.calls:
            if (
                fnmatchcase(call.kind, kind)
                and fnmatchcase(call.credential, credential)
                and fnmatchcase(call.model, model)
                and fnmatchcase(call.backend, backend)
                and status in {None, call.status}
            ):
                yield call
