"""Traces as a real collector gets them: OTLP over HTTP to a server of ours that decodes the protobuf.

The daemon is the ordinary one, with the packages of the extra `otel` and nothing set but the standard variables.
"""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.clients.conftest import MODEL, Stage, staged
from tests.fakes.site import Got, ask

from gemini_poold.fake import GENERATION, Fault, Match, replies

collector_pb = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status  # noqa: E402
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes  # noqa: E402
from opentelemetry.semconv._incubating.attributes import http_attributes as more_http  # noqa: E402
from opentelemetry.semconv.attributes import (  # noqa: E402
    error_attributes,
    http_attributes,
    server_attributes,
    url_attributes,
    user_agent_attributes,
)

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
PROMPT = "the secret recipe of the house"
BODY = {"contents": [{"role": "user", "parts": [{"text": PROMPT}]}]}
PATH = f"/v1beta/models/{MODEL}:generateContent"
STREAM = f"/v1beta/models/{MODEL}:streamGenerateContent?alt=sse"
PATIENCE_S = 20.0
CONVENTIONS = {
    value
    for module in (
        gen_ai_attributes, http_attributes, more_http, error_attributes, server_attributes, url_attributes,
        user_agent_attributes,
    )
    for value in vars(module).values()
    if isinstance(value, str)
}  # fmt: skip


class Collector:
    """Takes traces on a port of its own and keeps the spans, the resources and the raw bytes."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.resources: list[dict[str, Any]] = []
        self.raw = b""
        self.paths: set[str] = set()
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.take(self.path, self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, path: str, body: bytes) -> None:
        told = collector_pb.ExportTraceServiceRequest.FromString(body)
        self.paths.add(path)
        self.raw += body
        for resource in told.resource_spans:
            self.resources.append(values(resource.resource.attributes))
            for scope in resource.scope_spans:
                self.spans += scope.spans

    def wait_for(self, servers: int) -> list[Span]:
        """The spans of so many requests, each with what is in it: a request's own is the last to end."""
        until = time.monotonic() + PATIENCE_S
        while sum(span.kind == Span.SPAN_KIND_SERVER for span in self.spans) < servers:
            assert time.monotonic() < until, self.spans
            time.sleep(0.02)
        return self.spans


def values(attributes: Any) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        kind = value.WhichOneof("value")
        found = getattr(value, kind)
        return [plain(each) for each in found.values] if kind == "array_value" else found

    return {each.key: plain(each.value) for each in attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def variables(collector: Collector) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}


@pytest.fixture
def traced(tmp_path: Path, variables: dict[str, str]) -> Iterator[Stage]:
    with staged(tmp_path, env=variables) as running:
        yield running


def sent(stage: Stage, path: str, body: Any = BODY, key: str = "", **headers: str) -> Got:
    port = int(stage.url.rpartition(":")[2])
    return ask(port, "POST", path, body, {"x-goog-api-key": key or stage.daemon.key, **headers})


def by_kind(spans: list[Span], kind: int) -> list[Span]:
    return [span for span in spans if span.kind == kind]


