"""Back-pressure in Google's words: every row of 429 and 503, each backend in its own form. Bodies only."""

from __future__ import annotations

from .clock import rfc3339
from .envelope import Delay, Json, error, help_links, info, quota_failure, retry_info

CLOUDCODE = "cloudcode-pa.googleapis.com"
GL_SERVICE = "generativelanguage.googleapis.com"
VX_SERVICE = "aiplatform.googleapis.com"

# what ran out -> (quotaId without its tier, metric without its tier)
_GL_QUOTAS = {
    "rpm": ("GenerateRequestsPerMinutePerProjectPerModel", "requests"),
    "rpd": ("GenerateRequestsPerDayPerProjectPerModel", "requests"),
    "tpm": ("GenerateContentInputTokensPerModelPerMinute", "input_token_count"),
    "tpd": ("GenerateContentInputTokensPerModelPerDay", "input_token_count"),
}


def rate_limited(
    retry: Delay | None = "27s", *, form: str = "gl", model: str = "gemini-2.5-flash", limit: int = 10
) -> Json:
    """A short window ran out, in the dialect of `form` (`gl`, `ca`, `vx`). No `retry`: no hint at all."""
    if form == "ca":
        return ca_rate_limited(retry, model=model)
    if form == "vx":
        return vx_quota(model, retry=retry)
    return gl_quota("rpm", limit, model=model, retry=retry)


def gl_quota(
    what: str,
    limit: int,
    *,
    model: str = "gemini-2.5-flash",
    retry: Delay | None = "44s",
    tier: str = "FreeTier",
    project_number: str = "",
) -> Json:
    """`what`: rpm, rpd, tpm, tpd. `tier` "" leaves the suffix out; `limit` 0 means the tier has no such model."""
    return gl_quotas((what, limit), model=model, retry=retry, tier=tier, project_number=project_number)


def gl_quotas(
    *ran_out: tuple[str, int],
    model: str = "gemini-2.5-flash",
    retry: Delay | None = "44s",
    tier: str = "FreeTier",
    project_number: str = "",
) -> Json:
    """Several quotas at once, as Google lists them in one answer."""
    lines, violations = [], []
    for what, limit in ran_out:
        quota_id, counted = _GL_QUOTAS[what]
        metric = f"{GL_SERVICE}/generate_content_{'free' if tier == 'FreeTier' else 'paid'}_tier_{counted}"
        lines.append(f"* Quota exceeded for metric: {metric}, limit: {limit}, model: {model}")
        violations.append(
            {
                "quotaMetric": metric,
                "quotaId": f"{quota_id}-{tier}" if tier else quota_id,
                "quotaDimensions": {"location": "global", "model": model},
                "quotaValue": str(limit),
            }
        )
    details = [
        help_links(
            ("Learn more about Gemini API quotas", "https://ai.google.dev/gemini-api/docs/rate-limits")
        ),
        quota_failure(*violations),
    ]
    if project_number:
        consumer = f"projects/{project_number}"
        details.append(info("RATE_LIMIT_EXCEEDED", "googleapis.com", service=GL_SERVICE, consumer=consumer))
    if retry is not None:
        details.append(retry_info(retry))
        if isinstance(retry, str):
            lines.append(f"Please retry in {retry}.")
    head = "You exceeded your current quota, please check your plan and billing details. "
    return error(429, head + "\n".join(lines), *details)


def ca_rate_limited(
    retry: Delay | None = "27s", *, model: str = "gemini-2.5-pro", text: bool = True, details: bool = True
) -> Json:
    """Short window of Code Assist. `text`: "reset after ..." in words; `details` False leaves only the words."""
    words = "You have exhausted your capacity on this model."
    if text and isinstance(retry, str):
        words += f" Your quota will reset after {retry}."
    if not details:
        return error(429, words)
    parts = [info("RATE_LIMIT_EXCEEDED", CLOUDCODE, model=model, uiMessage="true")]
    if retry is not None:
        parts.append(retry_info(retry))
    return error(429, words, *parts)


