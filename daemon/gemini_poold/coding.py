"""Content codings, as far as we meet them: whether gzip is welcome, and what a compressed answer says.

Pure. An answer that nobody here must read goes through as it came; of one that must be read a copy is unpacked, bounded.
"""

from __future__ import annotations

import zlib

GZIP = "gzip"


def takes_gzip(accepted: str) -> bool:
    """Whether an Accept-Encoding names gzip (or anything) and does not rule it out."""
    weights: dict[str, bool] = {}
    for item in accepted.lower().split(","):
        name, _, parameters = item.partition(";")
        value = parameters.strip().removeprefix("q=").strip()
        weights[name.strip()] = not parameters or value.strip("0.") != ""
    return weights.get(GZIP, weights.get("*", False))


def plain(body: bytes, coding: str, limit: int) -> bytes:
    """`body` unpacked, at most `limit` bytes of it; as it is when it is not what `coding` says, or that is not gzip."""
    if coding.strip().lower() not in (GZIP, "x-gzip"):
        return body
    try:
        return zlib.decompressobj(wbits=31).decompress(body, limit)
    except zlib.error:
        return body
