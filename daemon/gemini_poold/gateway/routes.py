"""Path -> what is meant and who answers: the gateway's one routing step, remembered per path.

Order matters only where surfaces share a version prefix: under `/v1`, `models` is the Gemini API's, `projects` and
`publishers` are Vertex's, `chat` and its like OpenAI's. A path of Google's that is not served says so (501); any
other path is unknown (404).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from typing import NamedTuple

from aiohttp import web

from gemini_pool.errors import PoolError

from . import (
    bound,
    code_assist,
    embedding,
    gemini,
    health,
    live,
    metadata,
    openai,
    passthrough,
    uploads,
    vertex,
)
from .errors import Shape
from .exchange import Exchange, Target

Handler = Callable[[Exchange], Awaitable[web.StreamResponse]]

GEMINI_VERSIONS = frozenset({"v1beta", "v1", "v1alpha"})
VERTEX_VERSIONS = frozenset({"v1", "v1beta1"})
NOT_SERVED = {
    "auth_tokens": "ephemeral tokens",
    "dynamic": "dynamic models",
    "reasoningEngines": "reasoning engines",
    "endpoints": "Vertex endpoints",
}
# Never TRACE, which would tell what was sent: the account's credential.
STREAMED_VERBS = {"upload": {"POST", "PUT", "GET", "DELETE"}, "download": {"GET", "HEAD"}}
KEPT_VERBS = {"GET", "POST", "PATCH", "DELETE"}
# Methods of models that start something which one account then has.
PASSED_METHODS = frozenset(
    {"predict", "predictLongRunning", "batchGenerateContent", "asyncBatchEmbedContent"}
)
VERTEX_PASSED_METHODS = frozenset({"predict", "predictLongRunning", "fetchPredictOperation"})
GEMINI_HANDLERS: Mapping[str, Handler] = {**gemini.HANDLERS, "batchEmbedContents": embedding.batch}
OPENAI_HANDLERS: Mapping[str, Handler] = {
    "chat/completions": openai.chat,
    "responses": openai.responses,
    "embeddings": openai.embeddings,
}
OPENAI = {
    "chat": "OpenAI's kept chat completions",
    "responses": "OpenAI's kept responses",
    "embeddings": "anything more of OpenAI's embeddings",
    "moderations": "OpenAI's moderations",
    "images": "OpenAI's images",
    "videos": "OpenAI's videos",
    "audio": "OpenAI's audio",
    "completions": "OpenAI's completions",
}


# What OpenAI keeps for its users: only under /v1beta/openai, for under /v1 some of the names are Gemini's.
OPENAI_KEPT = frozenset(
    {"files", "uploads", "batches", "fine_tuning", "vector_stores", "assistants", "threads"}
)


# The Live API's paths, of each surface; those for ephemeral tokens are not served.
_LIVE = {
    "gl": re.compile(
        r"google\.ai\.generativelanguage\.(v1(?:alpha|beta)?)\.GenerativeService\.BidiGenerateContent"
    ),
    "vx": re.compile(r"google\.cloud\.aiplatform\.(v1(?:beta1)?)\.LlmBidiService/BidiGenerateContent"),
}


class Route(NamedTuple):
    """`open`: answered without a key."""

    target: Target
    handler: Handler
    open: bool = False


@lru_cache(maxsize=1024)
def route(verb: str, path: str) -> Route:
    """Who answers `verb path` (decoded, without its query)."""
    segments = path.removeprefix("/").split("/")
    first = segments[0]
    if first == "v1internal" or first.startswith("v1internal:"):
        return _code_assist(verb, path[len("/v1internal") :])
    if first in GEMINI_VERSIONS or first in VERTEX_VERSIONS:
        return _versioned(verb, first, segments[1:])
    if len(segments) == 1 and first in health.HANDLERS:
        return _verbs(
            verb,
            Route(Target("", "", first), health.HANDLERS[first], open=first != "metrics"),
            {"GET", "HEAD"},
        )
    if path == "/" or first == "computeMetadata":
        return _verbs(
            verb, Route(Target("metadata", "", "metadata"), metadata.handle, open=True), {"GET", "HEAD"}
        )
    if first == "publishers":  # an SDK told that its base URL is a whole collection sends no version
        return _vertex(verb, "v1beta1", segments)
    if first in {"upload", "download"} and len(segments) > 2 and segments[1] in GEMINI_VERSIONS:
        handler = uploads.handle if first == "upload" else passthrough.handle
        return _verbs(verb, Route(Target("gl", segments[1], first), handler), STREAMED_VERBS[first])
    if path.startswith("//ws/"):  # so says google-genai for JavaScript
        return _live(path.removeprefix("//ws/"))
    if first == "ws":
        return _live("/".join(segments[1:]))
    return _unknown(Target("", "", ""), path)


def _versioned(verb: str, version: str, rest: list[str]) -> Route:
    head = rest[0] if rest else ""
    express = (
        version == "v1beta1" and head.partition(":")[0] in bound.VERTEX_COLLECTIONS
    )  # SDKs that know a key alone
    if express or (head in {"projects", "publishers"} and version in VERTEX_VERSIONS):
        return _vertex(verb, version, rest)
    if version in GEMINI_VERSIONS:
        if head == "models":
            return _gemini(verb, version, "/".join(rest[1:]))
        if head == "openai":
            return _openai(verb, rest[1:])
        if version == "v1" and head in OPENAI:
            return _openai(verb, rest)
        name = head.partition(":")[0]
        if name in bound.COLLECTIONS:
            shape = Shape.INTERACTIONS if name == "interactions" else Shape.GOOGLE
            return _verbs(
                verb, Route(Target("gl", version, name, shape=shape), passthrough.handle), KEPT_VERBS
            )
        if name in NOT_SERVED:
            shape = Shape.INTERACTIONS if name == "interactions" else Shape.GOOGLE
            return _unserved(Target("gl", version, "", shape=shape), NOT_SERVED[name])
    return _unknown(Target("", version, ""), "/".join(["", version, *rest]))


def _gemini(verb: str, version: str, rest: str) -> Route:
    rest = rest.removeprefix("models/")  # `models/models/M`: seen from clients that prefix twice
    if not rest:
        listing = _either(gemini.list_models, openai.list_models) if version == "v1" else gemini.list_models
        return _verbs(verb, Route(Target("gl", version, "models"), listing), {"GET"})
    model, colon, method = rest.rpartition(":")
    if not colon:
        if "/" in rest:  # models/M/operations/ID
            return _verbs(verb, Route(Target("gl", version, "operations"), passthrough.handle), KEPT_VERBS)
        getting = _either(gemini.get_model, openai.get_model) if version == "v1" else gemini.get_model
        return _verbs(verb, Route(Target("gl", version, "models", rest), getting), {"GET"})
    target = Target("gl", version, method, model)
    if method in PASSED_METHODS:
        return _verbs(verb, Route(target, passthrough.handle), {"POST"})
    if method not in GEMINI_HANDLERS:
        return _unserved(target, f"models.{method}")
    return _verbs(verb, Route(target, GEMINI_HANDLERS[method]), {"POST"})


def _openai(verb: str, rest: list[str]) -> Route:
    head = rest[0] if rest else ""
    target = Target("openai", "", head, shape=Shape.OPENAI)
    if handler := OPENAI_HANDLERS.get("/".join(rest)):
        return _verbs(verb, Route(target, handler), {"POST"})
    if head == "models" and rest[1:] in ([], [""]):
        return _verbs(verb, Route(target, openai.list_models), {"GET"})
    if head == "models":
        name = "/".join(rest[1:])
        return _verbs(verb, Route(target._replace(model=name), openai.get_model), {"GET"})
    if head in OPENAI or head in OPENAI_KEPT:
        return _unserved(target, OPENAI.get(head) or f"OpenAI's {head}")
    return _unknown(target, "/" + "/".join(rest))


def _either(google: Handler, other: Handler) -> Handler:
    """Two families ask for the same path."""

    async def ask(exchange: Exchange) -> web.StreamResponse:
        return await (other if openai.asked_by_bearer(exchange) else google)(exchange)

    return ask


def _vertex(verb: str, version: str, rest: list[str]) -> Route:
    target = Target("vx", version, "")
    if rest[0] == "projects":
        if len(rest) < 5 or rest[2] != "locations":
            return _unserved(target, "this Vertex resource")
        rest = rest[4:]
    if (name := rest[0].partition(":")[0]) in bound.VERTEX_COLLECTIONS:
        return _verbs(verb, Route(target._replace(method=name), passthrough.handle), KEPT_VERBS)
    if rest[:3] == ["publishers", "google", "models"] and rest[4:5] == ["operations"] and len(rest) == 6:
        return _verbs(verb, Route(target._replace(method="operations"), passthrough.handle), KEPT_VERBS)
    if rest[:3] != ["publishers", "google", "models"] or len(rest) > 4:
        if rest[0] == "publishers" and len(rest) > 2 and rest[1] != "google":
            return _unserved(target, f"models of publisher {rest[1]}")
        return _unserved(target, NOT_SERVED.get(rest[0], "this Vertex resource"))
    if len(rest) == 3:
        return _verbs(verb, Route(target, vertex.list_models), {"GET"})
    model, colon, method = rest[3].rpartition(":")
    if not colon:
        return _verbs(verb, Route(target._replace(model=rest[3]), vertex.get_model), {"GET"})
    target = Target("vx", version, method, model)
    if method in VERTEX_PASSED_METHODS:
        return _verbs(verb, Route(target, passthrough.handle), {"POST"})
    if method not in vertex.HANDLERS:
        return _unserved(target, f"models.{method}")
    return _verbs(verb, Route(target, vertex.HANDLERS[method]), {"POST"})


def _live(rest: str) -> Route:
    for surface, known in _LIVE.items():
        if found := known.fullmatch(rest):
            return Route(Target(surface, found[1], "bidiGenerateContent"), live.handle)
    return _unserved(Target("gl", "", ""), "anything more of the Live API")


def _code_assist(verb: str, rest: str) -> Route:
    target = Target("ca", "v1internal", rest.removeprefix(":"))
    if rest.startswith("/operations/"):
        return _verbs(verb, Route(target._replace(method="operations"), code_assist.operation), {"GET"})
    found = code_assist.HANDLERS.get(target.method) if rest.startswith(":") else None
    if found is None:
        return _unserved(target, f"Code Assist's {target.method or rest}")
    return _verbs(verb, Route(target, found.handler), {found.verb})


def _verbs(verb: str, found: Route, allowed: set[str]) -> Route:
    if verb in allowed or (verb == "HEAD" and allowed == {"GET"}):  # the server leaves the body out
        return found
    words = sorted(allowed)

    async def refuse(_: Exchange) -> web.StreamResponse:
        raise PoolError(
            "method_not_allowed", f"{verb} is not {' or '.join(words)}", details={"allowed": words}
        )

    return Route(found.target, refuse)


def _unserved(target: Target, what: str) -> Route:
    async def refuse(_: Exchange) -> web.StreamResponse:
        raise PoolError("not_served", f"gemini-pool does not serve {what} yet")

    return Route(target, refuse)


def _unknown(target: Target, path: str) -> Route:
    async def refuse(_: Exchange) -> web.StreamResponse:
        raise PoolError("no_such_path", f"nothing is served at {path[:200]}")

    return Route(target, refuse)
