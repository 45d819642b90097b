"""Access tokens for programs that speak to Google themselves: of one account, or of whichever account of a project.

Only accounts that lend, and only tokens that end: an API key never leaves this way. Nothing is leased: who holds a
token reports nothing back.
"""

from __future__ import annotations

from typing import NamedTuple

from ..clock import Clock
from ..core.member import Member
from ..core.model import AccountState
from ..errors import PoolError
from .broker import Broker
from .tokens import TokenKeeper

AUTO = "auto:"
MIN_VALIDITY_S = 300.0  # SDKs renew what has less than 225 s (Python) or 300 s (node) left
ASK_AGAIN_S = 60.0  # told of a token where another account may be better next time


class Lent(NamedTuple):
    """`expires_in_s` is what the program is told, `expires_at` (Unix) when the token really ends."""

    account_id: str
    project: str
    email: str
    token: str
    expires_at: float
    expires_in_s: float


class Lender:
    """`whom`: an account's id, or `auto:PROJECT`."""

    def __init__(self, broker: Broker, tokens: TokenKeeper, clock: Clock) -> None:
        self._broker = broker
        self._tokens = tokens
        self._clock = clock
        self._lent: dict[str, int] = {}
        self._serial = 0

    def project_of(self, whom: str) -> str:
        """The project that programs are told of."""
        return whom.removeprefix(AUTO) if whom.startswith(AUTO) else self._broker.pool.project_of(whom)

    def email_of(self, whom: str) -> str:
        member = self._broker.pool.members.get(whom)
        return member.email if member is not None and member.email else "default"

    async def token(self, whom: str) -> Lent:
        """A token that was renewed ahead, so at once; else when it is here. Raises PoolError."""
        member = self._choose(whom)
        token = self._tokens.token_nowait(member.id, self._clock.now(), min_validity_s=MIN_VALIDITY_S)
        if token is None:
            token = await self._tokens.renew(member.id)
        self._serial += 1
        self._lent[member.id] = self._serial
        left_s = token.expires_at - self._clock.now()
        told_s = min(left_s, ASK_AGAIN_S) if whom.startswith(AUTO) else left_s
        project = self._broker.pool.project_of(member.id)
        return Lent(member.id, project, member.email, token.value.reveal(), token.expires_at, told_s)

    def _choose(self, whom: str) -> Member:
        pool, now = self._broker.pool, self._clock.now()
        if not whom.startswith(AUTO):
            member = pool.members.get(whom)
            if member is None:
                raise PoolError("not_found", f"[gateway] metadata_account: there is no account {whom!r}")
            if not _lends(member):
                raise PoolError(
                    "not_lent",
                    f"account {whom} does not lend its secret, or has only an API key",
                    account=whom,
                )
            members = [member]
        else:
            project = self.project_of(whom)
            members = [m for m in pool.members.values() if _lends(m) and pool.project_of(m.id) == project]
            if not members:
                raise PoolError("no_account_for_model", f"no account of project {project} lends its secret")
        ready = [m for m in members if m.may_serve(now)] or [m for m in members if _is_coming(m)]
        if not ready:
            first = members[0]
            raise PoolError(
                "overloaded",
                f"account {first.id} is {first.shown_state.value.replace('_', ' ')}",
                account=first.id,
            )
        # Who is not resting, then who lent longest ago.
        return min(
            ready, key=lambda m: (pool.chooser.blocked_until(m, "", now) > now, self._lent.get(m.id, 0))
        )


def _lends(member: Member) -> bool:
    return member.account.lend and member.account.credential != "api-key"


def _is_coming(member: Member) -> bool:
    """Its token or set-up is on the way: worth waiting for."""
    return member.shown_state in (AccountState.STARTING, AccountState.OFFLINE)
