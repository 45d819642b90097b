"""What Google's refusals mean for the pool: `GoogleError` to `core.Outcome`, by tables. Pure.

The rules that hold for every backend are here; a backend adds its own before them (`Rule`s of its file). The order of
`of_error`: the backend's own rules, quota, then the status. A refusal that is the request's own fault blames nobody;
one that no waiting cures changes the account's state; one about a single model rests that model only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..core.model import AccountState, Kind, Outcome, Scope
from ..core.pacific import next_midnight
from ..errors import UpstreamFailure
from .google_errors import WINDOW_ORDER, Delay, GoogleError, Violation, window_of

MODEL_DENIED_S = 3_600.0  # guessed: previews get enabled, model lists change
NO_ENTITLEMENT_S = 86_400.0  # "limit: 0" changes only with the tier
LONG_S = 3_600.0  # a day's quota whose told delay is shorter than this is told wrongly
WINDOW_S: Mapping[str, float] = {"second": 1.0, "minute": 60.0, "hour": 3_600.0}
SPEND_WINDOW_S = 600.0
CREDITS_S = 3_600.0

Rule = Callable[[GoogleError], Outcome | None]

QUOTA_REASONS = frozenset({
    "RATE_LIMIT_EXCEEDED", "QUOTA_EXHAUSTED", "MODEL_CAPACITY_EXHAUSTED", "MODEL_CAPACITY_EXCEEDED",
    "INSUFFICIENT_G1_CREDITS_BALANCE", "rateLimitExceeded", "userRateLimitExceeded", "quotaExceeded",
    "dailyLimitExceeded",
})  # fmt: skip
_EXHAUSTED = frozenset({"QUOTA_EXHAUSTED", "dailyLimitExceeded", "quotaExceeded"})
_CAPACITY_TEXT = ("no capacity available", "overloaded", "high demand", "currently at capacity")


@dataclass(frozen=True, slots=True)
class Held:
    """A refusal that no waiting cures: what the account becomes, and what its user is told."""

    state: AccountState
    text: str
    hint: str = ""


# By ErrorInfo reason, on any backend and status.
HELD: Mapping[str, Held] = {
    "API_KEY_INVALID": Held(AccountState.DEAD, "Google refuses this API key", "put a valid key into its secret"),
    "API_KEY_SERVICE_BLOCKED": Held(
        AccountState.MISCONFIGURED, "the API key is restricted to other APIs",
        "allow the Generative Language API in the key's restrictions",
    ),
    "API_KEY_IP_ADDRESS_BLOCKED": Held(
        AccountState.MISCONFIGURED, "the API key is restricted to other addresses",
        "allow this machine's address in the key's restrictions",
    ),
    "API_KEY_HTTP_REFERRER_BLOCKED": Held(
        AccountState.MISCONFIGURED, "the API key is restricted to websites",
        "make a key without referrer restrictions",
    ),
    "API_KEY_ANDROID_APP_BLOCKED": Held(AccountState.MISCONFIGURED, "the API key is restricted to an Android app"),
    "API_KEY_IOS_APP_BLOCKED": Held(AccountState.MISCONFIGURED, "the API key is restricted to an iOS app"),
    "SERVICE_DISABLED": Held(
        AccountState.MISCONFIGURED, "the API is switched off in this project",
        "enable it (takes some minutes), then `gemini-pool account verify`",
    ),
    "BILLING_DISABLED": Held(
        AccountState.MISCONFIGURED, "the project has no billing", "enable billing for the project"
    ),
    "CONSUMER_INVALID": Held(
        AccountState.MISCONFIGURED, "Google does not know this project", "correct `project` in accounts.toml"
    ),
    "USER_PROJECT_DENIED": Held(
        AccountState.MISCONFIGURED, "this account may not use the project",
        "grant roles/serviceusage.serviceUsageConsumer, or correct `project` in accounts.toml",
    ),
    "SECURITY_POLICY_VIOLATED": Held(
        AccountState.MISCONFIGURED, "the organisation's VPC service controls forbid it",
        "ask the organisation's administrator",
    ),
    "ACCESS_TOKEN_SCOPE_INSUFFICIENT": Held(
        AccountState.LOGIN_REQUIRED, "the login lacks a needed scope", "log in again and grant every scope"
    ),
    "SUBSCRIPTION_REQUIRED": Held(
        AccountState.UNLICENSED, "the account or project has no Code Assist licence", "request a licence"
    ),
    "UNSUPPORTED_CLIENT": Held(
        AccountState.UNSUPPORTED_CLIENT, "Google serves this kind of account to its own clients only",
        "use an API key, Vertex or a licensed project",
    ),
    "VALIDATION_REQUIRED": Held(
        AccountState.NEEDS_VALIDATION, "Google wants the account verified", "open the page and verify the account"
    ),
    "TOS_VIOLATION": Held(
        AccountState.SUSPENDED, "Google has suspended the account", "appeal to Google; it stays out until you clear it"
    ),
}  # fmt: skip

_BOUND_RESOURCE = re.compile(
    r"\b(?:access the|the) file\b|\bfiles/|cached ?contents?\b|\binteractions?\b|\bcorpora\b|file ?search ?store|\btuned model",
    re.IGNORECASE,
)
_SIGNATURE = re.compile(r"thought[ _]?signature", re.IGNORECASE)
SIGNATURE_SOURCE = "thought-signature"


def of_error(error: GoogleError, *, now: float, own: tuple[Rule, ...] = ()) -> Outcome:
    """The outcome of a refusal. `own`: the backend's rules, asked first."""
    for rule in own:
        if (outcome := rule(error)) is not None:
            return outcome
    if error.html and error.status in (403, 429):
        # The captcha page is about the network we are in, not about the account.
        return _of(
            error, Kind.CAPACITY, Scope.BACKEND_MODEL, _until(error, now), reason="Google flags this network"
        )
    if error.status == 429 or QUOTA_REASONS.intersection(error.reasons) or error.word in _QUOTA_WORDS:
        return quota(error, now)
    if (held := next((HELD[r] for r in error.reasons if r in HELD), None)) is not None:
        return account(error, held)
    return _by_status(error, now)


