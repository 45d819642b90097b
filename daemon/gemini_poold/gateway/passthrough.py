"""What Google keeps for an account (files, caches, interactions, batches, stores…): passed through as it came, to the
account that has it, else to one that is chosen and remembered.

Bodies and answers are not buffered beyond a piece, but for what must be looked at: a JSON request that may name
something, and the beginning of an answer that names what was made. Uploads are `uploads.py`'s.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web
from multidict import CIMultiDict

from gemini_pool.errors import PoolError

from .. import coding
from ..errors import UNREADABLE
from ..runtime.attempts import Call
from ..runtime.forward import RESOURCES, VERTEX_RESOURCES, Forwarded, Forwarder
from ..transport import USER_AGENT
from . import bound, onward, relay
from .errors import JSON
from .exchange import Exchange

UPLOAD_WORD = "gemini_pool_upload"  # the parameter in an upload's address that is its key
LOOKED_AT = 1 << 20  # of a JSON answer: what names something is small
_HEAD = 64 << 10  # of a stream: its first event names the interaction
_PASSED = ("Content-Type", "Range", "If-Match", "If-None-Match", "Api-Revision", "Accept")
_ANSWERED = (
    "Content-Length", "Content-Range", "Accept-Ranges", "ETag", "Content-Disposition", "Cache-Control", "Last-Modified",
    "X-Goog-Hash", "Content-Encoding",
)  # fmt: skip
_INTERACTION_ID = re.compile(rb'"interaction"\s*:\s*\{[^{}]*?"id"\s*:\s*"([A-Za-z0-9._~-]{1,200})"')
_MODEL = re.compile(
    r"(?:(?:projects/.{1,200}/)?publishers/google/)?(?:models/)?([A-Za-z0-9][A-Za-z0-9._@-]{0,127})"
)
_MODEL_OF = frozenset({"cachedContents", "interactions", "batchPredictionJobs"})  # their bodies name one
# What stands in every stream that came to its end, or tells of an error itself.
_ENDS = {
    "interactions": (b"interaction.completed", b'"error"'),
    "streamGenerateContent": (b'"finishReason"', b'"blockReason"', b'"error"'),  # of a tuned model
}
_CREATES = frozenset({"POST", "GET", "PATCH"})


async def handle(exchange: Exchange) -> web.StreamResponse:
    """One request about something that is kept."""
    request = exchange.request
    onward.path(request.path)  # before anything is made of it
    rest = rest_of(request.path)
    raw = not _is_vertex(exchange) and rest[0].partition(":")[0] not in _MODEL_OF  # nobody decodes it
    body = await exchange.read_body(may_spool=raw) if request.body_exists else b""
    name = bound.of_vertex_path(rest) if _is_vertex(exchange) else bound.of_path(rest)
    if request.method == "GET" and not name and len(rest) == 1:
        return await _list(exchange, rest[0])
    forwarder = forwarder_of(exchange)
    if name and not forwarder.account_of(name) and not exchange.request.headers.get("x-gemini-pool-account"):
        await _find(exchange, forwarder, name)
    call = _call(exchange, _model(exchange, rest, body), body, names={name} if name else set())
    if request.method == "GET" and rest[0] not in _ENDS and coding.takes_gzip(_accepted(exchange)):
        # Google wants to read it in the agent's name, too.
        call.headers = {**call.headers, "Accept-Encoding": coding.GZIP, "User-Agent": f"{USER_AGENT} (gzip)"}
    answer = await forwarder.open(call, request.method, path_of(exchange), body or None)
    try:
        if request.method == "DELETE" and answer.status < 300:
            forwarder.unbind(name)
        return await _hand_on(exchange, forwarder, answer, collection=rest[0].partition(":")[0])
    finally:
        await answer.aclose()


def _is_vertex(exchange: Exchange) -> bool:
    return exchange.target.surface == "vx"


def _call(
    exchange: Exchange, model: str = "", body: bytes = b"", names: frozenset[str] | set[str] = frozenset()
) -> Call:
    """A call about what is kept where this surface's clients expect it."""
    vertex = _is_vertex(exchange)
    method = VERTEX_RESOURCES if vertex else RESOURCES
    call = exchange.call_for(method, model, body, names=set(names), headers=passed(exchange))
    if vertex and not call.request.pin:
        call.request = call.request._replace(exclude=forwarder_of(exchange).without_project())
    return call


def forwarder_of(exchange: Exchange) -> Forwarder:
    forwarder = exchange.services.forwarder
    if forwarder is None:
        raise PoolError("not_served", "nothing is kept at Google here")
    return forwarder


