"""The token endpoint and its neighbours: logins, refusals in every wording, codes, assertions, federation."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from google.auth import crypt, jwt
from tests.fake.asking import KEY, VX, Asker, prompt

from gemini_poold.fake import Fault, Match, SetClock, World, replies

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"


def assertion(robot: dict[str, str], clock: SetClock, **claims: Any) -> str:
    now = int(clock.now())
    known = {
        "iss": robot["client_email"],
        "scope": SCOPE,
        "aud": robot["token_uri"],
        "iat": now,
        "exp": now + 3600,
    }
    return jwt.encode(crypt.RSASigner.from_service_account_info(robot), {**known, **claims}).decode()


async def test_refresh_gives_a_token_that_lives_its_time(
    asker: Asker, login: dict[str, str], clock: SetClock
) -> None:
    """A renewal answers no refresh token, an id_token with the identity, and a token that ends when told."""
    got = await asker.refresh(login)
    assert (got.status, got.json["expires_in"], got.json["token_type"]) == (200, 3599, "Bearer")
    assert "refresh_token" not in got.json
    claims = json.loads(base64.urlsafe_b64decode(got.json["id_token"].split(".")[1] + "=="))
    assert claims["email"] == "alice@example.com"
    auth = {"Authorization": f"Bearer {got.json['access_token']}"}
    known = await asker.get("/oauth2/v2/userinfo", auth)
    assert (known.json["id"], known.json["email"]) == (claims["sub"], "alice@example.com")
    clock.advance(3599)
    refused = await asker.get("/oauth2/v1/userinfo?alt=json", auth)
    assert (refused.status, refused.detail("ErrorInfo")["reason"]) == (401, "ACCESS_TOKEN_EXPIRED")


async def test_short_lives(asker: Asker, login: dict[str, str], world: World) -> None:
    """The life of tokens is settable for all and for one."""
    world.token_life_s = 20
    assert (await asker.refresh(login)).json["expires_in"] == 20
    world.users["alice"].token_life_s = 1
    assert (await asker.refresh(login)).json["expires_in"] == 1


async def test_rotation_ends_the_old_token(asker: Asker, world: World) -> None:
    """A rotating login answers a new refresh token each time, and the one before is worth nothing."""
    client = next(iter(world.clients.values()))
    file = world.authorized_user(world.users["alice"], client, rotates=True)
    fresh = (await asker.refresh(file)).json["refresh_token"]
    assert fresh != file["refresh_token"]
    assert (await asker.refresh(file)).json["error_description"] == "Token has been expired or revoked."
    assert "refresh_token" in (await asker.refresh(file, refresh_token=fresh)).json


@pytest.mark.parametrize(
    ("trouble", "status", "word", "text", "subtype"),
    [
        ("revoked", 400, "invalid_grant", "Token has been expired or revoked.", None),
        ("bad_request", 400, "invalid_grant", "Bad Request", None),
        ("deleted", 400, "invalid_grant", "Account has been deleted", None),
        ("rapt", 400, "invalid_grant", "reauth related error (invalid_rapt)", "invalid_rapt"),
        ("rapt_required", 400, "invalid_grant", "reauth related error (rapt_required)", "rapt_required"),
        ("policy", 403, "admin_policy_enforced", None, None),
    ],
)
async def test_dead_logins(
    asker: Asker,
    login: dict[str, str],
    world: World,
    trouble: str,
    status: int,
    word: str,
    text: str | None,
    subtype: str | None,
) -> None:
    """Every way a login dies has its wording."""
    world.revoke("alice", trouble=trouble)
    got = await asker.refresh(login)
    assert (got.status, got.json["error"], got.json.get("error_subtype")) == (status, word, subtype)
    assert text in {None, got.json["error_description"]}


async def test_wrong_clients(asker: Asker, login: dict[str, str], world: World) -> None:
    """Unknown client, wrong secret, somebody else's client, no client at all; Basic works as well as the form."""
    other = world.add_client("other")
    unknown = await asker.refresh(login, client_id="nobody")
    assert (unknown.status, unknown.json) == (
        401,
        {"error": "invalid_client", "error_description": "The OAuth client was not found."},
    )
    assert (await asker.refresh(login, client_secret="wrong")).json["error_description"] == "Unauthorized"
    foreign = await asker.refresh(login, client_id=other.id, client_secret=other.secret)
    assert (foreign.status, foreign.json["error"]) == (401, "unauthorized_client")
    fields = {"grant_type": "refresh_token", "refresh_token": login["refresh_token"]}
    assert (await asker.form("/token", **fields)).json["error"] == "invalid_request"
    basic = base64.b64encode(f"{login['client_id']}:{login['client_secret']}".encode()).decode()
    assert (await asker.form("/token", {"Authorization": f"Basic {basic}"}, **fields)).status == 200


