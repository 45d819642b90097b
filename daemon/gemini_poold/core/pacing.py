"""Our own count of each bucket and model, so that a limit is kept before Google has to say no.

What was sent is always counted, because a limit may be learnt later; `window.py` says what is known of the short window
of requests, here are input tokens a minute, days (they end at Pacific midnight), and the user's own caps.
"""

from __future__ import annotations

from collections import deque
from math import ceil, inf, nextafter
from typing import NamedTuple

from .evenly import MINUTE_S
from .model import CapRow, DailyCap, Limits, PaceRow
from .pacific import next_midnight
from .window import Sent, Source, Window

_KEPT_S = 90.0  # how long what was sent is remembered
_MOST = 5_000
_ALPHA = 0.2  # weight of the newest answer in the mean of tokens
_ALPHA_RATIO = 0.05  # … and in the ratio, where every error is one of a whole minute's
_SLACK_S = 0.1
_SOURCES = {
    Source.NOWHERE: "learnt", Source.COUNTED: "learnt", Source.TOLD: "told", Source.CONFIGURED: "configured",
}  # fmt: skip
_SPARE = 1.08  # an estimate counts for so much more, until the answer says what it was


class Known(NamedTuple):
    """One limit as far as it is known. `what`: e.g. "requests/minute". `source`: "configured", "told" by Google, "learnt",
    or "cap", the user's own. `resets_at`: None where windows slide."""

    what: str
    limit: float
    used: float
    source: str
    resets_at: float | None = None


class Share(NamedTuple):
    """What Google said is left of one account's quota for a model (0 to 1), until when."""

    fraction: float
    resets_at: float

    def free_at(self, now: float, reserve: float) -> float:
        return self.resets_at if self.fraction <= reserve and self.resets_at > now else 0.0


