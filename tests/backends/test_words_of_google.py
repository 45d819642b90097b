"""Refusals as they come over the wire, byte for byte, and what each means on every backend that may send it.

`test_classify.py` holds the table of meanings over the fake's bodies; here are bodies written by hand, so that an error of
the fake's is not taken for a truth, and for each the sureness, the place it was read at, and the words for the user.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from gemini_poold.backends import build
from gemini_poold.config import Endpoints
from gemini_poold.core.model import Account, AccountState, Backend, Kind, Outcome, Scope

NOW = 1_795_000_000.0  # 2026-11-18 11:06:40 UTC
MIDNIGHT = 1_795_075_200.0  # 2026-11-19 00:00 in Los Angeles
GL, CA, VX = Backend.DEVELOPER_API, Backend.CODE_ASSIST, Backend.VERTEX
EVERY = (GL, CA, VX)
BACKENDS = build(Endpoints())
K, S, A = Kind, Scope, AccountState
RPC = "type.googleapis.com/google.rpc."
CLOUDCODE = "cloudcode-pa.googleapis.com"
DAY_S = 86_400.0


def info(reason: str, domain: str = "googleapis.com", **metadata: str) -> dict[str, Any]:
    return {"@type": RPC + "ErrorInfo", "reason": reason, "domain": domain, "metadata": metadata}


def retry(delay: object) -> dict[str, Any]:
    return {"@type": RPC + "RetryInfo", "retryDelay": delay}


def failure(*ids: str, value: str = "20", metric: str = "m") -> dict[str, Any]:
    violations = [{"quotaMetric": metric, "quotaId": i, "quotaValue": value} for i in ids]
    return {"@type": RPC + "QuotaFailure", "violations": violations}


def links(*pairs: tuple[str, str]) -> dict[str, Any]:
    return {"@type": RPC + "Help", "links": [{"description": d, "url": u} for d, u in pairs]}


def e(code: int, status: str, message: str, *details: Any, **more: Any) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "status": status, "details": list(details), **more}}


def full(message: str, *details: Any) -> dict[str, Any]:
    return e(429, "RESOURCE_EXHAUSTED", message, *details)


def no(message: str, *details: Any, **more: Any) -> dict[str, Any]:
    return e(403, "PERMISSION_DENIED", message, *details, **more)


def bad(message: str, *details: Any, status: str = "INVALID_ARGUMENT") -> dict[str, Any]:
    return e(400, status, message, *details)


@dataclass
class Row:
    """`at`: seconds from now, or an instant; None: no time. `source`: where it was read. `says`: in words for people."""

    name: str
    backends: tuple[Backend, ...]
    body: Any
    kind: Kind
    scope: Scope
    at: float | None = None
    told: bool = False
    source: str = ""
    says: str = ""
    state: AccountState | None = None
    url: str = ""
    status: int = 0
    headers: dict[str, str] | None = None


def rate(
    name: str, backends: Any, body: Any, at: float | None, told: bool, source: str = "", **more: Any
) -> Row:
    says = more.pop("says", "too many requests")
    return Row(name, backends, body, K.RATE, S.BUCKET_MODEL, at, told, source, says, **more)


def day(
    name: str, backends: Any, body: Any, at: float | None, told: bool, source: str = "", **more: Any
) -> Row:
    return Row(
        name, backends, body, K.DAILY, S.BUCKET_MODEL, at, told, source, more.pop("says", "used up"), **more
    )


def full_model(name: str, body: Any, at: float | None = None, told: bool = False, **more: Any) -> Row:
    says = more.pop("says", "the model is full")
    return Row(
        name, more.pop("backends", EVERY), body, K.CAPACITY, S.BACKEND_MODEL, at, told, says=says, **more
    )


def held(
    name: str, backends: Any, body: Any, state: AccountState, says: str, url: str = "", **more: Any
) -> Row:
    return Row(name, backends, body, K.ACCOUNT, S.ACCOUNT, state=state, says=says, url=url, **more)


def ours(name: str, backends: Any, body: Any, says: str = "", **more: Any) -> Row:
    return Row(name, backends, body, K.CLIENT, S.NONE, says=says, **more)


def broken(
    name: str, status: int, body: Any, at: float | None = None, told: bool = False, **more: Any
) -> Row:
    says = f"Google answers {status}"
    return Row(name, EVERY, body, K.TRANSIENT, S.ACCOUNT_MODEL, at, told, says=says, status=status, **more)


CAPACITY = "You have exhausted your capacity on this model."
RATE = "RATE_LIMIT_EXCEEDED"
PER = "GenerateRequestsPer{}PerProjectPerModel{}"
OLD = (
    "Quota exceeded for quota metric 'Gemini 2.5 Pro Requests' and limit 'Gemini 2.5 Pro Requests per {} per user per "
    "tier' of service 'cloudcode-pa.googleapis.com' for consumer 'project_number:1'."
)
CLASSIC = "aiplatform.googleapis.com/generate_content_requests_per_minute_per_project_per_base_model"
LICENCE = "https://cloud.google.com/gemini/docs/codeassist/request-license"
VERIFY = "https://accounts.google.com/signin/continue"
APPEAL = "https://forms.gle/appeal"
ENABLE = "https://console.developers.google.com/apis/api/x/overview?project=1"

QUOTA = [
    # ---- Code Assist's own words
    rate("text and RetryInfo", (CA,), full(f"{CAPACITY} Your quota will reset after 27s.", info(RATE, CLOUDCODE), retry("27s")), 27, True, "RetryInfo"),
    rate("text only", (CA,), full(f"{CAPACITY} Your quota will reset after 27s.", info(RATE, CLOUDCODE)), 27, True, "text"),
    rate("no time at all", (CA,), full(CAPACITY, info(RATE, CLOUDCODE)), None, False),
    rate("another domain's", EVERY, full("slow down", info(RATE, "staging-cloudcode-pa.googleapis.com"), retry("3s")), 3, True, "RetryInfo"),
    day("long, three places", (CA,), full(f"{CAPACITY} Your quota will reset after 19h14m47s.", info("QUOTA_EXHAUSTED", CLOUDCODE, model="gemini-2.5-pro", quotaResetDelay="19h14m47.123s", quotaResetTimeStamp="2026-11-19T06:21:27Z"), retry("69287.123s")), 69_287.123, True, "RetryInfo"),
    day("long, metadata only", (CA,), full(CAPACITY, info("QUOTA_EXHAUSTED", CLOUDCODE, quotaResetDelay="19h14m47.123s")), 69_287.123, True, "quotaResetDelay"),
    day("long, time stamp only", (CA,), full(CAPACITY, info("QUOTA_EXHAUSTED", CLOUDCODE, quotaResetTimeStamp="2026-11-18T16:06:40Z")), 18_000, True, "quotaResetTimeStamp"),
    day("long, text only", (CA,), full("Your quota will reset after 19h14m47s.", info("QUOTA_EXHAUSTED", CLOUDCODE)), 69_287, True, "text"),
    day("a week is not clipped", (CA,), full(CAPACITY, info("QUOTA_EXHAUSTED", CLOUDCODE, quotaResetDelay="167h59m59s")), 604_799, True, "quotaResetDelay"),
    day("a time stamp that has passed says nothing", (CA,), full(CAPACITY, info("QUOTA_EXHAUSTED", CLOUDCODE, quotaResetTimeStamp="2020-01-01T00:00:00Z")), None, False),
    day("credits", (CA,), full("low", info("INSUFFICIENT_G1_CREDITS_BALANCE", CLOUDCODE)), 3_600, False, says="credits"),
    rate("unknown", EVERY, full("Resource has been exhausted (e.g. check quota)."), None, False),
    day("old text, day", (CA,), full(OLD.format("day")), MIDNIGHT, True, "quotaId", says="per day"),
    rate("old text, minute", (CA,), full(OLD.format("minute")), 60, False, "quotaId", says="per minute"),
    day("old limit in metadata", (CA,), full("Quota exceeded", info(RATE, quota_limit="Requests per day per user per tier")), MIDNIGHT, True, "quotaId", says="per day"),
    # ---- the Developer API's names of quotas
    *(rate(f"minute{tier}", (GL,), full("Please retry in 44.09s.", failure(PER.format("Minute", tier)), retry("44s")), 44, True, "RetryInfo", says="per minute")
      for tier in ("", "-FreeTier", "-PaidTier", "-PaidTier2")),
    rate("tokens a minute", (GL,), full("x", failure("GenerateContentInputTokensPerModelPerMinute-FreeTier")), 60, False, "quotaId", says="per minute"),
    rate("tokens a minute, paid", (GL,), full("x", failure("GenerateContentPaidTierInputTokensPerModelPerMinute"), retry("9s")), 9, True, "RetryInfo", says="per minute"),
    day("a day beats 44 s", (GL,), full("Please retry in 44.097740004s.", failure(PER.format("Day", "-FreeTier")), retry("44s")), MIDNIGHT, True, "quotaId", says="per day"),
    day("a day beats a header", (GL,), full("x", failure(PER.format("Day", "-FreeTier"))), MIDNIGHT, True, "quotaId", says="per day", headers={"Retry-After": "44"}),
    day("tokens a day", (GL,), full("x", failure("GenerateContentInputTokensPerModelPerDay-FreeTier"), retry("1s")), MIDNIGHT, True, "quotaId", says="per day"),
    day("minute and day", (GL,), full("x", failure(PER.format("Minute", ""), PER.format("Day", "")), retry("2s")), MIDNIGHT, True, "quotaId", says="per day"),
    rate("embedding", (GL,), full("x", failure("EmbedContentRequestsPerMinutePerProjectPerModel-FreeTier")), 60, False, "quotaId", says="per minute"),
    day("embedding, day", (GL,), full("x", failure("EmbedContentRequestsPerDayPerProjectPerModel-FreeTier")), MIDNIGHT, True, "quotaId", says="per day"),
    rate("text only", (GL,), full("Please retry in 44.097740004s."), 44.097740004, True, "text"),
    Row("no access, value", (GL,), full("x", failure(PER.format("Day", "-FreeTier"), value="0"), retry("44s")), K.MODEL_DENIED, S.BUCKET_MODEL, DAY_S, False, "limit: 0", "no access"),
    Row("no access, text", (GL,), full("Quota exceeded for metric: x, limit: 0, model: gemini-3-pro"), K.MODEL_DENIED, S.BUCKET_MODEL, DAY_S, False, "limit: 0", "no access"),
    rate("half a limit is one", (GL,), full("limit: 0.5, model: x"), None, False),
    Row("spend", (GL,), full("You have exceeded your spend limit."), K.RATE, S.BUCKET, 600, False, "spend limit", "spending"),
    Row("spend, month", (GL,), full("Your project has exceeded its monthly spending cap."), K.DAILY, S.BUCKET, MIDNIGHT, False, "monthly cap", "spending"),
    # ---- Vertex
    rate("dynamic shared quota", (VX,), full("Resource exhausted, please try again later."), None, False),
    rate("provisioned throughput", (VX,), full("Too many requests. Exceeded the Provisioned Throughput."), None, False),
    rate("classic", (VX,), full(f"Quota exceeded for {CLASSIC} with base model: gemini-2.5-pro."), 60, False, "quotaId", says="per minute"),
    rate("classic, unit", (VX,), full("Quota exceeded.", info(RATE, quota_unit="1/min/{project}/{base_model}", quota_limit_value="60")), 60, False, "quotaId", says="per minute"),
    # ---- interactions
    rate("string code", (GL,), {"error": {"code": "rate_limit_exceeded", "message": "slow"}}, None, False, status=429),
    day("string code, long", (GL,), {"error": {"code": "quota_exceeded", "message": "gone"}}, None, False, status=429),
    # ---- the fleet is full: for every account, whatever the status
    *(full_model(f"{reason}, {code}", e(code, "UNAVAILABLE" if code == 503 else "RESOURCE_EXHAUSTED", "No capacity available for model x on the server", info(reason, CLOUDCODE), retry("9s")), 9, True, source="RetryInfo")
      for reason in ("MODEL_CAPACITY_EXHAUSTED", "MODEL_CAPACITY_EXCEEDED") for code in (429, 503)),
    full_model("no time", full("No capacity available for model x on the server", info("MODEL_CAPACITY_EXHAUSTED", CLOUDCODE))),
    full_model("overloaded", e(503, "UNAVAILABLE", "The model is overloaded. Please try again later."), says="overloaded"),
    full_model("overloaded, 529", e(529, "UNAVAILABLE", "The model is overloaded."), says="overloaded"),
    full_model("a captcha page, 429", b"<html><head><title>Sorry...</title></head>unusual traffic</html>", status=429, says="network"),
    full_model("a captcha page, 403", b"<!DOCTYPE html><html>Sorry</html>", status=403, says="network"),
]  # fmt: skip

# One refusal, its time told in every place and form, in order of trust.
TIMES = [
    ("retry-after-ms", {"retry-after-ms": "3500", "Retry-After": "9"}, [retry("27s")], "", 3.5, "retry-after-ms"),
    ("seconds", {"Retry-After": "9"}, [retry("27s")], "", 9, "Retry-After"),
    ("fraction", {"retry-after": "0.75"}, [], "", 0.75, "Retry-After"),
    ("date", {"Retry-After": "Wed, 18 Nov 2026 11:07:40 GMT"}, [], "", 60, "Retry-After"),
    ("a date that has passed", {"Retry-After": "Wed, 18 Nov 2020 11:07:40 GMT"}, [retry("5s")], "", 5, "RetryInfo"),
    *((form, {}, [retry(form)], "", seconds, "RetryInfo") for form, seconds in (
        ("34.074824224s", 34.074824224), ("9s", 9), ("900ms", 0.9), ("539.477544ms", 0.539477544), ("68940s", 68_940),
        ("1h16m0.667s", 4_560.667), ("19h14m47s", 69_287), ("12h3m4s", 43_384),
    )),
    ("seconds and nanos", {}, [retry({"seconds": 34, "nanos": 74_000_000})], "", 34.074, "RetryInfo"),
    ("seconds as text", {}, [retry({"seconds": "34"})], "", 34, "RetryInfo"),
    ("RetryInfo before metadata", {}, [info(RATE, quotaResetDelay="7s"), retry("5s")], "after 3s", 5, "RetryInfo"),
    ("metadata before text", {}, [info(RATE, quotaResetDelay="7s")], "after 3s", 7, "quotaResetDelay"),
    ("instant before text", {}, [info(RATE, quotaResetTimeStamp="2026-11-18T11:06:50.5Z")], "after 3s", 10.5, "quotaResetTimeStamp"),
    *((text, {}, [], text, seconds, "text") for text, seconds in (
        ("Please retry in 44.09s", 44.09), ("reset after 19h14m47s", 69_287), ("after 27s", 27), ("retry after 5 seconds", 5),
        ("Please retry in 539.4ms", 0.5394),
    )),
    ("beyond all reason", {}, [retry("99999999s")], "", 8 * DAY_S, "RetryInfo"),
    ("nonsense before sense", {"Retry-After": "99999999"}, [retry("5s")], "", 5, "RetryInfo"),
]  # fmt: skip

HELD = [
    # ---- Code Assist refuses an account, and says where to go
    held("no licence", (CA,), no("licence missing (#3501)", info("SUBSCRIPTION_REQUIRED", "cloudaicompanion.googleapis.com", uiMessage="true"), links(("Request a licence", LICENCE))), A.UNLICENSED, "licence", LICENCE),
    held("no licence, code only", (CA,), no("The project lacks a licence. (#3501)"), A.UNLICENSED, "licence"),
    held("individuals", (CA,), no("This client is no longer supported for individuals, use Antigravity.", info("SUBSCRIPTION_REQUIRED", CLOUDCODE)), A.UNSUPPORTED_CLIENT, "clients only"),
    *(held(f"verify, {host}", (CA,), no("verify", info("VALIDATION_REQUIRED", host), links(("Learn more", "https://x.example/more"), ("Help", "https://support.google.com/a"), ("Verify", VERIFY))), A.NEEDS_VALIDATION, "verified", VERIFY)
      for host in (CLOUDCODE, f"staging-{CLOUDCODE}", f"autopush-{CLOUDCODE}", f" {CLOUDCODE}\u200b")),
    held("verify, metadata", (CA,), no("verify", info("VALIDATION_REQUIRED", CLOUDCODE, validation_link=VERIFY)), A.NEEDS_VALIDATION, "verified", VERIFY),
    held("suspended", (CA,), no("terms", info("TOS_VIOLATION", CLOUDCODE, uiMessage="true", appeal_url=APPEAL, appeal_url_link_text="Appeal")), A.SUSPENDED, "suspended", APPEAL),
    held("suspended, old form", (CA,), {"error": {"code": 403, "message": "This service has been disabled in this account for violation of Terms of Service.", "errors": [{"message": "x", "domain": "global", "reason": "forbidden"}]}}, A.SUSPENDED, "suspended"),
    held("API off", EVERY, no("x has not been used", info("SERVICE_DISABLED", service="x", consumer="projects/1", activationUrl=ENABLE), links(("enable", ENABLE))), A.MISCONFIGURED, "switched off", ENABLE),
    held("wrong project", EVERY, no("x", info("CONSUMER_INVALID", consumer="projects/x")), A.MISCONFIGURED, "does not know this project"),
    held("another's project", EVERY, no("x", info("USER_PROJECT_DENIED", consumer="projects/x")), A.MISCONFIGURED, "may not use the project"),
    held("a role is missing", (CA,), no("Permission 'cloudaicompanion.companions.generateChat' denied on resource '//x' (or it may not exist)."), A.MISCONFIGURED, ""),
    held("VPC-SC", EVERY, no("x", {"@type": RPC + "PreconditionFailure", "reason": "SECURITY_POLICY_VIOLATED"}), A.MISCONFIGURED, "service controls"),
    held("billing", EVERY, no("x", info("BILLING_DISABLED")), A.MISCONFIGURED, "billing"),
    # ---- keys
    held("bad key", (GL, VX), bad("API key not valid. Please pass a valid API key.", info("API_KEY_INVALID", service="x")), A.DEAD, "refuses this API key"),
    held("expired key", (GL, VX), bad("API key expired. Please renew the API key.", info("API_KEY_INVALID", service="x")), A.DEAD, "refuses this API key"),
    held("key, service", (GL,), no("x", info("API_KEY_SERVICE_BLOCKED")), A.MISCONFIGURED, "other APIs"),
    held("key, address", (GL,), no("x", info("API_KEY_IP_ADDRESS_BLOCKED")), A.MISCONFIGURED, "other addresses"),
    held("key, referrer", (GL,), no("x", info("API_KEY_HTTP_REFERRER_BLOCKED")), A.MISCONFIGURED, "websites"),
    held("leaked", (GL,), no("Your API key was reported as leaked. Please use another API key."), A.DEAD, "leaked"),
    held("project denied", (GL,), no("Your project has been denied access. Please contact support."), A.SUSPENDED, "denies the project"),
    held("location", (GL,), bad("User location is not supported for the API use.", status="FAILED_PRECONDITION"), A.MISCONFIGURED, "from here"),
    held("no free tier here", (GL,), bad("Gemini API free tier is not available in your country. Please enable billing.", status="FAILED_PRECONDITION"), A.MISCONFIGURED, "from here"),
    held("pay", (GL,), {"error": {"code": "payment_required", "message": "x"}}, A.MISCONFIGURED, "billing", status=402),
]  # fmt: skip

STATUS = [
    ours("malformed", EVERY, bad('Invalid JSON payload received. Unknown name "x".'), "Invalid JSON payload"),
    ours("context too long", EVERY, bad("The input token count (2000000) exceeds the maximum number of tokens allowed (1048576)."), "exceeds the maximum"),
    ours("signature", EVERY, bad("Corrupted thought signature."), "signature"),
    ours("too large, 400", EVERY, bad("Request payload size exceeds the limit: 20971520 bytes."), "payload size"),
    ours("too large, 413", EVERY, e(413, "", "Request Entity Too Large"), "Too Large"),
    ours("range", EVERY, e(416, "OUT_OF_RANGE", "x")),
    ours("another's file", (GL,), no("You do not have permission to access the File abc or it may not exist."), "another account"),
    ours("another's cache", (GL, VX), no("CachedContent not found (or permission denied)"), "another account"),
    ours("expired cache", (GL, VX), e(404, "NOT_FOUND", "Cached content 12 not found."), "no such"),
    ours("expired interaction", (GL,), e(404, "NOT_FOUND", "Interaction int_1 not found."), "no such"),
    *(Row(f"token, {reason}", EVERY, e(401, "UNAUTHENTICATED", "x", info(reason)), K.UNAUTHENTICATED, S.ACCOUNT, says="refuses the token", source=reason)
      for reason in ("ACCESS_TOKEN_EXPIRED", "CREDENTIALS_MISSING", "ACCESS_TOKEN_TYPE_UNSUPPORTED")),
    Row("token, empty body", EVERY, b"", K.UNAUTHENTICATED, S.ACCOUNT, says="refuses the token", status=401),
    Row("unknown model", EVERY, e(404, "NOT_FOUND", "Requested entity was not found."), K.MODEL_DENIED, S.ACCOUNT_MODEL, 3_600, False, says="not found"),
    Row("one model is not for it", (GL, CA), no("The caller does not have permission"), K.MODEL_DENIED, S.ACCOUNT_MODEL, 3_600, False, says="permission"),
    broken("408", 408, e(408, "", "x")),
    broken("409", 409, e(409, "ABORTED", "x")),
    broken("499", 499, e(499, "CANCELLED", "The operation was cancelled.")),
    broken("500", 500, e(500, "INTERNAL", "An internal error has occurred.")),
    broken("500 unknown", 500, e(500, "UNKNOWN", "x")),
    broken("502 page", 502, b"<html>502 Bad Gateway</html>"),
    broken("502 empty", 502, b""),
    broken("503 with a time", 503, e(503, "UNAVAILABLE", "The service is currently unavailable."), 7, True, headers={"Retry-After": "7"}),
    broken("504", 504, e(504, "DEADLINE_EXCEEDED", "Deadline expired before operation could complete.")),
    broken("529 empty", 529, b""),
]  # fmt: skip


def outcome_of(
    backend: Backend, body: Any, status: int = 0, headers: dict[str, str] | None = None
) -> Outcome:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    status = status or body["error"]["code"]
    return BACKENDS[backend].classify(
        status, headers or {}, raw, model="gemini-2.5-pro", now=NOW, account=Account("a", backend)
    )


CASES = [
    pytest.param(row, backend, id=f"{backend.form}: {row.name}")
    for row in (*QUOTA, *HELD, *STATUS)
    for backend in row.backends
]


@pytest.mark.parametrize(("row", "backend"), CASES)
def test_row(row: Row, backend: Backend) -> None:
    """Scope, kind, until when, how sure, read where, what the account becomes, and the words for the user."""
    found = outcome_of(backend, row.body, row.status, row.headers)
    assert (found.kind, found.scope, found.state, found.url) == (row.kind, row.scope, row.state, row.url)
    at = row.at if row.at is None or row.at > NOW else NOW + row.at
    assert found.until == (at if at is None else pytest.approx(at, abs=0.01))
    assert found.told is row.told
    assert row.source in ("", found.source)
    assert row.says.lower() in found.reason.lower()
    assert found.reason


@pytest.mark.parametrize(("row", "backend"), CASES)
def test_nobody_is_blamed_for_the_clients_fault(row: Row, backend: Backend) -> None:
    """What is the request's own fault rests nothing and is sent to nobody else; anything else may be."""
    found = outcome_of(backend, row.body, row.status, row.headers)
    mine = row.kind is K.CLIENT
    assert (found.rotate, found.scope is S.NONE) == (not mine, mine)
    assert found.until is None or not mine