_QUOTA_WORDS = frozenset({"RESOURCE_EXHAUSTED", "rate_limit_exceeded", "quota_exceeded"})


def of_failure(failure: UpstreamFailure) -> Outcome:
    """The outcome of an answer that never came whole. Nobody knows whose fault it is: a short rest, then again."""
    scope = Scope.ACCOUNT_MODEL if failure.sent else Scope.ACCOUNT
    return Outcome(
        Kind.TRANSIENT, scope, rotate=True, reason=failure.message, source=f"network: {failure.kind}"
    )


# ---- quota --------------------------------------------------------------------------------------------------------


def quota(error: GoogleError, now: float) -> Outcome:
    """429 and its relatives: which window, until when, for whom."""
    if error.limit_zero:
        return _of(
            error, Kind.MODEL_DENIED, Scope.BUCKET_MODEL, (now + NO_ENTITLEMENT_S, False, "limit: 0"),
            reason="this tier has no access to the model", limit_zero=True,
        )  # fmt: skip
    if capacity_of(error):
        return _of(error, Kind.CAPACITY, Scope.BACKEND_MODEL, _until(error, now), reason="the model is full")
    if concurrency_of(error):
        until = _until(error, now)
        return _of(error, Kind.CONCURRENCY, Scope.ACCOUNT_MODEL, until, reason="too many requests at once")
    if error.has("INSUFFICIENT_G1_CREDITS_BALANCE"):
        until = _until(error, now, guess_s=CREDITS_S, source="INSUFFICIENT_G1_CREDITS_BALANCE")
        return _of(error, Kind.DAILY, Scope.BUCKET_MODEL, until, reason="the credits are used up")
    if error.says("spend limit", "spending limit", "spend cap", "spending cap", "monthly cap"):
        return _spend(error, now)
    worst = _longest(error.violations)
    window = _window(error, worst)
    value = (
        worst.value if worst is not None and worst.value else _number(error.metadata.get("quota_limit_value"))
    )
    named = (
        f"{'tokens' if worst is not None and worst.counts_tokens else 'requests'}/{window}" if window else ""
    )
    long = window in ("day", "week", "month") or (not window and _exhausted(error))
    until = _end_of_day(error, window, now) if long else _until(error, now, window=window)
    return _of(
        error, Kind.DAILY if long else Kind.RATE, Scope.BUCKET_MODEL, until,
        reason=f"quota per {window} used up" if window else "quota used up" if long else "too many requests",
        quota_value=value, quota_window=named,
    )  # fmt: skip


