"""One renewal of a login for all processes of a user: a lock, and beside it the newest access token.

A second daemon, a restart or the command then takes the token that is there instead of asking Google again, and two
processes never rotate one refresh token at the same time. Kept in the state folder (0600), never beside the user's
own file. Losing it costs a token call and nothing else, so every fault of it but a held lock is passed over.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec

from .. import files
from ..clock import Clock
from ..core import refresh
from ..errors import FileRefused
from .base import Context, CredentialError, Failure, Secret, Token, digest_of
from .sealer import Sealer
from .secret_ref import FileSource

log = logging.getLogger(__name__)

LOCK_TIMEOUT_S = 30.0  # longer than one token call, so a live holder is waited for
LOCK_POLL_S = 0.05
FOLDER = "tokens"


class _Saved(msgspec.Struct):
    """`grant` tells whether the token came from the refresh token that we would use."""

    grant: str
    token: str
    issued_at: float
    expires_at: float

    def __repr__(self) -> str:
        return "_Saved(***)"


class TokenShare:
    """The lock and the shared token of one login (`key`: the credential's identity)."""

    def __init__(
        self, state_dir: Path, key: str, clock: Clock, *, lead_s: float, sealer: Sealer | None = None
    ) -> None:
        name = hashlib.sha256(key.encode()).hexdigest()[:24]
        self._folder = state_dir / FOLDER
        self._lock = self._folder / f"{name}.renewal"
        self._path = self._folder / f"{name}.json"
        self._clock = clock
        self._lead_s = lead_s
        self._source = FileSource(self._path, "", sealer=sealer)

    @contextlib.asynccontextmanager
    async def locked(self, account: str) -> AsyncIterator[None]:
        """Nobody else renews this login meanwhile. Raises a transient `CredentialError` after `LOCK_TIMEOUT_S`."""
        try:
            files.ensure_private_dir(self._folder)
            fd = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except FileRefused as error:
            raise CredentialError(
                Failure.SECRET, f"account {account}: {error.message}", account=account, hint=error.hint
            ) from None
        except OSError as error:
            raise CredentialError(
                Failure.TRANSIENT,
                f"account {account}: cannot lock {self._lock}: {error.strerror}",
                account=account,
            ) from None
        try:
            await self._wait_flock(fd, account)
            yield
        finally:
            os.close(fd)

    def read(self, grant: str, *, not_: Token | None) -> Token | None:
        """The shared token if it is of this `grant`, not `not_` (which failed or is due) and not due itself."""
        try:
            # Sealed, its key is at hand: the login's own file was opened a moment ago.
            saved = msgspec.json.decode(self._source.read_nowait() or b"", type=_Saved)
        except (CredentialError, OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return None
        token = Token(Secret(saved.token), saved.issued_at, saved.expires_at)
        if saved.grant != grant or (not_ is not None and token.value == not_.value):
            return None
        now = self._clock.now()
        earliest = refresh.due_at(token.life, self._lead_s, 1.0)
        # From the future: the wall clock was set back, and nothing can be said about the token's age.
        return token if token.issued_at <= now < earliest else None

    async def write(self, grant: str, token: Token) -> None:
        saved = _Saved(grant, token.value.reveal(), token.issued_at, token.expires_at)
        try:
            await self._source.write(msgspec.json.encode(saved), generations=0)
        except CredentialError as error:
            log.warning("cannot keep an access token: %s", error.message)

    async def token(
        self, ctx: Context, account: str, *, grant: str, identity: str, make: Callable[[], Awaitable[Token]]
    ) -> Token:
        """The shared token of `grant`, unless `identity` had it already; else the one that `make` gets, for everybody.
        Raises what `make` raises."""
        ends = ctx.endpoints
        grant = digest_of(f"{grant} {ends.oauth_token} {ends.sts} {ends.iam_credentials}".encode())
        async with self.locked(account):
            found = self.read(grant, not_=ctx.memory.handed_out.get(identity)) if ctx.share_tokens else None
            if found is None:
                found = await make()
                if ctx.share_tokens:
                    await self.write(grant, found)
        ctx.memory.handed_out[identity] = found
        return found

    async def _wait_flock(self, fd: int, account: str) -> None:
        deadline = self._clock.monotonic() + LOCK_TIMEOUT_S
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if self._clock.monotonic() >= deadline:
                    problem = f"another process has been renewing it for {LOCK_TIMEOUT_S:g} s"
                    hint = f"see which: fuser {self._lock}"
                    raise CredentialError(
                        Failure.TRANSIENT, f"account {account}: {problem}", account=account, hint=hint
                    ) from None
                await self._clock.sleep(LOCK_POLL_S)


def share_of(ctx: Context, identity: str) -> TokenShare:
    """The lock and token of a credential that has no refresh token to rotate."""
    return TokenShare(ctx.state_dir, identity, ctx.clock, lead_s=ctx.lead_s, sealer=ctx.sealer)
