"""A restart under load loses nothing, when the sockets are systemd's.

GEMINI_POOL_TEST_RESTARTS and GEMINI_POOL_TEST_RATE (requests a second) make it longer or harder; with
GEMINI_POOL_TEST_STORE=0 systemd holds no open connections, as under a unit of ours from before.
"""

from __future__ import annotations

import importlib.util
import os

import pytest
from tests.systemd.session import run_inside

RESTARTS = int(os.environ.get("GEMINI_POOL_TEST_RESTARTS", "10"))
STORE = os.environ.get("GEMINI_POOL_TEST_STORE", "1")
RATE = float(os.environ.get("GEMINI_POOL_TEST_RATE", "50"))


@pytest.mark.skipif(
    importlib.util.find_spec("google.genai") is None and not os.environ.get("GEMINI_POOL_REQUIRE_SYSTEMD"),
    reason="needs google-genai",
)
def test_ten_restarts_under_load_lose_nothing() -> None:
    """50 requests a second, plain and streaming, streams of up to 9 s, over RPC and the gateway's sockets with kept
    connections, some of which wait in the queue, and leases held meanwhile: ten restarts, and every request has its
    whole answer."""
    names = ("RESTARTS", str(RESTARTS)), ("RATE", str(RATE)), ("STORE", STORE)
    extra = {f"GEMINI_POOL_TEST_{name}": value for name, value in names}
    found = run_inside("under_load", "restarting.py", extra=extra, timeout_s=100 + 30 * RESTARTS)
    print(found)
    assert [code for code, _ in found["restarts"]] == [0] * RESTARTS
    assert found["unit"] == {"ActiveState": "active", "Result": "success", "NRestarts": "0"}
    assert found["lost_count"] == 0, found["lost"]
    assert min(found["done"].values()) > 20 * RESTARTS
    assert found["waited"] > RESTARTS, "some were to wait in the queue"
    if STORE == "1":
        assert len(found["kept"]) >= RESTARTS - 1, "connections were to go on over the restarts"
