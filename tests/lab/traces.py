"""The traces: who has which limits, what arrives when, what Google says. Every parameter of the table stands here.

`grade` says what our own pool may know, and so which target it is held to:
  known   the limits are configured                            98 % of the bound
  told    nothing configured; refusals name limit and window   98 %
  learn   refusals tell a time at most, the limits are learnt  95 %
  blind   refusals tell nothing at all                         90 %
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

from gemini_poold.core.pacific import next_midnight

from .google import Hints, Key, Outage, Quota
from .sim import START_AT

TARGET = {"known": 0.98, "told": 0.98, "learn": 0.95, "blind": 0.90}
FLASH, PRO, LITE = "gemini-3-flash", "gemini-3-pro", "gemini-3-flash-lite"


@dataclass(frozen=True, slots=True)
class Ask:
    """A client's request. It must be sent (and accepted) by `send_by` to be answered by `deadline`."""

    id: int
    at: float
    deadline: float
    send_by: float
    model: str = FLASH
    session: str = ""
    tokens: int = 1_000
    estimate: int = 1_000  # of its tokens, as a pool can make it from the size of the body


Arrivals = Callable[["Trace", Random], list[tuple[float, str, str, int]]]  # (seconds, model, session, tokens)


@dataclass(frozen=True)
class Trace:
    """`patience_s`: from a request's arrival to its deadline for the whole answer, which takes `answer_s`."""

    name: str
    keys: tuple[Key, ...]
    quotas: Mapping[tuple[str, str], tuple[Quota, ...]]
    pattern: Arrivals
    grade: str
    duration_s: float = 600.0
    patience_s: float = 32.0
    answer_s: float = 2.0
    hints: Hints = Hints.FULL
    outages: tuple[Outage, ...] = ()
    start_at: float = START_AT
    by_tokens: bool = False  # success is weighed in input tokens, because those are what is limited
    text: str = ""
    seeds: int = 0  # 0: as many as asked for
    wire_s: tuple[float, float] = (0.02, 0.08)  # one way to Google, uniformly

    def arrivals(self, seed: int) -> list[Ask]:
        rng = Random(f"{self.name}/{seed}/arrivals")
        asks = []
        for n, (at_s, model, session, tokens) in enumerate(sorted(self.pattern(self, rng))):
            at = self.start_at + at_s
            deadline = at + self.patience_s
            guess = round(tokens * rng.uniform(0.7, 1.0)) if self.by_tokens else tokens
            asks.append(Ask(n, at, deadline, deadline - self.answer_s, model, session, tokens, guess))
        return asks

    def buckets(self, model: str) -> list[str]:
        return list(dict.fromkeys(k.bucket for k in self.keys if (k.bucket, model) in self.quotas))

    def capacity(self, model: str) -> float:
        """Requests (or tokens) a second that the short windows let through, all buckets together."""
        what = "tpm" if self.by_tokens else "rpm"
        return sum(
            q.limit / q.window_s for b in self.buckets(model) for q in self.quotas[b, model] if q.what == what
        )


# ---- arrivals -----------------------------------------------------------------------------------------------------

AGENTS = 8  # sessions that ask by turns


def steady(load: float, *models: str, agents: int = AGENTS) -> Arrivals:
    """Poisson arrivals at `load` times the capacity of each model, from eight agents (or more) at random."""

    def pattern(trace: Trace, rng: Random) -> list[tuple[float, str, str, int]]:
        out = []
        for model in models or (FLASH,):
            rate = load * trace.capacity(model)
            at = rng.expovariate(rate)
            while at < trace.duration_s:
                out.append((at, model, f"s{rng.randrange(agents)}", 1_000))
                at += rng.expovariate(rate)
        return out

    return pattern


