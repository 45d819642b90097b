"""Sends what is not generating (files, caches, interactions, batches…) to one account, as it came, and knows whose is what.

Nothing is translated. A body in pieces is sent as it comes and never twice; a whole one may go to another account as
long as nobody has taken it. What a name is bound to is `core.affinity`'s; what names look like is the gateway's.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace

from .. import coding
from ..backends import Backend, vertex
from ..backends.base import OK
from ..backends.developer_api import RESOURCES, DeveloperApi
from ..backends.vertex import Vertex
from ..clock import Clock
from ..core import model as core
from ..core.health import ERROR_WORD, HELD
from ..core.model import Kind, Outcome, Scope
from ..errors import PoolError, StateUnusable, UpstreamFailure
from ..transport import Body, Response, Transport
from .attempts import Attempts, Call, ClientFault
from .broker import Broker
from .dispatch import Dispatcher, Tokens
from .tokens import Need

__all__ = ["RESOURCES", "VERTEX_RESOURCES", "Forwarded", "Forwarder"]

VERTEX_RESOURCES = vertex.RESOURCES

MAX_ERROR = 1 << 20
_PLAIN = re.compile(r"/[!-~]*")
UPLOAD_S = 3_600.0  # what one piece of an upload may take on its way

_CUT = Outcome(Kind.CUT, Scope.NONE, reason="the answer broke off")
# A resource that is not there, not this account's, or not in a state for it: nobody's fault but the request's.
_ABOUT_THE_RESOURCE = frozenset({400, 404, 405, 409, 410, 411, 412, 413, 415, 416})
_NOT_YOURS = (b"may not exist", b"permission to access the", b"CachedContent not found")


class Forwarded:
    """An answer on its way: iterate for its pieces, then `aclose`. Its lease ends with it."""

    def __init__(
        self,
        run: Attempts,
        response: Response | None,
        status: int,
        headers: Mapping[str, str],
        body: bytes = b"",
    ) -> None:
        self._run = run
        self._response = response
        self._body = body
        self.status = status
        self.headers = headers
        self.account = run.account.id
        self.attempts = run.count
        self.wait_s = run.wait_s

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The body, as it comes. Raises PoolError `stream_cut` when it breaks off."""
        if self._response is None:
            yield self._body
            return
        try:
            async for chunk in self._response.iter_chunks():
                yield chunk
        except UpstreamFailure as failure:
            self._end(replace(_CUT, source=str(failure)))
            raise PoolError("stream_cut", f"{self.account}: {failure}", account=self.account) from None
        self._end(OK)

    async def read(self, limit: int) -> bytes:
        """The whole body. Raises PoolError, also when it is larger than `limit`."""
        parts, size = [], 0
        async for chunk in self:
            size += len(chunk)
            if size > limit:
                raise PoolError(
                    "upstream_error", f"{self.account}: the answer is larger than {limit >> 20} MiB"
                )
            parts.append(chunk)
        return b"".join(parts)

    async def aclose(self) -> None:
        """Safe to call again; leaving early cancels at Google."""
        if self._response is not None:
            self._response.release()
        self._run.abandon()

    def _end(self, outcome: Outcome) -> None:
        if self._run.lease is not None:
            self._run.settle(outcome)


