"""Resumable uploads: the start is an ordinary request whose answer names an address of Google's; its client gets one of
ours instead, under which pieces, questions and the end go to the account that was chosen.

The address carries a word of ours that is its key, as Google's own does: SDKs send no other with their pieces. Only
its digest is kept. Pieces go through as they come, no faster than Google takes them; a whole upload in one request may go
to another account when it is refused.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import AsyncIterator
from urllib.parse import urlencode, urlsplit

from aiohttp import web

from gemini_pool.errors import PoolError

from ..runtime.forward import RESOURCES, Forwarded
from . import bound, onward, passthrough, relay
from .auth import LocalClient
from .errors import JSON
from .exchange import Exchange

WORD = passthrough.UPLOAD_WORD
UPLOAD_CLIENT = LocalClient("upload")
_LARGEST_START = 1 << 20
_HOST = re.compile(r"[A-Za-z0-9._:\[\]-]{1,255}")  # on the Unix socket nobody has looked at it yet


async def handle(exchange: Exchange) -> web.StreamResponse:
    """A start, something about an upload under way, or a whole upload in one request."""
    request = exchange.request
    forwarder = passthrough.forwarder_of(exchange)
    word = word_of(exchange)
    path, streamed = passthrough.path_of(exchange), None
    headers = {**passthrough.passed(exchange), **_upload_headers(exchange)}
    start = (
        not word
        and "start" in request.headers.get("X-Goog-Upload-Command", "start").lower()
        and ("X-Goog-Upload-Command" in request.headers or "uploadType=resumable" in request.query_string)
    )
    body = whole = b""
    length = request.content_length
    if start or not request.body_exists:
        body = whole = await _start_body(exchange)
    elif not word and length is not None and length <= exchange.services.settings.body_limit:
        whole = await exchange.read_body(
            may_spool=True
        )  # nobody has any of it yet: it may go to another account
        if exchange.large is not None:
            exchange.large.names.clear()  # what stands in a file is no name in a request
    else:
        if length is not None and not exchange.encoded:
            headers["Content-Length"] = str(length)
        streamed = _counted(exchange)
    call = exchange.call_for(
        RESOURCES, "", body, names={_name(word)} if word else _store(request.path), headers=headers
    )
    answer = await forwarder.open(
        call, request.method, path, streamed if streamed is not None else whole or None
    )
    try:
        return await _answered(exchange, answer, word=word)
    finally:
        await answer.aclose()


def word_of(exchange: Exchange) -> str:
    """The word in an address that we gave out; empty when there is none."""
    return exchange.request.query.get(WORD, "") if WORD in exchange.request.query_string else ""


def client_of(exchange: Exchange) -> LocalClient | None:
    """Who holds a word that we gave out may go on with that upload and do nothing else."""
    word, forwarder = word_of(exchange), exchange.services.forwarder
    if not word or forwarder is None or not exchange.request.path.startswith("/upload/"):
        return None
    return UPLOAD_CLIENT if forwarder.account_of(_name(word)) else None


async def _answered(exchange: Exchange, answer: Forwarded, *, word: str) -> web.StreamResponse:
    relay.note(exchange, answer.account, answer.attempts, answer.wait_s)
    forwarder = passthrough.forwarder_of(exchange)
    body = await answer.read(passthrough.LOOKED_AT)
    now = exchange.services.clock.now()
    passed = {
        n: v
        for n, v in answer.headers.items()
        if n.lower().startswith("x-goog-upload-") or n.lower() == "range"
    }
    for name in ("X-Goog-Upload-URL", "Location", "X-Goog-Upload-Control-URL"):
        given = answer.headers.get(name)
        if not given:
            continue
        if not word:
            word = secrets.token_urlsafe(24)
            forwarder.bind(_name(word), answer.account, now + bound.LIVES_S["upload"])
        passed = {n: v for n, v in passed.items() if n.lower() != name.lower()} | {
            name: _ours(exchange, given, word)
        }
    if word and answer.status < 300:
        await forwarder.kept()
    if body and answer.status < 300:
        await passthrough.remember(
            exchange, forwarder, answer.account, body, _collection(exchange.request.path)
        )
    if word and answer.headers.get("X-Goog-Upload-Status", "").lower() in {"final", "cancelled"}:
        forwarder.unbind(_name(word))
    exchange.status, exchange.bytes_out = answer.status, len(body)
    if answer.status >= 400:
        exchange.outcome = "refused"
    headers = relay.headers(exchange, answer.headers.get("Content-Type", JSON), passed)
    return web.Response(body=body, status=answer.status, headers=headers)


def _ours(exchange: Exchange, given: str, word: str) -> str:
    """Google's address as one of this gateway's, by the name that the client calls us."""
    url, request = urlsplit(given), exchange.request
    query = urlencode([*onward.query(url.query, (WORD,)), (WORD, word)])
    host = request.headers.get("Host", "")
    return f"http://{host if _HOST.fullmatch(host) else 'localhost'}{url.path}?{query}"


def _name(word: str) -> str:
    return "upload/" + hashlib.sha256(word.encode("utf-8", "surrogatepass")).hexdigest()


def _store(path: str) -> set[str]:
    name = bound.of_path(passthrough.rest_of(path))
    return {name} if name else set()


def _collection(path: str) -> str:
    return passthrough.rest_of(path)[0].partition(":")[0]


def _upload_headers(exchange: Exchange) -> dict[str, str]:
    given = exchange.request.headers
    found = {
        n: onward.checked(n, v)
        for n, v in given.items()
        if n.lower().startswith(("x-goog-upload-", "x-upload-content-", "content-range"))
    }
    return onward.without_hop(given, found)


async def _start_body(exchange: Exchange) -> bytes:
    if (exchange.request.content_length or 0) > _LARGEST_START:
        raise PoolError("body_too_large", "the start of an upload is larger than 1 MiB")
    return await exchange.read_body() if exchange.request.body_exists else b""


async def _counted(exchange: Exchange) -> AsyncIterator[bytes]:
    async for chunk in exchange.request.content.iter_any():
        exchange.bytes_in += len(chunk)
        yield chunk
