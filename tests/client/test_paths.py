"""Where things are, by environment and platform: a table."""

from pathlib import Path

import pytest

from gemini_pool.paths import places

HOME = {"HOME": "/home/u"}


@pytest.mark.parametrize(
    ("env", "platform", "config", "state", "socket"),
    [
        (HOME, "linux", "/home/u/.config/gemini-pool", "/home/u/.local/state/gemini-pool",
         "/home/u/.local/state/gemini-pool/run/pool.sock"),
        ({**HOME, "XDG_RUNTIME_DIR": "/run/user/7", "XDG_CONFIG_HOME": "/c", "XDG_STATE_HOME": "/s"}, "linux",
         "/c/gemini-pool", "/s/gemini-pool", "/run/user/7/gemini-pool/pool.sock"),
        ({**HOME, "XDG_RUNTIME_DIR": "run", "XDG_CONFIG_HOME": "c", "XDG_STATE_HOME": ""}, "linux",
         "/home/u/.config/gemini-pool", "/home/u/.local/state/gemini-pool",
         "/home/u/.local/state/gemini-pool/run/pool.sock"),
        ({**HOME, "XDG_RUNTIME_DIR": "/run/user/7"}, "darwin", "/home/u/Library/Application Support/gemini-pool",
         "/home/u/Library/Application Support/gemini-pool/state",
         "/home/u/Library/Application Support/gemini-pool/run/pool.sock"),
        ({**HOME, "GEMINI_POOL_CONFIG_DIR": "/a", "GEMINI_POOL_STATE_DIR": "/b", "GEMINI_POOL_SOCKET": "/d/x.sock"}, "darwin",
         "/a", "/b", "/d/x.sock"),
        ({**HOME, "GEMINI_POOL_STATE_DIR": "/b"}, "linux", "/home/u/.config/gemini-pool", "/b", "/b/run/pool.sock"),
    ],
)  # fmt: skip
def test_places(env, platform, config, state, socket):
    """The contract's table: defaults, XDG variables that are absolute, our own overrides."""
    found = places(env, platform=platform)
    assert (found.config_dir, found.state_dir, found.socket) == (Path(config), Path(state), Path(socket))


def test_what_lies_beside():
    """Files and sockets that have their place by others."""
    found = places({**HOME, "XDG_RUNTIME_DIR": "/run/user/7"}, platform="linux")
    assert found.config_file == found.config_dir / "config.toml"
    assert found.accounts_file == found.config_dir / "accounts.toml"
    assert found.gateway_socket == Path("/run/user/7/gemini-pool/gateway.sock")
    assert found.use_socket == Path("/run/user/7/gemini-pool/pool-use.sock")
    assert found.secrets_dir.parent == found.database.parent == found.state_dir


def test_relative_overrides_count_from_here():
    """An override that is not absolute is one all the same, from the current folder."""
    found = places({**HOME, "GEMINI_POOL_SOCKET": "x.sock"}, platform="linux")
    assert found.socket == Path.cwd() / "x.sock"
