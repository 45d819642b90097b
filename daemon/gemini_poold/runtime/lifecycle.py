"""From an entry in the accounts file to an account that serves: gate, credential, token, set-up, and back.

The one place that knows all four. What the pool hears from here: an account is usable, cannot be reached for now, or
is refused for a reason that a person must mend.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Protocol

from ..accounts.schema import AccountEntry, to_model
from ..clock import Clock
from ..core import refresh
from ..core.health import HEALING, HELD
from ..core.model import Account, AccountState, Backend, DiscoveryRow, Kind, Outcome, PoolEvent
from ..core.state import Changes
from ..credentials import registry
from ..credentials.base import Context, Credential, CredentialError, Failure, Token
from ..errors import PoolError
from .broker import Broker
from .tokens import Need, Refused, TokenKeeper

log = logging.getLogger("gemini_pool.accounts")

_NAP_S = 30.0
_LOOK_S = 5.0  # how often the secret files of held accounts are looked at
_CLEARED_BY_LOGIN = frozenset({AccountState.BLOCKED_BY_TERMS})
# What a backend says of an account. A new token proves nothing against it: the backend is asked again.
_SAID_BY_BACKEND = HEALING & {
    AccountState.UNLICENSED, AccountState.NEEDS_VALIDATION, AccountState.MISCONFIGURED,
}  # fmt: skip
# States that a token endpoint put an account into, for good.
_REFUSED = {
    AccountState.LOGIN_REQUIRED: Failure.LOGIN,
    AccountState.DEAD: Failure.DEAD,
    AccountState.CLIENT_INVALID: Failure.CLIENT,
}


class SettingUp(Protocol):
    """`runtime.setup.Setup`: what an account's backend wants to be asked before its first request."""

    async def run(self, account: Account, headers: Mapping[str, str]) -> DiscoveryRow | Outcome:
        """A discovery, or why the account cannot be used. Raises PoolError for a passing failure."""
        ...


@dataclass(slots=True)
class _SetUp:
    """How far an account's set-up is. `credential`: the one it was done with."""

    credential: Credential
    done: bool = False
    failures: int = 0
    next_at: float = 0.0
    task: asyncio.Task[None] | None = None


