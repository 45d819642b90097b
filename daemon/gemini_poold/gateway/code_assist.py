"""Code Assist's private API under /v1internal, as far as gemini-cli needs it (`CODE_ASSIST_ENDPOINT`).

Set-up calls are answered here: the client gets a licensed tier and a project's name, because each account of the pool
has its own and the one that serves is not known yet. Its telemetry ends here, too: it must not be filed under
whichever account happens to be next.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
from aiohttp import web

from gemini_pool import wire
from gemini_pool.errors import PoolError

from ..errors import UNREADABLE
from . import relay
from .exchange import Exchange

PROJECT = "gemini-pool"
TIER = {
    "id": "standard-tier",
    "name": "gemini-pool",
    "description": "Served by the accounts of gemini-pool",
    "userDefinedCloudaicompanionProject": True,
    "isDefault": True,
    "privacyNotice": {"showNotice": False},
    "hasAcceptedTos": True,
    "hasOnboardedPreviously": True,
}


class _Inner(msgspec.Struct):
    model: str = ""
    session_id: str = ""


class _Wrapper(msgspec.Struct):
    """The few fields of a Code Assist body that the gateway reads. The rest is skipped, not built."""

    model: str = ""
    user_prompt_id: str = ""
    request: _Inner = msgspec.field(default_factory=_Inner)


class _SetUp(msgspec.Struct):
    cloudaicompanionProject: str | None = None  # noqa: N815  Google's name
    project: str | None = None


_wrapper = msgspec.json.Decoder(_Wrapper)
_set_up = msgspec.json.Decoder(_SetUp)


async def generate(exchange: Exchange) -> web.StreamResponse:
    """generateContent, streamGenerateContent and countTokens: the model stands in the body."""
    body = await exchange.read_body()
    try:
        wrapper = _wrapper.decode(body)
    except UNREADABLE as error:
        raise PoolError("bad_request", f"the body is no Code Assist request: {error}") from None
    model = wrapper.model or wrapper.request.model
    if not model:
        raise PoolError("bad_request", "the body names no model")
    method = exchange.target.method
    call = exchange.call(method, model, body, session=wrapper.request.session_id or wrapper.user_prompt_id)
    send = relay.stream if method == "streamGenerateContent" else relay.unary
    return await send(exchange, call)


async def load(exchange: Exchange) -> web.StreamResponse:
    project = await _project(exchange)
    return _answer(
        exchange, {"currentTier": TIER, "allowedTiers": [TIER], "cloudaicompanionProject": project}
    )


async def onboard(exchange: Exchange) -> web.StreamResponse:
    return _answer(exchange, _done(await _project(exchange)))


async def operation(exchange: Exchange) -> web.StreamResponse:
    """There is never anything to wait for: every operation is done."""
    return _answer(exchange, _done(PROJECT))


async def quota(exchange: Exchange) -> web.StreamResponse:
    await exchange.read_body()
    return _answer(exchange, {"buckets": buckets(exchange.services.quota())})


async def experiments(exchange: Exchange) -> web.StreamResponse:
    await exchange.read_body()
    return _answer(exchange, {"experimentIds": [], "flags": []})


async def admin_controls(exchange: Exchange) -> web.StreamResponse:
    await exchange.read_body()
    return _answer(exchange, {"adminControlsApplicable": False})


async def swallow(exchange: Exchange) -> web.StreamResponse:
    await exchange.read_body()
    return _answer(exchange, {})


async def user_setting(exchange: Exchange) -> web.StreamResponse:
    return _answer(exchange, {"cloudaicompanionProject": PROJECT, "freeTierDataCollectionOptin": False})


class Operation(NamedTuple):
    verb: str
    handler: Callable[[Exchange], Awaitable[web.StreamResponse]]


HANDLERS: Mapping[str, Operation] = {
    "generateContent": Operation("POST", generate),
    "streamGenerateContent": Operation("POST", generate),
    "countTokens": Operation("POST", generate),
    "loadCodeAssist": Operation("POST", load),
    "onboardUser": Operation("POST", onboard),
    "retrieveUserQuota": Operation("POST", quota),
    "listExperiments": Operation("POST", experiments),
    "fetchAdminControls": Operation("POST", admin_controls),
    "recordCodeAssistMetrics": Operation("POST", swallow),
    "getCodeAssistGlobalUserSetting": Operation("GET", user_setting),
}


def buckets(entries: Iterable[wire.QuotaEntry]) -> list[dict[str, Any]]:
    """What is left over the whole pool, per model and token type: the mean share, the next reset.

    An account without a known share is left out rather than counted as empty; its amount would say nothing either.
    """
    grouped: dict[tuple[str, str], list[wire.QuotaEntry]] = defaultdict(list)
    for entry in entries:
        if entry.fraction is not None:
            grouped[entry.model, entry.token_type or "REQUESTS"].append(entry)
    return [_bucket(model, kind, group) for (model, kind), group in sorted(grouped.items())]


def _bucket(model: str, kind: str, group: list[wire.QuotaEntry]) -> dict[str, Any]:
    fraction = sum(entry.fraction or 0.0 for entry in group) / len(group)
    bucket: dict[str, Any] = {"modelId": model, "tokenType": kind, "remainingFraction": round(fraction, 6)}
    if all(entry.remaining is not None for entry in group):
        bucket["remainingAmount"] = str(int(sum(entry.remaining or 0.0 for entry in group)))
    resets = [entry.resets_at for entry in group if entry.resets_at]
    if resets:
        bucket["resetTime"] = datetime.fromtimestamp(min(resets), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return bucket


async def _project(exchange: Exchange) -> str:
    """The project the client thinks of, else a name of ours: it is never sent on."""
    body = await exchange.read_body()
    try:
        asked = _set_up.decode(body or b"{}")
    except UNREADABLE as error:
        raise PoolError("bad_request", f"the body cannot be read: {error}") from None
    return asked.cloudaicompanionProject or PROJECT


def _done(project: str) -> dict[str, Any]:
    answer = {"cloudaicompanionProject": {"id": project, "name": project}}
    return {"name": "operations/gemini-pool", "done": True, "response": answer}


def _answer(exchange: Exchange, value: Mapping[str, Any]) -> web.Response:
    return relay.json_answer(exchange, msgspec.json.encode(value))
