"""What each surface makes of a request, over real HTTP, with a scripted dispatcher behind it."""

import json

import pytest
from tests.fakes.gateway import ANSWER, KEY, ScriptedDispatcher, ScriptedStream, answered, gateway_site

from gemini_pool import wire
from gemini_pool.errors import PoolError
from gemini_poold.core.model import Data
from gemini_poold.gateway.auth import LocalClient, LocalKeys
from gemini_poold.gateway.services import Settings
from gemini_poold.runtime.dispatch import ClientFault

CA_BODY = json.dumps(
    {
        "model": "gemini-2.5-pro",
        "project": "p",
        "user_prompt_id": "u",
        "request": {"contents": [], "session_id": "s1"},
    }
).encode()


async def test_a_body_goes_through_as_it_came():
    """Gemini surface: the same bytes in, the same bytes out, and the headers that say who served."""
    body = b'{ "contents" : [] }'
    async with gateway_site(ScriptedDispatcher(answered(account="work", attempts=2, wait_s=0.25))) as site:
        async with site.post("/v1beta/models/gemini-2.5-pro:generateContent", body) as answer:
            assert answer.status == 200
            assert await answer.read() == ANSWER
            assert answer.headers["x-gemini-pool-account"] == "work"
            assert answer.headers["x-gemini-pool-attempts"] == "2"
            assert answer.headers["x-gemini-pool-wait-ms"] == "250"
        call = site.dispatcher.call
        assert (call.surface, call.method, call.model, call.body) == (
            "gl",
            "generateContent",
            "gemini-2.5-pro",
            body,
        )
        assert call.request.model == "gemini-2.5-pro"
        assert call.version == "v1beta"


@pytest.mark.parametrize(
    ("headers", "check"),
    [
        ({}, lambda c, now: c.wait_until == pytest.approx(now + 120, abs=20) and c.request.session == ""),
        ({"x-gemini-pool-wait-s": "1000"}, lambda c, now: c.wait_until == pytest.approx(now + 1000, abs=20)),
        ({"X-Server-Timeout": "500"}, lambda c, now: c.wait_until == pytest.approx(now + 500, abs=20)),
        (
            {"X-Server-Timeout": "500", "x-gemini-pool-wait-s": "0"},
            lambda c, now: c.wait_until == pytest.approx(now, abs=20),
        ),
        ({"X-Server-Timeout": "soon"}, lambda c, now: c.wait_until == pytest.approx(now + 120, abs=20)),
        ({"x-gemini-pool-account": "work"}, lambda c, now: c.request.pin == "work"),
        ({"x-gemini-pool-session": "s", "x-session-id": "t"}, lambda c, now: c.request.session == "s"),
        ({"x-session-id": "t"}, lambda c, now: c.request.session == "default:t"),
        ({"x-gemini-api-privileged-user-id": "i"}, lambda c, now: c.request.session == "default:i"),
        ({"x-gemini-pool-priority": "batch"}, lambda c, now: c.request.batch),
        ({"x-gemini-pool-allow-paid": "false"}, lambda c, now: c.request.allow_paid is False),
        ({"x-gemini-pool-allow-paid": "Yes"}, lambda c, now: c.request.allow_paid is True),
        ({"x-gemini-pool-data": "no-training"}, lambda c, now: c.request.data is Data.NO_TRAINING),
        ({"Api-Revision": "2026-05-20"}, lambda c, now: dict(c.headers) == {"Api-Revision": "2026-05-20"}),
        (
            {"Authorization": "Bearer secret", "x-goog-user-project": "p", "Cookie": "c"},
            lambda c, now: not c.headers,
        ),
    ],
)
async def test_headers_of_a_request(headers, check):
    """Each header means what the contract says; nothing but the passed-on ones goes further."""
    async with gateway_site() as site:
        async with site.post("/v1beta/models/m:generateContent", **headers) as answer:
            assert answer.status == 200
        assert check(site.dispatcher.call, site.gateway.services.clock.now())


