"""Bodies that are no UTF-8, on every surface for every backend: a 400 in the surface's form, and never a failure inside."""

from collections.abc import Iterator

import pytest
from tests.fakes.site import BACKENDS, SURFACES, ThreeBackends, three_backends

from gemini_poold.backends import build
from gemini_poold.backends.candidates import Candidates, asked
from gemini_poold.backends.translate import unwrapped, wrapped
from gemini_poold.config import Endpoints
from gemini_poold.core import model as core

INNER = b'{"contents":[{"role":"user","parts":[{"text":"hel\xfflo"}]}]}'
KEY_OF_ONE = b'{"contents":[{"role":"user","parts":[{"te\xffxt":"hello"}]}]}'
AT_THE_TOP = b'{"conten\xffts":[]}'
BODIES = {"text": INNER, "key": KEY_OF_ONE, "top": AT_THE_TOP}
METHODS = ("generateContent", "streamGenerateContent", "countTokens")
OPENAI = (
    ("/v1/chat/completions", b'{"model":"%s","messages":[{"role":"user","content":"h\xff"}]}'),
    ("/v1/responses", b'{"model":"%s","input":"h\xff"}'),
    ("/v1/embeddings", b'{"model":"%s","input":"h\xff"}'),
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThreeBackends]:
    config = (
        "[models.thinking]\n'*' = { thinkingLevel = 'LOW' }\n[models.aliases]\nanother = 'gemini-2.5-flash'\n"
    )
    with three_backends(tmp_path_factory.mktemp("utf8"), config=config) as site:
        yield site


def refused(site: ThreeBackends, path: str, body: bytes, pin: str = "") -> dict:
    got = site.ask("POST", path, body, pin=pin)
    assert got.status == 400, (path, got.status, got.body)
    value = got.json[0] if isinstance(got.json, list) else got.json
    assert value["error"]["message"]
    assert "inside" not in value["error"]["message"]
    return value["error"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("surface", SURFACES)
def test_generating(site: ThreeBackends, surface: str, method: str, backend: str) -> None:
    """In a text, in a field's name, and where the model stands."""
    site.fresh()
    for body in BODIES.values():
        if surface == "ca":
            body = b'{"model":"%s","request":%s}' % (site.model.encode(), body)
        refused(site, site.path(surface, method), body, backend)
    if surface == "ca":
        refused(site, site.path(surface, method), b'{"model":"gem\xffini","request":{}}', backend)


@pytest.mark.parametrize("surface", ["gl", "vx"])
def test_a_body_that_is_renamed(site: ThreeBackends, surface: str) -> None:
    """An alias changes the model, so that a body which names it is decoded."""
    for method in ("countTokens", "embedContent"):
        refused(site, site.path(surface, method, "another"), b'{"model":"models/another","x":"\xff"}')


@pytest.mark.parametrize("path", ["/v1internal:loadCodeAssist", "/v1internal:onboardUser"])
def test_set_up_calls(site: ThreeBackends, path: str) -> None:
    """Those that the gateway answers itself."""
    refused(site, path, b'{"cloudaicompanionProject":"\xff"}')


@pytest.mark.parametrize(("path", "body"), OPENAI)
def test_the_other_family(site: ThreeBackends, path: str, body: bytes) -> None:
    """OpenAI's calls, in OpenAI's form of an error."""
    assert refused(site, path, body % b"gemini-2.5-flash")["type"] == "invalid_request_error"


@pytest.mark.parametrize("path", ["/v1beta/cachedContents", "/v1beta/interactions"])
def test_what_is_kept(site: ThreeBackends, path: str) -> None:
    """What passes through undecoded is Google's to refuse."""
    refused(site, path, b'{"model":"models/gemini-2.5-flash","displayName":"\xff","input":"\xff"}')


@pytest.mark.parametrize("backend", build(Endpoints()).values(), ids=lambda b: b.form)
def test_answers_of_googles(backend: object) -> None:
    """An answer that is no UTF-8 is no JSON: said as such by the reader, and never a surprise to a translation."""
    text = b'{"candidates":[{"content":{"parts":[{"text":"\xff"}]},"finishReason":"\xff"}],"traceId":"\xff","responseId":"\xff"}'
    for payload in (text, b'{"response":%s,"traceId":"\xff"}' % text, b'{"predictions":[{"embed\xff":1}]}'):
        try:
            backend.read(payload)  # type: ignore[attr-defined]
        except ValueError as error:
            assert "JSON" in str(error)
        unwrapped(payload)
        wrapped(payload)
        Candidates(2).take(payload)
        assert asked(b'{"candidateCount":2,"generationConfig":{"\xff":1}}') == 1
        account = core.Account("a", backend.name)  # type: ignore[attr-defined]
        backend.classify(500, {}, payload, model="m", now=0.0, account=account)  # type: ignore[attr-defined]


def test_the_daemon_goes_on(site: ThreeBackends) -> None:
    """After all of it a request is served, and nothing went wrong inside."""
    site.fresh()
    body = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}
    assert site.ask("POST", site.path("gl", "generateContent"), body).status == 200
    assert "failed inside" not in site.daemon.log
