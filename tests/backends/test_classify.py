"""What every refusal of Google's means: a row here for each one known, on the backend that sends it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import isclose

import pytest

from gemini_poold.backends import build, refusals
from gemini_poold.config import Endpoints
from gemini_poold.core.model import Account, AccountState, Backend, Kind, Outcome, Scope
from gemini_poold.errors import UpstreamFailure
from gemini_poold.fake import replies as r

NOW = 1_795_000_000.0  # 2026-11-18 11:06:40 UTC = 03:06:40 in Los Angeles
MIDNIGHT = 1_795_075_200.0  # 2026-11-19 08:00:00 UTC
MODEL = "gemini-3-flash"
GL, CA, VX = Backend.DEVELOPER_API, Backend.CODE_ASSIST, Backend.VERTEX
BACKENDS = build(Endpoints())
K, S, A = Kind, Scope, AccountState


def classify(backend, body, status=None, headers=None) -> Outcome:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    if status is None:
        status = (body[0] if isinstance(body, list) else body)["error"]["code"]
    account = Account("a", backend)
    return BACKENDS[backend].classify(status, headers or {}, raw, model=MODEL, now=NOW, account=account)


@dataclass
class Row:
    name: str
    backend: Backend
    body: object
    kind: Kind
    scope: Scope
    until: float | None = None
    told: bool = False
    state: AccountState | None = None
    url: str = ""
    status: int | None = None
    window: str = ""
    headers: dict | None = None


def quota(name, backend, body, until, told, **more):
    return Row(name, backend, body, more.pop("kind", K.RATE), S.BUCKET_MODEL, until, told, **more)


def held(name, backend, body, state, url="", **more):
    return Row(name, backend, body, K.ACCOUNT, S.ACCOUNT, None, False, state, url, **more)


def denied(name, backend, body, **more):
    return Row(name, backend, body, K.MODEL_DENIED, S.ACCOUNT_MODEL, NOW + 3600, **more)


def error(code, message, *details, **more):
    return {
        "error": {"code": code, "message": message, **({"details": list(details)} if details else {}), **more}
    }


LICENCE = "https://cloud.google.com/gemini/docs/codeassist/request-license"
VERIFY = "https://accounts.google.com/verify/fake"
MONTHLY = error(429, "Your project has reached its monthly spending cap.")
INTERACTION = {"error": {"code": "rate_limit_exceeded", "message": "slow down"}}

ROWS = [
    # ---- 429, Code Assist
    quota("short", CA, r.ca_rate_limited("27s"), NOW + 27, True),
    quota("short, text only", CA, r.ca_rate_limited("2s", details=False), NOW + 2, True),
    quota("short, no hint", CA, r.ca_rate_limited(None), None, False),
    quota("long", CA, r.ca_quota_exhausted(), NOW + 69_287.123, True, kind=K.DAILY),
    quota("long, stamp only", CA, r.ca_quota_exhausted("", resets_at=NOW + 5000, retry=None), NOW + 5000, True, kind=K.DAILY),
    quota("long, short RetryInfo", CA, r.ca_quota_exhausted("5h", retry="9s"), NOW + 18_000, True, kind=K.DAILY),
    quota("long, no hint", CA, error(429, "gone", r.info("QUOTA_EXHAUSTED", "cloudcode-pa.googleapis.com")), None, False, kind=K.DAILY),
    Row("capacity", CA, r.capacity("9s"), K.CAPACITY, S.BACKEND_MODEL, NOW + 9, True),
    Row("capacity exceeded, 503", CA, r.capacity("9s", code=503, reason="MODEL_CAPACITY_EXCEEDED"), K.CAPACITY, S.BACKEND_MODEL, NOW + 9, True),
    Row("capacity, no hint", CA, r.capacity(None), K.CAPACITY, S.BACKEND_MODEL),
    Row("capacity, text only", CA, error(429, f"No capacity available for model {MODEL} on the server"), K.CAPACITY, S.BACKEND_MODEL),
    quota("credits", CA, r.credits_gone(), NOW + 3600, False, kind=K.DAILY),
    Row("at once, by its quota", VX, error(429, "Quota exceeded", r.quota_failure({"quotaId": "ConcurrentRequestsPerProjectPerModel"})), K.CONCURRENCY, S.ACCOUNT_MODEL),
    Row("at once, by its metadata", CA, error(429, "Quota exceeded", r.info("RATE_LIMIT_EXCEEDED", "x", quota_metric="x/concurrent_requests"), r.retry_info("3s")), K.CONCURRENCY, S.ACCOUNT_MODEL, NOW + 3, True),
    Row("at once, text only", GL, error(429, "Too many concurrent requests", status="RESOURCE_EXHAUSTED"), K.CONCURRENCY, S.ACCOUNT_MODEL),
    quota("a rate whose text speaks of concurrency", GL, error(429, "Lower your concurrency", r.quota_failure({"quotaId": "GenerateRequestsPerMinutePerProjectPerModel"})), NOW + 60, False, window="requests/minute"),
    quota("no details", CA, r.bare_exhausted(), None, False),
    quota("old text, day", CA, r.ca_old_quota("day"), MIDNIGHT, True, kind=K.DAILY, window="requests/day"),
    quota("old text, minute", CA, r.ca_old_quota("minute"), NOW + 60, False, window="requests/minute"),
    quota("array", CA, r.array_wrapped(r.ca_rate_limited("27s")), NOW + 27, True),
    quota("nested", CA, r.nested(r.ca_rate_limited("27s"), 3), NOW + 27, True),
    quota("mangled", CA, r.mangled(r.ca_rate_limited("27s")), NOW + 27, True, status=429),
    quota("header only", CA, b"", NOW + 3, True, status=429, headers={"Retry-After": "3"}),
    quota("header before body", CA, r.ca_rate_limited("27s"), NOW + 3.5, True, headers={"retry-after-ms": "3500"}),
    # ---- 429, Developer API
    quota("minute", GL, r.gl_quota("rpm", 10, retry="44s"), NOW + 44, True, window="requests/minute"),
    quota("minute, no hint", GL, r.gl_quota("rpm", 10, retry=None), NOW + 60, False, window="requests/minute"),
    quota("minute, paid", GL, r.gl_quota("rpm", 1000, tier="PaidTier1"), NOW + 44, True, window="requests/minute"),
    quota("minute, no suffix", GL, r.gl_quota("rpm", 1000, tier=""), NOW + 44, True, window="requests/minute"),
    quota("minute, tokens", GL, r.gl_quota("tpm", 250_000), NOW + 44, True, window="tokens/minute"),
    quota("day beats a short RetryInfo", GL, r.gl_quota("rpd", 20, retry="44s"), MIDNIGHT, True, kind=K.DAILY, window="requests/day"),
    quota("day, no hint", GL, r.gl_quota("rpd", 20, retry=None), MIDNIGHT, True, kind=K.DAILY, window="requests/day"),
    quota("day, tokens", GL, r.gl_quota("tpd", 9), MIDNIGHT, True, kind=K.DAILY, window="tokens/day"),
    quota("day, an honest RetryInfo", GL, r.gl_quota("rpd", 20, retry="19h"), NOW + 68_400, True, kind=K.DAILY, window="requests/day"),
    quota("several: the longest decides", GL, r.gl_quotas(("rpm", 10), ("rpd", 20)), MIDNIGHT, True, kind=K.DAILY, window="requests/day"),
    Row("limit zero", GL, r.gl_quota("rpd", 0), K.MODEL_DENIED, S.BUCKET_MODEL, NOW + 86_400),
    Row("limit zero, text", GL, error(429, "limit: 0, model: x"), K.MODEL_DENIED, S.BUCKET_MODEL, NOW + 86_400),
    Row("spend", GL, r.spend_limit(), K.RATE, S.BUCKET, NOW + 600),
    Row("spend, month", GL, MONTHLY, K.DAILY, S.BUCKET, MIDNIGHT),
    quota("interactions, short", GL, INTERACTION, None, False, status=429),
    quota("interactions, long", GL, {"error": {"code": "quota_exceeded", "message": "x"}}, None, False, status=429, kind=K.DAILY),
    quota("old API form", GL, error(403, "x", errors=[{"reason": "rateLimitExceeded", "domain": "usageLimits"}]), None, False),
    # ---- 429, Vertex
    quota("dynamic shared quota", VX, r.vx_exhausted(), None, False),
    quota("provisioned throughput", VX, r.vx_provisioned(), None, False),
    quota("classic", VX, r.vx_quota(), NOW + 60, False, window="requests/minute"),
    quota("classic, hint", VX, r.vx_quota(retry="8s"), NOW + 8, True, window="requests/minute"),
    quota("classic, text only", VX, error(429, r.vx_quota()["error"]["message"]), NOW + 60, False, window="requests/minute"),
    # ---- 400
    Row("malformed", GL, r.invalid_argument(), K.CLIENT, S.NONE),
    Row("unknown field", VX, r.unknown_field("x"), K.CLIENT, S.NONE),
    Row("signature", CA, r.signature_corrupted(), K.CLIENT, S.NONE),
    Row("too large", GL, r.payload_too_large(), K.CLIENT, S.NONE),
    Row("too large, 413", GL, r.payload_too_large(413), K.CLIENT, S.NONE),
    held("bad key", GL, r.api_key_invalid(), A.DEAD),
    held("expired key", GL, r.api_key_invalid(expired=True), A.DEAD),
    held("bad key, text only", GL, error(400, "API key not valid. Please pass a valid API key."), A.DEAD),
    held("location", GL, r.location_unsupported(), A.MISCONFIGURED),
    held("no free tier", GL, r.billing_off(), A.MISCONFIGURED),
    Row("file not ready", GL, error(400, "The File is not in an ACTIVE state.", status="FAILED_PRECONDITION"), K.CLIENT, S.NONE),
    # ---- 401, 402
    Row("token expired", CA, r.unauthenticated(), K.UNAUTHENTICATED, S.ACCOUNT),
    Row("no credential", VX, r.unauthenticated("CREDENTIALS_MISSING"), K.UNAUTHENTICATED, S.ACCOUNT),
    Row("key type", GL, r.unauthenticated("ACCESS_TOKEN_TYPE_UNSUPPORTED"), K.UNAUTHENTICATED, S.ACCOUNT),
    Row("401 without a body", CA, b"", K.UNAUTHENTICATED, S.ACCOUNT, status=401),
    Row("interactions, 401", GL, {"error": {"code": "authentication", "message": "x"}}, K.UNAUTHENTICATED, S.ACCOUNT, status=401),
    held("pay", GL, {"error": {"code": "payment_required", "message": "x"}}, A.MISCONFIGURED, status=402),
    # ---- 403, everywhere
    held("API off", CA, r.service_disabled(), A.MISCONFIGURED, "https://console.developers.google.com/apis/api/cloudaicompanion.googleapis.com/overview?project=100000000001"),
    held("billing off", VX, r.billing_disabled(), A.MISCONFIGURED),
    held("wrong project", CA, r.consumer_invalid(), A.MISCONFIGURED),
    held("project denied to user", GL, r.user_project_denied(), A.MISCONFIGURED),
    held("VPC-SC", CA, r.security_policy(), A.MISCONFIGURED),
    held("scope missing", GL, error(403, "Request had insufficient authentication scopes.", r.info("ACCESS_TOKEN_SCOPE_INSUFFICIENT", "googleapis.com")), A.LOGIN_REQUIRED),
    denied("one model", GL, r.permission_denied()),
    denied("one model, Code Assist", CA, r.permission_denied()),
    denied("a role is missing", VX, r.permission_denied("aiplatform.endpoints.predict", "//aiplatform.googleapis.com/x")),
    # ---- 403, Developer API
    held("key for other APIs", GL, r.api_key_blocked(), A.MISCONFIGURED),
    held("key for other addresses", GL, r.api_key_blocked("API_KEY_IP_ADDRESS_BLOCKED"), A.MISCONFIGURED),
    held("key for websites", GL, r.api_key_blocked("API_KEY_HTTP_REFERRER_BLOCKED"), A.MISCONFIGURED),
    held("leaked", GL, r.key_leaked(), A.DEAD),
    held("project denied", GL, r.project_denied(), A.SUSPENDED),
    held("no identity", GL, r.unregistered_caller(), A.DEAD),
    Row("foreign file", GL, r.foreign_file(), K.CLIENT, S.NONE),
    Row("foreign cache", GL, error(403, "CachedContent not found (or permission denied)"), K.CLIENT, S.NONE),
    Row("foreign cache, Vertex", VX, error(403, "Permission denied on cached content 12"), K.CLIENT, S.NONE),
    # ---- 403, Code Assist
    held("no licence", CA, r.subscription_required(), A.UNLICENSED, LICENCE),
    held("project without licence", CA, r.subscription_required(project="p"), A.UNLICENSED, LICENCE),
    held("no licence, text only", CA, error(403, "licence missing (#3501)"), A.UNLICENSED),
    held("individuals", CA, error(403, "This client is no longer supported for individuals. (#3501)", r.info("SUBSCRIPTION_REQUIRED", "cloudaicompanion.googleapis.com")), A.UNSUPPORTED_CLIENT),
    held("verify", CA, r.validation_required(), A.NEEDS_VALIDATION, VERIFY),
    held("verify, metadata only", CA, r.validation_required(links=False), A.NEEDS_VALIDATION, VERIFY),
    held("suspended", CA, r.tos_violation(), A.SUSPENDED, "https://forms.google.com/fake-appeal"),
    held("suspended, old form", CA, r.tos_violation_old(), A.SUSPENDED),
    held("permission", CA, r.permission_denied("cloudaicompanion.companions.generateChat", "//x"), A.MISCONFIGURED),
    Row("flagged network", CA, r.sorry_page(), K.CAPACITY, S.BACKEND_MODEL, status=403),
    Row("flagged network, 429", GL, r.sorry_page(), K.CAPACITY, S.BACKEND_MODEL, status=429),
    # ---- 404
    denied("unknown model, Code Assist", CA, r.not_found()),
    denied("unknown model", GL, r.gl_model_not_found("x", "v1beta", "generateContent")),
    denied("unknown model, Vertex", VX, r.vx_model_not_found("p", "global", "x")),
    denied("unknown model, interactions", GL, {"error": {"code": "model_not_found", "message": "x"}}, status=404),
    Row("expired cache", GL, error(404, "CachedContent not found"), K.CLIENT, S.NONE),
    Row("unknown interaction", GL, error(404, "Interaction int_1 not found."), K.CLIENT, S.NONE),
    Row("not Google's 404", GL, r.error_page(404), K.TRANSIENT, S.ACCOUNT_MODEL, status=404),
    # ---- the rest
    Row("408", GL, error(408, "x"), K.TRANSIENT, S.ACCOUNT_MODEL),
    Row("409", GL, error(409, "x", status="ABORTED"), K.TRANSIENT, S.ACCOUNT_MODEL),
    Row("416", GL, error(416, "x"), K.CLIENT, S.NONE),
    Row("499", CA, r.cancelled(), K.TRANSIENT, S.ACCOUNT_MODEL),
    Row("500", GL, r.internal(), K.TRANSIENT, S.ACCOUNT_MODEL),
    Row("500, page", VX, r.error_page(500), K.TRANSIENT, S.ACCOUNT_MODEL, status=500),
    Row("502", CA, b"Bad Gateway", K.TRANSIENT, S.ACCOUNT_MODEL, status=502),
    Row("503 overloaded", GL, r.overloaded(), K.CAPACITY, S.BACKEND_MODEL),
    Row("503", VX, error(503, "Service unavailable.", status="UNAVAILABLE"), K.TRANSIENT, S.ACCOUNT_MODEL),
    Row("503, Retry-After", VX, error(503, "x"), K.TRANSIENT, S.ACCOUNT_MODEL, NOW + 7, True, headers={"retry-after": "7"}),
    Row("504", GL, r.deadline_exceeded(), K.TRANSIENT, S.ACCOUNT_MODEL),
    Row("529", CA, r.overloaded(529), K.CAPACITY, S.BACKEND_MODEL),
    Row("redirect", GL, b"", K.TRANSIENT, S.ACCOUNT_MODEL, status=302),
    Row("absurd time", CA, r.ca_rate_limited("999999999s"), K.RATE, S.BUCKET_MODEL, NOW + 8 * 86_400, True),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.backend.form}: {row.name}")
def test_row(row):
    """Kind, scope, time, its origin, state and page, as the row says."""
    outcome = classify(row.backend, row.body, row.status, row.headers)
    assert (outcome.kind, outcome.scope) == (row.kind, row.scope)
    assert outcome.until == row.until or (
        outcome.until is not None
        and row.until is not None
        and isclose(outcome.until, row.until, abs_tol=0.01)
    )
    assert (outcome.told, outcome.state, outcome.url) == (row.told, row.state, row.url)
    assert outcome.quota_window == row.window


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.backend.form}: {row.name}")
def test_who_is_to_blame(row):
    """The request's own fault goes nowhere else and rests nobody; all else may be served by another account."""
    outcome = classify(row.backend, row.body, row.status, row.headers)
    mine = outcome.kind is K.CLIENT
    assert outcome.rotate is not mine
    assert (outcome.scope is S.NONE) is mine
    assert outcome.reason
    assert "\n" not in outcome.reason


