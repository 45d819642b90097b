"""The wire: every value that crosses the RPC socket, once, for the clients and for the daemon.

JSON-RPC 2.0 messages and the parameters and results of each method as msgspec Structs. What is not here: framing
(`framing.py`), the error words (`errors.py`), and any behaviour. Instants are Unix seconds and end in `_at` or
`_until`, durations are seconds and end in `_s`. Unknown fields are ignored on both sides, so that a newer end may
add some; a renamed or removed field is a breaking change.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from msgspec import UNSET, Raw, Struct, UnsetType, field

VERSION = "0.1.0"
PROTOCOL = 1

Id = int | str | None
Form = Literal["gl", "ca", "vx"]
Backend = Literal["developer-api", "code-assist", "vertex"]
Priority = Literal["interactive", "batch"]
DataClass = Literal["no-training", "may-train"]
CostClass = Literal["free", "licensed", "paid"]
Method = Literal["generateContent", "streamGenerateContent", "countTokens", "embedContent"]
Next = Literal["done", "retry", "give-up"]
EventKind = Literal["account", "cooldown", "quota", "token", "reload", "request", "queue"]
EVENT_KINDS: tuple[EventKind, ...] = ("account", "cooldown", "quota", "token", "reload", "request", "queue")
Level = Literal["debug", "info", "warning", "error"]
ImportSource = Literal["gemini-cli", "opencode", "adc", "cliproxyapi"]


class _In(Struct, omit_defaults=True, forbid_unknown_fields=False):
    """Parameters: a default is not sent."""


class _Out(Struct, omit_defaults=False):
    """Results: everything is sent, so that a script sees which fields there are."""


# ---- JSON-RPC -------------------------------------------------------------------------------------------------


class Incoming(Struct, omit_defaults=True):
    """Any message as it comes in: a request, a notification (no id) or a reply (no method)."""

    jsonrpc: str = ""
    id: int | str | float | UnsetType | None = UNSET
    method: str | UnsetType = UNSET
    params: Raw | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    error: ErrorObject | UnsetType | None = UNSET


class ErrorObject(Struct, omit_defaults=True):
    code: int
    message: str
    data: ErrorData | None = None


class ErrorData(Struct, omit_defaults=True):
    """What a client may branch on. `code` is one of the words of `errors.py`; `retry_at` says when waiting helps."""

    # The first three are always sent: only a default that stands here as a value is left out. Reading asks for `code` alone.
    code: str
    retryable: bool = field(default_factory=bool)
    hint: str = field(default_factory=str)
    retry_at: float | None = None
    account: str | None = None
    details: Any = None


class Request(Struct):
    id: int | str
    method: str
    params: Any
    jsonrpc: Literal["2.0"] = "2.0"


class Notification(Struct):
    method: str
    params: Any
    jsonrpc: Literal["2.0"] = "2.0"


class Reply(Struct):
    id: Id | float
    result: Any
    jsonrpc: Literal["2.0"] = "2.0"


class ErrorReply(Struct):
    id: Id | float
    error: ErrorObject
    jsonrpc: Literal["2.0"] = "2.0"


class CancelParams(_In):
    id: int | str | float


class ProgressParams(Struct):
    token: int | str
    value: Any


# ---- initialize, daemon/* -------------------------------------------------------------------------------------


class ClientInfo(_In):
    name: str
    version: str = ""


class InitializeParams(_In):
    client: ClientInfo | None = None


class ServerInfo(_Out):
    name: str
    version: str


class InitializeResult(_Out):
    server: ServerInfo
    protocol: int
    methods: list[str]


class Empty(_In):
    """No parameters, or a result with nothing to tell."""


LogLevel = Literal["debug", "info", "warning", "error"]


class LogLevelParams(_In):
    level: LogLevel


class DaemonInfo(_Out):
    version: str
    protocol: int
    pid: int
    python: str
    started_at: float
    uptime_s: float
    config_file: str
    accounts_file: str
    state_dir: str
    socket: str
    gateway_socket: str
    gateway_url: str
    gateway_error: str
    supervised: str  # "systemd", "launchd" or ""


class ReloadResult(_Out):
    """What a reload changed, by account id; `errors` holds what was refused (the old value stays in force), `warnings`
    what is in force and cannot work."""

    added: list[str]
    removed: list[str]
    changed: list[str]
    unchanged: int
    config_changed: list[str]
    restart_needed: list[str]
    errors: list[ConfigError]
    warnings: list[str] = []


class ConfigError(_Out):
    file: str
    line: int
    column: int
    message: str
    hint: str


class Draining(_Out):
    """`kept`: the connection outlives the daemon, and what is asked on it meanwhile waits for the successor."""

    reason: str
    grace_s: float
    kept: bool | UnsetType = UNSET


# ---- pool/acquire, report, renew, release ---------------------------------------------------------------------


class AcquireParams(_In):
    model: str
    forms: Sequence[Form] = ("gl",)
    stream: bool = False
    session: str = ""
    account: str = ""
    exclude: list[str] = []
    wait_s: float | None = None
    min_validity_s: float = 0.0
    priority: Priority = "interactive"
    allow_paid: bool | None = None
    data: DataClass | None = None
    request: str = ""
    detach: bool = False


class Lease(_Out):
    """The right to send one request: write a body of `form`, POST it to `url` with `headers`, then report.

    `expires_at` is when the lease ends unless renewed, `ttl_s` how long that is from now. `request` names the
    request over all of its attempts, `decision` the recorded choice for `pool/explain`. `project` is what a body of
    form "ca" must name.
    """

    lease: str
    request: str
    account: str
    backend: Backend
    form: Form
    url: str
    headers: dict[str, str]
    expires_at: float
    ttl_s: float
    reason: str
    decision: str
    project: str = ""


class Usage(Struct, omit_defaults=True):
    """Tokens of one answer, as Google counts them. `output_tokens` includes thoughts."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    thought_tokens: int = 0
    total_tokens: int = 0


