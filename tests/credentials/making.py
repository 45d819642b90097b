"""Makes contexts, entries, secret files and scripted token endpoints for the tests of credentials and tokens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from gemini_poold.accounts.schema import AccountEntry, Credential
from gemini_poold.clock import Clock, SystemClock
from gemini_poold.config import Endpoints, Network, SecretRef
from gemini_poold.core.model import Backend
from gemini_poold.credentials.base import Context
from gemini_poold.fake import FakeGoogle, World
from gemini_poold.transport import AiohttpTransport, Fetched

GIVEN = Endpoints(oauth_token="http://token.example/token")


def write_secret(path: Path, content: Any, mode: int = 0o600) -> Path:
    """A secret file; what is no text or bytes is written as JSON."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    data = (
        content
        if isinstance(content, bytes)
        else (content if isinstance(content, str) else json.dumps(content)).encode()
    )
    path.write_bytes(data)
    path.chmod(mode)
    return path


def read_secret(path: Path) -> dict[str, Any]:
    return json.loads(path.read_bytes())


def login_file(refresh_token: str = "fake-refresh-0", **more: Any) -> dict[str, Any]:
    """An `authorized_user` file's object."""
    client = {"client_id": "fake-client", "client_secret": "fake-client-secret"}
    return {"type": "authorized_user", **client, "refresh_token": refresh_token, **more}


def context(
    state_dir: Path,
    transport: Any,
    *,
    clock: Clock | None = None,
    endpoints: Endpoints = GIVEN,
    environ: Mapping[str, str] | None = None,
    **more: Any,
) -> Context:
    return Context(transport, endpoints, clock or SystemClock(), state_dir, environ or {}, **more)


def entry(
    kind: str = "oauth",
    secret: SecretRef | None = None,
    *,
    name: str = "work",
    backend: Backend = Backend.VERTEX,
    target: str = "",
    scopes: tuple[str, ...] = (),
    **more: Any,
) -> AccountEntry:
    """An account as the user would write it."""
    credential = Credential(type=kind, secret=secret, target=target, scopes=scopes)  # type: ignore[arg-type]
    return AccountEntry(id=name, backend=backend, credential=credential, project="a-project", **more)


def file(name: str) -> SecretRef:
    return SecretRef(file=f"secrets/{name}")


@asynccontextmanager
async def served(
    state_dir: Path, world: World | None = None, *, environ: Mapping[str, str] | None = None
) -> AsyncIterator[tuple[FakeGoogle, Context]]:
    """A fake Google over real HTTP, and a context whose every endpoint leads there."""
    async with FakeGoogle(world) as fake:
        transport = AiohttpTransport(Network(), environ={})
        try:
            yield (
                fake,
                context(state_dir, transport, endpoints=Endpoints(**fake.endpoints()), environ=environ),
            )
        finally:
            await transport.aclose()


Answerer = Callable[[dict[str, str]], tuple[int, Any]]


class TokenEndpoint:
    """A transport that is nothing but a token endpoint, in the test's own time.

    `answer(form)` gives status and body (JSON value or bytes) or raises; `latency_s()` passes before. `calls` are the
    forms that were posted.
    """

    def __init__(
        self, answer: Answerer | None = None, *, latency_s: Callable[[], float] = lambda: 0.0
    ) -> None:
        self.answer = answer or self.token
        self.latency_s = latency_s
        self.calls: list[dict[str, str]] = []
        self.urls: list[str] = []
        self.under_way = 0
        self.most_under_way = 0
        self.life_s: float = 3599
        self.headers: dict[str, str] = {}

    async def fetch(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        timeout_s: float = 30.0,
        proxy: str = "",
    ) -> Fetched:
        form = dict(parse_qsl((body or b"").decode()))
        self.calls.append(form)
        self.urls.append(url)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            if latency := self.latency_s():
                await asyncio.sleep(latency)
            status, answer = self.answer(form)
        finally:
            self.under_way -= 1
        return Fetched(
            status, self.headers, answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        )

    async def open(self, *args: Any, **more: Any) -> Any:
        raise NotImplementedError

    async def aclose(self) -> None:
        pass

    def token(self, form: dict[str, str]) -> tuple[int, Any]:
        """A good answer, each token a new one."""
        return 200, {
            "access_token": f"fake-access-{len(self.calls)}",
            "expires_in": self.life_s,
            "token_type": "Bearer",
        }

    def rotating(self, form: dict[str, str]) -> tuple[int, Any]:
        """A good answer with a new refresh token each time."""
        status, answer = self.token(form)
        return status, {**answer, "refresh_token": f"fake-refresh-{len(self.calls)}"}
