"""Local keys: which client a request belongs to. Only digests of the keys are kept.

A key of ours is not one of Google's: it opens this port and nothing else, and it is never forwarded. On the Unix
socket the peer's user id takes its place. Who may speak at all (Host, Origin) is `guards.py`'s.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import socket
import struct
import sys
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import parse_qs

from gemini_pool.errors import PoolError

KEY_HINT = "print the settings for your client with `gemini-pool env`"
_WINDOW_S = 60.0


@dataclass(slots=True)
class LocalClient:
    """A named user of the gateway. `rpm` 0 means no limit, `models` empty means all."""

    name: str
    rpm: int = 0
    models: tuple[str, ...] = ()
    _left: float = field(default=-1.0, repr=False)
    _seen_at: float = field(default=0.0, repr=False)

    def admit(self, now: float) -> None:
        """Count one request; raise `client_over_budget` with the instant at which the next is free.

        A bucket of `rpm` requests that refills evenly over the minute. `now` is monotonic here and Unix there alike:
        only differences count, and a step backwards refills nothing.
        """
        if not self.rpm:
            return
        if self._left < 0:
            self._left = float(self.rpm)
        else:
            refilled = max(0.0, now - self._seen_at) * self.rpm / _WINDOW_S
            self._left = min(float(self.rpm), self._left + refilled)
        self._seen_at = now
        if self._left < 1.0:
            raise PoolError(
                "client_over_budget",
                f"client {self.name} has used its {self.rpm} requests a minute",
                hint="raise rpm of this client in [gateway] clients",
                retry_at=now + (1.0 - self._left) * _WINDOW_S / self.rpm,
            )
        self._left -= 1.0

    def go_on_from(self, before: LocalClient) -> None:
        """The same client under new settings: a raised limit adds what it was raised by, a lowered one takes it away."""
        if self.rpm and before.rpm and before._left >= 0:
            self._left = max(0.0, before._left + self.rpm - before.rpm)
            self._seen_at = before._seen_at

    def check_model(self, model: str) -> None:
        if self.models and not any(fnmatchcase(model, glob) for glob in self.models):
            raise PoolError(
                "forbidden",
                f"client {self.name} may not use {model}",
                hint="see models of this client in [gateway] clients",
            )


SOCKET_CLIENT = LocalClient("socket")


class LocalKeys:
    """The keys that open the loopback port."""

    def __init__(
        self, keys: Iterable[tuple[LocalClient, str]] = (), *, problems: Iterable[PoolError] = ()
    ) -> None:
        """`keys`: clients with their key's text. An empty key opens nothing. `problems`: keys that cannot be read."""
        self.problems = tuple(problems)
        self._digests = [(_digest(key), client) for client, key in keys if key]

    def take_over(self, before: LocalKeys) -> None:
        """A reload: what a client has used of its minute stays used, by name."""
        known = {client.name: client for _, client in before._digests}
        for _, client in self._digests:
            if (old := known.get(client.name)) is not None:
                client.go_on_from(old)

    def client_of(self, presented: str | None) -> LocalClient:
        """The client whose key was presented; every key is compared, each in constant time. Else 401."""
        found: LocalClient | None = None
        if presented:
            digest = _digest(presented)
            for known, client in self._digests:
                if hmac.compare_digest(known, digest):
                    found = client
        if found is None:
            what = "the local key is wrong" if presented else "a local key is needed"
            raise PoolError("unauthenticated", what, hint=KEY_HINT)
        return found


_MOST_HANDED = 256
_HANDED_CLIENT = LocalClient("metadata")


class Handed:
    """Tokens that were handed out, by digest, until they end: each opens the gateway like a local key."""

    def __init__(self) -> None:
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def keep(self, token: str, until: float) -> None:
        digest = _digest(token)
        self._until[digest] = until
        self._until.move_to_end(digest)
        if len(self._until) > _MOST_HANDED:
            self._until.popitem(last=False)

    def client_of(self, presented: str | None, now: float) -> LocalClient | None:
        """The client for a token of ours; every one is compared, each in constant time."""
        if not presented or not self._until:
            return None
        digest, found = _digest(presented), False
        for known, until in self._until.items():
            found |= hmac.compare_digest(known, digest) and until > now
        return _HANDED_CLIENT if found else None


def presented_key(headers: Mapping[str, str], query: str) -> str | None:
    """The key a request shows: `x-goog-api-key`, else a Bearer, else `?key=`. An empty one counts as none."""
    if key := headers.get("x-goog-api-key", "").strip():
        return key
    scheme, _, credentials = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and (key := credentials.strip()):
        return key
    if "key=" in query:
        return next(iter(parse_qs(query).get("key", ())), None)
    return None


def new_key() -> str:
    """A fresh local key. Its prefix tells people, and secret scanners, whose it is."""
    return "gp-" + secrets.token_urlsafe(24)


def peer_is_same_user(transport: Any) -> bool:
    """Whether the other end of a Unix socket is a process of this user."""
    peer = transport.get_extra_info("socket") if transport is not None else None
    return peer is not None and _peer_uid(peer) == os.geteuid()


def _peer_uid(peer: Any) -> int | None:
    try:
        if sys.platform == "darwin":  # struct xucred from LOCAL_PEERCRED: version, uid, …
            return int(struct.unpack_from("=II", peer.getsockopt(0, 1, 76))[1])
        return int(struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1])
    except OSError:
        return None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
