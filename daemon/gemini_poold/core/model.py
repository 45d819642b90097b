"""The values the pool decides with: accounts, requests, leases, outcomes, cooldowns, tokens' lives.

Frozen and slotted; nothing here has behaviour beyond what its own fields say. What is made for every request is a
named tuple, because a frozen dataclass costs several times as much to make. Instants are Unix seconds (`_at`,
`_until`), durations seconds (`_s`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from math import inf
from typing import NamedTuple


class Backend(StrEnum):
    """Where requests go. `form` is the dialect of body that its endpoint takes."""

    DEVELOPER_API = "developer-api"
    CODE_ASSIST = "code-assist"
    VERTEX = "vertex"

    @property
    def form(self) -> str:
        return FORMS[self]


FORMS: Mapping[Backend, str] = {Backend.DEVELOPER_API: "gl", Backend.CODE_ASSIST: "ca", Backend.VERTEX: "vx"}
ALL_FORMS = frozenset(FORMS.values())


class Cost(StrEnum):
    FREE = "free"
    LICENSED = "licensed"
    PAID = "paid"


class Data(StrEnum):
    MAY_TRAIN = "may-train"
    NO_TRAINING = "no-training"


class AccountState(StrEnum):
    """What an account is, apart from its cooldowns. `health.py` says how one becomes another."""

    STARTING = "starting"  # no token yet, or set-up not done
    READY = "ready"
    OFFLINE = "offline"  # its token or set-up cannot be had for now; retried by itself
    DISABLED = "disabled"  # `enabled = false`
    PAUSED = "paused"
    LOGIN_REQUIRED = "login_required"  # the login is dead or wants re-authentication
    DEAD = "account_dead"  # the credential is refused for good (deleted, leaked, invalid key)
    CLIENT_INVALID = "client_invalid"  # the OAuth client is refused: all accounts of that client
    UNLICENSED = "unlicensed"
    UNSUPPORTED_CLIENT = "unsupported_client"
    NEEDS_VALIDATION = "needs_validation"
    SUSPENDED = "suspended"
    MISCONFIGURED = "project_misconfigured"
    BLOCKED_BY_TERMS = "blocked_by_terms"  # a foreign login whose risk nobody accepted
    SECRET_MISSING = "secret_missing"  # the secret reference cannot be read


SERVING = frozenset({AccountState.READY})


@dataclass(frozen=True, slots=True)
class Limits:
    """Known limits of a bucket and model: requests a minute, requests a day (Pacific), input tokens a minute."""

    rpm: int | None = None
    rpd: int | None = None
    tpm: int | None = None


@dataclass(frozen=True, slots=True)
class DailyCap:
    """The user's own cap for one account, over all models; days end at Pacific midnight."""

    requests: int | None = None
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Account:
    """One account as the user wrote it, defaults filled in. Compared by value to see what a reload changed."""

    id: str
    backend: Backend
    credential: str = "api-key"
    project: str = ""
    quota_group: str = ""
    location: str = "global"
    enabled: bool = True
    priority: int = 0
    weight: float = 1.0
    models: tuple[str, ...] = ()
    exclude_models: tuple[str, ...] = ()
    limits: Limits = Limits()
    daily_cap: DailyCap = DailyCap()
    reserve: float = 0.0
    cost: Cost = Cost.FREE
    data: Data = Data.MAY_TRAIN
    lend: bool = False
    client_origin: str = "own"
    accepted_terms_risk: str = ""
    proxy: str = ""

    def allows(self, model: str) -> bool:
        """Whether the account's allow-list and deny-list let it serve `model` (globs, case-sensitive)."""
        if not model:  # a request for none: a file, a listing
            return True
        if self.models and not any(fnmatchcase(model, glob) for glob in self.models):
            return False
        return not any(fnmatchcase(model, glob) for glob in self.exclude_models)


