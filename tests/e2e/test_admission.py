"""What an account may have under way at once, through the real daemon: the rest waits in the queue and is served in turn."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.fakes.daemon import DaemonProcess, api_key_account, fake_google, key_variable
from tests.fakes.site import ask

from gemini_poold.fake import World

MODEL = "gemini-2.5-flash"
PROMPT = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}
CONFIG = '[gateway]\nlisten = "127.0.0.1:0"\nmax_in_flight_per_account = {most}\n'


def test_no_account_has_more_than_it_may(tmp_path: Path) -> None:
    """Ten streams over two accounts with two each: never more than four at Google, all served; a reload raises it."""
    world = World()
    for name in ("a", "b"):
        world.add_api_key(name)
    world.models[MODEL].pace_s = 0.02
    accounts = "\n".join(map(api_key_account, ("a", "b")))
    with (
        fake_google(world) as google,
        DaemonProcess(tmp_path, fake=google, accounts=accounts, config=CONFIG.format(most=2)) as daemon,
    ):
        port, path = (
            int(daemon.url.rpartition(":")[2]),
            f"/v1beta/models/{MODEL}:streamGenerateContent?alt=sse",
        )

        def stream(_: int) -> str:
            got = ask(port, "POST", path, PROMPT, {"x-goog-api-key": daemon.key})
            assert (got.status, got.cut) == (200, False), got.body
            return got.headers["x-gemini-pool-account"]

        with ThreadPoolExecutor(10) as threads:
            served = list(threads.map(stream, range(10)))
            assert sorted(set(served)) == ["a", "b"]
            assert google.record.peak_in_flight <= 4
            daemon.config_file.write_text(
                daemon.config_file.read_text().replace("per_account = 2", "per_account = 5")
            )
            with daemon.pool() as pool:
                pool.reload()
                google.record.clear()
                list(threads.map(stream, range(10)))
                assert 4 < google.record.peak_in_flight <= 10
                assert pool.status().counters.failed == 0


class Narrow(BaseHTTPRequestHandler):
    """A Google that takes so many requests of a key at once, and calls any more too many."""

    protocol_version = "HTTP/1.1"
    at_once, taken, refused = 4, 0, 0
    lock = threading.Lock()
    answer = json.dumps({"candidates": [{"content": {"parts": [{"text": "hi"}]}, "finishReason": "STOP"}]})
    too_many = json.dumps({
        "error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "Quota exceeded.", "details": [{
            "@type": "type.googleapis.com/google.rpc.QuotaFailure",
            "violations": [{"quotaId": "ConcurrentRequestsPerProjectPerModel"}],
        }]},
    })  # fmt: skip

    def do_POST(self) -> None:  # noqa: N802 - the library's name
        self.rfile.read(int(self.headers["Content-Length"]))
        with Narrow.lock:
            fits = Narrow.taken < Narrow.at_once
            Narrow.taken += fits
            Narrow.refused += not fits
        if fits:
            time.sleep(0.2)
            with Narrow.lock:
                Narrow.taken -= 1
        body = (self.answer if fits else self.too_many).encode()
        self.send_response(200 if fits else 429)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def narrow() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Narrow)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def test_how_many_at_once_is_learnt(tmp_path: Path) -> None:
    """Sixteen at once where four are taken: all are served, and soon sixteen meet no refusal at all."""
    with narrow() as google:
        config = (
            f'[gateway]\nlisten = "127.0.0.1:0"\n[endpoints]\ndeveloper_api = "http://127.0.0.1:{google}"\n'
        )
        accounts, env = api_key_account("a"), {key_variable("a"): "fake-key-a"}
        with DaemonProcess(tmp_path, accounts=accounts, config=config, env=env) as daemon:
            port, path = int(daemon.url.rpartition(":")[2]), f"/v1beta/models/{MODEL}:generateContent"

            def served(_: int) -> int:
                return ask(port, "POST", path, PROMPT, {"x-goog-api-key": daemon.key}).status

            refusals = []
            with ThreadPoolExecutor(16) as threads:
                while not refusals or refusals[-1]:
                    Narrow.refused = 0
                    assert set(threads.map(served, range(16))) == {200}
                    refusals.append(Narrow.refused)
                    assert len(refusals) < 6, refusals
            assert refusals[0] >= 1
            assert "requests at once from now on" in daemon.log
