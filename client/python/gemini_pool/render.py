"""The pool as text for people: aligned columns, colours and bars on a terminal only. Plain functions of wire values."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TextIO

from gemini_pool import wire

_GOOD, _BAD, _DIM, _WARM, _OFF = "\x1b[32m", "\x1b[31m", "\x1b[2m", "\x1b[33m", "\x1b[0m"
_CODES = {"good": _GOOD, "bad": _BAD, "dim": _DIM, "warm": _WARM}
_BAR = 16
_NO_QUOTA = "no quota is known (Google tells it for Code Assist accounts only; other limits are learnt)"
_REACHES = {
    "account-model": "{0.model} on this account", "account": "the account", "bucket-model": "{0.model} in bucket {0.key}",
    "bucket": "all of bucket {0.key}", "backend-model": "{0.model} on every account of its backend",
}  # fmt: skip
_LIMIT_SOURCES = {
    "configured": "as configured", "told": "as Google named it", "learnt": "learnt from our own count",
    "cap": "your own daily cap",
}  # fmt: skip


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
        lines = [self.ink("bad", self.problem(e)) for e in s.config_errors]
        gateway = s.gateway_url or "no gateway port"
        if s.gateway_error:
            gateway = self.ink("bad", f"gateway: {s.gateway_error}")
        lines.append(f"gemini-pool {s.version}, {s.state}, up {duration(s.uptime_s)}, {gateway}")
        lines += ["", self.accounts(s.accounts)]
        lines += [f"{c.key}: {self._cooldown(c)}" for c in s.model_cooldowns]
        lines.append("")
        c = s.counters
        ends = [
            (c.cancelled, "cancelled"),
            (c.released, "given back"),
            (c.expired, "without a word"),
            (s.in_flight, "in flight"),
        ]
        lines.append(
            f"{c.requests} requests: {c.answered} answered, {c.failed} failed"
            + "".join(f", {count} {word}" for count, word in ends if count)
        )
        lines.append(
            f"{c.rotations} rotations, {c.absorbed} refusals absorbed, {c.renewals} renewals, "
            f"{c.waited_for_token} waited for a token"
        )
        lines += self._quota_lines(s)
        if s.queue.waiting:
            lines.append(f"{s.queue.waiting} waiting, the first for {duration(s.queue.oldest_s)}")
            lines += [f"  {q.waiting} for {q.model}, the next {self._in(q.next_at)}" for q in s.queue.models]
        if s.clients:
            lines += ["", self.table(("CLIENT", "PID", "LEASES", "IN FLIGHT", "CONNECTED"), [
                (f"{c.name} {c.version}".strip(), str(c.pid), str(c.leases), str(c.in_flight), self.ago(c.connected_at))
                for c in s.clients
            ])]  # fmt: skip
        return "\n".join(lines)

    def _quota_lines(self, s: wire.StatusResult) -> list[str]:
        """One line a family: the mean over buckets of what is left of the tightest model."""
        buckets = {a.id: a.bucket for a in s.accounts}
        families: dict[str, dict[str, wire.QuotaEntry]] = {}
        for e in s.quota:
            if e.fraction is not None and (e.resets_at is None or e.resets_at > self.now):
                family = families.setdefault(e.family or "all models", {})
                bucket = buckets.get(e.account, e.account)
                if bucket not in family or e.fraction < (family[bucket].fraction or 0.0):
                    family[bucket] = e
        lines = []
        for name, tightest in families.items():
            mean = sum(e.fraction or 0.0 for e in tightest.values()) / len(tightest)
            first = min(tightest.values(), key=lambda e: e.empty_at or e.resets_at or self.now)
            told = self._outlook(first.fraction, first.empty_at, first.unused_at_reset, first.resets_at)
            lines.append(f"{name}: {self.share(mean)} left" + (f"; {first.account}: {told}" if told else ""))
        return lines

    def accounts(self, accounts: Sequence[wire.AccountInfo]) -> str:
        if not accounts:
            return "no accounts: gemini-pool login ID, gemini-pool account add, or accounts.toml"
        rows = []
        notes = []
        for a in accounts:
            if a.pinned:
                what = "everything" if "*" in a.pinned else ", ".join(a.pinned)
                notes.append(f"  {a.id}: pinned, used before all others for {what}")
            if a.reserve:
                notes.append(
                    f"  {a.id}: {a.reserve * 100:g} % of its quota is kept for requests that ask for it"
                )
            rows.append((
                a.id, a.backend, self._state(a), self._token(a.token), f"{a.health.score:.2f}",
                str(a.counters.served), str(a.counters.failed), str(a.in_flight), a.email or a.project,
            ))  # fmt: skip
            said = (a.reason if a.state != "ready" else "", a.hint, a.url)
            notes += [f"  {a.id}: {text}" for text in said if text]
            notes += [f"  {a.id}: {self._cooldown(c)}" for c in a.cooldowns]
        head = ("ACCOUNT", "BACKEND", "STATE", "TOKEN", "HEALTH", "SERVED", "FAILED", "NOW", "WHO")
        return "\n".join([self.table(head, rows), *notes])

    def verdict(self, v: wire.AccountVerdict) -> str:
        """What became of one account, and exactly what to do next."""
        who = ", ".join(part for part in (v.email, v.project, v.tier) if part)
        state = self.ink("good" if v.ok else "bad", v.state)
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
            (row.verdict.account, row.verdict.backend, self.ink("good" if row.verdict.ok else "bad", row.verdict.state),
             row.call or "-", "-" if row.took_s is None else f"{row.took_s * 1000:.0f} ms",
             "" if row.verdict.ok else row.verdict.reason)
            for row in result.accounts
        ]  # fmt: skip
        nexts = [
            f"  {row.verdict.account}: {row.verdict.next}" for row in result.accounts if row.verdict.next
        ]
        return "\n".join([self.table(("ACCOUNT", "BACKEND", "STATE", "ASKED", "TOOK", "WHY"), rows), *nexts])

    def removed(self, r: wire.AccountRemoveResult) -> str:
        lines = [f"{r.account}: removed" + (", its login is ended at Google" if r.revoked else "")]
        if r.secret_left:
            lines.append(f"  its secret is still in {r.secret_left}")
        return "\n".join([*lines, *(f"  {note}" for note in r.notes)])

    def imported(self, result: wire.ImportResult) -> str:
        rows = [
            (row.found, self.ink("bad" if row.result == "refused" else "good", row.result), row.account or "-",
             row.email or row.project, row.reason)
            for row in result.logins
        ]  # fmt: skip
        lines = (
            [self.table(("FOUND", "RESULT", "ACCOUNT", "WHO", "WHY"), rows)] if rows else ["nothing found"]
        )
        lines += [f"  next: {row.next}" for row in result.logins if row.next]
        return "\n".join([*lines, *result.notes])

    def quota(self, q: wire.QuotaResult) -> str:
        """By family of models, newest first: all accounts together, then each of its quotas."""
        lines: list[str] = []
        for family in [f.family for f in q.families] + self._rest_of(q):
            aggregate = next((f for f in q.families if f.family == family), None)
            entries = [e for e in q.accounts if e.family == family]
            lines += ["", self._family(family, aggregate), *self._quota_rows(entries)]
        lines += [self.ink("warm", f"{account}: {problem}") for account, problem in q.errors.items()]
        return "\n".join(lines[1:] if lines and not lines[0] else lines) or _NO_QUOTA

    @staticmethod
    def _rest_of(q: wire.QuotaResult) -> list[str]:
        """Families that have entries and no aggregate."""
        known = {f.family for f in q.families}
        return list(dict.fromkeys(e.family for e in q.accounts if e.family not in known))

    def _family(self, name: str, f: wire.QuotaAggregate | None) -> str:
        if f is None:
            return name or "all models"
        told = self._outlook(f.fraction, f.empty_at, f.unused_at_reset, f.next_reset_at)
        amounts = f", {f.used:g} used and {f.remaining:g} left" if None not in (f.used, f.remaining) else ""
        who = f"{f.accounts} account{'s' * (f.accounts != 1)}"
        reset = f"; first reset {self._in(f.next_reset_at)}" if f.next_reset_at else ""
        return f"{name}: {self.share(f.fraction)} left over {who}{amounts}{reset}" + (
            f"; {told}" if told else ""
        )

    def _quota_rows(self, entries: Sequence[wire.QuotaEntry]) -> list[str]:
        rows = [
            (e.account, e.model or "all models", _kind(e), _used(e.fraction), self.share(e.fraction), _amount(e),
             self._in(e.resets_at), self._outlook(e.fraction, e.empty_at, e.unused_at_reset, e.resets_at), e.source,
             self.ago(e.observed_at))
            for e in entries
        ]  # fmt: skip
        head = (
            "ACCOUNT",
            "MODEL",
            "OF",
            "USED",
            "LEFT",
            "AMOUNT",
            "RESETS",
            "AT THIS RATE",
            "SOURCE",
            "SEEN",
        )
        return [self.table(head, rows)] if rows else []

    def _outlook(
        self, fraction: float | None, empty_at: float | None, unused: float | None, resets_at: float | None
    ) -> str:
        """Where it goes: "empty at 16:40 at this rate", "resets in 3 h with 60 % unused"."""
        if fraction == 0.0:
            return "empty"
        if empty_at is not None:
            return self.ink("warm", f"empty at {self._clock(empty_at)} at this rate")
        if unused is not None and resets_at is not None:
            return f"resets {self._in(resets_at)} with {unused:.0%} unused".replace("%", " %")
        return ""

    def _clock(self, at: float) -> str:
        """The time of day here; with the day when it is not within a day from now."""
        form = "%H:%M" if at - self.now < 86_400 else "%a %d %b %H:%M"
        return time.strftime(form, time.localtime(at))

    def explain(self, e: wire.ExplainResult) -> str:
        """The choice, every verdict, and the evidence of what keeps accounts out."""
        when = f"{e.decision}, {self.ago(e.at)}: " if e.decision else ""
        if e.chosen:
            first = f"{when}{e.model}: {self.ink('good', e.chosen)} ({e.reason})"
        else:
            first = f"{when}{e.model}: {self.ink('bad', e.code or 'nobody')}: {e.reason}"
            if e.next_return_at is not None:
                verb = "was to return" if e.decision else "returns"
                first += f"; {e.next_return_account} {verb} {self._in(e.next_return_at)}"
        if not e.recorded:
            return f"{first}\nthe verdicts of that moment were not recorded: too many decisions at once"
        rows = [
            (
                v.account,
                self.ink("good" if v.available else "warm", v.verdict),
                v.reason,
                self._in(v.returns_at),
            )
            for v in e.accounts
        ]
        if not rows:
            return first
        evidence = [line for v in e.accounts for line in self._evidence(v, e.at)]
        return "\n".join([first, self.table(("ACCOUNT", "VERDICT", "WHY", "RETURNS"), rows), *evidence])

    def _evidence(self, v: wire.VerdictInfo, at: float) -> list[str]:
        """The chain behind one verdict: each cooldown with its source, each limit with what we have sent."""
        lines = []
        for c in v.cooldowns:
            sure = "told by Google, kept to the second" if c.told else "a guess, may be lifted earlier"
            strikes = f", {c.strikes} in a row" if c.strikes > 1 else ""
            lines.append(
                f"  {v.account}: {_REACHES.get(c.scope, c.scope).format(c)} rests until {self._clock(c.until)} ({duration(c.until - at)}): {c.reason or c.kind}, "
                f"from {c.source or c.kind} {duration(at - c.since)} before; {sure}{strikes}"
            )
        lines += [
            f"  {v.account}: {known.used:g} of {known.limit:g} {known.what} ({_LIMIT_SOURCES.get(known.source, known.source)})"
            for known in v.limits
        ]
        return lines

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
            return self.ink(
                "warm" if a.state in ("starting", "offline", "paused", "disabled") else "bad", a.state
            )
        return self.ink("good", "ready") if a.available else self.ink("warm", "cooling")

    def _token(self, t: wire.TokenInfo) -> str:
        if t.expires_at is None or t.state == "expired":  # one that Google refused has ended before its time
            return t.state
        return f"{t.state}, {duration(t.expires_at - self.now)}"

    def _cooldown(self, c: wire.CooldownInfo) -> str:
        evidence = "told by Google" if c.told else "guessed"
        source = f", {c.source}" if c.source else ""
        text = f"{c.model or 'all models'} rests {duration(c.until - self.now)} more: {c.reason or c.kind} ({evidence}{source})"
        return self.ink("warm", text)

    def share(self, fraction: float | None) -> str:
        if fraction is None:
            return "?"
        text = f"{fraction * 100:3.0f} %"
        if not self.fancy:
            return text
        full = round(min(1.0, max(0.0, fraction)) * _BAR)
        ink = "good" if fraction > 0.5 else "warm" if fraction > 0.2 else "bad"
        return f"{self.ink(ink, '█' * full)}{self.ink('dim', '░' * (_BAR - full))} {text}"

    def _in(self, at: float | None) -> str:
        return "" if at is None else f"in {duration(at - self.now)}" if at > self.now else "now"

    def ago(self, at: float) -> str:
        return f"{duration(self.now - at)} ago"

    def ink(self, name: str, text: str) -> str:
        return f"{_CODES[name]}{text}{_OFF}" if self.fancy and text else text

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
        """Columns as wide as their widest cell; columns that are empty throughout are left out."""
        kept = [i for i in range(len(head)) if any(row[i] for row in rows)]
        widths = {i: max(len(head[i]), *(_width(row[i]) for row in rows)) for i in kept}
        lines = [self.ink("dim", "  ".join(head[i].ljust(widths[i]) for i in kept).rstrip())]
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


def _used(fraction: float | None) -> str:
    return "?" if fraction is None else f"{(1 - fraction) * 100:3.0f} %"


def _kind(e: wire.QuotaEntry) -> str:
    """What is counted, where that is not plain requests."""
    kind = e.token_type.lower() if e.token_type not in ("", "REQUESTS") else ""
    return f"{kind} a {e.window}".strip() if e.window else kind


def _amount(e: wire.QuotaEntry) -> str:
    if e.remaining is None:
        return ""
    return f"{e.remaining:g} of {e.limit:g}" if e.limit is not None else f"{e.remaining:g}"


def _width(text: str) -> int:
    """Visible characters: what colours add is not seen."""
    for code in (*_CODES.values(), _OFF):
        text = text.replace(code, "")
    return len(text)
