"""The verbs of the wire, once for both faces: name, result type, whether a repeat is harmless, and options.

A face's method is one line over this table. What each verb means is in the wire protocol's page and in `wire.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Generic, TypedDict, TypeVar

import msgspec

from gemini_pool import wire

R = TypeVar("R")


class Call(Generic[R]):
    """One verb. `repeatable`: asking twice changes nothing, so a lost connection is retried without telling."""

    def __init__(self, method: str, result: Any, *, repeatable: bool = False) -> None:
        self.method = method
        self.repeatable = repeatable
        self.result = result

    @cached_property
    def _decoder(self) -> msgspec.json.Decoder[R]:
        return msgspec.json.Decoder(self.result)

    def decode(self, raw: bytes | msgspec.Raw) -> R:
        return self._decoder.decode(raw)


INITIALIZE: Call[wire.InitializeResult] = Call("initialize", wire.InitializeResult, repeatable=True)
ACQUIRE: Call[wire.Lease] = Call("pool/acquire", wire.Lease)
REPORT: Call[wire.ReportResult] = Call("pool/report", wire.ReportResult)
RENEW: Call[wire.RenewResult] = Call("pool/renew", wire.RenewResult)
RELEASE: Call[wire.Empty] = Call("pool/release", wire.Empty)
GENERATE: Call[dict[str, Any]] = Call("pool/generate", dict[str, Any])
STREAM: Call[wire.StreamResult] = Call("pool/generate", wire.StreamResult)
TOKEN: Call[wire.TokenResult] = Call("pool/token", wire.TokenResult, repeatable=True)
STATUS: Call[wire.StatusResult] = Call("pool/status", wire.StatusResult, repeatable=True)
QUOTA: Call[wire.QuotaResult] = Call("pool/quota", wire.QuotaResult, repeatable=True)
EXPLAIN: Call[wire.ExplainResult] = Call("pool/explain", wire.ExplainResult, repeatable=True)
PAUSE: Call[wire.Empty] = Call("pool/pause", wire.Empty)
RESUME: Call[wire.Empty] = Call("pool/resume", wire.Empty)
SUBSCRIBE: Call[wire.Empty] = Call("pool/subscribe", wire.Empty)
ACCOUNTS: Call[wire.AccountListResult] = Call("account/list", wire.AccountListResult, repeatable=True)
LOGIN: Call[wire.LoginStarted] = Call("account/login", wire.LoginStarted)
LOGIN_FINISH: Call[wire.LoginResult] = Call("account/loginFinish", wire.LoginResult)
ADD: Call[wire.VerifyRow] = Call("account/add", wire.VerifyRow)
REMOVE: Call[wire.AccountRemoveResult] = Call("account/remove", wire.AccountRemoveResult)
PIN: Call[wire.Empty] = Call("account/pin", wire.Empty)
UNPIN: Call[wire.Empty] = Call("account/unpin", wire.Empty)
ENABLE: Call[wire.AccountVerdict] = Call("account/enable", wire.AccountVerdict)
DISABLE: Call[wire.AccountVerdict] = Call("account/disable", wire.AccountVerdict)
VERIFY: Call[wire.VerifyResult] = Call("account/verify", wire.VerifyResult)
CLEAR_COOLDOWN: Call[wire.ClearCooldownResult] = Call("account/clearCooldown", wire.ClearCooldownResult)
IMPORT: Call[wire.ImportResult] = Call("account/import", wire.ImportResult)
EXPORT_OPENCODE: Call[wire.ExportResult] = Call("account/exportOpencode", wire.ExportResult)
EXPORT_ARCHIVE: Call[wire.ArchiveResult] = Call("account/exportArchive", wire.ArchiveResult)
IMPORT_ARCHIVE: Call[wire.ImportResult] = Call("account/importArchive", wire.ImportResult)
INFO: Call[wire.DaemonInfo] = Call("daemon/info", wire.DaemonInfo, repeatable=True)
RELOAD: Call[wire.ReloadResult] = Call("daemon/reload", wire.ReloadResult)

REPEATABLE = frozenset(
    call.method for call in list(vars().values()) if isinstance(call, Call) and call.repeatable
)

PROGRESS: msgspec.json.Decoder[wire.ProgressParams] = msgspec.json.Decoder(wire.ProgressParams)
EVENT: msgspec.json.Decoder[wire.Event] = msgspec.json.Decoder(wire.Event)


class AcquireOptions(TypedDict, total=False):
    """What `acquire` and `lease` take besides the model; see `wire.AcquireParams`."""

    forms: Sequence[wire.Form]
    stream: bool
    session: str
    account: str
    exclude: list[str]
    wait_s: float | None
    min_validity_s: float
    priority: wire.Priority
    allow_paid: bool | None
    data: wire.DataClass | None
    request: str
    detach: bool


class ReportOptions(TypedDict, total=False):
    """What happened to a lease; see `wire.ReportParams`."""

    status: int | None
    headers: Mapping[str, str]
    body: Any
    usage: Mapping[str, Any] | None
    error: str
    first_byte_s: float | None
    total_s: float | None


class GenerateOptions(TypedDict, total=False):
    """What `generate` and `stream` take besides model and request; see `wire.GenerateParams`."""

    session: str
    account: str
    wait_s: float | None
    priority: wire.Priority
    allow_paid: bool | None
    data: wire.DataClass | None


class TokenOptions(TypedDict, total=False):
    """How `token` chooses when no account is named; see `wire.TokenParams`."""

    model: str
    backend: wire.Backend | None
    scopes: list[str]
    min_validity_s: float


GenerateRequest = str | bytes | Mapping[str, Any]


def generate_params(
    model: str, request: GenerateRequest, options: GenerateOptions, *, method: str, token: int | None = None
) -> dict[str, Any]:
    """Parameters of `pool/generate`. A string is a prompt; bytes are the body as JSON, sent as they are."""
    if isinstance(request, str):
        request = {"contents": [{"role": "user", "parts": [{"text": request}]}]}
    body = msgspec.Raw(request) if isinstance(request, bytes) else request
    params: dict[str, Any] = {"model": model, "request": body, "method": method, **options}
    if token is not None:
        params["token"] = token
    return params


def report_params(lease: str | wire.Lease, options: ReportOptions) -> wire.ReportParams:
    """Parameters of `pool/report`; headers may be any library's mapping, a body in bytes is taken as text."""
    fields: dict[str, Any] = dict(options)
    if (headers := fields.get("headers")) is not None:
        fields["headers"] = {str(name): str(value) for name, value in headers.items()}
    if isinstance(body := fields.get("body"), bytes):
        fields["body"] = body.decode("utf-8", "replace")
    return wire.ReportParams(lease=lease_id(lease), **fields)


def lease_id(lease: str | wire.Lease) -> str:
    return lease if isinstance(lease, str) else lease.lease


def leases_in(method: str, message: wire.Incoming) -> Sequence[str]:
    """Leases that a reply brings; one that comes after its caller has gone must be given back."""
    if not isinstance(message.result, msgspec.Raw):
        return ()
    if method == ACQUIRE.method:
        return (ACQUIRE.decode(message.result).lease,)
    if method == REPORT.method and (following := REPORT.decode(message.result).lease) is not None:
        return (following.lease,)
    return ()