def test_a_request_and_its_attempts(traced: Stage, collector: Collector) -> None:
    """One span for the request under the client's own, one in it for each attempt; names of the conventions, bounds right."""
    assert sent(traced, PATH, traceparent=TRACEPARENT).status == 200
    spans = collector.wait_for(1)
    (server,) = by_kind(spans, Span.SPAN_KIND_SERVER)
    assert (server.trace_id.hex(), server.parent_span_id.hex()) == (TRACE, PARENT)
    assert server.name == "POST /v1beta/models/{model}:generateContent"
    told = values(server.attributes)
    assert told["http.route"] == "/v1beta/models/{model}:generateContent"
    assert (told["http.request.method"], told["http.response.status_code"]) == ("POST", 200)
    assert (told["gen_ai.operation.name"], told["gen_ai.request.model"]) == ("generate_content", MODEL)
    assert (told["gen_ai.provider.name"], told["gen_ai.response.finish_reasons"]) == ("gcp.gemini", ["STOP"])
    assert told["gen_ai.usage.input_tokens"] > 0
    assert told["gen_ai.usage.output_tokens"] > 0
    assert (told["gemini_pool.account"], told["gemini_pool.client"]) == ("cool", "default")
    assert (told["gemini_pool.attempts"], told["gemini_pool.outcome"]) == (2, "ok")
    assert server.status.code == Status.STATUS_CODE_UNSET
    first, second = by_kind(spans, Span.SPAN_KIND_CLIENT)
    for span in (first, second):
        assert (span.trace_id, span.parent_span_id) == (server.trace_id, server.span_id)
        assert span.name == f"generate_content {MODEL}"
        assert server.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= server.end_time_unix_nano
    refused, answered = values(first.attributes), values(second.attributes)
    assert (refused["gemini_pool.account"], refused["http.response.status_code"]) == ("hot", 429)
    assert (refused["error.type"], first.status.code) == ("429", Status.STATUS_CODE_ERROR)
    assert (answered["gemini_pool.account"], answered["http.response.status_code"]) == ("cool", 200)
    assert answered["http.request.resend_count"] == 1
    assert "error.type" not in answered
    assert collector.paths == {"/v1/traces"}
    assert collector.resources[0]["service.name"] == "gemini-pool"


def test_names_are_the_conventions(traced: Stage, collector: Collector) -> None:
    """Every attribute is one of the semantic conventions' or has our own prefix, on each surface, refused or not."""
    for path in (PATH, STREAM, "/v1beta/files/nothing", "/v1beta/nothing/at/all"):
        sent(traced, path)
    sent(traced, "/v1/chat/completions", {"model": MODEL, "messages": [{"role": "user", "content": PROMPT}]})
    spans = collector.wait_for(5)
    found = {each.key for span in spans for each in span.attributes}
    assert {"gen_ai.request.stream", "error.type", "server.address"} <= found
    assert {name for name in found if not name.startswith("gemini_pool.")} <= CONVENTIONS
    names = {span.name for span in by_kind(spans, Span.SPAN_KIND_SERVER)}
    assert "POST /v1/chat/completions" in names
    assert "POST" in names  # a path that nobody serves names no span
    assert not any("nothing" in name for name in names)


def test_neither_secrets_nor_texts(traced: Stage, collector: Collector) -> None:
    """Nothing of prompt, answer or key is in what the collector got, whole bytes and all, also of refused requests."""
    answered = sent(traced, PATH)
    sent(traced, f"{PATH}?key={traced.daemon.key}")
    sent(traced, PATH, key="gp-a-wrong-key-that-is-long-enough-to-see")
    collector.wait_for(3)
    text = answered.json["candidates"][0]["content"]["parts"][0]["text"]
    keys = [key.key for key in traced.google.world.keys.values()]
    for secret in (PROMPT, text, traced.daemon.key, "gp-a-wrong-key", *keys):
        assert secret.encode() not in collector.raw


def test_a_cut_stream_is_an_error(traced: Stage, collector: Collector) -> None:
    """A stream that broke off after its head had gone out: 200, and still no success."""
    rule = traced.cut()
    assert sent(traced, STREAM).cut
    (server,) = by_kind(collector.wait_for(1), Span.SPAN_KIND_SERVER)
    told = values(server.attributes)
    assert rule.hits == 1
    assert (told["http.response.status_code"], told["error.type"]) == (200, "stream_cut")
    assert server.status.code == Status.STATUS_CODE_ERROR


