"""OpenAI's embeddings <-> embedContent and batchEmbedContents."""

import base64
import json
import struct

import pytest

from gemini_pool.errors import PoolError
from gemini_poold.dialects import openai_embeddings as embeddings

MODEL = "gemini-embedding-001"


def asking(**fields):
    return embeddings.translate({"model": MODEL, "input": "a", **fields})


def test_one_and_several():
    """A string is one, a list of several a batch; the size goes along."""
    one = {"model": f"models/{MODEL}", "content": {"parts": [{"text": "a"}]}}
    assert asking().single("a", MODEL) == one
    assert asking(input=["a", "a"], dimensions=5).batch(MODEL) == {
        "requests": [{**one, "outputDimensionality": 5}] * 2
    }


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"input": [1, 2]}, "tokens"),
        ({"input": [[1, 2]]}, "tokens"),
        ({"input": []}, "non-empty"),
        ({"input": None}, "non-empty"),
        ({"input": ["a", {}]}, "array of strings"),
        ({"encoding_format": "hex"}, "float or base64"),
        ({"dimensions": "5"}, "dimensions"),
        ({"task": "x"}, "unknown parameter"),
    ],
)
def test_what_cannot_be_carried_is_refused(fields, why):
    """Tokens are another model's; the rest is no request."""
    with pytest.raises(PoolError, match=why):
        asking(**fields)


def test_answers():
    """Floats as they came, or base64 of 32-bit little-endian ones."""
    found = embeddings.vectors(b'{"embeddings":[{"values":[0.5,-1]},{"values":[2,0]}]}', many=True)
    answer = json.loads(embeddings.answer(found, asking(input=["a", "b"]), model=MODEL, tokens=3))
    assert [item["embedding"] for item in answer["data"]] == [[0.5, -1], [2, 0]]
    assert [item["index"] for item in answer["data"]] == [0, 1]
    assert answer["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    one = embeddings.vectors(b'{"embedding":{"values":[0.5,-1]}}', many=False)
    packed = json.loads(embeddings.answer(one, asking(encoding_format="base64"), model=MODEL, tokens=0))
    assert struct.unpack("<2f", base64.b64decode(packed["data"][0]["embedding"])) == (0.5, -1.0)


def test_what_is_no_embedding():
    """Another shape, or another number of them, is an error of Google's side."""
    for body, many in ((b"{}", False), (b'{"embeddings":[{}]}', True), (b"x", True)):
        with pytest.raises(PoolError) as caught:
            embeddings.vectors(body, many=many)
        assert caught.value.code == "upstream_error"
    with pytest.raises(PoolError, match="2 inputs got 1"):
        embeddings.answer([[1.0]], asking(input=["a", "b"]), model=MODEL, tokens=0)
