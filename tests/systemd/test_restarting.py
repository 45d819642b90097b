"""A restart under load loses nothing, when the sockets are systemd's.

GEMINI_POOL_TEST_RESTARTS and GEMINI_POOL_TEST_RATE (requests a second) make it longer or harder.
"""

from __future__ import annotations

import importlib.util
import os

import pytest
from tests.systemd.session import run_inside

RESTARTS = int(os.environ.get("GEMINI_POOL_TEST_RESTARTS", "10"))
RATE = float(os.environ.get("GEMINI_POOL_TEST_RATE", "50"))


@pytest.mark.skipif(
    importlib.util.find_spec("google.genai") is None and not os.environ.get("GEMINI_POOL_REQUIRE_SYSTEMD"),
    reason="needs google-genai",
)
def test_ten_restarts_under_load_lose_nothing() -> None:
    """50 requests a second, plain and streaming, streams of up to 9 s, over RPC and the gateway's sockets with kept
    connections, and leases held meanwhile: ten restarts, and every request has its whole answer."""
    extra = {"GEMINI_POOL_TEST_RESTARTS": str(RESTARTS), "GEMINI_POOL_TEST_RATE": str(RATE)}
    found = run_inside("under_load", "restarting.py", extra=extra, timeout_s=100 + 30 * RESTARTS)
    print(found)
    assert [code for code, _ in found["restarts"]] == [0] * RESTARTS
    assert found["unit"] == {"ActiveState": "active", "Result": "success", "NRestarts": "0"}
    assert found["lost_count"] == 0, found["lost"]
    assert min(found["done"].values()) > 20 * RESTARTS
    assert len(found["kept"]) >= RESTARTS - 1, "connections were to go on over the restarts"
