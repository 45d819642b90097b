"""`gemini-pool secrets seal|unseal|recover|status`: encrypts the secret files at rest, and takes that back.

Works on the files; a daemon may run meanwhile and need not. The key is where `[secrets] seal` of config.toml says; the
recovery key is printed when sealing begins and never again.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import secrets
import sys
from pathlib import Path

import msgspec

from gemini_pool.errors import PoolError
from gemini_pool.paths import Places, places

from . import config as config_module
from .accounts.store import AccountsFile
from .config import Config, SecretRef
from .credentials.base import CredentialError, Secret
from .credentials.sealed import is_sealed, key_text, read_index
from .credentials.sealing import MAX_FILE, Report, Scope, recover, seal_all, unseal_all
from .credentials.secret_ref import KeyringSource, Source, sealing_key
from .errors import ConfigInvalid
from .files import read_private

ACTIONS = ("seal", "unseal", "recover", "status")
NEW_KEY = 32  # bytes of a key that we make
HOW = """\
say where the key is, in config.toml, for example
  [secrets]
  seal = { keyring = "gemini-pool/seal" }          # made there if it is not
  seal = { command = ["pass", "gemini-pool"] }     # a passphrase or key of your own
"""


def main(action: str, *, as_json: bool = False) -> int:
    """Run one action for this user's places; its exit code. `as_json` is for `status`. Raises PoolError."""
    where = places()
    config = config_module.load(where.config_file)
    scope = scope_of(where, config)
    match action:
        case "seal":
            report = seal_all(scope, _key(where, config.secrets.seal, make=True), _announce)
        case "unseal":
            report = unseal_all(scope, _key(where, config.secrets.seal))
        case "recover":
            report = recover(scope, _typed_recovery_key())
        case _:
            return _status(scope, config, as_json=as_json)
    return _tell(report, action)


def scope_of(where: Places, config: Config) -> Scope:
    """The files that hold accounts' secrets, in our folder. Keys of the gateway are no secrets of Google's and are read
    by clients; the sealing key would lock itself in."""
    state_dir = Path(os.path.abspath(where.state_dir))  # noqa: PTH100  (links are refused when they are read)
    try:
        entries = AccountsFile(where.accounts_file).read().entries
    except ConfigInvalid as error:
        print(f"gemini-pool: {error.message}: only the usual folders are looked at", file=sys.stderr)
        entries = []
    named = {_path(entry.credential.secret, state_dir) for entry in entries}
    keys = [config.gateway.key, *(client.key for client in config.gateway.clients), config.secrets.seal]
    return Scope(
        state_dir,
        also=frozenset(path for path in named if path and path.is_relative_to(state_dir)),
        spared=frozenset(path for key in keys if (path := _path(key, state_dir))),
    )


def _path(ref: SecretRef | None, state_dir: Path) -> Path | None:
    if ref is None or not ref.file:
        return None
    return Path(os.path.abspath(state_dir / Path(ref.file).expanduser()))  # noqa: PTH100


def _key(where: Places, ref: SecretRef | None, *, make: bool = False) -> bytes:
    """The configured key; with `make`, one that is made in the keyring if nothing is there yet."""
    source = sealing_key(ref, environ=os.environ, state_dir=where.state_dir)
    if source is None:
        raise PoolError("config_invalid", "no key is configured for sealing", hint=HOW)
    try:
        key = key_text(asyncio.run(_read(source)))
    except CredentialError as error:
        missing = isinstance(source, KeyringSource) and "does not exist" in error.message
        if not make or not missing or read_index(where.state_dir) is not None:
            raise
        key = secrets.token_urlsafe(NEW_KEY).encode()
        asyncio.run(_write(source, key))
        print(f"a new key is in the {source.described}")
    if len(key) < 8:
        raise PoolError("config_invalid", "the sealing key is shorter than 8 characters", hint=HOW)
    return key


async def _read(source: Source) -> bytes:
    return await source.read()


async def _write(source: Source, key: bytes) -> None:
    await source.write(key)
    if await source.read() != key:
        raise PoolError("config_invalid", f"the {source.described} does not keep what is put there")


def _announce(recovery_key: Secret) -> None:
    print("The recovery key. It opens the secrets when the key is lost, and is shown only now:\n")
    print(f"    {recovery_key.reveal()}\n", flush=True)


def _typed_recovery_key() -> str:
    """From the terminal without echo, or the first line of standard input; never from the command line."""
    if sys.stdin.isatty():
        return getpass.getpass("recovery key: ")
    return sys.stdin.readline()


def _tell(report: Report, action: str) -> int:
    done = "sealed" if action == "seal" else "open"
    print(f"{len(report.changed)} files are {done} now, {len(report.unchanged)} were before")
    for path, reason in report.failed:
        print(f"gemini-pool: {path}: {reason}; left as it is", file=sys.stderr)
    if action != "seal" and not report.failed:
        print("remove `seal` from [secrets] in config.toml, or nothing changes when you seal again")
    return 1 if report.failed else 0


def _status(scope: Scope, config: Config, *, as_json: bool) -> int:
    key = config.secrets.seal.described if config.secrets.seal else ""
    begun = read_index(scope.state_dir) is not None
    words = [(path, *_word(path)) for path in scope.files()]
    if as_json:
        files = [{"path": str(path), "state": word, "reason": reason} for path, word, reason in words]
        text = msgspec.json.encode({"key": key, "sealing": begun, "files": files})
        print(msgspec.json.format(text).decode())
        return 0
    print(f"key: {key or 'none'}\nnew secrets are sealed: {'yes' if begun else 'no'}")
    for path, word, reason in words:
        print(f"{word + (f' ({reason})' if reason else ''):7} {path}")
    return 0


def _word(path: Path) -> tuple[str, str]:
    """Whether a file is sealed, open or refused, and why refused."""
    try:
        return ("sealed" if is_sealed(read_private(path, limit=MAX_FILE)) else "open"), ""
    except PoolError as error:
        return "refused", error.message
