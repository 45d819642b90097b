"""When may this account serve this model again: Google's word first, a back-off of ours where it gave none.

Rules
1. What Google told is kept to the second: neither a success elsewhere nor a later guess shortens it.
2. A guess backs off exponentially with the strikes of its key; a success of the same key forgets the strikes.
3. Refusals that arrive while the key is resting anyway are one strike, not many (a burst of parallel requests).
4. Of two ends the later one wins, but a told one replaces a guess outright: it is knowledge. A guess that reaches beyond
   a told end is only that: what lifts it leaves the told end in force.
5. When a rest without a known end behind it is over, requests come back by a trickle: one, then after a pause another,
   with halved pauses, until one of them is answered (all is open again) or refused (the next rest begins).
6. A cooldown reaches as far as its scope: one account and model, an account, a bucket (with or without model), or a
   model over everything one backend serves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .model import CooldownRow, Kind, Outcome, Scope

LONGEST_S = 8 * 86_400.0  # Google has week-long quotas; anything beyond is nonsense
_FORGET_S = 600.0  # strikes are forgotten after this long without a new one


@dataclass(frozen=True, slots=True)
class Backoff:
    """First rest, factor per strike, longest rest, all for guesses."""

    first_s: float
    factor: float
    longest_s: float


# Antigravity's plugin guesses 30 s for a rate limit and 45 s for capacity; per-minute windows make anything beyond a
# minute a waste, and a trial costs one refused request.
BACKOFF: Mapping[Kind, Backoff] = {
    Kind.RATE: Backoff(4.0, 2.0, 60.0),
    Kind.DAILY: Backoff(900.0, 2.0, 14_400.0),
    Kind.CAPACITY: Backoff(3.0, 1.3, 20.0),  # an outage is noticed to be over within a third of its length
    Kind.CONCURRENCY: Backoff(
        1.0, 2.0, 30.0
    ),  # only where others use the account, too: ours end by themselves
    Kind.TRANSIENT: Backoff(1.0, 2.0, 60.0),
    Kind.UNAUTHENTICATED: Backoff(5.0, 3.0, 600.0),
    Kind.MODEL_DENIED: Backoff(3_600.0, 2.0, 86_400.0),
    Kind.CUT: Backoff(1.0, 2.0, 30.0),
}
_DEFAULT = Backoff(5.0, 2.0, 60.0)
_TRICKLE_S = 1.5  # a refusal comes sooner than that; an answer may take long
_OPEN_S = 0.05


@dataclass(slots=True)
class Cooldown:
    """One key's rest and its evidence."""

    scope: Scope
    key: str
    model: str
    until: float
    kind: Kind
    told: bool
    source: str
    reason: str
    since: float
    strikes: int
    pause_s: float = 0.0  # of the trickle that follows; 0: none
    trial: bool = False  # what rests now is only the pause of a trickle
    told_until: float = 0.0  # the last end that Google told

    def row(self, *, gone: bool = False) -> CooldownRow:
        return CooldownRow(
            self.scope, self.key, self.model, self.until, self.kind, self.told, self.source, self.reason,
            self.since, self.strikes, gone,
        )  # fmt: skip


Key = tuple[Scope, str, str]


def key_of(scope: Scope, *, account: str, bucket: str, backend: str, model: str) -> Key:
    """The key under which a cooldown of `scope` is kept for this account and model."""
    match scope:
        case Scope.ACCOUNT:
            return (scope, account, "")
        case Scope.BUCKET:
            return (scope, bucket, "")
        case Scope.BUCKET_MODEL:
            return (scope, bucket, model)
        case Scope.BACKEND_MODEL:
            return (scope, backend, model)
        case _:
            return (Scope.ACCOUNT_MODEL, account, model)


def _keys(account: str, bucket: str, backend: str, model: str) -> tuple[Key, ...]:
    """Every key that can keep this account from this model."""
    return (
        (Scope.BUCKET_MODEL, bucket, model),
        (Scope.ACCOUNT_MODEL, account, model),
        (Scope.BACKEND_MODEL, backend, model),
        (Scope.ACCOUNT, account, ""),
        (Scope.BUCKET, bucket, ""),
    )