class ReportParams(_In):
    """What happened to a lease: the raw status, headers and error body of the answer, or `error` when none came.

    `body` may be the text or the decoded JSON. `usage` may be Google's usageMetadata or a `Usage`.
    """

    lease: str
    status: int | None = None
    headers: dict[str, str] = {}
    body: Any = None
    usage: dict[str, Any] | None = None
    error: str = ""
    first_byte_s: float | None = None
    total_s: float | None = None


class ReportResult(_Out):
    next: Next
    reason: str
    lease: Lease | None = None
    retry_at: float | None = None


class LeaseParams(_In):
    lease: str


class RenewResult(_Out):
    expires_at: float
    ttl_s: float


# ---- pool/generate, pool/token --------------------------------------------------------------------------------


class GenerateParams(_In):
    model: str
    request: Raw
    method: Method = "generateContent"
    token: int | str | None = None
    session: str = ""
    account: str = ""
    wait_s: float | None = None
    priority: Priority = "interactive"
    allow_paid: bool | None = None
    data: DataClass | None = None


class StreamResult(_Out):
    chunks: int
    account: str
    usage: Usage | None
    finish_reason: str


class CancelTokenParams(_In):
    token: int | str


class TokenParams(_In):
    account: str = ""
    model: str = ""
    backend: Backend | None = None
    scopes: list[str] = []
    min_validity_s: float = 0.0


class TokenResult(_Out):
    account: str
    token: str
    token_type: str
    expires_at: float | None


# ---- pool/status, quota, explain ------------------------------------------------------------------------------


class CooldownInfo(_Out):
    """One cooldown with its evidence. `scope` says what `key` names; `told` is true when Google gave the time."""

    scope: str
    key: str
    model: str
    until: float
    kind: str
    told: bool
    source: str
    reason: str
    since: float
    strikes: int = 0


class HealthInfo(_Out):
    score: float
    success: float
    latency_s: float | None
    quota: float | None
    consecutive_failures: int


class CounterInfo(_Out):
    served: int
    failed: int
    rotated: int
    input_tokens: int
    output_tokens: int


