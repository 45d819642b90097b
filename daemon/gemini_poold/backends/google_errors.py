"""The one reader of Google's refusals: every form of error body, the delays in headers and body, the quota windows.

`read` turns status, headers and body into a `GoogleError`, a value without any judgement. What a refusal means is
`refusals.py`'s and the backends' business. Pure and tolerant: anything that is not an error of Google's becomes a
`GoogleError` whose `formed` is False and whose message is the beginning of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ..errors import UNREADABLE
from . import durations

_DEPTH = 10  # how deep errors are found packed into the text of others
_SHOWN = 300
_SHORTEST_SECRET = 8  # what is shorter would be found in places where it means something else

WORDS: Mapping[str, int] = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INTERNAL": 500,
    "DATA_LOSS": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
# The interactions API has words of its own, in `code`.
INTERACTION_WORDS: Mapping[str, int] = {
    "invalid_request": 400,
    "parameter_unknown": 400,
    "failed_precondition": 400,
    "authentication": 401,
    "payment_required": 402,
    "permission_denied": 403,
    "not_found": 404,
    "model_not_found": 404,
    "out_of_range": 416,
    "rate_limit_exceeded": 429,
    "quota_exceeded": 429,
    "cancelled": 499,
}


@dataclass(frozen=True, slots=True)
class Violation:
    """One exhausted quota. `value` is its limit where told; `window` as `window_of` names it."""

    metric: str = ""
    quota_id: str = ""
    value: float | None = None
    model: str = ""
    description: str = ""

    @property
    def window(self) -> str:
        return window_of(self.quota_id) or window_of(self.description) or window_of(self.metric)

    @property
    def counts_tokens(self) -> bool:
        return "token" in f"{self.quota_id} {self.metric}".lower()


@dataclass(frozen=True, slots=True)
class Delay:
    """A time Google told: seconds from now, and where it stood."""

    seconds: float
    source: str


@dataclass(frozen=True, slots=True)
class GoogleError:
    """What an answer that is no success says, as far as it can be read.

    `status`: the HTTP status, or what stands for it inside a stream. `word`: google.rpc status or the interactions
    API's string code. `reasons`: of every ErrorInfo and of the old `errors` list, in order. `delays`: every time
    told, most trusted first. `formed`: the body was an error of Google's at all.
    """

    status: int
    word: str = ""
    message: str = ""
    reasons: tuple[str, ...] = ()
    domain: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: tuple[Violation, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    delays: tuple[Delay, ...] = ()
    formed: bool = True
    html: bool = False
    old_form: bool = False  # `errors` instead of `details`

    @property
    def reason(self) -> str:
        return self.reasons[0] if self.reasons else ""

    def has(self, *reasons: str) -> bool:
        return any(r in self.reasons for r in reasons)

    def says(self, *words: str) -> bool:
        """Whether the message holds one of `words` (lower case)."""
        text = self.message.lower()
        return any(word in text for word in words)

    @property
    def limit_zero(self) -> bool:
        """The tier has no access to the model at all."""
        if any(v.value == 0 for v in self.violations) or self.metadata.get("quota_limit_value") == "0":
            return True
        return bool(_LIMIT_ZERO.search(self.message))


_LIMIT_ZERO = re.compile(r"limit:\s*0(?![\d]|\.\d)")
_DETAIL = "type.googleapis.com/google.rpc."


def read(status: int, headers: Mapping[str, str], body: bytes, *, now: float) -> GoogleError:
    """`body` as Google's error. `status` 200 (an error inside a stream) is replaced by the error's own code."""
    found = _unpack(body)
    if found is None:
        return _formless(status, headers, body, now)
    message = _text(found.get("message"))
    code, word = _code_and_word(found, status)
    infos = _details(found, "ErrorInfo")
    old = [e for e in _list(found.get("errors")) if isinstance(e, dict)]
    reasons = [_text(d.get("reason")) for d in infos] + [_text(e.get("reason")) for e in old]
    reasons += [_text(d.get("reason")) for d in _any_details(found) if d not in infos]
    metadata = {k: v for d in reversed(infos) for k, v in _strings(d.get("metadata")).items()}
    domain = next((_text(d.get("domain")) for d in infos if d.get("domain")), "")
    return GoogleError(
        status=code,
        word=word,
        message=message,
        reasons=tuple(r for r in reasons if r),
        domain=re.sub(r"[^a-z0-9.-]", "", domain.lower()),
        metadata=metadata,
        violations=tuple(_violations(found)),
        links=tuple(_links(found)),
        delays=tuple(_delays(headers, found, metadata, message, now)),
        old_form=bool(old) and not infos,
    )


def plain(status: int, headers: Mapping[str, str], body: bytes) -> bytes:
    """`body` as one error object for a client that expects JSON: unpacked from an array, composed from a page."""
    text = body.strip()
    if text[:1] == b"{" and _error_of(_parse(text.decode("utf-8", "replace"))) is not None:
        return text
    error = _error_of(_parse(text.decode("utf-8", "replace")))
    if error is None:
        found = _formless(status, headers, body, 0.0)
        word = next((w for w, code in WORDS.items() if code == status), "UNKNOWN")
        error = {"code": status, "message": found.message or f"HTTP {status}", "status": word}
    return msgspec.json.encode({"error": error})


def without(body: bytes, headers: Mapping[str, str]) -> bytes:
    """`body` without the credential that was sent in `headers`: Google quotes an API key in some refusals, and what it
    says goes on to clients, `status` and the disk."""
    for value in headers.values():
        secret = value.rpartition(" ")[2].encode()
        if len(secret) >= _SHORTEST_SECRET and secret in body:
            body = body.replace(secret, b"***")
    return body


def window_of(text: str) -> str:
    """The window that a quota's name or a sentence speaks of: second, minute, hour, day, week, month or ""."""
    flat = re.sub(r"[^a-z0-9/]", "", text.lower())
    for window, names in _WINDOWS:
        if any(name in flat for name in names):
            return window
    return ""


