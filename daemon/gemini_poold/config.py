"""The configuration file `config.toml`: its Structs with every default, reading, and what a reload changes.

The keys are a promise to users (README): adding one is fine, renaming one is not. Where files are is
`gemini_pool.paths`' business, resolving a `SecretRef` is `credentials.secret_ref`'s.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import urlsplit

from msgspec import Meta, Struct, field, structs, to_builtins

from gemini_pool.paths import GATEWAY_LISTEN

from . import files, tomlfile
from .errors import ConfigInvalid, FileRefused

Positive = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0)]
Glob = Annotated[str, Meta(min_length=1, max_length=256)]
StrategyName = Literal[
    "adaptive",
    "priority",
    "round-robin",
    "fill-first",
    "least-used",
    "lru",
    "quota-aware",
    "health-weighted",
    "weighted-random",
]
LogLevel = Literal["debug", "info", "warning", "error"]
SECRET_KINDS = ("file", "env", "keyring", "command", "systemd-credential")


def check_proxy(name: str, url: str) -> None:
    """Raise ValueError unless `url` is empty or a proxy that we can speak to."""
    if url:
        _check_url(name, url, schemes=("http", "https"))


def _check_absolute(name: str, path: str) -> None:
    if path and not path.startswith(("/", "~/")):
        raise ValueError(f"{name} is an absolute path, or one that starts with ~/")


def _check_url(name: str, url: str, *, schemes: tuple[str, ...]) -> None:
    try:
        parts = urlsplit(url)
        fine = (
            parts.scheme in schemes
            and bool(parts.hostname)
            and (parts.port or 1) > 0
            and not re.search(r"\s", url)
        )
    except ValueError:
        fine = False
    if not fine:
        raise ValueError(
            f"{name} is a URL that starts with {' or '.join(f'{scheme}://' for scheme in schemes)}"
        )


class _Section(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=False):
    """A table of the file: unknown keys are errors."""


class SecretRef(_Section, frozen=True, omit_defaults=True):
    """Where a secret is, never the secret itself. Exactly one field is set; a relative `file` counts from the state
    folder, `keyring` is SERVICE/NAME."""

    file: str = ""
    env: str = ""
    keyring: str = ""
    command: tuple[str, ...] = ()
    systemd_credential: str = field(name="systemd-credential", default="")

    def __post_init__(self) -> None:
        given = [kind for kind in SECRET_KINDS if self._of(kind)]
        if len(given) != 1:
            problem = f"not {' and '.join(given)}" if given else "none is given"
            raise ValueError(f"a secret is exactly one of {', '.join(SECRET_KINDS)} ({problem})")
        if self.keyring and not all(self.keyring.partition("/")):
            raise ValueError('keyring is written "service/name"')
        if self.command and not self.command[0]:
            raise ValueError("command starts with the program's name")

    def _of(self, kind: str) -> str | tuple[str, ...]:
        value: str | tuple[str, ...] = getattr(self, kind.replace("-", "_"))
        return value

    @property
    def kind(self) -> str:
        """One of SECRET_KINDS."""
        return next(kind for kind in SECRET_KINDS if self._of(kind))

    @property
    def described(self) -> str:
        """For people and the log: where the secret is. A command shows its program only."""
        value = self._of(self.kind)
        return f"{self.kind} {value if isinstance(value, str) else value[0]}"


class GatewayClient(_Section, frozen=True):
    """A further local key with a name, and what it may do. `rpm` 0 and no `models` mean no limit."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    key: SecretRef
    rpm: Count = 0
    models: tuple[Glob, ...] = ()


class Gateway(_Section, frozen=True):
    listen: str = GATEWAY_LISTEN
    socket: str = ""
    key: SecretRef = SecretRef(file="gateway.key")
    metadata_account: str = ""
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    clients: tuple[GatewayClient, ...] = ()
    connect_timeout_s: Positive = 10
    first_byte_timeout_s: Positive = 300
    silence_timeout_s: Positive = 120
    max_in_flight: Annotated[int, Meta(ge=1)] = 1000
    max_in_flight_per_account: Count = 0

    def __post_init__(self) -> None:
        _ = self.listen_address
        _check_absolute("socket", self.socket)
        names = [client.name for client in self.clients]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"clients: the name {twice} is given twice")

    @property
    def listen_address(self) -> tuple[str, int] | None:
        """Host (an IPv6 one without its brackets) and port; None when the loopback gateway is off."""
        if not self.listen:
            return None
        match = re.fullmatch(
            r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[^\s:\[\]/]+)):(?P<port>\d{1,5})", self.listen
        )
        if not match or int(match["port"]) > 65535:
            raise ValueError('listen is "HOST:PORT" with a port of 0 to 65535, or "" for off')
        return match["six"] or match["host"], int(match["port"])


# A text of its own at run time: whether the user wrote the key is told by identity, since the texts may be equal.
_DEFAULT_TOKEN = b"https://oauth2.googleapis.com/token".decode()