def sized(load: float) -> Arrivals:
    """The same in tokens: small, middling and large prompts."""

    def pattern(trace: Trace, rng: Random) -> list[tuple[float, str, str, int]]:
        sizes = (1_000, 4_000, 15_000)
        weights = (6, 3, 1)
        mean = sum(s * w for s, w in zip(sizes, weights, strict=True)) / sum(weights)
        rate = load * trace.capacity(FLASH) / mean
        out, at = [], rng.expovariate(rate)
        while at < trace.duration_s:
            size = round(rng.choices(sizes, weights)[0] * rng.uniform(0.7, 1.3))
            out.append((at, FLASH, f"s{rng.randrange(AGENTS)}", size))
            at += rng.expovariate(rate)
        return out

    return pattern


def bursts(size: int, every_s: float) -> Arrivals:
    """`size` parallel agents ask in the same instant, again and again."""

    def pattern(trace: Trace, rng: Random) -> list[tuple[float, str, str, int]]:
        out, at = [], rng.uniform(0.0, every_s)
        while at < trace.duration_s:
            out += [(at, FLASH, f"s{n}", 1_000) for n in range(size)]
            at += every_s * rng.uniform(0.7, 1.3)
        return out

    return pattern


def rate(per_s: float) -> Arrivals:
    """Poisson arrivals at a given rate."""

    def pattern(trace: Trace, rng: Random) -> list[tuple[float, str, str, int]]:
        out, at = [], rng.expovariate(per_s)
        while at < trace.duration_s:
            out.append((at, FLASH, f"s{rng.randrange(AGENTS)}", 1_000))
            at += rng.expovariate(per_s)
        return out

    return pattern


# ---- pools --------------------------------------------------------------------------------------------------------


def keys(count: int) -> tuple[Key, ...]:
    return tuple(Key(f"k{n}") for n in range(count))


def alike(
    pool: tuple[Key, ...], *quotas: Quota, models: tuple[str, ...] = (FLASH,)
) -> dict[tuple[str, str], tuple[Quota, ...]]:
    return {(k.bucket, m): quotas for k in pool for m in models}


FOUR = keys(4)
RPM60 = Quota(60)
_BAD = (
    Key("k0"), Key("k1"), Key("k2"), Key("k3"),
    Key("revoked", dead_from_s=0.0), Key("revoked-later", dead_from_s=200.0),
    Key("broken", fault=1.0), Key("shaky", fault=0.3), Key("ill-for-a-while", fault=1.0, fault_from_s=150.0, fault_until_s=300.0),
)  # fmt: skip
_SHARED = tuple(Key(f"k{n}", project=f"p{n // 2}") for n in range(6))
_MIDNIGHT = next_midnight(START_AT)
_MODELS = {(k.bucket, m): (Quota(limit),) for k in FOUR for m, limit in ((FLASH, 60), (PRO, 15), (LITE, 120))}


def _phased(count: int, limit: int, seconds: float = 60.0) -> dict[tuple[str, str], tuple[Quota, ...]]:
    shares = (0.13, 0.42, 0.68, 0.91)
    return {
        (f"k{n}", FLASH): (Quota(limit, window_s=seconds, kind="fixed", phase_s=seconds * shares[n % 4]),)
        for n in range(count)
    }


CALIBRATION = Trace(
    "calibration", FOUR, alike(FOUR, Quota(20, window_s=10.0, kind="opened")), steady(1.2), "told",
    duration_s=60.0, patience_s=12.0, hints=Hints.TIME,
    text="four accounts of 20 requests per 10 s window (opened by its first request), 1.2x for 60 s, 12 s deadline; a time is told",
)  # fmt: skip