# The longest first: it decides.
_WINDOWS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("month", ("permonth", "monthly", "/month")),
    ("week", ("perweek", "weekly", "/week")),
    ("day", ("perday", "daily", "1/d/", "/day")),
    ("hour", ("perhour", "hourly", "1/h/", "/hour")),
    ("minute", ("perminute", "1/min/", "/minute")),
    ("second", ("persecond", "1/s/", "/second")),
)
WINDOW_ORDER = tuple(window for window, _ in _WINDOWS)


def _delays(
    headers: Mapping[str, str], found: dict[str, Any], metadata: Mapping[str, str], message: str, now: float
) -> Iterator[Delay]:
    """In order of trust. A zero tells nothing that could be waited for, so it is left out like nonsense."""
    candidates = (*_header_delays(headers, now), *_body_delays(found, metadata, message, now))
    told = [Delay(seconds, source) for seconds, source in candidates if seconds]
    plausible = [d for d in told if d.seconds <= durations.LONGEST_S]
    yield from plausible or [Delay(durations.bounded_s(d.seconds), d.source) for d in told]


def _header_delays(headers: Mapping[str, str], now: float) -> Iterator[tuple[float | None, str]]:
    ms = _header(headers, "retry-after-ms")
    if ms:
        milliseconds = durations.duration_s(ms)
        yield (None if milliseconds is None else milliseconds / 1000), "retry-after-ms"
    after = _header(headers, "retry-after")
    if after:
        yield durations.retry_after_s(after, now), "Retry-After"


def _body_delays(
    found: dict[str, Any], metadata: Mapping[str, str], message: str, now: float
) -> Iterator[tuple[float | None, str]]:
    for detail in _details(found, "RetryInfo"):
        yield durations.duration_s(detail.get("retryDelay", detail.get("retry_delay"))), "RetryInfo"
    yield durations.duration_s(metadata.get("quotaResetDelay")), "quotaResetDelay"
    resets_at = durations.instant(metadata.get("quotaResetTimeStamp"))
    yield (None if resets_at is None or resets_at < now else resets_at - now), "quotaResetTimeStamp"
    yield durations.delay_in_text_s(message), "text"


def _header(headers: Mapping[str, str], name: str) -> str:
    if (value := headers.get(name)) is not None:
        return value
    return next((v for k, v in headers.items() if k.lower() == name), "")


