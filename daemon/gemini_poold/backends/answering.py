"""What the backends share in reading answers. Each says how its answers are dressed, and which refusals are its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

from ..core.model import Account, Outcome
from . import base, google_errors, refusals, translate
from .base import Reading
from .google_errors import GoogleError


class Answering:
    """`dressed`: answers come inside Code Assist's `response`. `own`: readings of refusals that only it knows."""

    dressed: ClassVar[bool] = False
    own: ClassVar[tuple[Callable[[GoogleError], Outcome | None], ...]] = ()

    def takes_raw(self, surface: str, method: str) -> bool:
        del surface, method
        return False

    def event(self, surface: str, data: bytes) -> bytes:
        if self.transparent(surface):
            return data
        return translate.unwrapped(data) if self.dressed else translate.wrapped(data)

    def transparent(self, surface: str) -> bool:
        return (surface == "ca") is self.dressed

    def classify(
        self,
        status: int,
        headers: Mapping[str, str],
        body: bytes,
        *,
        model: str,
        now: float,
        account: Account,
    ) -> Outcome:
        del model, account
        if 200 <= status < 300:
            return base.succeeded(status)
        error = google_errors.read(status, headers, body, now=now)
        return refusals.of_error(error, now=now, own=self.own)

    def classify_event(self, payload: bytes, *, model: str, now: float, account: Account) -> Outcome | None:
        if b'"error"' not in payload or not self.read(payload).error:
            return None
        return self.classify(0, {}, payload, model=model, now=now, account=account)

    classify_failure = staticmethod(refusals.of_failure)

    def read(self, payload: bytes) -> Reading:
        return base.read_wrapped(payload) if self.dressed else base.read_plain(payload)
