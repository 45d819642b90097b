"""Secret files encrypted at rest: their form and their keys. Who seals when is `sealer.py`'s and `sealing.py`'s business.

A sealed file is text of three lines, and can be opened with nothing but itself and one of two keys:

    gemini-pool sealed 1
    {"id": "…", "key": SLOT, "recovery": SLOT}
    base64(nonce of 12 bytes, AES-256-GCM of the content; both lines above are authenticated with it)

A SLOT wraps the one data key of the state folder: {"salt", "nonce", "wrapped", "n", "r", "p"}, binary values in
base64: AES-256-GCM under scrypt(key text). `key` opens with the configured key (`[secrets] seal`), `recovery` with the
key that was printed once when sealing began. `sealing.json` in the state folder holds the second line, so that new
secrets are sealed with the same data key; without it nothing new is sealed, because nobody would hold a recovery key.

What is sealed and what is not: secrets and shared access tokens inside our state folder. Other programs' files are
theirs. An older content that the disk still holds somewhere is out of anybody's reach.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import secrets
from pathlib import Path
from typing import Any

import msgspec

from .. import files
from ..errors import FileRefused

MAGIC = b"gemini-pool sealed 1\n"
INDEX = "sealing.json"
GROUPS = 8  # of four letters, 20 bits each
ALPHABET = "ABCDEFGHJKMNPQRSTVWXYZ0123456789"  # base 32 as one writes it by hand: no I, L, O, U
NONCE = 12
# As strong against guessing as n = 2^17, p = 1, in a quarter of its memory (32 MiB, once at the start).
COST = (1 << 15, 8, 3)


class WrongKey(Exception):
    """The key is not the one that the file was sealed with, or the file was changed."""


class Slot(msgspec.Struct, frozen=True):
    salt: bytes
    nonce: bytes
    wrapped: bytes
    n: int
    r: int
    p: int


class Header(msgspec.Struct, frozen=True):
    """What every sealed file of one state folder begins with. `id` tells data keys apart."""

    id: str
    key: Slot
    recovery: Slot

    @property
    def line(self) -> bytes:
        return msgspec.json.encode(self) + b"\n"


def is_sealed(data: bytes) -> bool:
    return data.startswith(MAGIC)


def new_header(key: bytes) -> tuple[Header, bytes, str]:
    """A header with a data key of its own: the header, the data key, and the recovery key for a person to keep."""
    data_key, recovery = os.urandom(32), _new_recovery_key()
    header = Header(secrets.token_hex(4), _wrap(data_key, key), _wrap(data_key, normal(recovery)))
    return header, data_key, recovery


def unlock(header: Header, key: bytes, *, recovery: bool = False) -> bytes:
    """The data key. Takes a third of a second. Raises `WrongKey`."""
    slot = header.recovery if recovery else header.key
    if not (1 < slot.n <= 1 << 20 and 0 < slot.r <= 32 and 0 < slot.p <= 16):
        raise WrongKey  # whoever changed the file must not make us take gigabytes
    return _decrypt(_stretched(key, slot), slot.nonce, slot.wrapped, b"")


def seal(data: bytes, header: Header, data_key: bytes) -> bytes:
    head = MAGIC + header.line
    nonce = os.urandom(NONCE)
    return head + base64.b64encode(nonce + _cipher(data_key).encrypt(nonce, data, head)) + b"\n"


def header_of(sealed: bytes) -> Header:
    """Raises `WrongKey` for what only looks like a sealed file."""
    try:
        return msgspec.json.decode(sealed.split(b"\n", 2)[1], type=Header)
    except (msgspec.MsgspecError, UnicodeDecodeError, IndexError):
        raise WrongKey from None


def unseal(sealed: bytes, data_key: bytes) -> bytes:
    """The content. Raises `WrongKey`."""
    magic, line, body = [*sealed.split(b"\n", 2), b"", b""][:3]
    try:
        raw = base64.b64decode(body.rstrip(b"\n"), validate=True)
    except (binascii.Error, ValueError):
        raise WrongKey from None
    return _decrypt(data_key, raw[:NONCE], raw[NONCE:], magic + b"\n" + line + b"\n")


def normal(recovery_key: str) -> bytes:
    """A recovery key as it was printed, however it was typed."""
    text = re.sub(r"[^A-Z0-9]", "", recovery_key.upper())
    return text.translate(str.maketrans("OIL", "011")).encode()


def _new_recovery_key() -> str:
    groups = ("".join(secrets.choice(ALPHABET) for _ in range(4)) for _ in range(GROUPS))
    return "-".join(groups)


def _wrap(data_key: bytes, key: bytes) -> Slot:
    slot = Slot(os.urandom(16), os.urandom(NONCE), b"", *COST)
    wrapped = _cipher(_stretched(key, slot)).encrypt(slot.nonce, data_key, b"")
    return msgspec.structs.replace(slot, wrapped=wrapped)


def _stretched(key: bytes, slot: Slot) -> bytes:
    # 10 MiB: only who seals pays.
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    return Scrypt(salt=slot.salt, length=32, n=slot.n, r=slot.r, p=slot.p).derive(key)


def _cipher(key: bytes) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)


def _decrypt(key: bytes, nonce: bytes, data: bytes, told: bytes) -> bytes:
    from cryptography.exceptions import InvalidTag

    try:
        content: bytes = _cipher(key).decrypt(nonce, data, told)
    except (InvalidTag, ValueError):
        raise WrongKey from None
    return content


def key_text(data: bytes) -> bytes:
    """A key or passphrase without the line end that a file or command puts after it."""
    return data.rstrip(b"\r\n")


def read_index(state_dir: Path) -> Header | None:
    """The header that new files get; None when sealing has not begun. Raises `FileRefused`."""
    path = state_dir / INDEX
    try:
        return msgspec.json.decode(files.read_private(path), type=Header)
    except FileRefused as error:
        if error.missing:
            return None
        raise
    except (msgspec.MsgspecError, UnicodeDecodeError):
        hint = "write the second line of any sealed file into it"
        raise FileRefused(f"{path} is damaged", path=str(path), hint=hint) from None
