"""What the models say: an echo that names who answered, in several chunks, with plausible token counts.

A prompt may steer it: `[[chunks=20 chars=100 pace=0.05 think=1 finish=MAX_TOKENS call=NAME]]`; so may a request header
`x-fake-chunks: 20`, `20x100` or `20x100@0.05`. `call` answers with a function call.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from .call import Call
from .envelope import Json
from .stream import WHOLE, Generation
from .validate import get
from .world import Model

_DIRECTIVE = re.compile(r"\[\[((?:\w+=[^\s\]]+\s*)+)\]\]")
_FILLER = "the quick brown fox jumps over the lazy dog and naps — "
_serial = count(1)


@dataclass(frozen=True, slots=True)
class Shape:
    """How an answer comes: number of chunks, characters in each (0 = as the text has), seconds between and before."""

    chunks: int
    chars: int
    pace_s: float
    think_s: float
    finish: str = "STOP"
    call: str = ""


def generation(call: Call, body: Json, model: Model, *, project: str, mode: str) -> Generation:
    """An answer to `body` (Gemini form), one event when `mode` is whole."""
    prompt = prompt_text(body)
    shape = _shape(call, prompt, model)
    prompt_tokens = count_tokens(body)
    head = {"modelVersion": model.name, "responseId": f"fake-{next(_serial):08x}"}
    if shape.call:
        parts = [
            {"functionCall": {"name": shape.call, "args": {}}, "thoughtSignature": signature(call, model)}
        ]
        events = [_event(parts, prompt_tokens, 8, model, head, finish="STOP")]
    else:
        who = call.caller.name if call.caller else "nobody"
        text = f"{who} ({project}) · {model.name} — you said: {_tail(prompt)}"
        pieces = _pieces(text, shape)
        events = _events(
            ["".join(pieces)] if mode == WHOLE else pieces, call, model, prompt_tokens, head, shape
        )
    return Generation(events, mode, pace_s=shape.pace_s, think_s=shape.think_s)


def prompt_text(body: Json) -> str:
    """The text of the last user content."""
    for content in reversed(get(body, "contents", [])):
        if content.get("role", "user") == "user":
            return " ".join(
                part["text"] for part in content.get("parts", ()) if isinstance(part.get("text"), str)
            )
    return ""


def count_tokens(body: Json) -> int:
    """About a token for four characters; 258 for anything that is no text."""
    total = 0
    instruction = get(body, "systemInstruction")
    for content in [
        *(get(body, "contents") or ()),
        *([instruction] if isinstance(instruction, dict) else ()),
    ]:
        for part in content.get("parts", ()):
            text = part.get("text")
            total += (len(text) + 3) // 4 if isinstance(text, str) else 258
    return max(1, total)


def signature(call: Call, model: Model) -> str:
    """A thought signature that tells which backend, caller and model made it."""
    maker = f"{call.backend}|{call.caller.subject if call.caller else ''}|{model.name}"
    digest = hashlib.sha256(f"fake-signature|{maker}".encode()).hexdigest()[:16]
    return base64.b64encode(f"{maker}|{digest}".encode()).decode()


def embedding(text: str, size: int = 768) -> list[float]:
    """Always the same numbers for the same text."""
    seed = hashlib.sha256(text.encode()).digest()
    return [round((seed[index % 32] - 127.5) / 127.5 / (1 + index // 32), 6) for index in range(size)]


def _shape(call: Call, prompt: str, model: Model) -> Shape:
    shape = Shape(model.chunks, model.chunk_chars, model.pace_s, model.think_s)
    if header := call.headers.get("x-fake-chunks"):
        size, _, pace = header.partition("@")
        chunks, _, chars = size.partition("x")
        shape = replace(shape, chunks=int(chunks), chars=int(chars or 0), pace_s=float(pace or shape.pace_s))
    if "[[" in prompt and (found := _DIRECTIVE.search(prompt)):
        words = dict(word.split("=", 1) for word in found[1].split())
        shape = Shape(
            int(words.get("chunks", shape.chunks)),
            int(words.get("chars", shape.chars)),
            float(words.get("pace", shape.pace_s)),
            float(words.get("think", shape.think_s)),
            words.get("finish", "STOP"),
            words.get("call", ""),
        )
    return shape


def _pieces(text: str, shape: Shape) -> list[str]:
    chunks = max(1, shape.chunks)
    if shape.chars:
        filler = text + " " + _FILLER * (shape.chars * chunks // len(_FILLER) + 1)
        return [filler[at : at + shape.chars] for at in range(0, shape.chars * chunks, shape.chars)]
    if len(text) < chunks:
        text += " " + _FILLER * (chunks // len(_FILLER) + 1)
    size, longer = divmod(len(text), chunks)
    pieces, start = [], 0
    for index in range(chunks):
        end = start + size + (index < longer)
        pieces.append(text[start:end])
        start = end
    return pieces


def _events(
    pieces: list[str], call: Call, model: Model, prompt_tokens: int, head: Json, shape: Shape
) -> list[Json]:
    events, characters, last = [], 0, len(pieces) - 1
    for index, piece in enumerate(pieces):
        characters += len(piece)
        part: Json = {"text": piece}
        if index == last and model.thinking:
            part["thoughtSignature"] = signature(call, model)
        finish = shape.finish if index == last else ""
        events.append(_event([part], prompt_tokens, (characters + 3) // 4, model, head, finish=finish))
    return events


def _event(
    parts: list[Any], prompt_tokens: int, tokens: int, model: Model, head: Json, *, finish: str
) -> Json:
    candidate: Json = {"content": {"parts": parts, "role": "model"}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    thoughts = 16 if model.thinking else 0
    usage = {
        "promptTokenCount": prompt_tokens,
        "candidatesTokenCount": tokens,
        "totalTokenCount": prompt_tokens + tokens + thoughts,
    }
    if thoughts:
        usage["thoughtsTokenCount"] = thoughts
    return {"candidates": [candidate], "usageMetadata": usage, **head}


def _tail(prompt: str) -> str:
    prompt = _DIRECTIVE.sub("", prompt).strip()
    return prompt if len(prompt) <= 200 else f"…{prompt[-200:]}"
