"""The requests that clients send themselves with leases: one waiting deadline each, over all of their attempts."""

from __future__ import annotations

import asyncio
import uuid
from collections import OrderedDict
from collections.abc import Callable

from ..core.model import Request

_MAX_OPEN = 10_000  # requests whose deadline is remembered; a forgotten one begins anew


class OpenRequests:
    """The requests that clients send themselves, by id: how each is tried next, and until when it may wait."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, tuple[Request, float]] = OrderedDict()
        self._late: dict[str, tuple[asyncio.TimerHandle, Callable[[], None]]] = {}
        self._prefix = uuid.uuid4().hex[:8]
        self._serial = 0

    def new_id(self) -> str:
        self._serial += 1
        return f"{self._prefix}-{self._serial:x}"

    def get(self, request_id: str) -> tuple[Request, float] | None:
        return self._open.get(request_id)

    def put(self, request: Request, deadline: float) -> None:
        self._open[request.id] = (request, deadline)
        if len(self._open) > _MAX_OPEN:
            oldest, _ = self._open.popitem(last=False)
            if oldest in self._late:
                self._lapse(oldest)

    def expect(
        self, request: Request, deadline: float, *, within_s: float, lapse: Callable[[], None]
    ) -> None:
        """Its client was told when to ask again; `lapse` is called when it has not done so in time."""
        self.put(request, deadline)
        self._forget_timer(request.id)
        timer = asyncio.get_running_loop().call_later(max(0.0, within_s), self._lapse, request.id)
        self._late[request.id] = (timer, lapse)

    def back(self, request_id: str) -> tuple[Request, float] | None:
        """The client asks again."""
        self._forget_timer(request_id)
        return self._open.get(request_id)

    def end(self, request_id: str) -> None:
        self._forget_timer(request_id)
        self._open.pop(request_id, None)

    def close(self) -> None:
        """The daemon ends: nobody comes back any more."""
        for timer, _ in self._late.values():
            timer.cancel()
        self._late.clear()

    def _forget_timer(self, request_id: str) -> None:
        if (late := self._late.pop(request_id, None)) is not None:
            late[0].cancel()

    def _lapse(self, request_id: str) -> None:
        timer, lapse = self._late.pop(request_id)
        timer.cancel()
        self._open.pop(request_id, None)
        lapse()