class TokenInfo(_Out):
    state: str  # "none", "fresh", "stale", "expired"
    expires_at: float | None
    renew_at: float | None
    renewed_at: float | None
    renewals: int
    failures: int
    last_error: str


class AccountInfo(_Out):
    id: str
    backend: Backend
    credential: str
    state: str
    reason: str
    hint: str
    url: str
    available: bool
    enabled: bool
    priority: int
    project: str
    location: str
    bucket: str
    cost: CostClass
    data: DataClass
    lend: bool
    email: str
    tier: str
    health: HealthInfo
    token: TokenInfo
    cooldowns: list[CooldownInfo]
    counters: CounterInfo
    models: dict[str, CounterInfo]
    in_flight: int
    last_used_at: float | None
    pinned: list[str] = []  # globs of models that it is used for before all others
    reserve: float = 0.0


class ClientStatus(_Out):
    name: str
    version: str
    pid: int
    connected_at: float
    leases: int
    in_flight: int


class LeaseInfo(_Out):
    lease: str
    request: str
    account: str
    model: str
    client: str
    granted_at: float
    expires_at: float


class QueuedModel(_Out):
    """Who waits for one model. `next_at`: when the first of them is served, by what is known now."""

    model: str
    waiting: int
    oldest_s: float
    next_at: float


class QueueInfo(_Out):
    waiting: int
    oldest_s: float
    models: list[QueuedModel] = []


class Counters(_Out):
    """Over the whole pool, kept over restarts. Every request ends as one of `answered`, `failed`, `cancelled`, `released`
    (its lease was given back, or its client went away) or `expired` (nobody told what came of it): with those in flight
    they add up to `requests`.

    `absorbed`: refusals that no client saw. `renewed_ahead`: renewals that ended while the old token was still valid.
    `waited_for_token`: requests that had to wait for a token call.
    """

    requests: int
    answered: int
    failed: int
    rotations: int
    absorbed: int
    cancelled: int
    renewals: int
    renewed_ahead: int
    waited_for_token: int
    released: int = 0
    expired: int = 0


class DecisionInfo(_Out):
    """One decision of the pool's, as `pool/explain` knows it. `account`: who was chosen, or who returns first."""

    decision: str
    at: float
    model: str
    account: str
    reason: str
    code: str | None
    attempt: int


class StatusResult(_Out):
    version: str
    protocol: int
    uptime_s: float
    state: str  # "starting", "ready", "paused", "draining"
    accounts: list[AccountInfo]
    model_cooldowns: list[CooldownInfo]
    counters: Counters
    leases: list[LeaseInfo]
    queue: QueueInfo
    quota: list[QuotaEntry]
    clients: list[ClientStatus]
    config_errors: list[ConfigError]
    gateway_url: str
    gateway_error: str
    in_flight: int = 0  # requests that were begun and have not ended
    decisions: list[DecisionInfo] = []  # the newest first


class QuotaParams(_In):
    refresh: bool = False


class QuotaEntry(_Out):
    """One account's quota for one model. `used`/`remaining`/`limit` are amounts where known, `fraction` is what
    remains (0 to 1). `source` is "google", "refusal", "config" or "own-count". `rate_per_hour`: the share that is used in
    an hour, as lately; at that rate it is empty at `empty_at`, or has the share `unused_at_reset` left when it resets."""

    account: str
    model: str
    family: str
    token_type: str
    window: str
    used: float | None
    remaining: float | None
    limit: float | None
    fraction: float | None
    resets_at: float | None
    source: str
    observed_at: float
    rate_per_hour: float | None = None
    empty_at: float | None = None
    unused_at_reset: float | None = None


class QuotaAggregate(_Out):
    """One family over all accounts; rate and outlook as of QuotaEntry."""

    family: str
    accounts: int
    fraction: float | None
    used: float | None
    remaining: float | None
    next_reset_at: float | None
    rate_per_hour: float | None = None
    empty_at: float | None = None
    unused_at_reset: float | None = None


