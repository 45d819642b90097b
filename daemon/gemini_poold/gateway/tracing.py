"""OpenTelemetry, for those who ask for it: a span for each request of the gateway, in it one for each attempt at Google
and each wait for an account. Names are the semantic conventions' (`http.*`, `gen_ai.*`), else `gemini_pool.*`.

Off, and not even imported, unless the standard `OTEL_*` variables name a collector; the packages are the extra `otel`.
No key, no prompt, no answer and no text of an error becomes an attribute: Google's errors may quote either.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .. import __version__
from ..clock import Clock
from ..core.model import Backend, Kind, Outcome
from ..runtime.attempts import Attempts

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

    from .exchange import Exchange, Target

log = logging.getLogger("gemini_pool.gateway")

UPSTREAM = "GEMINI_POOL_TRACE_UPSTREAM"
PROVIDERS = {
    Backend.DEVELOPER_API: "gcp.gemini",
    Backend.VERTEX: "gcp.vertex_ai",
    Backend.CODE_ASSIST: "gcp.gen_ai",
}
OPERATIONS = {
    "generateContent": "generate_content",
    "streamGenerateContent": "generate_content",
    "embedContent": "embeddings",
    "batchEmbedContents": "embeddings",
    "countTokens": "count_tokens",
    "chat": "chat",
    "responses": "chat",
    "embeddings": "embeddings",
}
_TRUE = frozenset({"1", "true", "yes", "on"})
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_SPOKEN = "http/protobuf"
# Requests that ended so never found out what they were about, or may not say so: their paths are anybody's words.
_NOWHERE = frozenset({"no_such_path", "not_served", "method_not_allowed", "unauthenticated", "forbidden"})
_SHORTEST_WAIT_S = 0.001  # below it nobody waited
CLOSE_S = 2.0  # what the last spans have for reaching a collector that is slow or gone


def wanted(environ: Mapping[str, str]) -> bool:
    """Whether the standard variables switch traces on. The specification's default would be on; ours is off."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporters = {word.strip() for word in environ.get("OTEL_TRACES_EXPORTER", "").split(",")} - {""}
    if exporters:
        return "otlp" in exporters
    return any(environ.get(name) for name in _ENDPOINTS)


def load(environ: Mapping[str, str], clock: Clock) -> Tracing | None:
    """What the variables ask for; None when that is nothing, or cannot be had, which is told and stops nobody."""
    if not wanted(environ):
        return None
    protocol = next((said for name in _PROTOCOLS if (said := environ.get(name))), _SPOKEN)
    if protocol != _SPOKEN:
        log.warning("traces are off: OTEL_EXPORTER_OTLP_PROTOCOL is %s, %s is spoken here", protocol, _SPOKEN)
        return None
    try:
        return _made(environ, clock)
    except ImportError:
        log.warning("traces are off: OTEL_* asks for them, and the packages are missing: gemini-pool[otel]")
    except Exception as error:  # noqa: BLE001 - whatever the packages think of the variables
        log.warning("traces are off: the packages cannot read OTEL_*: %s", type(error).__name__)
    return None


