"""The reader of Google's errors: every envelope, every place of a delay, every name of a window."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemini_poold.backends import google_errors
from gemini_poold.backends.google_errors import plain, read, window_of

NOW = 1_795_000_000.0
RPC = "type.googleapis.com/google.rpc."
INFO = {
    "@type": RPC + "ErrorInfo",
    "reason": "QUOTA_EXHAUSTED",
    "domain": "cloudcode-pa.googleapis.com",
    "metadata": {"model": "gemini-2.5-pro", "quotaResetDelay": "19h14m47.123s"},
}
ERROR = {
    "error": {
        "code": 429,
        "message": "You have exhausted your capacity.",
        "status": "RESOURCE_EXHAUSTED",
        "details": [INFO],
    }
}


def reading(body, status=429, headers=None, now=NOW):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read(status, headers or {}, raw, now=now)


def nested(body, depth):
    for _ in range(depth):
        body = {"error": {"code": 429, "message": json.dumps(body), "status": "RESOURCE_EXHAUSTED"}}
    return body


def nbsp(body):
    """As CA nests it: the inner text over several lines, with NBSP for blanks."""
    text = json.dumps(body, indent=2).replace("  ", "\u00a0\u00a0")
    return {"error": {"code": 429, "message": text + "\n", "status": "RESOURCE_EXHAUSTED"}}


@pytest.mark.parametrize(
    "body",
    [
        ERROR,
        [ERROR],
        nested(ERROR, 1),
        nested(ERROR, 6),
        [nested(ERROR, 2)],
        nbsp(ERROR),
        json.dumps(ERROR).replace('"details": [', '"details":\u00a0[').encode(),
        json.dumps(ERROR).replace(', "status"', ',, "status"').encode(),
        json.dumps(ERROR).replace('"@type"', '" @type "').encode(),
        json.dumps(ERROR).replace("cloudcode-pa.googleapis.com", "cloudcode-pa.googleapis.com\u200b ").encode(),
        b"data: " + json.dumps(ERROR).encode() + b"\r\n\r\n",
        b"\n  " + json.dumps(ERROR, indent=2).encode() + b"\n",
    ],
    ids=["plain", "array", "nested", "nested-deep", "array-nested", "nbsp-nested", "nbsp", "commas", "blank-keys",
         "stray-domain", "sse", "indented"],
)  # fmt: skip
def test_envelopes(body):
    """One error, however it is wrapped, is read the same."""
    error = reading(body)
    assert (error.status, error.reason, error.domain) == (
        429,
        "QUOTA_EXHAUSTED",
        "cloudcode-pa.googleapis.com",
    )
    assert error.message == "You have exhausted your capacity."
    assert error.metadata["model"] == "gemini-2.5-pro"
    assert (error.delays[0].source, error.delays[0].seconds) == ("quotaResetDelay", pytest.approx(69_287.123))
    assert error.formed


def test_raw_line_breaks_in_message():
    """A nested error whose text holds raw line breaks is still found."""
    inner = json.dumps(ERROR).replace("exhausted your", "exhausted\n your")
    assert reading({"error": {"message": inner}}).reason == "QUOTA_EXHAUSTED"


def test_outer_details_survive():
    """What only the outer error holds is kept when the inner one has none of it."""
    outer = {
        "error": {"message": json.dumps({"error": {"code": 429, "message": "inner"}}), "details": [INFO]}
    }
    error = reading(outer)
    assert (error.message, error.reason) == ("inner", "QUOTA_EXHAUSTED")


@pytest.mark.parametrize(
    ("status", "body", "expected", "word"),
    [
        (429, {"error": {"message": "no code"}}, 429, ""),
        (200, {"error": {"code": 503, "message": "x", "status": "UNAVAILABLE"}}, 503, "UNAVAILABLE"),
        (200, {"error": {"message": "x", "status": "RESOURCE_EXHAUSTED"}}, 429, "RESOURCE_EXHAUSTED"),
        (200, {"error": {"code": "rate_limit_exceeded", "message": "x"}}, 429, "rate_limit_exceeded"),
        (429, {"error": {"code": "quota_exceeded", "message": "x"}}, 429, "quota_exceeded"),
        (200, {"error": {"code": "model_not_found", "message": "x"}}, 404, "model_not_found"),
        (200, {"error": {"message": "x"}}, 500, ""),
        (401, {"error": "invalid_token", "error_description": "gone"}, 401, "invalid_token"),
        (0, {"error": {"code": "404", "message": "x"}}, 404, ""),
        (500, {"error": {"code": True, "message": "x"}}, 500, ""),
    ],
)
def test_status_and_word(status, body, expected, word):
    """The HTTP status counts; inside a stream the error's own code, word or string code stands for it."""
    error = reading(body, status)
    assert (error.status, error.word) == (expected, word)


