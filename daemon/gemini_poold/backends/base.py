"""What a backend is, the reading of Google's answers that all of them share, and the registry.

A backend writes URLs, headers and bodies, translates what comes back and says what it means. It sends nothing.
Surfaces and backends each speak one dialect: "gl" (Developer API; the pivot), "ca" (Code Assist), "vx" (Vertex).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from ..config import Endpoints
from ..core import model as core
from ..errors import UNREADABLE, UpstreamFailure

GENERATE = frozenset({"generateContent", "streamGenerateContent"})
STREAM = "streamGenerateContent"


class Reading(msgspec.Struct, frozen=True):
    """What one answer or one event of a stream says about itself. `finished`: nothing is missing after it."""

    usage: core.Usage | None = None
    finish_reason: str = ""
    error: bool = False
    empty: bool = False  # neither candidates nor a block: an answer without content

    @property
    def finished(self) -> bool:
        return bool(self.finish_reason)


class Backend(Protocol):
    """One of Google's ways in. Bodies are whole JSON texts; every method is pure but for made-up request ids."""

    name: core.Backend
    form: str
    methods: frozenset[str]

    def url(
        self, account: core.Account, model: str, method: str, *, project: str, version: str = "v1beta"
    ) -> str:
        """The complete URL, `?alt=sse` included for a stream. `version` is the client's; not every backend uses it."""

    def headers(self, account: core.Account, *, project: str) -> dict[str, str]:
        """What goes out besides the credential's headers."""

    def request(
        self, surface: str, method: str, model: str, body: bytes, *, project: str, session: str = ""
    ) -> bytes:
        """A body of `surface`'s dialect in this backend's. Raises PoolError `bad_request` for what cannot be carried."""

    def takes_raw(self, surface: str, method: str) -> bool:
        """Whether `request` gives such a body back as it came, so that it need not be in the memory."""

    def response(self, surface: str, method: str, body: bytes) -> bytes:
        """This backend's whole answer in `surface`'s dialect."""

    def event(self, surface: str, data: bytes) -> bytes:
        """The same for the payload of one event of a stream."""

    def transparent(self, surface: str) -> bool:
        """Whether generated answers and events go to `surface` as they came."""

    def classify(
        self,
        status: int,
        headers: Mapping[str, str],
        body: bytes,
        *,
        model: str,
        now: float,
        account: core.Account,
    ) -> core.Outcome: ...

    def classify_event(
        self, payload: bytes, *, model: str, now: float, account: core.Account
    ) -> core.Outcome | None:
        """The meaning of an error inside a stream (or inside a 200 answer); None when `payload` is none."""

    def classify_failure(self, failure: UpstreamFailure) -> core.Outcome: ...

    def read(self, payload: bytes) -> Reading:
        """Usage, finish and error of an answer or event. Raises ValueError when it is no JSON object."""


# ---- reading ------------------------------------------------------------------------------------------------------


_NONE = msgspec.Raw(b"null")  # msgspec has no `Raw | None`


class _Meta(msgspec.Struct):
    promptTokenCount: int = 0  # noqa: N815 - Google's names
    toolUsePromptTokenCount: int = 0  # noqa: N815
    candidatesTokenCount: int = 0  # noqa: N815
    thoughtsTokenCount: int = 0  # noqa: N815
    cachedContentTokenCount: int = 0  # noqa: N815
    totalTokenCount: int = 0  # noqa: N815


class _Candidate(msgspec.Struct):
    finishReason: str | None = None  # noqa: N815


class _Feedback(msgspec.Struct):
    blockReason: str | None = None  # noqa: N815


class _Answer(msgspec.Struct):
    usageMetadata: _Meta | None = None  # noqa: N815
    candidates: list[_Candidate] | None = None
    promptFeedback: _Feedback | None = None  # noqa: N815
    error: msgspec.Raw = _NONE
    totalTokens: int | None = None  # noqa: N815


class _Wrapped(msgspec.Struct):
    response: _Answer | None = None
    error: msgspec.Raw = _NONE
    totalTokens: int | None = None  # noqa: N815


_plain = msgspec.json.Decoder(_Answer, strict=False)
_wrapped = msgspec.json.Decoder(_Wrapped, strict=False)


def read_plain(payload: bytes) -> Reading:
    """The reading of an answer in the "gl" or "vx" dialect."""
    try:
        return _reading(_plain.decode(payload))
    except UNREADABLE as e:
        return _unreadable(payload, e)


def read_wrapped(payload: bytes) -> Reading:
    """The reading of an answer in the "ca" dialect."""
    try:
        outer = _wrapped.decode(payload)
    except UNREADABLE as e:
        return _unreadable(payload, e)
    if outer.error != _NONE or outer.response is None:
        return Reading(error=outer.error != _NONE, empty=outer.totalTokens is None)
    return _reading(outer.response)


def _unreadable(payload: bytes, error: Exception) -> Reading:
    """An array-wrapped error is one; what is JSON of an unexpected shape is passed on unread; the rest is broken."""
    if payload.lstrip()[:1] == b"[" and b'"error"' in payload:
        return Reading(error=True)
    if isinstance(error, msgspec.ValidationError):
        return Reading()
    raise ValueError(f"not JSON: {error}") from None


def _reading(answer: _Answer) -> Reading:
    if answer.error != _NONE:
        return Reading(error=True)
    finish = ""
    for candidate in answer.candidates or ():
        reason = candidate.finishReason
        if reason and reason != "FINISH_REASON_UNSPECIFIED":
            finish = reason
    feedback = answer.promptFeedback
    if not finish and feedback is not None and feedback.blockReason:
        finish = f"BLOCKED_{feedback.blockReason}"
    meta = answer.usageMetadata
    return Reading(
        usage=None if meta is None else usage_of(meta),
        finish_reason=finish,
        empty=not finish and not answer.candidates and answer.totalTokens is None,
    )


def usage_of(meta: _Meta) -> core.Usage:
    return core.Usage(
        input_tokens=meta.promptTokenCount + meta.toolUsePromptTokenCount,
        output_tokens=meta.candidatesTokenCount + meta.thoughtsTokenCount,
        cached_tokens=meta.cachedContentTokenCount,
        thought_tokens=meta.thoughtsTokenCount,
        total_tokens=meta.totalTokenCount,
    )


# ---- classifying, shared ------------------------------------------------------------------------------------------


def succeeded(status: int) -> core.Outcome:
    return OK if status == 200 else core.Outcome(core.Kind.OK, status=status)


OK = core.Outcome(core.Kind.OK, status=200)


def build(endpoints: Endpoints) -> dict[core.Backend, Backend]:
    """Every backend, by name."""
    from .code_assist import CodeAssist
    from .developer_api import DeveloperApi
    from .vertex import Vertex

    return {
        core.Backend.DEVELOPER_API: DeveloperApi(endpoints.developer_api),
        core.Backend.CODE_ASSIST: CodeAssist(endpoints.code_assist),
        core.Backend.VERTEX: Vertex(endpoints.vertex),
    }
