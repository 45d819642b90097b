"""Finds application default credentials. They stay where they are: the account points to them."""

from __future__ import annotations

from ..credentials.typed import default_file
from .found import Found, NotFound, Places, project_of, read_object, text_of

KINDS = ("authorized_user", "service_account", "external_account", "external_account_authorized_user",
         "impersonated_service_account")  # fmt: skip
VARIABLE = "GOOGLE_APPLICATION_CREDENTIALS"
LOG_IN = "gcloud auth application-default login"


def read(places: Places, path: str = "") -> list[Found | NotFound]:
    """The file at `path`, else the one that Google's libraries would find."""
    default = default_file({**places.environ, "HOME": str(places.home)})
    file = places.path(path) if path else default
    if file is None:
        return [NotFound("application default credentials", "there are none", LOG_IN)]
    info = read_object(file)
    if isinstance(info, NotFound):
        return [NotFound(info.label, info.reason, LOG_IN)]
    kind = text_of(info.get("type"))
    if kind not in KINDS:
        if "installed" in info or "web" in info:
            return [
                NotFound(
                    str(file),
                    "it is an OAuth client, no login",
                    f"gemini-pool login ID --client-secrets {file}",
                )
            ]
        return [NotFound(str(file), f"a credential of type {kind[:40]!r} is not supported")]
    return [
        Found(
            f"{file} ({kind})",
            kind=kind,
            # Where the libraries look by themselves needs no name; any other place does.
            path=str(file) if path or places.named or VARIABLE in places.environ else "",
            backend="vertex",
            project=project_of(info.get("quota_project_id")) or project_of(info.get("project_id")),
            email=text_of(info.get("client_email")) or text_of(info.get("account")),
            name="adc",
        )
    ]