@pytest.mark.parametrize("row", [row for row in ROWS if row.state], ids=lambda row: row.name)
def test_same_without_details_of_transport(row):
    """A held state is read the same from an array, and from a message that holds the error as text."""
    if isinstance(row.body, dict) and "status" in row.body["error"]:
        for body in (r.array_wrapped(row.body), r.nested(row.body, 2)):
            assert classify(row.backend, body).state is row.state


def test_quota_value():
    """A limit that a refusal tells is kept for the pool to learn from."""
    assert classify(GL, r.gl_quota("rpm", 10)).quota_value == 10
    assert classify(VX, r.vx_quota(limit=60)).quota_value == 60
    assert classify(GL, r.gl_quotas(("rpm", 10), ("rpd", 250))).quota_value == 250
    assert classify(GL, r.gl_quota("rpd", 0)).limit_zero


def test_signature_is_marked():
    """A refused thought signature can be told from other bad requests, because it may be cured."""
    for words in (
        "Corrupted thought signature.",
        "Function call is missing a thought_signature in functionCall parts.",
    ):
        assert classify(GL, error(400, words)).source == refusals.SIGNATURE_SOURCE
    assert classify(GL, r.invalid_argument()).source != refusals.SIGNATURE_SOURCE


@pytest.mark.parametrize("backend", [GL, CA, VX])
@pytest.mark.parametrize("status", [200, 201])
def test_success(backend, status):
    """A 2xx is a success."""
    outcome = classify(backend, b"{}", status)
    assert (outcome.kind, outcome.status) == (K.OK, status)


