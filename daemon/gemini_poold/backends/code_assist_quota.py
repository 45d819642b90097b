"""`retrieveUserQuota` of Code Assist: the request, and its answer as core readings. Every field may be missing."""

from __future__ import annotations

import msgspec

from ..core.quota import QuotaReading, Quotas, reading
from ..errors import UNREADABLE
from . import durations

METHOD = "retrieveUserQuota"


class _Bucket(msgspec.Struct):
    modelId: str = ""  # noqa: N815 - Google's names
    tokenType: str = ""  # noqa: N815
    remainingFraction: float | None = None  # noqa: N815
    remainingAmount: int | float | None = None  # noqa: N815
    resetTime: str = ""  # noqa: N815


class _Answer(msgspec.Struct):
    buckets: list[_Bucket] | None = None


_answer = msgspec.json.Decoder(_Answer, strict=False)  # amounts are int64, which JSON writes as strings


def request(project: str) -> bytes:
    return msgspec.json.encode({"project": project} if project else {})


def readings(body: bytes, account_id: str, now: float, known: Quotas) -> list[QuotaReading]:
    """The buckets of an answer; those without a model are nobody's. `known`: for limits seen before.

    Raises ValueError when the body is no such answer.
    """
    try:
        buckets = _answer.decode(body).buckets or []
    except UNREADABLE as e:
        raise ValueError(f"not an answer of {METHOD}: {e}") from None
    return [
        reading(
            account_id,
            b.modelId,
            now,
            amount=None if b.remainingAmount is None else float(b.remainingAmount),
            fraction=b.remainingFraction,
            resets_at=durations.instant(b.resetTime),
            token_type=b.tokenType,
            last=known.last(account_id, b.modelId, b.tokenType or "REQUESTS"),
        )
        for b in buckets
        if b.modelId
    ]
