"""Logging in: begin, wait for the browser or take what was pasted, keep the login, and see what it is good for.

Serves the command and editors alike, over RPC. Rules
1. A login made with another program's client is begun only after its risk was accepted, on record (`terms`).
2. A code is spent once. What Google does not know (an old tab) or could not take (the network) ends nothing.
3. What was granted is kept before the browser or anybody else hears of it; nobody has to come back for it.
4. No code, token or secret is in an error, a log line or an answer.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from gemini_pool import wire

from ..accounts.schema import AccountEntry
from ..core.model import Backend, DiscoveryRow, PoolEvent
from ..credentials.base import CLOUD_PLATFORM, CredentialError, Failure
from ..errors import PoolError
from . import flow
from .examine import Examiner, Running
from .exchange import Granted, MalformedCode, OAuthCalls
from .keeping import Keeper
from .listener import LIMIT_S, OLD_TAB, PATH, Listener, Page
from .oauth_client import LOOPBACK, MAKE_ONE, OAuthClient
from .plan import Plan, make_plan

log = logging.getLogger("gemini_pool.login")

MAX_SESSIONS = 16
KEEP_GRACE_S = 5.0  # how long a stopping daemon, or a client that goes, waits for a code that is being spent


@dataclass(slots=True)
class _Session:
    """One login under way. `done` is set when `error` is, or when the login is kept."""

    id: str
    plan: Plan
    asked: flow.Asked
    listener: Listener | None
    notes: list[str] = field(default_factory=list)
    email: str = ""
    kept: bool = False
    error: PoolError | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def end(self, error: PoolError | None = None) -> None:
        self.kept, self.error = error is None, error
        self.done.set()
        if self.listener is not None:
            self.listener.close()


class Login:
    """`random`: secret random bytes."""

    def __init__(
        self,
        keeper: Keeper,
        running: Running,
        examiner: Examiner,
        *,
        random: flow.RandomBytes = secrets.token_bytes,
        limit_s: float = LIMIT_S,
    ) -> None:
        self._keeper = keeper
        self._running = running
        self._examiner = examiner
        self._clock = running.clock
        self._random = random
        self._limit_s = limit_s
        self._sessions: OrderedDict[str, _Session] = OrderedDict()

    # ---- the two verbs -----------------------------------------------------------------------------------------

    async def start(self, params: wire.LoginParams) -> wire.LoginStarted:
        """Begin. Raises PoolError "bad_request", "blocked_by_terms" (its details hold the wording to accept),
        "not_found" (no Gemini CLI here) or "config_invalid"."""
        plan = await make_plan(params, self._keeper)
        await self._make_room(plan.entry.id)
        login = self._random(16).hex()
        listener = Listener(lambda redirect: self._from_browser(login, redirect), path=_path(plan.client))
        try:
            redirect_uri = await self._redirect_uri(plan.client, listener, listen=params.listen)
            asked = self._ask(plan, redirect_uri, params.login_hint)
        except BaseException:
            await listener.aclose()
            raise
        listener.state = asked.state
        self._sessions[login] = _Session(
            login, plan, asked, listener if listener.listening else None, list(plan.notes)
        )
        return wire.LoginStarted(
            url=asked.url,
            login=login,
            port=listener.port if listener.listening else 0,
            redirect_uri=redirect_uri,
            expires_at=self._clock.now() + flow.LIFE_S,
            client_origin=plan.client.origin,
        )

    async def finish(self, params: wire.LoginFinishParams) -> wire.LoginResult:
        """Wait for the browser, or take what was pasted; then say what the account is. May be asked again.

        Raises PoolError "not_found" (no such login), "deadline", "bad_request" (what was pasted is no good; try
        again), or what ended the login.
        """
        session = self._sessions.get(params.login)
        if session is None:
            raise PoolError(
                "not_found", "there is no such login", hint="start it again: gemini-pool login ID"
            )
        if params.code and not session.done.is_set():
            await self._submit(session, flow.parse_pasted(params.code))
        await self._wait(session)
        if session.error is not None:
            raise session.error.with_traceback(None)
        entry = session.plan.entry
        found = await self._examiner.after_login(entry.id, list(session.notes))
        found.email = found.email or session.email
        return wire.LoginResult(
            account=entry.id,
            created=session.plan.created,
            email=session.email,
            client_origin=session.plan.client.origin,
            secret=entry.credential.secret.described if entry.credential.secret else "",
            verdict=found,
        )

    async def aclose(self) -> None:
        """Give all logins up."""
        sessions = list(self._sessions.values())
        self._sessions.clear()
        for session in sessions:
            if not session.done.is_set():
                session.end(PoolError("shutting_down", "the daemon is stopping"))
            if session.listener is not None:
                await session.listener.aclose()

    # ---- beginning ---------------------------------------------------------------------------------------------

    async def _redirect_uri(self, client: OAuthClient, listener: Listener, *, listen: bool) -> str:
        """Where Google sends the browser; listens there if that can be had."""
        if client.web:
            return await _registered(client, listener, self._limit_s, listen=listen)
        try:
            if listen:
                await listener.start(limit_s=self._limit_s)
        except OSError as error:
            log.warning("cannot listen for the browser (%s): the answer must be pasted", error.strerror)
        # Any port will do for the address that is pasted: nothing answers there, the code stands in it.
        port = listener.port or 49152 + int.from_bytes(self._random(2), "big") % 16384
        return f"http://127.0.0.1:{port}{PATH}"

    def _ask(self, plan: Plan, redirect_uri: str, login_hint: str) -> flow.Asked:
        member = self._running.broker.pool.members.get(plan.entry.id)
        return flow.ask(
            plan.client,
            authorize_at=plan.client.authorize_at(self._keeper.ctx.endpoints),
            redirect_uri=redirect_uri,
            scopes=flow.SCOPES[plan.entry.backend],
            login_hint=login_hint or (member.email if member is not None else ""),
            random=self._random,
            now=self._clock.boottime(),
        )

    async def _make_room(self, account_id: str) -> None:
        """Older logins for the same account, those that are over, and the oldest of too many are given up."""
        now = self._clock.boottime()
        old = [
            s.id
            for s in self._sessions.values()
            if s.plan.entry.id == account_id or now - s.asked.asked_at > flow.LIFE_S
        ]
        old += [i for i in self._sessions if i not in old][
            : max(0, len(self._sessions) - len(old) - MAX_SESSIONS + 1)
        ]
        for login in old:
            session = self._sessions.pop(login)
            if not session.done.is_set():
                session.end(PoolError("bad_request", "another login for this account was started since"))
            if session.listener is not None:
                await session.listener.aclose()

    # ---- the answer --------------------------------------------------------------------------------------------

    async def _wait(self, session: _Session) -> None:
        waited = self._clock.boottime() - session.asked.asked_at
        if session.listener is None and not session.done.is_set():
            raise PoolError("bad_request", "nothing is listened for: give the code", hint="paste the address")
        try:
            async with asyncio.timeout(max(0.0, min(self._limit_s, flow.LIFE_S) - waited)):
                await session.done.wait()
        except TimeoutError:
            hint = "paste the address that the browser ended up at, or start again"
            raise PoolError("deadline", "no browser came back in time", hint=hint) from None

    async def _from_browser(self, login: str, redirect: flow.Redirect) -> Page:
        session = self._sessions.get(login)
        if session is None:
            return OLD_TAB
        try:
            await self._submit(session, redirect)
        except MalformedCode:
            return OLD_TAB
        except PoolError as error:
            return Page(False, "The login did not work", f"{error.message}. {error.hint}")
        return Page(True, f"{session.plan.entry.id} is logged in", "You can close this tab.")

    async def _submit(self, session: _Session, redirect: flow.Redirect) -> None:
        """Spend the answer and keep what it brings, although whoever brought it may go away meanwhile. Raises
        PoolError; what ends the login is in its session, too."""
        work = asyncio.ensure_future(self._take(session, redirect))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait({work}, timeout=KEEP_GRACE_S)
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            raise

    async def _take(self, session: _Session, redirect: flow.Redirect) -> None:
        async with session.lock:
            if session.kept:
                return
            if session.error is not None:
                raise session.error.with_traceback(None)
            try:
                await self._spend(session, redirect)
            except (_Over, flow.Refused) as error:
                session.end(error)
                raise
            session.end()

    async def _spend(self, session: _Session, redirect: flow.Redirect) -> None:
        asked, plan = session.asked, session.plan
        code = flow.code_of(asked, redirect, self._clock.boottime())
        calls = OAuthCalls(self._keeper.ctx, plan.client, plan.entry.id, plan.entry.proxy)
        try:
            granted = await calls.exchange(code, verifier=asked.verifier, redirect_uri=asked.redirect_uri)
        except CredentialError as error:
            if error.failure is Failure.TRANSIENT:
                raise
            raise _Over(error) from None
        except MalformedCode:
            raise
        except PoolError as error:
            raise _Over(error) from None
        try:
            await self._keep(session, granted, await calls.who(granted))
        except PoolError as error:
            raise _Over(error) from None

    async def _keep(self, session: _Session, granted: Granted, who: tuple[str, str]) -> None:
        entry, client = session.plan.entry, session.plan.client
        if granted.scopes and CLOUD_PLATFORM not in granted.scopes:
            hint = "log in again and leave every box on Google's page ticked"
            raise PoolError("login_required", "the access to Google Cloud was not granted", hint=hint)
        assert granted.refresh_token is not None
        assert entry.credential.secret is not None
        session.email = who[0]
        session.notes += self._compare(entry, who[1])
        info = client.authorized_user(granted.refresh_token)
        await self._keeper.write_login(entry.credential.secret, entry.id, info)
        await self._keeper.put(entry)
        self._remember(entry, *who)

    def _compare(self, entry: AccountEntry, sub: str) -> list[str]:
        """What is worth knowing about whose login it is."""
        members = self._running.broker.pool.members
        notes = []
        if sub and (old := members.get(entry.id)) is not None and old.sub and old.sub != sub:
            notes.append(f"it is another Google account than before ({old.email or old.sub})")
        twins = [m.id for m in members.values() if sub and m.sub == sub and m.id != entry.id]
        if entry.backend is Backend.CODE_ASSIST and twins:
            notes.append(f"the same Google account is {', '.join(twins)}: they share one quota")
        return notes

    def _remember(self, entry: AccountEntry, email: str, sub: str) -> None:
        """The label and identity of an account whose backend has no set-up that would find them."""
        broker, now = self._running.broker, self._clock.now()
        member = broker.pool.members.get(entry.id)
        if member is not None and entry.backend is not Backend.CODE_ASSIST and (email or sub):
            broker.pool.discovered(DiscoveryRow(entry.id, member.project, member.tier, email, sub, now))
        broker.tell(PoolEvent("account", "info", now, "logged in", entry.id))


class _Over(PoolError):
    """An error after which this login cannot go on: the code is spent."""

    def __init__(self, cause: PoolError) -> None:
        super().__init__(
            cause.code, cause.message, hint=cause.hint, account=cause.account, details=cause.details
        )


def _path(client: OAuthClient) -> str:
    """The path that the listener answers: a web client's is its own."""
    return urlsplit(_local(client)).path or "/" if client.web else PATH


def _local(client: OAuthClient) -> str:
    """A web client's registered address on this machine, "" when it has none that we can listen at."""
    for uri in client.redirect_uris:
        parts = urlsplit(uri)
        if parts.scheme == "http" and parts.hostname in LOOPBACK and parts.port:
            return uri
    return ""


async def _registered(client: OAuthClient, listener: Listener, limit_s: float, *, listen: bool) -> str:
    """A web client's redirect is one of those registered, to the letter."""
    local = _local(client)
    if local and listen:
        try:
            await listener.start(urlsplit(local).port or 0, limit_s=limit_s)
        except OSError as error:
            log.warning("cannot listen at %s (%s): the answer must be pasted", local, error.strerror)
        return local
    if uri := local or next(iter(client.redirect_uris), ""):
        return uri
    problem = "the OAuth client is of type web and has no redirect address"
    raise PoolError("bad_request", problem, hint=MAKE_ONE)