@pytest.mark.parametrize("backend", [GL, CA, VX])
def test_event(backend):
    """An error inside a stream is read like one with a status; any other event is none."""
    backend_ = BACKENDS[backend]
    account = Account("a", backend)

    def outcome(value):
        payload = json.dumps(value).encode()
        return backend_.classify_event(payload, model=MODEL, now=NOW, account=account)

    overloaded = outcome(r.overloaded())
    assert (overloaded.kind, overloaded.status) == (K.CAPACITY, 503)
    assert outcome([r.rate_limited("9s")]).until == NOW + 9
    assert outcome({"error": {"message": "?"}}).kind is K.TRANSIENT
    text = {"candidates": [{"content": {"parts": [{"functionCall": {"args": {"error": 1}}}]}}]}
    assert outcome(text) is None
    assert outcome({"response": text}) is None


@pytest.mark.parametrize("kind", ["refused", "reset", "timeout", "dns", "tls", "closed", "other"])
@pytest.mark.parametrize("sent", [False, True])
def test_failure(kind, sent):
    """A network failure rests the account shortly and rotates; before sending it is not about the model."""
    outcome = refusals.of_failure(UpstreamFailure("host: broke", kind=kind, sent=sent))
    assert (outcome.kind, outcome.until, outcome.rotate) == (K.TRANSIENT, None, True)
    assert outcome.scope is (S.ACCOUNT_MODEL if sent else S.ACCOUNT)
    assert kind in outcome.source


def test_held_says_what_to_do():
    """Every state that a person must mend comes with words for that person."""
    assert all(held.text for held in refusals.HELD.values())