class QuotaResult(_Out):
    accounts: list[QuotaEntry]
    families: list[QuotaAggregate]
    errors: dict[str, str]


class ExplainParams(_In):
    model: str = ""
    session: str = ""
    decision: str = ""


class LimitInfo(_Out):
    """One known limit of an account's bucket. `what`: "requests/minute", "input tokens/minute", "requests/day" … `used`
    is our own count. `source`: "configured", "told" by Google, "learnt" from our count, "cap" (the user's own)."""

    what: str
    limit: float
    used: float
    source: str
    resets_at: float | None


class VerdictInfo(_Out):
    """Why an account would (not) be chosen: `verdict` is "chosen", "available" or the reason it is out. `cooldowns`: the
    evidence of everything that reaches it, the longest first; `limits`: what is known of its bucket."""

    account: str
    verdict: str
    reason: str
    available: bool
    returns_at: float | None
    rank: list[float]
    cooldowns: list[CooldownInfo] = []
    limits: list[LimitInfo] = []


class ExplainResult(_Out):
    """`chosen`: the account, or None with the error word `code`. Of a recorded decision, everything is as it was at `at`;
    `recorded` false: its verdicts were not kept (they are worked out for as many decisions as a budget allows)."""

    model: str
    chosen: str | None
    reason: str
    strategy: str
    at: float
    accounts: list[VerdictInfo]
    next_return_at: float | None
    next_return_account: str | None
    code: str | None
    decision: str = ""
    recorded: bool = True


# ---- pool/pause, resume, subscribe ----------------------------------------------------------------------------


class PauseParams(_In):
    account: str = ""


class SubscribeParams(_In):
    events: Sequence[EventKind] = EVENT_KINDS


class Event(_Out):
    """`pool/event`. `dropped` is how many notifications this subscriber lost since the last one it got."""

    kind: EventKind
    level: Level
    at: float
    text: str
    account: str = ""
    model: str = ""
    data: Any = None
    dropped: int = 0


class AccountListResult(_Out):
    accounts: list[AccountInfo]


# ---- account/add, remove, enable, disable, verify -------------------------------------------------------------


class _Secretive(_In):
    """Parameters that hold a secret: their repr, which a traceback may show, tells the type alone."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"


class AccountVerdict(_Out):
    """What became of an account, for people. `next`: exactly what to type or open next, "" when nothing is to be
    done. `licensed`: whether Code Assist serves it; None elsewhere, or where nobody knows yet. `notes`: worth knowing.
    """

    account: str
    backend: Backend
    ok: bool
    state: str
    reason: str
    next: str
    url: str
    project: str
    tier: str
    email: str
    licensed: bool | None
    notes: list[str]


class AccountParams(_In):
    account: str


class AccountAddParams(_Secretive):
    """`credential` is a type of accounts.toml. Its secret is named by `secret`, a reference as in accounts.toml but for
    `command`, or comes along as `secret_text` and is then kept in a file of the state folder. `settings`: further keys
    of accounts.toml."""

    account: str
    backend: Backend
    credential: str = "api-key"
    secret: dict[str, Any] | None = None
    secret_text: str = ""
    target: str = ""
    scopes: Sequence[str] = ()
    settings: dict[str, Any] = {}
    accept_terms_risk: str = ""


class AccountRemoveParams(_In):
    """`revoke`: end the login at Google, too, and delete its secret. `delete_secret`: delete it without that."""

    account: str
    revoke: bool = False
    delete_secret: bool = False


class AccountRemoveResult(_Out):
    """`secret_left`: where the secret still is, "" when nothing is left of it here."""

    account: str
    revoked: bool
    secret_left: str
    notes: list[str]


class PinParams(_In):
    """`model`: a glob; empty: every model. A pinned account is used before all others for what it can serve."""

    account: str
    model: str = ""


class ClearCooldownParams(_In):
    """Empty: everything."""

    account: str = ""
    model: str = ""


class ClearCooldownResult(_Out):
    """`revived`: the account was suspended, and is tried again on this word."""

    cleared: int
    revived: bool


class VerifyParams(_In):
    """Empty: every account."""

    accounts: Sequence[str] = ()


class VerifyRow(_Out):
    """`call`: what Google was asked, "" when it did not come to that."""

    verdict: AccountVerdict
    call: str
    took_s: float | None


class VerifyResult(_Out):
    accounts: list[VerifyRow]


# ---- account/login, loginFinish -------------------------------------------------------------------------------


class LoginParams(_Secretive):
    """`client_secrets`: the JSON of one's own OAuth client. `use_gemini_cli`: that of a Gemini CLI installed here (its
    folder may be given as `gemini_cli`), which asks for `accept_terms_risk`: the id of the wording that the error
    `blocked_by_terms` has in its details. Neither: the client that the account was logged in with before.
    `backend` (default "code-assist"), `project` and `location` are for a new account. `listen` false: no port is opened, a code is pasted."""

    account: str
    backend: Backend | None = None
    project: str = ""
    location: str = ""
    client_secrets: dict[str, Any] | None = None
    use_gemini_cli: bool = False
    gemini_cli: str = ""
    accept_terms_risk: str = ""
    login_hint: str = ""
    listen: bool = True


class LoginStarted(_Out):
    """Open `url` in a browser. `port`: where the answer is listened for on 127.0.0.1, 0 when it must be pasted. Over
    SSH, `ssh -L PORT:127.0.0.1:PORT HOST` brings it here from another machine's browser."""

    url: str
    login: str
    port: int
    redirect_uri: str
    expires_at: float
    client_origin: str


