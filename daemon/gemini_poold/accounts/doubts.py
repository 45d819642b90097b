"""What both files say that is allowed, and yet cannot work together. Told at start, at a reload and by the doctor.

No error, because the files are edited one after the other: what is doubtful now may be right with the next save.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..config import Config
from .schema import AccountEntry

AUTO = "auto:"


def doubts(config: Config, entries: Iterable[AccountEntry]) -> list[str]:
    """A sentence for each, none where all is well."""
    whom = config.gateway.metadata_account
    if not whom:
        return []
    return [f"[gateway] metadata_account: {found}"] if (found := _lender(whom, list(entries))) else []


def _lender(whom: str, entries: list[AccountEntry]) -> str:
    """Why nobody gets a token of `whom`; empty when somebody may."""
    if whom.startswith(AUTO):
        project = whom.removeprefix(AUTO)
        # A project may still be discovered where none is written.
        if any(_lends(entry) and entry.project in (project, "") for entry in entries):
            return ""
        return f"no account of project {project!r} lends its secret"
    entry = next((entry for entry in entries if entry.id == whom), None)
    if entry is None:
        return f"there is no account {whom!r}"
    if entry.credential.type == "api-key":
        return f"account {whom} has only an API key, and tokens are asked for"
    if entry.lend is False:
        return f"account {whom} does not lend its secret (lend = false)"
    return "" if entry.enabled else f"account {whom} is not enabled"


def _lends(entry: AccountEntry) -> bool:
    return entry.enabled and entry.credential.type != "api-key" and entry.lend is not False
