"""A stream on its way from Google to a client: blocks of whole events, checked as little as must be.

Before the first block is out, everything may still go elsewhere (`Stream.prime`). Afterwards a stream ends either
with a finish marker or with PoolError `stream_cut`, never in between; its lease ends with it, whatever happens.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Self

from ..backends import candidates, sse
from ..backends.base import OK, Reading
from ..core.model import Kind, Outcome, Scope, Usage
from ..errors import PoolError, UpstreamFailure
from ..transport import Response
from .attempts import Attempts, broken
from .origins import Origins

_CUT = Outcome(Kind.CUT, Scope.ACCOUNT_MODEL, reason="the stream broke off")


class _Failed(Exception):
    """An error, or what is no event at all, inside a stream; `before` are the good bytes in front of it."""

    def __init__(self, outcome: Outcome, payload: bytes, before: bytes = b"") -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome
        self.payload = payload
        self.before = before


class Stream:
    """An answer in pieces. Iterate over it for bytes of whole events, or over `events()` for their payloads.

    Use it as an async context manager, or call `aclose` when done: leaving early cancels at Google at once. Ends
    normally only after a finish marker; `usage`, `finish_reason` and `chunks` are then final.
    """

    def __init__(self, run: Attempts, response: Response, origins: Origins) -> None:
        self._run = run
        self._origins = origins
        self._response = response
        self._chunks = response.iter_chunks()
        self._splitter = sse.Splitter()
        self._translates = not run.backend.transparent(run.call.surface)
        self._first = b""
        self._last = b""
        spooled = run.call.spooled
        wanted = candidates.asked(run.call.body) if spooled is None else spooled.candidates
        self._several = candidates.Candidates(wanted) if wanted > 1 else None
        self._relaying: AsyncGenerator[bytes, None] | None = None
        self._reading: AsyncGenerator[bytes, None] | None = None
        self.account = run.account.id
        self.attempts = run.count
        self.wait_s = run.wait_s
        self.chunks = 0
        self.usage: Usage | None = None
        self.finish_reason = ""

    def __aiter__(self) -> AsyncGenerator[bytes, None]:
        if self._relaying is None:
            self._relaying = self._relay()
        return self._relaying

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def events(self) -> AsyncGenerator[bytes, None]:
        """The payload of each event, in the surface's dialect."""
        self._reading = self._events()
        return self._reading

    async def _events(self) -> AsyncGenerator[bytes, None]:
        async with aclosing(aiter(self)) as blocks:
            async for block in blocks:
                for payload in sse.payloads(block):
                    yield payload

    async def aclose(self) -> None:
        """End it: Google stops generating, the lease is free."""
        for generator in (self._reading, self._relaying):
            if generator is not None:
                await generator.aclose()
        self._end()

    # ---- before the first byte -------------------------------------------------------------------------------

    async def prime(self) -> str:
        """Hold back the first event until it is whole and no error. Raises PoolError when nothing more is worth it.

        "ready": iterate. "again": refused, the lease is settled. "empty": nothing came, the lease is still held.
        """
        run = self._run
        try:
            block = await self._first_block()
            run.first_byte()
            if not block:
                return "empty"
            run.tell_body("streams", block)
            self._note(b"".join(sse.payloads(sse.first(block))))
            self._look(block)
        except UpstreamFailure as failure:
            self._response.close()
            run.fail(run.backend.classify_failure(failure))
            return "again"
        except _Failed as failed:
            self._response.close()
            run.fail(failed.outcome, body=failed.payload)
            return "again"
        if self._several is not None:
            self._count(self._several, block)
        self._first = block
        return "ready"

    async def _first_block(self) -> bytes:
        """The first block that holds an event. What came before (comments) is of no use to anybody."""
        try:
            async for chunk in self._chunks:
                block = self._splitter.feed(chunk)
                if block and sse.holds_event(block):
                    return block
        except sse.TooLong as e:
            raise _Failed(broken(str(e)), b"") from None
        rest = self._splitter.finish()
        return rest if sse.holds_event(rest) else b""

    # ---- afterwards ------------------------------------------------------------------------------------------

    async def _relay(self) -> AsyncGenerator[bytes, None]:
        feed = self._splitter.feed
        try:
            if out := self._out(self._first):
                yield out
            self._first = b""
            async for chunk in self._chunks:
                if block := feed(chunk):
                    if sse.FINISH in block or sse.ERROR in block or sse.BLOCKED in block:
                        self._look(block)
                    if self._several is not None:
                        self._count(self._several, block)
                    if out := self._out(block):
                        yield out
            if rest := self._splitter.finish():
                for payload in sse.payloads(rest):
                    self._note(payload)
                if self._several is not None:
                    self._count(self._several, rest)
                if out := self._out(rest):
                    yield out
            if not self._whole(ended=True):
                raise self._cut(replace(_CUT, reason="the stream ended without its finish marker"))
        except _Failed as failed:
            out = self._out(failed.before) if failed.before else b""
            error = self._cut(_as_cut(failed.outcome), failed.payload)
            if out:
                yield out
            raise error from None
        except (UpstreamFailure, sse.TooLong) as failure:
            if not self._whole(ended=False):
                raise self._cut(replace(_CUT, source=str(failure))) from None
        finally:
            self._end()

    def _out(self, block: bytes) -> bytes:
        """`block` in the surface's dialect."""
        self._last = block
        self._origins.note(block, self.account)
        if not self._translates:
            if events := sse.count(block):
                self.chunks += events
                return block
            out = [sse.event(payload) for payload in sse.payloads(block)]
        else:
            event, surface = self._run.backend.event, self._run.call.surface
            out = [sse.event(p) for payload in sse.payloads(block) if (p := event(surface, payload))]
        self.chunks += len(out)
        return b"".join(out)

    def _look(self, block: bytes) -> None:
        """Take note of finish and usage. Raises _Failed at an error."""
        for begin, end in sse.marked(block, sse.FINISH, sse.ERROR, sse.BLOCKED):
            try:
                for payload in sse.payloads(block[begin:end]):
                    self._note(payload)
            except _Failed as failed:
                failed.before = block[:begin]
                raise

    @staticmethod
    def _count(several: candidates.Candidates, block: bytes) -> None:
        for payload in sse.payloads(block):
            several.take(payload)

    def _whole(self, *, ended: bool) -> bool:
        """Whether what came is a finished answer. `ended`: the stream ended properly."""
        if not self.finish_reason:
            return False
        return self._several is None or self._several.whole(ended=ended)

    def _note(self, payload: bytes) -> None:
        run = self._run
        try:
            reading = run.backend.read(payload)
        except ValueError:
            raise _Failed(broken("an event of the stream is no JSON"), b"") from None
        if reading.error:
            payload = run.without_credential(payload)
            outcome = run.backend.classify_event(
                payload, model=run.call.model, now=run.now(), account=run.account
            )
            raise _Failed(outcome or broken("an error in the stream"), payload)
        self._take(reading)

    def _take(self, reading: Reading) -> None:
        if reading.finish_reason:
            self.finish_reason = reading.finish_reason
        if reading.usage is not None:
            self.usage = reading.usage

    def _cut(self, outcome: Outcome, payload: bytes = b"") -> PoolError:
        self._response.close()
        if self._run.lease is not None:
            self._run.settle(outcome, usage=self._last_usage())
        details = {"status": outcome.status, "body": payload.decode("utf-8", "replace")} if payload else None
        return PoolError(
            "stream_cut", f"{self.account}: {outcome.reason}", account=self.account, details=details
        )

    def _end(self) -> None:
        """Settle what is not settled: finished, or left by the client before that. Safe to call again."""
        run = self._run
        if run.lease is None:
            return
        if self._whole(ended=True):
            run.settle(OK, usage=self._last_usage())
            self._response.release()
        else:
            self._response.close()
            run.abandon()

    def _last_usage(self) -> Usage | None:
        """Counts are cumulative: the last event's are the stream's."""
        for payload in sse.payloads(sse.last_with(self._last, sse.USAGE)):
            try:
                self._take(self._run.backend.read(payload))
            except ValueError:
                break
        return self.usage


def _as_cut(outcome: Outcome) -> Outcome:
    """An outcome after the first byte: nothing is repeated; what Google told about limits still holds."""
    if outcome.kind in (Kind.TRANSIENT, Kind.UNAUTHENTICATED):
        return replace(outcome, kind=Kind.CUT, scope=Scope.ACCOUNT_MODEL, rotate=False)
    return replace(outcome, rotate=False)
