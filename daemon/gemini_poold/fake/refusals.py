"""Refusals that waiting does not cure, in Google's words: credentials, licences, policy, projects, requests. Bodies only."""

from __future__ import annotations

from .envelope import RPC, Json, bad_request, error, help_links, info, localized
from .throttle import CLOUDCODE, GL_SERVICE

COMPANION = "cloudaicompanion.googleapis.com"
_ANY = "googleapis.com"
_EXPIRED_TOKEN = (
    "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid"
    " authentication credential."
)
_MISSING = (
    "Request is missing required authentication credential. Expected OAuth 2 access token, login cookie or other"
    " valid authentication credential."
)

# 400


def invalid_argument(message: str = "Request contains an invalid argument.", *, field: str = "") -> Json:
    if field:
        return error(400, message, bad_request(field, message))
    return error(400, message)


def unknown_field(name: str, where: str = "") -> Json:
    place = f" at '{where}'" if where else ""
    text = f'Invalid JSON payload received. Unknown name "{name}"{place}: Cannot find field.'
    return error(400, text, bad_request(where, text))


def multiple_credentials() -> Json:
    return error(400, "Multiple authentication credentials received. Please pass only one.")


def api_key_invalid(*, expired: bool = False, service: str = GL_SERVICE) -> Json:
    words = (
        "API key expired. Please renew the API key."
        if expired
        else "API key not valid. Please pass a valid API key."
    )
    return error(400, words, info("API_KEY_INVALID", _ANY, service=service), localized(words))


def location_unsupported() -> Json:
    return error(400, "User location is not supported for the API use.", status="FAILED_PRECONDITION")


def billing_off() -> Json:
    words = "Gemini API free tier is not available in your country. Please enable billing on your project."
    return error(400, words, status="FAILED_PRECONDITION")


def signature_corrupted() -> Json:
    return error(400, "Corrupted thought signature.")


def payload_too_large(code: int = 400) -> Json:
    return error(code, "Request payload size exceeds the limit: 20971520 bytes.", status="INVALID_ARGUMENT")


# 401


def unauthenticated(reason: str = "ACCESS_TOKEN_EXPIRED", *, service: str = "") -> Json:
    """`reason`: ACCESS_TOKEN_EXPIRED, CREDENTIALS_MISSING, ACCESS_TOKEN_TYPE_UNSUPPORTED."""
    words = _MISSING if reason == "CREDENTIALS_MISSING" else _EXPIRED_TOKEN
    metadata = {"service": service} if service else {}
    return error(401, words, info(reason, _ANY, **metadata))


def api_keys_unsupported(service: str) -> Json:
    words = "API keys are not supported by this API. Expected OAuth2 access token or other authentication credentials"
    words += " that assert a principal."
    return error(401, words, info("CREDENTIALS_MISSING", _ANY, service=service))


# 403, anywhere


def permission_denied(permission: str = "", resource: str = "") -> Json:
    if not permission:
        return error(403, "The caller does not have permission")
    return error(403, f"Permission '{permission}' denied on resource '{resource}' (or it may not exist).")


def unregistered_caller() -> Json:
    words = "Method doesn't allow unregistered callers (callers without established identity). Please use API Key or"
    return error(403, words + " other form of API consumer identity to call this API.")


def service_disabled(service: str = COMPANION, project_number: str = "100000000001") -> Json:
    url = f"https://console.developers.google.com/apis/api/{service}/overview?project={project_number}"
    words = f"{service} has not been used in project {project_number} before or it is disabled. Enable it by visiting {url}"
    words += " then retry."
    metadata = {
        "service": service,
        "serviceTitle": "Gemini for Google Cloud API",
        "consumer": f"projects/{project_number}",
        "containerInfo": project_number,
        "activationUrl": url,
    }
    return error(
        403,
        words,
        info("SERVICE_DISABLED", _ANY, **metadata),
        localized(words),
        help_links(("Google developers console API activation", url)),
    )


def billing_disabled(project_number: str = "100000000001") -> Json:
    words = (
        f"This API method requires billing to be enabled. Please enable billing on project #{project_number}."
    )
    return error(403, words, info("BILLING_DISABLED", _ANY, consumer=f"projects/{project_number}"))


def consumer_invalid(project: str = "nobody", service: str = COMPANION) -> Json:
    metadata = {"consumer": f"projects/{project}", "containerInfo": project, "service": service}
    return error(
        403, f"Permission denied on resource project {project}.", info("CONSUMER_INVALID", _ANY, **metadata)
    )


