"""A generated answer, or an event of a stream, of the Gemini API, read once for every form that it is told in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from ..errors import UNREADABLE, PoolError

# Finish reasons after which all that was asked for is there, or as much of it as the limit allows.
WHOLE, LENGTH = "STOP", "MAX_TOKENS"


class _Call(msgspec.Struct):
    name: str = ""
    args: msgspec.Raw = msgspec.Raw(b"{}")


class _Blob(msgspec.Struct):
    mimeType: str = ""  # noqa: N815 - Google's names, here and below
    data: str = ""


class _Code(msgspec.Struct):
    code: str = ""
    output: str = ""
    language: str = ""


class Part(msgspec.Struct):
    text: str | None = None
    thought: bool = False
    thoughtSignature: str = ""  # noqa: N815
    functionCall: _Call | None = None  # noqa: N815
    inlineData: _Blob | None = None  # noqa: N815
    executableCode: _Code | None = None  # noqa: N815
    codeExecutionResult: _Code | None = None  # noqa: N815


class _Content(msgspec.Struct):
    parts: list[Part] | None = None


class _Likely(msgspec.Struct):
    token: str = ""
    logProbability: float = 0.0  # noqa: N815


class _LikelyOnes(msgspec.Struct):
    candidates: list[_Likely] = []


class _Logprobs(msgspec.Struct):
    topCandidates: list[_LikelyOnes] = []  # noqa: N815
    chosenCandidates: list[_Likely] = []  # noqa: N815


class Candidate(msgspec.Struct):
    index: int = 0
    content: _Content | None = None
    finishReason: str | None = None  # noqa: N815
    logprobsResult: _Logprobs | None = None  # noqa: N815

    @property
    def parts(self) -> list[Part]:
        return (self.content.parts if self.content is not None else None) or []

    @property
    def finish(self) -> str:
        """Why it ended, "" while it goes on."""
        return "" if self.finishReason in (None, "FINISH_REASON_UNSPECIFIED") else str(self.finishReason)


class _Feedback(msgspec.Struct):
    blockReason: str | None = None  # noqa: N815


class Meta(msgspec.Struct):
    promptTokenCount: int = 0  # noqa: N815
    toolUsePromptTokenCount: int = 0  # noqa: N815
    candidatesTokenCount: int = 0  # noqa: N815
    thoughtsTokenCount: int = 0  # noqa: N815
    cachedContentTokenCount: int = 0  # noqa: N815
    totalTokenCount: int = 0  # noqa: N815


class Answer(msgspec.Struct):
    candidates: list[Candidate] | None = None
    promptFeedback: _Feedback | None = None  # noqa: N815
    usageMetadata: Meta | None = None  # noqa: N815
    modelVersion: str = ""  # noqa: N815
    responseId: str = ""  # noqa: N815

    @property
    def blocked(self) -> str:
        """Why the prompt was refused, "" when it was not."""
        return (self.promptFeedback.blockReason if self.promptFeedback is not None else None) or ""


_decoder = msgspec.json.Decoder(Answer, strict=False)


def read(payload: bytes) -> Answer:
    """Raises PoolError `upstream_error` when `payload` is no answer."""
    try:
        return _decoder.decode(payload)
    except UNREADABLE as error:
        raise PoolError("upstream_error", f"the answer cannot be read: {error}") from None


class Piece(NamedTuple):
    """One thing that an answer says: `kind` is "thought", "text", "call" or "image"."""

    kind: str
    text: str = ""  # of a call its arguments, of an image its data: URL
    name: str = ""
    signature: str = ""


def pieces(candidate: Candidate) -> Iterator[Piece]:
    """What `candidate` says, in order. Code that Google ran is told as text, for no other form has a place for it."""
    for part in candidate.parts:
        signature = part.thoughtSignature
        if part.functionCall is not None:
            args = bytes(part.functionCall.args).decode()
            yield Piece("call", "{}" if args == "null" else args, part.functionCall.name, signature)
        elif part.inlineData is not None:
            blob = part.inlineData
            yield Piece("image", f"data:{blob.mimeType};base64,{blob.data}", signature=signature)
        elif part.executableCode is not None:
            code = part.executableCode
            yield Piece("text", f"\n```{code.language.lower()}\n{code.code}\n```\n", signature=signature)
        elif part.codeExecutionResult is not None:
            yield Piece("text", f"\n```\n{part.codeExecutionResult.output}\n```\n", signature=signature)
        elif part.text or signature:
            kind = "thought" if part.thought else "text"
            yield Piece(kind, part.text or "", signature=signature)


def usage(meta: Meta | None) -> dict[str, Any]:
    """Counts as every OpenAI form groups them: input, cached, output, reasoning, total."""
    meta = meta or Meta()
    given = meta.promptTokenCount + meta.toolUsePromptTokenCount
    made = meta.candidatesTokenCount + meta.thoughtsTokenCount
    return {
        "input": given,
        "cached": meta.cachedContentTokenCount,
        "output": made,
        "reasoning": meta.thoughtsTokenCount,
        "total": meta.totalTokenCount or given + made,
    }


def finish_reason(finish: str, *, called: bool) -> str:
    """OpenAI's word for Google's. Whatever withheld a part of the answer is `content_filter`, never a plain stop."""
    if finish == WHOLE:
        return "tool_calls" if called else "stop"
    return "length" if finish == LENGTH else "content_filter"