class Endpoints(_Section, frozen=True):
    """Base URLs of Google's, without a slash at the end."""

    oauth_auth: str = "https://accounts.google.com/o/oauth2/v2/auth"
    oauth_token: str = _DEFAULT_TOKEN
    oauth_revoke: str = "https://oauth2.googleapis.com/revoke"
    oauth_userinfo: str = "https://www.googleapis.com/oauth2/v2/userinfo"
    code_assist: str = "https://cloudcode-pa.googleapis.com"
    developer_api: str = "https://generativelanguage.googleapis.com"
    vertex: str = ""
    sts: str = "https://sts.googleapis.com"
    iam_credentials: str = "https://iamcredentials.googleapis.com"

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            url = getattr(self, name)
            if not url and name == "vertex":
                continue
            _check_url(name, url, schemes=("http", "https"))
            if url.endswith("/"):
                structs.force_setattr(self, name, url.rstrip("/"))

    @property
    def oauth_token_given(self) -> bool:
        """Whether the user set `oauth_token`: then it is used instead of a credential file's `token_uri`, too."""
        return self.oauth_token is not _DEFAULT_TOKEN


class Network(_Section, frozen=True):
    proxy: str = ""
    ca_file: str = ""

    def __post_init__(self) -> None:
        check_proxy("proxy", self.proxy)
        _check_absolute("ca_file", self.ca_file)


class Selection(_Section, frozen=True):
    strategy: StrategyName = "adaptive"
    max_wait_s: NotNegative = 120
    allow_paid: bool = True


class Models(_Section, frozen=True):
    """`aliases`: a name to the model that is meant. `thinking`: a model glob to its default thinkingConfig."""

    aliases: dict[str, Glob] = field(default_factory=dict)
    thinking: dict[str, dict[str, Any]] = field(default_factory=dict)


class Quota(_Section, frozen=True):
    poll_interval_s: Positive = 300


class Refresh(_Section, frozen=True):
    lead_s: Positive = 600


class Secrets(_Section, frozen=True, omit_defaults=True):
    """`seal`: where the key is that secret files are encrypted with; none, and they are not."""

    seal: SecretRef | None = None


class Rpc(_Section, frozen=True):
    """`use_socket`: a second socket that serves the scope `use` alone, for sandboxes: an absolute path, or a bare name
    beside the RPC socket; empty: there is none."""

    use_socket: str = ""

    def __post_init__(self) -> None:
        if "/" in self.use_socket:
            _check_absolute("use_socket", self.use_socket)


class Log(_Section, frozen=True):
    level: LogLevel = "info"
    debug_file: str = ""

    def __post_init__(self) -> None:
        _check_absolute("debug_file", self.debug_file)


class Config(_Section, frozen=True):
    gateway: Gateway = Gateway()
    endpoints: Endpoints = Endpoints()
    network: Network = Network()
    selection: Selection = Selection()
    models: Models = field(default_factory=Models)
    quota: Quota = Quota()
    refresh: Refresh = Refresh()
    secrets: Secrets = Secrets()
    rpc: Rpc = Rpc()
    log: Log = Log()


class Difference(NamedTuple):
    """Dotted names of the keys that differ, in the file's order; `restart` are those that a reload cannot apply."""

    changed: tuple[str, ...]
    restart: tuple[str, ...]


# Sockets are bound (or taken from systemd) once, at start; the trusted roots belong to connections that streams use.
NEEDS_RESTART = frozenset({"gateway.listen", "gateway.socket", "network.ca_file", "rpc.use_socket"})


def load(path: Path) -> Config:
    """The configuration in the file at `path`; all defaults when there is none. Raises `ConfigInvalid`."""
    try:
        data = files.read_trusted(path)
    except FileRefused as error:
        if error.missing:
            return Config()
        raise ConfigInvalid(error.message, file=str(path), hint=error.hint) from None
    return parse(tomlfile.decode_utf8(data, str(path)), str(path))


def parse(text: str, file: str) -> Config:
    """The configuration in `text`; `file` is named in errors. Raises `ConfigInvalid`, one error for each bad table."""
    source = tomlfile.Source(text, file)
    sections: dict[str, Any] = {}
    errors: list[ConfigInvalid] = []
    types = {name.name: name.type for name in structs.fields(Config)}
    for name, value in source.document.items():
        try:
            # An unknown table (or a key outside of any) is reported by the Struct of the whole.
            if name in types:
                sections[name] = source.convert(value, types[name], (name,))
            else:
                source.convert({name: value}, Config)
        except ConfigInvalid as error:
            errors.append(error)
    tomlfile.raise_all(errors)
    return Config(**sections)


def diff(old: Config, new: Config) -> Difference:
    """What a reload from `old` to `new` changes."""
    changed = tuple(
        f"{section}.{key}"
        for section in Config.__struct_fields__
        for key in getattr(old, section).__struct_fields__
        if getattr(getattr(old, section), key) != getattr(getattr(new, section), key)
    )
    return Difference(changed, tuple(name for name in changed if name in NEEDS_RESTART))


def expanded(path: str) -> Path:
    """A path of the file with `~` resolved."""
    return Path(path).expanduser()


def as_document(config: Config) -> Mapping[str, Any]:
    """The configuration with its defaults as plain values, for `config show`. It holds no secret, only references."""
    document: dict[str, Any] = to_builtins(config)
    return document