ALL: tuple[Trace, ...] = (
    CALIBRATION,
    Trace("steady-0.8", FOUR, alike(FOUR, RPM60), steady(0.8), "known", text="rolling minutes of 60, 0.8x"),
    Trace("steady-1.2", FOUR, alike(FOUR, RPM60), steady(1.2), "known", text="rolling minutes of 60, 1.2x"),
    Trace("told-1.2", FOUR, alike(FOUR, RPM60), steady(1.2), "told", text="the same, nothing configured"),
    Trace(
        "unequal", keys(3), {("k0", FLASH): (Quota(100),), ("k1", FLASH): (Quota(30),), ("k2", FLASH): (Quota(10),)},
        steady(1.2), "told", text="limits of 100, 30 and 10 a minute, 1.2x",
    ),
    Trace("out-of-phase", FOUR, _phased(4, 60), steady(1.2), "told", duration_s=1_200.0, text="fixed minutes that begin at different times, 1.2x"),
    Trace(
        "bad-accounts", _BAD, alike(_BAD, Quota(30)), rate(2.4), "told",
        text="nine accounts of 30 a minute: one revoked, one revoked after 200 s, one answers 500 always, one in three of ten, "
        "one for 150 s",
    ),
    Trace(
        "days-in-turn", FOUR,
        {(f"k{n}", FLASH): (Quota(60), Quota(100 + 60 * n, "rpd")) for n in range(4)}, rate(1.5), "told",
        duration_s=1_200.0, start_at=_MIDNIGHT - 700.0,
        text="days of 100, 160, 220 and 280 that run out one after the other; Pacific midnight after 700 s; RetryInfo says 44 s",
    ),
    Trace(
        "capacity", FOUR, alike(FOUR, RPM60), steady(0.8), "known", patience_s=62.0,
        outages=(Outage(FLASH, 100.0, 130.0, "9s"), Outage(FLASH, 300.0, 330.0)),
        text="the model is full for 30 s twice, once with RetryInfo 9 s and once without any",
    ),
    Trace("bursts", FOUR, alike(FOUR, RPM60), bursts(20, 4.5), "told", text="20 agents at once about every 4.5 s (1.1x)"),
    Trace("models", FOUR, _MODELS, steady(1.2, FLASH, PRO, LITE), "told", text="three models of 60, 15 and 120 a minute, 1.2x each"),
    Trace(
        "tokens", FOUR, alike(FOUR, Quota(250_000, "tpm"), Quota(1_000)), sized(1.2), "told", by_tokens=True,
        text="250,000 input tokens a minute, prompts of about 1,000, 4,000 and 15,000, 1.2x in tokens",
    ),
    Trace("shared-projects", _SHARED, alike(_SHARED, RPM60), steady(1.2), "told", text="six keys, two to a project, 1.2x"),
    Trace("misleading", FOUR, alike(FOUR, RPM60), steady(1.2), "told", duration_s=1_200.0, hints=Hints.WRONG, text="RetryInfo is wrong by up to three times"),
    Trace("times-only", FOUR, alike(FOUR, RPM60), steady(1.2), "learn", hints=Hints.TIME, text="rolling minutes, refusals tell a time only"),
    Trace(
        "times-only-phased", FOUR, _phased(4, 60), steady(1.2), "learn", hints=Hints.TIME,
        text="fixed minutes of different phase, refusals tell a time only",
    ),
    Trace(
        "times-only-10s", FOUR, alike(FOUR, Quota(20, window_s=10.0)), steady(1.2), "learn", hints=Hints.TIME, wire_s=(0.005, 0.08),
        text="rolling windows of 10 s, refusals tell a time only, 5 to 80 ms each way to Google",
    ),
    Trace("no-hints", FOUR, alike(FOUR, RPM60), steady(1.2), "blind", hints=Hints.NONE, text="rolling minutes, refusals tell nothing"),
    Trace("no-hints-phased", FOUR, _phased(4, 60), steady(1.2), "blind", hints=Hints.NONE, text="fixed minutes, refusals tell nothing"),
    Trace(
        "no-hints-10s", FOUR, _phased(4, 20, 10.0), steady(1.2), "blind", hints=Hints.NONE,
        text="fixed windows of 10 s, refusals tell nothing",
    ),
    Trace(
        "2000-accounts", keys(2_000), alike(keys(2_000), Quota(3)), steady(1.2, agents=400), "told", duration_s=180.0, seeds=1,
        text="2,000 accounts of 3 a minute, 400 agents, 1.2x",
    ),
)  # fmt: skip
BY_NAME = {trace.name: trace for trace in ALL}
