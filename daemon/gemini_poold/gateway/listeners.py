"""Listening sockets: the loopback port and `gateway.sock`, bound here or handed over by systemd.

A socket that cannot be had is told in words and is no reason to stop: the other one goes on.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import PoolError
from ..files import ensure_private_dir

BACKLOG = 1024
_PATH_MAX = 103  # sun_path on macOS; Linux takes 107


class Unavailable(PoolError):
    """An address that we cannot listen on, and what to do about it."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__("internal", message, hint=hint)


def bind_tcp(host: str, port: int) -> socket.socket:
    """A bound TCP socket on the first address of `host`. Raises `Unavailable`."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, kind, proto)
    except OSError as error:
        raise Unavailable(
            f"cannot listen on {host}:{port}: {error.strerror or error}", "check [gateway] listen"
        ) from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise Unavailable(
                f"port {port} on {host} is taken by another program",
                "set another [gateway] listen in config.toml, or port 0 for any; the Unix socket works meanwhile",
            ) from None
        raise Unavailable(
            f"cannot listen on {host}:{port}: {error.strerror}", "check [gateway] listen"
        ) from None
    return sock


def bind_unix(path: Path) -> socket.socket:
    """A bound Unix socket, mode 0600, in a private folder; a dead one in its place is removed. Raises `Unavailable`."""
    if len(os.fsencode(path)) > _PATH_MAX:
        raise Unavailable(f"{path} is too long for a socket", "set a shorter [gateway] socket")
    try:
        ensure_private_dir(path.parent)
        _clear_stale(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(str(path))
            path.chmod(0o600)  # nobody can connect before it listens
        except OSError:
            sock.close()
            raise
    except OSError as error:
        raise Unavailable(
            f"cannot listen on {path}: {error.strerror}", "set another [gateway] socket"
        ) from None
    except Unavailable:
        raise
    except PoolError as error:
        raise Unavailable(f"cannot listen on {path}: {error.message}", error.hint) from None
    return sock


def _clear_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise Unavailable(f"{path} is there and is no socket", f"look at it and remove it: rm {path}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except OSError:
            pass  # full backlog or the like: somebody is there
    raise Unavailable(f"another process serves {path}", "stop it, or set another [gateway] socket")


def address_of(sock: socket.socket) -> tuple[str, int]:
    """Host and port of a TCP socket."""
    host, port = sock.getsockname()[:2]
    return str(host), int(port)


async def serve(sock: socket.socket, factory: Callable[[], asyncio.Protocol]) -> asyncio.Server:
    """Accept on `sock`. The file of a Unix socket is left alone when the server closes: it may be systemd's."""
    loop = asyncio.get_running_loop()
    if sock.family != socket.AF_UNIX:
        return await loop.create_server(factory, sock=sock, backlog=BACKLOG)
    options: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
    return await loop.create_unix_server(factory, sock=sock, backlog=BACKLOG, **options)


def identity(path: Path) -> tuple[int, int] | None:
    """Device and inode, by which our own socket file is known again before it is removed."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def http_log() -> logging.Logger:
    """For aiohttp's own words on requests that are no HTTP: which kind of error, from whom, and nothing that was sent.

    Its tracebacks quote header lines and bodies that it could not read: keys and prompts. Anybody on this machine may
    send nonsense, so that it is no error of ours either.
    """
    logger = logging.getLogger("gemini_pool.gateway.http")
    if not logger.filters:
        logger.addFilter(_without_what_was_sent)
    return logger


def _without_what_was_sent(record: logging.LogRecord) -> bool:
    kind = record.exc_info[0] if record.exc_info else None
    record.msg, record.args = f"{record.getMessage()}: {kind.__name__ if kind else 'closed'}", ()
    record.exc_info = record.exc_text = record.stack_info = None
    record.levelno = min(record.levelno, logging.INFO)
    record.levelname = logging.getLevelName(record.levelno)
    return logging.getLogger(record.name).isEnabledFor(record.levelno)
