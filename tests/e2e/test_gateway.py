"""The gateway of the real daemon over all of its rooms: every surface over every backend, and what breaks on the way."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.daemon import DaemonProcess, api_key_account, fake_google

from gemini_poold.fake import FakeGoogle, Fault, Match, Model, World, replies

MODEL = "gemini-2.5-flash"
PROMPT = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}
ACCOUNTS = """
[[account]]
id = "ca"
backend = "code-assist"
credential = { type = "oauth", secret = { file = "secrets/ca.json" } }

[[account]]
id = "vx"
backend = "vertex"
project = "cloud-project"
credential = { type = "service-account", secret = { file = "secrets/vx.json" } }
"""
NAMES = {"gl": "gl", "ca": "alice", "vx": "robot"}  # who answers, in the fake's words
PATHS = {
    "gl": "/v1beta/models/{model}:{method}",
    "vx": "/v1/projects/p/locations/l/publishers/google/models/{model}:{method}",
    "ca": "/v1internal:{method}",
}
PATIENCE_S = 10.0
fresh = itertools.count(1)


class Site:
    """A daemon with an account of each backend, and a plain HTTP client of it."""

    def __init__(self, daemon: DaemonProcess, google: FakeGoogle) -> None:
        self.daemon = daemon
        self.google = google
        self.key = daemon.key
        self.model = MODEL
        self.port = int(daemon.url.rpartition(":")[2])

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)

    def send(
        self, surface: str, method: str, *, query: str = "", body: Any = None, **headers: str
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """One request and its whole answer; an IncompleteRead comes through."""
        connection = self.connect()
        try:
            path = PATHS[surface].format(model=self.model, method=method) + query
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            value = json.dumps(wrapped(surface, method, self.model) if body is None else body)
            connection.request("POST", path, value, {"x-goog-api-key": self.key, **named})
            answer = connection.getresponse()
            return answer, answer.read()
        finally:
            connection.close()


def wrapped(surface: str, method: str, model: str) -> Any:
    """The prompt as a client of this surface writes it."""
    if surface != "ca":
        return PROMPT
    if method == "countTokens":
        return {"request": {"model": f"models/{model}", **PROMPT}}
    return {"model": model, "project": "p", "user_prompt_id": "u", "request": {**PROMPT, "session_id": "s"}}


def unwrapped(surface: str, answer: Any) -> Any:
    return answer["response"] if surface == "ca" else answer


def text_of(surface: str, answers: list[Any]) -> str:
    """The text of an answer's pieces; the last must be finished."""
    pieces = [unwrapped(surface, answer)["candidates"][0] for answer in answers]
    assert pieces[-1]["finishReason"] == "STOP"
    return "".join(part["text"] for piece in pieces for part in piece["content"]["parts"])


def events(body: bytes) -> list[Any]:
    """The events of an SSE body, each in the one form that every client reads."""
    found = [event for event in body.replace(b"\r\n", b"\n").split(b"\n\n") if event]
    assert all(event.startswith(b"data: ") for event in found)
    return [json.loads(event[6:]) for event in found]


@pytest.fixture(scope="module")
def world() -> World:
    made = World()
    made.add_api_key("gl")
    made.add_api_key("spare")
    return made


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, world: World) -> Iterator[Site]:
    alice = world.add_user("alice", projects=["alice-project"])
    robot = world.add_service_account("robot", project="cloud-project")
    accounts = api_key_account("gl") + ACCOUNTS
    with fake_google(world) as google:
        daemon = DaemonProcess(tmp_path_factory.mktemp("gateway"), fake=google, accounts=accounts)
        daemon.write_secret("ca.json", json.dumps(world.authorized_user(alice, world.add_client())))
        daemon.write_secret("vx.json", json.dumps({**robot, "token_uri": world.token_uri}))
        with daemon:
            yield Site(daemon, google)


@pytest.fixture
def site(running: Site) -> Site:
    """The daemon without the last test's faults, and a model that nobody had trouble with yet."""
    running.google.faults.clear()
    running.google.record.clear()
    running.model = f"gemini-fresh-{next(fresh)}"
    # Slow enough that events come one by one: an error in the first packet would still be absorbed.
    running.google.world.models[running.model] = Model(running.model, pace_s=0.01)
    return running