def capacity_of(error: GoogleError) -> bool:
    """Google's fleet is full: no account's fault, and no other account of the backend would fare better."""
    if error.has("MODEL_CAPACITY_EXHAUSTED", "MODEL_CAPACITY_EXCEEDED"):
        return True
    return error.status in (429, 503, 529) and error.says(*_CAPACITY_TEXT)


def concurrency_of(error: GoogleError) -> bool:
    """A limit of requests at once, not in a time: told by its quota's name, else by the words."""
    named = [f"{v.metric} {v.quota_id} {v.description}" for v in error.violations]
    named += [error.metadata.get(name, "") for name in ("quota_limit", "quota_metric", "quotaLimit")]
    text = " ".join(named).strip().lower()
    return "concurren" in (text or error.message.lower())


def _exhausted(error: GoogleError) -> bool:
    return bool(_EXHAUSTED.intersection(error.reasons)) or error.word == "quota_exceeded"


def _window(error: GoogleError, worst: Violation | None) -> str:
    if worst is not None and worst.window:
        return worst.window
    for name in ("quota_limit", "quota_unit", "quotaLimit"):
        if window := window_of(error.metadata.get(name, "")):
            return window
    return window_of(error.message)


def _longest(violations: tuple[Violation, ...]) -> Violation | None:
    """The violation with the longest window: it decides."""
    rank = {window: place for place, window in enumerate(WINDOW_ORDER)}
    return min(violations, key=lambda v: rank.get(v.window, len(rank)), default=None)


def _spend(error: GoogleError, now: float) -> Outcome:
    """Money, counted over the whole project: a rolling ten minutes, or a month (looked at again each day)."""
    monthly = error.says("month")
    until = _until(error, now, guess_s=SPEND_WINDOW_S, source="spend limit")
    if monthly and not until[1]:
        until = (next_midnight(now), False, "monthly cap")
    kind = Kind.DAILY if monthly else Kind.RATE
    return _of(error, kind, Scope.BUCKET, until, reason="the project's spending limit is reached")


def _end_of_day(error: GoogleError, window: str, now: float) -> tuple[float | None, bool, str]:
    """The end of a long window. A told delay counts only when it is long, because Google adds short ones to them."""
    best = max(error.delays, key=lambda d: d.seconds, default=None)
    if best is not None and (best.seconds >= LONG_S or not window):
        return now + best.seconds, True, best.source
    if window == "day":
        return next_midnight(now), True, "quotaId"
    if window:
        return next_midnight(now), False, "quotaId"  # looked at again each day
    return None, False, error.reason


# ---- status -------------------------------------------------------------------------------------------------------


def _by_status(error: GoogleError, now: float) -> Outcome:
    match error.status:
        case 401:
            return _of(
                error,
                Kind.UNAUTHENTICATED,
                Scope.ACCOUNT,
                reason="Google refuses the token",
                source=error.reason,
            )
        case 400:
            return _bad_request(error)
        case 402:
            return account(error, HELD["BILLING_DISABLED"])
        case 403:
            return _forbidden(error, now)
        case 404:
            return _not_found(error, now)
        case 408 | 409 | 499:
            return transient(error, now)
        case 503 | 529 if capacity_of(error):
            return _of(
                error,
                Kind.CAPACITY,
                Scope.BACKEND_MODEL,
                _until(error, now),
                reason="the model is overloaded",
            )
    return transient(error, now) if error.status >= 500 or error.status < 400 else client(error)


def _bad_request(error: GoogleError) -> Outcome:
    if error.says("api key not valid", "api key expired", "api_key_invalid"):
        return account(error, HELD["API_KEY_INVALID"])
    if error.word in ("FAILED_PRECONDITION", "failed_precondition") and (
        error.says("location is not supported", "location not supported", "billing", "free tier")
    ):
        return account(error, _NO_FREE_TIER)
    if _SIGNATURE.search(error.message):
        return client(error, source=SIGNATURE_SOURCE)
    return client(error)


