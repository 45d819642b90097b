"""The border between clients and Google, through the real daemon: no credential crosses it either way, no path leaves its
place, and nothing that a client writes counts against an account."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from tests.fakes.site import SURFACES, Got, ThreeBackends, three_backends

THEIRS = "client-credential-of-their-own"
BODY: dict[str, Any] = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}
UPLOAD = {"X-Goog-Upload-Protocol": "resumable", "X-Goog-Upload-Command": "start"}

CONFIG = """
[gateway]
listen = "127.0.0.1:0"

[[gateway.clients]]
name = "ci"
models = ["gemini-2.5-flash"]
key = { env = "KEY_GL" }
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThreeBackends]:
    with three_backends(tmp_path_factory.mktemp("crossing"), config=CONFIG) as site:
        yield site


def raw(
    site: ThreeBackends, verb: str, target: str, head: dict[str, str], body: bytes = b""
) -> tuple[int, bytes]:
    """One request as it stands, with `Connection: close` of its own."""
    lines = [f"{verb} {target} HTTP/1.1", f"Host: 127.0.0.1:{site.port}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in head.items()]
    with socket.create_connection(("127.0.0.1", site.port), timeout=10) as link:
        link.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        said = b""
        while chunk := link.recv(65536):
            said += chunk
    return int(said[9:12]), said


def asked(site: ThreeBackends) -> str:
    """Everything that Google was asked since the last `fresh`, but for the credentials that are the accounts'."""
    return "\n".join(
        json.dumps([call.method, call.path, dict(call.query), dict(call.headers)])
        + call.body.decode("latin-1")
        for call in site.google.record.calls
    )


def secrets_of(site: ThreeBackends) -> list[str]:
    """What only the daemon and Google know."""
    given = [value for name in ("gl", "ca", "vx") for value in site.credential(name).values()]
    return [value.removeprefix("Bearer ") for value in given]


CALLS = [
    *[("POST", surface, method) for surface in SURFACES for method in ("generateContent", "streamGenerateContent")],
    ("POST", "/v1/chat/completions", ""),
    ("POST", "/upload/v1beta/files", "upload"),
    ("GET", "/v1beta/files", ""),
    ("GET", "/v1beta/files/none", ""),
    ("POST", "/v1beta/interactions", ""),
    ("GET", "/v1beta/models", ""),
]  # fmt: skip


@pytest.mark.parametrize(("verb", "path", "method"), CALLS)
def test_no_credential_crosses(site: ThreeBackends, verb: str, path: str, method: str) -> None:
    """Every place where a client may have a credential of its own, at once; and Google's in no answer."""
    site.fresh()
    body: Any = None
    if verb == "POST":
        body = {"model": site.model, "input": "hello"} if "inter" in path else dict(BODY)
    if path in SURFACES:
        if path == "ca":
            body = {"model": site.model, "request": BODY}
        path = site.path(path, method)
    elif "chat" in path:
        body = {"model": site.model, "messages": [{"role": "user", "content": "hello"}]}
    query = f"?access_token={THEIRS}&oauth_token={THEIRS}&%24httpHeaders=Authorization:{THEIRS}&key={THEIRS}"
    head = {
        "x-goog-api-key": site.key,
        "Authorization": f"Bearer {THEIRS}",
        "Proxy-Authorization": f"Basic {THEIRS}",
        "Cookie": f"SID={THEIRS}",
        "x-api-key": THEIRS,
        "x-goog-user-project": THEIRS,
        "x-goog-iam-authorization-token": THEIRS,
        "X-HTTP-Method-Override": THEIRS,
        "Connection": "close",
    }
    if method == "upload":
        head |= UPLOAD
    status, said = raw(site, verb, path + query, head, json.dumps(body).encode() if body else b"")
    assert status in (200, 404), said
    assert THEIRS not in asked(site)
    assert site.key not in asked(site)
    assert b"set-cookie" not in said.lower()
    for secret in secrets_of(site):
        assert secret.encode() not in said


PLACES = [
    "/v1beta/files/../models/{m}:generateContent",
    "/v1beta/files/%2e%2e/models/{m}:generateContent",
    "/v1beta/files/..%2fmodels%2f{m}:generateContent",
    "/v1beta/files/./x",
    "/v1beta/cachedContents//x",
    "/v1beta/files/x%5c..%5cy",
    "/v1beta/files/x%0d%0aX-Injected:1",
    "/v1beta/models/{m}/../../files",
    "/download/v1beta/../v1beta/files/x:download",
    "/upload/v1beta/../files",
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_no_path_leaves_its_place(site: ThreeBackends, place: str) -> None:
    """What was routed by is what is sent: dots, encoded slashes and line breaks reach nobody."""
    site.fresh()
    for verb in ("GET", "POST"):
        status, said = raw(
            site, verb, place.format(m=site.model), {"x-goog-api-key": site.key, "Connection": "close"}, b"{}"
        )
        assert status in (400, 404, 405), said
    assert not site.google.record.calls


def test_a_name_means_nothing_in_a_url(site: ThreeBackends, caplog: pytest.LogCaptureFixture) -> None:
    """Whose a name is, is asked with the name quoted: no query comes of it, and no broken line of a request."""
    site.fresh()
    head = {"x-goog-api-key": site.key, "Connection": "close"}
    status, said = raw(site, "GET", "/v1beta/models/a%20b/operations/x%3fkey=1%23y", head)
    assert status == 404, said
    assert {call.path for call in site.google.record.calls} == {"/v1beta/models/a b/operations/x?key=1#y"}
    assert not any(call.query for call in site.google.record.calls)
    assert not [record for record in caplog.records if record.name == "aiohttp.server"]


BAD_VERBS = [
    *[(verb, path) for verb in ("TRACE", "OPTIONS", "PATCH") for path in ("/download/v1beta/files/x:download", "/upload/v1beta/files")],
    *[(verb, "/v1beta/files/x") for verb in ("TRACE", "OPTIONS", "PUT")],
]  # fmt: skip


@pytest.mark.parametrize(("verb", "path"), BAD_VERBS)
def test_verbs_that_tell_what_was_sent(site: ThreeBackends, verb: str, path: str) -> None:
    """TRACE would give the account's credential back: it never gets to Google, nor does what nobody needs."""
    site.fresh()
    status, said = raw(site, verb, path, {"x-goog-api-key": site.key, "Connection": "close"})
    assert status in (400, 403, 405), said
    assert not site.google.record.calls


ODD = ["caf\xe9", "\xff"]


@pytest.mark.parametrize("value", ODD)
@pytest.mark.parametrize("name", ["Api-Revision", "X-Vertex-AI-LLM-Request-Type"])
def test_a_header_that_cannot_go_on_counts_against_nobody(site: ThreeBackends, name: str, value: str) -> None:
    """It is the client's fault, told so, and every account serves on."""
    site.fresh()
    head = {"x-goog-api-key": site.key, "Connection": "close", name: value}
    body = json.dumps(BODY).encode()
    for _ in range(3):
        status, said = raw(site, "POST", site.path("gl", "generateContent"), head, body)
        assert status == 400, said
    assert not site.google.record.calls
    served(site)


def test_headers_for_this_hop_stay_here(site: ThreeBackends) -> None:
    """A header that `Connection` names is not passed on."""
    site.fresh()
    head = {"x-goog-api-key": site.key, "Connection": "close, Api-Revision", "Api-Revision": "for-the-hop"}
    assert raw(site, "POST", site.path("gl", "generateContent"), head, json.dumps(BODY).encode())[0] == 200
    assert "for-the-hop" not in asked(site)


@pytest.mark.parametrize("backend", ["gl", "ca", "vx"])
def test_a_session_may_be_called_anything(site: ThreeBackends, backend: str) -> None:
    """Bytes that are no text, too: a name is a name."""
    site.fresh()
    for name in ("x-gemini-pool-session", "x-session-id"):
        head = {
            "x-goog-api-key": site.key,
            "Connection": "close",
            name: "caf\xe9",
            "x-gemini-pool-account": backend,
        }
        status, said = raw(site, "POST", site.path("gl", "generateContent"), head, json.dumps(BODY).encode())
        assert status == 200, said


def test_a_client_uses_its_own_models_alone(site: ThreeBackends) -> None:
    """Of a field that is there twice Google takes the last one: each must be the client's."""
    head = {"x-goog-api-key": site.world.key("gl").key, "Connection": "close"}
    for body, status in (
        (b'{"model":"gemini-2.5-flash","input":"x"}', 200),
        (b'{"model":"gemini-2.5-pro","input":"x"}', 403),
        (b'{"model":"gemini-2.5-flash","input":"x","model":"gemini-2.5-pro"}', 403),
    ):
        assert raw(site, "POST", "/v1beta/interactions", head, body)[0] == status, body


def served(site: ThreeBackends) -> None:
    for backend in ("gl", "ca", "vx"):
        got: Got = site.ask(
            "POST", site.path("gl", "generateContent"), BODY, pin=backend, x_gemini_pool_wait_s="0"
        )
        assert got.status == 200, got.body