@pytest.mark.parametrize(
    ("body", "html"),
    [
        (b"<!DOCTYPE html><html><title>Sorry...</title><p>We're sorry</p></html>", True),
        (b"  <html><body>502</body></html>", True),
        (b"", False),
        (b"upstream connect error", False),
        (b"\xff\xfe\x00", False),
        (b'{"candidates": []}', False),
        (b'{"error": 7}', False),
        (b"[1, 2]", False),
        (b"null", False),
    ],
)
def test_not_an_error(body, html):
    """A page, an empty body or other JSON is no error of Google's, and nothing raises."""
    error = reading(body, 503)
    assert (error.formed, error.html, error.status) == (False, html, 503)


def delay(*, headers=None, retry=None, metadata=None, message="x"):
    details = [{"@type": RPC + "ErrorInfo", "reason": "R", "metadata": metadata or {}}]
    if retry is not None:
        details.append({"@type": RPC + "RetryInfo", "retryDelay": retry})
    return reading({"error": {"code": 429, "message": message, "details": details}}, headers=headers).delays


@pytest.mark.parametrize(
    ("given", "source", "seconds"),
    [
        ({"headers": {"retry-after-ms": "1500", "retry-after": "3"}, "retry": "9s"}, "retry-after-ms", 1.5),
        ({"headers": {"Retry-After": "3"}, "retry": "9s"}, "Retry-After", 3),
        ({"headers": {"Retry-After": "Wed, 18 Nov 2026 11:07:40 GMT"}}, "Retry-After", 60),
        ({"retry": "9s", "metadata": {"quotaResetDelay": "5s"}}, "RetryInfo", 9),
        ({"retry": {"seconds": "4"}}, "RetryInfo", 4),
        (
            {"metadata": {"quotaResetDelay": "1h16m0.667s", "quotaResetTimeStamp": "2026-11-24T08:00:00Z"}},
            "quotaResetDelay",
            4560.667,
        ),
        (
            {"metadata": {"quotaResetTimeStamp": "2026-11-18T12:06:40Z"}, "message": "retry in 1s"},
            "quotaResetTimeStamp",
            3600,
        ),
        ({"message": "Please retry in 44.09s"}, "text", 44.09),
        ({"message": "quota will reset after 19h14m47s"}, "text", 69_287),
        # nonsense is passed over
        ({"headers": {"retry-after": "soon"}, "retry": "9s"}, "RetryInfo", 9),
        ({"headers": {"retry-after": "0"}, "retry": "9s"}, "RetryInfo", 9),
        ({"headers": {"retry-after": "-4"}, "message": "after 2s"}, "text", 2),
        ({"metadata": {"quotaResetTimeStamp": "1970-01-01T00:00:00Z"}, "message": "after 2s"}, "text", 2),
        ({"headers": {"retry-after": "99999999"}, "retry": "9s"}, "RetryInfo", 9),
        # nothing plausible: bounded, not believed
        ({"headers": {"retry-after": "99999999"}}, "Retry-After", 8 * 86_400),
        # long, and real
        ({"retry": "604800s"}, "RetryInfo", 604_800),
    ],
)
def test_order_of_trust(given, source, seconds):
    """The most trusted place that says something plausible wins; real multi-hour times are kept."""
    found = delay(**given)[0]
    assert (found.source, found.seconds) == (source, pytest.approx(seconds))


