"""Generated answers on their way out: whole, as SSE, or as a JSON array, with the twists that faults put on them.

`Generation.steps` yields what the server does next: bytes to write, a `Pause`, or a `Break`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from .envelope import Json, dumps

SSE, ARRAY, WHOLE = "sse", "array", "whole"


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing for `seconds`; None means until the client leaves."""

    seconds: float | None


@dataclass(frozen=True, slots=True)
class Break:
    """End the connection: `rst` at once, `fin` without the last HTTP chunk, `torn` RST inside an HTTP chunk, `clean`."""

    how: str


@dataclass(frozen=True, slots=True)
class Twist:
    """What a fault changes in an otherwise good answer. Positions count events that went out before.

    `split`: bytes per write (0 = a write per event, -1 = cut inside a multi-byte character, -2 = cut inside lines).
    `dress` of the error: `data` (an SSE event), `bare` (JSON without prefix), `array` (bare, in an array).
    """

    eol: str = "\r\n"
    multi_line: bool = False
    split: int = 0
    gap_s: float = 0.0  # between the writes of one split event
    comments: bool = False  # comment lines and blank lines between events
    error: Json | None = None
    error_at: int = 0
    dress: str = "data"
    break_at: int | None = None
    how: str = "rst"
    pause_at: int | None = None
    pause_s: float | None = None
    finish: str | None = None  # "" leaves finishReason out
    blocked: str = ""  # promptFeedback only
    pace_s: float | None = None


PLAIN = Twist()


@dataclass(slots=True)
class Generation:
    """An answer in inner (Gemini) form: one event when whole, several when streamed; `wrap` dresses each for Code Assist."""

    events: list[Json]
    mode: str
    wrap: Callable[[Json], Json] | None = None
    pace_s: float = 0.0
    think_s: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)

    def twisted(self, twist: Twist) -> Generation:
        """Apply what changes the content (finish, blocked); the rest is done while writing."""
        if twist.blocked:
            last = self.events[-1]
            usage = {"promptTokenCount": last["usageMetadata"]["promptTokenCount"]}
            usage["totalTokenCount"] = usage["promptTokenCount"]
            kept = {
                "usageMetadata": usage,
                "modelVersion": last["modelVersion"],
                "responseId": last["responseId"],
            }
            self.events = [{"promptFeedback": {"blockReason": twist.blocked}, **kept}]
        elif twist.finish is not None:
            self._finish(twist.finish)
        return self

    def body(self) -> bytes:
        """The whole answer."""
        return self._payload(self.events[0])

    def steps(self, twist: Twist) -> Iterator[bytes | Pause | Break]:
        pace_s = self.pace_s if twist.pace_s is None else twist.pace_s
        total = len(self.events)
        for index in range(total + 1):
            if twist.pause_at == index:
                yield Pause(twist.pause_s)
            if twist.error is not None and twist.error_at == index:
                yield from self._error(twist, index)
                return
            if twist.break_at == index:
                yield Break(twist.how)
                return
            if index == total:
                break
            if pace_s and index:
                yield Pause(pace_s)
            yield from self._event(self.events[index], twist, index)
        if self.mode == ARRAY:
            yield b"\n]\n"

    def _event(self, event: Json, twist: Twist, index: int) -> Iterator[bytes | Pause]:
        payload = self._payload(event)
        if self.mode == ARRAY:
            block = (b",\r\n" if index else b"[") + payload
        elif twist is PLAIN:
            yield b"data: " + payload + b"\r\n\r\n"
            return
        else:
            block = _sse(payload, twist)
        yield from _pieces(block, twist)

    def _error(self, twist: Twist, index: int) -> Iterator[bytes | Pause]:
        raw = dumps(twist.error)
        if self.mode == ARRAY:
            yield (b",\r\n" if index else b"[") + raw + b"\n]\n"
        elif twist.dress == "data":
            yield from _pieces(_sse(raw, twist), twist)
        else:
            yield (b"[" + raw + b"]") if twist.dress == "array" else raw

    def _payload(self, event: Json) -> bytes:
        return dumps(self.wrap(event) if self.wrap else event)

    def _finish(self, reason: str) -> None:
        candidate: dict[str, Any] = self.events[-1]["candidates"][0]
        candidate.pop("finishReason", None)
        if reason:
            candidate["finishReason"] = reason
            if reason in {"SAFETY", "RECITATION", "PROHIBITED_CONTENT", "BLOCKLIST", "SPII", "LANGUAGE"}:
                candidate.pop("content", None)


def _sse(payload: bytes, twist: Twist) -> bytes:
    eol = twist.eol.encode()
    lines = msgspec.json.format(payload, indent=1).split(b"\n") if twist.multi_line else [payload]
    block = b"".join(b"data: " + line + eol for line in lines) + eol
    return b": keep-alive" + eol + eol + eol + block if twist.comments else block


def _pieces(block: bytes, twist: Twist) -> Iterator[bytes | Pause]:
    start = 0
    for cut in _cuts(block, twist.split):
        yield block[start:cut]
        if twist.gap_s:
            yield Pause(twist.gap_s)
        start = cut
    yield block[start:]


def _cuts(block: bytes, split: int) -> Iterator[int]:
    if split > 0:
        yield from range(split, len(block), split)
    elif split == -1:  # before every continuation byte
        yield from (at for at, byte in enumerate(block) if byte & 0xC0 == 0x80)
    elif split == -2:  # between CR and LF and in the middle
        yield len(block) // 2
        yield len(block) - 1
