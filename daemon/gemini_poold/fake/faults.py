"""The script of things that go wrong: rules tried in order, each with a matcher, a fault and a number of times."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from .call import Call
from .envelope import HTML_TYPE, JSON_TYPE, Body, Json, Reply, dumps
from .stream import PLAIN, Twist
from .throttle import overloaded


@dataclass(frozen=True, slots=True)
class Match:
    """Which calls a rule is for; everything is a glob, `kind` may be several.

    `credential` is tried on the caller's name, e-mail, subject and key. `nth`: the first so many minus one matching
    calls pass unharmed. `every`: of the rest only each so-manieth is hit. Kinds, by backend:
    oauth  authorize token revoke userinfo tokeninfo sts impersonate
    gl     models model generate stream count embed embed-many
    vx     models generate stream count embed
    ca     load onboard operation generate stream count quota experiments admin-controls metrics settings
    """

    kind: str | tuple[str, ...] = "*"
    credential: str = "*"
    model: str = "*"
    backend: str = "*"
    path: str = "*"
    nth: int = 1
    every: int = 1
    check: Callable[[Call], bool] | None = None

    def fits(self, call: Call) -> bool:
        kinds = (self.kind,) if isinstance(self.kind, str) else self.kind
        return (
            any(fnmatchcase(call.kind, kind) for kind in kinds)
            and fnmatchcase(call.backend, self.backend)
            and fnmatchcase(call.model, self.model)
            and fnmatchcase(call.path, self.path)
            and (self.credential == "*" or _is_by(call, self.credential))
            and (self.check is None or self.check(call))
        )


ANY = Match()
GENERATION = ("generate", "stream")


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens instead of, before, or to an answer. Made by the constructors below."""

    name: str
    reply: Reply | None = None  # answered instead
    delay_s: float = 0.0  # waited first
    reset: str = ""  # before_headers, after_headers
    silent: bool = False  # never answered; ends when the client leaves
    twist: Twist = PLAIN
    then: Callable[[Call], None] | None = None  # done as well: the world changes in mid-life

    @staticmethod
    def status(
        code: int,
        *,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
        delay_s: float = 0.0,
        content_type: str = "",
    ) -> Fault:
        """This status and body (JSON value, bytes or text; text that begins with `<` is HTML) instead of an answer."""
        raw, kind = _encoded(body)
        reply = Reply(code, raw, content_type or kind, dict(headers or {}))
        return Fault(f"status {code}", reply=reply, delay_s=delay_s)

    @staticmethod
    def delay(seconds: float) -> Fault:
        """A good answer, late."""
        return Fault(f"delay {seconds:g} s", delay_s=seconds)

    @staticmethod
    def silence() -> Fault:
        """Accepted, never answered."""
        return Fault("silence", silent=True)

    @staticmethod
    def reset_connection(where: str = "before_headers") -> Fault:
        """RST `before_headers` or `after_headers` (200 of a stream, then nothing)."""
        return Fault(f"reset {where}", reset=where)

    @staticmethod
    def cut(after: int = 1, how: str = "rst") -> Fault:
        """A stream that ends early, after so many events: `rst`, `fin`, `torn` (inside an HTTP chunk), `clean`."""
        return Fault(f"cut {how}", twist=Twist(break_at=after, how=how))

    @staticmethod
    def no_finish() -> Fault:
        """All of the text, properly ended HTTP, but no finishReason."""
        return Fault("no finish", twist=Twist(finish=""))

    @staticmethod
    def error_event(after: int = 0, *, body: Json | None = None, dress: str = "data") -> Fault:
        """An error inside a 200 stream after so many events; `dress`: data, bare, array."""
        return Fault("error event", twist=Twist(error=body or overloaded(), error_at=after, dress=dress))

    @staticmethod
    def stall(after: int = 1, seconds: float | None = None) -> Fault:
        """A stream that falls silent after so many events, for good or for a while."""
        return Fault("stall", twist=Twist(pause_at=after, pause_s=seconds))

    @staticmethod
    def finish(reason: str = "SAFETY") -> Fault:
        """A complete answer with this finishReason."""
        return Fault(f"finish {reason}", twist=Twist(finish=reason))

    @staticmethod
    def blocked(reason: str = "SAFETY") -> Fault:
        """promptFeedback and no candidates: a complete answer, too."""
        return Fault(f"blocked {reason}", twist=Twist(blocked=reason))

    @staticmethod
    def styled(twist: Twist) -> Fault:
        """A good answer in another dress: line ends, split writes, comments, pace."""
        return Fault("styled", twist=twist)

    @staticmethod
    def event(name: str, do: Callable[[Call], None]) -> Fault:
        """A good answer, and something happens in the world just before it."""
        return Fault(name, then=do)

    def and_then(self, do: Callable[[Call], None]) -> Fault:
        return replace(self, then=do)


@dataclass(slots=True)
class Rule:
    fault: Fault
    when: Match
    times: int | None  # None: for ever
    seen: int = 0
    hits: int = 0

    @property
    def spent(self) -> bool:
        return self.times is not None and self.hits >= self.times


@dataclass(slots=True)
class Faults:
    """The rules, first come first served: a call is hit by the first unspent rule that it matches."""

    rules: list[Rule] = field(default_factory=list)

    def add(self, fault: Fault, *, when: Match = ANY, times: int | None = 1) -> Rule:
        rule = Rule(fault, when, times)
        self.rules.append(rule)
        return rule

    def clear(self) -> None:
        self.rules.clear()

    def remove(self, rule: Rule) -> None:
        if rule in self.rules:
            self.rules.remove(rule)

    def take(self, call: Call) -> Fault | None:
        for rule in self.rules:
            if rule.spent or not rule.when.fits(call):
                continue
            rule.seen += 1
            late = rule.seen - rule.when.nth
            if late >= 0 and late % rule.when.every == 0:
                rule.hits += 1
                return rule.fault
        return None


def _is_by(call: Call, glob: str) -> bool:
    caller = call.caller
    return caller is not None and any(fnmatchcase(name, glob) for name in (caller.name, *caller.aliases))


def _encoded(body: Body | None) -> tuple[bytes, str]:
    if body is None:
        return b"", JSON_TYPE
    raw = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else dumps(body)
    return raw, HTML_TYPE if raw.lstrip()[:1] == b"<" else JSON_TYPE
