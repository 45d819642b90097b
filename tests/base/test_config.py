"""The configuration file: its defaults to the letter, what is refused, and what a reload changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gemini_poold import config
from gemini_poold.config import Config, SecretRef
from gemini_poold.errors import ConfigInvalid

DEFAULTS = {
    "gateway": {
        "listen": "127.0.0.1:8790",
        "socket": "",
        "key": {"file": "gateway.key"},
        "metadata_account": "",
        "allowed_hosts": [],
        "allowed_origins": [],
        "clients": [],
        "connect_timeout_s": 10,
        "first_byte_timeout_s": 300,
        "silence_timeout_s": 120,
        "max_in_flight": 1000,
        "max_in_flight_per_account": 0,
    },
    "endpoints": {
        "oauth_auth": "https://accounts.google.com/o/oauth2/v2/auth",
        "oauth_token": "https://oauth2.googleapis.com/token",
        "oauth_revoke": "https://oauth2.googleapis.com/revoke",
        "oauth_userinfo": "https://www.googleapis.com/oauth2/v2/userinfo",
        "code_assist": "https://cloudcode-pa.googleapis.com",
        "developer_api": "https://generativelanguage.googleapis.com",
        "vertex": "",
        "sts": "https://sts.googleapis.com",
        "iam_credentials": "https://iamcredentials.googleapis.com",
    },
    "network": {"proxy": "", "ca_file": ""},
    "selection": {"strategy": "adaptive", "max_wait_s": 120, "allow_paid": True},
    "models": {"aliases": {}, "thinking": {}},
    "quota": {"poll_interval_s": 300},
    "refresh": {"lead_s": 600},
    "secrets": {},
    "rpc": {"use_socket": ""},
    "log": {"level": "info", "debug_file": ""},
}


def refused(text: str) -> ConfigInvalid:
    with pytest.raises(ConfigInvalid) as caught:
        config.parse(text, "config.toml")
    return caught.value


def test_defaults_are_those_that_users_were_promised(tmp_path: Path) -> None:
    """An empty file, a missing file and no file at all give the same, documented values."""
    assert json.loads(json.dumps(config.as_document(Config()))) == DEFAULTS
    assert config.parse("", "f") == Config()
    assert config.load(tmp_path / "config.toml") == Config()


def test_every_key_can_be_set() -> None:
    """A file that sets each key gives exactly what it says."""
    text = """
    [gateway]
    listen = "[::1]:0"
    socket = "/run/x/gateway.sock"
    key = { env = "KEY" }
    metadata_account = "auto:my-project"
    allowed_hosts = ["host.containers.internal"]
    allowed_origins = ["http://localhost:3000"]
    clients = [{ name = "ci", key = { command = ["pass", "ci"] }, rpm = 60, models = ["gemini-3*"] }]
    connect_timeout_s = 1.5
    first_byte_timeout_s = 2
    silence_timeout_s = 3
    max_in_flight = 4
    max_in_flight_per_account = 5
    [endpoints]
    oauth_auth = "http://127.0.0.1:1/auth"
    oauth_token = "http://127.0.0.1:1/token"
    oauth_revoke = "http://127.0.0.1:1/revoke"
    oauth_userinfo = "http://127.0.0.1:1/userinfo"
    code_assist = "http://127.0.0.1:1/"
    developer_api = "http://127.0.0.1:1/gl"
    vertex = "http://127.0.0.1:1/vx/"
    sts = "http://127.0.0.1:1"
    iam_credentials = "http://127.0.0.1:1"
    [network]
    proxy = "http://user:fake@proxy:3128"
    ca_file = "~/root.pem"
    [selection]
    strategy = "lru"
    max_wait_s = 0
    allow_paid = false
    [models]
    aliases = { "gemini-3-flash" = "gemini-3-flash-preview" }
    thinking = { "gemini-3*" = { thinkingLevel = "low", includeThoughts = true } }
    [quota]
    poll_interval_s = 60
    [refresh]
    lead_s = 30
    [secrets]
    seal = { keyring = "gemini-pool/seal" }
    [rpc]
    use_socket = "/run/user/1/pool-use.sock"
    [log]
    level = "debug"
    debug_file = "/tmp/x.log"
    """
    read = config.parse(text, "f")
    assert read.gateway.listen_address == ("::1", 0)
    assert read.gateway.clients[0].key == SecretRef(command=("pass", "ci"))
    assert read.gateway.clients[0].models == ("gemini-3*",)
    assert (
        read.endpoints.code_assist == "http://127.0.0.1:1"
    )  # methods are appended with a slash of their own
    assert read.endpoints.vertex == "http://127.0.0.1:1/vx"
    assert read.models.thinking["gemini-3*"]["thinkingLevel"] == "low"
    assert {name.split(".")[0] for name in config.diff(Config(), read).changed} == set(DEFAULTS)
    unchanged = {f"{s}.{k}" for s, keys in DEFAULTS.items() for k in keys} - set(
        config.diff(Config(), read).changed
    )
    assert unchanged == set()
    assert config.expanded(read.network.ca_file) == Path.home() / "root.pem"


def test_a_token_endpoint_of_the_users_is_told_from_the_default() -> None:
    """`oauth_token_given` is true whenever the key stands in the file, be it with the default's text."""
    assert not Config().endpoints.oauth_token_given
    assert not config.parse("[endpoints]\nsts = 'http://x'", "f").endpoints.oauth_token_given
    default = Config().endpoints.oauth_token
    assert config.parse(f"[endpoints]\noauth_token = '{default}'", "f").endpoints.oauth_token_given
    assert config.parse("[endpoints]\noauth_token = 'http://x/token'", "f").endpoints.oauth_token_given


