"""The leases that are out: who holds which, and which end next. A lease ends once.

Also their form over a planned restart, in which they go on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from math import inf

from .model import Data, Lease, LeaseRow, Request


class UnknownLease(LookupError):
    """No such lease: it was never granted, or it ended already."""


class Leases:
    """All leases by id and by owner."""

    def __init__(self) -> None:
        self._by_id: dict[str, Lease] = {}
        self._by_owner: dict[str, set[str]] = {}
        self._ends: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Lease]:
        return iter(self._by_id.values())

    def add(self, lease: Lease) -> None:
        self._by_id[lease.id] = lease
        if lease.owner:
            held = self._by_owner.get(lease.owner)
            if held is None:
                held = self._by_owner[lease.owner] = set()
            held.add(lease.id)
        heappush(self._ends, (lease.expires_at, lease.id))
        if len(self._ends) > 4 * len(self._by_id) + 64:  # ended leases leave their entries behind
            self._ends = [(lease.expires_at, lease.id) for lease in self._by_id.values()]
            heapify(self._ends)

    def get(self, lease_id: str) -> Lease:
        try:
            return self._by_id[lease_id]
        except KeyError:
            raise UnknownLease(lease_id) from None

    def end(self, lease_id: str) -> Lease:
        """Take a lease out; raises UnknownLease the second time."""
        lease = self.get(lease_id)
        del self._by_id[lease_id]
        if lease.owner and (held := self._by_owner.get(lease.owner)) is not None:
            held.discard(lease_id)
            if not held:
                del self._by_owner[lease.owner]
        return lease

    def renew(self, lease_id: str, expires_at: float) -> Lease:
        lease = self.get(lease_id)
        lease.expires_at = expires_at
        heappush(self._ends, (expires_at, lease_id))
        return lease

    def rebind(self, lease_id: str, owner: str) -> Lease:
        """Somebody else holds it now."""
        lease = self.end(lease_id)
        lease.owner = owner
        self.add(lease)
        return lease

    @property
    def owners(self) -> frozenset[str]:
        """Who holds any."""
        return frozenset(self._by_owner)

    def of_owner(self, owner: str) -> list[Lease]:
        return [self._by_id[i] for i in self._by_owner.get(owner, ())]

    def expired(self, now: float) -> list[Lease]:
        """Leases whose time ran out by `now`; the caller ends them."""
        out = []
        while self._ends and self._ends[0][0] <= now:
            _, lease_id = heappop(self._ends)
            lease = self._by_id.get(lease_id)
            if lease is not None and lease.expires_at <= now:
                out.append(lease)
        return out

    def next_end(self) -> float:
        return self._ends[0][0] if self._ends else inf


def row_of(lease: Lease, *, gone: bool = False) -> LeaseRow:
    """The lease, to be kept."""
    return LeaseRow(
        lease.id, lease.account_id, lease.owner, lease.detached, lease.granted_at, lease.expires_at,
        lease.sent_at, _written(lease.request), gone=gone,
    )  # fmt: skip


def lease_of(row: LeaseRow) -> Lease | None:
    """The lease that was kept; None when another version wrote it in a way that we do not know."""
    try:
        given = json.loads(row.request)
        given |= {name: frozenset(given[name]) for name in ("forms", "exclude")}
        data = given["data"]
        request = Request(**{**given, "data": None if data is None else Data(data)})
    except (ValueError, TypeError, KeyError):
        return None
    return Lease(
        row.lease_id, request, row.account_id, row.owner, row.granted_at, row.expires_at, row.lease_id,
        request.attempt, row.detached, row.sent_at,
    )  # fmt: skip


def _written(request: Request) -> str:
    data = None if request.data is None else request.data.value
    sets = {"forms": sorted(request.forms), "exclude": sorted(request.exclude)}
    return json.dumps({**request._asdict(), **sets, "data": data})
