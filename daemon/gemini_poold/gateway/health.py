"""/healthz and /readyz, answered without a key because they tell a word, and /metrics, which names accounts.

Counters come from the pool's status, the gateway's own from `meter.py`. Labels take a bounded set of values: accounts,
surfaces and states, never a model or path that a client made up.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping

from aiohttp import web

from gemini_pool import wire

from . import relay
from .exchange import Exchange
from .meter import family, labels

TEXT = "text/plain; charset=utf-8"
METRICS = "text/plain; version=0.0.4; charset=utf-8"


async def healthz(exchange: Exchange) -> web.StreamResponse:
    """The process answers; nothing more is said."""
    return relay.json_answer(exchange, b"ok\n", content_type=TEXT)


async def readyz(exchange: Exchange) -> web.StreamResponse:
    """200 while requests are taken, 503 with the state's word while starting, paused or draining."""
    state = exchange.services.state()
    return relay.json_answer(exchange, f"{state}\n".encode(), 200 if state == "ready" else 503, TEXT)


async def metrics(exchange: Exchange) -> web.StreamResponse:
    services = exchange.services
    lines = [*pool_lines(services.status()), *services.meter.lines(), ""]
    return relay.json_answer(exchange, "\n".join(lines).encode(), content_type=METRICS)


HANDLERS: Mapping[str, Callable[[Exchange], Awaitable[web.StreamResponse]]] = {
    "healthz": healthz,
    "readyz": readyz,
    "metrics": metrics,
}


def pool_lines(status: wire.StatusResult) -> Iterator[str]:
    """Prometheus text of the pool's status."""
    info = [(labels(version=status.version, state=status.state), 1)]
    yield from family("info", "gauge", "Version and state of the daemon", info)
    yield from family("uptime_seconds", "gauge", "Since the daemon started", [("", status.uptime_s)])
    for name in wire.Counters.__struct_fields__:
        value = getattr(status.counters, name)
        yield from family(f"{name}_total", "counter", f"Pool counter: {name}", [("", value)])
    yield from family("queue", "gauge", "Requests waiting for an account", [("", status.queue.waiting)])
    yield from family("leases", "gauge", "Leases that have not ended", [("", len(status.leases))])
    accounts = status.accounts
    states = [(labels(account=a.id, backend=a.backend, state=a.state), int(a.available)) for a in accounts]
    yield from family("account_available", "gauge", "Whether an account can serve now", states)
    gauges: dict[str, tuple[str, str, Callable[[wire.AccountInfo], float]]] = {
        "account_health": ("gauge", "Health score, 0 to 1", lambda a: a.health.score),
        "account_in_flight": ("gauge", "Requests under way", lambda a: a.in_flight),
        "account_cooldowns": ("gauge", "Cooldowns in force", lambda a: len(a.cooldowns)),
        "account_served_total": ("counter", "Requests answered", lambda a: a.counters.served),
        "account_failed_total": ("counter", "Requests failed", lambda a: a.counters.failed),
        "account_rotated_total": ("counter", "Requests moved on to another", lambda a: a.counters.rotated),
        "account_input_tokens_total": ("counter", "Tokens sent", lambda a: a.counters.input_tokens),
        "account_output_tokens_total": ("counter", "Tokens generated", lambda a: a.counters.output_tokens),
        "account_token_renewals_total": ("counter", "Access tokens renewed", lambda a: a.token.renewals),
    }
    for name, (kind, text, value_of) in gauges.items():
        yield from family(name, kind, text, [(labels(account=a.id), value_of(a)) for a in accounts])
