"""What tells one conversation from another where its client gives it no name: its first words.

Pure, and cheap: the first text of the user's and of the system's, found as bytes in a body that is not decoded. Every
turn of a conversation begins alike, so all of them have one key. Only where staying with an account is worth something:
what is long enough for Google's implicit cache, and loops of tool calls, whose thought signatures are an account's own.
"""

from __future__ import annotations

import hashlib
import re

WORTH_BYTES = 4096  # implicit caching begins at 1024 tokens
_LONGEST = 2048
_WHERE = (b'"contents"', b'"messages"', b'"input"')
_SYSTEM = (b'"systemInstruction"', b'"system_instruction"')
_TEXT = re.compile(rb'"(?:text|content)"\s*:\s*"((?:[^"\\]|\\.){0,%d})' % _LONGEST)


class Watch:
    """`key_of` for a body that goes by in windows, of which each overlaps the one before by more than `_LONGEST`.

    For bodies that are long enough to be worth a key.
    """

    def __init__(self) -> None:
        self._contents_at = self._system_at = -1  # where it begins, once that was seen
        self._first: bytes | None = None
        self._system: bytes | None = None

    @property
    def key(self) -> str:
        return "" if self._first is None else _key(self._first, self._system)

    def look(self, window: bytes, at: int, *, last: bool) -> None:
        """`at`: where in the body the window begins. `last`: nothing follows, so that a text at the very end is whole."""
        if self._first is None:
            self._contents_at, self._first = _next(window, at, _WHERE, self._contents_at, last=last)
        if self._system is None:
            self._system_at, self._system = _next(window, at, _SYSTEM, self._system_at, last=last)


def _next(
    window: bytes, at: int, marks: tuple[bytes, ...], begins_at: int, *, last: bool
) -> tuple[int, bytes | None]:
    """Where the mark stands in the body (-1: not seen yet), and the first text behind it if it is here and whole."""
    if begins_at < 0:
        begins_at = next((at + place for mark in marks if (place := window.find(mark)) >= 0), -1)
    found = _TEXT.search(window, max(0, begins_at - at)) if begins_at >= 0 else None
    whole = found is not None and (found.end() < len(window) or last)
    return begins_at, found[1] if found is not None and whole else None


def _key(first: bytes, system: bytes | None) -> str:
    digest = hashlib.blake2b(first, digest_size=12)
    if system is not None:
        digest.update(b"\0" + system)
    return digest.hexdigest()


def _is_loop(body: bytes) -> bool:
    return (  # spelt out: a generator costs more than what it looks for, in a body that is small
        b'"functionDeclarations"' in body
        or b'"function_declarations"' in body
        or b"houghtSignature" in body
        or b"hought_signature" in body
        or b'"functionCall"' in body
    )


def key_of(body: bytes) -> str:
    """A short key of the conversation in `body` (any surface's form); empty when it has none, or is not worth one."""
    if len(body) < WORTH_BYTES and not _is_loop(body):
        return ""
    start = next((at for mark in _WHERE if (at := body.find(mark)) >= 0), -1)
    found = _TEXT.search(body, start) if start >= 0 else None
    if found is None:
        return ""
    at = next((at for mark in _SYSTEM if (at := body.find(mark)) >= 0), -1)
    system = _TEXT.search(body, at) if at >= 0 else None
    return _key(found[1], None if system is None else system[1])
