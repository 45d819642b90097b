"""What Vertex keeps for an account, through the real daemon: caches, batches, long predictions stay with theirs.

Two service accounts of two projects and two locations take turns; `express` is a key without a project, `key` one of
the Developer API. Clients say a project and location of their own idea.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.fakes.daemon import DaemonProcess, api_key_account, fake_google
from tests.fakes.site import Got, ask

from gemini_poold.fake import FakeGoogle, World

MODEL = "gemini-2.5-flash"
BASE = "/v1beta1/projects/mine/locations/here"
HELLO = [{"role": "user", "parts": [{"text": "hello"}]}]
CACHE = {
    "model": f"projects/mine/locations/here/publishers/google/models/{MODEL}",
    "contents": HELLO,
    "ttl": "600s",
}
CONFIG = """
[gateway]
listen = "127.0.0.1:0"
clients = [{ name = "limited", key = { env = "LIMITED" }, models = ["gemini-3*"] }]
[selection]
strategy = "round-robin"
"""
PLACES = {"one": "global", "two": "europe-west1"}


class Site:
    def __init__(self, daemon: DaemonProcess, google: FakeGoogle) -> None:
        self.daemon, self.google = daemon, google

    def ask(self, verb: str, path: str, body: Any = None, *, key: str = "", **headers: str) -> Got:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        port = int(self.daemon.url.rpartition(":")[2])
        return ask(port, verb, path, body, {"x-goog-api-key": key or self.daemon.key, **named})

    def cache(self, **headers: str) -> tuple[str, str]:
        """A new cache's name, and whose it is."""
        got = self.ask("POST", f"{BASE}/cachedContents", CACHE, **headers)
        assert got.status == 200, got.body
        return got.json["name"], got.headers["x-gemini-pool-account"]

    def use(self, name: str, surface: str = f"{BASE}/publishers/google") -> Got:
        return self.ask(
            "POST", f"{surface}/models/{MODEL}:generateContent", {"contents": HELLO, "cachedContent": name}
        )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    world, accounts = World(), api_key_account("key")
    world.add_api_key("key")
    world.add_api_key("express", express=True)
    files = {}
    for name, location in PLACES.items():
        files[name] = world.add_service_account(name, project=f"project-{name}")
        accounts += f"""
[[account]]
id = "{name}"
backend = "vertex"
project = "project-{name}"
location = "{location}"
credential = {{ type = "service-account", secret = {{ file = "secrets/{name}.json" }} }}
"""
    accounts += """
[[account]]
id = "express"
backend = "vertex"
credential = { type = "api-key", secret = { env = "KEY_EXPRESS" } }
"""
    folder = tmp_path_factory.mktemp("vertex")
    with fake_google(world) as google:
        env = {"LIMITED": "gp-limited"}
        daemon = DaemonProcess(folder, fake=google, accounts=accounts, config=CONFIG, env=env)
        for name, file in files.items():
            daemon.write_secret(f"{name}.json", json.dumps({**file, "token_uri": world.token_uri}))
        with daemon:
            for name in PLACES:  # whose turn it is says nothing while one has no token yet
                daemon.wait_logged(f"account {name}: starting -> ready")
            yield Site(daemon, google)


def test_a_cache_is_made_in_the_accounts_own_place(site: Site) -> None:
    """Project, location and the model's path are the account's, whatever the client says; the accounts take turns."""
    made = dict(site.cache()[::-1] for _ in range(4))
    assert set(made) == set(PLACES)
    for account, name in made.items():
        project = site.google.world.projects[f"project-{account}"]
        assert name.startswith(f"projects/{project.number}/locations/{PLACES[account]}/cachedContents/")


def test_it_is_used_where_it_is(site: Site) -> None:
    """Every request that names it goes to its account, by its full name or the client's idea of one; so does a stream."""
    for account in PLACES:
        name, _ = site.cache(x_gemini_pool_account=account)
        for _ in range(3):
            got = site.use(name)
            assert (got.status, got.headers["x-gemini-pool-account"]) == (200, account)
        short = f"{BASE}/cachedContents/{name.rpartition('/')[2]}"
        for verb, path in (("GET", f"/v1/{name}"), ("GET", short)):
            got = site.ask(verb, path)
            assert (got.status, got.json["name"]) == (200, name)
            assert got.headers["x-gemini-pool-account"] == account
        got = site.ask("PATCH", f"{short}?updateMask=ttl", {"ttl": "900s"})
        assert (got.status, got.headers["x-gemini-pool-account"]) == (200, account)
        assert site.ask("DELETE", short).status == 200
        assert site.ask("GET", short).status == 404


def test_it_survives_a_crash(site: Site) -> None:
    """Whose it is was on the disk before its name reached the client."""
    name, account = site.cache()
    site.daemon.kill()
    site.daemon.start()
    got = site.use(name)
    assert (got.status, got.headers["x-gemini-pool-account"]) == (200, account)


def test_all_accounts_are_listed_and_unknown_ones_found(site: Site) -> None:
    """One list of everything; a cache that was made elsewhere is looked for, and found."""
    made = {site.cache(x_gemini_pool_account=account)[0] for account in PLACES}
    listed = {each["name"] for each in site.ask("GET", f"{BASE}/cachedContents").json["cachedContents"]}
    assert made <= listed
    project = site.google.world.projects["project-two"]
    stranger = f"projects/{project.number}/locations/europe-west1/cachedContents/77"
    thing = next(iter(site.google.vertex_kept.things.values()))
    site.google.vertex_kept.things[stranger] = type(thing)({"name": stranger}, float("inf"))
    got = site.ask("GET", f"{BASE}/cachedContents/77")
    assert (got.json["name"], got.headers["x-gemini-pool-account"]) == (stranger, "two")
    assert site.ask("GET", f"{BASE}/cachedContents/78").json["error"]["status"] == "NOT_FOUND"


