"""A small client for the fake's own tests: posts over real HTTP, keeps status, headers and raw bytes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import aiohttp

from gemini_poold.fake import FakeGoogle

GL = "/v1beta/models/gemini-2.5-flash"
VX = "/v1/projects/vx-project/locations/global/publishers/google/models/gemini-2.5-flash"
CA = "/v1internal"
KEY = {"x-goog-api-key": "fake-key-key-a"}


def prompt(text: str = "hello", **more: Any) -> dict[str, Any]:
    return {"contents": [{"role": "user", "parts": [{"text": text}]}], **more}


def wrapped(text: str = "hello", **more: Any) -> dict[str, Any]:
    return {"model": "gemini-2.5-pro", "project": "alice-project", "request": prompt(text), **more}


@dataclass
class Got:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        return self.json["error"]

    def detail(self, kind: str) -> dict[str, Any]:
        """The error detail of that google.rpc type."""
        found = [
            each
            for each in self.error["details"]
            if each["@type"] == f"type.googleapis.com/google.rpc.{kind}"
        ]
        assert len(found) == 1, found
        return found[0]

    @property
    def events(self) -> list[Any]:
        """The SSE events, CRLF form."""
        blocks = self.body.decode().split("\r\n\r\n")
        assert blocks.pop() == ""
        return [json.loads(block.removeprefix("data: ")) for block in blocks]


class Asker:
    """Requests to one fake."""

    def __init__(self, fake: FakeGoogle, session: aiohttp.ClientSession) -> None:
        self.fake = fake
        self.session = session

    async def ask(self, method: str, path: str, **more: Any) -> Got:
        more.setdefault("allow_redirects", False)
        async with self.session.request(method, self.fake.url + path, **more) as response:
            return Got(response.status, dict(response.headers), await response.read())

    async def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> Got:
        return await self.ask("POST", path, json=body, headers=headers)

    async def get(self, path: str, headers: dict[str, str] | None = None) -> Got:
        return await self.ask("GET", path, headers=headers)

    async def form(self, path: str, headers: dict[str, str] | None = None, **fields: str) -> Got:
        return await self.ask("POST", path, data=fields, headers=headers)

    async def refresh(self, file: dict[str, str], **fields: str) -> Got:
        """Renew with an `authorized_user` file."""
        login = {name: file[name] for name in ("client_id", "client_secret", "refresh_token")}
        return await self.form("/token", grant_type="refresh_token", **{**login, **fields})

    async def bearer(self, file: dict[str, str]) -> dict[str, str]:
        return {"Authorization": f"Bearer {(await self.refresh(file)).json['access_token']}"}