class Lifecycle:
    """Applies the accounts file to the running daemon. `run` drives set-ups that must be tried again."""

    def __init__(
        self,
        broker: Broker,
        setup: SettingUp,
        context: Context,
        *,
        clock: Clock,
        rng: Callable[[], float],
    ) -> None:
        self._broker = broker
        self._setup = setup
        self.context = context  # replaced when the way to Google changes; then `apply(refresh_all=True)`
        self._clock = clock
        self._rng = rng
        self.tokens = TokenKeeper(
            clock, lead_s=context.lead_s, rng=rng, on_token=self._token_came, on_failure=self._token_failed
        )
        self._entries: dict[str, AccountEntry] = {}
        self._fingerprints: dict[str, str] = {}
        self._credentials: dict[str, Credential] = {}
        self._setups: dict[str, _SetUp] = {}
        self._past: dict[str, str] = {}  # held since an earlier run: with which secret
        self._looked_at = -inf
        self._wake = asyncio.Event()
        self._counted = (0, 0, 0)

    # ---- the accounts file -----------------------------------------------------------------------------------

    def apply(self, entries: Sequence[AccountEntry], *, refresh_all: bool = False) -> Changes:
        """Take these accounts. `refresh_all`: the way to Google changed, so every credential is made anew."""
        now = self._clock.now()
        pool = self._broker.pool
        old, self._entries = self._entries, {entry.id: entry for entry in entries}
        renewed = frozenset(
            entry.id
            for entry in entries
            if entry.id in old and (refresh_all or _differs(old[entry.id], entry))
        )
        held = {member.id for member in pool.members.values() if member.state in HELD}
        restarted = frozenset(i for i in renewed if old[i] != self._entries[i])
        changes = pool.configure([to_model(entry) for entry in entries], now, restarted=restarted)
        self._past |= {i: pool.members[i].secret for i in changes.added if pool.members[i].state in HELD}
        anew = renewed | held.intersection(
            changes.changed
        )  # whoever edits a dead account wants it tried again
        credentials: dict[str, Credential] = {}
        for entry in entries:
            if entry.enabled and (credential := self._credential(entry, anew=entry.id in anew)) is not None:
                credentials[entry.id] = credential
        self._credentials = credentials
        for account_id in [i for i, s in self._setups.items() if credentials.get(i) is not s.credential]:
            self._cancel_setup(account_id)
        self.tokens.set_accounts(credentials, refused=self._refused())
        self._broker.changed()
        return changes

    def _refused(self) -> dict[str, Refused]:
        """What an earlier run knew of logins that have not been tried in this one."""
        found: dict[str, Refused] = {}
        for account_id, mark in self._past.items():
            member, entry = self._broker.pool.members.get(account_id), self._entries.get(account_id)
            failure = _REFUSED.get(member.state) if member else None
            if member is None or entry is None or failure is None or not mark:
                continue
            error = CredentialError(
                failure, member.reason, account=account_id, hint=member.hint, url=member.url
            )
            found[account_id] = Refused(error, partial(self._is_marked, entry, mark))
        return found

    def _mark(self, entry: AccountEntry, digest: str) -> str:
        """Names a secret and how it is used; "" when there is nothing to name."""
        if not digest:
            return ""
        used = (digest, entry.backend, entry.credential, entry.project, entry.proxy, self.context.endpoints)
        return hashlib.sha256(repr(used).encode()).hexdigest()[:16]

    def _is_marked(self, entry: AccountEntry, mark: str, digest: str) -> bool:
        return self._mark(entry, digest) == mark

    def _secret_used(self, account_id: str) -> None:
        """Remember with which secret the account is what it is."""
        entry, credential = self._entries.get(account_id), self._credentials.get(account_id)
        if entry is None or credential is None:
            return
        self._fingerprints[account_id] = (
            credential.fingerprint_nowait()
        )  # a rotation of our own is no new login
        self._broker.pool.secret_used(account_id, self._mark(entry, self.tokens.digest(account_id)))

    def entry(self, account_id: str) -> AccountEntry | None:
        """The account as the user wrote it."""
        return self._entries.get(account_id)

    def retry(self, account_id: str) -> None:
        """A person says: try this account again, whatever it is. Raises KeyError."""
        self._broker.pool.clear_state(account_id, self._clock.now())
        self._credentials.pop(account_id, None)
        self._past.pop(account_id, None)
        self.apply(list(self._entries.values()))

    def _credential(self, entry: AccountEntry, *, anew: bool) -> Credential | None:
        kept = self._credentials.get(entry.id)
        if kept is not None and not anew and kept.fingerprint_nowait() == self._fingerprints.get(entry.id):
            return kept
        now, pool = self._clock.now(), self._broker.pool
        if anew:
            self._past.pop(entry.id, None)
        if kept is not None:
            pool.login_changed(entry.id, now)
        blocked = registry.gate(entry)
        if blocked is not None and blocked.state is not None:
            pool.refuse(
                entry.id, blocked.state, now, reason=blocked.reason, hint=blocked.hint, url=blocked.url
            )
            return None
        member = pool.members[entry.id]
        if member.state in _CLEARED_BY_LOGIN:
            pool.clear_state(entry.id, now)  # the user has accepted the risk since
        try:
            made = registry.build(entry, self.context)
            self._fingerprints[entry.id] = made.fingerprint_nowait()
            return made
        except CredentialError as error:
            self._refuse(entry.id, error)
            return None

    # ---- tokens ----------------------------------------------------------------------------------------------

    def _token_came(self, account_id: str, token: Token) -> None:
        member = self._broker.pool.members.get(account_id)
        if member is None:
            return
        self._count_renewals()
        past = self._past.pop(account_id, "")
        self._secret_used(account_id)
        if past and past != member.secret:  # replaced while no daemon ran
            self._broker.pool.login_changed(account_id, self._clock.now())
        if member.account.backend is not Backend.CODE_ASSIST:
            self._usable(account_id, token)
            return
        state = self._setups.get(account_id)
        if state is not None and state.done:
            if member.state in _SAID_BY_BACKEND:
                self.set_up_again(account_id)
            else:
                self._usable(account_id, token)
            return
        self._wake.set()  # its backend wants to be asked first

    def _usable(self, account_id: str, token: Token) -> None:
        self._broker.pool.token_ready(account_id, self._clock.now(), expires_at=token.expires_at)
        self._broker.changed()

    def _token_failed(self, account_id: str, error: CredentialError, next_try_at: float) -> None:
        if error.failure.held or error.state is not AccountState.OFFLINE:
            self._past.pop(account_id, None)
            self._secret_used(account_id)
            self._refuse(account_id, error)
        else:
            self._unreachable(account_id, error, next_try_at)

    def _unreachable(self, account_id: str, error: PoolError, next_try_at: float) -> None:
        now = self._clock.now()
        text = f"{error.message}; next try in {max(0.0, next_try_at - now):.0f} s"
        self._broker.pool.unreachable(account_id, now, reason=error.message, retry_at=next_try_at)
        self._broker.tell(PoolEvent("token", "debug", now, text, account_id))
        self._broker.changed()

    def _refuse(self, account_id: str, error: CredentialError) -> None:
        self._broker.pool.refuse(
            account_id, error.state, self._clock.now(), reason=error.message, hint=error.hint, url=error.url
        )
        self._broker.changed()

    def _count_renewals(self) -> None:
        counters = self.tokens.counters
        now = (counters.renewals, counters.ahead, counters.waited_for_token)
        for name, new, old in zip(
            ("renewals", "renewed_ahead", "waited_for_token"), now, self._counted, strict=True
        ):
            if new > old:
                self._broker.pool.journal.count(name, new - old)
        self._counted = now

    # ---- set-up ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Set accounts up as soon as they have a token, and again after a passing failure. Never returns."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._wake.clear()
                delay = min(self._start_setups(group), self._look_at_held())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay):
                        await self._wake.wait()

    def replan(self) -> None:
        """After a suspend or a clock step: what waits out a failure is tried at once."""
        for state in self._setups.values():
            if state.next_at < inf:
                state.next_at = 0.0
        self._wake.set()

    def set_up_again(self, account_id: str) -> None:
        """A person says: ask the backend again."""
        self._cancel_setup(account_id)
        self._wake.set()

    def _look_at_held(self) -> float:
        """An account that Google's API refused is tried again once its secret's file was replaced. (What its token
        endpoint refused, the keeper watches.) Returns how long nothing needs to be looked at."""
        members, now = self._broker.pool.members, self._clock.now()
        held = [i for i, member in members.items() if member.state in HELD and i in self._credentials]
        if not held or 0 <= now - self._looked_at < _LOOK_S:
            return _LOOK_S if held else _NAP_S
        self._looked_at = now
        if any(self._credentials[i].fingerprint_nowait() != self._fingerprints.get(i) for i in held):
            self.apply(list(self._entries.values()))
        return _LOOK_S

    def _start_setups(self, group: asyncio.TaskGroup) -> float:
        now, delay = self._clock.now(), _NAP_S
        for account_id, credential in self._credentials.items():
            member = self._broker.pool.members.get(account_id)
            if member is None or member.account.backend is not Backend.CODE_ASSIST:
                continue
            if self.tokens.token_nowait(account_id, now) is None:
                continue
            state = self._setups.setdefault(account_id, _SetUp(credential))
            if state.done or state.task is not None:
                continue
            if state.next_at > now:
                delay = min(delay, state.next_at - now)
                continue
            state.task = group.create_task(self._set_up(account_id, state), name=f"set-up of {account_id}")
        return delay

    async def _set_up(self, account_id: str, state: _SetUp) -> None:
        member = self._broker.pool.members.get(account_id)
        headers = self.tokens.headers_nowait(account_id)
        try:
            if member is None or headers is None:
                return
            found = await self._setup.run(member.account, headers)
            if isinstance(found, Outcome) and found.kind is Kind.UNAUTHENTICATED:  # renew once, repeat once
                await self.tokens.renew(account_id, Need.REFUSED)
                found = await self._setup.run(
                    member.account, self.tokens.headers_nowait(account_id) or headers
                )
            if isinstance(found, Outcome) and found.state is None:
                raise PoolError("upstream_error", f"account {account_id}: set-up: {found.reason}")
            if self._setups.get(account_id) is state:
                self._set_up_done(account_id, state, found)
        except PoolError as error:
            if self._setups.get(account_id) is state:
                self._set_up_failed(account_id, state, error)
        except Exception as error:  # the edge of this account's task: the others go on
            log.exception("the set-up of %s broke", account_id)
            if self._setups.get(account_id) is state:
                self._set_up_failed(
                    account_id, state, PoolError("internal", f"set-up: {type(error).__name__}")
                )
        finally:
            state.task = None
            self._wake.set()

    def _set_up_done(self, account_id: str, state: _SetUp, found: DiscoveryRow | Outcome) -> None:
        now, pool = self._clock.now(), self._broker.pool
        if isinstance(found, DiscoveryRow):
            state.done, state.failures = True, 0
            pool.discovered(found)
            token = self.tokens.token_nowait(account_id, now)
            if token is not None:
                pool.token_ready(account_id, now, expires_at=token.expires_at)
        elif found.state is not None:
            # What may heal without us (a validation, an API switched on) is asked again, rarely; the rest never.
            state.failures += 1
            state.next_at = now + refresh.RARE_CAP_S if found.state in HEALING else inf
            pool.refuse(account_id, found.state, now, reason=found.reason, hint=found.hint, url=found.url)
        self._broker.changed()

    def _set_up_failed(self, account_id: str, state: _SetUp, error: PoolError) -> None:
        now = self._clock.now()
        state.failures += 1
        state.next_at = refresh.retry_at(now, state.failures, self._rng(), expires_at=now, told_s=None)
        self._unreachable(account_id, error, state.next_at)

    def _cancel_setup(self, account_id: str) -> None:
        state = self._setups.pop(account_id, None)
        if state is not None and state.task is not None:
            state.task.cancel()


def _differs(old: AccountEntry, new: AccountEntry) -> bool:
    """Whether the credential, or whose name it is used in, changed."""
    return any(
        getattr(old, name) != getattr(new, name)
        for name in (
            "backend",
            "credential",
            "project",
            "enabled",
            "client_origin",
            "accepted_terms_risk",
            "proxy",
        )
    )