@pytest.mark.parametrize(
    "headers",
    [
        {"x-gemini-pool-wait-s": "soon"},
        {"x-gemini-pool-wait-s": "-1"},
        {"x-gemini-pool-wait-s": "nan"},
        {"x-gemini-pool-priority": "high"},
        {"x-gemini-pool-allow-paid": "maybe"},
        {"x-gemini-pool-data": "secret"},
    ],
)
async def test_headers_that_mean_nothing_are_refused(headers):
    """A header of ours that cannot be read is a 400, not a guess."""
    async with gateway_site() as site, site.post("/v1beta/models/m:generateContent", **headers) as answer:
        assert answer.status == 400
        assert next(iter(headers)) in (await answer.json())["error"]["message"]
    assert not site.dispatcher.calls


async def test_a_long_session_is_remembered_by_its_digest():
    """A client cannot make the pool keep more than a name's worth."""
    body = json.dumps({"model": "m", "request": {"session_id": "s" * 100_000}}).encode()
    async with gateway_site() as site:
        await (await site.post("/v1internal:generateContent", body)).read()
        await (await site.post("/v1beta/models/m:generateContent", x_gemini_pool_session="t" * 5000)).read()
        assert all(0 < len(call.request.session) < 100 for call in site.dispatcher.calls)


async def test_an_error_says_how_far_it_came():
    """Attempts, waiting time and account stand on errors, too."""

    async def fail(call):
        call.attempts, call.wait_s = 3, 1.5
        raise PoolError("upstream_error", "b: overloaded", account="b")

    async with gateway_site(ScriptedDispatcher(fail, fail)) as site:
        for path in ("m:generateContent", "m:streamGenerateContent?alt=sse"):
            async with site.post(f"/v1beta/models/{path}") as answer:
                assert answer.status == 502
                assert answer.headers["x-gemini-pool-attempts"] == "3"
                assert answer.headers["x-gemini-pool-wait-ms"] == "1500"
                assert answer.headers["x-gemini-pool-account"] == "b"


async def test_requests_have_names_of_their_own():
    """Every request gets its own id."""
    async with gateway_site() as site:
        for _ in range(3):
            await (await site.post("/v1beta/models/m:generateContent")).read()
        assert len({call.request.id for call in site.dispatcher.calls}) == 3


async def test_google_errors_are_handed_on():
    """A 400 of Google's is the answer, in its own body."""
    fault = b'{"error":{"code":400,"message":"no","status":"INVALID_ARGUMENT"}}'
    dispatcher = ScriptedDispatcher(
        answer=answered(fault, 400), streams=ClientFault("no", answered(fault, 400))
    )
    async with gateway_site(dispatcher) as site:
        async with site.post("/v1beta/models/m:generateContent") as answer:
            assert (answer.status, await answer.read()) == (400, fault)
        async with site.post("/v1beta/models/m:streamGenerateContent?alt=sse") as answer:
            assert (answer.status, await answer.read()) == (400, fault)
        async with site.post("/v1beta/models/m:streamGenerateContent") as answer:
            assert (answer.status, await answer.read()) == (400, b"[" + fault + b"]")


async def test_a_401_of_googles_stays_inside():
    """Whatever the dispatcher says: the client never sees Google's 401."""
    async with gateway_site(ScriptedDispatcher(answered(b"{}", 401))) as site:
        async with site.post("/v1beta/models/m:generateContent") as answer:
            assert answer.status == 502


async def test_errors_have_the_surfaces_shape():
    """Refusals before the first byte, on a plain call and on both dressings of a stream."""
    error = PoolError("all_cooling_down", "b returns first", retry_at=2_000_000_000.0, account="b")
    async with gateway_site(ScriptedDispatcher(answer=error, streams=error)) as site:
        for path, array in [
            ("m:generateContent", False),
            ("m:streamGenerateContent?alt=sse", False),
            ("m:streamGenerateContent", True),
        ]:
            async with site.post(f"/v1beta/models/{path}") as answer:
                assert answer.status == 429
                assert int(answer.headers["Retry-After"]) > 0
                body = json.loads(await answer.read())
                assert isinstance(body, list) is array
                assert (body[0] if array else body)["error"]["status"] == "RESOURCE_EXHAUSTED"


