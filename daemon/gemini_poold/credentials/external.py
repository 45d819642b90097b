"""Workload identity federation (`external_account`: file, URL, AWS, executable) by google-auth.

google-auth blocks, so it runs in a small thread pool of its own; its HTTP goes back to the loop's transport, so that
proxy, CA file and `[endpoints]` hold for every call. It may run the command that the file names: google-auth itself
asks for GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES=1, and we only read files that are the user's alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import Any

from ..transport import Fetched
from .base import (
    TOKEN_TIMEOUT_S,
    Bearer,
    Caller,
    Context,
    CredentialError,
    Failure,
    Secret,
    Token,
    digest_of,
    identity,
)
from .credential_file import read_json, rebased
from .impersonated import LIFETIME_S, life_until
from .secret_ref import Source, unreadable
from .token_endpoint import TRANSIENT_STATUSES, parse, retry_after_s, server_now
from .token_share import share_of

THREADS = 4


@lru_cache(maxsize=1)
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, thread_name_prefix="credentials")


class External(Bearer):
    def __init__(
        self,
        source: Source,
        ctx: Context,
        *,
        account: str,
        scopes: tuple[str, ...],
        proxy: str = "",
        bills: bool = True,
        kind: str = "external",
    ) -> None:
        self.kind = kind
        self.bills = bills
        self.identity = identity(kind, source.place, scopes, proxy, bills=bills)
        self._source = source
        self._ctx = ctx
        self._scopes = scopes
        self._account = account
        self._caller = Caller(account, ctx.transport, proxy)
        self._google: Any = None
        self._google_of = b""
        self._google_urls: set[str] = set()
        self._lock = asyncio.Lock()  # google-auth's objects do not bear two refreshes at once

    async def renew(self, now: float) -> Token:  # noqa: ARG002
        async with self._lock:
            data = await self._source.read()
            self.digest = digest_of(data)
            return await share_of(self._ctx, self.identity).token(
                self._ctx,
                self._account,
                grant=self.digest,
                identity=self.identity,
                make=partial(self._ask, data),
            )

    async def _ask(self, data: bytes) -> Token:
        loop = asyncio.get_running_loop()
        issued_at = self._ctx.clock.now()
        request = LoopRequest(loop, self._caller)
        return await loop.run_in_executor(_threads(), self._refresh, data, request, issued_at)

    def fingerprint_nowait(self) -> str:
        return self._source.fingerprint_nowait()

    async def look(self) -> str:
        self.digest = digest_of(await self._source.read())
        return self.digest

    def _refresh(self, data: bytes, request: LoopRequest, issued_at: float) -> Token:
        """In a thread. Raises `CredentialError` and nothing else."""
        try:
            if data != self._google_of:
                self._google, self._google_of = self._build(data), data
            self._google.refresh(request)
        except CredentialError:
            raise
        except Exception as error:  # noqa: BLE001  (google-auth lets json's, ssl's and its own through)
            raise self._failed(error, request, issued_at) from None
        return Token(Secret(self._google.token), issued_at, issued_at + self._life_s(request))

    def _life_s(self, request: LoopRequest) -> float:
        """google-auth tells an instant: by the machine's clock, or by Google's if it was impersonation that told it."""
        expiry = self._google.expiry
        if expiry is None:
            return float(LIFETIME_S)
        now = datetime.now(UTC).timestamp()
        if self._google.service_account_email is not None and request.last is not None:
            now = server_now(request.last.headers, now)
        return life_until(expiry.replace(tzinfo=UTC).timestamp(), now)

    def _build(self, data: bytes) -> Any:
        info = read_json(data, self._source, self._account, ("external_account",))
        self._read_quota_project(info)
        endpoints = self._ctx.endpoints
        for key, base, name in (
            ("token_url", endpoints.sts, "sts"),
            ("service_account_impersonation_url", endpoints.iam_credentials, "iam_credentials"),
        ):
            if info.get(key):
                info[key] = rebased(str(info[key]), base, name)
                self._google_urls.add(info[key])
        source = info.get("credential_source")
        if not isinstance(source, dict):
            raise unreadable(
                self._account, f"{self._source.described} has no credential_source", "make it again"
            )
        if "certificate" in source:
            problem = f"{self._source.described} wants a client certificate, which is not supported"
            raise unreadable(self._account, problem, "use a file, url, executable or AWS source")
        return _google_class(source).from_info(info, scopes=list(self._scopes))

    def _failed(self, error: Exception, request: LoopRequest, now: float) -> CredentialError:
        if request.network_error is not None:
            return request.network_error
        reply = request.last
        if reply is not None and reply.status < 400 and request.asked in self._google_urls:
            return self._error(Failure.TRANSIENT, "the token service's answer holds no token")
        if reply is not None and reply.status in TRANSIENT_STATUSES:
            told = retry_after_s(reply.headers, now)
            words = f"the token service answered {reply.status}"
            return self._error(Failure.TRANSIENT, words, retry_after_s=told)
        if reply is not None and reply.status >= 400:
            said = parse(reply.body)
            words = f"Google refuses the workload's identity ({reply.status} {said.word}: {said.text})"
            return self._error(
                Failure.CONFIG, words, hint="compare the provider's attribute mapping and roles"
            )
        # Before any answer: the subject token could not be had. An executable's output may stand in the text.
        text = "" if "xecutable" in str(error) else f": {error}"[:200]
        words = f"the workload's own token cannot be had ({type(error).__name__}{text})"
        return self._error(Failure.SECRET, words, hint=f"see credential_source in {self._source.described}")

    def _error(self, failure: Failure, words: str, **more: Any) -> CredentialError:
        return CredentialError(failure, f"account {self._account}: {words}", account=self._account, **more)


def _google_class(source: Mapping[str, Any]) -> Any:
    if str(source.get("environment_id", "")).startswith("aws"):
        from google.auth import aws

        return aws.Credentials
    if "executable" in source:
        from google.auth import pluggable

        return pluggable.Credentials
    from google.auth import identity_pool

    return identity_pool.Credentials


class LoopRequest:
    """google-auth's transport (called in its thread) over ours (in the loop). Remembers how it went."""

    def __init__(self, loop: asyncio.AbstractEventLoop, caller: Caller) -> None:
        self._loop = loop
        self._caller = caller
        self.asked = ""
        self.last: Fetched | None = None
        self.network_error: CredentialError | None = None

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,  # noqa: ARG002  (ours is shorter than google-auth's 120 s)
        **_: Any,
    ) -> Any:
        from google.auth.exceptions import TransportError

        self.asked, self.last = url, None
        data = body.encode() if isinstance(body, str) else body
        call = self._caller.fetch(method, url, headers=dict(headers or {}), body=data)
        future = asyncio.run_coroutine_threadsafe(call, self._loop)
        try:
            self.last = future.result(TOKEN_TIMEOUT_S + 5.0)
        except CredentialError as error:
            self.network_error = error
            raise TransportError(error.message) from None  # type: ignore[no-untyped-call]
        return _Reply(self.last)


class _Reply:
    """google.auth.transport.Response's three attributes."""

    def __init__(self, fetched: Fetched) -> None:
        self.status = fetched.status
        self.headers = fetched.headers
        self.data = fetched.body
