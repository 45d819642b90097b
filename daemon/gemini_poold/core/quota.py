"""Quota as Google reports it: readings, what they say in amounts and shares, families of models, when to ask again.

A reading is one bucket of one account: a model (or a variant of it) and a token type. Pure values and rules; who asks
Google is `runtime.poller`, what a refusal says about limits is `Outcome.quota_value`.

Rules
1. A missing fraction is not a zero: such a bucket is unknown.
2. Amounts come from Google where both amount and share are known; a limit once known is kept while the share is 0.
3. A bucket that Google resets in 1970 is no entitlement at all, not an exhausted one.
4. A reading whose reset has passed says nothing any more, but is shown until the next one.
5. The last good reading is kept with its age when asking fails.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from .model import QuotaRow
from .pacing import Known, Share
from .quota_history import QuotaHistory

NEAR = 0.2  # gemini-cli warns at 80 % used
EARLIEST_S = 60.0  # Google's clients do not ask more often than every 30 to 60 s
IDLE_S = 1_800.0  # an account nobody used for so long …
IDLE_TIMES = 4.0  # … is asked about so much more rarely
_AFTER_RESET_S = 5.0
_LONGEST_BACKOFF_S = 3_600.0
_VARIANT = re.compile(r"_(vertex)$")
_VERSION = re.compile(r"^(?:models/)?(gemini-\d+(?:\.\d+)?)(?:-|$)")


@dataclass(frozen=True, slots=True)
class QuotaReading:
    """One bucket. `model` is Google's id, variant included; amounts and `fraction` (what remains, 0 to 1) are None
    when unknown. `entitled` False: the account has no such quota. `source`: a word of wire.QuotaEntry."""

    account_id: str
    model: str
    observed_at: float
    fraction: float | None = None
    remaining: float | None = None
    limit: float | None = None
    resets_at: float | None = None
    token_type: str = "REQUESTS"
    window: str = ""
    source: str = "google"
    entitled: bool = True

    @property
    def base_model(self) -> str:
        return _VARIANT.sub("", self.model)

    @property
    def variant(self) -> str:
        found = _VARIANT.search(self.model)
        return found[1] if found else "default"

    @property
    def family(self) -> str:
        return family_of(self.model)

    @property
    def used(self) -> float | None:
        """The used amount; None when only shares are known."""
        return None if self.limit is None or self.remaining is None else max(0.0, self.limit - self.remaining)

    @property
    def used_percent(self) -> float | None:
        """Known as soon as the fraction is: a share that remains is a share that is used."""
        return None if self.fraction is None else (1.0 - self.fraction) * 100.0

    def speaks(self, now: float) -> bool:
        """Whether it still says something about the quota: entitled, known, its reset not passed."""
        known = self.fraction is not None and self.entitled
        return known and (self.resets_at is None or self.resets_at > now)


@dataclass(frozen=True, slots=True)
class Aggregate:
    """A family over all accounts: the mean of each bucket's tightest fraction, the sums of known amounts."""

    family: str
    accounts: int
    fraction: float | None
    used: float | None
    remaining: float | None
    next_reset_at: float | None
    rate: float | None = None  # share a second, the mean of those that are known


@dataclass(frozen=True, slots=True)
class Outlook:
    """Where it goes at this rate: empty at an instant before the reset, or this share unused when it resets."""

    empty_at: float | None = None
    unused: float | None = None


def outlook(fraction: float | None, rate: float | None, resets_at: float | None, now: float) -> Outlook:
    """`rate`: share a second. Nothing is said where nothing is known, or where nothing is left."""
    if not fraction or rate is None:
        return Outlook()
    empty_at = now + fraction / rate if rate > 0 else None
    if resets_at is None or resets_at <= now:
        return Outlook(empty_at)
    if empty_at is not None and empty_at < resets_at:
        return Outlook(empty_at)
    return Outlook(None, max(0.0, fraction - max(0.0, rate) * (resets_at - now)))


