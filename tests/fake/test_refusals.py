"""What Google refuses: fields, credentials, projects, licences, models; on each surface in its own words."""

from __future__ import annotations

from typing import Any

import pytest
from tests.fake.asking import CA, GL, KEY, VX, Asker, prompt, wrapped

from gemini_poold.fake import CodeAssist, World, ineligible, must_validate, replies, shut_down
from gemini_poold.fake.refusals import COMPANION
from gemini_poold.fake.throttle import GL_SERVICE, VX_SERVICE


@pytest.fixture
def robot_auth(world: World, robot: dict[str, str]) -> dict[str, str]:
    return {"Authorization": f"Bearer {world.issue(world.service_account('robot')).token}"}


def part(**fields: Any) -> dict[str, Any]:
    return {"contents": [{"role": "user", "parts": [fields]}]}


@pytest.mark.parametrize(
    ("body", "name", "where"),
    [
        (prompt(surprise=1), "surprise", ""),
        (prompt(generationConfig={"heat": 1}), "heat", "generation_config"),
        (part(text="x", colour="red"), "colour", "contents[0].parts[0]"),
        (
            part(functionCall={"name": "f", "thoughtSignature": "s"}),
            "thoughtSignature",
            "contents[0].parts[0].function_call",
        ),
        (prompt(session_id="s"), "session_id", ""),
        (
            prompt(tools=[{"functionDeclarations": [{"name": "f", "handler": 1}]}]),
            "handler",
            "tools[0].function_declarations[0]",
        ),
    ],
)
async def test_unknown_fields(asker: Asker, body: dict[str, Any], name: str, where: str) -> None:
    """An unknown field at any depth is 400 and named with its place."""
    got = await asker.post(f"{GL}:generateContent", body, KEY)
    assert (got.status, got.error["status"]) == (400, "INVALID_ARGUMENT")
    assert f'Unknown name "{name}"' in got.error["message"]
    assert got.detail("BadRequest")["fieldViolations"][0].get("field", "") == where


async def test_both_spellings_are_known(asker: Asker) -> None:
    """snake_case is as good as camelCase, and a lone message as good as a list of one."""
    body = {
        "contents": {"role": "user", "parts": {"text": "x"}},
        "system_instruction": {"parts": [{"text": "y"}]},
        "generation_config": {"max_output_tokens": 5, "thinking_config": {"include_thoughts": True}},
    }
    assert (await asker.post(f"{GL}:generateContent", body, KEY)).json["candidates"]


@pytest.mark.parametrize("query", ["pageSize=many", "pageToken=x"])
async def test_numbers(asker: Asker, query: str) -> None:
    """What is no number is a 400."""
    assert (await asker.get(f"/v1beta/models?{query}", KEY)).status == 400


@pytest.mark.parametrize("body", [b"{", b"[]", b'"x"', b"\xff", b"[" * 100_000 + b"]" * 100_000])
async def test_no_json_object(asker: Asker, body: bytes) -> None:
    """A body that is no JSON object is 400."""
    got = await asker.ask("POST", f"{GL}:generateContent", data=body, headers=KEY)
    assert (got.status, got.error["status"]) == (400, "INVALID_ARGUMENT")


async def test_contents_and_roles(asker: Asker, robot_auth: dict[str, str], login: dict[str, str]) -> None:
    """Contents are needed everywhere, a role only by Vertex, a wrong role is refused by all."""
    no_role = {"contents": [{"parts": [{"text": "x"}]}]}
    bad_role = {"contents": [{"role": "assistant", "parts": [{"text": "x"}]}]}
    alice = await asker.bearer(login)

    async def statuses(body: dict[str, Any]) -> list[int]:
        return [
            (await asker.post(f"{GL}:generateContent", body, KEY)).status,
            (await asker.post(f"{CA}:generateContent", wrapped() | {"request": body}, alice)).status,
            (await asker.post(f"{VX}:generateContent", body, robot_auth)).status,
        ]

    assert await statuses(no_role) == [200, 200, 400]
    assert await statuses(bad_role) == [400, 400, 400]
    assert await statuses({"contents": []}) == [400, 400, 400]
    assert await statuses({"contents": [{"role": "user", "parts": []}]}) == [400, 400, 400]


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({**KEY, "Authorization": "Bearer x"}, ""),
        (KEY, "?key=fake-key-key-b"),
        ({"Authorization": "Bearer x"}, "?key=fake-key-key-b"),
    ],
)
async def test_double_credentials(asker: Asker, headers: dict[str, str], query: str) -> None:
    """Two kinds of credentials are one too many, on every surface; an empty key counts as none."""
    for path in (GL, VX, CA):
        got = await asker.post(f"{path}:generateContent{query}", prompt(), headers)
        assert (got.status, got.error["message"].split(".")[0]) == (
            400,
            "Multiple authentication credentials received",
        )


