"""The same request straight to Google and through the gateway: the same answer, field by field and event by event, and
byte for byte where nothing had to be touched.

GEMINI_POOL_EXAMPLES sets how many requests each test makes up (default 40).
"""

from __future__ import annotations

import json
import os
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fakes.site import Got, ThreeBackends, three_backends

EXAMPLES = int(os.environ.get("GEMINI_POOL_EXAMPLES", "40"))
generated = settings(
    max_examples=EXAMPLES, deadline=None, database=None, derandomize=EXAMPLES == 40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
SSE = "?alt=sse"

text = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=60)
shape = st.builds("[[chunks={} chars={}]] ".format, st.integers(1, 12), st.sampled_from([0, 0, 3, 700]))
json_value = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**31), 2**31) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
image = st.builds(
    lambda data: {"inlineData": {"mimeType": "image/png", "data": data.hex()}}, st.binary(max_size=40)
)
part = st.builds(lambda t: {"text": t}, text) | image
turn = st.builds(
    lambda said, heard: [{"role": "user", "parts": said}, {"role": "model", "parts": [{"text": heard}]}],
    st.lists(part, min_size=1, max_size=2), text,
)  # fmt: skip
called = st.builds(
    lambda args, found: [
        {"role": "model", "parts": [{"functionCall": {"name": "f", "args": args}}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": found}}]},
    ],
    st.dictionaries(text, json_value, max_size=2), st.dictionaries(text, json_value, max_size=2),
)  # fmt: skip
config = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.floats(0, 2), "topK": st.integers(1, 64), "maxOutputTokens": st.integers(1, 9999),
        "stopSequences": st.lists(text, max_size=2), "responseMimeType": st.just("application/json"),
        "thinkingConfig": st.just({"thinkingBudget": 128}), "candidateCount": st.just(1),
    },
)  # fmt: skip


@st.composite
def bodies(draw: st.DrawFn) -> dict[str, Any]:
    """A generate request in Gemini's form, and at times one that Google refuses."""
    contents = [content for turns in draw(st.lists(turn | called, max_size=3)) for content in turns]
    contents.append(
        {"role": "user", "parts": [{"text": draw(shape) + draw(text)}, *draw(st.lists(part, max_size=1))]}
    )
    body: dict[str, Any] = {"contents": contents}
    if draw(st.booleans()):
        body["systemInstruction"] = {"parts": [{"text": draw(text)}]}
    if found := draw(config):
        body["generationConfig"] = found
    if draw(st.integers(0, 9)) == 0:
        body[draw(st.sampled_from(["nonsense", "contents"]))] = []
    return body


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory):
    with three_backends(tmp_path_factory.mktemp("differential")) as made:
        yield made


def masked(body: bytes) -> bytes:
    """Without the serial numbers that Google gives each answer. Their length is kept."""
    return re.sub(rb'("(?:responseId|traceId)"\s*:\s*)"[^"]*"', rb'\1"-"', body)


def wrapped(site: ThreeBackends, body: Any, project: str) -> dict[str, Any]:
    return {
        "model": site.model,
        "project": project,
        "user_prompt_id": "u",
        "request": {**body, "session_id": "s"},
    }


def alike(straight: Got, through: Got) -> None:
    """Byte for byte, headers that matter included."""
    assert through.status == straight.status, through.body
    assert not (through.cut or straight.cut)
    assert masked(through.body) == masked(straight.body)
    kinds = [got.headers["Content-Type"].partition(";")[0] for got in (straight, through)]
    assert kinds[0] == kinds[1]


@pytest.mark.parametrize("form", ["gl", "vx"])
@generated
@given(body=bodies(), query=st.sampled_from([None, SSE]))
def test_untouched(site: ThreeBackends, form: str, body: dict[str, Any], query: str | None) -> None:
    """Client and account speak alike: the very bytes, whole or as SSE, refusals included; and Google got the very body."""
    method = "generateContent" if query is None else "streamGenerateContent"
    raw = json.dumps(body, ensure_ascii=False).encode()
    site.google.record.clear()
    straight = site.straight(form, method, raw, query=query or "")
    through = site.ask("POST", site.path(form, method) + (query or ""), raw, pin=form)
    alike(straight, through)
    asked = site.google.record.find("generate" if query is None else "stream")
    assert [call.body for call in asked] == [raw, raw]


@pytest.mark.parametrize("form", ["gl", "vx"])
@generated
@given(body=bodies())
def test_arrays(site: ThreeBackends, form: str, body: dict[str, Any]) -> None:
    """A stream as a JSON array: the same elements, though Google is asked for SSE; the same refusals."""
    straight = site.straight(form, "streamGenerateContent", body)
    through = site.ask("POST", site.path(form, "streamGenerateContent"), body, pin=form)
    assert through.status == straight.status
    assert json.loads(masked(through.body)) == json.loads(masked(straight.body))


@pytest.mark.parametrize(
    ("surface", "backend"),
    [("gl", "ca"), ("ca", "gl"), ("ca", "vx"), ("vx", "ca"), ("ca", "ca"), ("gl", "vx")],
)
@generated
@given(body=bodies(), query=st.sampled_from([None, SSE]))
def test_translated(
    site: ThreeBackends, surface: str, backend: str, body: dict[str, Any], query: str | None
) -> None:
    """Client and account speak differently: the same answers field by field, event by event, in the client's form."""
    method = "generateContent" if query is None else "streamGenerateContent"
    theirs = wrapped(site, body, "alice-project") if backend == "ca" else body
    ours = wrapped(site, body, "of-the-client") if surface == "ca" else body
    straight = site.straight(backend, method, theirs, query=query or "")
    through = site.ask("POST", site.path(surface, method) + (query or ""), ours, pin=backend)
    if straight.status != 200:
        assert through.status == straight.status
        assert through.json["error"]["message"]
        return
    assert through.status == 200, through.body
    want, have = (inner(got, form, query) for got, form in ((straight, backend), (through, surface)))
    assert have == want


def inner(got: Got, form: str, query: str | None) -> list[Any]:
    """The answers inside, in Gemini's form."""
    bare = Got(got.status, got.headers, masked(got.body))
    found = bare.events if query else [bare.json]
    return [event["response"] for event in found] if form == "ca" else found