async def test_bad_token_requests(asker: Asker, login: dict[str, str]) -> None:
    """Missing and unknown grant types, unknown tokens, and scopes that were never granted."""
    assert (await asker.form("/token")).json["error"] == "invalid_request"
    assert (await asker.form("/token", grant_type="magic")).json["error"] == "unsupported_grant_type"
    assert (await asker.refresh(login, refresh_token="fake-nothing")).json[
        "error_description"
    ] == "Bad Request"
    assert (await asker.refresh(login, refresh_token="")).json["error"] == "invalid_request"
    assert (await asker.refresh(login, scope="https://mail.google.com/")).json["error"] == "invalid_scope"
    assert (await asker.refresh(login, scope="openid")).json["scope"] == "openid"


async def test_faults_reach_the_token_endpoint(asker: Asker, login: dict[str, str]) -> None:
    """HTML 503, garbage and a reset, aimed at one person's renewals."""
    mine = Match(kind="token", credential="alice@example.com")
    asker.fake.faults.add(Fault.status(503, body=replies.error_page(503)), when=mine)
    asker.fake.faults.add(Fault.status(200, body=b"not json"), when=mine)
    html, garbage, fine = [await asker.refresh(login) for _ in range(3)]
    assert (html.status, html.headers["Content-Type"]) == (503, "text/html; charset=UTF-8")
    assert (garbage.body, fine.status) == (b"not json", 200)


async def test_revoke(asker: Asker, login: dict[str, str]) -> None:
    """Revoking either token ends both; an unknown or revoked one is 400 invalid_token."""
    token = (await asker.refresh(login)).json["access_token"]
    assert (await asker.form("/revoke", token=token)).json == {}
    assert (await asker.refresh(login)).json["error"] == "invalid_grant"
    again = await asker.form("/revoke", token=login["refresh_token"])
    assert (again.status, again.json["error"]) == (400, "invalid_token")
    assert (await asker.get(f"/tokeninfo?access_token={token}")).status == 400


async def test_tokeninfo(asker: Asker, login: dict[str, str]) -> None:
    """Tokeninfo tells client, scopes, remaining life and e-mail."""
    token = (await asker.refresh(login)).json["access_token"]
    known = (await asker.get(f"/tokeninfo?access_token={token}")).json
    assert (known["aud"], known["email"], known["expires_in"]) == (
        login["client_id"],
        "alice@example.com",
        "3599",
    )