class Forwarder:
    """`open` sends; the rest says who may, and whose is what."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        broker: Broker,
        tokens: Tokens,
        backends: Mapping[core.Backend, Backend],
        transport: Transport,
        *,
        clock: Clock,
    ) -> None:
        self._dispatcher = dispatcher
        self._broker = broker
        self._tokens = tokens
        self._backends = backends
        self._transport = transport
        self._clock = clock

    # ---- whose is what ---------------------------------------------------------------------------------------

    def account_of(self, name: str) -> str:
        """The account that `name` is bound to, empty when none is known."""
        return self._broker.pool.roster.bound.account_of(name, self._clock.now())

    def bind(self, name: str, account_id: str, until: float) -> None:
        """Remember it; what Google keeps is never sent elsewhere until the instant `until`. Then wait for `kept`."""
        self._broker.pool.roster.bound.bind(name, account_id, self._clock.now(), until=until)

    async def kept(self) -> None:
        """What was bound survives `kill -9` when this returns; a full disk is told elsewhere and stops nobody."""
        with contextlib.suppress(StateUnusable):
            await self._broker.flush()

    def unbind(self, name: str) -> None:
        self._broker.pool.roster.bound.unbind(name)
        self._broker.changed()

    def check(self, name: str, account_id: str) -> None:
        """Raise PoolError when the account that has `name` cannot be used until a person does something."""
        member = self._broker.pool.members.get(account_id)
        if member is None:
            words = f"{name} belongs to account {account_id}, which is no longer in the pool"
            raise PoolError(
                "not_found",
                words,
                hint="add the account again, or make the resource anew",
                account=account_id,
            )
        state = member.shown_state
        if state in (core.AccountState.DISABLED, core.AccountState.PAUSED) or state in HELD:
            words = f"{name} belongs to account {account_id}, which is {state.value.replace('_', ' ')}"
            hint = member.hint or (
                "gemini-pool resume" if state is core.AccountState.PAUSED else "gemini-pool status"
            )
            raise PoolError(ERROR_WORD.get(state, "overloaded"), words, hint=hint, account=account_id)

    def candidates(self, request: core.Request) -> list[str]:
        """Accounts that may serve such a request and are not held, in the order of the file."""
        pool = self._broker.pool
        now = self._clock.now()
        return [
            member.id for member in pool.members.values()
            if member.may_serve(now) and not pool.chooser.forbids(member.account, request)
        ]  # fmt: skip

    def without_project(self) -> frozenset[str]:
        """Vertex accounts that are a key alone: Google keeps nothing for them."""
        pool = self._broker.pool
        return frozenset(
            member.id for member in pool.members.values()
            if member.account.backend is core.Backend.VERTEX and not pool.project_of(member.id)
        )  # fmt: skip

    # ---- sending ---------------------------------------------------------------------------------------------

    async def open(self, call: Call, verb: str, path: str, body: Body) -> Forwarded:
        """Send `body` to `path` (with its query) of the account that `call.request` leads to.

        Returns Google's answer, its word about the resource included. Raises PoolError.
        """
        if not _PLAIN.fullmatch(path):  # it becomes a line of a request
            raise PoolError("bad_request", "the path is no part of a URL")
        run = Attempts(call, self._broker, self._clock, self._dispatcher.keeper)
        whole = body is None or isinstance(body, bytes)
        try:
            while True:
                if run.lease is None:
                    await run.acquire(self._backends)
                forwarded = await self._try(run, verb, path, body, whole=whole)
                if forwarded is not None:
                    return forwarded
        except ClientFault as fault:
            return Forwarded(
                run, None, fault.answer.status, {"Content-Type": fault.answer.content_type}, fault.answer.body
            )
        except BaseException:
            run.abandon()
            raise

    async def _try(self, run: Attempts, verb: str, path: str, body: Body, *, whole: bool) -> Forwarded | None:
        headers = await self.headers(run)
        if headers is None:
            return None
        backend, limits = run.backend, self._dispatcher.limits
        assert isinstance(backend, DeveloperApi | Vertex)
        project = self._broker.pool.project_of(run.account.id)
        try:
            url = backend.resource(path, run.account, project)
        except PoolError as error:
            run.cannot_carry(error)
            return None
        if (spooled := run.call.spooled) is not None:
            body, headers["Content-Length"] = spooled.chunks(), str(spooled.size)
        elif isinstance(body, bytes):
            body = backend.placed(body, run.account, project)
        run.sending(url)
        try:
            response = await self._transport.open(
                verb, url, headers=headers, body=body,
                connect_timeout_s=limits.connect_timeout_s,
                first_byte_timeout_s=limits.first_byte_timeout_s if whole else max(UPLOAD_S, limits.first_byte_timeout_s),
                silence_timeout_s=limits.silence_timeout_s, proxy=run.account.proxy,
            )  # fmt: skip
            if response.status < 400:
                run.first_byte()
                return Forwarded(run, response, response.status, response.headers)
            try:
                await self._refused(run, response, whole=whole)
            finally:
                if spooled is not None:
                    response.close()  # what is left of it need not go out
        except UpstreamFailure as failure:
            outcome = backend.classify_failure(failure)
            # What may have been taken is not sent again, unless asking twice does no harm.
            again = whole and (verb == "GET" or not failure.sent)
            run.fail(outcome if again else replace(outcome, rotate=False))
        return None

    async def headers(self, run: Attempts) -> dict[str, str] | None:
        """What to send besides the client's. None: there is no token now, and the lease is settled."""
        token = self._tokens.headers_nowait(run.account.id)
        if token is None:
            token = await self._renewed(run, Need.MISSING)
            if token is None:
                return None
        run.generation = self._tokens.generation(run.account.id)
        run.credential = token
        project = self._broker.pool.project_of(run.account.id)
        ours = {
            n: v for n, v in run.backend.headers(run.account, project=project).items() if n != "Content-Type"
        }
        return {**run.call.headers, **ours, **token}

    async def _refused(self, run: Attempts, response: Response, *, whole: bool) -> None:
        status, headers = response.status, response.headers
        said = await response.read(MAX_ERROR)
        body = run.without_credential(coding.plain(said, headers.get("Content-Encoding", ""), MAX_ERROR))
        await self.refused(run, status, headers, body, whole=whole)

    async def refused(
        self, run: Attempts, status: int, headers: Mapping[str, str], body: bytes, *, whole: bool = True
    ) -> None:
        """Act on a refusal. Returns when another attempt is worth it, else raises PoolError."""
        if (status in _ABOUT_THE_RESOURCE and b"API_KEY" not in body) or any(
            words in body for words in _NOT_YOURS
        ):
            run.fail(
                Outcome(Kind.CLIENT, reason=f"Google answered {status}"),
                status=status,
                headers=headers,
                body=body,
            )
        outcome = run.backend.classify(
            status, headers, body, model=run.call.model, now=self._clock.now(), account=run.account
        )
        if outcome.kind is Kind.UNAUTHENTICATED and not run.renewed and whole:
            run.renewed = True
            await self._renewed(run, Need.REFUSED)
            return
        run.fail(
            outcome if whole else replace(outcome, rotate=False), status=status, headers=headers, body=body
        )

    async def _renewed(self, run: Attempts, reason: Need) -> Mapping[str, str] | None:
        try:
            await self._tokens.renew(run.account.id, reason, generation=run.generation)
        except PoolError as error:
            run.fail(
                Outcome(
                    Kind.UNAUTHENTICATED, Scope.ACCOUNT, rotate=True, reason=error.message, source="token"
                )
            )
            return None
        return self._tokens.headers_nowait(run.account.id)