def _made(environ: Mapping[str, str], clock: Clock) -> Tracing:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = "OTEL_SERVICE_NAME" in environ or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    ours = {"service.version": __version__, **({} if named else {"service.name": "gemini-pool"})}
    provider = TracerProvider(resource=Resource.create(ours), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    forwards = environ.get(UPSTREAM, "").strip().lower() in _TRUE
    return Tracing(provider, clock, forwards=forwards)


class Tracing:
    """Makes a `RequestTrace` for each request. `forwards`: Google is told of the trace, too."""

    def __init__(self, provider: TracerProvider, clock: Clock, *, forwards: bool = False) -> None:
        from opentelemetry import propagate, trace

        self._provider = provider
        self.tracer: Tracer = provider.get_tracer("gemini_pool", __version__)
        self.api = trace
        self.propagate = propagate
        self.clock = clock
        self.forwards = forwards

    def begin(self, exchange: Exchange) -> RequestTrace:
        return RequestTrace(self, exchange)

    async def aclose(self) -> None:
        """Send what is left, for at most CLOSE_S; a collector that does not answer loses it."""
        closing = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        closing.start()
        await asyncio.to_thread(closing.join, CLOSE_S)


class RequestTrace:
    """The spans of one request: see `runtime.attempts.Trace` for who calls what."""

    def __init__(self, tracing: Tracing, exchange: Exchange) -> None:
        request, self._tracing = exchange.request, tracing
        self._attempt: Span | None = None
        self._operation = OPERATIONS.get(exchange.target.method, "")
        self._span: Span = tracing.tracer.start_span(
            request.method,
            context=tracing.propagate.extract(request.headers),
            kind=tracing.api.SpanKind.SERVER,
            start_time=self._now(),
        )
        self._inside: Context = tracing.api.set_span_in_context(self._span)

    # ---- while it runs -----------------------------------------------------------------------------------------

    def passed_on(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """The client's headers that Google gets: the trace only where somebody wants that."""
        if not self._tracing.forwards:
            return headers
        carrier = dict(headers)
        self._tracing.propagate.inject(carrier, context=self._inside)
        return carrier

    def waited(self, wait_s: float) -> None:
        """It was given an account, or none, after so many seconds."""
        if wait_s >= _SHORTEST_WAIT_S:
            end = self._now()
            span = self._tracing.tracer.start_span(
                "gemini_pool.wait", context=self._inside, start_time=end - int(wait_s * 1e9)
            )
            span.end(end)

    def sending(self, run: Attempts, url: str) -> None:
        """An attempt begins, over the one before where that was repeated with the same lease."""
        self._end_attempt("repeated")
        account, model = run.account, run.call.model
        provider = PROVIDERS[account.backend]
        operation = OPERATIONS.get(run.call.method, "")
        span = self._attempt = self._tracing.tracer.start_span(
            f"{operation} {model}" if operation and model else "POST",
            context=self._inside,
            kind=self._tracing.api.SpanKind.CLIENT,
            start_time=self._now(),
        )
        place = urlsplit(url)
        found = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": provider,
            "gen_ai.request.model": model,
            "server.address": place.hostname,
            "server.port": place.port or (443 if place.scheme == "https" else 80),
            "http.request.resend_count": run.count - 1,
            "gemini_pool.account": account.id,
            "gemini_pool.backend": account.backend.value,
        }
        span.set_attributes(_given(found))
        self._span.set_attribute("gen_ai.provider.name", provider)

    def settled(self, outcome: Outcome, status: int) -> None:
        """The attempt under way has ended, if there is one."""
        if status:
            self._set(self._attempt, "http.response.status_code", status)
        good = outcome.kind in (Kind.OK, Kind.CANCELLED)
        self._set(self._attempt, "gemini_pool.outcome", outcome.kind.value)
        self._end_attempt("" if good else str(status) if status >= 400 else outcome.kind.value)

    def end(self, exchange: Exchange) -> None:
        """The request is over: what its line in the log says becomes the span's attributes."""
        self._end_attempt("cancelled")
        span, target, status, outcome = self._span, exchange.target, exchange.status, exchange.outcome
        request, usage = exchange.request, exchange.usage
        route = "" if outcome in _NOWHERE else route_of(target, request.path)
        if route:
            span.update_name(f"{request.method} {route}")
        bad = outcome not in ("ok", "cancelled")
        found: dict[str, Any] = {
            "http.request.method": request.method,
            "http.route": route,
            "url.scheme": "http",
            "url.path": request.path[:256] if route and target.surface != "metadata" else route,
            "http.response.status_code": status,
            "http.request.body.size": exchange.bytes_in,
            "http.response.body.size": exchange.bytes_out,
            "user_agent.original": request.headers.get("User-Agent", "")[:256],
            "error.type": outcome if bad else "",
            "gen_ai.operation.name": self._operation,
            "gen_ai.request.model": exchange.model,
            "gen_ai.request.stream": True if target.method == "streamGenerateContent" else None,
            "gen_ai.response.finish_reasons": [exchange.finish] if exchange.finish else None,
            "gen_ai.response.time_to_first_chunk": exchange.first_byte_s,
            "gen_ai.usage.input_tokens": usage.input_tokens if usage else None,
            "gen_ai.usage.output_tokens": usage.output_tokens if usage else None,
            "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens if usage else None,
            "gemini_pool.client": exchange.client.name if exchange.client is not None else "",
            "gemini_pool.surface": target.surface,
            "gemini_pool.account": exchange.account,
            "gemini_pool.attempts": exchange.attempts,
            "gemini_pool.wait_s": exchange.wait_s,
            "gemini_pool.outcome": outcome,
        }
        span.set_attributes(_given(found))
        if bad and (status >= 500 or status < 400):  # an error of the client's is none of the server's
            self._fail(span)
        span.end(self._now())

    # ---- inside ------------------------------------------------------------------------------------------------

    def _end_attempt(self, wrong: str) -> None:
        span, self._attempt = self._attempt, None
        if span is None:
            return
        if wrong:
            span.set_attribute("error.type", wrong)
            self._fail(span)
        span.end(self._now())

    def _fail(self, span: Span) -> None:
        span.set_status(self._tracing.api.StatusCode.ERROR)

    @staticmethod
    def _set(span: Span | None, name: str, value: str | int) -> None:
        if span is not None:
            span.set_attribute(name, value)

    def _now(self) -> int:
        return int(self._tracing.clock.now() * 1e9)


def _given(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None and value != ""}


@lru_cache(maxsize=1024)
def route_of(target: Target, path: str) -> str:
    """`path` with a word in braces for each name in it, so that there are few of them; empty for none of a surface."""
    if target.surface == "metadata":
        return "/computeMetadata/v1/{path}"
    if not target.surface:
        return ""
    shown: list[str] = []
    inside = ""  # the collection whose member comes next
    for segment in path.split("/")[1:]:
        if inside:
            verb = segment.partition(":")[2]
            shown.append(f"{{{inside}}}" + (f":{verb}" if verb == target.method else ""))
            inside = ""
            continue
        shown.append(segment)
        if target.surface == "openai":
            inside = "model" if segment == "models" else ""
        elif segment not in ("upload", "download", "openai") and not segment.startswith("v1"):
            inside = segment.partition(":")[0].removesuffix("s") or "id"
    return "/" + "/".join(shown)