_NO_FREE_TIER = Held(
    AccountState.MISCONFIGURED,
    "Google does not serve this account from here",
    "enable billing for the key's project",
)
_LEAKED = Held(AccountState.DEAD, "Google says the key was leaked", "make a new key and delete this one")
_DENIED = Held(
    AccountState.SUSPENDED, "Google denies the project access", "ask Google; it stays out until you clear it"
)


def _forbidden(error: GoogleError, now: float) -> Outcome:
    if _BOUND_RESOURCE.search(error.message):
        return client(error, reason="a file, cache or interaction of another account, or none at all")
    if error.says("reported as leaked"):
        return account(error, _LEAKED)
    if error.says("project has been denied access"):
        return account(error, _DENIED)
    if error.says("insufficient authentication scopes"):
        return account(error, HELD["ACCESS_TOKEN_SCOPE_INSUFFICIENT"])
    if error.says("unregistered callers"):
        return account(error, HELD["API_KEY_INVALID"])
    return denied(error, now) if error.formed else transient(error, now)


def _not_found(error: GoogleError, now: float) -> Outcome:
    if _BOUND_RESOURCE.search(error.message):
        return client(error, reason="no such file, cache or interaction")
    # A page that is not Google's says that the place is wrong, not the model.
    return denied(error, now) if error.formed else transient(error, now)


def denied(error: GoogleError, now: float) -> Outcome:
    """This account has no access to this model; the account as such is fine."""
    until = (now + MODEL_DENIED_S, False, error.reason or error.word or str(error.status))
    return _of(
        error,
        Kind.MODEL_DENIED,
        Scope.ACCOUNT_MODEL,
        until,
        reason=_first_line(error, "no access to the model"),
    )


def account(error: GoogleError, held: Held, *, url: str = "") -> Outcome:
    """The account becomes what `held` says; the page that helps is looked for in the error."""
    page = url or error.metadata.get("activationUrl", "") or help_page(error)
    return _of(
        error, Kind.ACCOUNT, Scope.ACCOUNT, reason=held.text, hint=held.hint, url=page, state=held.state,
        source=error.reason,
    )  # fmt: skip


def client(error: GoogleError, *, source: str = "", reason: str = "") -> Outcome:
    """The request's own fault: no account is to blame, none would do better."""
    return Outcome(
        Kind.CLIENT, reason=reason or _first_line(error, "Google refuses the request"), source=source or error.reason,
        status=error.status,
    )  # fmt: skip


def transient(error: GoogleError, now: float) -> Outcome:
    return _of(
        error,
        Kind.TRANSIENT,
        Scope.ACCOUNT_MODEL,
        _until(error, now),
        reason=f"Google answers {error.status}",
    )


def help_page(error: GoogleError) -> str:
    """The page to act on: not the one that only explains."""
    acting = [
        u for text, u in error.links if text.strip().lower() != "learn more" and "support.google.com" not in u
    ]
    return acting[0] if acting else error.metadata.get("validation_link", "")


# ---- building -----------------------------------------------------------------------------------------------------


def _until(
    error: GoogleError, now: float, *, window: str = "", guess_s: float | None = None, source: str = ""
) -> tuple[float | None, bool, str]:
    """Until when, whether Google told it, and where it was read."""
    told: Delay | None = error.delays[0] if error.delays else None
    if told is not None:
        return now + told.seconds, True, told.source
    guess = WINDOW_S.get(window) if guess_s is None else guess_s
    if guess is not None:
        return now + guess, False, source or "quotaId"
    return None, False, source or error.reason


def _of(
    error: GoogleError,
    kind: Kind,
    scope: Scope,
    until: tuple[float | None, bool, str] = (None, False, ""),
    *,
    reason: str,
    hint: str = "",
    url: str = "",
    state: AccountState | None = None,
    source: str = "",
    limit_zero: bool = False,
    quota_value: float | None = None,
    quota_window: str = "",
) -> Outcome:
    return Outcome(
        kind, scope, until[0], until[1], state, rotate=True, reason=reason, hint=hint, url=url,
        source=source or until[2], status=error.status, limit_zero=limit_zero, quota_value=quota_value,
        quota_window=quota_window,
    )  # fmt: skip


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _first_line(error: GoogleError, otherwise: str) -> str:
    line = error.message.strip().split("\n", 1)[0]
    return line[:200] if line else otherwise
