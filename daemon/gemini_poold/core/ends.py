"""What the ends that Google told of full windows say of their length and limit, where neither is named.

Two refusals or more are laid beside what was sent: a window of `width_s` is believed when it explains every one of them, by
the same limit, and nothing that was answered speaks against it. Windows are whole seconds long. Sliding ones go first: who
keeps them keeps fixed ones, too.

Instants are when we sent, on both sides: an end is the refused request's own instant plus the rest that was told, so that
the way to Google counts only with its jitter, for which `_Refusal.blur_s` stands (a round trip).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

_MOST = 4  # refusals that are looked at
_USUAL = (10, 30, 1, 5, 15, 20)  # seconds: two refusals are enough for these, others want three
_LONGEST_S = 45  # what is longer is a minute, and found without this
_GRAIN_S = 0.02
_SLOP = 0.1  # of a limit: what was under way may have come in another order
_BACK_S = 70.0


class Found(NamedTuple):
    """`limit` requests in `width_s`. `anchor`: where fixed windows meet; None: they slide."""

    limit: int
    width_s: float
    anchor: float | None
    blur_s: float


class _Refusal:
    """One refused request: when it was sent, when the window ends, and what had been sent by then."""

    __slots__ = ("blur_s", "end", "sent", "sent_at")

    def __init__(self, sent_at: float, end: float, blur_s: float, sent: list[float]) -> None:
        self.sent_at, self.end, self.blur_s, self.sent = sent_at, end, blur_s, sent

    def since(self, at: float) -> int:
        return len(self.sent) - bisect_left(self.sent, at)


class Ends:
    """The newest refusals of one bucket and model that told an end."""

    __slots__ = ("_blur_s", "_refusals")

    def __init__(self) -> None:
        self._refusals: deque[_Refusal] = deque(maxlen=_MOST)
        self._blur_s = 0.0  # of the widest one

    def forget(self) -> None:
        self._refusals.clear()

    def drop(self, sent_at: float) -> None:
        """A request that was under way at earlier refusals was refused itself: it took nothing."""
        for refusal in self._refusals:
            i = bisect_left(refusal.sent, sent_at)
            if i < len(refusal.sent) and refusal.sent[i] == sent_at:
                del refusal.sent[i]

    def add(self, sent: Iterable[float], sent_at: float, now: float, told: float) -> None:
        """A request sent at `sent_at` was refused; `sent`: what was sent and not refused; `told`: the end, as heard at `now`."""
        back_s = now - sent_at
        if self._refusals and sent_at < self._refusals[-1].end - self._refusals[-1].blur_s:
            return  # it was under way when the last one was refused, and says the same
        whole = abs((told - now) - round(told - now)) < 1e-6  # told in whole seconds, rounded somehow
        known = [at for at in sent if at > sent_at - _BACK_S]
        self._refusals.append(_Refusal(sent_at, told - back_s, back_s + (1.0 if whole else _GRAIN_S), known))

    def found(self, kept: Found | None = None) -> Found | None:
        """The window that explains all of them; None when there is none, or more than one refusal is wanted. `kept`: what
        was found before stays while it explains them, too."""
        given = self._refusals
        if len(given) < 2:
            return None
        self._blur_s = max(r.blur_s for r in given)
        least = max(r.end - r.sent_at for r in given) - self._blur_s
        if (
            kept is not None
            and kept.width_s >= least
            and (same := self._explains(kept.width_s, kept.anchor is None))
        ):
            return same
        widths = [*_USUAL, *(w for w in range(1, _LONGEST_S + 1) if w not in _USUAL)]
        if len(given) < 3:
            widths = widths[: len(_USUAL)]
        for slides in (True, False):
            for width in widths:
                if width >= least and (new := self._explains(float(width), slides)):
                    return new
        return None

    # ---- inside ----------------------------------------------------------------------------------------------

    def _explains(self, width_s: float, slides: bool) -> Found | None:
        limit = self._sliding(width_s) if slides else self._fixed(width_s)
        anchor = None if slides else self._refusals[-1].end
        return Found(limit, width_s, anchor, self._blur_s) if limit else None

    def _sliding(self, width_s: float) -> int:
        """The limit if windows of that length slide; 0: they do not."""
        limits, blur_s = [], self._blur_s
        for r in self._refusals:
            leaves = r.end - width_s  # of the one that has to leave before another one fits
            first = bisect_left(r.sent, leaves - blur_s)
            if first == len(r.sent) or r.sent[first] > leaves + blur_s:
                return 0
            limits.append(len(r.sent) - first)
        limit, slop = _same(limits)
        if not limit:
            return 0
        for r in self._refusals:
            ahead = zip(r.sent, r.sent[limit + slop :], strict=False)
            if any(last - first < width_s - 2.0 * blur_s for first, last in ahead):
                return 0
        return limit

    def _fixed(self, width_s: float) -> int:
        """The limit if windows of that length meet at the ends that were told; 0: they do not."""
        last, blur_s = self._refusals[-1].end, self._blur_s
        limits = []
        for r in self._refusals:
            apart_s = (last - r.end) % width_s
            if min(apart_s, width_s - apart_s) > blur_s:
                return 0
            limits.append(r.since(r.end - width_s - blur_s))
        limit, slop = _same(limits)
        if not limit:
            return 0
        newest = self._refusals[-1]
        windows: dict[int, int] = {}
        for at in newest.sent:
            place = (at - last) / width_s
            if min(place % 1.0, 1.0 - place % 1.0) * width_s > blur_s:
                windows[int(place // 1)] = windows.get(int(place // 1), 0) + 1
        return limit if max(windows.values(), default=0) <= limit + slop else 0


def _same(limits: list[int]) -> tuple[int, int]:
    """The limit that all of these may be, and by how much they may differ; 0 when they differ by more. The least of them:
    one too few is soon tried beyond, one too many is refused in every window."""
    limit = min(limits)
    slop = max(1, round(_SLOP * limit))
    return (limit, slop) if max(limits) - limit <= slop else (0, slop)
