"""Seals and unseals a whole state folder, for the command. One file at a time, each replaced as a whole: whatever is
interrupted may be done again, and a folder that is half sealed can be read like any other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .. import files
from ..errors import PoolError
from .base import Secret
from .sealed import (
    INDEX,
    Header,
    WrongKey,
    header_of,
    is_sealed,
    new_header,
    normal,
    read_index,
    seal,
    unlock,
    unseal,
)

FOLDERS = ("secrets", "tokens")
MAX_FILE = 4 << 20


@dataclass(slots=True)
class Report:
    """What was done to which files. `failed` are left as they were, with the reason."""

    changed: list[Path] = field(default_factory=list)
    unchanged: list[Path] = field(default_factory=list)
    failed: list[tuple[Path, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Scope:
    """Which files of a state folder: those of FOLDERS, and `also`, but never `spared`; earlier contents included."""

    state_dir: Path
    also: frozenset[Path] = frozenset()
    spared: frozenset[Path] = frozenset()

    def files(self) -> Iterator[Path]:
        """In the order of their names."""
        found = {path for folder in FOLDERS for path in _inside(self.state_dir / folder)}
        for path in self.also:
            found.update(each for each in _inside(path.parent) if _owner_of(each) == path)
        for path in sorted(found):
            hidden = path.name.startswith(".") or path.suffix in {".lock", ".renewal"}
            if not hidden and path.is_file() and _owner_of(path) not in self.spared:
                yield path


def seal_all(scope: Scope, key: bytes, announce: Callable[[Secret], None]) -> Report:
    """Seal every secret. May be repeated: what is sealed stays.

    `announce` gets the recovery key when sealing begins, before anything is written: whatever happens afterwards, it
    was told. Raises PoolError "config_invalid" when the folder was sealed with another key.
    """
    header = read_index(scope.state_dir)
    if header is None:
        header, data_key, recovery = new_header(key)
        announce(Secret(recovery))
        files.atomic_write(scope.state_dir / INDEX, header.line)
    else:
        data_key = _unlocked(header, key, recovery=False)

    def sealed(data: bytes) -> bytes:
        return data if is_sealed(data) else _checked(seal(data, header, data_key), data_key, data)

    return _rewrite(scope, sealed)


def unseal_all(scope: Scope, key: bytes) -> Report:
    """Put every sealed secret down in the open again, and end the sealing. Files of another key are left."""
    return _open_all(scope, key, recovery=False)


def recover(scope: Scope, recovery_key: str) -> Report:
    """`unseal_all` for who has lost the key, with the recovery key."""
    return _open_all(scope, normal(recovery_key), recovery=True)


def _inside(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _open_all(scope: Scope, key: bytes, *, recovery: bool) -> Report:
    data_keys: dict[str, bytes] = {}

    def opened(data: bytes) -> bytes:
        if not is_sealed(data):
            return data
        header = header_of(data)
        if header.id not in data_keys:
            data_keys[header.id] = unlock(header, key, recovery=recovery)
        return unseal(data, data_keys[header.id])

    index = read_index(scope.state_dir)
    if index is not None:
        data_keys[index.id] = _unlocked(index, key, recovery=recovery)
        # First of all: from here on a running daemon seals nothing new behind our back.
        (scope.state_dir / INDEX).unlink()
        files.sync_dir(scope.state_dir)
    return _rewrite(scope, opened)


def _unlocked(header: Header, key: bytes, *, recovery: bool) -> bytes:
    try:
        return unlock(header, key, recovery=recovery)
    except WrongKey:
        what = "recovery key" if recovery else "key"
        hint = "look for typing errors" if recovery else "gemini-pool secrets recover"
        raise PoolError(
            "config_invalid", f"this is not the {what} of the sealed secrets", hint=hint
        ) from None


def _rewrite(scope: Scope, change: Callable[[bytes], bytes]) -> Report:
    report = Report()
    for path in scope.files():
        try:
            with files.locked(_owner_of(path)):
                before = files.read_private(path, limit=MAX_FILE)
                after = change(before)
                if after != before:
                    files.atomic_write_locked(path, after)
            (report.unchanged if after == before else report.changed).append(path)
        except WrongKey:
            report.failed.append((path, "sealed with another key, or damaged"))
        except (PoolError, OSError) as error:
            report.failed.append((path, getattr(error, "message", "") or str(error)))
    return report


def _owner_of(path: Path) -> Path:
    """The file whose lock protects this one: PATH.2 is an earlier content of PATH."""
    return path.with_suffix("") if re.fullmatch(r"\.[1-9]", path.suffix) else path


def _checked(sealed: bytes, data_key: bytes, data: bytes) -> bytes:
    """Never replace a secret by what cannot be opened."""
    if unseal(sealed, data_key) != data:
        raise WrongKey
    return sealed