@pytest.mark.parametrize("backend", ["gl", "ca", "vx"])
@pytest.mark.parametrize("surface", ["gl", "ca", "vx"])
class TestEverySurfaceOverEveryBackend:
    """A client's form and an account's backend have nothing to do with each other."""

    def test_whole(self, site: Site, surface: str, backend: str) -> None:
        """generateContent: in the client's form, from the pinned account."""
        answer, body = site.send(surface, "generateContent", x_gemini_pool_account=backend)
        assert answer.status == 200, body
        assert answer.headers["x-gemini-pool-account"] == backend
        text = text_of(surface, [json.loads(body)])
        assert text.startswith(NAMES[backend])
        assert text.endswith("you said: hello")

    def test_sse(self, site: Site, surface: str, backend: str) -> None:
        """streamGenerateContent with alt=sse: `data: ` events, ended by a finish reason."""
        answer, body = site.send(
            surface, "streamGenerateContent", query="?alt=sse", x_gemini_pool_account=backend
        )
        assert answer.status == 200, body
        pieces = events(body)
        assert len(pieces) > 1
        assert text_of(surface, pieces).endswith("you said: hello")

    def test_array(self, site: Site, surface: str, backend: str) -> None:
        """Without alt=sse: one JSON array."""
        answer, body = site.send(surface, "streamGenerateContent", x_gemini_pool_account=backend)
        assert answer.status == 200, body
        assert text_of(surface, json.loads(body)).endswith("you said: hello")

    def test_count(self, site: Site, surface: str, backend: str) -> None:
        """countTokens."""
        answer, body = site.send(surface, "countTokens", x_gemini_pool_account=backend)
        assert answer.status == 200, body
        assert json.loads(body)["totalTokens"] > 0


@pytest.mark.parametrize(
    "fault",
    [
        Fault.status(429, body=replies.rate_limited("1s")),
        Fault.status(503, body=replies.overloaded()),
        Fault.status(500, body="<html>oops</html>"),
        Fault.reset_connection("before_headers"),
        Fault.reset_connection("after_headers"),
        Fault.error_event(0),
        Fault.error_event(0, dress="bare"),
    ],
    ids=lambda fault: fault.name,
)
@pytest.mark.parametrize("surface", ["gl", "ca", "vx"])
def test_what_breaks_before_the_first_byte_is_absorbed(site: Site, surface: str, fault: Fault) -> None:
    """One refusal, whichever it is, on whichever account comes first: the client gets a good stream."""
    rule = site.google.faults.add(fault, when=Match(kind="stream"), times=1)
    answer, body = site.send(surface, "streamGenerateContent", query="?alt=sse")
    assert answer.status == 200, body
    assert text_of(surface, events(body)).endswith("you said: hello")
    assert rule.hits == 1
    assert int(answer.headers["x-gemini-pool-attempts"]) == 2


@pytest.mark.parametrize(
    "fault",
    [
        Fault.cut(2, "rst"),
        Fault.cut(2, "fin"),
        Fault.cut(2, "torn"),
        Fault.cut(2, "clean"),
        Fault.no_finish(),
        Fault.error_event(2),
        Fault.error_event(2, dress="bare"),
    ],
    ids=lambda fault: fault.name,
)
@pytest.mark.parametrize("query", ["?alt=sse", ""], ids=["sse", "array"])
@pytest.mark.parametrize("surface", ["gl", "ca", "vx"])
def test_what_breaks_after_it_never_looks_whole(site: Site, surface: str, query: str, fault: Fault) -> None:
    """Good events, then the bare error object, then no proper end."""
    site.google.faults.add(fault, when=Match(kind="stream"), times=1)
    with pytest.raises(http.client.IncompleteRead) as caught:
        site.send(surface, "streamGenerateContent", query=query)
    body = caught.value.partial
    at = body.rindex(b'{"error":')
    error = json.loads(body[at:])["error"]
    assert error["status"] == "UNAVAILABLE"
    good = body[:at]
    if query:
        assert all("error" not in event for event in events(good))
    else:
        assert all("error" not in event for event in json.loads(good.rstrip(b",\r\n") + b"]"))
    assert b"finishReason" not in good


