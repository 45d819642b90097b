"""Asks Google what is left of each Code Assist account's quota, rarely enough to be no burden to anybody.

When to ask is `core.quota.next_poll_at`'s rule. One poll in flight per account, few at once over the pool, and no more a
minute than the budget allows: in a large pool each account is asked about more rarely, those due longest first. A poll that
fails changes no account's state: the last good readings stay, with their age, and `errors` says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import replace

from ..backends import code_assist_quota, google_errors
from ..backends.code_assist import CodeAssist
from ..clock import Clock
from ..core import model as core
from ..core.quota import EARLIEST_S, IDLE_S, NEAR, Asked, Quotas, next_poll_at
from ..errors import PoolError
from ..transport import Transport
from .broker import Broker
from .dispatch import Tokens

log = logging.getLogger("gemini_pool.quota")

AT_ONCE = 4
PER_MINUTE = 60  # scheduled polls over the pool, so that they never compete with requests
FRESH_S = 30.0  # a reading this young is not asked for again, whoever wants it
TIMEOUT_S = 20.0
_LONGEST_NAP_S = 30.0
_FIRST_WITHIN_S = 30.0


class Poller:
    """`run` drives it; `poll_now` asks about one account at once. `rng`: uniform in [0, 1)."""

    def __init__(
        self,
        broker: Broker,
        tokens: Tokens,
        backend: CodeAssist,
        transport: Transport,
        *,
        quotas: Quotas,
        clock: Clock,
        rng: Callable[[], float],
        interval_s: float,
    ) -> None:
        self._broker = broker
        self._tokens = tokens
        self.backend = backend  # replaced when [endpoints] change
        self._transport = transport
        self._clock = clock
        self._rng = rng
        self.quotas = quotas
        self.interval_s = interval_s  # replaced at a reload
        self.errors: dict[str, str] = {}
        self._asked: dict[str, Asked] = {}
        self._due: dict[str, float] = {}
        self._busy: dict[str, asyncio.Lock] = {}
        self._slow: set[str] = set()  # planned as idle
        self._stirred = asyncio.Event()
        self._allowed = float(AT_ONCE)  # polls that the budget allows now
        self._allowed_at = clock.now()

    async def run(self) -> None:
        """Ask on schedule for as long as the daemon runs."""
        while True:
            self._forget_removed()
            now = self._clock.now()
            due = [a for a in self._accounts() if self._due_at(a.id, now) <= now]
            due = sorted(due, key=lambda a: self._due[a.id])[: self._allowance(now)]
            self._allowed -= len(due)
            for i in range(0, len(due), AT_ONCE):
                async with asyncio.TaskGroup() as group:
                    for account in due[i : i + AT_ONCE]:
                        group.create_task(self.poll_now(account.id, scheduled=True))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._nap_s()):
                    await self._stirred.wait()
            self._stirred.clear()

    def replan(self) -> None:
        """After a suspend or a clock step: look who is due by now, and no longer wait out a failure of before."""
        for account_id in self.errors:
            asked = self._asked.get(account_id, Asked())
            due = max(asked.at + min(EARLIEST_S, self.interval_s), asked.retry_at)
            self._due[account_id] = min(due, self._due.get(account_id, due))
        self._stirred.set()

    async def poll_now(self, account_id: str, *, scheduled: bool = False) -> str:
        """Ask about one account; joins a poll that is in flight. Returns what went wrong, "" when nothing did."""
        async with self._busy.setdefault(account_id, asyncio.Lock()):
            member = self._broker.pool.members.get(account_id)
            if member is None or member.account.backend is not core.Backend.CODE_ASSIST:
                return f"{account_id}: only Code Assist tells its quota"
            now = self._clock.now()
            asked = self._asked.get(account_id, Asked())
            if not scheduled and (now - asked.at < FRESH_S or now < asked.retry_at):
                return self.errors.get(account_id, "")
            problem, retry_at = await self._ask(member.account)
            self._note(account_id, asked, problem, retry_at)
            return problem

    async def _ask(self, account: core.Account) -> tuple[str, float]:
        """Why it failed ("" when not), and Google's word about when to ask again."""
        token = self._tokens.headers_nowait(account.id)
        if token is None:
            return "no valid token", 0.0
        project = self._broker.pool.project_of(account.id)
        try:
            answer = await self._transport.fetch(
                "POST",
                self.backend.call_url(code_assist_quota.METHOD),
                headers={**self.backend.headers(account, project=project), **token},
                body=code_assist_quota.request(project),
                timeout_s=TIMEOUT_S,
                proxy=account.proxy,
            )
        except PoolError as failure:
            return failure.message, 0.0
        now = self._clock.now()
        if answer.status != 200:
            error = google_errors.read(answer.status, answer.headers, answer.body, now=now)
            retry_at = now + error.delays[0].seconds if error.delays else 0.0
            return (
                f"Google answers {answer.status}: {error.message.splitlines()[0][:200] if error.message else ''}",
                retry_at,
            )
        try:
            readings = code_assist_quota.readings(answer.body, account.id, now, self.quotas)
        except ValueError as e:
            return str(e), 0.0
        before = self.quotas.tightest(account.id, now)
        self.quotas.seen(account.id, readings)
        self._tell(account.id, before, self.quotas.tightest(account.id, now), now)
        self._broker.pool.quota_left(
            account.id, self.quotas.tightest(account.id, now), self.quotas.shares(account.id, now)
        )
        self._keep_history()
        self._broker.changed()
        return "", 0.0

    def _note(self, account_id: str, asked: Asked, problem: str, retry_at: float) -> None:
        now = self._clock.now()
        asked = replace(asked, at=now, failures=asked.failures + 1 if problem else 0, retry_at=retry_at)
        self._asked[account_id] = asked
        idle = self._idle(account_id, now)
        (self._slow.add if idle else self._slow.discard)(account_id)
        self._due[account_id] = next_poll_at(
            asked, self.quotas.of(account_id), self.interval_s, rng=self._rng, idle=idle
        )
        if problem:
            self.errors[account_id] = problem
            log.debug("%s: quota unknown: %s", account_id, problem)
        else:
            self.errors.pop(account_id, None)

    def _accounts(self) -> list[core.Account]:
        """Whom to ask about: Code Assist accounts that can serve."""
        now = self._clock.now()
        return [
            m.account
            for m in self._broker.pool.members.values()
            if m.account.backend is core.Backend.CODE_ASSIST and m.may_serve(now)
        ]

    def _due_at(self, account_id: str, now: float) -> float:
        """A new account, or one that is used again, is asked about soon, but not all of them in the same instant."""
        due = self._due.get(account_id)
        if due is None or (account_id in self._slow and not self._idle(account_id, now)):
            soon = now + min(_FIRST_WITHIN_S, self.interval_s) * self._rng()
            if due is not None:
                soon = min(due, max(soon, self._asked[account_id].at + self.interval_s))
            self._slow.discard(account_id)
            due = self._due[account_id] = soon
        return due

    def _idle(self, account_id: str, now: float) -> bool:
        member = self._broker.pool.members.get(account_id)
        return member is None or now - member.last_used_at > IDLE_S

    def _allowance(self, now: float) -> int:
        """How many polls the budget allows now: it fills up evenly, and no more than a quarter of a minute's is kept."""
        earned = max(0.0, now - self._allowed_at) * PER_MINUTE / 60.0
        self._allowed = min(self._allowed + earned, PER_MINUTE / 4)
        self._allowed_at = now
        return max(0, int(self._allowed))

    def _nap_s(self) -> float:
        now = self._clock.now()
        soonest = min((self._due_at(a.id, now) for a in self._accounts()), default=now + _LONGEST_NAP_S)
        spent_s = (AT_ONCE - self._allowed) * 60.0 / PER_MINUTE  # until the budget has room for some again
        return min(max(soonest - now, spent_s, 1.0), _LONGEST_NAP_S)

    def _forget_removed(self) -> None:
        members = self._broker.pool.members
        gone = [account_id for account_id in self._due if account_id not in members]
        for account_id in gone:
            for book in (self._due, self._asked, self.errors, self._busy):
                book.pop(account_id, None)
            self._slow.discard(account_id)
        if gone:
            self.quotas.forget(gone)
            self._keep_history()

    def _tell(self, account_id: str, before: float | None, after: float | None, now: float) -> None:
        """An event: worth a look where something is nearly used up, used up, or filled up again."""
        if after is None or after == before:
            return
        crossed = before is None or (before <= NEAR) != (after <= NEAR) or 0.0 in (before, after)
        level = "info" if crossed and (after <= NEAR or before is not None) else "debug"
        text = f"{after * 100:.0f} % of the tightest quota is left"
        self._broker.tell(core.PoolEvent("quota", level, now, text, account_id, data={"fraction": after}))

    def _keep_history(self) -> None:
        for row in self.quotas.history.take_rows():
            self._broker.pool.journal.add_row(row)
