"""Code Assist (cloudcode-pa.googleapis.com/v1internal): an OAuth login with a licensed project, bodies in a wrapper.

`enabled_credit_types` is never sent on, whoever asks for it: it spends money.
"""

from __future__ import annotations

import uuid

from ..core import model as core
from ..core.model import Account, AccountState, Outcome
from ..errors import PoolError
from . import refusals, translate
from .answering import Answering
from .base import GENERATE, STREAM
from .google_errors import GoogleError
from .refusals import HELD, Held
from .urls import bare

_NAME = "Code Assist"
_SESSIONS = uuid.UUID(
    "6f1d3b0e-2a7c-5c55-9d0e-3f8c1f6f0a11"
)  # namespace of the session ids made from a client's


# ---- refusals that only Code Assist knows -----------------------------------------------------------------------------

_PERMISSION = Held(
    AccountState.MISCONFIGURED,
    "the account lacks a permission in its project",
    "grant roles/cloudaicompanion.user, or correct `project` in accounts.toml",
)


def _own(error: GoogleError) -> Outcome | None:
    if error.status != 403:
        return None
    if error.has("SUBSCRIPTION_REQUIRED") and error.says("individual", "no longer supported"):
        return refusals.account(error, HELD["UNSUPPORTED_CLIENT"])
    if error.has("SUBSCRIPTION_REQUIRED") or error.says("#3501"):
        return refusals.account(error, HELD["SUBSCRIPTION_REQUIRED"])
    if error.has("TOS_VIOLATION"):
        return refusals.account(error, HELD["TOS_VIOLATION"], url=error.metadata.get("appeal_url", ""))
    if error.says("violation of terms", "terms of service") and error.old_form:
        return refusals.account(error, HELD["TOS_VIOLATION"])
    if error.says("cloudaicompanion."):
        return refusals.account(error, _PERMISSION) if not error.has(*HELD) else None
    return None


# ---- the backend -----------------------------------------------------------------------------------------------------


class CodeAssist(Answering):
    """See `base.Backend`."""

    dressed = True
    own = (_own,)

    name = core.Backend.CODE_ASSIST
    form = "ca"
    methods = GENERATE | {"countTokens"}

    def __init__(self, base_url: str) -> None:
        self._base = f"{base_url}/v1internal"

    def call_url(self, method: str) -> str:
        """The URL of any method of the API; an operation's name is one with `/` before it."""
        return f"{self._base}/{method[1:]}" if method.startswith("/") else f"{self._base}:{method}"

    def url(self, account: Account, model: str, method: str, *, project: str, version: str = "v1beta") -> str:
        del account, model, project, version
        return f"{self._base}:{method}?alt=sse" if method == STREAM else f"{self._base}:{method}"

    def headers(self, account: Account, *, project: str) -> dict[str, str]:
        del account, project
        return {"Content-Type": "application/json"}

    def request(
        self, surface: str, method: str, model: str, body: bytes, *, project: str, session: str = ""
    ) -> bytes:
        if method not in self.methods:
            raise translate.cannot(_NAME, method)
        if method == "countTokens":
            return _count(surface, model, body)
        if surface == "ca":
            return _rewrapped(model, body, project)
        return _wrapped(surface, model, body, project=project, session=session)

    def response(self, surface: str, method: str, body: bytes) -> bytes:
        if surface == "ca" or method not in GENERATE:
            return body
        return translate.unwrapped(body) or b"{}"


# ---- bodies -------------------------------------------------------------------------------------------------------


def _wrapped(surface: str, model: str, body: bytes, *, project: str, session: str) -> bytes:
    request = translate.inner(surface, body)
    translate.refuse_bound(request, _NAME)
    # Its requests are Vertex's, where contents without a role are refused.
    translate.cleaned(request, roles=True)
    request["session_id"] = translate.text(str(uuid.uuid5(_SESSIONS, session) if session else uuid.uuid4()))
    outer = _addressed(model, project)
    outer["user_prompt_id"] = translate.text(str(uuid.uuid4()))
    outer["request"] = translate.nested(request)
    return translate.join(outer)


def _rewrapped(model: str, body: bytes, project: str) -> bytes:
    """A client's own wrapper with our model and project. Its request stays as it came."""
    outer = translate.fields(body)
    if "request" not in outer:
        raise PoolError("bad_request", "a Code Assist body has its request in `request`")
    translate.drop(outer, "enabled_credit_types", "enabledCreditTypes", "model", "project")
    if not translate.given(outer, "user_prompt_id"):
        outer["user_prompt_id"] = translate.text(str(uuid.uuid4()))
    return translate.join({**_addressed(model, project), **outer})


def _addressed(model: str, project: str) -> translate.Fields:
    parts = {"model": translate.text(bare(model))}
    if project:
        parts["project"] = translate.text(project)
    return parts


def _count(surface: str, model: str, body: bytes) -> bytes:
    request = translate.counted(surface, body)
    if surface != "ca":
        request = translate.only_contents(request, _NAME)
        translate.refuse_bound(request, _NAME)
        translate.cleaned(request, roles=True)
    name = translate.text(f"models/{bare(model)}")
    return translate.join({"request": translate.nested({"model": name, **request})})
