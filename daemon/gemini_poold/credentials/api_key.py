"""API keys: the secret is the token, sent as `x-goog-api-key`. Never judged by its prefix."""

from __future__ import annotations

from .base import Token, digest_of
from .secret_ref import Source, bare


class ApiKey:
    """A bare key. Renewing reads the place again, so a replaced key file is picked up after a refusal."""

    kind = "api-key"
    client = ""
    warning = ""
    digest = ""

    def __init__(self, source: Source, account: str) -> None:
        self._source = source
        self._account = account
        self.identity = f"api-key {source.place}"

    def warm_nowait(self) -> Token | None:
        data = self._source.read_nowait()
        return None if data is None else self._token(data)

    async def renew(self, now: float) -> Token:  # noqa: ARG002  (a key has no age)
        return self._token(await self._source.read())

    def headers(self, token: Token) -> dict[str, str]:
        return {"x-goog-api-key": token.value.reveal()}

    def fingerprint_nowait(self) -> str:
        return self._source.fingerprint_nowait()

    async def look(self) -> str:
        self.digest = digest_of(await self._source.read())
        return self.digest

    def _token(self, data: bytes) -> Token:
        self.digest = digest_of(data)
        return Token(bare(data, self._source, self._account), issued_at=0.0)