def reading(
    account_id: str,
    model: str,
    now: float,
    *,
    amount: float | None,
    fraction: float | None,
    resets_at: float | None,
    token_type: str = "REQUESTS",
    last: QuotaReading | None = None,
) -> QuotaReading:
    """A reading from what Google sends: an amount that remains, a fraction, a reset; each may be missing."""
    if fraction is not None and not 0.0 <= fraction <= 1.0:
        fraction = min(1.0, max(0.0, fraction)) if fraction == fraction else None  # noqa: PLR0124 - NaN
    limit: float | None = None
    if amount is not None and fraction is not None:
        limit = round(amount / fraction) if fraction > 0 else (last.limit if last is not None else None)
    entitled = resets_at is None or resets_at > 0.0
    return QuotaReading(
        account_id, model, now, fraction, amount, limit, resets_at if entitled else None, token_type or "REQUESTS",
        entitled=entitled,
    )  # fmt: skip


def family_of(model: str) -> str:
    """`gemini-2.5` of `gemini-2.5-flash-lite`, `gemini-3` of `gemini-3-pro-preview`; else "other"."""
    found = _VERSION.match(_VARIANT.sub("", model))
    return found[1] if found else "other"


def family_order(family: str) -> tuple[float, str]:
    """Sort key: newest first, "other" last."""
    found = re.fullmatch(r"gemini-(\d+(?:\.\d+)?)", family)
    return (-float(found[1]), family) if found else (0.0, family)


class Quotas:
    """The last good readings of every account, in the order Google sent them."""

    def __init__(self) -> None:
        self._by_account: dict[str, dict[tuple[str, str], QuotaReading]] = {}
        self.history = QuotaHistory()

    def restore(self, rows: Iterable[QuotaRow]) -> None:
        """Take back what an earlier run read: the last good value of each bucket, with its age, and how it went."""
        for row in self.history.restore(rows):
            self._by_account.setdefault(row.account_id, {})[row.model, row.token_type] = QuotaReading(
                row.account_id, row.model, row.at, row.fraction, row.remaining, row.limit, row.resets_at, row.token_type
            )  # fmt: skip

    def seen(self, account_id: str, readings: Iterable[QuotaReading]) -> None:
        """Take a new answer of Google's; it replaces the account's last one."""
        self._by_account[account_id] = {(r.model, r.token_type): r for r in readings}
        for r in self._by_account[account_id].values():
            if r.fraction is not None and r.entitled:
                self.history.add(
                    QuotaRow(
                        account_id, r.model, r.token_type, r.observed_at, r.fraction, r.remaining, r.limit, r.resets_at
                    )
                )  # fmt: skip

    def forget(self, account_ids: Iterable[str]) -> None:
        for account_id in account_ids:
            self._by_account.pop(account_id, None)
            self.history.forget((account_id,))

    def last(self, account_id: str, model: str, token_type: str = "REQUESTS") -> QuotaReading | None:
        return self._by_account.get(account_id, {}).get((model, token_type))

    def of(self, account_id: str) -> list[QuotaReading]:
        return list(self._by_account.get(account_id, {}).values())

    def all(self) -> list[QuotaReading]:
        """Every reading, by family (newest first), model, token type and account."""
        found = [r for book in self._by_account.values() for r in book.values()]
        return sorted(found, key=lambda r: (family_order(r.family), r.model, r.token_type, r.account_id))

    def observed_at(self, account_id: str) -> float | None:
        return min((r.observed_at for r in self.of(account_id)), default=None)

    def shares(self, account_id: str, now: float) -> dict[str, Share]:
        """What is left for each model, by the tightest of its variants and token types, until when."""
        found: dict[str, Share] = {}
        for r in self.of(account_id):
            if r.speaks(now) and r.fraction is not None and r.resets_at is not None:
                known = found.get(r.base_model)
                if known is None or r.fraction < known.fraction:
                    found[r.base_model] = Share(r.fraction, r.resets_at)
        return found

    def tightest(self, account_id: str, now: float) -> float | None:
        """The smallest fraction that remains of anything, None when nothing is known."""
        found = [r.fraction for r in self.of(account_id) if r.speaks(now) and r.fraction is not None]
        return min(found, default=None)


