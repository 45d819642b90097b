"""OpenAI's surface over real HTTP through the real daemon, on every backend, with each fault."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest
from tests.fakes.gateway import ScriptedDispatcher, ScriptedStream, gateway_site
from tests.fakes.site import BACKENDS, Got, ThreeBackends, three_backends

from gemini_poold.fake import GENERATION, Fault, Match, Twist, replies

CHAT, RESPONSES, EMBEDDINGS = "/v1/chat/completions", "/v1/responses", "/v1/embeddings"
EMBEDS = "gemini-embedding-001"
F = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
SLOW = "[[chunks=4 pace=0.01]] hello"  # in pieces: an error in one packet with the first is absorbed


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory):
    config = '[models]\naliases = { "gpt-4o" = "gemini-2.5-flash" }\n'
    with three_backends(tmp_path_factory.mktemp("openai"), config=config, keys=("gl", "spare")) as made:
        yield made


def body_of(path: str, model: str, text: str = "hello", **more: Any) -> dict[str, Any]:
    asked = {"messages": [{"role": "user", "content": text}]} if path == CHAT else {"input": text}
    return {"model": model, **asked, **more}


def ask(
    site: ThreeBackends, path: str, text: str = "hello", *, pin: str = "", headers: Any = None, **more: Any
) -> Got:
    return site.ask(
        "POST", path, body_of(path, more.pop("model", site.model), text, **more), pin=pin, **(headers or {})
    )


def said(got: Got) -> tuple[str, str]:
    """The text and how it ended, of a whole answer or a stream of either API."""
    if not got.body.startswith((b"data:", b"event:")):
        answer = got.json
        if answer["object"] == "response":
            return answer["output"][0]["content"][0]["text"], answer["status"]
        choice = answer["choices"][0]
        return choice["message"]["content"], choice["finish_reason"]
    text, end = "", ""
    for block in got.body.decode().split("\n\n"):
        data = block.rpartition("data: ")[2]
        if not data.startswith("{"):
            continue
        event = json.loads(data)
        if event.get("type", "").startswith("response."):
            text += event.get("delta", "")
            end = event.get("response", {}).get("status", end)
        elif event.get("choices"):
            text += event["choices"][0]["delta"].get("content") or ""
            end = event["choices"][0]["finish_reason"] or end
    return text, end


def asked_times(site: ThreeBackends) -> int:
    """How often Google was asked to generate."""
    return sum(len(site.google.record.find(kind=kind)) for kind in GENERATION)


def is_done(got: Got) -> bool:
    """Whether any of the marks is there that make a client believe the answer to be whole."""
    marks = (b"[DONE]", b"response.completed", b"response.incomplete", b'"finish_reason":"')
    return any(mark in got.body for mark in marks)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "path", [CHAT, RESPONSES, "/v1beta/openai/chat/completions", "/v1beta/openai/responses"]
)
@pytest.mark.parametrize("stream", [False, True])
def test_every_backend_serves(site: ThreeBackends, path: str, stream: bool, backend: str) -> None:
    """The same answer, whole and in pieces, from each backend, under both prefixes."""
    site.fresh()
    kind = CHAT if "chat" in path else RESPONSES
    got = site.ask("POST", path, body_of(kind, site.model, stream=stream), pin=backend)
    text, end = said(got)
    assert (got.status, got.cut) == (200, False)
    assert text.endswith("you said: hello")
    assert end == ("stop" if kind == CHAT else "completed")
    assert got.headers["x-gemini-pool-account"] == backend
    assert got.headers["Content-Type"].startswith("text/event-stream" if stream else "application/json")
    if stream and kind == CHAT:
        assert got.body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_call_and_its_result_on_every_backend(site: ThreeBackends, backend: str) -> None:
    """A client that drops what it does not know still gets its second turn, with a signature Google takes."""
    site.fresh()
    call = ask(site, CHAT, "[[call=weather]] hello", pin=backend, tools=[F]).json["choices"][0]
    assert call["finish_reason"] == "tool_calls"
    (made,) = call["message"]["tool_calls"]
    signature = made.pop("extra_content")["google"]["thought_signature"]
    history = [
        {"role": "user", "content": "[[call=weather]] hello"},
        {"role": "assistant", "content": None, "tool_calls": [made]},
        {"role": "tool", "tool_call_id": made["id"], "content": "blue"},
        {"role": "user", "content": "hello"},
    ]
    got = site.ask("POST", CHAT, {"model": site.model, "messages": history, "tools": [F]}, pin=backend)
    assert said(got)[0].endswith("you said: hello")
    sent = json.loads(site.google.record.find(kind="generate")[-1].body)
    contents = sent.get("request", sent)["contents"]
    kept = contents[1]["parts"][0]["thoughtSignature"]
    assert kept == (signature if backend == "gl" else "skip_thought_signature_validator")


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "fault",
    [
        Fault.status(429, body=replies.rate_limited("27s")),
        Fault.status(503, body=replies.overloaded()),
        Fault.reset_connection(),
        Fault.error_event(0),
        Fault.cut(0, "clean"),
    ],
    ids=lambda fault: fault.name,
)
def test_refusals_are_absorbed(site: ThreeBackends, path: str, stream: bool, fault: Fault) -> None:
    """What comes before the first byte happens to another account; the client sees a good answer."""
    site.fresh()
    site.google.faults.add(fault, when=Match(kind=GENERATION))
    got = ask(site, path, stream=stream)
    assert (got.status, got.cut) == (200, False)
    assert said(got)[0].endswith("you said: hello")
    if stream or fault.reply or fault.reset:  # what only a stream can do does a whole answer no harm
        assert asked_times(site) == 2


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("path", [CHAT, RESPONSES])
@pytest.mark.parametrize(
    "fault",
    [Fault.cut(2), Fault.cut(2, "torn"), Fault.cut(2, "fin"), Fault.cut(2, "clean"), Fault.no_finish(), Fault.error_event(2)],
    ids=lambda fault: fault.name,
)  # fmt: skip
def test_a_broken_stream_is_told(site: ThreeBackends, path: str, backend: str, fault: Fault) -> None:
    """The bare error object in a chunk of its own, then a broken connection: nothing that looks finished."""
    site.fresh()
    site.google.faults.add(fault, when=Match(kind="stream"))
    got = ask(site, path, SLOW, stream=True, pin=backend)
    assert (got.status, got.cut) == (200, True)
    assert not is_done(got)
    error = json.loads(got.body.rpartition(b"\n\n")[2])["error"]
    assert (error["code"], error["type"], error["param"]) == ("stream_cut", "server_error", None)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "fault", [Fault.finish("SAFETY"), Fault.blocked("SAFETY")], ids=lambda fault: fault.name
)
def test_a_safety_stop_is_an_answer(site: ThreeBackends, fault: Fault, stream: bool) -> None:
    """Asked once, not tried elsewhere, and told as what it is."""
    site.fresh()
    site.google.faults.add(fault, when=Match(kind=GENERATION), times=None)
    got = ask(site, CHAT, stream=stream)
    assert b'"finish_reason":"content_filter"' in got.body
    assert asked_times(site) == 1
    got = ask(site, RESPONSES, stream=stream)
    assert b'"incomplete_details":{"reason":"content_filter"}' in got.body


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
@pytest.mark.parametrize("split", [-2, -1, 1, 7])
@pytest.mark.parametrize("eol", ["\n", "\r\n"])
def test_wherever_the_network_splits(site: ThreeBackends, path: str, split: int, eol: str) -> None:
    """Bytes cut anywhere, inside a character too: the same text."""
    site.fresh(thinking=False)
    site.google.faults.add(Fault.styled(Twist(split=split, eol=eol)), when=Match(kind="stream"))
    got = ask(site, path, "höllö ünïcödé", stream=True, pin="gl")
    assert said(got)[0].endswith("you said: höllö ünïcödé")
    assert is_done(got)


def test_googles_own_refusal(site: ThreeBackends) -> None:
    """A 400 of Google's comes with its message in OpenAI's form, as a stream too."""
    for stream in (False, True):
        site.fresh()
        wrong = Fault.status(400, body=replies.invalid_argument("Wrong, dear client"))
        site.google.faults.add(wrong, when=Match(kind=GENERATION))
        got = ask(site, CHAT, stream=stream)
        assert got.status == 400
        error = {"message": "Wrong, dear client", "type": "invalid_request_error", "param": None}
        assert got.json == {"error": {**error, "code": "invalid_argument"}}


def test_waiting_is_told_thrice(site: ThreeBackends) -> None:
    """When nobody is left: 429 with Retry-After and retry-after-ms, in OpenAI's form."""
    site.fresh()
    busy = Fault.status(429, body=replies.rate_limited("27s"))
    site.google.faults.add(busy, when=Match(kind=GENERATION), times=None)
    got = ask(site, CHAT, headers={"x-gemini-pool-wait-s": "0"})
    assert got.status == 429
    assert got.json["error"]["code"] == "all_cooling_down"
    assert got.json["error"]["type"] == "rate_limit_exceeded"
    assert 0 < int(got.headers["Retry-After"]) <= 27
    assert 0 < int(got.headers["retry-after-ms"]) <= 27_000


