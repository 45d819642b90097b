"""The accounts file on the disk: read as a whole, replaced as a whole.

Which text was the last good one is remembered by the database (`gemini_poold.store`), not here; editing that keeps
comments is the command's business, which hands the finished text to `replace`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

from gemini_poold import files, tomlfile
from gemini_poold.errors import ConfigInvalid, FileRefused, PoolError

from .schema import AccountEntry, parse

GENERATIONS = 3


class Loaded(NamedTuple):
    """What the file holds. `digest` names the content; it is "" when there is no file (then there are no accounts)."""

    entries: list[AccountEntry]
    text: str
    digest: str


class AccountsFile:
    """The file may be a link to one of the user's or root's (stow, Nix); others may read it, but not write to it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Loaded:
        """Raises `ConfigInvalid` with the place of what is wrong; then nothing of the file counts."""
        try:
            data = files.read_trusted(self.path)
        except FileRefused as error:
            if error.missing:
                return Loaded([], "", "")
            raise ConfigInvalid(error.message, file=str(self.path), hint=error.hint) from None
        text = tomlfile.decode_utf8(data, str(self.path))
        return Loaded(parse(text, str(self.path)), text, digest_of(data))

    def replace(self, text: str, *, expected: str) -> Loaded:
        """Write `text`, which must be valid, over the content that has the digest `expected`; the previous contents
        stay as PATH.1 to PATH.3. A linked file is replaced where it really is.

        Raises `ConfigInvalid` for a bad text, and PoolError when the file changed since it was read.
        """
        entries = parse(text, str(self.path))
        target = self.path.resolve()
        with files.locked(target):
            if self._digest() != expected:
                hint = "nothing was written; try again"
                raise PoolError("config_invalid", f"{self.path} was changed by somebody else", hint=hint)
            files.atomic_write_locked(target, text.encode(), generations=GENERATIONS)
        return Loaded(entries, text, digest_of(text.encode()))

    def _digest(self) -> str:
        try:
            return digest_of(files.read_trusted(self.path))
        except FileRefused as error:
            if error.missing:
                return ""
            raise


def digest_of(data: bytes) -> str:
    """The name of a content: SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