def test_no_delay():
    """No word about time is no word, not zero."""
    assert delay() == ()
    assert delay(retry="0s") == ()


@pytest.mark.parametrize(
    ("name", "window"),
    [
        ("GenerateRequestsPerMinutePerProjectPerModel-FreeTier", "minute"),
        ("GenerateRequestsPerMinutePerProjectPerModel-PaidTier1", "minute"),
        ("GenerateContentInputTokensPerModelPerMinute-FreeTier", "minute"),
        ("GenerateRequestsPerDayPerProjectPerModel-FreeTier", "day"),
        ("GenerateContentInputTokensPerModelPerDay-FreeTier", "day"),
        ("GenerateContentPaidTierInputTokensPerModelPerMinute", "minute"),
        ("EmbedContentRequestsPerDayPerUserPerProjectPerModel-FreeTier", "day"),
        ("Gemini model requests per day per user per tier", "day"),
        ("Gemini 2.5 Pro Requests per minute", "minute"),
        ("generate_content_requests_per_minute_per_project_per_base_model", "minute"),
        ("1/min/{project}/{base_model}", "minute"),
        ("1/d/{project}", "day"),
        ("DailyRequests", "day"),
        ("RequestsPerWeek", "week"),
        ("RequestsPerMonthPerProject", "month"),
        ("per hour", "hour"),
        ("per second", "second"),
        ("ConcurrentRequests", ""),
        ("", ""),
    ],
)
def test_window(name, window):
    """The window is in the quota's name."""
    assert window_of(name) == window


@pytest.mark.parametrize(
    ("message", "zero"),
    [
        ("limit: 0, model: x", True),
        ("limit: 0", True),
        ("limit:0.", True),
        ("limit: 0.5", False),
        ("limit: 05", False),
        ("limit: 20", False),
        ("no limit", False),
    ],
)
def test_limit_zero_in_text(message, zero):
    """ "limit: 0" means no access; "limit: 0.5" does not."""
    assert reading({"error": {"code": 429, "message": message}}).limit_zero is zero


def test_violations():
    """Violations keep metric, id, value and model."""
    violation = {
        "quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_input_token_count",
        "quotaId": "GenerateContentInputTokensPerModelPerMinute-FreeTier",
        "quotaDimensions": {"location": "global", "model": "gemini-3-flash"},
        "quotaValue": "250000",
    }
    body = {
        "error": {
            "code": 429,
            "details": [{"@type": RPC + "QuotaFailure", "violations": [violation, "junk"]}],
        }
    }
    (found,) = reading(body).violations
    assert (found.value, found.model, found.window, found.counts_tokens) == (
        250_000.0,
        "gemini-3-flash",
        "minute",
        True,
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (ERROR, "You have exhausted your capacity."),
        ([ERROR], "You have exhausted your capacity."),
        (b"<html><title>Error 400</title></html>", "Error 400"),
        (b"", "HTTP 400"),
    ],
)
def test_plain(body, message):
    """A client always gets one error object as JSON, whatever came."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    error = json.loads(plain(400, {}, raw))["error"]
    assert error["message"] == message
    assert error["code"] in (400, 429)


def test_plain_keeps_bytes():
    """An error that is fine already goes through as it came."""
    raw = json.dumps(ERROR, indent=1).encode()
    assert plain(429, {}, raw) == raw


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(
        ["error", "code", "message", "status", "details", "@type", "errors", "reason", "metadata", "violations", "links"]
    ), inner, max_size=5),
    max_leaves=20,
)  # fmt: skip


@given(JSON, st.sampled_from([200, 400, 403, 429, 503]))
def test_reads_anything(value, status):
    """Any JSON at all is read without an error."""
    read(status, {}, json.dumps({"error": value}).encode(), now=NOW)
    read(status, {}, json.dumps(value).encode(), now=NOW)


@given(st.binary(max_size=200))
def test_reads_any_bytes(raw):
    """Any bytes at all are read without an error."""
    assert google_errors.read(500, {}, raw, now=NOW).status == 500
    plain(500, {}, raw)
