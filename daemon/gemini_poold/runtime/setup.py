"""Sets a Code Assist account up: which tier and project it has, and whether Google will serve it at all.

loadCodeAssist, then (for who was never here) onboardUser and its operation, then the e-mail for the label. When this
runs, and what an account becomes by it, is `runtime.lifecycle`'s business. Refusals in an error body are read by the
backend's `classify`; those that come as a success (`ineligibleTiers`) are read here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from gemini_pool.wire import VERSION

from ..backends import google_errors
from ..backends.code_assist import CodeAssist
from ..backends.refusals import HELD, Held
from ..clock import Clock
from ..config import Endpoints
from ..core.model import Account, AccountState, DiscoveryRow, Kind, Outcome, Scope
from ..errors import PoolError, UpstreamFailure
from ..transport import Fetched, Transport

CALL_TIMEOUT_S = 30.0
POLL_S = 5.0  # as Google's own client
MAX_POLLS = 60  # five minutes; then it is tried again from the start, later
USERINFO_TIMEOUT_S = 10.0

FREE, LEGACY, STANDARD = "free-tier", "legacy-tier", "standard-tier"

# `reasonCode`s of ineligibleTiers beyond those that errors use, too; the set is open.
_INELIGIBLE: Mapping[str, Held] = {
    "DASHER_USER": Held(
        AccountState.UNLICENSED,
        "a Workspace account needs a licence",
        "name a licensed `project` in accounts.toml",
    ),
    "NON_USER_ACCOUNT": Held(AccountState.UNLICENSED, "this is no person's account", "log in as a person"),
    "RESTRICTED_AGE": Held(AccountState.UNLICENSED, "Google's age limit stands against it"),
    "RESTRICTED_NETWORK": Held(AccountState.MISCONFIGURED, "Google does not serve this network"),
    "UNSUPPORTED_LOCATION": Held(AccountState.MISCONFIGURED, "Google does not serve this place"),
    "UNKNOWN_LOCATION": Held(AccountState.MISCONFIGURED, "Google cannot tell from where this is"),
}
_NO_LICENCE = Held(AccountState.UNLICENSED, "Google offers this account no tier", "request a licence")
_NO_PROJECT = Held(
    AccountState.MISCONFIGURED,
    "this account's tier needs a Google Cloud project",
    "set `project` in accounts.toml",
)
_PROJECT_NUMBER = Held(
    AccountState.MISCONFIGURED,
    "`project` is a project's number, Code Assist wants its id",
    "write the project id into accounts.toml: gcloud projects describe NUMBER --format='value(projectId)'",
)


class _Stop(Exception):
    """Set-up cannot go on: what the account is."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome


@dataclass(frozen=True, slots=True)
class _Call:
    """One account's way to Google during its set-up."""

    account: Account
    headers: Mapping[str, str]
    backend: CodeAssist


