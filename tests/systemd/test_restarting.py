"""A restart under load loses nothing, when the sockets are systemd's."""

from __future__ import annotations

import pytest
from tests.systemd.session import run_inside


def test_ten_restarts_under_load_lose_nothing() -> None:
    """50 requests a second, plain and streaming, streams of up to 9 s, over RPC and the gateway's sockets with kept
    connections: ten restarts, and every request has its whole answer."""
    pytest.importorskip("google.genai")
    found = run_inside("under_load", "restarting.py", timeout_s=400)
    print(found)
    assert [code for code, _ in found["restarts"]] == [0] * 10
    assert found["unit"] == {"ActiveState": "active", "Result": "success", "NRestarts": "0"}
    assert found["lost_count"] == 0, found["lost"]
    assert min(found["done"].values()) > 100
