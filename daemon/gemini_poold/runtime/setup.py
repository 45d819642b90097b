"""Code Assist set-up (being written)."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ..clock import Clock
from ..config import Endpoints
from ..core.model import Account, DiscoveryRow, Outcome
from ..transport import Transport


class Setup:
    def __init__(self, transport: Transport, endpoints: Endpoints, clock: Clock) -> None:
        self._transport = transport
        self.endpoints = endpoints
        self._clock = clock

    async def run(self, account: Account, headers: Mapping[str, str]) -> DiscoveryRow | Outcome:
        answer = await self._transport.fetch(
            "POST", f"{self.endpoints.code_assist}/v1internal:loadCodeAssist",
            headers={**headers, "Content-Type": "application/json"},
            body=b'{"metadata":{"pluginType":"GEMINI"}}', timeout_s=20.0, proxy=account.proxy,
        )
        found = msgspec.json.decode(answer.body)
        project = found.get("cloudaicompanionProject") or account.project
        return DiscoveryRow(account.id, project, "standard-tier", "", "", self._clock.now())
