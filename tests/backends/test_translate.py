"""Bodies and answers between the dialects: what changes, what stays byte for byte, what is refused and why."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemini_poold.backends import build, translate
from gemini_poold.config import Endpoints
from gemini_poold.core.model import Backend
from gemini_poold.errors import PoolError

GL, CA, VX = (build(Endpoints())[b] for b in (Backend.DEVELOPER_API, Backend.CODE_ASSIST, Backend.VERTEX))
HI = [{"role": "user", "parts": [{"text": "hi"}]}]
M = "gemini-3-flash-preview"


def write(backend, surface, body, *, method="generateContent", model=M, project="p1", session=""):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return json.loads(backend.request(surface, method, model, raw, project=project, session=session))


def refused(backend, surface, body, **more):
    with pytest.raises(PoolError) as caught:
        write(backend, surface, body, **more)
    assert caught.value.code == "bad_request"
    return caught.value.message


# ---- generate ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("backend", "surface"), [(GL, "gl"), (VX, "vx")])
def test_same_dialect_is_untouched(backend, surface):
    """In its own dialect a body goes out as the very bytes that came, good or bad."""
    for body in (b'{ "contents" :[ ] , "x":1.0e3}', b"not json"):
        assert backend.request(surface, "generateContent", M, body, project="p") is body


def test_wrap():
    """Developer API to Code Assist: wrapped, model bare, project of the account, made-up ids, all else as it was."""
    body = {
        "contents": HI,
        "systemInstruction": {"parts": [{"text": "x"}]},
        "generationConfig": {"temperature": 1},
        "model": "models/y",
    }
    out = write(CA, "gl", body, model="models/gemini-3-pro-preview")
    session = out["request"].pop("session_id")
    assert len(session) == len(out.pop("user_prompt_id")) == 36
    del body["model"]
    assert out == {"model": "gemini-3-pro-preview", "project": "p1", "request": body}


def test_wrap_ids():
    """One session keeps one id, which does not show the client's own; each prompt gets a new one."""
    first, second = (write(CA, "gl", {"contents": HI}, session="editor-7") for _ in range(2))
    other = write(CA, "gl", {"contents": HI}, session="editor-8")
    assert first["request"]["session_id"] == second["request"]["session_id"] != other["request"]["session_id"]
    assert "editor" not in first["request"]["session_id"]
    assert first["user_prompt_id"] != second["user_prompt_id"]
    assert "project" not in write(CA, "gl", {"contents": HI}, project="")


def test_rewrap():
    """Code Assist to Code Assist: our model and project, the request byte for byte, no credits spent unasked."""
    request = '{"contents": [ ], "session_id":"s",  "x": 1.50}'
    body = (
        '{"model":"a","project":"theirs","user_prompt_id":"u#0","enabled_credit_types":["GOOGLE_ONE_AI"],"request":%s}'
        % request
    ).encode()
    out = CA.request("ca", "streamGenerateContent", M, body, project="ours")
    assert request.encode() in out
    parts = json.loads(out)
    del parts["request"]
    assert parts == {"model": M, "project": "ours", "user_prompt_id": "u#0"}


@pytest.mark.parametrize("backend", [GL, VX])
def test_unwrap(backend):
    """Code Assist's clients are served elsewhere: wrapper, session and prompt ids gone, the rest there."""
    body = {
        "model": M,
        "project": "x",
        "user_prompt_id": "u",
        "request": {"contents": HI, "session_id": "s", "toolConfig": {}},
    }
    assert write(backend, "ca", body) == {"contents": HI, "toolConfig": {}}


def test_roles():
    """Vertex and Code Assist want a role where the Developer API does without."""
    body = {"contents": [{"parts": [{"text": "a"}]}, {"role": "model", "parts": []}, {"parts": []}]}
    for out in (write(VX, "gl", body), write(CA, "gl", body)["request"]):
        assert [c["role"] for c in out["contents"]] == ["user", "model", "user"]
    assert write(VX, "gl", {"contents": HI, "model": "models/x"}) == {"contents": HI}