@pytest.mark.parametrize(
    ("text", "line", "key", "words"),
    [
        ("[gateway]\n\nlistn = 1", 3, "gateway.listn", "unknown key gateway.listn"),
        ("[gatewy]\nlisten = ''", 1, "gatewy", "unknown key gatewy"),
        ("listen = ''", 1, "listen", "unknown key listen"),
        ("gateway = 1", 1, "gateway", "expected `object`"),
        ("[gateway]\nlisten = 8790", 2, "gateway.listen", "expected `str`"),
        ("[gateway]\nlisten = '8790'", 2, "gateway.listen", "HOST:PORT"),
        ("[gateway]\nlisten = 'a:65536'", 2, "gateway.listen", "0 to 65535"),
        ("[gateway]\nlisten = '::1:80'", 2, "gateway.listen", "HOST:PORT"),
        ("[gateway]\nsocket = 'gateway.sock'", 2, "gateway.socket", "socket is an absolute path"),
        ("[gateway]\nkey = 'fake-key-1'", 2, "gateway.key", "expected `object`, got `str`"),
        ("[gateway]\nkey = {}", 2, "gateway.key", "none is given"),
        ("[gateway]\nkey = {file='a', env='b'}", 2, "gateway.key", "not file and env"),
        ("[gateway]\nkey = {files='a'}", 2, "gateway.key.files", "unknown key gateway.key.files"),
        ("[gateway]\nkey = {keyring='a'}", 2, "gateway.key.keyring", "service/name"),
        ("[gateway]\nkey = {command=[]}", 2, "gateway.key", "none is given"),
        ("[gateway]\nkey = {command=['']}", 2, "gateway.key.command", "program's name"),
        (
            "[gateway]\nclients=[\n{name='a b', key={env='X'}}]",
            3,
            "gateway.clients[1].name",
            "matching regex",
        ),
        ("[gateway]\nclients=[{name='a'}]", 2, "gateway.clients[1].key", "is missing"),
        (
            "[gateway]\nclients=[{name='a',key={env='X'}},{name='a',key={env='Y'}}]",
            2,
            "gateway.clients",
            "given twice",
        ),
        ("[gateway]\nconnect_timeout_s = 0", 2, "gateway.connect_timeout_s", "> 0"),
        ("[gateway]\nmax_in_flight = 0", 2, "gateway.max_in_flight", ">= 1"),
        ("[gateway]\nmax_in_flight = true", 2, "gateway.max_in_flight", "got `bool`"),
        ("[endpoints]\nsts = 'sts.googleapis.com'", 2, "endpoints.sts", "sts is a URL"),
        ("[endpoints]\nsts = ''", 2, "endpoints.sts", "sts is a URL"),
        ("[endpoints]\nsts = 'http://a:b'", 2, "endpoints.sts", "sts is a URL"),
        ("[network]\nproxy = 'socks5://x'", 2, "network.proxy", "http:// or https://"),
        ("[network]\nca_file = 'root.pem'", 2, "network.ca_file", "absolute path"),
        ("[selection]\nstrategy = 'best'", 2, "selection.strategy", "invalid enum value"),
        ("[selection]\nmax_wait_s = -1", 2, "selection.max_wait_s", ">= 0"),
        ("[models]\naliases = { a = '' }", 2, "models.aliases", "length >= 1"),
        ("[models]\nthinking = { a = 1 }", 2, "models.thinking", "expected `object`"),
        ("[quota]\npoll_interval_s = 0", 2, "quota.poll_interval_s", "> 0"),
        ("[refresh]\nlead_s = 'x'", 2, "refresh.lead_s", "expected `float`"),
        ("[log]\nlevel = 'loud'", 2, "log.level", "invalid enum value"),
        ("[log]\ndebug_file = 'x.log'", 2, "log.debug_file", "absolute path"),
        ("[log]\nlevel = ", 2, "", "not TOML"),
    ],
)
def test_what_is_wrong_is_told_with_key_file_and_line(text: str, line: int, key: str, words: str) -> None:
    """Every wrong value, unknown key and syntax error names key, file and line in its sentence."""
    error = refused(text)
    assert (error.file, error.line, error.key) == ("config.toml", line, key)
    assert words in error.problem
    assert f"config.toml:{line}:" in str(error)


