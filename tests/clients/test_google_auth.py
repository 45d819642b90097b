"""google-auth and plain clients of Google's, unmodified, on a machine whose metadata server is the daemon.

No key and no file: `gemini-pool env metadata` is all that they are given. Tokens go to Google itself (here the fake,
or a server of buckets that looks at them), and open the gateway as well.
"""

from __future__ import annotations

import http.server
import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.clients import installed
from tests.clients.conftest import MODEL, run_client
from tests.fakes.daemon import DaemonProcess, fake_google

from gemini_poold.fake import GENERATION, FakeGoogle, World

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the peer's user is known on Linux only")

LIBRARIES = (
    "google-auth==2.63.0", "requests", "google-api-python-client==2.202.0", "google-cloud-storage==3.17.1",
    "google-genai==3.4.0",
)  # fmt: skip
CONFIG = (
    '[gateway]\nlisten = "127.0.0.1:0"\nmetadata_account = "{whom}"\n[selection]\nstrategy = "round-robin"\n'
)
ACCOUNT = """
[[account]]
id = "{name}"
backend = "vertex"
project = "{project}"
credential = {{ type = "service-account", secret = {{ file = "secrets/{name}.json" }} }}
"""
NAMES = {"robot": "cloud-project", "second": "cloud-project", "stranger": "other-project"}
Program = Callable[..., Any]


@pytest.fixture(scope="session")
def python() -> Path:
    return installed.pip("google", *LIBRARIES) / "python"


def started(folder: Path, google: FakeGoogle, whom: str) -> DaemonProcess:
    accounts = "".join(ACCOUNT.format(name=name, project=project) for name, project in NAMES.items())
    daemon = DaemonProcess(folder, fake=google, accounts=accounts, config=CONFIG.format(whom=whom))
    for name, project in NAMES.items():
        secret = google.world.add_service_account(name, project=project)
        daemon.write_secret(f"{name}.json", json.dumps({**secret, "token_uri": google.world.token_uri}))
    return daemon


class Machine:
    """A daemon that is the metadata server of whoever runs here."""

    def __init__(self, daemon: DaemonProcess, google: FakeGoogle, python: Path, home: Path) -> None:
        self.daemon, self.google = daemon, google
        self._python, self._home = python, home

    def run(self, scenario: str, google_url: str = "") -> Any:
        done = self.daemon.command("env", "metadata", "--format", "json")
        assert done.returncode == 0, done.stderr
        env = {name: value for name, value in json.loads(done.stdout).items() if value is not None}
        program = Path(__file__).with_name("google_program.py")
        line = [self._python, program, scenario, google_url or self.google.url, self.daemon.url, MODEL]
        done = run_client(line, self._home, env)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def machine(request: pytest.FixtureRequest, tmp_path: Path, python: Path) -> Iterator[Machine]:
    """`robot`'s tokens, or those that a test asks for."""
    whom = getattr(request, "param", "robot")
    with fake_google(World()) as google, started(tmp_path, google, whom) as daemon:
        yield Machine(daemon, google, python, tmp_path / "home")


@pytest.mark.parametrize("machine", ["robot", "auto:cloud-project"], indirect=True)
def test_google_auth_and_its_session(machine: Machine) -> None:
    """`google.auth.default()` finds project and token, of one account or of a project's; Google and the gateway take it."""
    found = machine.run("session")
    assert (found["kind"], found["project"]) == ("google.auth.compute_engine.credentials", "cloud-project")
    assert all(text.endswith("you said: hello") for text in found["texts"])
    calls = machine.google.record.find("generate", status=200)
    straight = [call for call in calls if not call.headers["User-Agent"].startswith("gemini-pool/")]
    assert (len(calls), len(straight)) == (3, 2)
    assert {NAMES[call.credential] for call in straight} == {"cloud-project"}


def test_a_client_made_from_a_description(machine: Machine) -> None:
    """google-api-python-client calls Google itself, with a token that it never had to be given."""
    assert machine.run("discovery")["texts"][0].endswith("you said: hello")
    (call,) = machine.google.record.find("generate", status=200)
    assert NAMES[call.credential] == "cloud-project"


def test_cloud_storage(machine: Machine) -> None:
    """A client that has nothing to do with models gets its token here, too."""
    tokens: list[str] = []

    class Buckets(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            tokens.append(self.headers["Authorization"])
            body = json.dumps({"kind": "storage#buckets", "items": [{"name": "mine"}]}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Buckets)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        found = machine.run("storage", f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()
    assert found == {"project": "cloud-project", "buckets": ["mine"]}
    issued = {f"Bearer {token}" for token in machine.google.world.tokens}
    assert len(tokens) == 1
    assert set(tokens) <= issued


def test_google_genai_without_a_key(machine: Machine) -> None:
    """The SDK in its Vertex mode with the machine's credentials, at the gateway: whole and streamed."""
    found = machine.run("genai")
    assert all(text.endswith("you said: hello") for text in found["texts"])
    assert found["chunks"] > 1
    calls = [call for call in machine.google.record.calls if call.kind in GENERATION]
    assert [call.headers["User-Agent"].partition("/")[0] for call in calls] == ["gemini-pool"] * 2
