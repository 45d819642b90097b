"""Finding the daemon: which socket, how long to try, and what to tell when nobody is there. Used by both faces."""

from __future__ import annotations

import errno
import os
import sys

from gemini_pool import paths, wire
from gemini_pool.errors import NotRunning, PoolError

CONNECT_S = 2.0  # a daemon that is being restarted is back by then
RETRY_S = 0.05
REPEATS = 3  # of a call that a stopping daemon refused: its successor may be stopped in turn
UNIT = "gemini-pool.service"

# Nobody listens (yet): worth another try. Anything else will not get better by waiting.
ABSENT = frozenset({errno.ENOENT, errno.ECONNREFUSED, errno.EAGAIN, errno.ECONNRESET})

_UNIT_FOLDERS = (
    "/etc/systemd/user",
    "/usr/local/lib/systemd/user",
    "/usr/lib/systemd/user",
    "/lib/systemd/user",
)


def socket_path(socket: str | os.PathLike[str] | None = None) -> str:
    """The socket to connect to: as given, else the contract's place for this environment."""
    return os.fspath(socket) if socket is not None else paths.socket_path()


def greeting(name: str) -> wire.InitializeParams:
    """How this program introduces itself; the name is shown in status."""
    name = name or os.path.basename(sys.argv[0] if sys.argv else "") or "python"
    return wire.InitializeParams(client=wire.ClientInfo(name=name, version=wire.VERSION))


def failure(error: OSError, path: str) -> PoolError:
    """What to raise when the connection could not be made."""
    if error.errno in ABSENT:
        return NotRunning(f"no daemon answers at {path}", hint=start_hint())
    if error.errno in (errno.EACCES, errno.EPERM):
        return NotRunning(
            f"{path} may not be opened: {error.strerror}",
            hint="the socket belongs to another user; start your own daemon: `gemini-pool run`",
        )
    return NotRunning(f"{path} cannot be reached: {error}", hint=start_hint())


def start_hint() -> str:
    """The command that starts the daemon here."""
    if sys.platform == "linux" and _unit_installed():
        return "start it with `systemctl --user start gemini-pool`"
    return "start it with `gemini-pool run`, or try `gemini-pool demo`"


def wants_autostart(given: bool | None) -> bool:
    """Whether this program may start the daemon: as given, else by GEMINI_POOL_AUTOSTART=1; not by default."""
    return os.environ.get("GEMINI_POOL_AUTOSTART", "") in ("1", "true", "yes") if given is None else given


def start_daemon(path: str) -> bool:
    """Start a daemon that serves `path` and outlives this process; whether one was started.

    None is where a service manager has the daemon, or only the client is installed. Of two clients that do this at once
    one daemon remains: the other finds the socket's lock taken, and ends.
    """
    import importlib.util
    import subprocess

    if _managed() or importlib.util.find_spec("gemini_poold") is None:
        return False
    command = [sys.executable, "-P", "-m", "gemini_poold", "run"]
    env = {**os.environ, "GEMINI_POOL_SOCKET": path}
    # Through a shell that ends at once, so that the daemon is init's child: no zombie of ours, no signal of our terminal.
    detach = ["/bin/sh", "-c", '"$@" </dev/null >/dev/null 2>&1 &', "sh", *command]
    return subprocess.run(detach, env=env, start_new_session=True, check=False).returncode == 0


def _managed() -> bool:
    from pathlib import Path

    if sys.platform == "darwin":
        return any((Path.home() / "Library/LaunchAgents").glob("*gemini-pool*.plist"))
    return _unit_installed()


def _unit_installed() -> bool:
    from pathlib import Path

    home = Path.home()
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    folders = (config / "systemd/user", data / "systemd/user", *map(Path, _UNIT_FOLDERS))
    return any((folder / UNIT).exists() for folder in folders)
