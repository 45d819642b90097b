"""Which models the pool has: Google's own list, asked of one Developer API account and kept for an hour, merged with
what quota readings name and with the accounts' allow-lists. Advisory: whether a request is served is decided elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from gemini_pool.errors import PoolError

from ..clock import Clock
from ..core.model import Account, Backend
from ..errors import UNREADABLE
from ..transport import Transport

log = logging.getLogger("gemini_pool.gateway")

Model = Mapping[str, Any]
Fetch = Callable[[Account], Awaitable[Sequence[Model] | None]]
METHODS = ["generateContent", "countTokens"]

# For pools without a Developer API account, whose backends offer no list that needs no extra right. Never a closed list.
DOCUMENTED = (
    "gemini-2.5-flash",
    "gemini-2.5-flash-lite",
    "gemini-2.5-pro",
    "gemini-3-flash-preview",
    "gemini-3-pro-preview",
    "gemini-3.1-flash-lite",
    "gemini-3.1-pro-preview",
    "gemini-3.5-flash",
    "gemini-3.6-flash",
    "gemini-3.7-flash",
    "gemini-3.8-flash",
    "gemini-4-argon",
)
FRESH_S = 3600.0
RETRY_S = 60.0
_ASKED = 3  # accounts tried for one list


class Catalogue:
    """The merged list. `accounts` are those of the pool, `named` model names seen elsewhere (quota readings)."""

    def __init__(
        self,
        *,
        accounts: Callable[[], Iterable[Account]],
        named: Callable[[], Iterable[str]],
        aliases: Callable[[], Mapping[str, str]],
        fetch: Fetch,
        clock: Clock,
    ) -> None:
        self._accounts = accounts
        self._named = named
        self._aliases = aliases
        self._fetch = fetch
        self._clock = clock
        self._known: Sequence[Model] | None = None
        self._due_at = 0.0
        self._lock = asyncio.Lock()

    async def models(self) -> Sequence[Model]:
        """Every model that some enabled account may serve, by name; aliases are listed like models."""
        accounts = [account for account in self._accounts() if account.enabled]
        listed = await self._listed(accounts)
        found: dict[str, Model] = {}
        for model in listed:
            name = str(model.get("name", "")).removeprefix("models/")
            if any(a.backend is Backend.DEVELOPER_API and a.allows(name) for a in accounts):
                found[name] = model
        others = [
            account for account in accounts if account.backend is not Backend.DEVELOPER_API or not listed
        ]
        for name in self._guessed(accounts):
            if name not in found and any(account.allows(name) for account in others):
                found[name] = entry(name)
        for account in accounts:
            for name in account.models:
                if not _is_glob(name) and name not in found and account.allows(name):
                    found[name] = entry(name)
        for alias, meant in self._aliases().items():
            if meant in found and alias not in found:
                found[alias] = {**found[meant], "name": f"models/{alias}"}
        return [found[name] for name in sorted(found)]

    def _guessed(self, accounts: Sequence[Account]) -> set[str]:
        names = {name.removesuffix("_vertex") for name in self._named()}
        return names | set(DOCUMENTED) if accounts else names

    async def _listed(self, accounts: Sequence[Account]) -> Sequence[Model]:
        """Google's list, kept; asked of a few accounts in turn, by one task at a time. Empty when nobody answers."""
        if self._clock.now() < self._due_at:
            return self._known or ()
        async with self._lock:
            now = self._clock.now()
            if now < self._due_at:
                return self._known or ()
            candidates = [account for account in accounts if account.backend is Backend.DEVELOPER_API]
            for account in candidates[:_ASKED]:
                models = await self._fetch(account)
                if models is not None:
                    self._known, self._due_at = models, now + FRESH_S
                    return models
            self._due_at = now + RETRY_S if candidates else now
            return self._known or ()


def developer_api_list(
    transport: Transport, base_url: Callable[[], str], headers: Callable[[str], Mapping[str, str] | None]
) -> Fetch:
    """A `Fetch` over the real API. `headers(account_id)` are the account's credential headers, None when not warm."""

    async def fetch(account: Account) -> Sequence[Model] | None:
        credential = headers(account.id)
        if credential is None:
            return None
        url = f"{base_url()}/v1beta/models?pageSize=1000"
        try:
            answer = await transport.fetch(
                "GET", url, headers=credential, timeout_s=10.0, proxy=account.proxy
            )
        except PoolError as error:
            log.debug("models of %s: %s", account.id, error)
            return None
        return parse(answer.body) if answer.status == 200 else None

    return fetch


def parse(body: bytes) -> Sequence[Model] | None:
    """The entries of a `models.list` answer, or None when it is none."""
    try:
        answer = msgspec.json.decode(body)
    except UNREADABLE:
        return None
    models = answer.get("models") if isinstance(answer, dict) else None
    if not isinstance(models, list):
        return None
    return [model for model in models if isinstance(model, dict) and isinstance(model.get("name"), str)]


def entry(name: str) -> Model:
    """A list entry for a model of which only the name is known."""
    embeds = "embedding" in name
    methods = ["embedContent"] if embeds else METHODS
    return {"name": f"models/{name}", "displayName": name, "supportedGenerationMethods": methods}


def _is_glob(name: str) -> bool:
    return any(mark in name for mark in "*?[")