async def test_aliases():
    """An alias is replaced in the call, and in a body that names the model; only then is a body decoded."""
    settings = Settings(aliases={"flash": "gemini-2.5-flash"})
    async with gateway_site(settings=settings) as site:
        await (await site.post("/v1beta/models/flash:generateContent", b"{}")).read()
        await (
            await site.post("/v1beta/models/flash:embedContent", b'{"model":"models/flash","content":{}}')
        ).read()
        body = b'{"requests":[{"model":"models/flash","content":{}}]}'
        await (await site.post("/v1beta/models/flash:batchEmbedContents", body)).read()
        await (await site.post("/v1beta/models/x:embedContent", b'{ "model" : "models/x" }')).read()
        calls = site.dispatcher.calls
    assert [call.model for call in calls] == ["gemini-2.5-flash"] * 3 + ["x"]
    assert json.loads(calls[1].body)["model"] == "models/gemini-2.5-flash"
    assert json.loads(calls[2].body)["requests"][0]["model"] == "models/gemini-2.5-flash"
    assert calls[3].body == b'{ "model" : "models/x" }'


@pytest.mark.parametrize(
    "model", ["", "tuned/x", "models/", "..", "a%3Fkey=b", "a%23b", "a%20b", "a%0D%0Ab", "-a", "a" * 129]
)
async def test_no_model(model):
    """A path without a usable model, or one that could mean something in a URL, is refused before it is dispatched."""
    async with gateway_site() as site, site.post(f"/v1beta/models/{model}:generateContent") as answer:
        assert answer.status == 400


async def test_code_assist_bodies():
    """The model and the session come from the body; `models/` before the model is tolerated; bytes go through."""
    stream = ScriptedStream([b"data: {}\n\n"])
    async with gateway_site(ScriptedDispatcher(answered(), stream)) as site:
        await (await site.post("/v1internal:generateContent", CA_BODY)).read()
        await (await site.post("/v1internal:streamGenerateContent?alt=sse", CA_BODY)).read()
        await (
            await site.post("/v1internal:countTokens", b'{"request":{"model":"models/m","contents":[]}}')
        ).read()
        plain, streamed, counted = site.dispatcher.calls
    assert (plain.surface, plain.method, plain.model) == ("ca", "generateContent", "gemini-2.5-pro")
    assert plain.body == CA_BODY
    assert plain.request.session == "default:s1"
    assert streamed.method == "streamGenerateContent"
    assert (counted.method, counted.model) == ("countTokens", "m")


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"nonsense", b'{"model":7}'])
async def test_code_assist_bodies_without_a_model(body):
    """Refused with a sentence, in Google's envelope."""
    async with gateway_site() as site, site.post("/v1internal:generateContent", body) as answer:
        assert answer.status == 400
        assert (await answer.json())["error"]["status"] == "INVALID_ARGUMENT"