@pytest.mark.parametrize("backend", EVERY)
@pytest.mark.parametrize(
    ("headers", "details", "text", "seconds", "source"), [t[1:] for t in TIMES], ids=[t[0] for t in TIMES]
)
def test_every_form_and_place_of_a_time(
    backend: Backend, headers: dict[str, str], details: list[Any], text: str, seconds: float, source: str
) -> None:
    """The most trusted place wins, in whatever form; the absurd is bounded, many hours are not."""
    found = outcome_of(backend, full(text or "x", *details), 429, headers)
    assert found.until == pytest.approx(NOW + seconds, abs=1e-3)
    assert (found.told, found.source, found.kind) == (True, source, K.RATE)


def _nested(body: Any, depth: int) -> Any:
    for _ in range(depth):
        body = {"error": {"code": 429, "message": json.dumps(body), "status": "RESOURCE_EXHAUSTED"}}
    return body


PLAIN = full("Your quota will reset after 27s.", info(RATE, CLOUDCODE), retry("27s"))
ENVELOPES: dict[str, bytes] = {
    "plain": json.dumps(PLAIN).encode(),
    "array": json.dumps([PLAIN]).encode(),
    "one deep": json.dumps(_nested(PLAIN, 1)).encode(),
    "seven deep": json.dumps(_nested(PLAIN, 7)).encode(),
    "array, nested": json.dumps([_nested(PLAIN, 2)]).encode(),
    "no-break spaces and line ends": json.dumps(
        {"error": {"message": json.dumps(PLAIN, indent=2).replace("  ", "\u00a0\u00a0") + "\n"}}
    ).encode(),
    "doubled commas": json.dumps(PLAIN).replace(', "status"', ',, "status"').encode(),
    "blanks around @type": json.dumps(PLAIN).replace('"@type"', '" @type "').encode(),
    "stray characters in the domain": json.dumps(PLAIN).replace(CLOUDCODE, f"{CLOUDCODE}\\u200b;").encode(),
    "no code": json.dumps({"error": {k: v for k, v in PLAIN["error"].items() if k != "code"}}).encode(),
    "sse": b"data: " + json.dumps(PLAIN).encode() + b"\n\n",
}


