"""The leases that are out: who holds which, and which end next. A lease ends once."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from math import inf

from .model import Lease


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