async def test_empty_key_is_none(asker: Asker, login: dict[str, str]) -> None:
    """An empty key header may stand beside a bearer, and a key may come as query or bearer."""
    auth = await asker.bearer(login)
    assert (
        await asker.post(f"{CA}:generateContent", wrapped(), {**auth, "x-goog-api-key": ""})
    ).status == 200
    assert (await asker.post(f"{GL}:generateContent?key=fake-key-key-b", prompt(), {})).status == 200
    bearer = {"Authorization": "Bearer fake-key-key-b"}
    assert (await asker.post(f"{GL}:generateContent", prompt(), bearer)).status == 200


async def test_missing_and_unknown_credentials(asker: Asker) -> None:
    """Nothing at all, an unknown key (400), an unknown token (401), a key where tokens are wanted."""
    nobody = {"Authorization": "Bearer fake-nothing"}
    assert (await asker.post(f"{GL}:generateContent", prompt())).status == 403
    missing = await asker.post(f"{CA}:generateContent", wrapped())
    assert (missing.status, missing.detail("ErrorInfo")["reason"]) == (401, "CREDENTIALS_MISSING")
    bad = await asker.post(f"{GL}:generateContent", prompt(), {"x-goog-api-key": "fake-nothing"})
    assert (bad.status, bad.detail("ErrorInfo")["reason"]) == (400, "API_KEY_INVALID")
    for path in (GL, VX, CA):
        got = await asker.post(f"{path}:generateContent", prompt(), nobody)
        assert (got.status, got.detail("ErrorInfo")["reason"]) == (401, "ACCESS_TOKEN_EXPIRED")
    for path in (VX, CA):
        assert (await asker.post(f"{path}:generateContent", prompt(), KEY)).status == 401


@pytest.mark.parametrize(
    ("state", "status", "text"),
    [
        ("invalid", 400, "API key not valid"),
        ("expired", 400, "API key expired. Please renew"),
        ("leaked", 403, "reported as leaked"),
        ("project-denied", 403, "denied access"),
        ("API_KEY_IP_ADDRESS_BLOCKED", 403, "are blocked"),
    ],
)
async def test_states_of_keys(asker: Asker, world: World, state: str, status: int, text: str) -> None:
    """A key can die in each of the ways that Google knows, and is still known by name in the record."""
    world.key("key-a").state = state
    got = await asker.post(f"{GL}:generateContent", prompt(), KEY)
    assert (got.status, text in got.error["message"]) == (status, True)
    assert asker.fake.record.last().credential == "key-a"


async def test_login_at_the_developer_api(asker: Asker, login: dict[str, str]) -> None:
    """A login needs a quota project there, and it must be one of its own."""
    auth = await asker.bearer(login)
    assert (await asker.post(f"{GL}:generateContent", prompt(), auth)).status == 403
    foreign = await asker.post(f"{GL}:generateContent", prompt(), {**auth, "x-goog-user-project": "shared"})
    assert foreign.detail("ErrorInfo")["reason"] == "USER_PROJECT_DENIED"
    mine = {**auth, "x-goog-user-project": "alice-project"}
    assert (await asker.post(f"{GL}:generateContent", prompt(), mine)).status == 200


async def test_services_that_are_off(
    asker: Asker, world: World, login: dict[str, str], robot_auth: dict[str, str]
) -> None:
    """A project without the API says so on each backend, naming its number."""
    auth = await asker.bearer(login)
    for name, service in (("shared", GL_SERVICE), ("vx-project", VX_SERVICE), ("alice-project", COMPANION)):
        world.projects[name].disabled = frozenset({service})
    for got, name in (
        (await asker.post(f"{GL}:generateContent", prompt(), KEY), "shared"),
        (await asker.post(f"{VX}:generateContent", prompt(), robot_auth), "vx-project"),
        (await asker.post(f"{CA}:generateContent", wrapped(), auth), "alice-project"),
    ):
        info = got.detail("ErrorInfo")
        assert (got.status, info["reason"]) == (403, "SERVICE_DISABLED")
        assert info["metadata"]["consumer"] == f"projects/{world.projects[name].number}"


