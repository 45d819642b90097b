"""Google's own library as a second opinion: files that we wrote load and renew there, files that it wrote do here."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import google.oauth2.credentials
import google.oauth2.service_account
from google.auth import transport
from tests.credentials import making

from gemini_poold.credentials.registry import build
from gemini_poold.fake import FakeGoogle

SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]


class _Answer(transport.Response):
    status = headers = data = None  # abstract there

    def __init__(self, status: int, headers: Mapping[str, str], data: bytes) -> None:
        self.status, self.headers, self.data = status, headers, data


class _Request(transport.Request):
    """google-auth's transport over the standard library."""

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: Any = None,
        headers: Any = None,
        timeout: Any = None,
        **_: Any,
    ) -> _Answer:
        data = body.encode() if isinstance(body, str) else body
        request = urllib.request.Request(url, data=data, headers=dict(headers or {}), method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return _Answer(answer.status, dict(answer.headers), answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return _Answer(error.code, dict(error.headers), error.read())


def login(fake: FakeGoogle, **more: Any) -> dict[str, Any]:
    user = fake.world.add_user("ann", projects=["proj"])
    return fake.world.authorized_user(user, fake.world.add_client(), **more)


async def test_a_login_that_we_rotated_renews_there(tmp_path: Path) -> None:
    """The file after our renewal, with the rotated refresh token, is one that google-auth loads and renews."""
    async with making.served(tmp_path) as (fake, ctx):
        path = making.write_secret(tmp_path / "secrets" / "work.json", login(fake, rotates=True))
        before = making.read_secret(path)["refresh_token"]
        await build(making.entry("oauth", making.file("work.json")), ctx).renew(ctx.clock.now())
        theirs = google.oauth2.credentials.Credentials.from_authorized_user_file(str(path))
        assert theirs.refresh_token not in ("", None, before)
        theirs = theirs.with_token_uri(fake.endpoints()["oauth_token"])
        await asyncio.to_thread(theirs.refresh, _Request())
        assert theirs.valid
        assert theirs.token in fake.world.tokens


async def test_a_login_that_it_wrote_renews_here(tmp_path: Path) -> None:
    """google-auth's own `to_json` is a secret file of ours as it stands."""
    async with making.served(tmp_path) as (fake, ctx):
        info = login(fake)
        theirs = google.oauth2.credentials.Credentials.from_authorized_user_info(info, SCOPES)
        making.write_secret(tmp_path / "secrets" / "work.json", theirs.to_json())
        token = await build(making.entry("oauth", making.file("work.json")), ctx).renew(ctx.clock.now())
        assert token.value.reveal() in fake.world.tokens


async def test_a_service_account_gets_the_same_kind_of_token(tmp_path: Path) -> None:
    """Both sign the same file's assertion in a way that the token endpoint verifies."""
    async with making.served(tmp_path) as (fake, ctx):
        info = fake.world.add_service_account("robot", project="proj")
        making.write_secret(tmp_path / "secrets" / "robot.json", info)
        ours = await build(making.entry("service-account", making.file("robot.json")), ctx).renew(
            ctx.clock.now()
        )
        theirs = google.oauth2.service_account.Credentials.from_service_account_info(info, scopes=SCOPES)
        await asyncio.to_thread(theirs.refresh, _Request())
        issued = [fake.world.tokens[t] for t in (ours.value.reveal(), theirs.token)]
        assert issued[0].caller is issued[1].caller
        assert json.dumps(info)  # the file was not touched by either
        assert making.read_secret(tmp_path / "secrets" / "robot.json") == info
