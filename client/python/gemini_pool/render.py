"""The pool as text for people: aligned columns, colours and bars on a terminal only. Plain functions of wire values."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TextIO

from gemini_pool import wire

_GOOD, _BAD, _DIM, _WARM, _OFF = "\x1b[32m", "\x1b[31m", "\x1b[2m", "\x1b[33m", "\x1b[0m"
_CODES = {"good": _GOOD, "bad": _BAD, "dim": _DIM, "warm": _WARM}
_BAR = 16


class Renderer:
    """`fancy`: colours and bars. `now`: Unix seconds, for everything told as "in …"."""

    def __init__(self, *, fancy: bool = False, now: float | None = None) -> None:
        self.fancy = fancy
        self.now = time.time() if now is None else now

    @classmethod
    def of(cls, out: TextIO, environ: Mapping[str, str]) -> Renderer:
        """For this output: fancy on a terminal, unless NO_COLOR or a dumb terminal says otherwise."""
        plain = bool(environ.get("NO_COLOR")) or environ.get("TERM") == "dumb"
        return cls(fancy=out.isatty() and not plain)

    # ---- views -----------------------------------------------------------------------------------------------

    def status(self, s: wire.StatusResult) -> str:
        """Everything at a glance; what is wrong with the files comes first."""
        lines = [self._ink("bad", self.problem(e)) for e in s.config_errors]
        gateway = s.gateway_url or "no gateway port"
        if s.gateway_error:
            gateway = self._ink("bad", f"gateway: {s.gateway_error}")
        lines.append(f"gemini-pool {s.version}, {s.state}, up {duration(s.uptime_s)}, {gateway}")
        lines += ["", self.accounts(s.accounts)]
        lines += [f"{c.key}: {self._cooldown(c)}" for c in s.model_cooldowns]
        lines.append("")
        c = s.counters
        lines.append(
            f"{c.requests} requests: {c.answered} answered, {c.failed} failed; {c.rotations} rotations, "
            f"{c.absorbed} refusals absorbed, {c.renewals} renewals, {c.waited_for_token} waited for a token"
        )
        if s.queue.waiting:
            lines.append(f"{s.queue.waiting} waiting, the first for {duration(s.queue.oldest_s)}")
            lines += [f"  {q.waiting} for {q.model}, the next {self._in(q.next_at)}" for q in s.queue.models]
        if s.clients:
            lines += ["", self._table(("CLIENT", "PID", "LEASES", "IN FLIGHT", "CONNECTED"), [
                (f"{c.name} {c.version}".strip(), str(c.pid), str(c.leases), str(c.in_flight), self._ago(c.connected_at))
                for c in s.clients
            ])]  # fmt: skip
        return "\n".join(lines)

    def accounts(self, accounts: Sequence[wire.AccountInfo]) -> str:
        if not accounts:
            return "no accounts: gemini-pool login ID, gemini-pool account add, or accounts.toml"
        rows = []
        notes = []
        for a in accounts:
            rows.append((
                a.id, a.backend, self._state(a), self._token(a.token), f"{a.health.score:.2f}",
                str(a.counters.served), str(a.counters.failed), str(a.in_flight), a.email or a.project,
            ))  # fmt: skip
            said = (a.reason if a.state != "ready" else "", a.hint, a.url)
            notes += [f"  {a.id}: {text}" for text in said if text]
            notes += [f"  {a.id}: {self._cooldown(c)}" for c in a.cooldowns]
        head = ("ACCOUNT", "BACKEND", "STATE", "TOKEN", "HEALTH", "SERVED", "FAILED", "NOW", "WHO")
        return "\n".join([self._table(head, rows), *notes])

    def verdict(self, v: wire.AccountVerdict) -> str:
        """What became of one account, and exactly what to do next."""
        who = ", ".join(part for part in (v.email, v.project, v.tier) if part)
        state = self._ink("good" if v.ok else "bad", v.state)
        lines = [f"{v.account}: {state}" + (f" ({who})" if who else "")]
        if v.licensed is not None:
            lines.append(f"  Code Assist {'serves' if v.licensed else 'does not serve'} this account")
        lines += [f"  {text}" for text in (v.reason if not v.ok else "", *v.notes) if text]
        url = v.url if v.url not in v.next else ""
        lines += [f"  next: {text}" for text in (v.next, url) if text]
        return "\n".join(lines)

    def logged_in(self, r: wire.LoginResult) -> str:
        """What was kept, and what the account is good for."""
        what = f"{'added' if r.created else 'logged in again'}{f' as {r.email}' if r.email else ''}"
        whose = "another program's" if r.client_origin == "foreign" else "your own"
        return (
            f"{r.account}: {what}, with {whose} OAuth client; kept in {r.secret}\n{self.verdict(r.verdict)}"
        )

    def exported(self, r: wire.ExportResult) -> str:
        return "\n".join([f"written: {r.path} ({', '.join(r.accounts) or 'no account'})", *r.notes])

    def verified(self, result: wire.VerifyResult) -> str:
        if not result.accounts:
            return "no accounts: gemini-pool login ID, gemini-pool account add, or accounts.toml"
        rows = [
            (row.verdict.account, row.verdict.backend, self._ink("good" if row.verdict.ok else "bad", row.verdict.state),
             row.call or "-", "-" if row.took_s is None else f"{row.took_s * 1000:.0f} ms",
             "" if row.verdict.ok else row.verdict.reason)
            for row in result.accounts
        ]  # fmt: skip
        nexts = [
            f"  {row.verdict.account}: {row.verdict.next}" for row in result.accounts if row.verdict.next
        ]
        return "\n".join([self._table(("ACCOUNT", "BACKEND", "STATE", "ASKED", "TOOK", "WHY"), rows), *nexts])

    def removed(self, r: wire.AccountRemoveResult) -> str:
        lines = [f"{r.account}: removed" + (", its login is ended at Google" if r.revoked else "")]
        if r.secret_left:
            lines.append(f"  its secret is still in {r.secret_left}")
        return "\n".join([*lines, *(f"  {note}" for note in r.notes)])

    def imported(self, result: wire.ImportResult) -> str:
        rows = [
            (row.found, self._ink("bad" if row.result == "refused" else "good", row.result), row.account or "-",
             row.email or row.project, row.reason)
            for row in result.logins
        ]  # fmt: skip
        lines = (
            [self._table(("FOUND", "RESULT", "ACCOUNT", "WHO", "WHY"), rows)] if rows else ["nothing found"]
        )
        lines += [f"  next: {row.next}" for row in result.logins if row.next]
        return "\n".join([*lines, *result.notes])

    def quota(self, q: wire.QuotaResult) -> str:
        lines = [
            f"{f.family}: {self._share(f.fraction)} left over {f.accounts} account{'s' * (f.accounts != 1)}"
            + (f", first reset in {duration(f.next_reset_at - self.now)}" if f.next_reset_at else "")
            for f in q.families
        ]
        rows = [
            (e.account, e.model or "all models", self._share(e.fraction), _amount(e), self._in(e.resets_at), e.source,
             self._ago(e.observed_at))
            for e in q.accounts
        ]  # fmt: skip
        if rows:
            head = ("ACCOUNT", "MODEL", "LEFT", "AMOUNT", "RESETS", "SOURCE", "SEEN")
            lines += ["", self._table(head, rows)] if lines else [self._table(head, rows)]
        lines += [self._ink("warm", f"{account}: {problem}") for account, problem in q.errors.items()]
        return "\n".join(lines) or "no quota is known (Google tells it for Code Assist accounts only)"

    def explain(self, e: wire.ExplainResult) -> str:
        if e.chosen:
            first = f"{e.model}: {self._ink('good', e.chosen)} ({e.reason})"
        else:
            first = f"{e.model}: {self._ink('bad', e.code or 'nobody')}: {e.reason}"
            if e.next_return_at is not None:
                first += f"; {e.next_return_account} returns {self._in(e.next_return_at)}"
        rows = [
            (
                v.account,
                self._ink("good" if v.available else "warm", v.verdict),
                v.reason,
                self._in(v.returns_at),
            )
            for v in e.accounts
        ]
        return (
            "\n".join([first, self._table(("ACCOUNT", "VERDICT", "WHY", "RETURNS"), rows)]) if rows else first
        )

    def reloaded(self, r: wire.ReloadResult) -> str:
        parts = [
            f"{word} {', '.join(names)}"
            for word, names in (
                ("added", r.added), ("removed", r.removed), ("changed", r.changed), ("configuration:", r.config_changed),
            )
            if names
        ]  # fmt: skip
        if r.restart_needed:
            parts.append(f"needs a restart: {', '.join(r.restart_needed)}")
        return "; ".join(parts) or ("nothing was taken over" if r.errors else "nothing has changed")

    # ---- pieces ----------------------------------------------------------------------------------------------

    @staticmethod
    def problem(e: wire.ConfigError) -> str:
        """What is wrong with a file, with its place as compilers write it."""
        place = ":".join([e.file, *(str(number) for number in (e.line, e.column) if number)])
        return f"{place}: {e.message}" if place else e.message

    def _state(self, a: wire.AccountInfo) -> str:
        if a.state != "ready":
            return self._ink(
                "warm" if a.state in ("starting", "offline", "paused", "disabled") else "bad", a.state
            )
        return self._ink("good", "ready") if a.available else self._ink("warm", "cooling")

    def _token(self, t: wire.TokenInfo) -> str:
        return f"{t.state}, {duration(t.expires_at - self.now)}" if t.expires_at is not None else t.state

    def _cooldown(self, c: wire.CooldownInfo) -> str:
        evidence = "told by Google" if c.told else "guessed"
        source = f", {c.source}" if c.source else ""
        text = f"{c.model or 'all models'} rests {duration(c.until - self.now)} more: {c.reason or c.kind} ({evidence}{source})"
        return self._ink("warm", text)

    def _share(self, fraction: float | None) -> str:
        if fraction is None:
            return "?"
        text = f"{fraction * 100:3.0f} %"
        if not self.fancy:
            return text
        full = round(min(1.0, max(0.0, fraction)) * _BAR)
        ink = "good" if fraction > 0.5 else "warm" if fraction > 0.2 else "bad"
        return f"{self._ink(ink, '█' * full)}{self._ink('dim', '░' * (_BAR - full))} {text}"

    def _in(self, at: float | None) -> str:
        return "" if at is None else f"in {duration(at - self.now)}" if at > self.now else "now"

    def _ago(self, at: float) -> str:
        return f"{duration(self.now - at)} ago"

    def _ink(self, name: str, text: str) -> str:
        return f"{_CODES[name]}{text}{_OFF}" if self.fancy and text else text

    def _table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
        """Columns as wide as their widest cell; columns that are empty throughout are left out."""
        kept = [i for i in range(len(head)) if any(row[i] for row in rows)]
        widths = {i: max(len(head[i]), *(_width(row[i]) for row in rows)) for i in kept}
        lines = [self._ink("dim", "  ".join(head[i].ljust(widths[i]) for i in kept).rstrip())]
        lines += [
            "  ".join(row[i] + " " * (widths[i] - _width(row[i])) for i in kept).rstrip() for row in rows
        ]
        return "\n".join(lines)


def duration(seconds: float) -> str:
    """Two units at most: "1 d 2 h", "3 h 5 min", "45 s"."""
    left = max(0, round(seconds))
    for size, unit, smaller, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if left >= size:
            rest = left % size // smaller
            return f"{left // size} {unit} {rest} {small}" if rest else f"{left // size} {unit}"
    return f"{left} s"


def _amount(e: wire.QuotaEntry) -> str:
    if e.remaining is None:
        return ""
    return f"{e.remaining:g} of {e.limit:g}" if e.limit is not None else f"{e.remaining:g}"


def _width(text: str) -> int:
    """Visible characters: what colours add is not seen."""
    for code in (*_CODES.values(), _OFF):
        text = text.replace(code, "")
    return len(text)
