"""Host and Origin checks."""

import pytest

from gemini_pool.errors import PoolError
from gemini_poold.gateway.guards import Guards

GUARDS = Guards(8790, ["host.docker.internal", "sandbox:9000"], ["http://localhost:3000"])


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8790",
        "localhost:8790",
        "LOCALHOST:8790",
        "[::1]:8790",
        "127.0.0.53:8790",
        "host.docker.internal:8790",
        "host.docker.internal",
        "sandbox:9000",
    ],
)
def test_our_names_pass(host):
    """Loopback names with our port, and allowed names."""
    GUARDS.check(host, None)


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "localhost",
        "127.0.0.1:8791",
        "evil.example:8790",
        "localhost.evil.example:8790",
        "127.0.0.1.evil.example:8790",
        "sandbox:8790",
        "[::1]",
        "[::2]:8790",
        "localhost:8790:8790",
        "localhost:",
        "localhost:٨٧٩٠",
        "10.0.0.1:8790",
    ],
)
def test_other_names_are_refused(host):
    """Names that a page could have rebound to loopback, wrong ports, and no name at all."""
    with pytest.raises(PoolError) as caught:
        GUARDS.check(host, None)
    assert caught.value.code == "forbidden"
    assert "allowed_hosts" in caught.value.hint


def test_the_socket_ignores_hosts():
    """On the Unix socket a Host says nothing."""
    Guards(None, [], []).check("anything", None)


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "", "http://localhost:3001", "file://"])
def test_foreign_origins_are_refused(origin):
    """A web page may not speak to us unless its origin is allowed."""
    with pytest.raises(PoolError) as caught:
        GUARDS.check("127.0.0.1:8790", origin)
    assert "allowed_origins" in caught.value.hint


def test_an_allowed_origin_passes():
    """The origin that the user named."""
    GUARDS.check("127.0.0.1:8790", "http://localhost:3000")
