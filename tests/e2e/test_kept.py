"""What Google keeps for an account, through the real daemon: files, caches, interactions and the rest stay with theirs."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.daemon import DaemonProcess, api_key_account, fake_google

from gemini_poold.fake import FakeGoogle, Fault, Match, World, replies

MODEL = "gemini-2.5-flash"
ACCOUNTS = "\n".join(api_key_account(name) for name in ("a", "b", "c"))
CONFIG = '[gateway]\nlisten = "127.0.0.1:0"\n[selection]\nstrategy = "round-robin"\n'


class Site:
    """A daemon with three keys of three projects, and a plain HTTP client of it."""

    def __init__(self, daemon: DaemonProcess, google: FakeGoogle) -> None:
        self.daemon, self.google = daemon, google

    def ask(
        self, verb: str, path: str, body: Any = None, *, keyed: bool = True, **headers: str
    ) -> tuple[int, Any, dict[str, str]]:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        if keyed:
            more["x-goog-api-key"] = self.daemon.key
        link = http.client.HTTPConnection("127.0.0.1", int(self.daemon.url.rpartition(":")[2]), timeout=20)
        try:
            link.request(verb, path, data, more)
            answer = link.getresponse()
            raw = answer.read()
        finally:
            link.close()
        told = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, json.loads(raw) if "json" in told.get("content-type", "") and raw else raw, told

    def upload(self, data: bytes, **headers: str) -> tuple[dict[str, Any], str]:
        """One whole resumable upload; the file and the account that has it."""
        pinned = {name: value for name, value in headers.items() if name != "Content_Encoding"}
        _, _, told = self.start(**pinned)
        path = told["x-goog-upload-url"].partition(f":{self.port}")[2]
        commands = {"X_Goog_Upload_Command": "upload, finalize", "X_Goog_Upload_Offset": "0"}
        status, value, told = self.ask("POST", path, data, keyed=False, **commands, **headers)
        assert (status, told["x-goog-upload-status"]) == (200, "final")
        return value["file"], told["x-gemini-pool-account"]

    def start(self, **headers: str) -> tuple[int, Any, dict[str, str]]:
        begin = {"X_Goog_Upload_Protocol": "resumable", "X_Goog_Upload_Command": "start"}
        return self.ask("POST", "/upload/v1beta/files", {"file": {"display_name": "x"}}, **begin, **headers)

    @property
    def port(self) -> int:
        return int(self.daemon.url.rpartition(":")[2])


def _world() -> World:
    world = World()
    for name in ("a", "b", "c"):
        world.add_project(f"project-{name}")
        world.add_api_key(name, project=f"project-{name}")
    return world


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("kept")
    with (
        fake_google(_world()) as google,
        DaemonProcess(folder, fake=google, accounts=ACCOUNTS, config=CONFIG) as daemon,
    ):
        yield Site(daemon, google)


def using(file: dict[str, Any]) -> dict[str, Any]:
    parts = [{"fileData": {"fileUri": file["uri"], "mimeType": "text/plain"}}, {"text": "what is it?"}]
    return {"contents": [{"role": "user", "parts": parts}]}


def test_an_upload_in_pieces_goes_to_one_account_and_its_file_is_used_there(site: Site) -> None:
    """Start, a piece, a question, the last piece; then every request that names the file goes to its account."""
    status, _, told = site.start()
    account = told["x-gemini-pool-account"]
    assert (status, told["x-goog-upload-status"]) == (200, "active")
    assert told["x-goog-upload-url"].startswith(f"http://127.0.0.1:{site.port}/upload/v1beta/files?")
    path = told["x-goog-upload-url"].partition(f":{site.port}")[2]
    upload = {"X_Goog_Upload_Command": "upload", "X_Goog_Upload_Offset": "0"}
    assert site.ask("POST", path, b"x" * 1000, keyed=False, **upload)[0] == 200
    _, _, told = site.ask("POST", path, keyed=False, X_Goog_Upload_Command="query")
    assert told["x-goog-upload-size-received"] == "1000"
    last = {"X_Goog_Upload_Command": "upload, finalize", "X_Goog_Upload_Offset": "1000"}
    _, value, told = site.ask("POST", path, b"y" * 10, keyed=False, **last)
    assert told["x-gemini-pool-account"] == account
    file = value["file"]
    assert file["sizeBytes"] == "1010"
    for _ in range(4):
        status, value, told = site.ask("POST", f"/v1beta/models/{MODEL}:generateContent", using(file))
        assert (status, told["x-gemini-pool-account"]) == (200, account), value
    status, data, _ = site.ask("GET", f"/v1beta/{file['name']}:download?alt=media")
    assert (status, data) == (200, b"x" * 1000 + b"y" * 10)


@pytest.mark.parametrize("size", [1000, 6 << 20])
def test_a_whole_upload_goes_elsewhere_when_it_is_refused(site: Site, size: int) -> None:
    """Nobody has any of it yet: the next account gets all of it, from the disk where it is large."""
    site.google.record.clear()
    site.google.faults.add(Fault.status(503), times=1)
    data = b'"fileUri": "files/of-somebody-else"' + b"x" * size
    status, value, told = site.ask("POST", "/upload/v1beta/files", data, X_Goog_Upload_Protocol="raw")
    assert status == 200, value
    assert told["x-gemini-pool-attempts"] == "2"
    assert value["file"]["sizeBytes"] == str(len(data))
    assert [call.body for call in site.google.record.calls] == [data, data]
    assert site.ask("GET", f"/v1beta/{value['file']['name']}:download?alt=media")[1] == data


def test_a_piece_of_an_upload_may_come_compressed(site: Site) -> None:
    """It is undone on the way: what is kept is the file, and its length is the file's."""
    data = b"compress me " * 5000
    file, _ = site.upload(gzip.compress(data), Content_Encoding="gzip")
    assert file["sizeBytes"] == str(len(data))
    assert site.ask("GET", f"/v1beta/{file['name']}:download?alt=media")[1] == data


