"""Answers of the Gemini API -> OpenAI's Response object and the events of its stream.

There is one way of building: a whole answer is the Response of a stream of one event. The last event
(`response.completed` or `.incomplete`) is said by `Events.end` alone, when the stream has really ended.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from ..errors import PoolError
from . import answer as gemini
from .openai_chat_answer import Remember
from .openai_responses_request import Asked
from .reading import Json

_encode = msgspec.json.Encoder().encode


class Events:
    """One stream: `start`, then `feed` each event's payload, then `end`. Every one of them returns SSE bytes.

    `created`: Unix seconds; `new_id(prefix)` makes ids; `remember(call_id, signature)` is told of each signature.
    """

    def __init__(
        self, asked: Asked, *, created: float, new_id: Callable[[str], str], remember: Remember | None = None
    ) -> None:
        self._asked = asked
        self._new_id = new_id
        self._remember = remember
        self._out: list[bytes] = []
        self._count = 0
        self._open: _Item | None = None
        self._output: list[Json] = []
        self._calls = 0
        self._finish = ""
        self.response: Json = {
            "id": new_id("resp_"),
            "object": "response",
            "created_at": int(created),
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "model": asked.chat.model,
            "output": [],
            **asked.echo,
            "usage": None,
        }

    def start(self) -> bytes:
        self._say("response.created", response=self.response)
        self._say("response.in_progress", response=self.response)
        return self._flush()

    def feed(self, payload: bytes) -> bytes:
        found = gemini.read(payload)
        if found.usageMetadata is not None:
            self.response["usage"] = usage(found.usageMetadata)
        self.response["model"] = found.modelVersion or self.response["model"]
        if found.blocked and not found.candidates and not self._finish:
            self._finish = f"BLOCKED_{found.blocked}"
            self._piece(gemini.Piece("refusal", f"Google refused the prompt ({found.blocked})"))
        for candidate in found.candidates or ():
            if candidate.index == 0:
                for piece in gemini.pieces(candidate):
                    self._piece(piece)
                self._finish = candidate.finish or self._finish
        return self._flush()

    def end(self) -> bytes:
        """The last events. Raises PoolError `stream_cut` when the answer has no end."""
        if not self._finish:
            raise PoolError("stream_cut", "the answer has no end")
        reason = gemini.finish_reason(self._finish, called=False)
        whole = reason == "stop"
        self._close("completed" if whole else "incomplete")
        self.response["status"] = "completed" if whole else "incomplete"
        self.response["output"] = self._output
        self.response["usage"] = self.response["usage"] or usage(None)
        if not whole:
            word = "max_output_tokens" if reason == "length" else reason
            self.response["incomplete_details"] = {"reason": word}
        self._say(f"response.{self.response['status']}", response=self.response)
        return self._flush()

    # ---- items ------------------------------------------------------------------------------------------------

    def _piece(self, piece: gemini.Piece) -> None:
        if piece.kind == "call":
            self._close()
            if not (self._asked.chat.one_call and self._calls):
                self._calls += 1
                self._call(piece)
            return
        if piece.kind == "image":
            self._close()
            data = piece.text.partition(",")[2]
            self._whole({"type": "image_generation_call", "id": self._new_id("ig_"), "result": data})
            return
        if self._open is None or self._open.kind != piece.kind:
            if not piece.text:  # a signature alone opens nothing
                return
            self._close()
            self._open = self._opened(piece.kind)
        item = self._open
        if piece.signature and piece.kind == "text":
            item.value["extra_content"] = {"google": {"thought_signature": piece.signature}}
        if piece.text:
            item.text.append(piece.text)
            extra: Json = {"logprobs": []} if piece.kind == "text" else {}
            self._say(f"{item.words.event}.delta", **item.place(), delta=piece.text, **extra)

    def _opened(self, kind: str) -> _Item:
        words = _WORDS[kind]
        value: Json = {"id": self._new_id(words.prefix), "type": words.item, words.holder: []}
        if words.item == "message":
            value |= {"role": "assistant", "status": "in_progress"}
        item = _Item(kind, words, value, len(self._output))
        self._say("response.output_item.added", output_index=item.index, item=value)
        self._say(f"{words.part_event}.added", **item.place(), part=words.part(""))
        return item

    def _close(self, status: str = "completed") -> None:
        """The end of the item under way."""
        item, self._open = self._open, None
        if item is None:
            return
        text, words = "".join(item.text), item.words
        extra: Json = {"logprobs": []} if item.kind == "text" else {}
        self._say(f"{words.event}.done", **item.place(), **{words.field: text}, **extra)
        self._say(f"{words.part_event}.done", **item.place(), part=words.part(text))
        item.value[words.holder] = [words.part(text)]
        if "status" in item.value:
            item.value["status"] = status
        self._output.append(item.value)
        self._say("response.output_item.done", output_index=item.index, item=item.value)

    def _call(self, piece: gemini.Piece) -> None:
        """A function call. Google sends it in one piece, so its arguments are one delta."""
        call_id = self._new_id("call_")
        value: Json = {
            "type": "function_call",
            "id": self._new_id("fc_"),
            "call_id": call_id,
            "name": piece.name,
        }
        if piece.signature:
            value["extra_content"] = {"google": {"thought_signature": piece.signature}}
            if self._remember is not None:
                self._remember(call_id, piece.signature)
        index = len(self._output)
        begun = {**value, "arguments": "", "status": "in_progress"}
        self._say("response.output_item.added", output_index=index, item=begun)
        place = {"item_id": value["id"], "output_index": index}
        self._say("response.function_call_arguments.delta", **place, delta=piece.text)
        self._say("response.function_call_arguments.done", **place, name=piece.name, arguments=piece.text)
        value |= {"arguments": piece.text, "status": "completed"}
        self._output.append(value)
        self._say("response.output_item.done", output_index=index, item=value)

    def _whole(self, value: Json) -> None:
        index = len(self._output)
        self._say(
            "response.output_item.added",
            output_index=index,
            item={**value, "status": "in_progress", "result": None},
        )
        value["status"] = "completed"
        self._output.append(value)
        self._say("response.output_item.done", output_index=index, item=value)

    # ---- bytes ------------------------------------------------------------------------------------------------

    def _say(self, kind: str, **fields: Any) -> None:
        event = {"type": kind, "sequence_number": self._count, **fields}
        self._count += 1
        self._out.append(b"event: " + kind.encode() + b"\ndata: " + _encode(event) + b"\n\n")

    def _flush(self) -> bytes:
        out = b"".join(self._out)
        self._out.clear()
        return out


class _Words(msgspec.Struct, frozen=True):
    """How the stream speaks of one kind of item and of the part in it."""

    item: str
    prefix: str
    holder: str  # the item's field that has the part
    index: str
    part_event: str
    event: str
    field: str  # of the part that has the text
    usual: Mapping[str, Any]

    def part(self, text: str) -> Json:
        return {**self.usual, self.field: text}


_MESSAGE = ("message", "msg_", "content", "content_index", "response.content_part")
_WORDS = {
    "text": _Words(
        *_MESSAGE, "response.output_text", "text", {"type": "output_text", "annotations": [], "logprobs": []}
    ),
    "refusal": _Words(*_MESSAGE, "response.refusal", "refusal", {"type": "refusal"}),
    "thought": _Words(
        "reasoning", "rs_", "summary", "summary_index", "response.reasoning_summary_part",
        "response.reasoning_summary_text", "text", {"type": "summary_text"},
    ),
}  # fmt: skip


class _Item:
    """The item under way."""

    __slots__ = ("index", "kind", "text", "value", "words")

    def __init__(self, kind: str, words: _Words, value: Json, index: int) -> None:
        self.kind = kind
        self.words = words
        self.value = value
        self.index = index
        self.text: list[str] = []

    def place(self) -> Json:
        return {"item_id": self.value["id"], "output_index": self.index, self.words.index: 0}


def whole(
    payload: bytes,
    asked: Asked,
    *,
    created: float,
    new_id: Callable[[str], str],
    remember: Remember | None = None,
) -> bytes:
    """A whole answer as a Response object. Raises PoolError `upstream_error` when it has no end."""
    events = Events(asked, created=created, new_id=new_id, remember=remember)
    events.feed(payload)
    try:
        events.end()
    except PoolError as error:
        raise PoolError("upstream_error", error.message) from None
    return _encode(events.response)


def usage(meta: gemini.Meta | None) -> Json:
    counts = gemini.usage(meta)
    return {
        "input_tokens": counts["input"],
        "input_tokens_details": {"cached_tokens": counts["cached"]},
        "output_tokens": counts["output"],
        "output_tokens_details": {"reasoning_tokens": counts["reasoning"]},
        "total_tokens": counts["total"],
    }