def test_waiting_is_a_span(traced: Stage, collector: Collector) -> None:
    """A request that nobody can serve yet waits, and its trace shows how long; one that did not wait shows nothing."""
    refusal = Fault.status(429, body=replies.rate_limited("0.5s", model=MODEL))
    traced.google.faults.add(refusal, when=Match(kind=GENERATION, credential="cool"), times=1)
    assert sent(traced, PATH, **{"x-gemini-pool-account": "cool"}).status == 200
    assert sent(traced, PATH, **{"x-gemini-pool-account": "cool"}).status == 200
    spans = collector.wait_for(2)
    first, second = by_kind(spans, Span.SPAN_KIND_SERVER)
    (wait,) = [span for span in spans if span.name == "gemini_pool.wait"]
    assert (wait.trace_id, wait.parent_span_id) == (first.trace_id, first.span_id)
    waited_s = (wait.end_time_unix_nano - wait.start_time_unix_nano) / 1e9
    assert waited_s == pytest.approx(values(first.attributes)["gemini_pool.wait_s"], abs=0.05)
    assert waited_s > 0.3
    assert values(second.attributes)["gemini_pool.wait_s"] < 0.1


@pytest.mark.parametrize("forwards", [False, True])
def test_google_is_not_told_of_the_trace(
    tmp_path: Path, variables: dict[str, str], collector: Collector, forwards: bool
) -> None:
    """`traceparent` ends at the gateway, unless somebody wants it to go on; then it names the gateway's span."""
    more = {"GEMINI_POOL_TRACE_UPSTREAM": "1"} if forwards else {}
    with staged(tmp_path, env={**variables, **more}) as stage:
        assert sent(stage, PATH, traceparent=TRACEPARENT).status == 200
        (server,) = by_kind(collector.wait_for(1), Span.SPAN_KIND_SERVER)
        calls = [call for call in stage.google.record.calls if MODEL in call.path]
        told = {call.headers.get("traceparent") for call in calls}
    assert len(calls) == 2
    assert told == ({f"00-{TRACE}-{server.span_id.hex()}-01"} if forwards else {None})


@pytest.mark.parametrize("sampled", [False, True])
def test_the_clients_word_on_sampling(traced: Stage, collector: Collector, sampled: bool) -> None:
    """A client whose trace is not sampled gets no spans; one without a trace does."""
    sent(traced, PATH, traceparent=TRACEPARENT if sampled else TRACEPARENT[:-1] + "0")
    sent(traced, PATH)
    spans = by_kind(collector.wait_for(2 if sampled else 1), Span.SPAN_KIND_SERVER)
    assert [span.trace_id.hex() == TRACE for span in spans] == ([True, False] if sampled else [False])


def test_a_stop_sends_what_is_left(tmp_path: Path, collector: Collector) -> None:
    """The spans of the last seconds reach the collector before the daemon has ended."""
    env = {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{collector.url}/own/path"}
    with staged(
        tmp_path, env={**env, "OTEL_BSP_SCHEDULE_DELAY": "600000", "OTEL_SERVICE_NAME": "mine"}
    ) as stage:
        sent(stage, PATH)
        assert not collector.spans
    assert len(by_kind(collector.spans, Span.SPAN_KIND_SERVER)) == 1
    assert collector.paths == {"/own/path"}
    assert collector.resources[0]["service.name"] == "mine"


def test_a_collector_that_is_gone_harms_nobody(tmp_path: Path, collector: Collector) -> None:
    """Requests are answered, and a stop does not wait for it."""
    collector.server.shutdown()
    collector.server.server_close()
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}
    with staged(tmp_path, env=env) as stage:
        assert [sent(stage, PATH).status for _ in range(3)] == [200] * 3


@pytest.mark.parametrize(
    "env", [{}, {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}]
)
def test_off_is_not_even_imported(env: dict[str, str]) -> None:
    """Without the variables nothing of OpenTelemetry is loaded, although it is installed here."""
    code = (
        "import os, sys, gemini_poold.app\n"
        "from gemini_poold.gateway import tracing\n"
        "assert tracing.load(os.environ, None) is None\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    path = os.pathsep.join(sys.path)
    subprocess.run([sys.executable, "-c", code], env={**clean, **env, "PYTHONPATH": path}, check=True)
