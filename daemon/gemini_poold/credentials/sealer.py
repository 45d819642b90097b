"""Opens sealed secrets for the daemon and seals what it writes. The form of a sealed file is `sealed.py`'s business."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Protocol

from ..errors import PoolError
from .base import CredentialError, Failure
from .sealed import INDEX, Header, WrongKey, header_of, key_text, read_index, seal, unlock, unseal

KEY = "secrets.seal"  # what the key's place is called where an account's name would stand


class KeySource(Protocol):
    """A `secret_ref.Source`, as far as it is needed here."""

    async def read(self) -> bytes: ...


class Sealer:
    """Opens sealed files and seals new ones. The key is asked for when it is needed first, and kept from then on.

    `key`: where the configured key is; None when none is configured: then sealed files cannot be read.
    """

    def __init__(self, state_dir: Path, key: KeySource | None = None) -> None:
        self._state_dir = Path(os.path.abspath(state_dir))  # noqa: PTH100  (as `FileSource` does)
        self._key = key
        self._data_keys: dict[str, bytes] = {}
        self._lock = asyncio.Lock()

    def __repr__(self) -> str:
        return "Sealer(***)"

    def use(self, key: KeySource | None) -> None:
        """Another key from now on."""
        self._key = key
        self._data_keys.clear()

    @property
    def idle(self) -> bool:
        """A key is configured, and yet nothing is sealed: nobody has a recovery key so far."""
        return self._key is not None and not (self._state_dir / INDEX).exists()

    def open_nowait(self, sealed: bytes) -> bytes | None:
        """The content, if the key is at hand. None also for what cannot be opened: `wait_open` says why."""
        try:
            data_key = self._data_keys.get(header_of(sealed).id)
            return None if data_key is None else unseal(sealed, data_key)
        except WrongKey:
            return None

    async def wait_open(self, sealed: bytes, described: str, account: str) -> bytes:
        """The content of the file. Raises `CredentialError`."""
        try:
            header = header_of(sealed)
            return unseal(sealed, await self._data_key(header, described, account))
        except WrongKey:
            problem = f"{described} was not sealed with the key of secrets.seal, or it was changed"
            raise _refused(account, problem, "gemini-pool secrets recover") from None

    async def wait_seal(self, data: bytes, path: Path, account: str) -> bytes:
        """What to write to `path`: `data`, sealed when sealing has begun and the file is ours. Raises
        `CredentialError` when the key cannot be had: a secret is never put down in the open instead."""
        if self._key is None or not self.covers(path):
            return data
        header = read_index(self._state_dir)
        if header is None:
            return data
        try:
            return seal(data, header, await self._data_key(header, str(path), account))
        except WrongKey:
            problem = f"{self._state_dir / INDEX} does not go with the key of secrets.seal"
            raise _refused(account, problem, "gemini-pool secrets recover") from None

    def covers(self, path: Path) -> bool:
        """Whether the file is ours to seal."""
        return path.is_relative_to(self._state_dir) and getattr(self._key, "path", None) != path

    async def _data_key(self, header: Header, described: str, account: str) -> bytes:
        async with self._lock:
            known = self._data_keys.get(header.id)
            if known is None:
                known = await asyncio.to_thread(unlock, header, await self._ask(described, account))
                self._data_keys[header.id] = known
            return known

    async def _ask(self, described: str, account: str) -> bytes:
        if self._key is None:
            hint = "name its key in config.toml: [secrets] seal = { keyring = … }; or: gemini-pool secrets recover"
            raise _refused(account, f"{described} is sealed, and no key is configured", hint)
        try:
            return key_text(await self._key.read())
        except PoolError as error:
            words = error.message.removeprefix(f"account {KEY}: ")
            problem = f"{described} is sealed, and its key cannot be had: {words}"
            raise _refused(account, problem, error.hint) from None


def _refused(account: str, problem: str, hint: str) -> CredentialError:
    return CredentialError(Failure.SECRET, f"account {account}: {problem}", account=account, hint=hint)