def test_several_tables_have_an_error_each() -> None:
    """One reading tells one error of every bad table, in the file's order."""
    error = refused("[log]\nlevel = 1\n[quota]\nx = 1\n[refresh]\nlead_s = 1\n[y]\n")
    assert [(found.line, found.key) for found in error.all_errors] == [
        (2, "log.level"),
        (4, "quota.x"),
        (7, "y"),
    ]


def test_a_secret_is_described_without_its_arguments() -> None:
    """What stands in messages and logs names the place; of a command only its program."""
    assert SecretRef(file="secrets/a.json").described == "file secrets/a.json"
    assert SecretRef(command=("pass", "gemini/a")).described == "command pass"
    reference = config.parse("[gateway]\nkey = { systemd-credential = 'gk' }", "f").gateway.key
    assert reference.kind == "systemd-credential"
    assert reference.described == "systemd-credential gk"


def test_files_are_read_through_links_and_refused_when_others_may_write(tmp_path: Path) -> None:
    """A linked file is fine; one that others can write to is refused with the command that mends it."""
    target = tmp_path / "real.toml"
    target.write_text("[quota]\npoll_interval_s = 7\n")
    target.chmod(0o644)
    link = tmp_path / "config.toml"
    link.symlink_to(target)
    assert config.load(link).quota.poll_interval_s == 7
    target.chmod(0o666)
    with pytest.raises(ConfigInvalid, match="writable to others") as caught:
        config.load(link)
    assert caught.value.hint.startswith("chmod go-w ")
    assert caught.value.file == str(link)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """Bytes that are not UTF-8, and a folder in the file's place, are errors and not defaults."""
    path = tmp_path / "config.toml"
    path.write_bytes(b"[log]\nlevel = '\xff'\n")
    with pytest.raises(ConfigInvalid, match="not UTF-8"):
        config.load(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigInvalid, match="not a regular file"):
        config.load(path)


def test_a_difference_says_what_needs_a_restart() -> None:
    """Sockets and roots are taken at the start; everything else a reload applies."""
    old = Config()
    new = config.parse("[gateway]\nlisten = ''\n[network]\nproxy = 'http://p:1'\n[log]\nlevel = 'debug'", "f")
    assert config.diff(old, new) == (("gateway.listen", "network.proxy", "log.level"), ("gateway.listen",))
    assert config.diff(new, new) == ((), ())
    assert new.gateway.listen_address is None