@pytest.mark.parametrize(
    ("path", "body", "why"),
    [
        (CHAT, b"{", "not JSON"),
        (CHAT, b"[]", "object"),
        (CHAT, b'{"model":"\xff"}', "not JSON"),
        (CHAT, b'{"messages":[]}', "model"),
        (CHAT, b'{"model":"../x","messages":[{"role":"user","content":"a"}]}', "no model name"),
        (
            CHAT,
            b'{"model":"m","messages":[{"role":"user","content":"a"}],"logit_bias":{"1":1}}',
            "logit_bias",
        ),
        (RESPONSES, b'{"model":"m","input":"a","previous_response_id":"r"}', "not kept"),
        (EMBEDDINGS, b'{"model":"m","input":[1,2]}', "tokens"),
    ],
)
def test_what_cannot_be_carried_is_refused(site: ThreeBackends, path: str, body: bytes, why: str) -> None:
    """400 in OpenAI's form, with the reason, before any account is asked."""
    site.fresh()
    got = site.ask("POST", path, body)
    assert got.status == 400
    assert why in got.json["error"]["message"]
    assert got.json["error"]["type"] == "invalid_request_error"
    assert not site.google.record.find()


def test_sessions(site: ThreeBackends) -> None:
    """One conversation stays on one account: by the body's key, a header, or at least the user."""
    site.fresh()
    spread = {ask(site, CHAT, f"hello {i}").headers["x-gemini-pool-account"] for i in range(4)}
    assert len(spread) > 1
    for headers, more in (
        ({}, {"prompt_cache_key": "c1"}),
        ({"x-session-id": "c2"}, {"user": "u"}),
        ({"x-session-affinity": "c3"}, {}),
        ({}, {"user": "c4"}),
    ):
        site.fresh()
        served = {
            ask(site, CHAT, f"hello {i}", headers=headers, **more).headers["x-gemini-pool-account"]
            for i in range(4)
        }
        assert len(served) == 1, (headers, more)


