"""What an account may have under way at once, through the real daemon: the rest waits in the queue and is served in turn."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fakes.daemon import DaemonProcess, api_key_account, fake_google
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
