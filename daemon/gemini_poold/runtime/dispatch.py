"""Sends requests: takes a lease, lets the backend write, sends, reads the answer, fails over before the first byte.

One waiting deadline and one count of attempts per request (`attempts.py`); what is sent on as it comes is
`relay.py`'s. A lease never gets lost: every way out of here settles it, cancelling included.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from ..backends import Backend, refusals, translate
from ..backends.base import OK
from ..clock import Clock
from ..config import Gateway
from ..core import model as core
from ..core.model import Kind, Outcome, Scope
from ..errors import PoolError, UpstreamFailure
from ..transport import Body, Response, Transport
from .attempts import Answer, Attempts, Call, ClientFault, broken
from .broker import Broker
from .keeping import LeaseKeeper
from .origins import Origins
from .relay import Stream
from .spooled import Spooled
from .tokens import Need

__all__ = ["Answer", "Call", "ClientFault", "Dispatcher", "Stream", "Tokens"]

MAX_ANSWER = 256 << 20
MAX_ERROR = 1 << 20

_EMPTY_TWICE = Outcome(Kind.TRANSIENT, Scope.ACCOUNT_MODEL, reason="Google sent an empty stream, twice")


_NEVER_PASSED = frozenset({
    "authorization", "x-goog-api-key", "x-api-key", "x-goog-user-project", "proxy-authorization", "cookie", "host",
    "content-length", "transfer-encoding", "connection", "accept-encoding", "user-agent",
    "x-gemini-api-privileged-user-id",
})  # fmt: skip
_TRACE = "x-cloudaicompanion-trace-id"


class Tokens(Protocol):
    """What the dispatcher needs of `runtime.tokens.TokenKeeper`."""

    def headers_nowait(self, account_id: str) -> Mapping[str, str] | None:
        """The credential's headers, ready to send; None when there is no valid token."""

    def generation(self, account_id: str) -> int:
        """The number of that token: given back with its 401."""

    async def renew(self, account_id: str, reason: Need = ..., *, generation: int | None = ...) -> object:
        """A valid token, or after a 401 another one. Raises PoolError."""


