"""The local keys of the configuration, read from where they are. The default key's file is made at the first start."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..config import Gateway, SecretRef
from ..credentials.secret_ref import resolve
from ..errors import PoolError
from ..files import atomic_write, ensure_private_dir
from .auth import LocalClient, LocalKeys, new_key

DEFAULT_CLIENT = "default"


async def load(gateway: Gateway, *, state_dir: Path, environ: Mapping[str, str]) -> LocalKeys:
    """Every client with its key. A key that cannot be read opens nothing, and is one of the `problems`."""
    problems: list[PoolError] = []
    try:
        _make_default(gateway.key, state_dir)
    except PoolError as error:
        problems.append(error)
    wanted = [(LocalClient(DEFAULT_CLIENT), gateway.key)]
    wanted += [(LocalClient(c.name, c.rpm, c.models), c.key) for c in gateway.clients]
    keys: list[tuple[LocalClient, str]] = []
    for client, ref in wanted:
        try:
            secret = await resolve(
                ref, account=f"gateway key of {client.name}", environ=environ, state_dir=state_dir
            )
        except PoolError as error:
            problems.append(error)
            continue
        keys.append((client, secret.reveal()))
    return LocalKeys(keys, problems=problems)


def _make_default(ref: SecretRef, state_dir: Path) -> None:
    if ref != Gateway().key:
        return
    path = state_dir / ref.file
    if not path.exists() and not path.is_symlink():
        ensure_private_dir(path.parent)
        atomic_write(path, new_key().encode() + b"\n")
