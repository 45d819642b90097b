"""Reads Gemini CLI's login: the plain file, its encrypted stores, and the keychain. Changes nothing there.

The stores' key is made of host and user name, so this works on the machine and for the user that wrote them.
"""

from __future__ import annotations

import binascii
import getpass
import os
import pwd
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config import SecretRef
from ..credentials.base import Secret
from ..credentials.secret_ref import open_source
from ..errors import PoolError
from .found import Found, NotFound, Places, json_object, loose, read_object, read_text, text_of

SERVICE, ENTRY = "gemini-cli-oauth", "main-account"
PLAIN = "oauth_creds.json"
# Newer and older name of the encrypted store; their plaintexts differ by one level.
STORES = ("gemini-credentials.json", "mcp-oauth-tokens-v2.json")
ACCOUNTS = "google_accounts.json"
SCRYPT_N, SCRYPT_R, SCRYPT_P = 16384, 8, 1  # Node's defaults


def read(places: Places, path: str = "") -> list[Found | NotFound]:
    """The login of the file or folder at `path`, else of Gemini CLI's own folder (`GEMINI_CLI_HOME` honoured)."""
    if path and places.path(path).is_file():
        return [_read_file(places.path(path), "")]
    folder = _folder(places, path)
    email = _active(folder)
    files = [folder / name for name in (PLAIN, *STORES)]
    found: list[Found | NotFound] = [_read_file(each, email) for each in files if each.exists()]
    places.notes += [note for each in files if each.exists() and (note := loose(each))]
    return _first(found) or [
        NotFound(str(folder), "no login of Gemini CLI's is there", "log in there once: gemini")
    ]


def decrypt(text: str, *, host: str, user: str) -> bytes | None:
    """The plaintext of a store: `hex(iv):hex(tag):hex(cipher)`, AES-256-GCM. None when it is not for this key."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    parts = text.strip().split(":")
    if len(parts) != 3:
        return None
    try:
        nonce, tag, body = (binascii.unhexlify(part) for part in parts)
        salt = f"{host}-{user}-gemini-cli".encode()
        kdf = Scrypt(salt=salt, length=32, n=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P)
        key = kdf.derive(SERVICE.encode())
        decryptor = Cipher(algorithms.AES(key), modes.GCM(nonce, tag)).decryptor()
        return decryptor.update(body) + decryptor.finalize()
    except (ValueError, InvalidTag):  # a binascii.Error is a ValueError
        return None


def _read_file(path: Path, email: str) -> Found | NotFound:
    text = read_text(path)
    if isinstance(text, NotFound):
        return text
    if (plain := json_object(text)) is not None:
        return _of_plain(plain, str(path), email)
    return _of_store(text, str(path), email)


def _of_plain(info: Mapping[str, Any], label: str, email: str) -> Found | NotFound:
    """`oauth_creds.json`. A file of another kind may stand in its place: then it is that."""
    kind = text_of(info.get("type"))
    if kind and kind != "authorized_user":
        return NotFound(label, f"it is a credential of type {kind[:40]!r}", f"gemini-pool import adc {label}")
    token = text_of(info.get("refresh_token"))
    if not token:
        return NotFound(label, "there is no refresh token in it", "log in there once more: gemini")
    return Found(label, refresh_token=Secret(token), email=email)


def _of_store(text: str, label: str, email: str) -> Found | NotFound:
    plain = decrypt(text, host=socket.gethostname(), user=_user())
    stored = json_object(plain) if plain is not None else None
    if stored is None:
        reason = (
            "it cannot be decrypted here: it was written on another machine or by another user, or is damaged"
        )
        return NotFound(label, reason, "import it where it was written, or log in here: gemini-pool login ID")
    inner = stored.get(SERVICE)
    value = inner.get(ENTRY) if isinstance(inner, dict) else stored.get(ENTRY)
    if value is None:
        return NotFound(label, "there is no Google login in it")
    return _of_value(value, label, email)


def _user() -> str:
    """As Node tells it: by the user id, whatever the environment says."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return getpass.getuser()


def _of_value(value: Any, label: str, email: str) -> Found | NotFound:
    """A stored login: JSON in a text, or the object itself in the older store."""
    info = json_object(value) if isinstance(value, str) else value
    token = info.get("token") if isinstance(info, dict) else None
    refresh = text_of(token.get("refreshToken")) if isinstance(token, dict) else ""
    if not refresh:
        return NotFound(label, "there is no refresh token in it", "log in there once more: gemini")
    return Found(label, refresh_token=Secret(refresh), email=email)


async def read_keychain(places: Places) -> list[Found | NotFound]:
    """What Gemini CLI put into the system's keychain. Its library names the entry otherwise than ours on Linux, so
    the desktop's own tool is asked, too."""
    refs = [SecretRef(keyring=f"{SERVICE}/{ENTRY}")]
    if shutil.which("secret-tool", path=places.environ.get("PATH", "")):
        refs.append(SecretRef(command=("secret-tool", "lookup", "service", SERVICE, "account", ENTRY)))
    for ref in refs:
        source = open_source(ref, account="import", environ=places.environ, state_dir=places.home)
        try:
            value = (await source.read()).decode("utf-8", "replace").strip()
        except PoolError:
            continue  # no keyring, locked, or no such entry: the files were looked at already
        if value:
            return [_of_value(value, "the keychain", _active(_folder(places, "")))]
    return []


def _folder(places: Places, path: str) -> Path:
    """Gemini CLI's folder, or the one that a person named, or the one in that."""
    if not path:
        return places.folder("GEMINI_CLI_HOME", "") / ".gemini"
    given = places.path(path)
    return given / ".gemini" if (given / ".gemini").is_dir() else given


def _active(folder: Path) -> str:
    """The e-mail that Gemini CLI shows for its login; a label only."""
    info = read_object(folder / ACCOUNTS)
    return text_of(info.get("active")) if isinstance(info, dict) else ""


def _first(found: list[Found | NotFound]) -> list[Found | NotFound]:
    """One login, the first that can be read: Gemini CLI has only one, whatever older files lie about."""
    logins: list[Found | NotFound] = [each for each in found if isinstance(each, Found)]
    return logins[:1] or found
