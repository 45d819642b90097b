"""The real daemon with one account of each backend over one fake Google, for tests that compare surfaces and backends.

    with three_backends(folder) as site:
        site.ask("POST", site.path("gl", "generateContent"), body, pin="vx")

`straight` asks the fake itself, with the credential that the pinned account has.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gemini_poold.fake import FakeGoogle, Model, World

from .daemon import DaemonProcess, api_key_account, fake_google

SURFACES = BACKENDS = ("gl", "ca", "vx")
PROJECTS = {"gl": "gl-project", "ca": "alice-project", "vx": "cloud-project"}
PATHS = {
    "gl": "/v1beta/models/{model}:{method}",
    "vx": "/v1/projects/p/locations/l/publishers/google/models/{model}:{method}",
    "ca": "/v1internal:{method}",
}
GOOGLES = {
    **PATHS,
    "vx": "/v1/projects/cloud-project/locations/global/publishers/google/models/{model}:{method}",
}
PATIENCE_S = 10.0
_ACCOUNTS = """
[[account]]
id = "ca"
backend = "code-assist"
project = "alice-project"
credential = { type = "oauth", secret = { file = "secrets/ca.json" } }

[[account]]
id = "vx"
backend = "vertex"
project = "cloud-project"
credential = { type = "service-account", secret = { file = "secrets/vx.json" } }
"""
_fresh = itertools.count(1)


@dataclass
class Got:
    """What a client saw. `cut`: the connection broke in the answer. `chunks`: HTTP chunks, where there were any."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: bool = False

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The events of an SSE body, each in the one form that every client reads; a bare error at the end left out."""
        found = [event for event in self.body.replace(b"\r\n", b"\n").split(b"\n\n") if event.strip()]
        return [
            json.loads(event[6:])
            for event in found
            if event.startswith(b"data: ") and event != b"data: [DONE]"
        ]


class ThreeBackends:
    def __init__(self, daemon: DaemonProcess, google: FakeGoogle) -> None:
        self.daemon = daemon
        self.google = google
        self.world: World = google.world
        self.key = daemon.key
        self.port = int(daemon.url.rpartition(":")[2])
        self.model = ""
        self.fresh()

    def fresh(self, **shape: Any) -> str:
        """A model that nobody had trouble with yet; no fault is left."""
        self.google.faults.clear()
        self.google.record.clear()
        self.model = f"gemini-fresh-{next(_fresh)}"
        self.world.models[self.model] = Model(self.model, **shape)
        return self.model

    def path(self, surface: str, method: str, model: str = "") -> str:
        return PATHS[surface].format(model=model or self.model, method=method)

    def ask(self, verb: str, path: str, body: Any = None, *, pin: str = "", **headers: str) -> Got:
        """One request to the gateway. `body`: bytes as they are, anything else as JSON."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if pin:
            named["x-gemini-pool-account"] = pin
        return ask(self.port, verb, path, body, {"x-goog-api-key": self.key, **named})

    def straight(self, backend: str, method: str, body: Any, *, query: str = "", **headers: str) -> Got:
        """The same asked of the fake itself as the account `backend`."""
        path = GOOGLES[backend].format(model=self.model, method=method) + query
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return ask(self.google.port, "POST", path, body, {**self.credential(backend), **named})

    def credential(self, backend: str) -> dict[str, str]:
        if backend == "gl":
            return {"x-goog-api-key": self.world.key("gl").key}
        caller = self.world.users["alice"] if backend == "ca" else self.world.service_account("robot")
        return {"Authorization": f"Bearer {self.world.issue(caller).token}"}


def ask(port: int, verb: str, path: str, body: Any, headers: Mapping[str, str]) -> Got:
    """One request over a connection of its own; a broken answer is told by `cut`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    sent = dict(headers)
    if raw is not None and not any(name.lower() == "content-type" for name in sent):
        sent["Content-Type"] = "application/json"
    try:
        connection.request(verb, path, raw, sent)
        answer = connection.getresponse()
        try:
            return Got(answer.status, answer.headers, answer.read())
        except http.client.IncompleteRead as broken:
            return Got(answer.status, answer.headers, broken.partial, cut=True)
        except ConnectionError:
            return Got(answer.status, answer.headers, b"", cut=True)
    except (ConnectionError, http.client.RemoteDisconnected):
        return Got(0, cut=True)
    finally:
        connection.close()


@contextlib.contextmanager
def three_backends(
    folder: Path, *, config: str = "", keys: tuple[str, ...] = ("gl",)
) -> Iterator[ThreeBackends]:
    """Accounts `gl` (and more `keys`), `ca` and `vx`, warm when this begins. `config`: more of config.toml."""
    world = World()
    for name in keys:
        world.add_api_key(name)
    alice = world.add_user("alice", projects=["alice-project"])
    robot = world.add_service_account("robot", project="cloud-project")
    accounts = "\n".join(map(api_key_account, keys)) + _ACCOUNTS
    with fake_google(world) as google:
        daemon = DaemonProcess(folder, fake=google, accounts=accounts, config=config)
        daemon.write_secret("ca.json", json.dumps(world.authorized_user(alice, world.add_client())))
        daemon.write_secret("vx.json", json.dumps({**robot, "token_uri": world.token_uri}))
        with daemon:
            site = ThreeBackends(daemon, google)
            for backend in BACKENDS:  # tokens and set-up are on their way: the first request waits for them
                site.ask(
                    "POST",
                    site.path("gl", "countTokens"),
                    {"contents": [{"role": "user", "parts": [{"text": "x"}]}]},
                    pin=backend,
                )
            yield site
