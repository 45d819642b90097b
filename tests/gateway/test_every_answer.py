"""What holds for every answer on every surface: our headers, one line in the log with all of its fields, and what named
clients may do. Asked of the real daemon with an account of each backend.
"""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.fakes.site import Got, ThreeBackends, ask, three_backends

from gemini_poold.fake import GENERATION, Fault, Match, replies
from gemini_poold.gateway import auth

FIELDS = {
    "client", "surface", "model", "account", "request", "attempts", "wait_ms", "bytes_in", "bytes_out", "tokens_in", "tokens_out",
    "first_byte_ms", "total_ms", "outcome",
}  # fmt: skip
CONFIG = """
[gateway]
listen = "127.0.0.1:0"
allowed_origins = ["http://localhost:3000"]
clients = [
  { name = "slow", key = { env = "SLOW" }, rpm = 2 },
  { name = "narrow", key = { env = "NARROW" }, models = ["gemini-3*", "gemini-fresh-*"] },
]
"""
HELLO = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}
CHAT = {"model": "{model}", "messages": [{"role": "user", "content": "hello"}]}
SURFACES = {
    "gl": ("/v1beta/models/{model}:generateContent", HELLO),
    "gl stream": ("/v1beta/models/{model}:streamGenerateContent?alt=sse", HELLO),
    "gl array": ("/v1beta/models/{model}:streamGenerateContent", HELLO),
    "vx": ("/v1/projects/p/locations/l/publishers/google/models/{model}:generateContent", HELLO),
    "ca": ("/v1internal:generateContent", {"model": "{model}", "project": "x", "request": HELLO}),
    "ca stream": (
        "/v1internal:streamGenerateContent?alt=sse",
        {"model": "{model}", "project": "x", "request": HELLO},
    ),
    "openai": ("/v1/chat/completions", CHAT),
    "openai stream": ("/v1/chat/completions", {**CHAT, "stream": True}),
    "openai responses": ("/v1/responses", {"model": "{model}", "input": "hello"}),
}
KEPT = {
    "gl interactions": ("/v1beta/interactions", {"model": "{model}", "input": "hello"}),
    "gl caches": ("/v1beta/cachedContents", {"model": "models/{model}", **HELLO}),
    "vx caches": (
        "/v1/projects/p/locations/l/cachedContents",
        {"model": "projects/p/locations/l/publishers/google/models/{model}", **HELLO},
    ),
}  # fmt: skip
ALL = {**SURFACES, **KEPT}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThreeBackends]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLOW", "gp-slow")
        patch.setenv("NARROW", "gp-narrow")
        with three_backends(tmp_path_factory.mktemp("every"), config=CONFIG) as made:
            yield made


def filled(value: Any, model: str) -> Any:
    if isinstance(value, dict):
        return {name: filled(inner, model) for name, inner in value.items()}
    return value.replace("{model}", model) if isinstance(value, str) else value


def sent(site: ThreeBackends, name: str, model: str, *, key: str = "", **headers: str) -> Got:
    path, body = ALL[name]
    named = {each.replace("_", "-"): value for each, value in headers.items()}
    return ask(
        site.port,
        "POST",
        filled(path, model),
        filled(body, model),
        {"x-goog-api-key": key or site.key, **named},
    )


def line_of(site: ThreeBackends, mark: str) -> dict[str, str]:
    """The fields of the only line about `mark` that tells of a request."""
    until = time.monotonic() + 10
    while True:
        lines = [
            each for each in site.daemon.log.splitlines() if "event=request" in each and f"={mark} " in each
        ]
        if lines or time.monotonic() > until:
            break
        time.sleep(0.01)
    (line,) = lines
    return dict(re.findall(r"(\w+)=(\S*)", line))


@pytest.mark.parametrize("name", ALL)
def test_an_answer_tells_who_and_how(site: ThreeBackends, name: str) -> None:
    """Account, attempts and wait in headers, and in one line of the log with everything that a request is known by."""
    model = site.fresh()
    got = sent(site, name, model)
    assert got.status == 200, got.body
    assert got.headers["x-gemini-pool-account"] in ("gl", "ca", "vx")
    assert (got.headers["x-gemini-pool-attempts"], got.headers["x-gemini-pool-wait-ms"].isdigit()) == (
        "1",
        True,
    )
    told = line_of(site, model)
    assert FIELDS <= set(told), FIELDS - set(told)
    assert (told["client"], told["model"]) == ("default", model)
    assert told["surface"] == name.partition(" ")[0]
    assert (told["account"], told["attempts"]) == (got.headers["x-gemini-pool-account"], "1")
    assert int(told["bytes_in"]) > 0
    assert told["bytes_out"] == str(len(got.body))
    assert int(told["first_byte_ms"]) <= int(told["total_ms"])
    if name in SURFACES:
        assert int(told["tokens_in"]) > 0
        assert int(told["tokens_out"]) > 0
        assert told["outcome"] == "STOP"


@pytest.mark.parametrize("name", SURFACES)
def test_a_refusal_tells_as_much(site: ThreeBackends, name: str) -> None:
    """All accounts refuse: the client gets a 429 with both words for waiting, and attempts counted over all of them."""
    model = site.fresh()
    fault = Fault.status(429, body=replies.rate_limited("30s", model=model))
    site.google.faults.add(fault, when=Match(kind=GENERATION, model=model), times=None)
    got = sent(site, name, model, x_gemini_pool_wait_s="0")
    assert got.status == 429
    assert (got.headers["x-gemini-pool-attempts"], got.headers["x-gemini-pool-wait-ms"].isdigit()) == (
        "3",
        True,
    )
    assert 25 <= int(got.headers["Retry-After"]) <= 31
    assert name.startswith("openai") or b"google.rpc.RetryInfo" in got.body
    told = line_of(site, model)
    assert (told["attempts"], told["outcome"], told["code"]) == ("3", "all_cooling_down", "all_cooling_down")