class Dispatcher:
    """`unary` for whole answers, `stream` for answers in pieces. `limits`: the gateway's time-outs."""

    def __init__(
        self,
        broker: Broker,
        tokens: Tokens,
        backends: Mapping[core.Backend, Backend],
        transport: Transport,
        *,
        clock: Clock,
        limits: Gateway,
    ) -> None:
        self._broker = broker
        self._tokens = tokens
        self._backends = backends
        self._transport = transport
        self._clock = clock
        self.limits = limits  # replaced at a reload
        self.keeper = LeaseKeeper(broker, clock)
        self.origins = Origins()

    async def unary(self, call: Call) -> Answer:
        """The whole answer. Raises PoolError when nobody could serve it."""
        run = Attempts(call, self._broker, self._clock, self.keeper)
        try:
            while True:
                response = await self._open(run)
                try:
                    answer = await self._whole(run, response)
                except BaseException:
                    response.close()
                    raise
                if answer is not None:
                    return answer
        except ClientFault as fault:
            return fault.answer
        finally:
            run.abandon()

    async def stream(self, call: Call) -> Stream:
        """A stream whose first event is here. Raises PoolError; ClientFault for Google's own 4xx."""
        run = Attempts(call, self._broker, self._clock, self.keeper)
        try:
            while True:
                response = await self._open(run)
                stream = Stream(run, response, self.origins)
                try:
                    state = await stream.prime()
                except BaseException:
                    response.close()
                    raise
                if state == "ready":
                    return stream
                if state == "empty":
                    response.close()
                    self._repeat_empty(run)
        except BaseException:
            run.abandon()
            raise

    # ---- one attempt -----------------------------------------------------------------------------------------

    async def _open(self, run: Attempts) -> Response:
        """A 2xx answer, its lease held. Raises PoolError when no account gives one."""
        while True:
            if run.lease is None:
                await run.acquire(self._backends)
            project = self._broker.pool.project_of(run.account.id)
            body: bytes | Spooled
            try:
                if run.call.spooled is None:
                    url, body = self._written(run, project)
                else:
                    url, body = await self._from_disk(run, run.call.spooled, project)
            except PoolError as error:
                run.cannot_carry(error)
                continue
            response = await self._send(run, url, body, project)
            if response is not None:
                return response

    def _written(self, run: Attempts, project: str) -> tuple[str, bytes]:
        """URL and body as the lease's backend takes them. Raises PoolError when it cannot take them."""
        call, backend = run.call, run.backend
        url = backend.url(run.account, call.model, call.method, project=project, version=call.version)
        body = backend.request(
            call.surface, call.method, call.model, call.body, project=project, session=run.request.session
        )
        if run.cleaned or self.origins.elsewhere(body, run.account.id):
            body = translate.cleaned_body(backend.form, body) or body
        return url, body

    async def _from_disk(self, run: Attempts, spooled: Spooled, project: str) -> tuple[str, bytes | Spooled]:
        """The same for a body on the disk: it stays there where the backend takes it as it came."""
        call, backend = run.call, run.backend
        if (
            not backend.takes_raw(call.surface, call.method)
            or run.cleaned
            or self.origins.made_elsewhere(spooled.signatures, run.account.id)
        ):
            call.body = await spooled.whole()
            return self._written(run, project)
        return backend.url(
            run.account, call.model, call.method, project=project, version=call.version
        ), spooled

    async def _send(self, run: Attempts, url: str, body: bytes | Spooled, project: str) -> Response | None:
        """Send with the lease that is held. None: refused, and another attempt is worth it."""
        headers = await self._headers(run, project)
        if headers is None:
            return None
        data: Body
        if isinstance(body, bytes):
            data = body
            run.tell_body("sent", body)
        else:
            data = body.chunks()
            headers["Content-Length"] = str(body.size)
        limits = self.limits
        run.sending(url)
        try:
            response = await self._transport.open(
                "POST",
                url,
                headers=headers,
                body=data,
                connect_timeout_s=limits.connect_timeout_s,
                first_byte_timeout_s=limits.first_byte_timeout_s,
                silence_timeout_s=limits.silence_timeout_s,
                proxy=run.account.proxy,
            )
            if 200 <= response.status < 300:
                run.first_byte()
                return response
            try:
                await self._refused(run, response)
            finally:
                if data is not body:
                    response.close()  # what is left of it need not go out
        except UpstreamFailure as failure:
            run.fail(run.backend.classify_failure(failure))
        return None

    async def _headers(self, run: Attempts, project: str) -> dict[str, str] | None:
        """What to send besides the body. None: the account's token is gone, and cannot be had now."""
        token = self._tokens.headers_nowait(run.account.id)
        if token is None:  # it ended between the grant and now
            token = await self._renewed(run, Need.MISSING)
            if token is None:
                return None
        run.generation = self._tokens.generation(run.account.id)
        run.credential = token
        headers = run.backend.headers(run.account, project=project)
        headers.update(token)
        return _with_client_headers(headers, run.call.headers) if run.call.headers else headers

    async def _refused(self, run: Attempts, response: Response) -> None:
        """Read a refusal and act on it. Returns when another attempt is worth it (the lease may still be held)."""
        try:
            body = run.without_credential(await response.read(MAX_ERROR))
        except BaseException:
            response.close()
            raise
        run.tell_body("refused", body)
        status, headers = response.status, response.headers
        outcome = run.backend.classify(
            status, headers, body, model=run.call.model, now=self._clock.now(), account=run.account
        )
        if outcome.kind is Kind.UNAUTHENTICATED and not run.renewed:
            run.renewed = True  # the same account once more, if there is another token
            await self._renewed(run, Need.REFUSED)
            return
        if outcome.source == refusals.SIGNATURE_SOURCE and not run.cleaned:
            run.cleaned = True
            return
        run.fail(outcome, status=status, headers=headers, body=body)

    async def _renewed(self, run: Attempts, reason: Need) -> Mapping[str, str] | None:
        """Headers with a new token. None: there is none to be had; the lease is settled."""
        try:
            await self._tokens.renew(run.account.id, reason, generation=run.generation)
        except PoolError as error:
            run.fail(_unauthenticated(error.message))
            return None
        headers = self._tokens.headers_nowait(run.account.id)
        if headers is None:
            run.fail(_unauthenticated("no valid token"))
        return headers

    async def _whole(self, run: Attempts, response: Response) -> Answer | None:
        """The answer of a 2xx response. None: it was none, and another attempt is worth it."""
        call, backend = run.call, run.backend
        try:
            body = await response.read(MAX_ANSWER)
            run.tell_body("answered", body)
            reading = backend.read(body)
            self.origins.note(body, run.account.id)
        except UpstreamFailure as failure:
            run.fail(backend.classify_failure(failure))
            return None
        except ValueError:
            run.fail(broken("the answer is no JSON"), body=run.without_credential(body[:2_000]))
            return None
        if reading.error:
            now, body = self._clock.now(), run.without_credential(body)
            outcome = backend.classify_event(body, model=call.model, now=now, account=run.account)
            run.fail(outcome or broken("an error in the answer"), headers=response.headers, body=body)
            return None
        if call.method == "generateContent" and not reading.finished:
            run.fail(broken("the answer has no finish marker"))
            return None
        try:
            shown = backend.response(call.surface, call.method, body)
        except PoolError as error:  # it cannot be said in the surface's dialect
            run.fail(broken(error.message))
            return None
        answer = run.answer(response.status, shown, usage=reading.usage, finish_reason=reading.finish_reason)
        run.settle(OK, usage=reading.usage)
        return answer

    @staticmethod
    def _repeat_empty(run: Attempts) -> None:
        """An empty stream is repeated once, on the same lease."""
        if run.emptied:
            run.settle(_EMPTY_TWICE)
            raise run.gave_up(_EMPTY_TWICE.reason)
        run.emptied = True


def _with_client_headers(ours: dict[str, str], theirs: Mapping[str, str]) -> dict[str, str]:
    """What a surface passes on never replaces a header of ours, and never carries a credential."""
    taken = _NEVER_PASSED | {name.lower() for name in ours}
    return {**{name: value for name, value in theirs.items() if name.lower() not in taken}, **ours}


def _unauthenticated(reason: str) -> Outcome:
    return Outcome(Kind.UNAUTHENTICATED, Scope.ACCOUNT, rotate=True, reason=reason, source="token")
