"""The clairvoyant bound: how much of a trace could have been served by one who knows every limit and every arrival.

Formula. Requests are unit jobs with a release (arrival) and a last instant to be sent (`send_by`); each bucket has
slots: `limit` in every fixed window, or slots that return one window after their use. The clairvoyant sends, at every
instant at which a slot and a living request exist, the request with the earliest `send_by` on the slot that perishes
first. For windows of one length and one patience this greedy schedule is a maximum matching (exchange argument: if an
optimal matching leaves out the earliest deadline or the earliest perishing slot, swapping them in never loses a pair;
with rolling windows an earlier use returns earlier). Where days limit as well, the smaller of two relaxations is taken
(short windows without days; days without short windows). It has no latency, is never refused, meets no 500, and leaves out dead
accounts and full models. Limits in tokens are treated as a fluid: a request may be sent in parts, and the share is
counted in tokens; that only raises the bound. The result is the weight served, not a share.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf

from .google import Count, Key, Quota
from .traces import Ask, Trace

_FINE = 1e-6


class _Bucket:
    def __init__(self, trace: Trace, key: Key, quotas: tuple[Quota, ...]) -> None:
        self.counts = [Count(q, trace.start_at) for q in quotas]
        self.dead_from = trace.start_at + key.dead_from_s
        self.ill = (
            (trace.start_at + key.fault_from_s, trace.start_at + key.fault_until_s)
            if key.fault >= 1
            else None
        )

    def free_at(self, now: float) -> float:
        """When one more request (or token) fits."""
        at = max(c.free_at(now, 1) for c in self.counts)
        if self.ill is not None and self.ill[0] <= at < self.ill[1]:
            at = self.ill[1]
        return at if at < self.dead_from else inf

    def room(self, now: float) -> int:
        return min(c.quota.limit - c.used for c in self.counts if c.quota.tokens)

    def take(self, now: float, tokens: int) -> None:
        for c in self.counts:
            c.take(now, tokens if c.quota.tokens else 1)

    def perishes_at(self, now: float) -> float:
        return min(c.end_of_window(now) for c in self.counts)


def bound(trace: Trace, asks: list[Ask]) -> float:
    """The weight (requests, or input tokens where those are limited) that could have been served."""
    total = 0.0
    for model in {ask.model for ask in asks}:
        mine = [a for a in asks if a.model == model]
        kinds = {q.what == "rpd" for b in trace.buckets(model) for q in trace.quotas[b, model]}
        total += min(_schedule(trace, model, mine, days=days) for days in kinds)
    return total


def _schedule(trace: Trace, model: str, asks: list[Ask], *, days: bool) -> float:
    """`days`: only the days' limits hold; else only the others."""
    buckets = _buckets(trace, model, days=days)
    free: list[tuple[float, int]] = [(trace.start_at, n) for n in range(len(buckets))]  # heap of returns
    ready: list[tuple[float, int]] = []  # heap by order
    waiting: list[tuple[float, int, float]] = []  # (send_by, serial, what is left of it)
    served, now, coming = 0.0, trace.start_at, 0
    while True:
        while coming < len(asks) and asks[coming].at <= now:
            ask = asks[coming]
            heappush(waiting, (ask.send_by, coming, float(ask.tokens if trace.by_tokens else 1)))
            coming += 1
        while free and free[0][0] <= now + _FINE:
            _, n = heappop(free)
            heappush(ready, (buckets[n].perishes_at(now), n))
        while waiting and waiting[0][0] < now - _FINE:
            heappop(waiting)
        while waiting and ready:
            _, n = heappop(ready)
            b = buckets[n]
            at = _out(trace, model, b.free_at(now))
            if at > now + _FINE:
                if at < inf:
                    heappush(free, (at, n))
                continue
            send_by, serial, left = heappop(waiting)
            part = min(left, b.room(now)) if trace.by_tokens else 1.0
            b.take(now, int(part) if trace.by_tokens else 0)
            served += part
            if left > part:
                heappush(waiting, (send_by, serial, left - part))
            heappush(ready, (b.perishes_at(now), n))
        after = [asks[coming].at] if coming < len(asks) else []
        after += [free[0][0]] if free and waiting else []
        if not after:
            return served
        now = max(now, min(after))


def _buckets(trace: Trace, model: str, *, days: bool) -> list[_Bucket]:
    """One of each project; alive as long as the longest-lived of its keys."""
    best: dict[str, Key] = {}
    for key in trace.keys:
        known = best.get(key.bucket)
        if (key.bucket, model) in trace.quotas and (known is None or key.dead_from_s > known.dead_from_s):
            best[key.bucket] = key
    held = {b: tuple(q for q in trace.quotas[b, model] if (q.what == "rpd") is days) for b in best}
    return [_Bucket(trace, key, held[b]) for b, key in best.items()]


def _out(trace: Trace, model: str, at: float) -> float:
    """`at`, or the end of the outage that it falls into."""
    for outage in trace.outages:
        if outage.model == model and trace.start_at + outage.from_s <= at < trace.start_at + outage.until_s:
            return trace.start_at + outage.until_s
    return at
