"""Bodies above the limit through the real daemon: on the disk and never seen there, repeated whole, and not in the memory."""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import os
import random
import stat
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.site import ThreeBackends, three_backends

from gemini_poold.fake import Fault, Match

MIB = 1 << 20
PATIENCE_S = 30.0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThreeBackends]:
    with three_backends(tmp_path_factory.mktemp("large"), keys=("gl", "gl2")) as site:
        yield site


def large(size: int, text: str = "what is it?", **more: Any) -> bytes:
    """A request with a file of `size` bytes in it, spelt as no encoder of ours would."""
    data = base64.b64encode(random.Random(size).randbytes(size)).decode()
    parts = [{"inlineData": {"mimeType": "image/png", "data": data}}, {"text": text}]
    return json.dumps({"contents": [{"role": "user", "parts": parts}], **more}, indent=1).encode()


def spool_of(site: ThreeBackends) -> list[tuple[int, int, str]]:
    """Bodies that the daemon has open on the disk: size, mode, and how the system names them."""
    process = site.daemon.process
    assert process is not None
    found = []
    for entry in Path(f"/proc/{process.pid}/fd").iterdir():
        try:
            name, info = os.readlink(entry), entry.stat()
        except FileNotFoundError:
            continue
        if str(site.daemon.state_dir / "spool") in name:
            found.append((info.st_size, stat.S_IMODE(info.st_mode), name))
    return found


def until(condition: Any) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("method", ["generateContent", "streamGenerateContent"])
@pytest.mark.parametrize("surface", ["gl", "vx"])
def test_it_goes_on_as_it_came(site: ThreeBackends, surface: str, method: str) -> None:
    """Byte for byte to a backend of the same form, with the length that it has."""
    site.fresh()
    body = large(6 * MIB)
    got = site.ask("POST", site.path(surface, method), body, pin=surface)
    assert got.status == 200, got.body
    (call,) = site.google.record.calls
    assert call.body == body
    assert call.headers["Content-Length"] == str(len(body))
    until(lambda: not spool_of(site))


@pytest.mark.parametrize("backend", ["ca", "vx"])
def test_where_it_must_be_decoded_it_is(site: ThreeBackends, backend: str) -> None:
    """For a backend of another form it comes into the memory, and arrives whole."""
    site.fresh()
    body = large(6 * MIB)
    got = site.ask("POST", site.path("gl", "generateContent"), body, pin=backend)
    assert got.status == 200, got.body
    (call,) = site.google.record.calls
    sent = json.loads(call.body)
    asked = json.loads(body)["contents"][0]["parts"]
    assert (sent["request"] if backend == "ca" else sent)["contents"][0]["parts"] == asked


def test_it_is_repeated_elsewhere(site: ThreeBackends) -> None:
    """A refusal and a broken connection before the first byte: the next account gets the same bytes."""
    body = large(6 * MIB)
    with site.daemon.pool() as pool:
        for name in ("ca", "vx"):
            pool.pause(name)
        for fault in (Fault.status(503), Fault.reset_connection("before_headers")):
            site.fresh()
            site.google.faults.add(fault, when=Match(backend="gl"), times=1)
            got = site.ask("POST", site.path("gl", "generateContent"), body)
            assert got.status == 200, got.body
            assert got.headers["x-gemini-pool-attempts"] == "2"
            assert [call.body for call in site.google.record.calls] == [body, body]
            assert len({call.credential for call in site.google.record.calls}) == 2
        for name in ("ca", "vx"):
            pool.resume(name)


@pytest.mark.parametrize("how", ["chunked", "gzip"])
def test_lengths_that_nobody_told(site: ThreeBackends, how: str) -> None:
    """In chunks, or compressed: what goes on is the body, with its length."""
    site.fresh()
    body = large(5 * MIB)
    link = http.client.HTTPConnection("127.0.0.1", site.port, timeout=PATIENCE_S)
    head = {"x-goog-api-key": site.key, "x-gemini-pool-account": "gl"}
    if how == "gzip":
        link.request(
            "POST",
            site.path("gl", "generateContent"),
            gzip.compress(body, 1),
            {**head, "Content-Encoding": "gzip"},
        )
    else:
        pieces = (body[at : at + 100_000] for at in range(0, len(body), 100_000))
        link.request("POST", site.path("gl", "generateContent"), pieces, head, encode_chunked=True)
    assert link.getresponse().status == 200
    link.close()
    (call,) = site.google.record.calls
    assert call.body == body
    assert "Content-Encoding" not in call.headers


def test_nobody_sees_it_and_a_crash_leaves_nothing(tmp_path: Path) -> None:
    """While it waits it is a file of mode 0600 without a name; after `kill -9` it is gone."""
    with three_backends(tmp_path) as site:
        site.fresh()
        site.google.faults.add(Fault.silence(), when=Match(backend="gl"), times=None)
        asking = threading.Thread(
            target=site.ask,
            args=("POST", site.path("gl", "generateContent"), large(8 * MIB)),
            kwargs={"pin": "gl"},
        )
        asking.start()
        until(lambda: any(size > 8 * MIB for size, _, _ in spool_of(site)))
        ((_, mode, name),) = spool_of(site)
        assert mode == 0o600
        assert name.endswith("(deleted)")
        folder = site.daemon.state_dir / "spool"
        assert list(folder.iterdir()) == []
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        site.daemon.kill()
        asking.join(PATIENCE_S)
        assert list(folder.iterdir()) == []
        site.daemon.start()


def test_a_client_that_leaves_gives_the_room_back(site: ThreeBackends) -> None:
    """In the middle of its body, and while it waits for the answer."""
    site.fresh()
    head = {"x-goog-api-key": site.key, "x-gemini-pool-account": "gl", "Content-Length": str(50 * MIB)}
    link = http.client.HTTPConnection("127.0.0.1", site.port, timeout=PATIENCE_S)
    link.request("POST", site.path("gl", "generateContent"), b"x" * (5 * MIB), head)
    until(lambda: spool_of(site))
    link.close()
    until(lambda: not spool_of(site))
    assert b"gemini_pool_gateway_spooled_bytes 0" in site.ask("GET", "/metrics").body
    assert not site.google.record.calls


def test_many_at_once_are_not_in_the_memory(site: ThreeBackends) -> None:
    """Eight of 16 MiB: the most that the daemon ever had grows by less than three of them."""
    site.fresh()
    site.google.faults.add(Fault.delay(0.5), when=Match(backend="gl"), times=None)
    body = large(12 * MIB)  # 16 MiB as base64
    process = site.daemon.process
    assert process is not None

    def most_mib() -> float:
        text = Path(f"/proc/{process.pid}/status").read_text()
        return int(next(line.split()[1] for line in text.splitlines() if line.startswith("VmHWM"))) / 1024

    Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # the peak begins anew: other tests were here
    before = most_mib()
    with ThreadPoolExecutor(8) as threads:
        answers = list(
            threads.map(
                lambda _: site.ask("POST", site.path("gl", "generateContent"), body, pin="gl"), range(8)
            )
        )
    assert {answer.status for answer in answers} == {200}
    assert most_mib() - before < 3 * 16
