"""Which account made a thought signature: elsewhere it is refused, so a history that moves is cleaned before it is sent.

Digests only, bounded, and lost at a restart: of a signature that is not known nothing is said, and Google's refusal is
then what cleans the history (`dispatch`).
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Iterable

from ..backends.translate import SENTINEL

MOST = 50_000
_MARKS = (b"houghtSignature", b"hought_signature")
_SIGNATURE = re.compile(rb'"thought(?:Signature|_signature)"\s*:\s*"([^"]+)"')
# As JSON may write them: Google escapes `=`, clients seldom do.
_ESCAPES = ((b"\\u003d", b"="), (b"\\/", b"/"), (b"\\u002b", b"+"), (b"\\u002f", b"/"))
_SENTINEL = SENTINEL.encode()


class Origins:
    """Signature -> account, the oldest forgotten first."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._made_by: OrderedDict[bytes, str] = OrderedDict()

    def __len__(self) -> int:
        return len(self._made_by)

    def note(self, block: bytes, account_id: str) -> None:
        """An answer, or whole events of one, that the account gave."""
        if b"houghtSignature" not in block:
            return
        for digest in digests(block):
            self._made_by[digest] = account_id
            self._made_by.move_to_end(digest)
        while len(self._made_by) > self._most:
            self._made_by.popitem(last=False)

    def elsewhere(self, body: bytes, account_id: str) -> bool:
        """Whether a request has a signature that another account is known to have made."""
        if not self._made_by or not any(mark in body for mark in _MARKS):
            return False
        return self.made_elsewhere(digests(body), account_id)

    def made_elsewhere(self, found: Iterable[bytes], account_id: str) -> bool:
        """The same of signatures that were found before, by digest."""
        return any(self._made_by.get(digest, account_id) != account_id for digest in found)


def digests(text: bytes) -> list[bytes]:
    """Of each signature in a body or an answer."""
    return [_digest(found) for found in _SIGNATURE.findall(text) if found != _SENTINEL]


def _digest(signature: bytes) -> bytes:
    for written, meant in _ESCAPES:
        signature = signature.replace(written, meant)
    return hashlib.blake2b(signature, digest_size=8).digest()
