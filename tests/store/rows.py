"""Rows for the store's tests, one or more of each kind."""

from __future__ import annotations

from gemini_poold.core.model import (
    AccountRow,
    AccountState,
    BoundRow,
    CapRow,
    CooldownRow,
    CounterRow,
    DiscoveryRow,
    Kind,
    LeaseRow,
    PaceRow,
    PinRow,
    QuotaRow,
    Row,
    Scope,
    TotalRow,
)

NOW = 1_795_000_000.0


class FixedClock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: float = NOW) -> None:
        self.at = now

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at

    def boottime(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.at += seconds


def account(account_id: str = "a", *, gone: bool = False, failures: int = 0) -> AccountRow:
    return AccountRow(
        account_id=account_id,
        state=AccountState.LOGIN_REQUIRED,
        reason="invalid_grant — revoked",
        hint="gemini-pool login a",
        url="https://x.example/",
        since_at=NOW - 5.25,
        success=0.75,
        latency_s=None,
        failures=failures,
        last_used_at=NOW,
        paused=True,
        gone=gone,
    )


def cooldown(model: str = "gemini-3", *, until: float = NOW + 60, gone: bool = False) -> CooldownRow:
    return CooldownRow(
        scope=Scope.BUCKET_MODEL,
        key="gl:p",
        model=model,
        until=until,
        kind=Kind.RATE,
        told=True,
        source="RetryInfo",
        reason="per minute",
        since=NOW,
        strikes=2,
        gone=gone,
    )


def counter(
    served: int = 1, *, account_id: str = "a", model: str = "gemini-3", gone: bool = False
) -> CounterRow:
    return CounterRow(account_id, model, served, 2, 3, 4, 5, gone=gone)


def discovery(account_id: str = "a", *, gone: bool = False) -> DiscoveryRow:
    return DiscoveryRow(account_id, "my-project", "standard-tier", "a@x.example", "123", NOW, gone=gone)


def pace(model: str = "gemini-3-flash", *, gone: bool = False) -> PaceRow:
    return PaceRow(
        "gl:a", model, 10, 2, 60.0, True, None, None, 250, NOW, 3, 3_000.0, 17, NOW + 3_600.0, True, gone=gone
    )


def bound(name: str = "files/abc", *, gone: bool = False) -> BoundRow:
    return BoundRow(name, "a", NOW + 172_800.0, gone=gone)


def pin(account_id: str = "a", *, gone: bool = False) -> PinRow:
    return PinRow(account_id, "gemini-3* m", NOW - 3.5, gone=gone)


def cap(account_id: str = "a", *, gone: bool = False) -> CapRow:
    return CapRow(account_id, NOW + 3_600.0, 17, 4_000, gone=gone)


def quota(at: float = NOW, *, gone: bool = False) -> QuotaRow:
    return QuotaRow("a", "gemini-3", "REQUESTS", at, 0.25, None, 250.0, NOW + 3_600.0, gone=gone)


def lease(lease_id: str = "l-1", *, gone: bool = False) -> LeaseRow:
    return LeaseRow(lease_id, "a", "c1", True, NOW, NOW + 600.0, NOW + 0.5, "{}", gone=gone)


ONE_OF_EACH: list[Row] = [
    account(), cooldown(), counter(), TotalRow("requests", 7), discovery(), pace(), bound(),
    pin(), cap(), quota(), lease(),
]  # fmt: skip
GONE: list[Row] = [
    account(gone=True), cooldown(gone=True), counter(gone=True), discovery(gone=True), pace(gone=True), bound(gone=True),
    pin(gone=True), cap(gone=True), quota(gone=True), lease(gone=True),
]  # fmt: skip
