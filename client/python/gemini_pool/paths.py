"""Where things are: the folders and sockets of the contract, for the client and for the daemon.

Pure functions of an environment, a platform name and a user id, so that every rule is a table test.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import (
        Path,
    )  # who only connects needs no more than `socket_path`, and this import costs milliseconds

APP = "gemini-pool"
GATEWAY_LISTEN = "127.0.0.1:8790"


class Places(NamedTuple):
    """Absolute places of one user's pool."""

    config_dir: Path
    state_dir: Path
    socket: Path

    @property
    def config_file(self) -> Path:
        return self.config_dir / "config.toml"

    @property
    def accounts_file(self) -> Path:
        return self.config_dir / "accounts.toml"

    @property
    def gateway_socket(self) -> Path:
        return self.socket.parent / "gateway.sock"

    @property
    def use_socket(self) -> Path:
        return self.socket.parent / "pool-use.sock"

    @property
    def secrets_dir(self) -> Path:
        return self.state_dir / "secrets"

    @property
    def database(self) -> Path:
        return self.state_dir / "state.db"


def places(env: Mapping[str, str] | None = None, *, platform: str = sys.platform) -> Places:
    """The places for `env` (default: this process's environment). A relative override counts from the cwd.

    An XDG variable that is not an absolute path is ignored, as the XDG base directory specification asks.
    """
    from pathlib import Path

    env = os.environ if env is None else env
    home = Path(env.get("HOME") or Path.home())
    if platform == "darwin":
        base = home / "Library" / "Application Support" / APP
        config, state = base, base / "state"
    else:
        config = _xdg(env, "XDG_CONFIG_HOME", home / ".config") / APP
        state = _xdg(env, "XDG_STATE_HOME", home / ".local" / "state") / APP
    if override := env.get("GEMINI_POOL_CONFIG_DIR"):
        config = Path(override).absolute()
    if override := env.get("GEMINI_POOL_STATE_DIR"):
        state = Path(override).absolute()
    return Places(config, state, Path(socket_path(env, platform=platform)))


def socket_path(env: Mapping[str, str] | None = None, *, platform: str = sys.platform) -> str:
    """The RPC socket alone, without a Path: this runs at the start of every command."""
    env = os.environ if env is None else env
    join = os.path.join
    if override := env.get("GEMINI_POOL_SOCKET"):
        return _from_here(override)
    home = env.get("HOME") or os.path.expanduser("~")
    if platform == "darwin":
        return join(home, "Library", "Application Support", APP, "run", "pool.sock")
    if (runtime := env.get("XDG_RUNTIME_DIR", "")).startswith("/"):
        return join(runtime, APP, "pool.sock")
    state = env.get("XDG_STATE_HOME", "")
    state = join(state if state.startswith("/") else join(home, ".local", "state"), APP)
    if override := env.get("GEMINI_POOL_STATE_DIR"):
        state = _from_here(override)
    return join(state, "run", "pool.sock")


def _from_here(path: str) -> str:
    """An absolute path. The current directory is asked for only where it counts: it may be gone."""
    return path if path.startswith("/") else os.path.join(os.getcwd(), path)


def _xdg(env: Mapping[str, str], name: str, default: Path) -> Path:
    from pathlib import Path

    value = env.get(name, "")
    return Path(value) if value.startswith("/") else default
