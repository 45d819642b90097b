"""The settings of `gemini-pool env`: where the key is found, and what is said when it is not."""

import json
import os
import subprocess

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
        environment.gateway_of(info(tmp_path, gateway_url="", gateway_error="port 8790 is taken"))


GATEWAY = environment.Gateway("http://127.0.0.1:1", "gp-it's \\ $k", metadata=True)
NAMES = ("gemini-cli", "opencode", "genai", "openai", "vertex", "metadata")


@pytest.mark.parametrize("name", NAMES)
def test_shells(name):
    """What is printed for a shell sets and unsets exactly that, whatever the key looks like."""
    found = environment.settings(name, GATEWAY)
    script = environment.printed(found, "sh") + "\nenv -0"
    before = dict.fromkeys(found.unset, "left over")
    env = {"PATH": os.environ["PATH"], **before}
    out = subprocess.run(["sh", "-c", script], capture_output=True, env=env, check=True).stdout.decode()
    after = dict(line.split("=", 1) for line in out.split("\0") if line)
    assert {k: v for k, v in after.items() if k in found.values} == dict(found.values)
    assert not set(found.unset) & set(after)
    assert found.values


def test_other_formats():
    """JSON with null for what must be unset; fish's own quoting; a .env file's."""
    found = environment.Settings("a tool", {"A": "it's \\ $k", "B": "http://h:1/v1"}, ("C",))
    assert json.loads(environment.printed(found, "json")) == {**found.values, "C": None}
    assert environment.printed(found, "fish") == (
        "# a tool\nset -e C\nset -gx A 'it\\'s \\\\ $k'\nset -gx B 'http://h:1/v1'"
    )
    with pytest.raises(PoolError, match=r"\.env"):
        environment.printed(found, "dotenv")
    found = environment.Settings("a tool", {"A": "a $k #x", "B": "http://h:1/v1"}, ("C",))
    assert environment.printed(found, "dotenv") == (
        "# a tool\n# not to be set: C\nA='a $k #x'\nB=http://h:1/v1"
    )


def test_metadata_is_off(tmp_path):
    """Without a metadata account there is nothing to point at, and it says what to set."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "gateway.key").write_text("k1\n")
    with pytest.raises(PoolError, match="is off"):
        environment.settings("metadata", environment.gateway_of(info(tmp_path)))
    (tmp_path / "config.toml").write_text("[gateway]\nmetadata_account = 'work'\n")
    values = environment.settings("metadata", environment.gateway_of(info(tmp_path))).values
    assert set(values.values()) == {"127.0.0.1:1"}


def test_the_key_is_in_no_repr():
    """A gateway in a traceback gives nothing away."""
    assert "gp-it" not in repr(GATEWAY)
