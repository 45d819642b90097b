"""The metadata server of a machine at Google, as far as SDKs ask it: with it any Google SDK is a client, without code.

Off unless `[gateway] metadata_account` says whose tokens. Asked without any key, so only processes of our own user are
answered; a token that was handed out is accepted as a local key of ours (`auth.Handed`).
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from aiohttp import web

from gemini_pool.errors import PoolError

from ..runtime.lending import Lender
from . import relay
from .auth import peer_is_same_user
from .exchange import Exchange
from .peers import is_our_connection

ROOT = "/computeMetadata/v1"
FLAVOR = {"Metadata-Flavor": "Google", "Server": "gemini-pool"}
SCOPES = "https://www.googleapis.com/auth/cloud-platform"
_TEXT = "application/text"


async def handle(exchange: Exchange) -> web.StreamResponse:
    """`/` and everything below `/computeMetadata/v1/`."""
    services, request = exchange.services, exchange.request
    whom, lender = services.settings.metadata_account, services.lender
    if not whom or lender is None:
        raise PoolError("no_such_path", f"nothing is served at {request.path[:200]}")
    if not await _is_ours(exchange):
        raise PoolError("forbidden", "the metadata server answers processes of its own user only")
    if "X-Forwarded-For" in request.headers or "Origin" in request.headers:
        return _said(exchange, "Requests that were forwarded are refused.\n", 403)
    path = request.path.removeprefix(ROOT).strip("/")
    if request.path != "/" and request.headers.get("Metadata-Flavor") != "Google":
        return _said(exchange, "Missing Metadata-Flavor:Google header.\n", 403)
    if request.path in ("/", "/computeMetadata", "/computeMetadata/"):
        return _said(exchange, "computeMetadata/\n" if request.path == "/" else "v1/\n")
    segments = path.split("/") if path else []
    if segments[:2] == ["instance", "service-accounts"] and segments[3:] == ["token"]:
        return await _token(exchange, lender, whom, segments[2])
    found: Any = tree(lender.project_of(whom), lender.email_of(whom))
    for segment in segments:
        found = found.get(segment) if isinstance(found, dict) else None
    return _told(exchange, found)


async def _token(exchange: Exchange, lender: Lender, whom: str, account: str) -> web.StreamResponse:
    if account not in ("default", lender.email_of(whom)):
        return _said(exchange, f"There is no service account {account[:100]}.\n", 404)
    try:
        lent = await lender.token(whom)
    except PoolError as error:
        # SDKs repeat 503 and end at the rest, with this text in the user's face.
        return _said(exchange, f"{error}\n", 503 if error.retryable else 404)
    exchange.account = lent.account_id
    exchange.services.handed.keep(lent.token, lent.expires_at)
    value = {"access_token": lent.token, "expires_in": int(lent.expires_in_s), "token_type": "Bearer"}
    return _json(exchange, value)


def tree(project: str, email: str) -> dict[str, Any]:
    """What a machine would know of itself. It is none: the zone is a word, and there are no keys of its own."""
    number = project if project.isdigit() else "0"
    account = {"aliases": ["default"], "email": email, "scopes": [SCOPES]}
    return {
        "instance": {
            "attributes": {},
            "id": "0",
            "name": "gemini-pool",
            "hostname": "gemini-pool.internal",
            "zone": f"projects/{number}/zones/local",
            "service-accounts": {"default": account, **({email: account} if email != "default" else {})},
        },
        "project": {"attributes": {}, "numeric-project-id": number, "project-id": project},
        "universe": {"universe-domain": "googleapis.com"},
    }


def _told(exchange: Exchange, found: Any) -> web.StreamResponse:
    query = exchange.request.query
    if found is None:
        return _said(exchange, "Not found.\n", 404)
    if query.get("recursive", "").lower() == "true" or query.get("alt") == "json":
        return (
            _said(exchange, found, 200)
            if query.get("alt") == "text" and isinstance(found, str)
            else _json(exchange, _camel(found))
        )
    if isinstance(found, dict):
        names = [name + ("/" if isinstance(value, dict) else "") for name, value in found.items()]
        return _said(exchange, "\n".join(names) + "\n")
    return _said(exchange, "\n".join(found) + "\n" if isinstance(found, list) else found)


def _camel(value: Any) -> Any:
    """As Google writes names in JSON: `service-accounts` is `serviceAccounts`."""
    if not isinstance(value, dict):
        return value
    return {_camel_name(name) if "@" not in name else name: _camel(inner) for name, inner in value.items()}


def _camel_name(name: str) -> str:
    head, *rest = name.split("-")
    return head + "".join(part.capitalize() for part in rest)


async def _is_ours(exchange: Exchange) -> bool:
    transport = exchange.request.transport
    if transport is None:
        return False
    name = transport.get_extra_info("peername")
    if isinstance(name, tuple):
        return await asyncio.to_thread(is_our_connection, name, transport.get_extra_info("sockname"))
    return peer_is_same_user(transport)


def _json(exchange: Exchange, value: Any) -> web.Response:
    return _answer(exchange, msgspec.json.encode(value), 200, "application/json")


def _said(exchange: Exchange, text: str, status: int = 200) -> web.Response:
    return _answer(exchange, text.encode(), status, _TEXT)


def _answer(exchange: Exchange, body: bytes, status: int, kind: str) -> web.Response:
    response = relay.json_answer(exchange, body, status, kind)
    response.headers.update(FLAVOR)
    if status >= 400:
        exchange.outcome = "refused"
    return response
