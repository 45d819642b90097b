"""The requests that clients send themselves with leases: one waiting deadline each, over all of their attempts."""

from __future__ import annotations

import uuid
from collections import OrderedDict

from ..core.model import Request

_MAX_OPEN = 10_000  # requests whose deadline is remembered; a forgotten one begins anew


class OpenRequests:
    """The requests that clients send themselves, by id: how each is tried next, and until when it may wait."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, tuple[Request, float]] = OrderedDict()
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
            self._open.popitem(last=False)

    def end(self, request_id: str) -> None:
        self._open.pop(request_id, None)
