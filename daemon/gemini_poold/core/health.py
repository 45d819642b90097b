"""Account health: what an account is (a table of transitions) and how well it does (a score).

Rules
1. An account serves in `ready` alone. It becomes ready when a token is warm and its backend's set-up is done.
2. What passes by itself is `offline`: the token endpoint or the set-up cannot be reached. It is retried.
3. What a person must mend is *held*: the daemon does not try again by itself until the person acted (edited the
   entry, logged in again) or said so (`account clear-cooldown`, `account enable`).
4. Some held states may heal without us: a missing secret appears, an API is switched on, somebody logs in again.
   `usable` leads out of them: a token that came, or a set-up that went through, is the proof.
5. `suspended` is Google's word about a person's account: only that person's explicit clearing leads out of it.
6. What the user wishes (disabled, paused) is not health: it overlays the state and hides nothing beneath it.

`STATES`, `EVENTS` and `next_state` are the table; `mermaid()` draws it for DESIGN.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from .model import AccountState as S


class Event(StrEnum):
    USABLE = "usable"  # token warm, set-up done
    UNREACHABLE = "unreachable"  # no valid token or set-up, for a passing reason
    REFUSED = "refused"  # Google or the credential said what the account is (the target state)
    CHANGED = "changed"  # the user edited the entry or logged in again
    CLEARED = "cleared"  # a person said: try again


HELD = frozenset({
    S.LOGIN_REQUIRED, S.DEAD, S.CLIENT_INVALID, S.UNLICENSED, S.UNSUPPORTED_CLIENT, S.NEEDS_VALIDATION, S.SUSPENDED,
    S.MISCONFIGURED, S.BLOCKED_BY_TERMS, S.SECRET_MISSING,
})  # fmt: skip
HEALING = frozenset({
    S.NEEDS_VALIDATION, S.MISCONFIGURED, S.SECRET_MISSING, S.UNLICENSED, S.LOGIN_REQUIRED, S.CLIENT_INVALID,
})  # fmt: skip
STATES = (S.STARTING, S.READY, S.OFFLINE, *sorted(HELD))


def next_state(state: S, event: Event, target: S | None = None) -> S:
    """The state after `event`; `target` is what a REFUSED names. Events that do not apply change nothing."""
    match event:
        case Event.USABLE:
            return S.READY if state not in HELD or state in HEALING else state
        case Event.UNREACHABLE:
            return S.OFFLINE if state not in HELD else state
        case Event.REFUSED:
            return state if target is None or state is S.SUSPENDED else target
        case Event.CHANGED:
            return state if state is S.SUSPENDED else S.STARTING
        case Event.CLEARED:
            return S.STARTING


ERROR_WORD = {
    S.LOGIN_REQUIRED: "login_required",
    S.CLIENT_INVALID: "login_required",
    S.NEEDS_VALIDATION: "login_required",
    S.DEAD: "account_dead",
    S.SUSPENDED: "account_dead",
    S.MISCONFIGURED: "account_dead",
    S.SECRET_MISSING: "account_dead",
    S.UNLICENSED: "unlicensed",
    S.UNSUPPORTED_CLIENT: "unsupported_client",
    S.BLOCKED_BY_TERMS: "blocked_by_terms",
}

_ALPHA = 0.1  # weight of the newest answer in the running averages
_SLOW_S = 30.0  # a first byte later than this scores nothing
_RECOVERY_S = 300.0  # this long after its last failure an account counts as recovered


@dataclass(slots=True)
class Health:
    """Running averages of one account. `quota` is the tightest remaining fraction known, None when unknown."""

    success: float = 1.0
    latency_s: float | None = None
    quota: float | None = None
    failures: int = 0  # in a row
    last_failure_at: float = 0.0

    def succeeded(self, first_byte_s: float | None) -> None:
        self.success += _ALPHA * (1.0 - self.success)
        self.failures = 0
        if first_byte_s is not None:
            old = first_byte_s if self.latency_s is None else self.latency_s
            self.latency_s = old + _ALPHA * (first_byte_s - old)

    def failed(self, now: float) -> None:
        self.success -= _ALPHA * self.success
        self.failures += 1
        self.last_failure_at = now

    def score(self, now: float) -> float:
        """0 (avoid) to 1: success .40, quota .30, latency .15, time since the last failure .15."""
        latency = 1.0 if self.latency_s is None else max(0.0, 1.0 - self.latency_s / _SLOW_S)
        quota = 1.0 if self.quota is None else self.quota
        rest = 1.0 if self.failures == 0 else min(1.0, max(0.0, now - self.last_failure_at) / _RECOVERY_S)
        return round(0.40 * self.success + 0.30 * quota + 0.15 * latency + 0.15 * rest, 4)

    def band(self, now: float) -> int:
        """0 well, 1 shaky, 2 poor: coarse, so that a choice does not flap with every answer."""
        if self.failures == 0 and self.success > 0.9 and self.quota is None and self.latency_s is None:
            return 0  # asked twice for every request; nothing known speaks against it
        score = self.score(now)
        return 0 if score >= 0.65 else 1 if score >= 0.45 else 2


def mermaid() -> str:
    """The transition table as a Mermaid state diagram (DESIGN.md holds its output; a test compares).

    Held states whose ways out are the same are drawn as one box.
    """
    boxes: dict[tuple[tuple[Event, S], ...], list[S]] = {}
    for state in sorted(HELD):
        ways: tuple[tuple[Event, S], ...] = tuple(
            (e, next_state(state, e))
            for e in Event
            if e is not Event.REFUSED and next_state(state, e) is not state
        )
        boxes.setdefault(ways, []).append(state)
    lines = ["stateDiagram-v2", "    [*] --> starting"]
    for state in (S.STARTING, S.READY, S.OFFLINE):
        for event in Event:
            after = next_state(state, event)
            if event is not Event.REFUSED and after is not state:
                lines.append(f"    {state} --> {after} : {event}")
        lines.extend(f"    {state} --> held{n} : {Event.REFUSED}" for n in range(len(boxes)))
    for n, (ways, states) in enumerate(boxes.items()):
        lines.append(f"    held{n} : {', '.join(states)}")
        lines.extend(f"    held{n} --> {after} : {event}" for event, after in ways)
    return "\n".join(lines)