def test_compressed_answers_go_through_as_they_came(site: Site) -> None:
    """To whoever takes gzip, and only for what is fetched whole; what an answer names is remembered all the same."""
    data = b"a file that is worth packing " * 500
    file, account = site.upload(data)
    path = f"/v1beta/{file['name']}:download?alt=media"
    for accepted, packed in (("gzip, br", True), ("br", False), ("gzip;q=0", False)):
        status, got, told = site.ask("GET", path, Accept_Encoding=accepted)
        assert (status, told.get("content-encoding")) == (200, "gzip" if packed else None)
        assert (gzip.decompress(got) if packed else got) == data
        assert int(told["content-length"]) == len(got)
    status, got, told = site.ask("GET", path, Accept_Encoding="gzip", Range="bytes=2-5")
    assert "content-encoding" not in told
    store = {"displayName": "x" * 600}
    _, made, told = site.ask("POST", "/v1beta/fileSearchStores", store, Accept_Encoding="gzip")
    assert "content-encoding" not in told
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", site.port, timeout=20)) as link:
        link.request(
            "GET",
            f"/v1beta/{made['name']}",
            headers={"x-goog-api-key": site.daemon.key, "Accept-Encoding": "gzip"},
        )
        answer = link.getresponse()
        assert answer.headers["Content-Encoding"] == "gzip"
        assert json.loads(gzip.decompress(answer.read()))["name"] == made["name"]
    site.google.faults.add(Fault.status(404, body=replies.error(404, "no such file " + "x" * 600)), times=1)
    status, got, told = site.ask("GET", f"/v1beta/{file['name']}", Accept_Encoding="gzip")
    assert (status, "content-encoding" in told) == (404, False)
    assert "no such file" in got["error"]["message"]
    assert account


def test_an_address_of_an_upload_opens_nothing_else(site: Site) -> None:
    """The word in it is a key for that upload alone; another word is no key."""
    _, _, told = site.start()
    query = told["x-goog-upload-url"].partition("?")[2]
    assert site.ask("GET", f"/v1beta/files?{query}", keyed=False)[0] == 401
    assert site.ask("POST", "/upload/v1beta/files?gemini_pool_upload=guessed", b"x", keyed=False)[0] == 401