class Setup:
    """`endpoints` may be replaced when the configuration changes."""

    def __init__(self, transport: Transport, endpoints: Endpoints, clock: Clock) -> None:
        self._transport = transport
        self.endpoints = endpoints
        self._clock = clock

    async def run(self, account: Account, headers: Mapping[str, str]) -> DiscoveryRow | Outcome:
        """What there is to know of `account` (`headers`: its token's), or an Outcome of kind ACCOUNT that says what
        it is, what to do and where, or of kind UNAUTHENTICATED when the token itself was refused. Raises PoolError
        for what passes by itself: try again later."""
        if account.project.isdigit():
            return _refusal(_PROJECT_NUMBER, source="project")
        call = _Call(account, headers, CodeAssist(self.endpoints.code_assist))
        try:
            tier, project = await self._discover(call)
        except _Stop as stop:
            return stop.outcome
        email, sub = await self._who(call)
        return DiscoveryRow(account.id, project, tier, email, sub, self._clock.now())

    # ---- steps ------------------------------------------------------------------------------------------------

    async def _discover(self, call: _Call) -> tuple[str, str]:
        """Tier and project to send."""
        configured = call.account.project
        loaded = await self._load(call)
        current = _tier(loaded.get("currentTier"))
        if not current:
            return await self._onboard(call, loaded)
        tier = _tier(loaded.get("paidTier")) or current
        project = _project(loaded.get("cloudaicompanionProject")) or configured
        if not project:
            raise _Stop(_ineligible(loaded, anyway=True) or _refusal(_NO_PROJECT, source="loadCodeAssist"))
        return tier, project

    async def _load(self, call: _Call) -> dict[str, Any]:
        body: dict[str, Any] = {"metadata": _metadata(call.account.project)}
        if call.account.project:
            body["cloudaicompanionProject"] = call.account.project
        reply = await self._send(call, "POST", "loadCodeAssist", body)
        if reply.status == 403 and self._vpc_sc(reply):
            # The organisation's perimeter hides this one method; generation inside the project may well be allowed.
            return {"currentTier": {"id": STANDARD}}
        return self._answer(call, reply)

    async def _onboard(self, call: _Call, loaded: dict[str, Any]) -> tuple[str, str]:
        """Let Google make the account known; returns the tier it got and the project to send."""
        if (refused := _ineligible(loaded)) is not None:
            raise _Stop(refused)
        tier, configured = _default_tier(loaded), call.account.project
        if tier != FREE and not configured:
            raise _Stop(_ineligible(loaded, anyway=True) or _refusal(_NO_PROJECT, source="onboardUser"))
        # Naming a project for the free tier is answered "Precondition Failed"; every other tier needs one.
        project = "" if tier == FREE else configured
        body: dict[str, Any] = {"tierId": tier, "metadata": _metadata(project)}
        if project:
            body["cloudaicompanionProject"] = project
        operation = self._answer(call, await self._send(call, "POST", "onboardUser", body))
        operation = await self._wait_done(call, operation)
        response = operation.get("response")
        managed = _project(response.get("cloudaicompanionProject")) if isinstance(response, dict) else ""
        if not managed and not configured:
            raise _Stop(_refusal(_NO_PROJECT, source="onboardUser"))
        return tier, managed or configured

    async def _wait_done(self, call: _Call, operation: dict[str, Any]) -> dict[str, Any]:
        polls = 0
        while not operation.get("done"):
            name = str(operation.get("name") or "")
            if not name or polls >= MAX_POLLS:
                raise PoolError(
                    "upstream_error", f"account {call.account.id}: onboarding did not end in time"
                )
            polls += 1
            await self._clock.sleep(POLL_S)
            operation = self._answer(call, await self._send(call, "GET", f"/{name}", None))
        error = operation.get("error")
        if isinstance(error, dict):
            raise self._operation_failed(call, error)
        return operation

    def _operation_failed(self, call: _Call, error: dict[str, Any]) -> Exception:
        """A failed operation is a refusal in the form of an error body (with a google.rpc code as a number)."""
        status = _HTTP_OF_CODE.get(error.get("code", 2), 500)
        body = msgspec.json.encode({"error": {**error, "code": status}})
        outcome = self._classified(call, Fetched(status, {}, body))
        if outcome.kind is Kind.ACCOUNT:
            return _Stop(outcome)
        text = str(error.get("message", ""))[:200]
        if status < 500:
            held = Held(
                AccountState.MISCONFIGURED, f"onboarding failed: {text}", "correct `project` in accounts.toml"
            )
            return _Stop(_refusal(held, source="onboardUser"))
        return PoolError("upstream_error", f"account {call.account.id}: onboarding failed: {text}")

    async def _who(self, call: _Call) -> tuple[str, str]:
        """E-mail (a label) and stable id. Without them everything works, so no failure counts."""
        try:
            reply = await self._transport.fetch(
                "GET",
                self.endpoints.oauth_userinfo,
                headers=call.headers,
                timeout_s=USERINFO_TIMEOUT_S,
                proxy=call.account.proxy,
            )
            info = msgspec.json.decode(reply.body) if reply.status == 200 else {}
        except (UpstreamFailure, msgspec.DecodeError, UnicodeDecodeError):
            return "", ""
        if not isinstance(info, dict):
            return "", ""
        return str(info.get("email") or ""), str(info.get("id") or info.get("sub") or "")

    # ---- calls ------------------------------------------------------------------------------------------------

    async def _send(self, call: _Call, method: str, name: str, body: dict[str, Any] | None) -> Fetched:
        return await self._transport.fetch(
            method,
            call.backend.call_url(name),
            headers={"Content-Type": "application/json", **call.headers}
            if body is not None
            else call.headers,
            body=None if body is None else msgspec.json.encode(body),
            timeout_s=CALL_TIMEOUT_S,
            proxy=call.account.proxy,
        )

    def _answer(self, call: _Call, reply: Fetched) -> dict[str, Any]:
        """A success's object. Raises `_Stop` for what no waiting cures, PoolError for the rest."""
        if 200 <= reply.status < 300:
            try:
                answer = msgspec.json.decode(reply.body)
            except (msgspec.DecodeError, UnicodeDecodeError):
                answer = None
            if isinstance(answer, dict):
                return answer
            raise PoolError(
                "upstream_error", f"account {call.account.id}: Code Assist's answer cannot be read"
            )
        outcome = self._classified(call, reply)
        if outcome.kind in (Kind.ACCOUNT, Kind.UNAUTHENTICATED):
            raise _Stop(outcome)
        if outcome.kind is Kind.MODEL_DENIED:  # no model was asked for: the whole account is meant
            held = Held(
                AccountState.MISCONFIGURED, outcome.reason, "see `project` in accounts.toml, and the licence"
            )
            raise _Stop(_refusal(held, status=reply.status))
        raise PoolError(
            "upstream_error",
            f"account {call.account.id}: set-up: {outcome.reason}",
            retry_at=outcome.until if outcome.told else None,
        )

    def _classified(self, call: _Call, reply: Fetched) -> Outcome:
        return call.backend.classify(
            reply.status, reply.headers, reply.body, model="", now=self._clock.now(), account=call.account
        )

    def _vpc_sc(self, reply: Fetched) -> bool:
        error = google_errors.read(reply.status, reply.headers, reply.body, now=self._clock.now())
        return error.has("SECURITY_POLICY_VIOLATED")