def rest_of(path: str) -> list[str]:
    """The segments below the version, and below Vertex's project, location and publisher."""
    segments = path.removeprefix("/").split("/")
    if segments[0] in {"upload", "download"}:
        segments = segments[1:]
    rest = segments[1:]
    if rest[:1] == ["projects"]:
        rest = rest[4:]
    return rest[2:] if rest[:2] == ["publishers", "google"] else rest


def path_of(exchange: Exchange) -> str:
    """Path and query to send on."""
    request = exchange.request
    return onward.with_query(
        onward.path(request.path), onward.query(request.rel_url.raw_query_string, (UPLOAD_WORD,))
    )


def passed(exchange: Exchange) -> dict[str, str]:
    """The client's headers that go on."""
    return onward.headers(exchange.request.headers, _PASSED)


def _accepted(exchange: Exchange) -> str:
    """The client's Accept-Encoding. Of a Range the bytes must be the file's own."""
    headers = exchange.request.headers
    return "" if "Range" in headers else headers.get("Accept-Encoding", "")


class _Named(msgspec.Struct):
    model: Any = None


_named = msgspec.json.Decoder(_Named)


def _model(exchange: Exchange, rest: list[str], body: bytes) -> str:
    """The model that a request is about: of its path, or of its body as Google reads it; empty for none."""
    if rest[0] == "models" and len(rest) > 1:
        return rest[1].partition(":")[0]
    if rest[0].partition(":")[0] not in _MODEL_OF or not body:
        return ""
    try:
        said = _named.decode(body).model
    except UNREADABLE:
        return ""  # Google's to refuse
    if not isinstance(said, str):
        return ""
    if found := _MODEL.fullmatch(said):
        return found[1]
    if exchange.client is not None:
        exchange.client.check_model(said[:200])
    return ""


def _candidates(forwarder: Forwarder, probe: Call) -> list[str]:
    return [each for each in forwarder.candidates(probe.request) if each not in probe.request.exclude]


async def _find(exchange: Exchange, forwarder: Forwarder, name: str) -> None:
    """Whose is a name that was made before our time, or elsewhere with the same key? Ask each account that may know."""
    resource = name.removeprefix(bound.VERTEX)
    collection = resource.partition("/")[0]
    version = exchange.target.version or "v1beta"
    path = onward.path(f"/{version}/{resource}")
    probe = _call(exchange)
    probe.headers = {}  # a Range, say, is about the client's own question
    for account in _candidates(forwarder, probe):
        probe.request = probe.request._replace(pin=account)
        try:
            answer = await forwarder.open(probe, "GET", path, None)
            try:
                if answer.status == 200:
                    value = _decoded(await answer.read(LOOKED_AT))
                    forwarder.bind(name, account, bound.until(name, value, exchange.services.clock.now()))
                    return
            finally:
                await answer.aclose()
        except PoolError:
            continue
    shown = resource if collection != "interactions" else resource.partition("/")[2]
    raise PoolError("not_found", f"no account of the pool has {shown}, or it has expired")


async def _list(exchange: Exchange, collection: str) -> web.StreamResponse:
    """One page of what all accounts have, account after account; `nextPageToken` says where it goes on."""
    forwarder = forwarder_of(exchange)
    query = dict(onward.query(exchange.request.rel_url.raw_query_string))
    probe = _call(exchange)
    pin = probe.request.pin
    accounts = [pin] if pin else _candidates(forwarder, probe)
    at, _, token = query.pop("pageToken", "").partition("~")
    start = accounts.index(at) if at in accounts else 0
    found: list[Any] = []
    skipped: list[str] = []
    size, token_after = _size(query.get("pageSize", "")), ""
    for account in accounts[start:]:
        if len(found) >= size:
            token_after = f"{account}~"
            break
        value = await _page(
            exchange,
            forwarder,
            account,
            {**query, "pageSize": str(size - len(found)), **({"pageToken": token} if token else {})},
        )
        token = ""
        if value is None:
            skipped.append(account)
            continue
        for name, holder in bound.in_answer(value, collection):
            forwarder.bind(name, account, bound.until(name, holder, exchange.services.clock.now()))
        listed = value.get(collection)
        found += listed if isinstance(listed, list) else []
        if following := value.get("nextPageToken"):
            token_after = f"{account}~{following}"
            break
    if not found and skipped and len(skipped) == len(accounts[start:]):
        raise PoolError("upstream_error", f"no account could list its {collection}: {', '.join(skipped)}")
    answer: dict[str, Any] = {collection: found} if found else {}
    if token_after:
        answer["nextPageToken"] = token_after
    response = relay.json_answer(exchange, msgspec.json.encode(answer))
    if skipped:
        response.headers["x-gemini-pool-skipped"] = ",".join(skipped)
    return response