def user_project_denied(project: str = "nobody", service: str = GL_SERVICE) -> Json:
    words = f"Caller does not have required permission to use project {project}. Grant the caller the"
    words += " roles/serviceusage.serviceUsageConsumer role."
    metadata = {"consumer": f"projects/{project}", "containerInfo": project, "service": service}
    return error(403, words, info("USER_PROJECT_DENIED", _ANY, **metadata))


def security_policy() -> Json:
    """VPC service controls."""
    return error(
        403,
        "Request is prohibited by organization's policy.",
        {"@type": f"{RPC}ErrorInfo", "reason": "SECURITY_POLICY_VIOLATED"},
    )


# 403, API keys


def api_key_blocked(reason: str = "API_KEY_SERVICE_BLOCKED", *, service: str = GL_SERVICE) -> Json:
    """`reason`: API_KEY_SERVICE_BLOCKED, API_KEY_IP_ADDRESS_BLOCKED, API_KEY_HTTP_REFERRER_BLOCKED."""
    return error(403, f"Requests to this API {service} are blocked.", info(reason, _ANY, service=service))


def key_leaked() -> Json:
    return error(403, "Your API key was reported as leaked. Please use another API key.")


def project_denied() -> Json:
    return error(403, "Your project has been denied access. Please contact support.")


def foreign_file(file_id: str = "abc") -> Json:
    return error(403, f"You do not have permission to access the File {file_id} or it may not exist.")


# 403, Code Assist


def subscription_required(*, project: str = "") -> Json:
    """No licence; with `project` the words speak of the project's."""
    subject = f"project {project} lacks" if project else "you are missing"
    return error(
        403,
        f"Access denied: {subject} a valid license for Gemini Code Assist. Please contact your administrator. (#3501)",
        info("SUBSCRIPTION_REQUIRED", COMPANION, uiMessage="true"),
        help_links(("Request a license", "https://cloud.google.com/gemini/docs/codeassist/request-license")),
    )


def validation_required(url: str = "https://accounts.google.com/verify/fake", *, links: bool = True) -> Json:
    """The account must be verified. `links` False: the page is only named in the metadata."""
    detail = info("VALIDATION_REQUIRED", CLOUDCODE, validation_link=url)
    pages = help_links(
        ("Verify your account", url), ("Learn more", "https://support.google.com/accounts?p=fake")
    )
    words = "Verify your account to continue."
    return error(403, words, detail, pages) if links else error(403, words, detail)


def tos_violation(appeal_url: str = "https://forms.google.com/fake-appeal") -> Json:
    metadata = {"uiMessage": "true", "appeal_url": appeal_url, "appeal_url_link_text": "Appeal"}
    words = "This service has been disabled in this account for violation of Terms of Service."
    return error(403, words, info("TOS_VIOLATION", CLOUDCODE, **metadata))


def tos_violation_old() -> Json:
    """The older form without details."""
    words = "This service has been disabled in this account for violation of Terms of Service."
    return error(403, words, errors=[{"message": words, "domain": "global", "reason": "forbidden"}])


# 404 and above


def not_found() -> Json:
    return error(404, "Requested entity was not found.")


def gl_model_not_found(model: str, version: str, method: str) -> Json:
    words = f"models/{model} is not found for API version {version}, or is not supported for {method}. Call ListModels"
    return error(404, words + " to see the list of available models and their supported methods.")


def vx_model_not_found(project: str, location: str, model: str) -> Json:
    name = f"projects/{project}/locations/{location}/publishers/google/models/{model}"
    words = f"Publisher Model `{name}` was not found or your project does not have access to it. Please ensure you are"
    return error(404, words + " using a valid model version.")


def cancelled() -> Json:
    return error(499, "The operation was cancelled.")


def internal(code: int = 500) -> Json:
    return error(
        code, "An internal error has occurred. Please retry or report in the help forum.", status="INTERNAL"
    )


def deadline_exceeded() -> Json:
    return error(504, "Deadline expired before operation could complete.")


# The token endpoint speaks OAuth, not google.rpc.

RAPT_PAGE = "https://support.google.com/a/answer/9368756"


def oauth_error(word: str, description: str = "", *, subtype: str = "", uri: str = "") -> Json:
    body = {"error": word}
    if description:
        body["error_description"] = description
    if uri:
        body["error_uri"] = uri
    if subtype:
        body["error_subtype"] = subtype
    return body


def invalid_rapt(subtype: str = "invalid_rapt") -> Json:
    return oauth_error("invalid_grant", f"reauth related error ({subtype})", subtype=subtype, uri=RAPT_PAGE)