def test_files_are_listed_over_all_accounts_and_deleted_where_they_are(site: Site) -> None:
    """A page after the other over every account; each file once; a deleted one is gone."""
    made = {site.upload(b"data", x_gemini_pool_account=name)[0]["name"]: name for name in ("a", "b", "c")}
    seen, token = [], ""
    for _ in range(30):
        status, value, _ = site.ask("GET", f"/v1beta/files?pageSize=1&pageToken={token}")
        assert status == 200
        seen += [file["name"] for file in value.get("files", [])]
        token = value.get("nextPageToken", "")
        if not token:
            break
    assert set(made) <= set(seen)
    assert len(seen) == len(set(seen))
    assert site.ask("GET", "/v1beta/files?pageSize=many")[0] == 400
    status, value, _ = site.ask("GET", "/v1beta/files", x_gemini_pool_account="nobody")
    assert (status, value["error"]["details"][0]["reason"]) == (404, "NOT_FOUND")
    for name, account in made.items():
        status, _, told = site.ask("DELETE", f"/v1beta/{name}")
        assert (status, told["x-gemini-pool-account"]) == (200, account)
        assert site.ask("GET", f"/v1beta/{name}")[0] == 404


def test_a_cache_pins_and_two_owners_are_refused(site: Site) -> None:
    """A request that names a cache goes to its account; one that also names another's file can go nowhere."""
    body = {
        "model": f"models/{MODEL}",
        "contents": [{"role": "user", "parts": [{"text": "long"}]}],
        "ttl": "300s",
    }
    status, cache, told = site.ask("POST", "/v1beta/cachedContents", body, x_gemini_pool_account="b")
    assert (status, told["x-gemini-pool-account"]) == (200, "b")
    prompt = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}], "cachedContent": cache["name"]}
    for _ in range(3):
        _, _, told = site.ask("POST", f"/v1beta/models/{MODEL}:generateContent", prompt)
        assert told["x-gemini-pool-account"] == "b"
    file, _ = site.upload(b"data", x_gemini_pool_account="c")
    status, value, _ = site.ask(
        "POST", f"/v1beta/models/{MODEL}:generateContent", {**using(file), "cachedContent": cache["name"]}
    )
    assert status == 400
    assert "belongs to account" in value["error"]["message"]
    status, value, _ = site.ask("PATCH", f"/v1beta/{cache['name']}?updateMask=ttl", {"ttl": "600s"})
    assert (status, value["ttl"]) == (200, "600s")
    assert site.ask("DELETE", f"/v1beta/{cache['name']}")[0] == 200


def test_an_interaction_goes_on_where_it_began(site: Site) -> None:
    """The next turn, reading, cancelling and deleting go to the account of the first; a stream's id is remembered, too."""
    first = {"model": MODEL, "input": "hello"}
    status, value, told = site.ask("POST", "/v1beta/interactions", first)
    account = told["x-gemini-pool-account"]
    assert status == 200
    for _ in range(3):
        more = {**first, "previous_interaction_id": value["id"]}
        status, _, told = site.ask("POST", "/v1beta/interactions", more)
        assert (status, told["x-gemini-pool-account"]) == (200, account)
    status, raw, told = site.ask("POST", "/v1beta/interactions", {**first, "stream": True})
    streamed = json.loads(raw.split(b"data: ")[1].split(b"\n")[0])["interaction"]["id"]
    account = told["x-gemini-pool-account"]
    for verb, path in (("GET", ""), ("POST", "/cancel"), ("DELETE", "")):
        status, _, told = site.ask(verb, f"/v1beta/interactions/{streamed}{path}")
        assert (status, told["x-gemini-pool-account"]) == (200, account)
    status, value, _ = site.ask("GET", "/v1beta/interactions/int_unknown")
    assert (status, value["error"]["code"]) == (404, "not_found")


def test_an_interaction_that_breaks_off_never_looks_finished(site: Site) -> None:
    """A stream without its last event ends as a bare error and a broken connection."""
    with pytest.raises(http.client.IncompleteRead) as broken:
        site.ask("POST", "/v1beta/interactions", {"model": MODEL, "input": "[[cut]]", "stream": True})
    assert b'"stream_cut"' in broken.value.partial


def test_the_rest_is_passed_through_and_bound(site: Site) -> None:
    """Batches, stores, agents and operations of a model: made by somebody, asked for at the same."""
    for path, body in (
        (f"/v1beta/models/{MODEL}:batchGenerateContent", {"batch": {}}),
        ("/v1beta/models/veo-3:predictLongRunning", {"instances": []}),
        ("/v1beta/fileSearchStores", {"displayName": "s"}),
        ("/v1beta/agents", {"displayName": "s"}),
    ):
        status, value, told = site.ask("POST", path, body)
        assert status == 200, value
        account = told["x-gemini-pool-account"]
        for _ in range(2):
            status, _, told = site.ask("GET", f"/v1beta/{value['name']}")
            assert (status, told["x-gemini-pool-account"]) == (200, account)