class LoginFinishParams(_Secretive):
    """Without `code`, waits for the browser. `code`: what a person pasted, in whatever form."""

    login: str
    code: str = ""


class LoginResult(_Out):
    """`created`: the account is new. `secret`: where the login is kept."""

    account: str
    created: bool
    email: str
    client_origin: str
    secret: str
    verdict: AccountVerdict


# ---- import, export -------------------------------------------------------------------------------------------


class ImportParams(_Secretive):
    """`path`: the file or folder, where it is not in its usual place. `home`: the home folder to look in, else the
    daemon's own. `account`: the id of the new account, or what ids begin with when there are several. `backend` (default:
    what the login is for there), `project`, `location`: of the new accounts. `client_secrets`, `use_gemini_cli`,
    `gemini_cli`, `accept_terms_risk`: as of LoginParams; with the risk accepted, Gemini CLI's client is looked for by
    itself where a login needs it."""

    source: ImportSource
    path: str = ""
    home: str = ""
    account: str = ""
    project: str = ""
    backend: Backend | None = None
    location: str = ""
    client_secrets: dict[str, Any] | None = None
    use_gemini_cli: bool = False
    gemini_cli: str = ""
    accept_terms_risk: str = ""


class ImportRow(_Out):
    """One login that was found. `result`: "imported", "blocked" (imported, but not used before the risk is accepted),
    "known" (an account has it already) or "refused"."""

    found: str
    result: str
    account: str
    email: str
    project: str
    reason: str
    next: str


class ImportResult(_Out):
    """`wording` is what is to be accepted before more can be done, `accept_terms_risk` the id that accepts it; both
    are empty when nothing waits for that."""

    logins: list[ImportRow]
    notes: list[str]
    wording: str = ""
    accept_terms_risk: str = ""


class ExportOpencodeParams(_In):
    """`path`: opencode's auth.json, where it is not in its usual place."""

    accounts: Sequence[str]
    path: str = ""
    home: str = ""


class ExportResult(_Out):
    accounts: list[str]
    path: str
    notes: list[str]


class ArchiveParams(_Secretive):
    """Empty `accounts`: all."""

    passphrase: str
    accounts: Sequence[str] = ()


class ArchiveResult(_Out):
    """`archive`: an age file in base64."""

    archive: str
    accounts: list[str]
    notes: list[str]


class UnarchiveParams(_Secretive):
    archive: str
    passphrase: str
    accounts: Sequence[str] = ()