class Pace:
    """One bucket and model. `spend` at a grant; then `answered`, `refused` or `unspend`, with the same instant."""

    __slots__ = (
        "_day_count", "_day_ends_at", "_day_whole", "_live", "_mean", "_ratio", "_rpd", "_sent", "_token_sum", "_tpm", "limits",
        "window",
    )  # fmt: skip

    def __init__(self, limits: Limits = Limits()) -> None:  # noqa: B008 - frozen
        self.limits = limits
        self.window = Window(limits.rpm)
        self._sent: Sent = deque()
        self._live: Sent = (
            deque()
        )  # of `_sent`, what still counts as tokens of the minute; only while `_tpm` is known
        self._token_sum = 0.0
        self._tpm = limits.tpm
        self._rpd = limits.rpd
        self._mean = 0.0  # input tokens of an answer
        self._ratio = 1.0  # of input tokens to what they were thought
        self._day_ends_at = 0.0
        self._day_count = 0
        self._day_whole = False  # counted from its beginning

    @property
    def rpm(self) -> int | None:
        """Requests in a window, as far as known."""
        return self.window.limit

    @property
    def tpm(self) -> int | None:
        return self._tpm

    @property
    def rpd(self) -> int | None:
        return self._rpd

    def configure(self, limits: Limits) -> None:
        """The user's limits changed; what was counted stays."""
        if limits != self.limits:
            self.limits, self.window = limits, Window(limits.rpm)
            self._rpd = limits.rpd
            self._limit_tokens(limits.tpm)

    @property
    def known(self) -> bool:
        """Whether any limit is known: then what was sent is worth keeping."""
        return self.window.limit is not None or self._tpm is not None or self._rpd is not None

    def row(self, bucket: str, model: str) -> PaceRow:
        """What must survive a restart."""
        w, sent = self.window, self._sent
        at = sent[-1][0] if sent else 0.0
        recent = [tokens for when, tokens in sent if when > at - MINUTE_S]
        learnt = w.source in (Source.TOLD, Source.COUNTED)
        return PaceRow(
            bucket, model, w.limit if learnt else None, int(w.source) if learnt else 0, w.width_s, w.named,
            w.anchor if w.named else None,  # the others begin when somebody asks
            self._tpm, self._rpd, at, len(recent), sum(recent), self._day_count, self._day_ends_at, self._day_whole,
        )  # fmt: skip

    def recall(self, row: PaceRow, now: float) -> None:
        """Take up what an earlier run knew. What it sent in the last minute counts as sent at its last instant."""
        if row.rpm is not None and self.limits.rpm is None:
            self.window.recall(row)
        if self.limits.rpd is None:
            self._rpd = row.rpd
        if now < row.day_ends_at:
            self._day_count, self._day_ends_at, self._day_whole = (
                row.day_count,
                row.day_ends_at,
                row.day_whole,
            )
        if now - MINUTE_S < row.at <= now and not self._sent:
            self._sent.extend([row.at, row.recent_tokens / row.recent] for _ in range(row.recent))
        self._limit_tokens(row.tpm if self.limits.tpm is None else self.limits.tpm)

    def free_at(self, now: float, tokens: int = 0, reserve: float = 0.0) -> float:
        """From when on one more request (of so many input tokens) keeps every limit and leaves the share `reserve` of it
        alone; `now` or earlier means now."""
        window = self.window
        at = 0.0
        if window.limit is not None:
            at = window.free_at(self._sent, now, kept(window.limit, reserve) if reserve else 0)
        if self._tpm is not None:
            need = (tokens * self._ratio or self._mean) * _SPARE
            at = max(at, self._tokens_free_at(now, need + reserve * self._tpm if reserve else need))
        rpd = self._rpd
        if rpd is not None:
            if rpd <= 0:
                return inf
            if reserve:
                rpd -= kept(rpd, reserve)
            if self._day_count >= rpd and now < self._day_ends_at:
                at = max(at, self._day_ends_at)
        return at

    def known_limits(self, now: float) -> tuple[Known, ...]:
        """Every limit that is known, with our own count of what it has taken."""
        out: list[Known] = []
        window = self.window
        if window.limit is not None:
            name = "minute" if window.width_s == MINUTE_S else f"{window.width_s:.3g} s"
            used, ends_at = window.taken(self._sent, now)
            out.append(Known(f"requests/{name}", window.limit, used, _SOURCES[window.source], ends_at))
        if self._tpm is not None:
            self._tokens_free_at(now, 0.0)  # what is older than a minute is dropped
            source = "configured" if self._tpm == self.limits.tpm else "told"
            out.append(Known("input tokens/minute", self._tpm, max(0.0, round(self._token_sum)), source))
        if self._rpd is not None:
            source = "configured" if self._rpd == self.limits.rpd else "learnt"
            begun = now < self._day_ends_at
            ends_at = self._day_ends_at if begun else next_midnight(now)
            out.append(Known("requests/day", self._rpd, self._day_count if begun else 0, source, ends_at))
        return tuple(out)

    def spend(self, now: float, tokens: int = 0) -> float:
        """Count a request that is about to be sent; `tokens`: an estimate, 0 when there is none. Returns the instant that
        names it afterwards: `now`, or a moment later when that is taken."""
        sent = self._sent
        at = now if not sent or sent[-1][0] < now else nextafter(sent[-1][0], inf)
        entry = [at, tokens * self._ratio * _SPARE or self._mean]
        sent.append(entry)
        if self._tpm is not None:
            self._live.append(entry)
            self._token_sum += entry[1]
        while sent[0][0] < now - _KEPT_S or len(sent) > _MOST:
            sent.popleft()
        if self.window.limit is not None:
            self.window.spent(sent, at)
        if now >= self._day_ends_at:
            self._day_whole = self._day_ends_at > 0.0
            self._day_ends_at, self._day_count = next_midnight(now), 0
        self._day_count += 1
        return at

    def answered(self, sent_at: float, now: float, *, tokens: int | None, estimate: int = 0) -> None:
        """The request sent at `sent_at` was not refused; `tokens`: its input tokens, `estimate`: what they were thought."""
        if tokens is not None:
            self._mean += (tokens - self._mean) * (_ALPHA if self._mean else 1.0)
            if estimate:
                self._ratio += (tokens / estimate - self._ratio) * _ALPHA_RATIO
            entry = self._entry(sent_at)
            if entry is not None:
                if self._live and entry[0] >= self._live[0][0]:
                    self._token_sum += tokens - entry[1]
                entry[1] = tokens
        if self.window.limit is not None:
            self.window.answered(self._sent, sent_at, now)

    def unsent(self, sent_at: float) -> None:
        """The request was never sent: it counts for nothing, and opened no window."""
        self.unspend(sent_at)
        self.window.unsent(sent_at)

    def unspend(self, sent_at: float) -> None:
        """The request was refused: it counts for nothing. Its day may be over, and its instant forgotten."""
        if next_midnight(sent_at) == self._day_ends_at:
            self._day_count = max(0, self._day_count - 1)
        sent = self._sent
        for i in range(len(sent) - 1, -1, -1):
            if sent[i][0] <= sent_at:
                if sent[i][0] == sent_at:
                    if sent[i] in self._live:
                        self._live.remove(sent[i])
                        self._token_sum -= sent[i][1]
                    del sent[i]
                return

    def undecided(self, sent_at: float) -> None:
        """Nobody knows what became of the request: it counts, and teaches nothing."""
        self.window.undecided(sent_at)

    def refused_rate(
        self,
        sent_at: float,
        now: float,
        *,
        told_until: float | None,
        value: int | None,
        width_s: float | None,
    ) -> None:
        """A short window of requests is full. `value`: the limit that Google names."""
        self.unspend(sent_at)
        if value is not None and width_s is not None:
            self.window.tell(value, width_s)
        self.window.refused(self._sent, sent_at, now, told_until)

    def refused_tokens(self, sent_at: float, *, value: int | None) -> None:
        """A minute's input tokens are used up."""
        self.unspend(sent_at)
        if value is not None:
            self._limit_tokens(value if self.limits.tpm is None else min(value, self.limits.tpm))

    def refused_day(self, sent_at: float, now: float, *, value: int | None, until: float) -> None:
        """The day is used up: next day we stop in time."""
        self.unspend(sent_at)
        if (
            abs(until - next_midnight(now)) > MINUTE_S
        ):  # no day of ours: it ends when Google says, not when we count
            return
        if value is None and self._day_whole and self.limits.rpd is None:
            value = self._day_count
        if value is not None:
            self._rpd = value if self.limits.rpd is None else min(value, self.limits.rpd)
            self._day_ends_at, self._day_count = next_midnight(now), max(self._day_count, self._rpd)

    # ---- inside ----------------------------------------------------------------------------------------------

    def _limit_tokens(self, tpm: int | None) -> None:
        self._tpm = tpm
        self._live = deque() if tpm is None else deque(self._sent)
        self._token_sum = sum(entry[1] for entry in self._live)

    def _entry(self, sent_at: float) -> list[float] | None:
        for entry in reversed(self._sent):
            if entry[0] <= sent_at:
                return entry if entry[0] == sent_at else None
        return None

    def _tokens_free_at(self, now: float, need: float) -> float:
        """When so many tokens fit. What would never fit goes when nothing else is there."""
        assert self._tpm is not None
        if self._tpm <= 0:
            return inf
        live, since = self._live, now - MINUTE_S - _SLACK_S
        while live and live[0][0] <= since:
            self._token_sum -= live.popleft()[1]
        over = self._token_sum + need - self._tpm
        at = 0.0
        if over <= 0:
            return at
        for sent_at, tokens in live:
            if over <= 0:
                break
            over -= tokens
            at = sent_at + MINUTE_S + _SLACK_S
        return at


