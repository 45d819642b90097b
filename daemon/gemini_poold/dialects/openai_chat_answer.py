"""Answers of the Gemini API -> OpenAI's chat completion, whole or chunk by chunk.

A stream's last words (finish reasons, usage, `[DONE]`) are said by `Chunks.end` alone, when the stream has really
ended: a client that sees one of them may rely on the answer being whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from ..errors import PoolError
from . import answer as gemini
from .openai_chat_request import Asked
from .reading import Json

DONE = b"data: [DONE]\n\n"
Remember = Callable[[str, str], None]
_encode = msgspec.json.Encoder().encode


class _Choice:
    """What came of one candidate so far."""

    __slots__ = ("calls", "finish", "started")

    def __init__(self) -> None:
        self.calls = 0
        self.finish = ""
        self.started = False


class Chunks:
    """One stream: `feed` an event's payload, `end` it after the last.

    `created`: Unix seconds; `new_id(prefix)` makes ids; `remember(call_id, signature)` is told of each signature.
    """

    def __init__(
        self, asked: Asked, *, created: float, new_id: Callable[[str], str], remember: Remember | None = None
    ) -> None:
        self._asked = asked
        self._created = int(created)
        self._new_id = new_id
        self._remember = remember
        self._id = ""
        self._model = asked.model
        self._choices: dict[int, _Choice] = {}
        self._meta: gemini.Meta | None = None

    def start(self) -> bytes:
        return b""

    def feed(self, payload: bytes) -> bytes:
        """The events that `payload` becomes, b"" when it says nothing."""
        return b"".join(map(self._event, self._chunks(gemini.read(payload))))

    def end(self) -> bytes:
        """The last events. Raises PoolError `stream_cut` when a choice has no end."""
        if not self._choices or any(not choice.finish for choice in self._choices.values()):
            raise PoolError("stream_cut", "an answer of the stream has no end")
        last = [self._event(self._chunk(i, {}, finish=c)) for i, c in sorted(self._choices.items())]
        if self._asked.usage:
            last.append(self._event({**self._head(), "choices": [], "usage": usage(self._meta)}))
        return b"".join([*last, DONE])

    def _chunks(self, found: gemini.Answer) -> Iterator[Json]:
        if found.usageMetadata is not None:
            self._meta = found.usageMetadata
        self._id = self._id or f"chatcmpl-{found.responseId or self._new_id('')}"
        self._model = found.modelVersion or self._model
        if found.blocked and not found.candidates:
            choice = self._choice(0)
            if not choice.started:
                choice.started, choice.finish = True, f"BLOCKED_{found.blocked}"
                yield self._chunk(0, {"role": "assistant", "refusal": _refusal(found.blocked)})
        for candidate in found.candidates or ():
            choice = self._choice(candidate.index)
            delta = self._delta(candidate, choice)
            choice.finish = candidate.finish or choice.finish
            if delta:
                if not choice.started:
                    choice.started = True
                    delta = {"role": "assistant", "content": None, **delta}
                logprobs = _logprobs(candidate) if self._asked.logprobs else None
                yield self._chunk(candidate.index, delta, logprobs=logprobs)

    def _delta(self, candidate: gemini.Candidate, choice: _Choice) -> Json:
        delta: Json = {}
        for piece in gemini.pieces(candidate):
            if piece.kind == "call":
                if self._asked.one_call and choice.calls:
                    continue  # the client asked for one call at a time; the model comes back to the others
                made = call(piece, self._new_id, self._remember)
                delta.setdefault("tool_calls", []).append({"index": choice.calls, **made})
                choice.calls += 1
            else:
                _say(delta, piece)
        return delta

    def _choice(self, index: int) -> _Choice:
        found = self._choices.get(index)
        if found is None:
            found = self._choices[index] = _Choice()
        return found

    def _head(self) -> Json:
        return {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._model,
        }

    def _chunk(
        self, index: int, delta: Json, *, logprobs: Json | None = None, finish: _Choice | None = None
    ) -> Json:
        choice: Json = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": None}
        if finish is not None:
            choice |= _finish(finish.finish, called=finish.calls > 0)
        chunk = {**self._head(), "choices": [choice]}
        if self._asked.usage:
            chunk["usage"] = None
        return chunk

    @staticmethod
    def _event(chunk: Json) -> bytes:
        return b"data: " + _encode(chunk) + b"\n\n"


def whole(
    payload: bytes,
    asked: Asked,
    *,
    created: float,
    new_id: Callable[[str], str],
    remember: Remember | None = None,
) -> bytes:
    """A whole answer. Raises PoolError `upstream_error` when it has no end."""
    found = gemini.read(payload)
    choices = [_whole_choice(candidate, asked, new_id, remember) for candidate in found.candidates or ()]
    if not choices and found.blocked:
        message = {"role": "assistant", "content": None, "refusal": _refusal(found.blocked)}
        finish = _finish(f"BLOCKED_{found.blocked}", called=False)
        choices = [{"index": 0, "message": message, "logprobs": None, **finish}]
    if not choices:
        raise PoolError("upstream_error", "Google answered without an answer")
    return _encode(
        {
            "id": f"chatcmpl-{found.responseId or new_id('')}",
            "object": "chat.completion",
            "created": int(created),
            "model": found.modelVersion or asked.model,
            "choices": choices,
            "usage": usage(found.usageMetadata),
        }
    )


def _whole_choice(
    candidate: gemini.Candidate, asked: Asked, new_id: Callable[[str], str], remember: Remember | None
) -> Json:
    if not candidate.finish:
        raise PoolError("upstream_error", "Google's answer has no end")
    message: Json = {"role": "assistant", "content": None, "refusal": None}
    said: Json = {}
    calls: list[Json] = []
    for piece in gemini.pieces(candidate):
        if piece.kind != "call":
            _say(said, piece)
        elif not (asked.one_call and calls):
            calls.append(call(piece, new_id, remember))
    message |= said
    if calls:
        message["tool_calls"] = calls
    return {
        "index": candidate.index,
        "message": message,
        "logprobs": _logprobs(candidate) if asked.logprobs else None,
        **_finish(candidate.finish, called=bool(calls)),
    }


def _say(message: Json, piece: gemini.Piece) -> None:
    """Add what is no call to a message or a delta."""
    if piece.kind == "thought":
        message["reasoning_content"] = message.get("reasoning_content", "") + piece.text
    elif piece.kind == "image":
        images = message.setdefault("images", [])
        images.append({"index": len(images), "type": "image_url", "image_url": {"url": piece.text}})
    elif piece.text:
        message["content"] = (message.get("content") or "") + piece.text
    if piece.signature and piece.kind != "thought":
        message["extra_content"] = {"google": {"thought_signature": piece.signature}}


def call(piece: gemini.Piece, new_id: Callable[[str], str], remember: Remember | None) -> Json:
    """A tool call; its signature goes along, for clients that keep what they do not know."""
    made: Json = {
        "id": new_id("call_"),
        "type": "function",
        "function": {"name": piece.name, "arguments": piece.text},
    }
    if piece.signature:
        made["extra_content"] = {"google": {"thought_signature": piece.signature}}
        if remember is not None:
            remember(made["id"], piece.signature)
    return made


def usage(meta: gemini.Meta | None) -> Json:
    counts = gemini.usage(meta)
    return {
        "prompt_tokens": counts["input"],
        "completion_tokens": counts["output"],
        "total_tokens": counts["total"],
        "prompt_tokens_details": {"cached_tokens": counts["cached"]},
        "completion_tokens_details": {"reasoning_tokens": counts["reasoning"]},
    }


def _finish(finish: str, *, called: bool) -> Json:
    made: Json = {"finish_reason": gemini.finish_reason(finish, called=called)}
    if made["finish_reason"] == "content_filter":
        made["native_finish_reason"] = finish
    return made


def _refusal(reason: str) -> str:
    return f"Google refused the prompt ({reason})"


def _logprobs(candidate: gemini.Candidate) -> Json | None:
    found = candidate.logprobsResult
    if found is None:
        return None
    content: list[Json] = []
    for place, chosen in enumerate(found.chosenCandidates):
        tops = found.topCandidates[place].candidates if place < len(found.topCandidates) else []
        content.append({**_likely(chosen), "top_logprobs": [_likely(top) for top in tops]})
    return {"content": content, "refusal": None}


def _likely(one: Any) -> Json:
    return {"token": one.token, "logprob": one.logProbability, "bytes": list(one.token.encode())}