async def test_unknown_models(
    asker: Asker, login: dict[str, str], robot_auth: dict[str, str], world: World
) -> None:
    """404 in each backend's words; a model that Vertex has elsewhere is unknown here."""
    gl = await asker.post("/v1beta/models/gemini-9:generateContent", prompt(), KEY)
    assert (gl.status, "models/gemini-9 is not found for API version v1beta" in gl.error["message"]) == (
        404,
        True,
    )
    vx = await asker.post(f"{VX.replace('2.5-flash', '9')}:generateContent", prompt(), robot_auth)
    assert (vx.status, "Publisher Model" in vx.error["message"]) == (404, True)
    auth = await asker.bearer(login)
    ca = await asker.post(f"{CA}:generateContent", wrapped(model="gemini-9"), auth)
    assert (ca.status, ca.error["message"]) == (404, "Requested entity was not found.")
    world.models["gemini-2.5-flash"].locations = frozenset({"europe-west4"})
    assert (await asker.post(f"{VX}:generateContent", prompt(), robot_auth)).status == 404
    embed = await asker.post(f"{GL}:embedContent", {"content": {"parts": [{"text": "x"}]}}, KEY)
    assert embed.status == 404


async def test_code_assist_wants_its_own_form(asker: Asker, login: dict[str, str]) -> None:
    """No `models/`, a project, no unknown wrapper field, no model inside the request."""
    auth = await asker.bearer(login)
    for body in (
        wrapped(model="models/gemini-2.5-pro"),
        wrapped(project=""),
        wrapped(surprise=1),
        wrapped(request=prompt(model="gemini-2.5-pro")),
        wrapped(request=prompt(generationConfig={"heat": 1})),
        prompt(),
    ):
        got = await asker.post(f"{CA}:generateContent", body, auth)
        assert (got.status, got.error["status"]) == (400, "INVALID_ARGUMENT"), body
    fine = wrapped(user_prompt_id="u", enabled_credit_types=[], request=prompt(session_id="s"))
    assert (await asker.post(f"{CA}:generateContent", fine, auth)).status == 200


async def test_code_assist_projects(
    asker: Asker, login: dict[str, str], world: World, robot_auth: dict[str, str]
) -> None:
    """A project that is nobody's, not hers, or without licence; a service account is no person."""
    auth = await asker.bearer(login)
    nobody = await asker.post(f"{CA}:generateContent", wrapped(project="nobodys"), auth)
    assert nobody.detail("ErrorInfo")["reason"] == "CONSUMER_INVALID"
    foreign = await asker.post(f"{CA}:generateContent", wrapped(project="shared"), auth)
    assert "cloudaicompanion.companions.generateChat" in foreign.error["message"]
    world.projects["alice-project"].licensed = False
    unlicensed = await asker.post(f"{CA}:generateContent", wrapped(), auth)
    assert (unlicensed.detail("ErrorInfo")["reason"], "#3501" in unlicensed.error["message"]) == (
        "SUBSCRIPTION_REQUIRED",
        True,
    )
    assert (await asker.post(f"{CA}:generateContent", wrapped(), robot_auth)).status == 403


async def test_vertex_projects(asker: Asker, robot_auth: dict[str, str]) -> None:
    """Somebody else's project is 403, naming the permission."""
    path = VX.replace("vx-project", "shared")
    got = await asker.post(f"{path}:generateContent", prompt(), robot_auth)
    assert (got.status, "aiplatform.endpoints.predict" in got.error["message"]) == (403, True)


async def test_express_mode(asker: Asker, world: World) -> None:
    """Vertex without a project takes a key, unless that key may not."""
    path = "/v1/publishers/google/models/gemini-2.5-flash:generateContent"
    assert (await asker.post(path, prompt(), KEY)).status == 200
    world.key("key-a").express = False
    assert (await asker.post(path, prompt(), KEY)).status == 401


async def load(asker: Asker, login: dict[str, str]) -> Any:
    return await asker.post(
        f"{CA}:loadCodeAssist", {"metadata": {"pluginType": "GEMINI"}}, await asker.bearer(login)
    )


async def test_load_licensed(asker: Asker, login: dict[str, str], world: World) -> None:
    """A licensed person has a tier and a project, as text or as an object."""
    got = await load(asker, login)
    assert got.json["currentTier"]["id"] == "standard-tier"
    assert got.json["cloudaicompanionProject"] == "alice-project"
    world.users["alice"].code_assist.project_as_object = True
    assert (await load(asker, login)).json["cloudaicompanionProject"] == {"id": "alice-project"}