def ca_quota_exhausted(
    delay: str = "19h14m47.123s",
    *,
    model: str = "gemini-2.5-pro",
    resets_at: float = 0.0,
    retry: Delay | None = "69287.123s",
) -> Json:
    """The long quota of account and model. `resets_at` in Unix seconds, 0 leaves the time stamp out."""
    metadata = {"model": model, "uiMessage": "true", "quotaResetDelay": delay}
    if resets_at:
        metadata["quotaResetTimeStamp"] = rfc3339(resets_at)
    details = [info("QUOTA_EXHAUSTED", CLOUDCODE, **metadata)]
    if retry is not None:
        details.append(retry_info(retry))
    words = f"You have exhausted your capacity on this model. Your quota will reset after {delay}."
    return error(429, words, *details)


def ca_old_quota(unit: str = "day", project_number: str = "100000000001") -> Json:
    """The old text that only names the limit."""
    name = f"Gemini model requests per {unit} per user per tier"
    words = f"Quota exceeded for quota metric 'Gemini 2.5 Pro Requests' and limit '{name}' of service '{CLOUDCODE}'"
    words += f" for consumer 'project_number:{project_number}'."
    return error(
        429, words, info("RATE_LIMIT_EXCEEDED", "googleapis.com", quota_limit=name, service=CLOUDCODE)
    )


def capacity(
    retry: Delay | None = "9s",
    *,
    model: str = "gemini-3-pro-preview",
    code: int = 429,
    reason: str = "MODEL_CAPACITY_EXHAUSTED",
) -> Json:
    """Google's fleet is full: every account is hit. `reason` may be `MODEL_CAPACITY_EXCEEDED`, `code` 503."""
    details = [info(reason, CLOUDCODE, model=model)]
    if retry is not None:
        details.append(retry_info(retry))
    return error(code, f"No capacity available for model {model} on the server", *details)


def credits_gone() -> Json:
    words = "Your credit balance is too low to continue."
    return error(429, words, info("INSUFFICIENT_G1_CREDITS_BALANCE", CLOUDCODE))


def bare_exhausted() -> Json:
    """No details: nobody can tell what ran out."""
    return error(429, "Resource has been exhausted (e.g. check quota).")


def spend_limit() -> Json:
    return error(429, "Your project has exceeded its spending limit. Please try again later.")


def vx_exhausted() -> Json:
    """Dynamic shared quota: no fixed limit exists, no hint is given."""
    return error(
        429, "Resource exhausted, please try again later. See the page on error code 429 for details."
    )


def vx_provisioned() -> Json:
    return error(429, "Too many requests. Exceeded the Provisioned Throughput.")


def vx_quota(
    model: str = "gemini-2.5-flash",
    *,
    project_number: str = "",
    location: str = "us-central1",
    limit: int = 60,
    retry: Delay | None = None,
) -> Json:
    """The classic quota per region and base model."""
    metric = f"{VX_SERVICE}/generate_content_requests_per_minute_per_project_per_base_model"
    metadata = {
        "service": VX_SERVICE,
        "quota_metric": metric,
        "quota_limit": "GenerateContentRequestsPerMinutePerProjectPerBaseModel",
        "quota_limit_value": str(limit),
        "quota_location": location,
        "quota_unit": "1/min/{project}/{base_model}",
    }
    if project_number:
        metadata["consumer"] = f"projects/{project_number}"
    details = [info("RATE_LIMIT_EXCEEDED", "googleapis.com", **metadata)]
    if retry is not None:
        details.append(retry_info(retry))
    return error(429, f"Quota exceeded for {metric} with base model: {model}.", *details)


def overloaded(code: int = 503) -> Json:
    return error(code, "The model is overloaded. Please try again later.", status="UNAVAILABLE")
