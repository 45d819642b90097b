"""Google's own library as a second opinion: files that we wrote load and renew there, files that it wrote do here."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import google.auth.external_account_authorized_user
import google.auth.identity_pool
import google.auth.impersonated_credentials
import google.auth.jwt
import google.oauth2.credentials
import google.oauth2.service_account
from google.auth import transport
from tests.credentials import making

from gemini_poold.accounts.schema import AccountEntry, Credential
from gemini_poold.config import Endpoints
from gemini_poold.core.model import Backend
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


# ---- federation, workforce, impersonation ---------------------------------------------------------------------------


def federated(fake: FakeGoogle, folder: Path) -> dict[str, Any]:
    """A workload identity file whose URLs are the fake's, as google-auth has no `[endpoints]`."""
    subject = making.write_secret(folder / "subject", "fake-subject")
    return {
        "type": "external_account",
        "audience": fake.world.add_pool("pool", projects=["proj"]).audience,
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": f"{fake.url}/v1/token",
        "credential_source": {"file": str(subject)},
    }


async def test_a_federated_workload_is_the_same_to_both(tmp_path: Path) -> None:
    """One file, two libraries, one principal."""
    async with making.served(tmp_path) as (fake, ctx):
        info = federated(fake, tmp_path)
        making.write_secret(tmp_path / "secrets" / "pool.json", info)
        ours = await build(making.entry("external", making.file("pool.json")), ctx).renew(ctx.clock.now())
        theirs = google.auth.identity_pool.Credentials.from_info(info, scopes=SCOPES)
        await asyncio.to_thread(theirs.refresh, _Request())
        callers = {fake.world.tokens[text].caller.name for text in (ours.value.reveal(), theirs.token)}
        assert callers == {"pool"}


async def test_a_workforce_login_goes_both_ways(tmp_path: Path) -> None:
    """What google-auth wrote loads and rotates here; what we wrote back then loads and renews there."""
    async with making.served(tmp_path) as (fake, ctx):
        info = login(fake, rotates=True)
        theirs = google.auth.external_account_authorized_user.Credentials(
            audience="//iam.example.com/locations/global/workforcePools/pool/providers/p",
            refresh_token=info["refresh_token"],
            token_url=f"{fake.url}/token",
            client_id=info["client_id"],
            client_secret=info["client_secret"],
        )
        path = making.write_secret(tmp_path / "secrets" / "work.json", theirs.to_json())
        ours = await build(making.entry("external", making.file("work.json")), ctx).renew(ctx.clock.now())
        assert ours.value.reveal() in fake.world.tokens
        written = making.read_secret(path)
        assert written["refresh_token"] != info["refresh_token"]
        again = google.auth.external_account_authorized_user.Credentials.from_info(written)
        # The fake's token endpoint reads workforce grants as it reads others: form and HTTP Basic.
        await asyncio.to_thread(again.refresh, _Request())
        assert again.token in fake.world.tokens


async def test_impersonation_buys_the_same_kind_of_token(tmp_path: Path) -> None:
    """gcloud's file with its source inside: both end up as the target, for the life that was asked for."""
    async with making.served(tmp_path) as (fake, ctx):
        source = login(fake)
        target = fake.world.add_service_account("robot", project="proj", impersonators=frozenset({"ann"}))
        url = f"{fake.url}/v1/projects/-/serviceAccounts/{target['client_email']}:generateAccessToken"
        info = {
            "type": "impersonated_service_account",
            "service_account_impersonation_url": url,
            "source_credentials": source,
        }
        path = making.write_secret(tmp_path / "adc.json", info)
        ctx = replace(ctx, environ={"GOOGLE_APPLICATION_CREDENTIALS": str(path)})
        ours = await build(making.entry("adc"), ctx).renew(ctx.clock.now())
        users = google.oauth2.credentials.Credentials.from_authorized_user_info(source)
        theirs = google.auth.impersonated_credentials.Credentials(
            users.with_token_uri(f"{fake.url}/token"),
            target_principal=target["client_email"],
            target_scopes=SCOPES,
            iam_endpoint_override=url,
        )
        await asyncio.to_thread(theirs.refresh, _Request())
        issued = [fake.world.tokens[text] for text in (ours.value.reveal(), theirs.token)]
        assert {token.caller.name for token in issued} == {"robot"}
        assert abs(issued[0].expires_at - issued[1].expires_at) < 30


async def test_a_self_signed_token_is_claimed_alike(tmp_path: Path) -> None:
    """The library's own self-signed token for the same host says the same things of the same account."""
    async with making.served(tmp_path) as (fake, ctx):
        info = fake.world.add_service_account("robot", project="proj")
        making.write_secret(tmp_path / "secrets" / "robot.json", info)
        credential = Credential(type="service-account", secret=making.file("robot.json"), self_signed=True)
        account = AccountEntry(id="r", backend=Backend.VERTEX, project="proj", credential=credential)
        ours = await build(account, replace(ctx, endpoints=Endpoints())).renew(ctx.clock.now())
        theirs = google.auth.jwt.Credentials.from_service_account_info(
            info, audience="https://aiplatform.googleapis.com/"
        )
        theirs.refresh(None)
        mine, its = (
            google.auth.jwt.decode(text, verify=False) for text in (ours.value.reveal(), theirs.token)
        )
        assert {**mine, "iat": 0, "exp": 0} == {**its, "iat": 0, "exp": 0}
        assert mine["exp"] - mine["iat"] == its["exp"] - its["iat"] == 3600