class Cap:
    """The user's own daily cap of one account, over all models."""

    def __init__(self, cap: DailyCap) -> None:
        self.cap = cap
        self._day_ends_at = 0.0
        self._requests = 0
        self._tokens = 0

    def free_at(self, now: float) -> float:
        if now >= self._day_ends_at:
            return inf if self.cap.requests == 0 or self.cap.tokens == 0 else 0.0
        full = (self.cap.requests is not None and self._requests >= self.cap.requests) or (
            self.cap.tokens is not None and self._tokens >= self.cap.tokens
        )
        return self._day_ends_at if full else 0.0

    def row(self, account_id: str) -> CapRow:
        return CapRow(account_id, self._day_ends_at, self._requests, self._tokens)

    def recall(self, row: CapRow) -> None:
        """Take up an earlier run's count; one of a past day is dropped with the first request."""
        self._day_ends_at, self._requests, self._tokens = row.day_ends_at, row.requests, row.tokens

    def known(self, now: float) -> tuple[Known, ...]:
        """The caps there are, and what of them is used."""
        begun = now < self._day_ends_at
        ends_at = self._day_ends_at if begun else next_midnight(now)
        caps = (
            ("requests/day", self.cap.requests, self._requests),
            ("tokens/day", self.cap.tokens, self._tokens),
        )
        return tuple(
            Known(what, cap, used if begun else 0, "cap", ends_at)
            for what, cap, used in caps
            if cap is not None
        )

    def spend(self, now: float, *, requests: int = 0, tokens: int = 0) -> None:
        if now >= self._day_ends_at:
            self._day_ends_at, self._requests, self._tokens = next_midnight(now), 0, 0
        self._requests += requests
        self._tokens += tokens

    def refund(self, sent_at: float) -> None:
        """A request that was counted then was never sent."""
        if next_midnight(sent_at) == self._day_ends_at:
            self._requests = max(0, self._requests - 1)


def kept(limit: int, reserve: float) -> int:
    """How many of `limit` a reserve keeps: its share rounded up, but never all of a small limit."""
    return limit if reserve >= 1.0 else max(0, min(limit - 1, ceil(limit * reserve)))


def tightest(first: Limits, second: Limits) -> Limits:
    """The smaller of each limit: two accounts of one bucket may have been given different ones."""
    return Limits(*(_least(a, b) for a, b in (
        (first.rpm, second.rpm), (first.rpd, second.rpd), (first.tpm, second.tpm),
    )))  # fmt: skip


def _least(a: int | None, b: int | None) -> int | None:
    return b if a is None else a if b is None else min(a, b)