class Cooldowns:
    """All cooldowns of the pool, by key. Remembers ended ones for a while: their strikes make the next guess."""

    def __init__(self) -> None:
        self._by_key: dict[Key, Cooldown] = {}
        self._changed: dict[Key, Cooldown | None] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def blocking(self, *, account: str, bucket: str, backend: str, model: str, now: float) -> Cooldown | None:
        """The cooldown that keeps this account from this model the longest, or None."""
        if not self._by_key:
            return None
        get = self._by_key.get
        worst: Cooldown | None = None
        for key in _keys(account, bucket, backend, model):
            found = get(key)
            if found is not None and found.until > now and (worst is None or found.until > worst.until):
                worst = found
        return worst

    def get(self, key: Key) -> Cooldown | None:
        return self._by_key.get(key)

    def reaching(self, *, account: str, bucket: str, backend: str, model: str, now: float) -> list[Cooldown]:
        """Every cooldown in force that keeps this account from this model, the longest first."""
        if not self._by_key:
            return []
        found = (self._by_key.get(key) for key in _keys(account, bucket, backend, model))
        return sorted((c for c in found if c is not None and c.until > now), key=lambda c: -c.until)

    def start(self, key: Key, outcome: Outcome, now: float, *, trickle: bool = True) -> Cooldown:
        """Begin or extend the rest of `key` because of `outcome`. `trickle`: come back by one request at a time."""
        old = self._by_key.get(key)
        until, told = self._end_of(old, outcome, now)
        strikes = self._strikes(old, now)
        resting = old is not None and old.until > now and not old.trial
        if old is not None and resting and not (told and not old.told) and old.until >= until:
            return old
        told_until = 0.0 if old is None else old.told_until
        if told:
            until = told_until = max(until, told_until)
        new = Cooldown(
            key[0], key[1], key[2], until, outcome.kind, told, outcome.source, outcome.reason, now, strikes,
            _TRICKLE_S if trickle else 0.0, told_until=told_until,
        )  # fmt: skip
        self._by_key[key] = new
        self._changed[key] = new
        return new

    def tried(self, *, account: str, bucket: str, backend: str, model: str, now: float) -> None:
        """A request goes out: where a rest is over and nothing was answered since, the others wait for a moment."""
        for key in _keys(account, bucket, backend, model):
            found = self._by_key.get(key)
            if found is not None and found.pause_s > _OPEN_S:
                found.trial, found.until = True, now + found.pause_s
                found.pause_s /= 2

    def succeed(self, key: Key, now: float) -> bool:
        """A success of `key`: forget its strikes and lift a guess. True when something was lifted."""
        found = self._by_key.get(key)
        if found is None or (found.told and found.until > now and not found.trial):
            return False
        if found.told_until > now:
            found.until, found.told = found.told_until, True
            self._changed[key] = found
            return True
        del self._by_key[key]
        self._changed[key] = None
        return found.until > now

    def clear(self, *, account: str = "", bucket: str = "", model: str = "") -> int:
        """Forget on a person's word: everything, or what touches this account (and bucket) and model."""
        keys = [k for k in self._by_key if _touches(k, account, bucket, model)]
        for key in keys:
            del self._by_key[key]
            self._changed[key] = None
        return len(keys)

    def sweep(self, now: float) -> None:
        """Drop what ended long enough ago that even its strikes no longer matter."""
        for key in [k for k, c in self._by_key.items() if c.until + _FORGET_S <= now]:
            del self._by_key[key]
            self._changed[key] = None

    def active(self, now: float) -> Iterator[Cooldown]:
        return (c for c in self._by_key.values() if c.until > now)

    def restore(self, row: CooldownRow, now: float) -> None:
        """Take back a row of an earlier run; an end beyond all reason (a clock that was wrong) is bounded."""
        key = (row.scope, row.key, row.model)
        until = min(row.until, now + LONGEST_S)
        self._by_key[key] = Cooldown(
            row.scope,
            row.key,
            row.model,
            until,
            row.kind,
            row.told,
            row.source,
            row.reason,
            row.since,
            row.strikes,
            told_until=until if row.told else 0.0,
        )

    @property
    def changed(self) -> bool:
        return bool(self._changed)

    def take_rows(self) -> list[CooldownRow]:
        """What changed since the last call, as rows; removed keys as `gone`."""
        changed, self._changed = self._changed, {}
        return [
            c.row() if c is not None
            else CooldownRow(key[0], key[1], key[2], 0.0, Kind.OK, False, "", "", 0.0, 0, True)
            for key, c in changed.items()
        ]  # fmt: skip

    @staticmethod
    def _end_of(old: Cooldown | None, outcome: Outcome, now: float) -> tuple[float, bool]:
        if outcome.until is not None:
            return min(outcome.until, now + LONGEST_S), outcome.told
        backoff = BACKOFF.get(outcome.kind, _DEFAULT)
        strikes = Cooldowns._strikes(old, now)
        return now + min(backoff.first_s * backoff.factor ** (strikes - 1), backoff.longest_s), False

    @staticmethod
    def _strikes(old: Cooldown | None, now: float) -> int:
        if old is None or old.until + _FORGET_S <= now:
            return 1
        if old.until > now and not old.trial:
            return max(old.strikes, 1)
        return min(old.strikes + 1, 30)


def _touches(key: Key, account: str, bucket: str, model: str) -> bool:
    if model and key[2] not in ("", model):
        return False
    if not account:
        return True
    if key[0] in (Scope.ACCOUNT, Scope.ACCOUNT_MODEL):
        return key[1] == account
    return key[0] in (Scope.BUCKET, Scope.BUCKET_MODEL) and key[1] == bucket