def test_what_is_bound_survives_a_kill_and_a_missing_account_is_named(tmp_path: Path) -> None:
    """kill -9 forgets nothing; a paused or removed account is told by name instead of a riddle of Google's."""
    with (
        fake_google(_world()) as google,
        DaemonProcess(tmp_path, fake=google, accounts=ACCOUNTS, config=CONFIG) as daemon,
    ):
        site = Site(daemon, google)
        file, account = site.upload(b"data")
        daemon.kill()
        daemon.start()
        for _ in range(3):
            status, _, told = site.ask("POST", f"/v1beta/models/{MODEL}:generateContent", using(file))
            assert (status, told["x-gemini-pool-account"]) == (200, account)
        with daemon.pool() as pool:
            pool.pause(account)
        status, value, _ = site.ask("POST", f"/v1beta/models/{MODEL}:generateContent", using(file))
        assert status == 503
        assert (
            value["error"]["message"]
            == f"{file['name']} belongs to account {account}, which is paused (gemini-pool resume)"
        )
        others = "\n".join(api_key_account(name) for name in ("a", "b", "c") if name != account)
        daemon.accounts_file.write_text(others)
        with daemon.pool() as pool:
            pool.reload()
        status, value, _ = site.ask("GET", f"/v1beta/{file['name']}")
        assert status == 404
        assert "no longer in the pool" in value["error"]["message"]


def test_a_resting_account_is_named_with_its_time(site: Site) -> None:
    """What only one account has waits for that account; when that takes too long, it is said who returns, and when."""
    file, account = site.upload(b"data")
    busy = Fault.status(429, body=replies.rate_limited("50s"))
    site.google.on_loop(_added(site.google, busy, account))  # type: ignore[attr-defined]
    path = f"/v1beta/models/{MODEL}:generateContent"
    status, value, told = site.ask("POST", path, using(file), x_gemini_pool_wait_s="0")
    assert status == 429
    assert f"{account} returns first" in value["error"]["message"]
    assert 40 <= int(told["retry-after"]) <= 51


async def _added(google: FakeGoogle, fault: Fault, account: str) -> None:
    google.faults.add(fault, when=Match(credential=account))


def test_a_large_upload_is_not_held_in_memory(site: Site) -> None:
    """50 MB arrive as they were sent, and the daemon's memory does not grow by them."""
    data = bytes(range(256)) * (50 * 4096)
    process = site.daemon.process
    assert process is not None
    status_file = Path(f"/proc/{process.pid}/status")
    if not status_file.exists():
        pytest.skip("no /proc here")
    site.upload(b"warm")
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # the peak is counted anew
    before = _peak(status_file)
    file, _ = site.upload(data)
    assert file["sizeBytes"] == str(len(data))
    thing = site.google.kept.things[file["name"]]
    assert hashlib.sha256(thing.data).digest() == hashlib.sha256(data).digest()
    assert _peak(status_file) - before < 10 << 20


def _peak(status: Path) -> int:
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize(("last", "whole"), [
    ({"content": {"parts": [{"text": "b"}]}, "finishReason": "STOP"}, True), ({"content": {"parts": [{"text": "b"}]}}, False),
])  # fmt: skip
def test_a_tuned_models_stream_without_its_end_is_broken(
    site: Site, last: dict[str, Any], whole: bool
) -> None:
    """What is passed through to a tuned model keeps the promise, too: no clean end without a finish marker."""
    first = {"content": {"parts": [{"text": "a"}]}}
    body = b"".join(
        b"data: " + json.dumps({"candidates": [each]}).encode() + b"\n\n" for each in (first, last)
    )
    fault = Fault.status(200, body=body, content_type="text/event-stream")
    site.google.faults.add(fault, when=Match(path="/v1beta/tunedModels/*"), times=1)
    path = "/v1beta/tunedModels/mine:streamGenerateContent?alt=sse"
    hello = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}
    if whole:
        assert site.ask("POST", path, hello, x_gemini_pool_account="a")[0] == 200
    else:
        with pytest.raises(http.client.IncompleteRead):
            site.ask("POST", path, hello, x_gemini_pool_account="a")