def _formless(status: int, headers: Mapping[str, str], body: bytes, now: float) -> GoogleError:
    text = body[:4000].decode("utf-8", "replace").strip()
    html = text[:200].lstrip("\ufeff").lower().startswith(("<!doctype", "<html", "<head", "<?xml"))
    message = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text) if html else text).strip()[:_SHOWN]
    delays = tuple(_delays(headers, {}, {}, message, now))
    return GoogleError(status, message=message, delays=delays, formed=False, html=html)


def _code_and_word(found: dict[str, Any], status: int) -> tuple[int, str]:
    word, code = _text(found.get("status")), found.get("code")
    if isinstance(code, str) and not code.strip().isdigit():
        word = word or code
        code = INTERACTION_WORDS.get(code)
    number = int(code) if isinstance(code, (int, str)) and not isinstance(code, bool) else 0
    if not 400 <= status < 600:
        status = number if 400 <= number < 600 else WORDS.get(word, INTERACTION_WORDS.get(word, 500))
    return status, word


# ---- unpacking ----------------------------------------------------------------------------------------------------


def _unpack(body: bytes) -> dict[str, Any] | None:
    """The innermost error object of `body`, or None. Details found further out are kept when the inner has none."""
    error = _error_of(_parse(body.decode("utf-8", "replace")))
    if error is None:
        return None
    for _ in range(_DEPTH):
        message = error.get("message")
        text = message.replace("\u00a0", " ").strip() if isinstance(message, str) else ""
        inner = _error_of(_parse(text)) if "{" in text and '"error"' in text else None
        if inner is None:
            return error
        error = {**{k: v for k, v in error.items() if k != "message"}, **inner}
    return error


def _error_of(value: Any) -> dict[str, Any] | None:
    if isinstance(value, list):
        value = next((v for v in value if isinstance(v, dict) and "error" in v), None)
    if not isinstance(value, dict):
        return None
    error = value.get("error")
    if isinstance(error, str):  # an OAuth endpoint's form, met where a proxy answers
        return {"message": _text(value.get("error_description")) or error, "status": error}
    return error if isinstance(error, dict) else None


def _parse(text: str) -> Any:
    for candidate in _attempts(text):
        try:
            return msgspec.json.decode(candidate)
        except (*UNREADABLE, UnicodeEncodeError):
            continue
    return None


def _attempts(text: str) -> Iterator[str]:
    """`text` as it stands, then mended: NBSP, raw line breaks, doubled commas, an SSE prefix or a sentence around."""
    yield text
    mended = re.sub(r"[\u00a0\r\n\t]", " ", text)
    mended = re.sub(r",(?:\s*,)+", ",", mended)
    mended = re.sub(r",\s*([}\]])", r"\1", mended)
    yield mended
    begin = min((i for i in (mended.find("{"), mended.find("[{")) if i >= 0), default=-1)
    end = max(mended.rfind("}"), mended.rfind("]"))
    if 0 <= begin < end:
        yield mended[begin : end + 1]


def _any_details(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {str(k).strip(): v for k, v in d.items()} for d in _list(found.get("details")) if isinstance(d, dict)
    ]


def _details(found: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [d for d in _any_details(found) if _text(d.get("@type")).strip() == _DETAIL + kind]


def _violations(found: dict[str, Any]) -> Iterator[Violation]:
    for detail in _details(found, "QuotaFailure"):
        for v in _list(detail.get("violations")):
            if isinstance(v, dict):
                yield Violation(
                    metric=_text(v.get("quotaMetric")),
                    quota_id=_text(v.get("quotaId")),
                    value=durations.duration_s(v.get("quotaValue")),
                    model=_strings(v.get("quotaDimensions")).get("model", ""),
                    description=_text(v.get("description")),
                )


def _links(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for detail in _details(found, "Help"):
        for link in _list(detail.get("links")):
            if isinstance(link, dict) and link.get("url"):
                yield _text(link.get("description")), _text(link.get("url"))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _strings(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    return {str(k).strip(): v if isinstance(v, str) else str(v) for k, v in value.items()}