# google.rpc.Code as it stands in an operation's error, to the HTTP status that it goes with.
_HTTP_OF_CODE = {
    3: 400, 4: 504, 5: 404, 6: 409, 7: 403, 8: 429, 9: 400, 10: 409, 11: 400, 12: 501, 13: 500, 14: 503, 16: 401,
}  # fmt: skip


def _metadata(project: str) -> dict[str, str]:
    """Who we are. No plugin type or IDE of Google's enums is us, so only our own name is claimed."""
    metadata = {
        "ideType": "IDE_UNSPECIFIED",
        "platform": "PLATFORM_UNSPECIFIED",
        "pluginType": "PLUGIN_UNSPECIFIED",
        "ideName": "gemini-pool",
        "pluginVersion": VERSION,
    }
    return metadata | ({"duetProject": project} if project else {})


def _tier(value: Any) -> str:
    return str(value.get("id") or "") if isinstance(value, dict) else ""


def _project(value: Any) -> str:
    """A project's id, given as text, as `{"id": …}` or as `projects/ID`."""
    if isinstance(value, dict):
        value = value.get("id")
    return value.removeprefix("projects/") if isinstance(value, str) else ""


def _tiers(loaded: dict[str, Any], name: str) -> list[dict[str, Any]]:
    tiers = loaded.get(name)
    return [tier for tier in tiers if isinstance(tier, dict)] if isinstance(tiers, list) else []


def _default_tier(loaded: dict[str, Any]) -> str:
    allowed = _tiers(loaded, "allowedTiers")
    chosen = next((tier for tier in allowed if tier.get("isDefault")), allowed[0] if allowed else None)
    return _tier(chosen) or LEGACY


def _ineligible(loaded: dict[str, Any], *, anyway: bool = False) -> Outcome | None:
    """Why no tier is to be had. A validation that one can do comes first; a tier that is allowed outweighs the other
    reasons, unless it turned out to be of no use (`anyway`)."""
    refused = _tiers(loaded, "ineligibleTiers")
    for tier in refused:
        if tier.get("reasonCode") == "VALIDATION_REQUIRED" and tier.get("validationUrl"):
            said = str(tier.get("validationErrorMessage") or tier.get("reasonMessage") or "")
            return _refusal(
                HELD["VALIDATION_REQUIRED"],
                said,
                url=str(tier["validationUrl"]),
                source="VALIDATION_REQUIRED",
            )
    if not refused or (_tiers(loaded, "allowedTiers") and not anyway):
        return None
    codes = [str(tier.get("reasonCode") or "") for tier in refused]
    held = next((found for code in codes if (found := HELD.get(code) or _INELIGIBLE.get(code))), _NO_LICENCE)
    said = "; ".join(str(tier["reasonMessage"]) for tier in refused if tier.get("reasonMessage"))
    return _refusal(held, said, source=next((code for code in codes if code), "ineligibleTiers"))


def _refusal(held: Held, said: str = "", *, url: str = "", source: str = "", status: int = 0) -> Outcome:
    reason = f"{held.text}: {said[:300]}" if said else held.text
    return Outcome(
        Kind.ACCOUNT,
        Scope.ACCOUNT,
        state=held.state,
        rotate=True,
        reason=reason,
        hint=held.hint,
        url=url,
        source=source,
        status=status,
    )
