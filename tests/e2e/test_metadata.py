"""The metadata server of a real daemon: google-auth finds its tokens there, and they open the gateway."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.daemon import DaemonProcess, api_key_account, fake_google

from gemini_poold.fake import FakeGoogle, World

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the peer's user is known on Linux only")

PROJECT = "cloud-project"
CONFIG = '[gateway]\nlisten = "127.0.0.1:0"\nmetadata_account = "{whom}"\n'
FLAVOR = {"Metadata-Flavor": "Google"}
DEFAULT = "/computeMetadata/v1/instance/service-accounts/default/"
CLIENT = """
import json, os, urllib.request
import google.auth, google.auth.compute_engine, google.auth.transport.requests
request = google.auth.transport.requests.Request()
credentials, project = google.auth.default()
credentials.refresh(request)
compute = google.auth.compute_engine.Credentials()
compute.refresh(request)
assert compute.token
url = "http://" + os.environ["GCE_METADATA_HOST"] + f"/v1/projects/{project}/locations/global/publishers/google/models/gemini-2.5-flash:generateContent"
body = json.dumps({"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}).encode()
call = urllib.request.Request(url, body, {"Authorization": "Bearer " + credentials.token, "Content-Type": "application/json"})
answer = json.load(urllib.request.urlopen(call))
print(json.dumps([type(credentials).__module__, project, compute.service_account_email, answer["candidates"][0]["content"]["parts"][0]["text"]]))
"""


def account(name: str, **more: str) -> str:
    lines = [f'id = "{name}"', 'backend = "vertex"', f'project = "{PROJECT}"']
    lines.append(f'credential = {{ type = "service-account", secret = {{ file = "secrets/{name}.json" }} }}')
    return "\n".join(["[[account]]", *lines, *(f"{key} = {value}" for key, value in more.items()), ""])


class Site:
    def __init__(self, daemon: DaemonProcess, google: FakeGoogle) -> None:
        self.daemon, self.google = daemon, google
        self.port = int(daemon.url.rpartition(":")[2])

    def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, str, dict[str, str]]:
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            link.request("GET", path, headers=FLAVOR if headers is None else headers)
            answer = link.getresponse()
            return answer.status, answer.read().decode(), {n.lower(): v for n, v in answer.getheaders()}
        finally:
            link.close()


def started(
    folder: Path, google: FakeGoogle, whom: str, names: tuple[str, ...] = ("robot",)
) -> DaemonProcess:
    accounts = "\n".join([*map(account, names), account("kept", lend="false"), api_key_account("key")])
    daemon = DaemonProcess(folder, fake=google, accounts=accounts, config=CONFIG.format(whom=whom))
    for name in (*names, "kept"):
        daemon.write_secret(
            f"{name}.json", json.dumps(google.world.add_service_account(name, project=PROJECT))
        )
    return daemon


def _world() -> World:
    world = World()
    world.add_project(PROJECT)
    world.add_api_key("key", project=PROJECT)
    return world


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with fake_google(_world()) as google, started(tmp_path_factory.mktemp("md"), google, "robot") as daemon:
        yield Site(daemon, google)


def test_google_auth_finds_a_token_and_it_opens_the_gateway(site: Site) -> None:
    """`google.auth.default()` and its compute credentials, unmodified; then a plain Vertex call with that token."""
    pytest.importorskip("requests")
    place = f"127.0.0.1:{site.port}"
    hidden = ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT", "PYTHONPATH")
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    env |= {
        "GCE_METADATA_HOST": place,
        "GCE_METADATA_IP": place,
        "CLOUDSDK_CONFIG": str(site.daemon.state_dir / "none"),
    }
    done = subprocess.run(
        [sys.executable, "-c", CLIENT], env=env, text=True, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    module, project, email, text = json.loads(done.stdout)
    assert (module, project) == ("google.auth.compute_engine.credentials", PROJECT)
    assert "@" in email or email == "default"
    assert "you said: hello" in text


def test_what_a_machine_would_say_of_itself(site: Site) -> None:
    """Texts, listings and JSON in Google's form, each answer with its flavour; no identity tokens."""
    assert site.get("/", {})[2]["metadata-flavor"] == "Google"
    assert site.get("/computeMetadata/v1/project/project-id")[:2] == (200, PROJECT)
    assert site.get("/computeMetadata/v1/universe/universe-domain")[1] == "googleapis.com"
    assert site.get("/computeMetadata/v1/")[1] == "instance/\nproject/\nuniverse/\n"
    assert site.get(DEFAULT + "scopes")[1] == "https://www.googleapis.com/auth/cloud-platform\n"
    told: Any = json.loads(site.get("/computeMetadata/v1/?recursive=true")[1])
    assert told["project"]["projectId"] == PROJECT
    assert told["instance"]["serviceAccounts"]["default"]["aliases"] == ["default"]
    assert site.get("/computeMetadata/v1/instance/zone?alt=json")[1] == '"projects/0/zones/local"'
    assert site.get(DEFAULT + "identity?audience=x")[0] == 404
    token = json.loads(site.get(DEFAULT + "token")[1])
    assert token["token_type"] == "Bearer"
    assert token["expires_in"] > 300


@pytest.mark.parametrize(
    "headers", [{}, {**FLAVOR, "X-Forwarded-For": "10.0.0.1"}, {"Metadata-Flavor": "other"}]
)
def test_a_browser_or_a_proxy_gets_nothing(site: Site, headers: dict[str, str]) -> None:
    """Without the flavour, or forwarded, there is no token."""
    status, text, _ = site.get(DEFAULT + "token", headers)
    assert status == 403
    assert "access_token" not in text


def test_a_token_of_another_is_no_key(site: Site) -> None:
    """Only what was handed out opens the gateway."""
    assert site.get("/v1beta/models", {"Authorization": "Bearer fake-token"})[0] == 401
    token = json.loads(site.get(DEFAULT + "token")[1])["access_token"]
    assert site.get("/v1beta/models", {"Authorization": f"Bearer {token}"})[0] == 200


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_another_user_gets_nothing(site: Site) -> None:
    """The same request from a process of another user is refused."""
    request = f"GET {DEFAULT}token HTTP/1.0\\r\\nHost: 127.0.0.1:{site.port}\\r\\nMetadata-Flavor: Google\\r\\n\\r\\n"
    script = f"exec 3<>/dev/tcp/127.0.0.1/{site.port}; printf '{request}' >&3; cat <&3"
    for user, expected in ((65534, "403"), (0, "200")):
        done = subprocess.run(
            ["/bin/bash", "-c", script],
            user=user,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
        assert done.stdout.split()[1] == expected
        assert ("access_token" in done.stdout) is (expected == "200")


@pytest.mark.parametrize(("whom", "status"), [("", 404), ("kept", 404)])
def test_only_accounts_that_lend(tmp_path: Path, whom: str, status: int) -> None:
    """Off by default; an account that does not lend gives no token."""
    with fake_google(_world()) as google, started(tmp_path, google, whom) as daemon:
        answer = Site(daemon, google).get(DEFAULT + "token")
        assert answer[0] == status
        assert "access_token" not in answer[1]


def test_a_project_takes_turns(tmp_path: Path) -> None:
    """`auto:PROJECT`: the project's accounts in turn, told as short-lived, so that SDKs ask before each request."""
    with (
        fake_google(_world()) as google,
        started(tmp_path, google, f"auto:{PROJECT}", ("one", "two")) as daemon,
    ):
        site = Site(daemon, google)
        answers = [site.get(DEFAULT + "token") for _ in range(4)]
        assert {told["x-gemini-pool-account"] for _, _, told in answers} == {"one", "two"}
        assert all(json.loads(text)["expires_in"] <= 60 for _, text, _ in answers)
        assert site.get("/computeMetadata/v1/project/project-id")[1] == PROJECT


def test_an_account_that_is_not_there_is_told_when_the_files_are_read(tmp_path: Path) -> None:
    """In the log at the start, by the doctor, and by a reload until it is mended; not only to whoever asks for a token."""
    with fake_google(_world()) as google, started(tmp_path, google, "robto") as daemon:
        words = "[gateway] metadata_account: there is no account 'robto'"
        assert words in daemon.log
        told = daemon.command("reload")
        assert (told.returncode, words in told.stderr) == (0, True)
        assert words in daemon.command("doctor").stdout
        assert words in daemon.command("config", "check").stderr
        daemon.config_file.write_text(daemon.config_file.read_text().replace("robto", "robot"))
        told = daemon.command("reload")
        assert (told.returncode, told.stderr) == (0, "")
