"""Who may speak to the loopback port besides knowing a key: the Host and Origin checks, and CORS for allowed origins.

A web page that the user opens can send requests to 127.0.0.1, directly or through a name that it rebinds. The Host
header gives the second away, the Origin header the first. Keys are `auth.py`'s.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import ip_address

from gemini_pool.errors import PoolError

CORS_HEADERS = {
    "Access-Control-Allow-Methods": "GET, POST, PATCH, DELETE, OPTIONS",
    "Access-Control-Allow-Headers": "*, Authorization",
    "Access-Control-Max-Age": "600",
}


class Guards:
    """The checks for one listener. `port` is None on the Unix socket, where a Host says nothing and is not checked."""

    def __init__(self, port: int | None, hosts: Iterable[str], origins: Iterable[str]) -> None:
        self._port = port
        self._hosts = frozenset(host.lower() for host in hosts)
        self._origins = frozenset(origin.lower().rstrip("/") for origin in origins)
        self._allows_host = lru_cache(maxsize=64)(self._judge_host)

    def check(self, host: str | None, origin: str | None) -> None:
        """Raise `forbidden` for a Host that is not ours or an Origin that is not allowed."""
        if self._port is not None and not self._allows_host(host or ""):
            raise PoolError(
                "forbidden",
                "the Host header names neither a loopback address with the gateway's port nor an allowed host",
                hint="add the name to [gateway] allowed_hosts in config.toml",
            )
        if origin is not None and not self.allows_origin(origin):
            raise PoolError(
                "forbidden",
                "requests from web pages are refused",
                hint="add the page's origin to [gateway] allowed_origins in config.toml",
            )

    def allows_origin(self, origin: str) -> bool:
        return origin.lower() in self._origins

    def _judge_host(self, host: str) -> bool:
        name, port = split_host(host)
        if not name:
            return False
        if name in self._hosts or host.lower() in self._hosts:
            return True
        return port == self._port and is_loopback(name)


def split_host(host: str) -> tuple[str, int | None]:
    """`name`, `name:port`, `[v6]` or `[v6]:port` -> name in lower case without brackets, port (80 when none)."""
    name, bracket, rest = host.partition("]")
    if bracket:
        name = name.removeprefix("[")
    else:
        name, colon, after = host.partition(":")
        rest = colon + after
    if not rest:
        return name.lower(), 80
    port = rest.removeprefix(":")
    if not (port.isascii() and port.isdigit()) or len(port) > 5:
        return "", None
    return name.lower(), int(port)


def is_loopback(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
