"""The risk of a login that was made with another program's OAuth client: its wording, and the record of who took it.

The default is no. A yes names the wording that was shown, holds for one account, and stands in accounts.toml with its
day, so that a later wording is never taken for accepted.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from ..errors import PoolError


class Wording(NamedTuple):
    """`id` is what a client sends back once its person has read and accepted `text`."""

    id: str
    text: str


FOREIGN_CLIENT = Wording(
    "foreign-client-1",
    "This login uses an OAuth client that Google made for another program. Google states that using it from other "
    "software violates its terms of service, and has blocked accounts for it, up to the whole Google account. "
    "I take this risk for this account.",
)


def record(accepted: str, now: float) -> str:
    """What accounts.toml keeps of a yes; empty for no answer. Raises PoolError when another wording was accepted."""
    if not accepted:
        return ""
    if accepted != FOREIGN_CLIENT.id:
        raise demanded(f"{accepted[:60]!r} is not the wording that is to be accepted")
    day = datetime.fromtimestamp(now, UTC).date().isoformat()
    return f"{day} {FOREIGN_CLIENT.id}: {FOREIGN_CLIENT.text}"


def demanded(problem: str, *, account: str = "") -> PoolError:
    """The error that asks for a yes: `details` has the wording to show and the id to send back."""
    details = {"wording": FOREIGN_CLIENT.text, "accept_terms_risk": FOREIGN_CLIENT.id}
    hint = "use an OAuth client of your own (--client-secrets FILE), or accept the risk on record"
    return PoolError("blocked_by_terms", problem, hint=hint, account=account or None, details=details)
