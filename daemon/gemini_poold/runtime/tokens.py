"""Owns access tokens: warm before anybody asks, renewed in the background, one renewal per login at a time.

When a renewal is due is `core.refresh`'s decision, how it is done a credential's. What an account becomes when its
token fails is the pool's: it hears of every success and failure through the two callbacks.

Rules
1. A stale token is served while it is valid; an expired one never leaves.
2. Accounts with the same login share one token. Whoever needs a token joins the renewal that is under way; a caller
   that gives up does not stop it.
3. What failed for good is not tried again before the credential changes or a person says so (`retry`), not even by a
   later run: what is restarted in a loop must not hammer the token endpoint. A replaced secret counts as a change.
4. While nothing but failures that pass comes from the token endpoints, one background renewal at a time asks, at most
   once a second over all logins; the first success lets everybody try at once.
5. A 401 renews once per token: who comes with an older token's 401 gets the newer token without another call.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import count
from math import inf, isinf
from typing import NamedTuple

from gemini_pool.wire import TokenInfo

from ..clock import Clock
from ..core import refresh
from ..credentials.base import Credential, CredentialError, Failure, Token
from ..errors import PoolError

log = logging.getLogger(__name__)

MAX_SLEEP_S = 30.0  # a woken laptop or a stepped clock is noticed after at most this
MAX_PARALLEL = (
    24  # all of 200 logins within 5 s after a resume; a waiting request's renewal is never queued behind them
)
RENEWAL_LIMIT_S = 90.0  # past every timeout inside a credential: a hung one frees its place
STOP_GRACE_S = 5.0  # an answer that may carry a rotated refresh token is waited for
ILL_AFTER = 8  # failures in a row, over all logins, after which the endpoints count as unreachable
ILL_GAP_S = 1.0
FORCED_GAP_S = 30.0  # a token this young that is refused is not the problem
SECRET_LOOK_S = 5.0  # how often a held login's secret file is looked at
MIN_GAP_S = 0.5  # between two renewals of one login, however short its tokens live


class Need(StrEnum):
    """Why somebody asks for a token to be renewed."""

    MISSING = "missing"  # a valid one is needed now
    REFUSED = "refused"  # Google answered 401 to it
    SHORT = "short"  # valid, but not for long enough


class Refused(NamedTuple):
    """How an earlier run found a login. `same(digest)`: whether its secret is still the one that was refused."""

    error: CredentialError
    same: Callable[[str], bool]


OnToken = Callable[[str, Token], None]
OnFailure = Callable[[str, CredentialError, float], None]


@dataclass(slots=True)
class Counters:
    """Since the start. `ahead`: renewals that ended while the old token was still valid. `waited_for_token`: requests
    that had to wait for a token call."""

    renewals: int = 0
    ahead: int = 0
    failures: int = 0
    waited_for_token: int = 0


class _Login:
    """One login: its credential, who uses it, its token and its next renewal. Changed by the keeper alone."""

    __slots__ = (
        "accounts",
        "credential",
        "error",
        "failures",
        "failures_in_row",
        "fingerprint",
        "flight",
        "forced_at",
        "generation",
        "headers",
        "held",
        "next_at",
        "past",
        "renewals",
        "renewed_at",
        "token",
        "valid_until",
    )

    def __init__(self, credential: Credential, now: float) -> None:
        self.credential = credential
        self.past: Refused | None = None  # until it is known whether that still holds
        self.accounts: set[str] = set()
        self.token: Token | None = None
        self.headers: dict[str, str] = {}
        self.valid_until = -inf  # what `headers_nowait` compares; -inf when the token was refused
        self.generation = 0
        self.next_at = now
        self.flight: asyncio.Task[Token] | None = None
        self.error: CredentialError | None = None
        self.held = False
        self.fingerprint = ""
        self.failures_in_row = 0
        self.failures = 0
        self.renewals = 0
        self.renewed_at: float | None = None
        self.forced_at = -inf

    def valid(self, now: float) -> Token | None:
        return self.token if now < self.valid_until else None

    def revive(self, now: float) -> None:
        """Forget what failed: a person acted."""
        self.held = False
        self.error = None
        self.past = None
        self.failures_in_row = 0
        if self.valid(now) is None:
            self.next_at = now


class TokenKeeper:
    """Every account's token. `run` drives it; everything else may be called from the same loop at any time.

    `on_token(account_id, token)` follows every new token; `on_failure(account_id, error, next_try_at)` every failed
    renewal (`next_try_at` is inf when only a person can help; the old token may still be valid then).
    """

    def __init__(
        self,
        clock: Clock,
        *,
        lead_s: float,
        rng: Callable[[], float],
        on_token: OnToken = lambda _id, _token: None,
        on_failure: OnFailure = lambda _id, _error, _at: None,
        max_parallel: int = MAX_PARALLEL,
    ) -> None:
        self._clock = clock
        self._lead_s = lead_s
        self._rng = rng
        self._on_token = on_token
        self._on_failure = on_failure
        self._max_parallel = max_parallel
        self._logins: dict[str, _Login] = {}
        self._by_account: dict[str, _Login] = {}
        # By instant; an entry whose instant is no longer its login's own is passed over.
        self._queue: list[tuple[float, int, _Login]] = []
        self._serial = count()
        self._flights: set[asyncio.Task[Token]] = set()
        self._background = 0
        self._failing = 0  # passing failures in a row
        self._started_at = -inf
        self._wake = asyncio.Event()
        self._looked_at = -inf
        self.counters = Counters()

    # ---- the request path ---------------------------------------------------------------------------------------

    def headers_nowait(self, account_id: str) -> dict[str, str] | None:
        """The header fields of the account's token (not to be changed), or None when it has no valid one."""
        login = self._by_account.get(account_id)
        if login is None or self._clock.now() >= login.valid_until:
            return None
        return login.headers

    def token_nowait(self, account_id: str, now: float, *, min_validity_s: float = 0.0) -> Token | None:
        """The account's token if it is valid for at least so long."""
        login = self._by_account.get(account_id)
        return login.valid(now + min_validity_s) if login else None

    def generation(self, account_id: str) -> int:
        """Number of the account's token: kept by who sends a request, and given back with its 401."""
        login = self._by_account.get(account_id)
        return login.generation if login else 0

    async def renew(
        self, account_id: str, reason: Need = Need.MISSING, *, generation: int | None = None
    ) -> Token:
        """A valid token, waiting for a token call only if there is none.

        `generation`: the number of the token that was refused (without one: the present). Raises `CredentialError`
        (its `retry_at` says when it is tried again by itself), `PoolError` "not_found" or "shutting_down".
        """
        login = self._by_account.get(account_id)
        if login is None:
            raise PoolError("not_found", f"no account {account_id} has a credential", account=account_id)
        now = self._clock.now()
        if token := self._enough(login, reason, generation, now):
            return token
        if reason is Need.REFUSED:
            login.forced_at, login.valid_until = now, -inf
        if login.flight is None and login.error is not None and (login.held or now < login.next_at):
            login.error.retry_at = None if login.held else login.next_at
            raise login.error.with_traceback(None)
        self.counters.waited_for_token += 1
        return await self._join(login.flight or self._start(login))

    async def retry(self, account_id: str) -> Token:
        """A person says: try again. Like `renew`, but also after a failure for good."""
        if login := self._by_account.get(account_id):
            login.revive(self._clock.now())
        return await self.renew(account_id)

    def _enough(self, login: _Login, reason: str, generation: int | None, now: float) -> Token | None:
        token = login.valid(now)
        if token is None or reason is Need.MISSING:
            return token
        if reason is Need.REFUSED:
            # Replaced since, or so young that another one would be refused, too (and Google asked in a loop).
            replaced = generation is not None and generation != login.generation
            return token if replaced or now - login.forced_at < FORCED_GAP_S else None
        return None

    async def _join(self, flight: asyncio.Task[Token]) -> Token:
        try:
            return await asyncio.shield(flight)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if flight.cancelled() and not (task and task.cancelling()):
                raise PoolError("shutting_down", "the daemon is stopping") from None
            raise

    # ---- accounts -----------------------------------------------------------------------------------------------

    def set_accounts(
        self, credentials: Mapping[str, Credential], *, refused: Mapping[str, Refused] | None = None
    ) -> None:
        """From now on these accounts. A token outlives this if its login is still used; another credential object
        for the same login means that somebody changed something, so what had failed for good is tried again.

        `on_token` is called for every account that is new or has a new credential object and whose token is warm.
        `refused`: accounts whose logins an earlier run found dead; they are asked again only with another secret.
        """
        now = self._clock.now()
        before = {account_id: login.credential for account_id, login in self._by_account.items()}
        logins: dict[str, _Login] = {}
        self._by_account = {}
        for account_id, credential in credentials.items():
            login = logins.get(credential.identity)
            if login is None:
                past = (refused or {}).get(account_id)
                login = logins[credential.identity] = self._adopt(credential, now, past)
                login.accounts = set()
            login.accounts.add(account_id)
            self._by_account[account_id] = login
        self._logins = logins
        for login in logins.values():
            self._warm(login, now)
        for account_id, credential in credentials.items():
            login = self._by_account[account_id]
            if before.get(account_id) is not credential and (token := login.valid(now)):
                self._on_token(account_id, token)
        self._plan()

    def _adopt(self, credential: Credential, now: float, past: Refused | None) -> _Login:
        login = self._logins.get(credential.identity)
        if login is None:
            login = _Login(credential, now)
            login.past = past
            return login
        if login.credential is not credential:
            login.credential = credential
            login.revive(now)
            if login.token is not None and isinf(login.token.expires_at):
                login.token, login.valid_until = None, -inf  # a key never falls due: look at its place again
        return login

    def _warm(self, login: _Login, now: float) -> None:
        """What needs no call (API keys) is ready before anybody can ask."""
        if login.token is not None or login.flight is not None or login.held:
            return
        login.fingerprint = login.credential.fingerprint_nowait()
        try:
            token = login.credential.warm_nowait()
        except CredentialError as error:
            self._failed(login, error)
            return
        if token is not None:
            self._install(login, token, now)

    def info(self, account_id: str) -> TokenInfo:
        """For status. `last_error` is empty once a renewal succeeded; a credential's warning stands there then."""
        login = self._by_account.get(account_id)
        if login is None:
            return TokenInfo("none", None, None, None, 0, 0, "")
        token, now = login.token, self._clock.now()
        state = refresh.freshness(token.life if token else None, now, self._lead_s)
        if token is not None and login.valid_until < token.expires_at:
            state = refresh.Freshness.EXPIRED  # refused by Google before its time
        return TokenInfo(
            state=str(state),
            expires_at=None if token is None or isinf(token.expires_at) else token.expires_at,
            renew_at=None if login.held or isinf(login.next_at) else login.next_at,
            renewed_at=login.renewed_at,
            renewals=login.renewals,
            failures=login.failures,
            last_error=str(login.error) if login.error else login.credential.warning,
        )

    def error_of(self, account_id: str) -> CredentialError | None:
        """Why the account's last renewal failed; None when it did not."""
        login = self._by_account.get(account_id)
        return login.error if login else None

    # ---- the driver ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Renew what is due, until cancelled; then wait a moment for renewals under way, and stop them."""
        try:
            while True:
                self._wake.clear()
                delay = self._turn(self._clock.now())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay):
                        await self._wake.wait()
        finally:
            await self._drain()

    def replan(self, now: float, *, stepped_s: float = 0.0) -> None:
        """After a suspend, a clock step or when the network came back: look at everything anew, and try at once what
        waits out a failure.

        `stepped_s`: the wall clock was set by so much. A token's real age does not change with it.
        """
        self._failing = 0  # of another time and place
        for login in self._logins.values():
            if stepped_s and login.token is not None and not isinf(login.token.expires_at):
                old = login.token
                login.token = Token(old.value, old.issued_at + stepped_s, old.expires_at + stepped_s)
                login.valid_until += stepped_s
                login.next_at += stepped_s
                if login.valid(now):
                    self._tell(login, login.token)
            if login.error is not None and not login.held:
                login.next_at, login.failures_in_row = now, 0
        self._plan()

    def _turn(self, now: float) -> float:
        """Start what is due; how long nothing else can fall due."""
        self._look_at_secrets(now)
        while self._queue and self._background < (1 if self._ill else self._max_parallel):
            if self._ill and 0 <= now - self._started_at < ILL_GAP_S:
                return self._started_at + ILL_GAP_S - now
            at, _, login = self._queue[0]
            if at > now and not self._from_the_future(login, now):
                break
            heapq.heappop(self._queue)
            if at == login.next_at and login.flight is None and not login.held and self._is_ours(login):
                self._started_at = now
                self._start(login, background=True)
        if not self._queue or self._queue[0][0] <= now:
            return MAX_SLEEP_S  # the next that lands makes room
        return min(MAX_SLEEP_S, max(0.0, self._queue[0][0] - now))

    @property
    def _ill(self) -> bool:
        return self._failing >= ILL_AFTER

    def _healthy(self, now: float) -> None:
        """A token came. If that is news, everybody who waits out a failure may try."""
        was_ill, self._failing = self._ill, 0
        if was_ill:
            for login in self._logins.values():
                if login.error is not None and login.error.failure is Failure.TRANSIENT:
                    login.next_at, login.failures_in_row = min(login.next_at, now), 0
            self._plan()

    def _from_the_future(self, login: _Login, now: float) -> bool:
        """Issued later than now: the clock was set back, and nothing is known about the token's age."""
        token = login.token if login.error is None else None
        return token is not None and not isinf(token.expires_at) and now < token.issued_at - 1.0

    def _look_at_secrets(self, now: float) -> None:
        """A held login, or one whose secret cannot be read, whose secret was replaced is tried again."""
        if 0 <= now - self._looked_at < SECRET_LOOK_S:
            return
        self._looked_at = now
        for login in self._logins.values():
            waiting = login.held or (login.error is not None and login.error.failure is Failure.SECRET)
            if waiting and login.credential.fingerprint_nowait() != login.fingerprint:
                login.revive(now)
                login.next_at = now
                self._schedule(login)

    def _plan(self) -> None:
        """The queue anew, of what may fall due."""
        logins = self._logins.values()
        self._queue = [(login.next_at, next(self._serial), login) for login in logins if not login.held]
        heapq.heapify(self._queue)
        self._wake.set()

    def _schedule(self, login: _Login) -> None:
        if not login.held and not isinf(login.next_at):
            heapq.heappush(self._queue, (login.next_at, next(self._serial), login))
            self._wake.set()

    def _is_ours(self, login: _Login) -> bool:
        return self._logins.get(login.credential.identity) is login

    async def _drain(self) -> None:
        flights = set(self._flights)
        if flights:
            await asyncio.wait(flights, timeout=STOP_GRACE_S)
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    # ---- one renewal --------------------------------------------------------------------------------------------

    def _start(self, login: _Login, *, background: bool = False) -> asyncio.Task[Token]:
        flight = asyncio.get_running_loop().create_task(self._fly(login), name="token renewal")
        login.flight = flight
        self._flights.add(flight)
        self._background += background

        def landed(task: asyncio.Task[Token]) -> None:
            self._flights.discard(task)
            self._background -= background
            login.flight = None
            if not task.cancelled():
                task.exception()  # whoever waits has seen it; if nobody did, it is in the login's state
            if login.error is not None:
                login.error.__traceback__ = None  # its frames keep secrets alive
            self._schedule(login)
            self._wake.set()

        flight.add_done_callback(landed)
        return flight

    async def _fly(self, login: _Login) -> Token:
        now = self._clock.now()
        ahead_until = login.valid_until
        login.fingerprint = login.credential.fingerprint_nowait()
        try:
            async with asyncio.timeout(RENEWAL_LIMIT_S):
                await self._check_known(login)
                token = await login.credential.renew(now)
        except CredentialError as error:
            self._failed(login, error)
            raise
        except TimeoutError:
            raise self._surprise(login, f"no answer in {RENEWAL_LIMIT_S:g} s") from None
        except Exception as error:
            log.exception("a renewal of a %s credential broke", login.credential.kind)
            raise self._surprise(login, f"internal fault ({type(error).__name__})") from None
        after = self._clock.now()
        self.counters.renewals += 1
        self.counters.ahead += after < ahead_until
        login.renewals += 1
        login.renewed_at = after
        self._healthy(after)
        self._install(login, token, after)
        self._tell(login, token)
        return token

    async def _check_known(self, login: _Login) -> None:
        """Raise what is known without a call: what an earlier run was told about this very secret, or what this one
        was told about the OAuth client, if that is only seen now."""
        past = login.past
        if past is not None:
            same = past.same(await login.credential.look())
            if login.past is past:
                login.past = None
                if same:
                    raise past.error
        refused = {
            each.credential.client: each.error
            for each in self._logins.values()
            if each.held and each.error is not None and each.error.failure is Failure.CLIENT
        }
        if refused and not login.credential.client:
            await login.credential.look()
            if (error := refused.get(login.credential.client)) and login.credential.client:
                raise error

    def digest(self, account_id: str) -> str:
        """Names the account's secret as it was used last; "" when unknown."""
        login = self._by_account.get(account_id)
        return login.credential.digest if login else ""

    def _tell(self, login: _Login, token: Token) -> None:
        for account_id in sorted(login.accounts):
            self._on_token(account_id, token)

    def _install(self, login: _Login, token: Token, now: float) -> None:
        login.token = token
        login.headers = login.credential.headers(token)
        login.valid_until = token.expires_at
        login.generation += 1
        login.error, login.past, login.held, login.failures_in_row = None, None, False, 0
        login.next_at = max(refresh.due_at(token.life, self._lead_s, self._rng()), now + MIN_GAP_S)
        self._schedule(login)

    def _surprise(self, login: _Login, words: str) -> CredentialError:
        account = min(login.accounts, default="")
        error = CredentialError(Failure.TRANSIENT, f"account {account}: no token: {words}", account=account)
        self._failed(login, error)
        return error

    def _failed(self, login: _Login, error: CredentialError) -> None:
        now = self._clock.now()
        self.counters.failures += 1
        login.failures += 1
        login.failures_in_row += 1
        self._failing += error.failure is Failure.TRANSIENT
        concerned = [login]
        if error.failure is Failure.CLIENT and login.credential.client:
            if login.held:
                return  # another login of the client was refused meanwhile, and everybody was told
            concerned += [
                other
                for other in self._logins.values()
                if other is not login
                and other.credential.client == login.credential.client
                and not other.held
            ]
        for each in concerned:
            if each is not login:
                each.fingerprint = each.credential.fingerprint_nowait()
            self._hold_or_retry(each, error, now)

    def _hold_or_retry(self, login: _Login, error: CredentialError, now: float) -> None:
        login.error = error
        login.held = error.failure.held
        if login.held:
            login.next_at = inf
        else:
            transient = error.failure is Failure.TRANSIENT
            login.next_at = refresh.retry_at(
                now,
                login.failures_in_row,
                self._rng(),
                expires_at=login.valid_until if transient else -inf,
                told_s=error.retry_after_s,
                cap_s=refresh.RETRY_CAP_S if transient else refresh.RARE_CAP_S,
            )
            self._schedule(login)
        error.retry_at = None if login.held else login.next_at
        for account_id in sorted(login.accounts):
            self._on_failure(account_id, error, login.next_at)