def code_request(world: World, **more: str) -> str:
    verifier = "v" * 43
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    asked = {
        "client_id": next(iter(world.clients)),
        "redirect_uri": "http://127.0.0.1:4711/back",
        "response_type": "code",
        "scope": f"{SCOPE} openid",
        "state": "s1",
        "access_type": "offline",
        "prompt": "consent",
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    return "/o/oauth2/v2/auth?" + urlencode({**asked, **more})


async def test_browser_login(asker: Asker, world: World) -> None:
    """Consent comes back with code and state; PKCE, the redirect and single use are checked."""
    client = next(iter(world.clients.values()))
    exchange = {
        "grant_type": "authorization_code",
        "client_id": client.id,
        "client_secret": client.secret,
        "redirect_uri": "http://127.0.0.1:4711/back",
    }

    async def code() -> str:
        page = await asker.get(code_request(world))
        back = parse_qs(urlsplit(page.headers["Location"]).query)
        assert (page.status, back["state"]) == (302, ["s1"])
        return back["code"][0]

    first = await code()
    got = await asker.form("/token", code=first, code_verifier="v" * 43, **exchange)
    assert got.json["refresh_token"].startswith("fake-refresh-alice")
    assert (await asker.form("/token", code=first, code_verifier="v" * 43, **exchange)).json[
        "error"
    ] == "invalid_grant"
    assert (await asker.form("/token", code=await code(), code_verifier="w" * 43, **exchange)).status == 400
    other = {**exchange, "redirect_uri": "http://127.0.0.1:4712/back", "code_verifier": "v" * 43}
    assert (await asker.form("/token", code=await code(), **other)).json["error"] == "redirect_uri_mismatch"


async def test_consent_variants(asker: Asker, world: World) -> None:
    """A refusing person, a hint, a foreign redirect, an unknown client; no refresh token without consent."""
    world.add_user("bob")
    page = await asker.get(code_request(world, login_hint="bob@example.com"))
    assert "fake-code-bob" in page.headers["Location"]
    assert (await asker.get(code_request(world, redirect_uri="https://evil.example/"))).status == 400
    assert (await asker.get(code_request(world, client_id="nobody"))).status == 400
    world.login_error = "access_denied"
    assert "error=access_denied" in (await asker.get(code_request(world))).headers["Location"]


async def test_service_account_assertion(asker: Asker, robot: dict[str, str], clock: SetClock) -> None:
    """A signed assertion becomes a token that works; it comes without a refresh token."""
    got = await asker.form("/token", grant_type=JWT_BEARER, assertion=assertion(robot, clock))
    assert set(got.json) == {"access_token", "expires_in", "token_type"}
    auth = {"Authorization": f"Bearer {got.json['access_token']}"}
    assert (await asker.post(f"{VX}:generateContent", prompt(), auth)).status == 200
    assert asker.fake.record.last("token").credential == "robot"


async def test_bad_assertions(asker: Asker, world: World, robot: dict[str, str], clock: SetClock) -> None:
    """A foreign key, an old or far too long token, a wrong audience, no scope, a deleted account: each refused."""
    stranger = {**robot, "private_key": world.add_service_account("stranger", project="p")["private_key"]}
    now = int(clock.now())
    bad = {
        "Signature": assertion(stranger, clock),
        "short-lived": assertion(robot, clock, iat=now - 9000, exp=now - 5400),
        "audience": assertion(robot, clock, aud="https://elsewhere.example"),
        "scope": assertion(robot, clock, scope=""),
        "not found": assertion(robot, clock, iss="nobody@example.com"),
        "payload": "x",
    }
    for text, token in bad.items():
        got = await asker.form("/token", grant_type=JWT_BEARER, assertion=token)
        assert got.status == 400
        assert text in got.json["error_description"] or text == "payload"
    world.service_account("robot").state = "deleted"
    got = await asker.form("/token", grant_type=JWT_BEARER, assertion=assertion(robot, clock))
    assert got.json["error_description"] == "Invalid grant: account not found"


async def test_self_signed_jwt(asker: Asker, robot: dict[str, str], clock: SetClock) -> None:
    """A service account may sign its own bearer; an expired one is 401."""
    aud = "https://aiplatform.googleapis.com/"
    auth = {"Authorization": f"Bearer {assertion(robot, clock, aud=aud)}"}
    assert (await asker.post(f"{VX}:generateContent", prompt(), auth)).status == 200
    clock.advance(4000)
    assert (await asker.post(f"{VX}:generateContent", prompt(), auth)).status == 401


async def test_federation_and_impersonation(asker: Asker, world: World, robot: dict[str, str]) -> None:
    """A pool's subject token becomes a token; with the creator role that becomes the service account's."""
    pool = world.add_pool("github", subject_tokens=["right"])
    fields = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "audience": pool.audience,
        "scope": SCOPE,
        "subject_token": "right",
    }
    assert (await asker.form("/v1/token", **{**fields, "subject_token": "wrong"})).json[
        "error"
    ] == "invalid_grant"
    assert (await asker.form("/v1/token", **{**fields, "audience": "x"})).json["error"] == "invalid_target"
    assert (await asker.form("/v1/token", **{**fields, "grant_type": "x"})).status == 400
    token = (await asker.form("/v1/token", **fields)).json["access_token"]
    auth = {"Authorization": f"Bearer {token}"}
    path = f"/v1/projects/-/serviceAccounts/{robot['client_email']}:generateAccessToken"
    body = {"scope": [SCOPE], "lifetime": "300s"}
    assert (await asker.post(path, body, auth)).status == 403
    world.service_account("robot").impersonators = frozenset({"github"})
    assert (await asker.post(path, {}, auth)).status == 400
    got = await asker.post(path, body, auth)
    assert got.json["expireTime"].endswith("Z")
    auth = {"Authorization": f"Bearer {got.json['accessToken']}"}
    assert (await asker.post(f"{VX}:generateContent", prompt(), auth)).status == 200


async def test_expire_now(asker: Asker, login: dict[str, str], world: World) -> None:
    """A test may end live tokens at once; keys are not touched."""
    auth = await asker.bearer(login)
    assert world.expire_tokens("alice") == 1
    assert (await asker.get("/oauth2/v2/userinfo", auth)).status == 401
    assert (await asker.get("/v1beta/models", KEY)).status == 200


def test_client_file(world: World) -> None:
    """The client JSON that a user would have downloaded."""
    client = next(iter(world.clients.values()))
    assert world.client_file(client)["installed"]["client_secret"] == client.secret
