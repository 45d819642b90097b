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
    digest = hashlib.blake2b(found[1], digest_size=12)
    for mark in _SYSTEM:
        if (at := body.find(mark)) >= 0 and (system := _TEXT.search(body, at)) is not None:
            digest.update(b"\0" + system[1])
    return digest.hexdigest()