@pytest.mark.parametrize("backend", EVERY)
@pytest.mark.parametrize("name", list(ENVELOPES))
def test_every_envelope(backend: Backend, name: str) -> None:
    """However it is wrapped, one refusal is read the same."""
    found = outcome_of(backend, ENVELOPES[name], 429)
    assert (found.kind, found.scope, found.until, found.told) == (K.RATE, S.BUCKET_MODEL, NOW + 27, True)


@pytest.mark.parametrize("backend", EVERY)
@pytest.mark.parametrize("dress", ["bare", "array", "event_type"])
def test_inside_a_stream(backend: Backend, dress: str) -> None:
    """An error that comes as an event of a 200 means what it would have meant with its status."""

    def event(body: Any) -> Outcome | None:
        value = {"bare": body, "array": [body], "event_type": {"event_type": "error", **body}}[dress]
        account = Account("a", backend)
        return BACKENDS[backend].classify_event(
            json.dumps(value).encode(), model="m", now=NOW, account=account
        )

    for body, kind in (
        (e(503, "UNAVAILABLE", "The model is overloaded. Please try again later."), K.CAPACITY),
        (e(500, "INTERNAL", "x"), K.TRANSIENT),
        (PLAIN, K.RATE),
        (e(401, "UNAUTHENTICATED", "x"), K.UNAUTHENTICATED),
        (bad("Corrupted thought signature."), K.CLIENT),
    ):
        found = event(body)
        assert found is not None
        assert found.kind is kind


@pytest.mark.parametrize("backend", EVERY)
@pytest.mark.parametrize(
    "reason", ["SAFETY", "OTHER", "BLOCKLIST", "PROHIBITED_CONTENT", "IMAGE_SAFETY", "JAILBREAK"]
)
def test_blocked_is_an_answer(backend: Backend, reason: str) -> None:
    """A blocked prompt is complete, no error and no account's fault."""
    answer: Any = {"promptFeedback": {"blockReason": reason}}
    payload = json.dumps({"response": answer} if backend is CA else answer).encode()
    impl = BACKENDS[backend]
    assert impl.classify_event(payload, model="m", now=NOW, account=Account("a", backend)) is None
    assert impl.read(payload).finished
    assert impl.classify(200, {}, payload, model="m", now=NOW, account=Account("a", backend)).kind is K.OK
