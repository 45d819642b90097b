"""When traces are on, and what names their spans have. What a collector gets is tested with the real clients."""

from __future__ import annotations

import sys

import pytest

from gemini_poold.clock import SystemClock
from gemini_poold.gateway import routes, tracing

URL = "http://127.0.0.1:4318"


@pytest.mark.parametrize(("environ", "on"), [
    ({}, False),
    ({"OTEL_SERVICE_NAME": "x"}, False),
    ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
    ({"OTEL_EXPORTER_OTLP_ENDPOINT": URL}, True),
    ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": URL}, True),
    ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
    ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": URL}, False),
    ({"OTEL_TRACES_EXPORTER": "console"}, False),
    ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": URL}, False),
    ({"OTEL_SDK_DISABLED": "false", "OTEL_EXPORTER_OTLP_ENDPOINT": URL}, True),
])  # fmt: skip
def test_what_switches_it_on(environ, on):
    """An endpoint or an exporter of the standard variables, never their mere absence."""
    assert tracing.wanted(environ) is on


def test_without_the_packages_it_is_told(monkeypatch, caplog):
    """Traces that are asked for and cannot be had are a warning that names the extra, and no reason to stop."""
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    assert tracing.load({"OTEL_EXPORTER_OTLP_ENDPOINT": URL}, SystemClock()) is None
    assert "gemini-pool[otel]" in caplog.text


def test_another_protocol_is_told(caplog):
    """gRPC is not spoken; the traces are not sent somewhere that cannot read them."""
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    assert tracing.load(environ, SystemClock()) is None
    assert "grpc" in caplog.text


@pytest.mark.parametrize(("verb", "path", "shown"), [
    ("POST", "/v1beta/models/gemini-x:generateContent", "/v1beta/models/{model}:generateContent"),
    ("GET", "/v1beta/models", "/v1beta/models"),
    ("GET", "/v1/models/gemini-x", "/v1/models/{model}"),
    ("GET", "/v1beta/files/abc", "/v1beta/files/{file}"),
    ("GET", "/v1beta/models/m/operations/o", "/v1beta/models/{model}/operations/{operation}"),
    ("POST", "/upload/v1beta/files", "/upload/v1beta/files"),
    ("POST", "/v1internal:loadCodeAssist", "/v1internal:loadCodeAssist"),
    ("GET", "/v1internal/operations/o", "/v1internal/operations/{operation}"),
    ("POST", "/v1beta1/projects/p/locations/l/publishers/google/models/m:countTokens",
     "/v1beta1/projects/{project}/locations/{location}/publishers/{publisher}/models/{model}:countTokens"),
    ("POST", "/v1/chat/completions", "/v1/chat/completions"),
    ("POST", "/v1beta/openai/chat/completions", "/v1beta/openai/chat/completions"),
    ("GET", "/v1beta/openai/models/m", "/v1beta/openai/models/{model}"),
    ("GET", "/computeMetadata/v1/instance/service-accounts/me@x/token", "/computeMetadata/v1/{path}"),
    ("GET", "/v9/what/ever", ""),
])  # fmt: skip
def test_routes_are_few(verb, path, shown):
    """Whatever clients make up (models, ids, projects) is a word in braces."""
    assert tracing.route_of(routes.route(verb, path).target, path) == shown
