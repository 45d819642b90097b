"""A connection as the verbs see it."""

from __future__ import annotations

from typing import Protocol


class Caller(Protocol):
    """`owner`: what leases are held under. `name`, `version`: what the client calls itself."""

    owner: str
    name: str
    version: str

    @property
    def methods(self) -> list[str]:
        """The methods that this connection may call."""
        ...

    async def progress(self, token: int | str, value: bytes) -> None:
        """Send one `$/progress` whose value is this JSON text; waits while the client does not read."""

    def cancel_token(self, token: int | str) -> None:
        """Cancel the call that streams under this token, if it still runs."""

    def subscribe(self, kinds: frozenset[str]) -> None:
        """From now on tell this client of these kinds of events."""
