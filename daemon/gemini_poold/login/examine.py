"""Finds out what an account is: waits until the daemon knows, asks Google once for real, and puts it into a verdict.

Tokens, set-up and states are the runtime's and the pool's; this only asks them, and tells them what a real call said.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

from gemini_pool import wire

from ..accounts.schema import AccountEntry, to_model
from ..backends.base import Backend as BackendImpl
from ..clock import Clock
from ..core.health import HELD
from ..core.member import Member
from ..core.model import Account, AccountState, Backend, DiscoveryRow, Kind, Outcome, PoolEvent
from ..credentials import registry
from ..errors import PoolError
from ..runtime.broker import Broker
from ..runtime.lifecycle import Lifecycle, SettingUp
from ..runtime.tokens import Need
from . import probe, verdict

SETTLE_S = 120.0  # an onboarding takes its time; a request that waits longer is better told "it goes on"


@dataclass(frozen=True, slots=True)
class Running:
    """The parts of the daemon that is at work."""

    broker: Broker
    lifecycle: Lifecycle
    setup: SettingUp
    backends: Mapping[Backend, BackendImpl]
    clock: Clock


class Examiner:
    def __init__(self, running: Running) -> None:
        self._running = running
        self._pool = running.broker.pool
        self._tokens = running.lifecycle.tokens

    async def after_login(self, account_id: str, notes: list[str]) -> wire.AccountVerdict:
        """What the daemon makes of a login that was just kept: its token, its set-up, and where the backend has none,
        one real call."""
        await self.wait_settled(account_id)
        member = self._pool.members.get(account_id)
        if member is None:
            return _unknown(account_id, notes)
        if member.account.backend is Backend.CODE_ASSIST or member.state is not AccountState.READY:
            return self._verdict(member, notes)
        return (await self._probe(member, notes)).verdict

    async def verify(self, entry: AccountEntry) -> wire.VerifyRow:
        """One account, on a person's word: what was held is tried again from the start, then Google is asked."""
        member = self._pool.members.get(entry.id)
        if member is None:
            return wire.VerifyRow(_unknown(entry.id, []), "", None)
        if not member.account.enabled:
            return await self._verify_idle(entry, member)
        if member.state is AccountState.SUSPENDED:  # only its own word leads out of it
            return wire.VerifyRow(self._verdict(member, []), "", None)
        if member.state in HELD or self._tokens.headers_nowait(entry.id) is None:
            self._running.lifecycle.retry(entry.id)
            await self.wait_settled(entry.id)
            member = self._pool.members.get(entry.id, member)
        elif member.state is AccountState.STARTING:  # else the end of its set-up would undo what we find
            await self.wait_settled(entry.id)
        if self._tokens.headers_nowait(entry.id) is None or member.state in HELD:
            return wire.VerifyRow(self._verdict(member, []), "", None)
        return await self._probe(member, [])

    def look(self, account_id: str) -> wire.AccountVerdict:
        """What the pool says of the account now."""
        member = self._pool.members.get(account_id)
        return _unknown(account_id, []) if member is None else self._verdict(member, [])

    async def wait_settled(self, account_id: str, *, limit_s: float = SETTLE_S) -> None:
        """Until the account serves or it is known why not; at most `limit_s`."""
        woken = asyncio.Event()
        heard = False

        def hear(event: PoolEvent) -> None:
            nonlocal heard
            if event.account_id == account_id:
                heard = True
                woken.set()

        before = self._state(account_id)
        leave = self._running.broker.subscribe(hear)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limit_s):
                    while not _settled(self._state(account_id), before, heard=heard):
                        woken.clear()
                        await woken.wait()
        finally:
            leave()

    # ---- inside ------------------------------------------------------------------------------------------------

    def _state(self, account_id: str) -> AccountState | None:
        member = self._pool.members.get(account_id)
        return None if member is None else member.shown_state

    def _verdict(self, member: Member, notes: list[str]) -> wire.AccountVerdict:
        return verdict.of_member(member, project=self._pool.project_of(member.id), notes=notes)

    async def _probe(self, member: Member, notes: list[str]) -> wire.VerifyRow:
        """A real call with the account's token, renewed once if Google refuses it; the pool hears of the answer."""
        headers = self._tokens.headers_nowait(member.id) or {}
        probed = await self._ask(member.account, headers, self._pool.project_of(member.id))
        if probed.outcome.kind is Kind.UNAUTHENTICATED:
            with contextlib.suppress(PoolError):  # it stays what the first answer said
                await self._tokens.renew(member.id, Need.REFUSED)
                again = self._tokens.headers_nowait(member.id) or headers
                probed = await self._ask(member.account, again, self._pool.project_of(member.id))
        self._tell(member, probed.outcome)
        found = self._verdict(member, notes)
        return _row(found, probed)

    async def _ask(self, account: Account, headers: Mapping[str, str], project: str) -> probe.Probed:
        running = self._running
        return await probe.ask(
            account,
            headers,
            project=project,
            backend=running.backends[account.backend],
            transport=running.lifecycle.context.transport,
            clock=running.clock,
        )

    def _tell(self, member: Member, outcome: Outcome) -> None:
        if outcome.kind is Kind.ACCOUNT and outcome.state is not None:
            self._pool.refuse(
                member.id, outcome.state, self._running.clock.now(),
                reason=outcome.reason, hint=outcome.hint, url=outcome.url,
            )  # fmt: skip
            self._running.broker.changed()

    async def _verify_idle(self, entry: AccountEntry, member: Member) -> wire.VerifyRow:
        """An account that is switched off is asked about with a credential of its own, and stays switched off."""
        row = wire.VerifyRow(self._verdict(member, ["it is switched off"]), "", None)
        if (blocked := registry.gate(entry)) is not None:
            verdict.refused(row.verdict, blocked)
            return row
        try:
            credential = registry.build(entry, self._running.lifecycle.context)
            token = await credential.renew(self._running.clock.now())
            headers, project = credential.headers(token), self._pool.project_of(entry.id)
            if entry.backend is Backend.CODE_ASSIST and not project:
                found = await self._running.setup.run(to_model(entry), headers)
                if isinstance(found, Outcome):
                    verdict.refused(row.verdict, found)
                    row.call = "loadCodeAssist"
                    return row
                project = _take(row.verdict, found)
            return _row(row.verdict, await self._ask(to_model(entry), headers, project))
        except PoolError as error:
            row.verdict.reason, row.verdict.next = error.message, error.hint
            return row


def _settled(state: AccountState | None, before: AccountState | None, *, heard: bool) -> bool:
    if state is AccountState.OFFLINE:  # an old trouble is no answer to what was just done
        return heard or before is not AccountState.OFFLINE
    return state is not AccountState.STARTING


def _row(found: wire.AccountVerdict, probed: probe.Probed) -> wire.VerifyRow:
    """The verdict with what the real call said."""
    if not probed.serves:
        verdict.refused(found, probed.outcome)
    elif probed.outcome.kind is not Kind.OK:
        found.notes.append(probed.outcome.reason)
    return wire.VerifyRow(found, probed.call, probed.took_s)


def _take(found: wire.AccountVerdict, row: DiscoveryRow) -> str:
    found.project, found.tier, found.email = row.project, row.tier, row.email
    return row.project


def _unknown(account_id: str, notes: list[str]) -> wire.AccountVerdict:
    return wire.AccountVerdict(
        account=account_id,
        backend="code-assist",
        ok=False,
        state="unknown",
        reason="the daemon does not have it: the accounts file did not read well",
        next="gemini-pool config check",
        url="",
        project="",
        tier="",
        email="",
        licensed=None,
        notes=notes,
    )