async def test_onboarding(asker: Asker, login: dict[str, str], world: World) -> None:
    """Without a tier one is onboarded: three polls, then the project; the free tier must not name one."""
    world.users["alice"].code_assist = CodeAssist(tier="", project="alice-project", onboarding=3)
    auth = await asker.bearer(login)
    assert "currentTier" not in (await load(asker, login)).json
    assert (await asker.post(f"{CA}:generateContent", wrapped(), auth)).status == 403
    free = {"tierId": "free-tier", "cloudaicompanionProject": "alice-project"}
    assert (await asker.post(f"{CA}:onboardUser", free, auth)).error["status"] == "FAILED_PRECONDITION"
    assert (await asker.post(f"{CA}:onboardUser", {"tierId": "standard-tier"}, auth)).status == 400
    body = {"tierId": "standard-tier", "cloudaicompanionProject": "alice-project", "metadata": {}}
    operation = (await asker.post(f"{CA}:onboardUser", body, auth)).json
    polls = [operation["done"]]
    while not operation["done"]:
        operation = (await asker.get(f"{CA}/{operation['name']}", auth)).json
        polls.append(operation["done"])
    assert polls == [False, False, False, True]
    assert operation["response"]["cloudaicompanionProject"]["id"] == "alice-project"
    assert (await asker.post(f"{CA}:generateContent", wrapped(), auth)).status == 200
    assert (await asker.get(f"{CA}/operations/other", auth)).status == 404


async def test_onboarding_that_fails(asker: Asker, login: dict[str, str], world: World) -> None:
    """A failed operation carries an error instead of a response."""
    world.users["alice"].code_assist = CodeAssist(tier="", onboarding=0, operation_error="no room")
    got = await asker.post(f"{CA}:onboardUser", {"tierId": "free-tier"}, await asker.bearer(login))
    assert (got.json["done"], got.json["error"]["message"]) == (True, "no room")


@pytest.mark.parametrize(
    ("made", "reason", "at_generate"),
    [
        (shut_down, "UNSUPPORTED_CLIENT", "SUBSCRIPTION_REQUIRED"),
        (must_validate, "VALIDATION_REQUIRED", "VALIDATION_REQUIRED"),
    ],
)
async def test_ineligible(
    asker: Asker, login: dict[str, str], world: World, made: Any, reason: str, at_generate: str
) -> None:
    """Shut-down individuals and unverified accounts: told at set-up, refused at generate."""
    world.users["alice"].code_assist = made()
    got = await load(asker, login)
    assert "currentTier" not in got.json
    assert got.json["ineligibleTiers"][0]["reasonCode"] == reason
    refused = await asker.post(f"{CA}:generateContent", wrapped(), await asker.bearer(login))
    assert (refused.status, refused.detail("ErrorInfo")["reason"]) == (403, at_generate)


async def test_further_set_up_refusals(asker: Asker, login: dict[str, str], world: World) -> None:
    """VPC service controls at load, suspension everywhere else, further tiers."""
    assist = world.users["alice"].code_assist
    assist.load_refusal = replies.security_policy()
    assert (await load(asker, login)).detail("ErrorInfo")["reason"] == "SECURITY_POLICY_VIOLATED"
    assist.load_refusal, assist.refusal = None, replies.tos_violation()
    assist.ineligible, assist.paid_tier = [ineligible("DASHER_USER", tierId="x")], "g1-pro-tier"
    got = await load(asker, login)
    assert (got.json["paidTier"]["id"], got.json["ineligibleTiers"][0]["tierId"]) == ("g1-pro-tier", "x")
    auth = await asker.bearer(login)
    count = {"request": {"model": "models/gemini-2.5-pro", **prompt()}}
    for path, body in ((":generateContent", wrapped()), (":countTokens", count), (":retrieveUserQuota", {})):
        assert (await asker.post(CA + path, body, auth)).detail("ErrorInfo")["reason"] == "TOS_VIOLATION"


async def test_quota_as_scripted(asker: Asker, login: dict[str, str], world: World) -> None:
    """A test may put any buckets into retrieveUserQuota."""
    world.users["alice"].code_assist.buckets = [{"modelId": "x", "resetTime": "1970-01-01T00:00:00Z"}]
    got = await asker.post(f"{CA}:retrieveUserQuota", {"project": "alice-project"}, await asker.bearer(login))
    assert got.json == {"buckets": [{"modelId": "x", "resetTime": "1970-01-01T00:00:00Z"}]}


async def test_nothing_there(asker: Asker) -> None:
    """An unknown path is Google's HTML 404."""
    for path in (
        "/",
        "/v1beta/nothing",
        "/v1internal:nothing",
        "/v1/projects/p/publishers/google/models/m:x",
        "/v2/models",
    ):
        got = await asker.post(path, {}, KEY)
        assert (got.status, got.body[:15]) == (404, b"<!DOCTYPE html>")