@pytest.mark.parametrize(
    ("backend", "surface", "extra", "word"),
    [
        (CA, "gl", {"cachedContent": "cachedContents/x"}, "cachedContent"),
        (VX, "gl", {"cached_content": "cachedContents/x"}, "cachedContent"),
        (GL, "vx", {"cachedContent": "projects/p/locations/l/cachedContents/1"}, "cachedContent"),
        (VX, "gl", {"contents": [{"parts": [{"fileData": {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/a"}}]}]}, "files/"),
        (CA, "gl", {"contents": [{"parts": [{"file_data": {"file_uri": "files/a"}}]}]}, "files/"),
        (GL, "vx", {"contents": [{"parts": [{"fileData": {"fileUri": "gs://b/o"}}]}]}, "gs://"),
        (GL, "vx", {"labels": {"team": "a"}}, "labels"),
        (GL, "vx", {"safetySettings": [{"category": "x", "method": "SEVERITY"}]}, "safetySettings[].method"),
        (GL, "ca", {"generationConfig": {"routingConfig": {"autoMode": {}}}}, "routingConfig"),
        (VX, "gl", {"tools": [{"fileSearch": {"fileSearchStoreNames": ["x"]}}]}, "fileSearch"),
    ],
)  # fmt: skip
def test_refused(backend, surface, extra, word):
    """What cannot be carried over is refused by name, never dropped."""
    body = {"contents": HI, **extra}
    assert word in refused(backend, surface, {"request": body} if surface == "ca" else body)


def test_not_refused():
    """Empty or harmless forms of the same fields pass."""
    assert write(GL, "vx", {"contents": HI, "labels": {}, "generationConfig": None})["contents"] == HI
    youtube = [{"role": "user", "parts": [{"fileData": {"fileUri": "https://www.youtube.com/watch?v=1"}}]}]
    assert write(VX, "gl", {"contents": youtube})["contents"] == youtube


@pytest.mark.parametrize("body", [b"", b"[]", b"nonsense", b'"text"', b'{"a":', b"{}"])
def test_bad_bodies(body):
    """A body that is no object (or no wrapper) is the client's fault, told in words."""
    refused(GL, "ca", body)
    if body != b"{}":
        refused(CA, "gl", body)
        refused(VX, "gl", body)


# ---- history ------------------------------------------------------------------------------------------------------------


HISTORY = [
    {"role": "user", "parts": [{"text": "hi"}]},
    {"role": "model", "parts": [{"text": "hm", "thought": True, "thoughtSignature": "A="}]},
    {"role": "model", "parts": [
        {"text": "calling", "thoughtSignature": "B="},
        {"functionCall": {"name": "f", "args": {"thoughtSignature": "mine"}}, "thoughtSignature": "C="},
        {"functionCall": {"name": "g"}, "thought_signature": "D="},
        {"functionCall": {"name": "h"}},
    ]},
    {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {}}}]},
]  # fmt: skip
S = translate.SENTINEL
CLEANED = [
    HISTORY[0],
    {"role": "model", "parts": [
        {"text": "calling"},
        {"functionCall": {"name": "f", "args": {"thoughtSignature": "mine"}}, "thoughtSignature": S},
        {"functionCall": {"name": "g"}, "thoughtSignature": S},
        {"functionCall": {"name": "h"}, "thoughtSignature": S},
    ]},
    HISTORY[3],
]  # fmt: skip


@pytest.mark.parametrize(
    ("backend", "surface"), [(CA, "gl"), (VX, "gl"), (CA, "vx"), (GL, "vx"), (GL, "ca"), (VX, "ca")]
)
def test_history_is_cleaned_between_dialects(backend, surface):
    """Signatures are valid only where they were made: sentinels on calls, none elsewhere, no thoughts."""
    body = {"contents": HISTORY}
    out = write(backend, surface, {"request": body} if surface == "ca" else body)
    assert out.get("request", out)["contents"] == CLEANED


def test_history_stays_in_its_dialect():
    """In the same dialect real signatures are kept."""
    assert write(CA, "ca", {"request": {"contents": HISTORY}})["request"]["contents"] == HISTORY


@pytest.mark.parametrize("form", ["gl", "vx", "ca"])
def test_cleaned_body(form):
    """The remedy for a refused signature cleans a whole body, and says when there is nothing to clean."""
    body = {"contents": HISTORY, "tools": [1]}
    body = {"request": body, "model": M} if form == "ca" else body
    out = json.loads(translate.cleaned_body(form, json.dumps(body).encode()))
    assert out.get("request", out) == {"contents": CLEANED, "tools": [1]}
    assert translate.cleaned_body(form, json.dumps({"contents": HI, "request": {}}).encode()) is None


@pytest.mark.parametrize(
    "contents", [None, "x", [1], [{"parts": "x"}], [{"parts": [1]}], {}, [{"role": "model"}]]
)
def test_odd_history_is_googles_business(contents):
    """Contents of a wrong shape are passed on as they are: Google says best what is wrong."""
    body = {"contents": contents, "x": {"thoughtSignature": 1, "functionCall": 2}}
    out = write(VX, "gl", body)["contents"]
    roles = (
        [{"role": "user", **c} for c in contents]
        if isinstance(contents, list) and contents != [1]
        else contents
    )
    assert out == roles


# ---- answers ------------------------------------------------------------------------------------------------------------


ANSWER = b'{"candidates":[{"content":{"parts":[{"text":"Hello"}]},"finishReason":"STOP"}],"modelVersion":"m"}'


@pytest.mark.parametrize(
    ("payload", "out"),
    [
        (b'{"response":%b,"traceId":"t1"}' % ANSWER, b'{"responseId":"t1",' + ANSWER[1:]),
        (b'{"response":%b}' % ANSWER, ANSWER),
        (b'{"response":{"responseId":"r1","x":1},"traceId":"t1"}', b'{"responseId":"r1","x":1}'),
        (b'{"response":{},"traceId":"t1"}', b'{"responseId":"t1"}'),
        (b'{"traceId":"t1","consumedCredits":[]}', b""),
        (b'{"error":{"code":503}}', b'{"error":{"code":503}}'),
    ],
)
def test_unwrapped(payload, out):
    """The inner answer comes out as its own bytes; the trace id serves as a missing response id."""
    assert CA.event("gl", payload) == out
    assert CA.event("vx", payload) == out
    assert CA.event("ca", payload) is payload
    assert CA.response("gl", "generateContent", payload) == (out or b"{}")


@pytest.mark.parametrize("backend", [GL, VX])
def test_wrapped(backend):
    """A Code Assist client gets its wrapper, with the trace id that it overwrites the response id with."""
    out = backend.event("ca", b'{"candidates":[],"responseId":"r1"}')
    assert json.loads(out) == {"response": {"candidates": [], "responseId": "r1"}, "traceId": "r1"}
    assert json.loads(backend.response("ca", "streamGenerateContent", ANSWER)) == {
        "response": json.loads(ANSWER)
    }
    assert backend.event("gl", ANSWER) is ANSWER


def test_transparent():
    """Only Code Assist and the others differ."""
    assert [b.transparent(s) for b in (GL, VX, CA) for s in ("gl", "vx", "ca")] == [True, True, False] * 2 + [
        False,
        False,
        True,
    ]


def test_reading():
    """Usage, finish, block and error are read from either dialect."""
    meta = {
        "promptTokenCount": 10,
        "candidatesTokenCount": 2,
        "thoughtsTokenCount": 5,
        "totalTokenCount": 17,
        "cachedContentTokenCount": 3,
    }
    answer = {"candidates": [{"finishReason": "SAFETY", "content": {}}], "usageMetadata": meta}
    for reading in (GL.read(json.dumps(answer).encode()), CA.read(json.dumps({"response": answer}).encode())):
        u = reading.usage
        assert (u.input_tokens, u.output_tokens, u.cached_tokens, u.thought_tokens, u.total_tokens) == (
            10,
            7,
            3,
            5,
            17,
        )
        assert (reading.finish_reason, reading.finished, reading.error, reading.empty) == (
            "SAFETY",
            True,
            False,
            False,
        )
    blocked = GL.read(b'{"promptFeedback":{"blockReason":"SAFETY"}}')
    assert (blocked.finish_reason, blocked.finished) == ("BLOCKED_SAFETY", True)
    assert not GL.read(
        b'{"candidates":[{"finishReason":"FINISH_REASON_UNSPECIFIED"},{"finishReason":null}]}'
    ).finished
    assert GL.read(b'{"error":{"code":1}}').error and CA.read(b'{"error":{"code":1}}').error
    assert GL.read(b'[{"error":{"code":1}}]').error and CA.read(b'[{"error":{"code":1}}]').error
    assert GL.read(b"{}").empty and CA.read(b"{}").empty and CA.read(b'{"response":{}}').empty
    assert not CA.read(b'{"totalTokens":3}').empty
    for bad in (b"", b'{"candidates":[', b"<html>"):
        with pytest.raises(ValueError, match="not JSON"):
            GL.read(bad)
        with pytest.raises(ValueError, match="not JSON"):
            CA.read(bad)


def test_reading_is_tolerant():
    """A field of an unexpected type spoils nothing: the answer is passed on unread."""
    assert not GL.read(b'{"candidates":"x"}').error
    assert GL.read(b'{"usageMetadata":{"promptTokenCount":"7"}}').usage.input_tokens == 7


# ---- counting and embedding ---------------------------------------------------------------------------------------------


REQUEST = {"contents": HI, "tools": [{"x": 1}]}


@pytest.mark.parametrize(
    ("backend", "surface", "body", "out"),
    [
        (GL, "gl", {"contents": HI}, {"contents": HI}),
        (GL, "gl", {"generateContentRequest": {"model": "models/old", **REQUEST}}, {"generateContentRequest": {"model": f"models/{M}", **REQUEST}}),
        (GL, "ca", {"request": {"model": f"models/{M}", "contents": HI}}, {"contents": HI}),
        (GL, "vx", REQUEST, {"generateContentRequest": {"model": f"models/{M}", **REQUEST}}),
        (CA, "gl", {"contents": HI}, {"request": {"model": f"models/{M}", "contents": HI}}),
        (CA, "gl", {"generateContentRequest": {"model": "x", "contents": HI, "tools": []}}, {"request": {"model": f"models/{M}", "contents": HI}}),
        (CA, "ca", {"request": {"model": "models/x", "contents": HI, "y": 1}}, {"request": {"model": f"models/{M}", "contents": HI, "y": 1}}),
        (CA, "vx", {"contents": HI}, {"request": {"model": f"models/{M}", "contents": HI}}),
        (VX, "gl", {"generateContentRequest": {"model": "x", **REQUEST}}, REQUEST),
        (VX, "gl", {"contents": [{"parts": []}]}, {"contents": [{"role": "user", "parts": []}]}),
        (VX, "ca", {"request": {"model": "models/x", "contents": HI}}, {"contents": HI}),
        (VX, "vx", REQUEST, REQUEST),
    ],
)  # fmt: skip
def test_count(backend, surface, body, out):
    """countTokens has a form of its own in each dialect."""
    assert write(backend, surface, body, method="countTokens") == out


def test_count_that_would_be_wrong():
    """Code Assist counts contents alone: a request with more would be miscounted, so it is refused."""
    assert "tools" in refused(CA, "gl", {"generateContentRequest": REQUEST}, method="countTokens")


def test_count_answers():
    """Characters are Vertex's business alone."""
    body = b'{"totalTokens":3,"totalBillableCharacters":12}'
    assert json.loads(VX.response("gl", "countTokens", body)) == {"totalTokens": 3}
    assert VX.response("vx", "countTokens", body) is body
    assert CA.response("gl", "countTokens", b'{"totalTokens":3}') == b'{"totalTokens":3}'
    assert GL.response("ca", "countTokens", b'{"totalTokens":3}') == b'{"totalTokens":3}'


def test_embed_developer_api():
    """The body goes out as it came, unless it names another model than the URL."""
    body = b'{"model":"models/e", "content":{"parts":[{"text":"x"}]}}'
    assert GL.request("gl", "embedContent", "e", body, project="") is body
    assert json.loads(GL.request("gl", "embedContent", "f", body, project=""))["model"] == "models/f"
    many = {"requests": [{"model": "models/e", "content": {}}, {"content": {}}]}
    out = write(GL, "gl", many, method="batchEmbedContents", model="f")
    assert [r["model"] for r in out["requests"]] == ["models/f", "models/f"]
    assert refused(GL, "gl", {"requests": 3}, method="batchEmbedContents")


def test_embed_vertex():
    """Embeddings become a prediction and come back as an embedding."""
    body = {
        "model": "models/e",
        "content": {"parts": [{"text": "x"}]},
        "taskType": "RETRIEVAL_DOCUMENT",
        "title": "t",
        "outputDimensionality": 768,
    }
    assert write(VX, "gl", body, method="embedContent") == {
        "instances": [{"content": "x", "task_type": "RETRIEVAL_DOCUMENT", "title": "t"}],
        "parameters": {"outputDimensionality": 768},
    }
    assert write(VX, "gl", {"content": {"parts": [{"text": "x"}]}}, method="embedContent") == {
        "instances": [{"content": "x"}]
    }
    answer = b'{"predictions":[{"embeddings":{"values":[0.10, 2],"statistics":{"token_count":4,"truncated":false}}}]}'
    assert VX.response("gl", "embedContent", answer) == b'{"embedding":{"values":[0.10, 2]}}'
    assert VX.read(answer).usage.input_tokens == 4
    with pytest.raises(PoolError):
        VX.response("gl", "embedContent", b'{"predictions":[]}')


@pytest.mark.parametrize(
    "body",
    [{"content": {"parts": [{"text": "a"}, {"text": "b"}]}}, {"content": {"parts": [{"inlineData": {}}]}}, {"content": {}},
     {"content": {"parts": [{"text": "a"}]}, "autoTruncate": True}],
)  # fmt: skip
def test_embed_vertex_refuses(body):
    """What a prediction cannot say is refused."""
    refused(VX, "gl", body, method="embedContent")


def test_methods():
    """What a backend cannot do at all, it says."""
    assert "embedContent" not in CA.methods and "batchEmbedContents" not in VX.methods
    refused(CA, "gl", {}, method="embedContent")
    refused(VX, "gl", {}, method="batchEmbedContents")


# ---- properties ---------------------------------------------------------------------------------------------------------

VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
PART = st.builds(lambda text: {"text": text}, st.text(max_size=20)) | st.builds(
    lambda data: {"inlineData": {"mimeType": "image/png", "data": data}}, st.text("abcd=", max_size=8)
)
CONTENT = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "model"]), "parts": st.lists(PART, max_size=3)}
)
BODY = st.fixed_dictionaries(
    {"contents": st.lists(CONTENT, max_size=3)},
    optional={
        "systemInstruction": VALUE,
        "tools": st.just(
            [{"functionDeclarations": [{"name": "f", "parametersJsonSchema": {"type": "object"}}]}]
        ),
        "toolConfig": VALUE,
        "generationConfig": st.dictionaries(
            st.sampled_from(["temperature", "topP", "thinkingConfig"]), VALUE, max_size=3
        ),
    },
)


@given(BODY)
def test_there_and_back(body):
    """A request that goes to Code Assist and comes back says exactly what it said."""
    raw = json.dumps(body).encode()
    there = CA.request("gl", "generateContent", M, raw, project="p")
    assert json.loads(GL.request("ca", "generateContent", M, there, project="")) == body
    assert json.loads(VX.request("ca", "generateContent", M, there, project="")) == body


@given(st.dictionaries(st.text(max_size=6), VALUE, max_size=4), st.text(min_size=1, max_size=8))
def test_answer_there_and_back(answer, trace):
    """An answer that is wrapped and unwrapped says exactly what it said."""
    answer.pop("error", None)
    answer.pop("responseId", None)
    answer["responseId"] = trace
    raw = msgspec.json.encode(answer)
    assert json.loads(CA.event("gl", GL.event("ca", raw))) == json.loads(raw)