def _size(text: str) -> int:
    if text and not (text.isascii() and text.isdigit() and len(text) < 5):
        raise PoolError("bad_request", "pageSize must be a small number")
    return int(text or 0) or 50


async def _page(
    exchange: Exchange, forwarder: Forwarder, account: str, query: Mapping[str, str]
) -> dict[str, Any] | None:
    """What one account lists; None when it cannot say now, unless it is the one that was asked for."""
    probe = _call(exchange)
    asked_for = probe.request.pin
    probe.request = probe.request._replace(pin=account)
    probe.wait_until = exchange.services.clock.now()
    try:
        path = onward.with_query(onward.path(exchange.request.path), list(query.items()))
        answer = await forwarder.open(probe, "GET", path, None)
        try:
            value = _decoded(await answer.read(16 * LOOKED_AT)) if answer.status == 200 else None
        finally:
            await answer.aclose()
    except PoolError:
        if asked_for:
            raise
        return None
    return value if isinstance(value, dict) else None


async def _hand_on(
    exchange: Exchange, forwarder: Forwarder, answer: Forwarded, *, collection: str
) -> web.StreamResponse:
    relay.note(exchange, answer.account, answer.attempts, answer.wait_s)
    kind = answer.headers.get("Content-Type", JSON)
    exchange.status = answer.status
    if answer.status >= 400:
        exchange.outcome = "refused"
    headers = relay.headers(
        exchange, kind, {name: answer.headers[name] for name in _ANSWERED if name in answer.headers}
    )
    length = answer.headers.get("Content-Length", "")
    small = length.isdigit() and int(length) <= LOOKED_AT
    if "json" in kind and (small or answer.status >= 400):
        body = await answer.read(LOOKED_AT)
        if answer.status < 300 and exchange.request.method in _CREATES:
            plain = coding.plain(body, answer.headers.get("Content-Encoding", ""), 16 * LOOKED_AT)
            await remember(exchange, forwarder, answer.account, plain, collection)
        exchange.bytes_out = len(body)
        headers.popall("Content-Length", None)
        return web.Response(body=body, status=answer.status, headers=headers)
    return await _stream(exchange, forwarder, answer, headers, collection=collection)


async def _stream(
    exchange: Exchange, forwarder: Forwarder, answer: Forwarded, headers: CIMultiDict[str], *, collection: str
) -> web.StreamResponse:
    """Piece by piece; a stream that lacks its last event ends as a broken one."""
    ends = _ENDS.get(exchange.request.path.rpartition(":")[2]) or _ENDS.get(collection, ())
    events = "event-stream" in headers["Content-Type"]
    if events:  # what is added when it breaks off has no place in a length
        headers.popall("Content-Length", None)
    response = web.StreamResponse(status=answer.status, headers=headers)
    await response.prepare(exchange.request)
    exchange.begun = response
    head, tail, bound_already, finished = b"", b"", not events, not ends or not events
    try:
        async for chunk in answer:
            if not bound_already:
                head += chunk
                if found := _INTERACTION_ID.search(head):
                    name = f"interactions/{found[1].decode()}"
                    forwarder.bind(
                        name, answer.account, bound.until(name, None, exchange.services.clock.now())
                    )
                    await forwarder.kept()
                bound_already = found is not None or len(head) > _HEAD
            if not finished:
                tail = tail[-64:] + chunk
                finished = any(end in tail for end in ends)
            await response.write(chunk)
            exchange.bytes_out += len(chunk)
        if not finished:
            raise PoolError(
                "stream_cut",
                f"{answer.account}: the stream ended without its last event",
                account=answer.account,
            )
        await response.write_eof()
    except PoolError as error:
        if events:
            await relay.break_off(exchange, response, error)
        elif exchange.request.transport is not None:  # bytes of a file: nothing may be added to them
            exchange.outcome = error.code
            exchange.request.transport.abort()
    except ConnectionError:
        exchange.outcome = "cancelled"
    return response


async def remember(
    exchange: Exchange, forwarder: Forwarder, account: str, body: bytes, collection: str
) -> None:
    """Bind what an answer says was made."""
    for name, holder in bound.in_answer(_decoded(body), collection):
        forwarder.bind(name, account, bound.until(name, holder, exchange.services.clock.now()))
    await forwarder.kept()


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except UNREADABLE:
        return None