@pytest.mark.parametrize("backend", ["gl", "vx"])
def test_embeddings(site: ThreeBackends, backend: str) -> None:
    """One and several, floats and base64; Vertex has no batch and is asked for each."""
    site.fresh()
    one = ask(site, EMBEDDINGS, "a", model=EMBEDS, dimensions=4, pin=backend).json
    more = site.ask(
        "POST", EMBEDDINGS, {"model": EMBEDS, "input": ["a", "b", "c"], "dimensions": 4}, pin=backend
    ).json
    packed = ask(
        site, EMBEDDINGS, "a", model=EMBEDS, dimensions=4, encoding_format="base64", pin=backend
    ).json
    assert len(more["data"]) == 3
    assert one["data"][0] == more["data"][0]
    assert len(base64.b64decode(packed["data"][0]["embedding"])) == 16
    assert more["model"] == EMBEDS


def test_embeddings_nobody_has(site: ThreeBackends) -> None:
    """Code Assist has none: told in OpenAI's form, for one and for several."""
    site.fresh()
    for given in ("a", ["a", "b"]):
        got = site.ask("POST", EMBEDDINGS, {"model": EMBEDS, "input": given}, pin="ca")
        assert (got.status, got.json["error"]["code"]) == (404, "no_account_for_model")


def test_one_of_several_embeddings_fails(site: ThreeBackends) -> None:
    """Google's refusal of one input is the answer to all."""
    site.fresh()
    got = site.ask("POST", EMBEDDINGS, {"model": EMBEDS, "input": ["a", ""]}, pin="vx")
    assert got.status == 400 or got.json["data"]
    wrong = Fault.status(400, body=replies.invalid_argument("Wrong, dear client"))
    site.google.faults.add(wrong, when=Match(kind="embed", nth=2))
    got = site.ask("POST", EMBEDDINGS, {"model": EMBEDS, "input": ["a", "b", "c"]}, pin="vx")
    assert (got.status, got.json["error"]["message"]) == (400, "Wrong, dear client")