def test_a_cut_stream_is_not_logged_as_finished(site: ThreeBackends) -> None:
    """What broke off after its head is told by its word, not by a reason to finish that it may have had."""
    model = site.fresh()
    site.google.faults.add(Fault.cut(1), when=Match(kind="stream", model=model), times=None)
    assert sent(site, "gl stream", model).cut
    assert line_of(site, model)["outcome"] == "stream_cut"


@pytest.mark.parametrize(("verb", "path", "key", "status"), [
    ("GET", "/v1beta/models", "", 200), ("GET", "/v1/models", "", 200), ("GET", "/healthz", "", 200), ("GET", "/metrics", "", 200),
    ("GET", "/v1beta/models", "gp-wrong", 401), ("GET", "/nowhere", "", 404), ("GET", "/v1/images/generations", "", 501),
    ("PUT", "/v1beta/models", "", 405), ("OPTIONS", "/v1beta/models", "", 204), ("GET", "/v1beta/files", "", 200),
    ("GET", "/v1beta/files/nothing", "", 404), ("POST", "/v1internal:loadCodeAssist", "", 200),
])  # fmt: skip
def test_our_own_answers_carry_the_headers(
    site: ThreeBackends, verb: str, path: str, key: str, status: int
) -> None:
    """Also where nobody was asked, and nobody served."""
    headers = {
        "x-goog-api-key": key or site.key,
        **({"Origin": "http://localhost:3000"} if verb == "OPTIONS" else {}),
    }
    got = ask(site.port, verb, path, {} if verb == "POST" else None, headers)
    assert got.status == status
    assert got.headers["x-gemini-pool-attempts"].isdigit()
    assert got.headers["x-gemini-pool-wait-ms"].isdigit()


@pytest.mark.parametrize("name", SURFACES)
def test_a_client_over_its_budget(site: ThreeBackends, name: str) -> None:
    """So many a minute and no more, on whatever surface; told with when, in the surface's form; the others go on."""
    model = site.fresh()
    statuses = []
    for _ in range(3):
        got = sent(site, name, model, key="gp-slow")
        statuses.append(got.status)
    assert statuses[-1] == 429
    assert 1 <= int(got.headers["Retry-After"]) <= 30
    value = got.json[0] if name == "gl array" else got.json
    if name.startswith("openai"):
        assert value["error"]["code"] == "client_over_budget"
    else:
        details = {each["@type"].rpartition(".")[2]: each for each in value["error"]["details"]}
        assert details["ErrorInfo"]["reason"] == "CLIENT_OVER_BUDGET"
        assert float(details["RetryInfo"]["retryDelay"].removesuffix("s")) <= 30
        assert "PerDay" not in str(value)
    assert sent(site, name, model).status == 200


@pytest.mark.parametrize("name", ALL)
def test_a_client_keeps_to_its_models(site: ThreeBackends, name: str) -> None:
    """403 in the surface's form, before any account is asked; its own models are served."""
    site.fresh()
    refused = sent(site, name, "gemini-2.5-flash", key="gp-narrow")
    assert refused.status == 403
    assert b"narrow may not use gemini-2.5-flash" in refused.body
    assert not [
        call
        for call in site.google.record.find()
        if call.kind in (*GENERATION, "interactions", "cachedContents")
    ]
    assert sent(site, name, site.model, key="gp-narrow").status == 200


@pytest.mark.parametrize("key", ["gp-slow", "gp-narrow", "wrong", "", "gp-slo", "gp-slowly"])
def test_every_key_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """Whatever is presented, each key is compared, whole and of equal length, by the function that is made for it."""
    compared: list[tuple[bytes, bytes]] = []
    real = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return real(one, other)

    monkeypatch.setattr(auth.hmac, "compare_digest", compare)
    keys = auth.LocalKeys([(auth.LocalClient(name), f"gp-{name}") for name in ("slow", "narrow", "third")])
    try:
        keys.client_of(key)
    except auth.PoolError as error:
        assert error.code == "unauthenticated"
    assert len(compared) == (3 if key else 0)
    assert all(len(one) == len(other) == 32 for one, other in compared)


def test_metrics_know_no_clients_words(site: ThreeBackends) -> None:
    """Whatever clients make up (models, paths, sessions, keys), the number of lines stays what it is."""

    def shape() -> set[str]:
        text = ask(site.port, "GET", "/metrics", None, {"x-goog-api-key": site.key}).body.decode()
        return {line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")}

    def storm(round_: int) -> None:
        for number in range(5):
            made = f"made-up-{round_}-{number}"
            sent(site, "gl", made, x_gemini_pool_session=made, x_gemini_pool_wait_s="0")
            ask(site.port, "GET", f"/{made}/x", None, {"x-goog-api-key": site.key})
            ask(site.port, "GET", f"/v1beta/files/{made}", None, {"x-goog-api-key": site.key})
            ask(site.port, "GET", "/v1beta/models", None, {"x-goog-api-key": made})

    site.fresh()
    storm(1)
    before = shape()
    storm(2)
    assert shape() == before
    assert not [line for line in before if "made-up" in line]
