"""The settings of `gemini-pool env`: where the key is found, and what is said when it is not."""

import pytest

from gemini_pool import environment, wire
from gemini_pool.errors import PoolError


def info(tmp_path, **changes) -> wire.DaemonInfo:
    fields = {
        "version": "", "protocol": 1, "pid": 1, "python": "", "started_at": 0.0, "uptime_s": 0.0,
        "config_file": str(tmp_path / "config.toml"), "accounts_file": "", "state_dir": str(tmp_path / "state"),
        "socket": "", "gateway_socket": "", "gateway_url": "http://127.0.0.1:1/", "gateway_error": "", "supervised": "",
    }  # fmt: skip
    return wire.DaemonInfo(**{**fields, **changes})


def test_the_default_key(tmp_path):
    """Without a word in the configuration the key is in the state folder."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "gateway.key").write_text("k1\n")
    assert environment.local_key(info(tmp_path)) == "k1"
    (tmp_path / "config.toml").write_text("[gateway]\nlisten = '127.0.0.1:1'\n")
    assert environment.local_key(info(tmp_path)) == "k1"


def test_keys_elsewhere(tmp_path, monkeypatch):
    """A file or variable of the configuration's is read; other places are named, not guessed."""
    (tmp_path / "key").write_text("k2")
    (tmp_path / "config.toml").write_text(f"[gateway]\nkey = {{ file = '{tmp_path}/key' }}\n")
    assert environment.local_key(info(tmp_path)) == "k2"
    (tmp_path / "config.toml").write_text("[gateway]\nkey = { env = 'POOL_KEY' }\n")
    monkeypatch.setenv("POOL_KEY", "k3")
    assert environment.local_key(info(tmp_path)) == "k3"
    (tmp_path / "config.toml").write_text("[gateway]\nkey = { keyring = 'a/b' }\n")
    with pytest.raises(PoolError, match="keyring"):
        environment.local_key(info(tmp_path))


def test_no_port(tmp_path):
    """A gateway that could not get its port says why."""
    with pytest.raises(PoolError, match="taken"):
        environment.settings("genai", info(tmp_path, gateway_url="", gateway_error="port 8790 is taken"))