def test_models(site: ThreeBackends) -> None:
    """`/v1/models` by a Bearer is OpenAI's, by a key header Gemini's, errors included; an alias is a model."""
    bearer = {"x-goog-api-key": "", "Authorization": f"Bearer {site.key}"}
    listed = site.ask("GET", "/v1/models", **bearer).json
    assert listed["object"] == "list"
    assert {"gemini-2.5-flash", "gpt-4o"} <= {model["id"] for model in listed["data"]}
    assert "models" in site.ask("GET", "/v1/models").json
    assert site.ask("GET", "/v1beta/openai/models").json == listed
    assert site.ask("GET", "/v1/models/gpt-4o", **bearer).json["id"] == "gpt-4o"
    assert site.ask("GET", "/v1/models/gemini-2.5-flash").json["name"] == "models/gemini-2.5-flash"
    missing = site.ask("GET", "/v1/models/no", **bearer)
    assert (missing.status, missing.json["error"]["code"]) == (404, "unknown_model")
    assert site.ask("GET", "/v1/models/no").json["error"]["status"] == "NOT_FOUND"
    refused = site.ask(
        "GET", "/v1/models", **{"x-goog-api-key": "", "Authorization": "Bearer fake-key-wrong"}
    )
    assert (refused.status, refused.json["error"]["code"]) == (401, "unauthenticated")


def test_an_alias_thinks_like_the_model_it_means(site: ThreeBackends) -> None:
    """The family is the meant model's, and the meant model answers."""
    site.fresh()
    got = ask(site, CHAT, model="gpt-4o", reasoning_effort="low", pin="gl")
    assert got.json["model"] == "gemini-2.5-flash"
    sent = json.loads(site.google.record.find(kind="generate")[-1].body)
    assert sent["generationConfig"]["thinkingConfig"]["thinkingBudget"] == 1024


async def test_the_client_goes_away() -> None:
    """Nothing is generated for nobody: the stream is closed at once, though Google has not finished it."""
    event = b'data: {"candidates":[{"content":{"parts":[{"text":"a"}]}}]}\n\n'
    stream = ScriptedStream([event, asyncio.Event()])
    async with gateway_site(ScriptedDispatcher(streams=stream)) as gateway:
        asked = json.dumps(body_of(CHAT, "m", stream=True)).encode()
        async with gateway.post(CHAT, asked) as answer:
            assert b'"content":"a"' in await answer.content.readline()
            assert not stream.closed
            answer.close()
        await asyncio.wait_for(stream.ended.wait(), 10)
        assert stream.closed
