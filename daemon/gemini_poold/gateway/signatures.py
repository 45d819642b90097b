"""Thought signatures of tool calls, for clients whose form has no place for them or that drop what they do not know.

Bounded and lost at a restart: a call whose signature is gone goes with Google's own word for "none".
"""

from __future__ import annotations

from collections import OrderedDict

MOST = 4096
LARGEST = 64 * 1024
IN_ALL = 16 * 1024 * 1024


class Signatures:
    """Call id -> signature, the oldest forgotten first. Ids are random: whoever knows one was given it."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, str] = OrderedDict()
        self._size = 0

    def keep(self, call_id: str, signature: str) -> None:
        if len(signature) > LARGEST:
            return
        self._known[call_id] = signature
        self._size += len(signature)
        while len(self._known) > MOST or self._size > IN_ALL:
            self._size -= len(self._known.popitem(last=False)[1])

    def of(self, call_id: str) -> str:
        """The signature, or an empty string when it is not known."""
        return self._known.get(call_id, "")
