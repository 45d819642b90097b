"""Which path means what."""

import pytest

from gemini_pool.errors import PoolError
from gemini_poold.gateway import code_assist, embedding, gemini, health, openai, vertex
from gemini_poold.gateway.errors import Shape, render
from gemini_poold.gateway.routes import route

GENERATE = [
    ("/v1beta/models/m:generateContent", "gl", "v1beta", "m"),
    ("/v1/models/m:generateContent", "gl", "v1", "m"),
    ("/v1alpha/models/m:generateContent", "gl", "v1alpha", "m"),
    ("/v1beta/models/models/m:generateContent", "gl", "v1beta", "m"),
    ("/v1/projects/p/locations/l/publishers/google/models/m:generateContent", "vx", "v1", "m"),
    ("/v1beta1/projects/p/locations/l/publishers/google/models/m:generateContent", "vx", "v1beta1", "m"),
    ("/v1/publishers/google/models/m:generateContent", "vx", "v1", "m"),
    ("/v1beta1/publishers/google/models/m:generateContent", "vx", "v1beta1", "m"),
    ("/publishers/google/models/m:generateContent", "vx", "v1beta1", "m"),
    ("/v1internal:generateContent", "ca", "v1internal", ""),
]


@pytest.mark.parametrize(("path", "surface", "version", "model"), GENERATE)
def test_generate_on_every_surface(path, surface, version, model):
    """Each family's path names its surface, version and model."""
    target = route("POST", path).target
    assert target[:4] == (surface, version, "generateContent", model)
    assert not route("POST", path).open


@pytest.mark.parametrize(
    ("verb", "path", "handler"),
    [
        ("GET", "/v1beta/models", gemini.list_models),
        ("GET", "/v1beta/models/", gemini.list_models),
        ("GET", "/v1beta/models/m", gemini.get_model),
        ("GET", "/v1beta/openai/models", openai.list_models),
        ("GET", "/v1beta/openai/models/m", openai.get_model),
        ("POST", "/v1/chat/completions", openai.chat),
        ("POST", "/v1beta/openai/chat/completions", openai.chat),
        ("POST", "/v1/responses", openai.responses),
        ("POST", "/v1/embeddings", openai.embeddings),
        ("GET", "/v1beta1/publishers/google/models", vertex.list_models),
        ("GET", "/v1/projects/p/locations/l/publishers/google/models/m", vertex.get_model),
        ("POST", "/v1beta/models/m:embedContent", gemini.naming),
        ("POST", "/v1beta/models/m:batchEmbedContents", embedding.batch),
        ("POST", "/v1internal:loadCodeAssist", code_assist.load),
        ("GET", "/v1internal:getCodeAssistGlobalUserSetting", code_assist.user_setting),
        ("GET", "/v1internal/operations/x", code_assist.operation),
        ("GET", "/healthz", health.healthz),
        ("HEAD", "/readyz", health.readyz),
        ("GET", "/metrics", health.metrics),
    ],
)
def test_the_other_calls(verb, path, handler):
    """Lists, set-up calls and probes."""
    assert route(verb, path).handler is handler


def test_only_probes_are_open():
    """Health needs no key; everything else does, and metrics name accounts."""
    assert route("GET", "/healthz").open
    assert route("GET", "/readyz").open
    assert not route("GET", "/metrics").open
    assert not route("GET", "/v1beta/models").open
    assert not route("GET", "/nowhere").open


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/v1beta/dynamic/m:generateContent", Shape.GOOGLE),
        (
            "/ws/google.ai.generativelanguage.v1alpha.GenerativeService.BidiGenerateContentConstrained",
            Shape.GOOGLE,
        ),
        ("/v1alpha/auth_tokens", Shape.GOOGLE),
        ("/v1/chat/completions/x", Shape.OPENAI),
        ("/v1beta/openai/images/generations", Shape.OPENAI),
        ("/v1/responses/x", Shape.OPENAI),
        ("/v1/moderations", Shape.OPENAI),
        ("/v1beta/openai/files", Shape.OPENAI),
        ("/v1beta/openai/batches", Shape.OPENAI),
        ("/v1beta1/projects/p/locations/l/endpoints/openapi/chat/completions", Shape.GOOGLE),
        ("/v1/projects/p/locations/l/publishers/anthropic/models/m:rawPredict", Shape.GOOGLE),
        ("/v1internal:setCodeAssistGlobalUserSetting", Shape.GOOGLE),
    ],
)
async def test_what_google_has_and_we_have_not(path, shape):
    """A 501 in the surface's form that names what is missing."""
    found = route("POST", path)
    assert found.target.shape is shape
    assert await _code(found) == "not_served"


@pytest.mark.parametrize("path", ["/nowhere", "/v1", "/v1beta/", "/v2/models", "/healthz/x", ""])
async def test_unknown_paths(path):
    """Anything else is a 404."""
    assert await _code(route("GET", path)) == "no_such_path"


@pytest.mark.parametrize(
    ("verb", "path"),
    [
        ("GET", "/v1beta/models/m:generateContent"),
        ("POST", "/v1beta/models"),
        ("POST", "/healthz"),
        ("GET", "/v1internal:loadCodeAssist"),
    ],
)
async def test_wrong_verbs(verb, path):
    """The path is known, the verb is not its; the answer names those that are."""
    found = route(verb, path)
    assert await _code(found) == "method_not_allowed"
    with pytest.raises(PoolError) as caught:
        await found.handler(None)
    allowed = "POST" if verb == "GET" else "GET"
    assert render(Shape.GOOGLE, caught.value, 0.0).headers["Allow"].startswith(allowed)


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/v1beta/models", "/v1beta/models/m"])
def test_head_is_a_get_without_its_body(path):
    """Monitors ask so."""
    assert route("HEAD", path).handler is route("GET", path).handler


async def _code(found):
    with pytest.raises(Exception) as caught:
        await found.handler(None)
    return caught.value.code
