"""google-auth: credentials whose tokens come from the daemon, for every SDK of Google's that takes credentials.

client = storage.Client(credentials=PoolCredentials(account="work"), project="p")
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from google.auth import credentials, exceptions

from gemini_pool import wire
from gemini_pool._sync import Pool
from gemini_pool.errors import PoolError


class PoolCredentials(credentials.Credentials):
    """Tokens of one account, or of one that the daemon chooses by `backend` or `model`.

    Nothing is sent before the first token is needed. The daemon renews ahead, so a refresh costs one trip to a socket.
    Errors are google-auth's `RefreshError` with the daemon's sentence and hint; `retryable` is the daemon's word.
    """

    def __init__(
        self,
        account: str = "",
        *,
        backend: wire.Backend | None = None,
        model: str = "",
        scopes: Sequence[str] = (),
        pool: Pool | None = None,
    ) -> None:
        super().__init__()
        self._pool = pool or Pool(name="google-auth")
        self._account = account
        self._backend = backend
        self._model = model
        self._scopes = list(scopes)

    def refresh(self, request: Any) -> None:
        """google-auth's hook. `request`, its way to the network, is not used."""
        del request
        try:
            found = self._pool.token(
                self._account, backend=self._backend, model=self._model, scopes=self._scopes
            )
        except PoolError as error:
            raise exceptions.RefreshError(str(error), retryable=error.retryable) from None
        if found.token_type != "Bearer":
            raise exceptions.RefreshError(
                f"account {found.account} has an API key, and Google's SDKs want a token here"
            )
        self.token = found.token
        # google-auth counts in UTC without saying so.
        self.expiry = (
            datetime.fromtimestamp(found.expires_at, UTC).replace(tzinfo=None) if found.expires_at else None
        )