async def test_code_assist_set_up():
    """gemini-cli finds a licensed tier and a project at once, and whatever else it asks is answered."""
    entries = [
        wire.QuotaEntry(
            account=account,
            model="gemini-2.5-pro",
            family="pro",
            token_type="REQUESTS",
            window="day",
            used=None,
            remaining=remaining,
            limit=None,
            fraction=fraction,
            resets_at=1_800_000_000.0,
            source="google",
            observed_at=0.0,
        )
        for account, fraction, remaining in [("a", 0.5, 10.0), ("b", 1.0, 20.0), ("c", None, None)]
    ]
    async with gateway_site(quota=entries) as site:
        loaded = await (
            await site.post("/v1internal:loadCodeAssist", b'{"cloudaicompanionProject":"mine"}')
        ).json()
        assert loaded["currentTier"]["id"] == "standard-tier"
        assert loaded["cloudaicompanionProject"] == "mine"
        assert (await (await site.post("/v1internal:loadCodeAssist", b"{}")).json())[
            "cloudaicompanionProject"
        ]
        onboarded = await (await site.post("/v1internal:onboardUser", b'{"tierId":"standard-tier"}')).json()
        assert onboarded["done"]
        polled = await (await site.get(f"/v1internal/{onboarded['name']}")).json()
        assert polled["response"]["cloudaicompanionProject"]["id"]
        quota = await (await site.post("/v1internal:retrieveUserQuota", b'{"project":"p"}')).json()
        assert quota["buckets"] == [
            {
                "modelId": "gemini-2.5-pro",
                "tokenType": "REQUESTS",
                "remainingFraction": 0.75,
                "remainingAmount": "30",
                "resetTime": "2027-01-15T08:00:00Z",
            }
        ]
        for method in ("listExperiments", "fetchAdminControls", "recordCodeAssistMetrics"):
            assert (await site.post(f"/v1internal:{method}", b"{}")).status == 200
        assert (await site.get("/v1internal:getCodeAssistGlobalUserSetting")).status == 200
    assert not site.dispatcher.calls


async def test_vertex_paths():
    """With and without project and location; the surface is Vertex's."""
    async with gateway_site() as site:
        for path in (
            "/v1/projects/p/locations/l/publishers/google",
            "/v1beta1/publishers/google",
            "/publishers/google",
        ):
            assert (await site.post(f"{path}/models/m:generateContent")).status == 200
        assert {(call.surface, call.model) for call in site.dispatcher.calls} == {("vx", "m")}
        listed = await (await site.get("/v1beta1/publishers/google/models")).json()
        assert listed["publisherModels"][0]["name"] == "publishers/google/models/gemini-2.5-flash"


async def test_model_lists():
    """Gemini's form for its key header, OpenAI's for a Bearer; pages; one model; an unknown one."""
    async with gateway_site() as site:
        listed = await (await site.get("/v1/models")).json()
        assert [model["name"] for model in listed["models"]] == [
            "models/gemini-2.5-flash",
            "models/gemini-2.5-pro",
        ]
        openai = await (await site.get("/v1/models", x_goog_api_key="", Authorization=f"Bearer {KEY}")).json()
        assert [model["id"] for model in openai["data"]] == ["gemini-2.5-flash", "gemini-2.5-pro"]
        bearer = await (
            await site.get("/v1beta/models", x_goog_api_key="", Authorization=f"Bearer {KEY}")
        ).json()
        assert "models" in bearer
        first = await (await site.get("/v1beta/models?pageSize=1")).json()
        rest = await (await site.get(f"/v1beta/models?pageSize=1&pageToken={first['nextPageToken']}")).json()
        assert [m["name"] for m in first["models"] + rest["models"]] == [m["name"] for m in listed["models"]]
        assert "nextPageToken" not in rest
        assert (await site.get("/v1beta/models?pageSize=x")).status == 400
        assert (await (await site.get("/v1beta/models/gemini-2.5-pro")).json())[
            "name"
        ] == "models/gemini-2.5-pro"
        missing = await site.get("/v1beta/models/none")
        assert missing.status == 404


async def test_a_named_client_keeps_to_its_models_and_rate():
    """A client's own limits are errors of the surface's shape."""
    keys = LocalKeys([(LocalClient("ci", rpm=1, models=("gemini-*",)), KEY)])
    async with gateway_site(keys=keys) as site:
        assert (await site.post("/v1beta/models/other:generateContent")).status == 403
        refused = await site.post("/v1beta/models/gemini-x:generateContent")
        assert refused.status == 429
        assert refused.headers["Retry-After"]
    assert not site.dispatcher.calls