def own_count(account_id: str, model: str, known: Known, now: float) -> QuotaReading:
    """A day's limit that Google does not report, by our own count."""
    left = max(0.0, known.limit - known.used)
    source = "config" if known.source == "configured" else "own-count"
    return QuotaReading(
        account_id, model, now, left / known.limit if known.limit else 0.0, left, known.limit, known.resets_at,
        window="day", source=source,
    )  # fmt: skip


def aggregate(
    readings: Iterable[QuotaReading],
    now: float,
    bucket_of: Callable[[str], str] = lambda account: account,
    rate_of: Callable[[QuotaReading], float | None] = lambda reading: None,  # noqa: ARG005 - none is known
) -> list[Aggregate]:
    """One aggregate per family, newest first. Accounts that share a bucket count once in shares and amounts."""
    families: dict[str, dict[str, list[QuotaReading]]] = {}
    accounts: dict[str, set[str]] = {}
    for r in readings:
        if r.entitled:
            accounts.setdefault(r.family, set()).add(r.account_id)
            bucket = families.setdefault(r.family, {}).setdefault(bucket_of(r.account_id), [])
            if all((r.model, r.token_type) != (other.model, other.token_type) for other in bucket):
                bucket.append(r)
    return [
        _aggregate(family, len(accounts[family]), list(families[family].values()), now, rate_of)
        for family in sorted(families, key=family_order)
    ]


def _aggregate(
    family: str,
    accounts: int,
    buckets: Sequence[Sequence[QuotaReading]],
    now: float,
    rate_of: Callable[[QuotaReading], float | None],
) -> Aggregate:
    tightest = [r for r in (_tightest(bucket, now) for bucket in buckets) if r is not None]
    shares = [r.fraction for r in tightest if r.fraction is not None]
    rates = [rate for rate in map(rate_of, tightest) if rate is not None]
    known = [r for bucket in buckets for r in bucket]
    used = [r.used for r in known if r.used is not None]
    remaining = [r.remaining for r in known if r.remaining is not None]
    resets = [r.resets_at for r in known if r.resets_at is not None and r.resets_at > now]
    return Aggregate(
        family, accounts, sum(shares) / len(shares) if shares else None, sum(used) if used else None,
        sum(remaining) if remaining else None, min(resets, default=None), sum(rates) / len(rates) if rates else None,
    )  # fmt: skip


def _tightest(bucket: Iterable[QuotaReading], now: float) -> QuotaReading | None:
    """What remains of a family in one bucket is what remains of its tightest model."""
    return min((r for r in bucket if r.speaks(now)), key=lambda r: r.fraction or 0.0, default=None)


@dataclass(frozen=True, slots=True)
class Asked:
    """How asking went so far. `retry_at`: Google's own word about when to ask again."""

    at: float = 0.0
    failures: int = 0
    retry_at: float = 0.0


def next_poll_at(
    asked: Asked,
    readings: Iterable[QuotaReading],
    interval_s: float,
    *,
    rng: Callable[[], float],
    idle: bool = False,
) -> float:
    """When to ask Google about this account again, counted from `asked.at`. `rng`: uniform in [0, 1).

    Jittered by a tenth; four times as often when something is nearly used up, four times as rarely while nobody uses the
    account; just after a reset; ever more rarely while asking fails. Never before `EARLIEST_S` after the last time (or the interval, where that is shorter).
    """
    now, jitter = asked.at, 0.9 + 0.2 * rng()
    earliest = now + min(EARLIEST_S, interval_s)
    if asked.failures:
        backoff = min(interval_s * 2.0 ** min(asked.failures, 10), max(_LONGEST_BACKOFF_S, interval_s))
        return max(now + backoff * jitter, asked.retry_at, earliest)
    due = now + interval_s * jitter * (IDLE_TIMES if idle else 1.0)
    for r in readings:
        if not idle and r.speaks(now) and r.fraction is not None and 0.0 < r.fraction <= NEAR:
            due = min(due, now + interval_s / 4 * jitter)
        if r.entitled and r.resets_at is not None and r.resets_at > now:
            due = min(due, r.resets_at + _AFTER_RESET_S * (1.0 + rng()))
    return max(due, earliest)
