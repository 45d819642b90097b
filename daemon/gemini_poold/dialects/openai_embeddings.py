"""OpenAI's embeddings <-> embedContent and batchEmbedContents."""

from __future__ import annotations

import base64
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from ..errors import UNREADABLE, PoolError
from .reading import Json, Reader, refused


@dataclass(slots=True)
class Asked:
    """`bodies`: an embedContent request for each input, in order. `one`: the input was a plain string."""

    model: str
    inputs: list[str]
    dimensions: int | None = None
    as_base64: bool = False
    user: str = ""

    def single(self, text: str, model: str) -> Json:
        """The embedContent request for one input. `model` is the bare name, an alias resolved."""
        made: Json = {"model": f"models/{model}", "content": {"parts": [{"text": text}]}}
        if self.dimensions is not None:
            made["outputDimensionality"] = self.dimensions
        return made

    def batch(self, model: str) -> Json:
        return {"requests": [self.single(text, model) for text in self.inputs]}


def translate(body: Json) -> Asked:
    """Raises PoolError `bad_request`."""
    reader = Reader(body)
    asked = Asked(reader.text("model"), _inputs(reader.take("input")), user=reader.text("user", ""))
    asked.dimensions = reader.whole("dimensions")
    form = reader.text("encoding_format", "float")
    if form not in ("float", "base64"):
        raise refused("`encoding_format` must be float or base64")
    asked.as_base64 = form == "base64"
    reader.done()
    return asked


def _inputs(given: object) -> list[str]:
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts:
        raise refused("`input` must be a string or a non-empty array of strings")
    if any(isinstance(item, int | list) for item in texts):
        raise refused(
            "`input` of tokens cannot be carried over to Gemini", "its tokens are others: send the text"
        )
    if not all(isinstance(item, str) for item in texts):
        raise refused("`input` must be a string or a non-empty array of strings")
    return texts


class _Values(msgspec.Struct):
    values: list[float]


class _One(msgspec.Struct):
    embedding: _Values


class _Many(msgspec.Struct):
    embeddings: list[_Values]


def vectors(payload: bytes, *, many: bool) -> list[list[float]]:
    """The vectors of an embedContent or batchEmbedContents answer. Raises PoolError `upstream_error`."""
    try:
        if many:
            return [item.values for item in msgspec.json.decode(payload, type=_Many).embeddings]
        return [msgspec.json.decode(payload, type=_One).embedding.values]
    except UNREADABLE as error:
        raise PoolError("upstream_error", f"the answer has no embedding: {error}") from None


def answer(found: Sequence[Sequence[float]], asked: Asked, *, model: str, tokens: int) -> bytes:
    """OpenAI's list. `tokens`: what Google counted, 0 where it does not tell."""
    if len(found) != len(asked.inputs):
        raise PoolError("upstream_error", f"{len(asked.inputs)} inputs got {len(found)} embeddings")
    data = [
        {"object": "embedding", "index": index, "embedding": packed(vector) if asked.as_base64 else vector}
        for index, vector in enumerate(found)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return msgspec.json.encode({"object": "list", "data": data, "model": model, "usage": usage})


def packed(vector: Sequence[float]) -> str:
    """Base64 of little-endian 32-bit floats."""
    floats = array("f", vector)
    if sys.byteorder == "big":
        floats.byteswap()
    return base64.b64encode(floats.tobytes()).decode()
