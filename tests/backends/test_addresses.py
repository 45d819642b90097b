"""URLs and headers of each backend."""

from __future__ import annotations

import pytest

from gemini_poold.backends import build
from gemini_poold.config import Endpoints
from gemini_poold.core.model import Account, Backend
from gemini_poold.errors import PoolError

GOOGLE = build(Endpoints())
LOCAL = build(Endpoints(code_assist="http://h:1", developer_api="http://h:2/gl", vertex="http://h:3"))
GL, CA, VX = Backend.DEVELOPER_API, Backend.CODE_ASSIST, Backend.VERTEX
G, S, C, E = "generateContent", "streamGenerateContent", "countTokens", "embedContent"
AI = "https://aiplatform.googleapis.com"


@pytest.mark.parametrize(
    ("backends", "backend", "location", "model", "method", "version", "url"),
    [
        (GOOGLE, GL, "", "m", G, "v1beta", "https://generativelanguage.googleapis.com/v1beta/models/m:generateContent"),
        (GOOGLE, GL, "", "models/m", S, "v1", "https://generativelanguage.googleapis.com/v1/models/m:streamGenerateContent?alt=sse"),
        (GOOGLE, GL, "", "tunedModels/m", C, "v9", "https://generativelanguage.googleapis.com/v1beta/tunedModels/m:countTokens"),
        (LOCAL, GL, "", "m", E, "v1alpha", "http://h:2/gl/v1alpha/models/m:embedContent"),
        (GOOGLE, CA, "", "m", G, "v1beta", "https://cloudcode-pa.googleapis.com/v1internal:generateContent"),
        (LOCAL, CA, "", "m", S, "v1beta", "http://h:1/v1internal:streamGenerateContent?alt=sse"),
        (GOOGLE, VX, "global", "m", G, "v1beta", AI + "/v1/projects/p/locations/global/publishers/google/models/m:generateContent"),
        (GOOGLE, VX, "us-central1", "m", S, "v1", "https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations/us-central1/publishers/google/models/m:streamGenerateContent?alt=sse"),
        (GOOGLE, VX, "eu", "m", C, "v1beta1", "https://aiplatform.eu.rep.googleapis.com/v1beta1/projects/p/locations/eu/publishers/google/models/m:countTokens"),
        (LOCAL, VX, "us", "publishers/google/models/m", E, "v1", "http://h:3/v1/projects/p/locations/us/publishers/google/models/m:predict"),
        (GOOGLE, GL, "", "a b?c#d", G, "v1beta", "https://generativelanguage.googleapis.com/v1beta/models/a%20b%3Fc%23d:generateContent"),
    ],
)  # fmt: skip
def test_url(backends, backend, location, model, method, version, url):
    """Complete URLs, `alt=sse` on streams, the account's location and project."""
    account = Account("a", backend, location=location)
    assert backends[backend].url(account, model, method, project="p", version=version) == url


def test_express_mode():
    """Vertex without a project is express mode: no project in the path."""
    url = GOOGLE[VX].url(Account("a", VX), "m", G, project="")
    assert url == AI + "/v1/publishers/google/models/m:generateContent"


@pytest.mark.parametrize("model", ["", "..", "../x", "a//b", "models/", "a/../b", "."])
def test_model_that_leaves_its_place(model):
    """A name that would change the path is no model."""
    for backend in (GL, VX):
        with pytest.raises(PoolError) as caught:
            GOOGLE[backend].url(Account("a", backend), model, G, project="p")
        assert caught.value.code == "unknown_model"


def test_headers():
    """A quota project goes with OAuth on the Developer API only."""
    json_only = {"Content-Type": "application/json"}
    assert GOOGLE[GL].headers(Account("a", GL), project="p") == json_only
    assert GOOGLE[GL].headers(Account("a", GL, credential="oauth"), project="p") == {
        **json_only,
        "x-goog-user-project": "p",
    }
    assert GOOGLE[GL].headers(Account("a", GL, credential="oauth"), project="") == json_only
    assert GOOGLE[CA].headers(Account("a", CA), project="p") == json_only
    assert GOOGLE[VX].headers(Account("a", VX), project="p") == json_only


def test_call_url():
    """Every other method of Code Assist, operations included."""
    assert LOCAL[CA].call_url("loadCodeAssist") == "http://h:1/v1internal:loadCodeAssist"
    assert LOCAL[CA].call_url("/operations/x") == "http://h:1/v1internal/operations/x"
