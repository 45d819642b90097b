"""Answers with several candidates: a stream of them is finished when each is, and they finish one by one.

Only requests that ask for more than one pay for this; for all others the first finish marker is the only one.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from ..errors import UNREADABLE

# A quote inside a JSON string is escaped: these bytes can only be a key.
_ASKED = re.compile(rb'"candidate(?:Count|_count)"\s*:')


class _Asking(msgspec.Struct):
    generationConfig: Any = None  # noqa: N815 - Google's names
    generation_config: Any = None
    request: Any = None


class _Candidate(msgspec.Struct):
    index: int = 0
    finishReason: str | None = None  # noqa: N815


class _Answer(msgspec.Struct):
    candidates: list[_Candidate] | None = None


class _Event(msgspec.Struct):
    candidates: list[_Candidate] | None = None
    response: _Answer | None = None


_asking = msgspec.json.Decoder(_Asking)
_event = msgspec.json.Decoder(_Event, strict=False)


def asked(body: bytes) -> int:
    """How many candidates a body of any surface asks for; 1 when it does not say, or cannot be read."""
    if _ASKED.search(body) is None:
        return 1
    try:
        asking = _asking.decode(body)
    except UNREADABLE:
        return 1  # Google's to refuse
    inner = asking.request if isinstance(asking.request, dict) else {}
    for config in (
        asking.generationConfig,
        asking.generation_config,
        inner.get("generationConfig"),
        inner.get("generation_config"),
    ):
        if isinstance(config, dict):
            count = config.get("candidateCount", config.get("candidate_count", 1))
            return count if isinstance(count, int) and count > 1 else 1
    return 1


class Candidates:
    """Which candidates of a stream were seen, and which of them are finished."""

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted
        self._seen: set[int] = set()
        self._finished: set[int] = set()

    def take(self, payload: bytes) -> None:
        """One event of a stream, as the backend sent it."""
        try:
            event = _event.decode(payload)
        except UNREADABLE:
            return
        found = event.candidates or (event.response.candidates if event.response else None) or ()
        for candidate in found:
            self._seen.add(candidate.index)
            if candidate.finishReason and candidate.finishReason != "FINISH_REASON_UNSPECIFIED":
                self._finished.add(candidate.index)

    def whole(self, *, ended: bool) -> bool:
        """Whether nothing is missing. `ended`: properly; then Google may have left some of the wanted out."""
        return self._seen <= self._finished and (ended or len(self._finished) >= self._wanted)
