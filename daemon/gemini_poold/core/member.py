"""One account as the pool knows it: what the user wrote, its state, health, token's life and counters.

Mutable, and changed by `state.Pool` alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .concurrency import Crowd
from .health import Event, Health, next_state
from .model import Account, AccountRow, AccountState, Backend, CounterRow
from .pacing import Cap, Pace, Share


@dataclass(slots=True)
class Counter:
    """Totals of one account and model (or of an account)."""

    served: int = 0
    failed: int = 0
    rotated: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def row(self, account_id: str, model: str) -> CounterRow:
        return CounterRow(
            account_id, model, self.served, self.failed, self.rotated, self.input_tokens, self.output_tokens
        )


@dataclass(slots=True)
class Member:
    """An account in the pool. `order` is its place in the file, `token_until` when its token ends (inf: never)."""

    account: Account
    order: int
    state: AccountState = AccountState.STARTING
    paused: bool = False
    pinned: tuple[str, ...] = ()  # globs of models that it is used for before all others
    reason: str = ""
    hint: str = ""
    url: str = ""
    since_at: float = 0.0
    expected_at: float = 0.0  # STARTING, OFFLINE: when it is tried next
    token_until: float = 0.0
    health: Health = field(default_factory=Health)
    counters: dict[str, Counter] = field(default_factory=dict)
    cap: Cap | None = None
    book: dict[str, Pace] = field(default_factory=dict)  # by model; shared by all members of the bucket
    shares: dict[str, Share] = field(default_factory=dict)  # by model; what Google says is left
    secret: str = ""  # names the secret in use: what an account was refused for may be over with another one
    in_flight: int = 0
    crowd: Crowd = field(default_factory=Crowd)  # how many may be under way at once
    last_used_at: float = 0.0
    used_seq: int = 0  # grows over the pool with each grant: orders uses within one instant, too
    project: str = ""  # discovered; the configured one wins
    tier: str = ""
    email: str = ""
    sub: str = ""
    bucket: str = ""

    @property
    def id(self) -> str:
        return self.account.id

    @property
    def shown_state(self) -> AccountState:
        """The state with the user's wishes laid over it."""
        if not self.account.enabled:
            return AccountState.DISABLED
        return AccountState.PAUSED if self.paused else self.state

    def may_serve(self, now: float, min_validity_s: float = 0.0) -> bool:
        return (
            self.state is AccountState.READY
            and self.token_until > now + min_validity_s
            and self.account.enabled
            and not self.paused
        )

    @property
    def full(self) -> bool:
        """As many requests are under way as may be at once."""
        return self.in_flight >= self.crowd.most

    def move(self, event: Event, now: float, *, target: AccountState | None = None) -> bool:
        """Apply a health event; True when the state changed."""
        after = next_state(self.state, event, target)
        if after is self.state:
            return False
        self.state, self.since_at = after, now
        if after is AccountState.READY:
            self.reason = self.hint = self.url = ""
        return True

    def counter(self, model: str) -> Counter:
        found = self.counters.get(model)
        if found is None:
            found = self.counters[model] = Counter()
        return found

    def bucket_key(self) -> str:
        """What Google counts against: the key's project, the user, or project and location."""
        a = self.account
        match a.backend:
            case Backend.DEVELOPER_API:
                return f"gl:{a.quota_group or a.project or a.id}"
            case Backend.CODE_ASSIST:
                return f"ca:{self.sub or a.id}"
            case _:
                return f"vx:{a.project or a.id}/{a.location}"

    def row(self) -> AccountRow:
        h = self.health
        return AccountRow(
            self.id, self.state, self.reason, self.hint, self.url, self.since_at, h.success, h.latency_s,
            h.failures, self.last_used_at or None, self.paused, self.secret,
        )  # fmt: skip
