"""One HTTP request on its way through: what was asked, by whom, and what became of it (for the log and the counters).

Also the headers that users may set on a request (`x-gemini-pool-*`) and how they become a `runtime.dispatch.Call`.
Nothing else of a client's headers goes any further.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import secrets
from collections.abc import Mapping
from math import isfinite
from typing import NamedTuple

from aiohttp import web

from gemini_pool.errors import PoolError

from ..backends.base import GENERATE
from ..core.model import Data, Request, Usage
from ..runtime.dispatch import Call
from . import beginning, bound, onward, spooling, thinking
from .auth import LocalClient
from .errors import Shape
from .services import Services
from .spooling import LargeBody
from .tracing import RequestTrace

# The only headers of a client's that reach Google.
PASSED_ON = ("Api-Revision", "X-Vertex-AI-LLM-Request-Type", "X-Vertex-AI-LLM-Shared-Request-Type")
# Codings of a body that aiohttp undoes, piece by piece: a small body that unpacks to a large one ends at the limit.
DECODED = ("gzip", "deflate", "br", "zstd")
# What clients send on their own that names a conversation (opencode).
SESSION_HEADERS = ("x-session-id", "x-session-affinity")
INSTALLATION = "x-gemini-api-privileged-user-id"  # gemini-cli's: one for all conversations of a user

# The name becomes part of a URL of Google's: nothing in it may mean anything there.
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,127}")
_LONGEST_SESSION = 200

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
_run = secrets.token_hex(3)
_count = itertools.count(1)


class Target(NamedTuple):
    """What a path means: the surface ("gl", "ca", "vx", or "" for none of Google's), its version and what is called."""

    surface: str
    version: str
    method: str
    model: str = ""
    shape: Shape = Shape.GOOGLE


class Exchange:
    """One request. Filled in by the surface as it learns; read by the log line."""

    __slots__ = (
        "account",
        "attempts",
        "begun",
        "bytes_in",
        "bytes_out",
        "call_made",
        "client",
        "ended_by_us",
        "finish",
        "first_byte_s",
        "held",
        "large",
        "model",
        "name",
        "origin",
        "outcome",
        "request",
        "services",
        "shape",
        "spooled_bytes",
        "standing",
        "started_at",
        "status",
        "target",
        "trace",
        "usage",
        "wait_s",
    )

    def __init__(
        self, request: web.BaseRequest, services: Services, target: Target, started_at: float
    ) -> None:
        self.request = request
        self.services = services
        self.target = target
        self.started_at = started_at  # monotonic
        self.client: LocalClient | None = None
        self.shape = target.shape
        self.model = target.model
        self.name = ""  # the request's id, over all of its attempts
        self.account = ""
        self.attempts = 0
        self.wait_s = 0.0
        self.first_byte_s: float | None = None  # since the request began
        self.held = 0  # bytes of room taken for the body
        self.large: LargeBody | None = None  # a body that went to the disk
        self.spooled_bytes = 0  # of it
        self.bytes_in = 0
        self.bytes_out = 0
        self.status = 0
        self.outcome = "ok"
        self.finish = ""
        self.usage: Usage | None = None
        self.call_made: Call | None = None
        self.trace: RequestTrace | None = None
        self.origin = ""  # an allowed web page's: its browser wants to be told
        self.begun: web.StreamResponse | None = None  # a stream whose head went out
        self.standing = False  # a connection without an end of its own: a stop ends it at once
        self.ended_by_us = False  # cancelled because the daemon stops, not because the client went away

    def note_attempts(self) -> None:
        """What the call knows about its way so far, however it ended."""
        if (call := self.call_made) is not None:
            self.attempts, self.wait_s = call.attempts, call.wait_s

    async def read_body(self, *, may_spool: bool = False) -> bytes:
        """The whole body, or `body_too_large`: before a byte of it is read where the length is told.

        `may_spool`: a large one may go to the disk; then it is `large`, and nothing comes back.
        """
        settings = self.services.settings
        limit = settings.body_limit
        request = self.request
        length = request.content_length
        if length is not None and length > limit:
            raise _too_large(limit)
        folder = self.services.spool if may_spool else None
        encoded = self.encoded
        if length and (folder is None or length <= settings.spool_above):
            self.hold(length)
        headers = request.headers
        if (
            "Expect" in headers
            and headers["Expect"].lower() == "100-continue"
            and request.transport is not None
        ):
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        content = request.content
        if folder is not None and length is not None and length > settings.spool_above:
            await spooling.read(self, folder, ())
            return b""
        if length is not None and not encoded:
            body = await content.read(-1)
            self.bytes_in = len(body)
            return body
        # Of unknown length, or compressed: it may grow while it is read.
        chunks: list[bytes] = []
        async for chunk in content.iter_any():
            self.count_in(len(chunk))
            if folder is not None and self.bytes_in > settings.spool_above:
                await spooling.read(self, folder, [*chunks, chunk])
                return b""
            self.hold(self.bytes_in - self.held)
            chunks.append(chunk)
        return b"".join(chunks)

    def count_in(self, size: int) -> None:
        """So many bytes more came. Raises `body_too_large`."""
        self.bytes_in += size
        if self.bytes_in > self.services.settings.body_limit:
            raise _too_large(self.services.settings.body_limit)

    async def in_memory(self) -> bytes:
        """A body that went to the disk, whole, because somebody has to decode it. Raises `overloaded`."""
        large, self.large = self.large, None
        assert large is not None
        try:
            return await large.whole()
        finally:
            large.close()

    def give_back(self) -> None:
        """The room of the body, in the memory and on the disk, is free again."""
        meter = self.services.meter
        meter.held_bytes -= self.held
        if self.spooled_bytes:
            meter.spooled_bytes -= self.spooled_bytes
        if self.large is not None:
            self.large.close()

    @property
    def encoded(self) -> bool:
        """Whether the body comes compressed; it is read decoded, so that its length is not the told one. PoolError for
        a coding that we do not know: its bytes would go on as if they were the body."""
        headers = self.request.headers
        if "Content-Encoding" not in headers:
            return False
        coding = headers["Content-Encoding"].strip().lower()
        if coding in ("", "identity"):
            return False
        if coding not in DECODED:
            known = ", ".join(DECODED)
            raise PoolError("bad_request", f"the body's Content-Encoding is none of {known}, identity")
        return True

    def hold(self, more: int) -> None:
        """Make room for a body before it is read: it is kept whole until its answer begins, so that it can be repeated.
        `overloaded` when too much is held already; `give_back` ends it."""
        if more <= 0:
            return
        meter = self.services.meter
        if meter.held_bytes and meter.held_bytes + more > self.services.settings.held_limit:
            raise PoolError(
                "overloaded", "the bodies of the requests under way fill the memory set aside for them"
            )
        meter.held_bytes += more
        self.held += more

    def call(self, method: str, model: str, body: bytes, *, session: str = "") -> Call:
        """The call to dispatch. `session` is what the surface found in the body; a header of ours goes before it."""
        settings = self.services.settings
        name = model.removeprefix("models/")
        name = settings.aliases.get(name, name)
        if not _MODEL.fullmatch(name):
            raise PoolError("bad_request", f"{name[:100]!r} is no model name")
        headers = self.request.headers
        passed = onward.headers(headers, PASSED_ON)
        if settings.thinking and method in GENERATE and self.large is None:
            surface = self.target.surface
            body = thinking.with_default(body, name, settings.thinking, surface=surface)
        return self.call_for(method, name, body, names=set(), headers=passed, session=session)

    def wants_thinking(self, large: LargeBody) -> bool:
        """Whether a body on the disk has to be decoded, because a default of ours belongs into it."""
        defaults, target = self.services.settings.thinking, self.target
        if not defaults or target.method not in GENERATE or large.thinks:
            return False
        name = target.model.removeprefix("models/")
        return bool(thinking.default_of(self.services.settings.aliases.get(name, name), defaults))

    def call_for(
        self,
        method: str,
        model: str,
        body: bytes,
        *,
        names: set[str],
        headers: Mapping[str, str],
        session: str = "",
    ) -> Call:
        """The same for `model` as it is, or for none. `names`: kept things that it is about, besides those in its body.
        `headers`: of the client's, as they go on."""
        services = self.services
        self.model = model
        client = self.client
        assert client is not None
        if model:
            client.check_model(model)
        self.name = f"{_run}{next(_count):x}"
        if (trace := self.trace) is not None:
            headers = trace.passed_on(headers)
        given = self.request.headers
        wait_s = _wait_s(given, services.settings.max_wait_s)
        large = self.large
        self.call_made = Call(
            surface=self.target.surface,
            method=method,
            model=model,
            body=body,
            request=Request(
                id=self.name,
                model=model,
                method=method,
                session=_session(given, client.name, session, body if large is None else large),
                pin=self._pin(bound.named_in(body) if large is None else large.names, names),
                allow_paid=_flag(given, "x-gemini-pool-allow-paid"),
                data=_data(given),
                batch=_is_batch(given),
            ),
            wait_until=services.clock.now() + wait_s,
            owner=f"gateway:{client.name}",
            version=self.target.version,
            headers=headers,
            spooled=large,
            trace=trace,
        )
        return self.call_made

    def _pin(self, found: set[str], names: set[str]) -> str:
        """The one account that may serve this: it has what the request names, or the client says so. Else empty."""
        said = self.request.headers.get("x-gemini-pool-account", "")
        forwarder = self.services.forwarder
        if forwarder is None or not (names := names | found):
            return said
        owners = {name: owner for name in sorted(names) if (owner := forwarder.account_of(name))}
        if not owners:
            return said
        name, owner = next(iter(owners.items()))
        for other, its in [*owners.items(), *([("x-gemini-pool-account", said)] if said else [])]:
            if its != owner:
                words = f"{name} belongs to account {owner}, {other} to {its}: no account can serve both"
                raise PoolError("bad_request", words, account=owner)
        forwarder.check(name, owner)
        return owner


def _too_large(limit: int) -> PoolError:
    return PoolError("body_too_large", f"the body is larger than {limit >> 20} MiB")


def _wait_s(headers: Mapping[str, str], default_s: float) -> float:
    if (text := headers.get("x-gemini-pool-wait-s")) is not None:
        wait_s = _seconds(text)
        if wait_s is None:
            raise PoolError("bad_request", "x-gemini-pool-wait-s must be a number of seconds")
        return wait_s
    if (text := headers.get("X-Server-Timeout")) is not None:
        wait_s = _seconds(text)  # the SDK's word to Google; one that we cannot read is no reason to refuse
        if wait_s is not None:
            return wait_s
    return default_s


def _seconds(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if isfinite(value) and value >= 0 else None


def _session(headers: Mapping[str, str], client: str, found: str, body: bytes | LargeBody) -> str:
    """The user's own word, else what the client calls its conversation, else how that begins. Kept apart from other
    clients' names."""
    if session := headers.get("x-gemini-pool-session"):
        return _short(session)
    if not found:
        found = next((value for name in SESSION_HEADERS if (value := headers.get(name))), "")
    if not found:
        key = beginning.key_of(body) if isinstance(body, bytes) else body.key
        parts = (headers.get(INSTALLATION, ""), key)
        found = "-".join(part for part in parts if part)
    return f"{client}:{_short(found)}" if found else ""


def _short(session: str) -> str:
    """Sessions are remembered; a long name is as good as its digest, and so is one that may not even be text."""
    if len(session) <= _LONGEST_SESSION and session.isascii():
        return session
    return hashlib.sha256(session.encode("utf-8", "surrogatepass")).hexdigest()


def _flag(headers: Mapping[str, str], name: str) -> bool | None:
    text = headers.get(name)
    if text is None:
        return None
    word = text.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise PoolError("bad_request", f"{name} must be true or false")


def _data(headers: Mapping[str, str]) -> Data | None:
    text = headers.get("x-gemini-pool-data")
    if text is None:
        return None
    try:
        return Data(text.strip().lower())
    except ValueError:
        raise PoolError("bad_request", "x-gemini-pool-data must be no-training or may-train") from None


def _is_batch(headers: Mapping[str, str]) -> bool:
    text = headers.get("x-gemini-pool-priority", "interactive").strip().lower()
    if text not in {"interactive", "batch"}:
        raise PoolError("bad_request", "x-gemini-pool-priority must be interactive or batch")
    return text == "batch"