class Request(NamedTuple):
    """What must be served, as far as choosing is concerned. `id` names it over all of its attempts.

    `forms`: dialects of body that the sender can write. `pin`: only this account. `exclude`: accounts tried already.
    `lends`: the account's secret will leave the daemon. `min_validity_s`: the token must live at least that long.
    `allow_paid`: None means the configured default. `data`: None takes any class. `attempt`, `refusals` and `faults`
    grow with each try; `Pool.settle` hands back the request to try next.
    """

    id: str
    model: str
    method: str = "generateContent"
    forms: frozenset[str] = ALL_FORMS
    session: str = ""
    pin: str = ""
    exclude: frozenset[str] = frozenset()
    lends: bool = False
    min_validity_s: float = 0.0
    allow_paid: bool | None = None
    data: Data | None = None
    batch: bool = False
    attempt: int = 1
    refusals: int = 0  # times Google said no to it so far, which its client has not seen
    faults: int = 0  # times something broke (5xx, network)
    tokens: int = 0  # an estimate of its input tokens, 0 when there is none


@dataclass(slots=True)
class Lease:
    """The right to send one request with one account. Changed by `state.Pool` alone; ends once."""

    id: str
    request: Request
    account_id: str
    owner: str  # connection or client that holds it; "" for the daemon's own requests
    granted_at: float
    expires_at: float
    decision: str
    attempt: int = 1
    detached: bool = False
    sent_at: float = 0.0  # the instant that it is counted under, unique in its bucket


class Grant(NamedTuple):
    """An account was chosen and reserved."""

    lease: Lease
    account: Account
    reason: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Nobody is free now; `account_id` returns first, at `until`. Only a guess may come earlier than said."""

    until: float
    account_id: str
    reason: str
    decision: str = field(default="", compare=False)  # where it is recorded


@dataclass(frozen=True, slots=True)
class Refusal:
    """No waiting helps. `code` is an error word of the wire."""

    code: str
    reason: str
    hint: str = ""
    account_id: str = ""
    decision: str = field(default="", compare=False)  # where it is recorded


class Kind(StrEnum):
    """What an answer of Google's meant."""

    OK = "ok"  # safety stops and blocked prompts included: they are answers
    RATE = "rate"  # short window
    DAILY = "daily"  # day, week: until a reset
    CONCURRENCY = "concurrency"  # too many of the account's requests at once
    CAPACITY = "capacity"  # Google's fleet is full for the model; no account's fault
    TRANSIENT = "transient"  # 5xx, network
    UNAUTHENTICATED = "unauthenticated"  # renew the token once, repeat once
    ACCOUNT = "account"  # the account's state changes (see `state`)
    MODEL_DENIED = "model-denied"  # this account has no access to this model
    CLIENT = "client"  # the request's own fault; no account is to blame
    CANCELLED = "cancelled"  # our client went away
    CUT = "cut"  # the stream broke after its first byte