def test_no_other_account_may_have_it(site: Site) -> None:
    """A pin to another account, and another family's surface that only other backends could serve, are told why not."""
    name, _ = site.cache(x_gemini_pool_account="one")
    got = site.ask(
        "POST", f"{BASE}/publishers/google/models/{MODEL}:generateContent", {"contents": HELLO, "cachedContent": name},
        x_gemini_pool_account="two",
    )  # fmt: skip
    assert (got.status, "belongs to account one" in got.json["error"]["message"]) == (400, True)


def test_a_key_without_a_project_keeps_nothing(site: Site) -> None:
    """Express mode is left out, and says why where somebody insists."""
    got = site.ask("POST", f"{BASE}/cachedContents", CACHE, x_gemini_pool_account="express")
    assert (got.status, "without a project" in got.json["error"]["message"]) == (400, True)


def test_a_long_prediction_is_asked_after_where_it_runs(site: Site) -> None:
    """An operation goes on with its account, by its name in the body; predictions pass as they come."""
    model = f"{BASE}/publishers/google/models/veo-3"
    for _ in range(3):
        begun = site.ask("POST", f"{model}:predictLongRunning", {"instances": [{"prompt": "a cat"}]})
        account = begun.headers["x-gemini-pool-account"]
        got = site.ask("POST", f"{model}:fetchPredictOperation", {"operationName": begun.json["name"]})
        assert (got.json["done"], got.headers["x-gemini-pool-account"]) == (True, account)
    predict = f"{BASE}/publishers/google/models/gemini-embedding-001:predict"
    got = site.ask("POST", predict, {"instances": [{"content": "x"}]})
    assert got.json["predictions"][0]["embeddings"]["values"]


def test_a_batch_job(site: Site) -> None:
    """Made by one account, asked after and cancelled there."""
    made = site.ask("POST", f"{BASE}/batchPredictionJobs", {"model": CACHE["model"], "displayName": "x"})
    name, account = made.json["name"], made.headers["x-gemini-pool-account"]
    got = site.ask("POST", f"/v1/{name}:cancel", {})
    assert (got.json["state"], got.headers["x-gemini-pool-account"]) == ("JOB_STATE_CANCELLING", account)


def test_a_batch_of_embeddings(site: Site) -> None:
    """Vertex takes them one at a time: the client gets one answer, in order, from whoever has room."""
    one = {"model": "models/gemini-embedding-001", "outputDimensionality": 3}
    texts = ["a", "b", "c", "d", "e", "f"]
    body = {"requests": [{**one, "content": {"parts": [{"text": text}]}} for text in texts]}
    path = "/v1beta/models/gemini-embedding-001:{method}"
    got = site.ask("POST", path.format(method="batchEmbedContents"), body, x_gemini_pool_account="one")
    assert got.status == 200, got.body
    singles = [
        site.ask("POST", path.format(method="embedContent"), each, x_gemini_pool_account="two").json[
            "embedding"
        ]
        for each in body["requests"]
    ]
    assert got.json["embeddings"] == singles
    assert (
        site.ask(
            "POST", path.format(method="batchEmbedContents"), {"requests": 1}, x_gemini_pool_account="one"
        ).status
        == 404
    )


@pytest.mark.parametrize("path", [
    f"{BASE}/cachedContents/../publishers/google/models/{MODEL}:generateContent",
    f"{BASE}/cachedContents/%2e%2e/publishers/google/models/{MODEL}:generateContent",
    f"{BASE}/cachedContents/..%2fpublishers/google/models/{MODEL}:generateContent",
    f"/v1/projects/../locations/../cachedContents/../publishers/google/models/{MODEL}:generateContent",
])  # fmt: skip
def test_no_path_leads_elsewhere(site: Site, path: str) -> None:
    """Steps back in a path lead nobody past the checks of the path that it would end at."""
    got = site.ask("POST", path, {"contents": HELLO}, key="gp-limited", x_gemini_pool_account="one")
    assert got.status in (400, 404)
    assert not [call for call in site.google.record.calls if call.path == path or ".." in call.path]


@pytest.mark.parametrize("body", [
    {"model": MODEL, "input": "x"},
    b'{"mod\\u0065l": "gemini-2.5-flash", "input": "x"}',
    b'{"input": [{"model": "gemini-3-pro"}], "model": "gemini-2.5-flash"}',
    b'{"model": "gemini-3-pro", "model": "gemini-2.5-flash", "input": "x"}',
])  # fmt: skip
def test_a_clients_models_hold_for_what_is_kept(site: Site, body: Any) -> None:
    """The model that Google would read is the one that is checked, however the body is written."""
    got = site.ask("POST", "/v1beta/interactions", body, key="gp-limited")
    assert got.status == 403, got.body
    cache = site.ask("POST", f"{BASE}/cachedContents", CACHE, key="gp-limited")
    assert (cache.status, "may not use" in cache.json["error"]["message"]) == (403, True)