def test_a_client_that_leaves_stops_google(site: Site) -> None:
    """The disconnect reaches Google at once, and the lease is free."""
    body = {"contents": [{"role": "user", "parts": [{"text": "[[chunks=1000 pace=0.05]] hello"}]}]}
    connection = site.connect()
    connection.request("POST", PATHS["gl"].format(model=site.model, method="streamGenerateContent") + "?alt=sse",
                       json.dumps(body), {"x-goog-api-key": site.key, "x-gemini-pool-account": "gl"})  # fmt: skip
    answer = connection.getresponse()
    assert answer.readline().startswith(b"data: ")
    answer.close()
    connection.close()
    until(lambda: bool((calls := site.google.record.find("stream")) and calls[0].gone))
    with site.daemon.pool() as pool:
        until(lambda: not pool.status().leases)


def test_googles_own_words_for_a_bad_request(site: Site) -> None:
    """A 400 that is the request's fault comes back once, in Google's words, and rotates nothing."""
    answer, body = site.send("gl", "generateContent", body={"contents": [], "nonsense": 1})
    assert answer.status == 400
    assert "nonsense" in json.loads(body)["error"]["message"]
    assert site.google.record.count("generate") == 1
    answer, body = site.send("gl", "streamGenerateContent", body={"contents": [], "nonsense": 1})
    assert answer.status == 400
    assert "nonsense" in json.loads(body)[0]["error"]["message"]


def test_nothing_of_the_client_goes_to_google(site: Site) -> None:
    """Neither its key nor its headers, whatever it sends."""
    answer, _ = site.send(
        "gl", "generateContent", Cookie="fake-cookie", Authorization="Bearer fake-bearer",
        x_goog_user_project="fake-project", x_gemini_api_privileged_user_id="fake-installation",
    )  # fmt: skip
    assert answer.status == 200
    (call,) = site.google.record.find("generate")
    sent = str(dict(call.headers))
    for word in (
        site.key,
        "fake-cookie",
        "fake-bearer",
        "fake-project",
        "fake-installation",
        "x-gemini-pool",
    ):
        assert word not in sent
    assert call.headers["User-Agent"].startswith("gemini-pool/")


def test_models_of_the_pool(site: Site) -> None:
    """Google's own list, asked of the account with a key."""
    connection = site.connect()
    connection.request("GET", "/v1beta/models?pageSize=1000", headers={"x-goog-api-key": site.key})
    listed = json.loads(connection.getresponse().read())["models"]
    connection.close()
    entry = next(model for model in listed if model["name"] == f"models/{MODEL}")
    assert "generateContent" in entry["supportedGenerationMethods"]


def test_probes_and_metrics(site: Site) -> None:
    """The probes are open; the metrics, which name accounts, want the key, and count what happened."""
    connection = site.connect()
    for path, wanted in (
        ("/healthz", b"ok"),
        ("/readyz", b"ready"),
        ("/metrics", b"gemini_pool_account_served_total"),
    ):
        connection.request("GET", path, headers={"x-goog-api-key": site.key} if path == "/metrics" else {})
        answer = connection.getresponse()
        assert answer.status == 200
        assert wanted in answer.read()
    connection.close()


def test_the_unix_socket(site: Site) -> None:
    """`gateway.sock` beside the RPC socket, private, without a key."""
    path = site.daemon.socket.with_name("gateway.sock")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as raw:
        raw.connect(str(path))
        raw.sendall(b"GET /v1beta/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 200 ")


def test_a_taken_port(tmp_path: Path) -> None:
    """The loopback gateway alone is degraded, `status` says so, the socket goes on."""
    with contextlib.closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = f'[gateway]\nlisten = "127.0.0.1:{taken.getsockname()[1]}"\n'
        with DaemonProcess(tmp_path, config=config) as daemon, daemon.pool() as pool:
            status = pool.status()
            assert "taken" in status.gateway_error
            assert status.gateway_url == ""
            assert daemon.socket.with_name("gateway.sock").exists()


def until(holds: Any) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