class Scope(StrEnum):
    """How far a cooldown reaches. Its key is spelled by `cooldown.key_of`."""

    ACCOUNT_MODEL = "account-model"
    ACCOUNT = "account"
    BUCKET_MODEL = "bucket-model"
    BUCKET = "bucket"
    BACKEND_MODEL = "backend-model"  # the model over the whole pool, as far as that backend serves it
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A pure classifier's reading of one answer (or of its absence).

    `until`: instant before which the scope must rest, None when Google gave no time (core.cooldown then backs off).
    `told`: the time came from Google. `state`: for ACCOUNT, what the account becomes, with `hint` and `url` for the
    user. `rotate`: another account may serve the same request. `reason`: few words, no secrets, for people.
    `source`: where the time or reason was read, e.g. "RetryInfo", "quotaId".
    """

    kind: Kind
    scope: Scope = Scope.NONE
    until: float | None = None
    told: bool = False
    state: AccountState | None = None
    rotate: bool = False
    reason: str = ""
    hint: str = ""
    url: str = ""
    source: str = ""
    status: int = 0
    limit_zero: bool = False
    quota_value: float | None = None
    quota_window: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one answer as Google counts them. `output_tokens` includes thoughts."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    thought_tokens: int = 0
    total_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Settled:
    """What a report led to: whether another attempt is worth it, and with which request (the tried one excluded)."""

    retry: bool
    reason: str
    request: Request | None = None
    renew_token: bool = False
    account_id: str = ""


# ---- rows that must survive a restart (store/ writes them; state.Pool emits them) -------------------------------


@dataclass(frozen=True, slots=True)
class CooldownRow:
    """A cooldown with its evidence. `until` <= now or a `gone` row means it ended."""

    scope: Scope
    key: str
    model: str
    until: float
    kind: Kind
    told: bool
    source: str
    reason: str
    since: float
    strikes: int = 0
    gone: bool = False


@dataclass(frozen=True, slots=True)
class AccountRow:
    """State of one account that must survive: what a person or Google decided, and its health."""

    account_id: str
    state: AccountState
    reason: str
    hint: str
    url: str
    since_at: float
    success: float
    latency_s: float | None
    failures: int
    last_used_at: float | None
    paused: bool = False
    secret: str = ""  # names the secret that the account was used with last; tells nothing about it
    gone: bool = False


@dataclass(frozen=True, slots=True)
class CounterRow:
    """Totals of one account and model since its first request."""

    account_id: str
    model: str
    served: int
    failed: int
    rotated: int
    input_tokens: int
    output_tokens: int
    gone: bool = False


@dataclass(frozen=True, slots=True)
class TotalRow:
    """One named total over the whole pool (requests, answered, failed, rotations, absorbed, renewals…)."""

    name: str
    value: int


@dataclass(frozen=True, slots=True)
class DiscoveryRow:
    """What set-up learned about an account: project to send, tier, e-mail (label) and sub (identity)."""

    account_id: str
    project: str
    tier: str
    email: str
    sub: str
    at: float
    gone: bool = False


@dataclass(frozen=True, slots=True)
class PaceRow:
    """What is known of one bucket and model: limits that were learnt, and what was sent that still counts.

    `rpm` requests in `width_s`; `source` is `core.window.Source` (0: not learnt). `anchor`: where fixed windows meet, None:
    they slide. `recent` requests of `recent_tokens` in all were sent in the minute before `at`; `day_count` in the day
    that ends at `day_ends_at`, counted from its beginning if `day_whole`.
    """

    bucket: str
    model: str
    rpm: int | None
    source: int
    width_s: float
    named: bool
    anchor: float | None
    tpm: int | None
    rpd: int | None
    at: float
    recent: int
    recent_tokens: float
    day_count: int
    day_ends_at: float
    day_whole: bool
    gone: bool = False


@dataclass(frozen=True, slots=True)
class BoundRow:
    """Something that Google keeps (`files/abc`) and the one account that may use it, until it expires."""

    name: str
    account_id: str
    until: float
    gone: bool = False


@dataclass(frozen=True, slots=True)
class PinRow:
    """A person wants this account used before all others for these models (globs, a space between)."""

    account_id: str
    models: str
    at: float
    gone: bool = False


@dataclass(frozen=True, slots=True)
class CapRow:
    """What an account has taken of its daily cap, in the day that ends then."""

    account_id: str
    day_ends_at: float
    requests: int
    tokens: int
    gone: bool = False


@dataclass(frozen=True, slots=True)
class QuotaRow:
    """One bucket as Google told it at `at`; `core.quota.QuotaReading` says what each means."""

    account_id: str
    model: str
    token_type: str
    at: float
    fraction: float
    remaining: float | None
    limit: float | None
    resets_at: float | None
    gone: bool = False


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """A lease that a client holds while the daemon is restarted. `request`: `leases.written`."""

    lease_id: str
    account_id: str
    owner: str
    detached: bool
    granted_at: float
    expires_at: float
    sent_at: float
    request: str
    gone: bool = False


Row = (
    CooldownRow
    | AccountRow
    | CounterRow
    | TotalRow
    | DiscoveryRow
    | PaceRow
    | BoundRow
    | PinRow
    | CapRow
    | QuotaRow
    | LeaseRow
)


@dataclass(frozen=True, slots=True)
class PoolEvent:
    """Something worth telling subscribers and the log. `kind` and `level` are the wire's words."""

    kind: str
    level: str
    at: float
    text: str
    account_id: str = ""
    model: str = ""
    data: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TokenLife:
    """The life of an access token without the token: issued and expiring when. An API key never expires."""

    issued_at: float
    expires_at: float = inf
