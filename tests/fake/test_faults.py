"""The script of faults: what matches, in which order, how often; and the record of what was asked."""

from __future__ import annotations

import json
from email.utils import formatdate

import pytest
from tests.fake.asking import GL, KEY, Asker, prompt

from gemini_poold.fake import GENERATION, Call, FakeGoogle, Fault, Match, Record, SetClock, World, replies
from gemini_poold.fake.__main__ import populate

ASK = f"{GL}:generateContent"
OTHER = {"x-goog-api-key": "fake-key-key-b"}


async def statuses(asker: Asker, number: int, headers: dict[str, str] = KEY) -> list[int]:
    return [(await asker.post(ASK, prompt(), headers)).status for _ in range(number)]


async def test_rules_are_used_up_in_order(asker: Asker) -> None:
    """The first unspent rule hits; spent ones let the next have its turn; then all is well."""
    asker.fake.faults.add(Fault.status(429, body=replies.rate_limited(retry="9s")), times=2)
    asker.fake.faults.add(Fault.status(503, body=replies.overloaded()))
    assert await statuses(asker, 4) == [429, 429, 503, 200]


async def test_matchers(asker: Asker) -> None:
    """By credential name or key, kind, model, path, the n-th call, every n-th, and anything a test can say."""
    add = asker.fake.faults.add
    rule = add(Fault.status(500), when=Match(credential="fake-key-key-b"), times=None)
    assert await statuses(asker, 1) == [200]
    assert await statuses(asker, 3, OTHER) == [500] * 3
    asker.fake.faults.remove(rule)
    add(Fault.status(500), when=Match(kind=GENERATION, credential="key-a", nth=3))
    assert await statuses(asker, 4) == [200, 200, 500, 200]
    add(Fault.status(500), when=Match(model="gemini-2.5-*", every=2), times=2)
    assert await statuses(asker, 4) == [500, 200, 500, 200]
    add(Fault.status(500), when=Match(path="*/nothing", backend="gl"))
    add(Fault.status(502), when=Match(check=lambda call: b"magic" in call.body))
    assert await statuses(asker, 1) == [200]
    assert (await asker.post(ASK, prompt("magic"), KEY)).status == 502
    asker.fake.faults.clear()


async def test_model_of_code_assist_is_known_to_matchers(asker: Asker, login: dict[str, str]) -> None:
    """There the model stands in the body, and text in the prompt does not deceive."""
    auth = await asker.bearer(login)
    asker.fake.faults.add(Fault.status(500), when=Match(model="gemini-2.5-pro"))
    body = {
        "request": prompt('"model":"gemini-2.5-pro"'),
        "project": "alice-project",
        "model": "gemini-2.5-flash",
    }
    assert (await asker.post("/v1internal:generateContent", body, auth)).status == 200
    body["model"] = "gemini-2.5-pro"
    assert (await asker.post("/v1internal:generateContent", body, auth)).status == 500


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (replies.array_wrapped(replies.rate_limited("3s")), "application/json; charset=UTF-8"),
        (
            replies.nested(replies.rate_limited({"seconds": 34, "nanos": 74_000_000}), 3),
            "application/json; charset=UTF-8",
        ),
        (replies.sorry_page(), "text/html; charset=UTF-8"),
        ("", "application/json; charset=UTF-8"),
    ],
)
async def test_bodies(asker: Asker, body: object, kind: str) -> None:
    """Array-wrapped, nested, HTML and empty bodies go out as they are."""
    asker.fake.faults.add(Fault.status(429, body=body))
    got = await asker.post(ASK, prompt(), KEY)
    assert (got.status, got.headers["Content-Type"]) == (429, kind)


def test_dressings_hold_the_error() -> None:
    """Nesting can be peeled off again, and the mangled form is no plain JSON."""
    body = replies.nested(replies.rate_limited("3s"), 2)
    for _ in range(2):
        body = json.loads(body["error"]["message"])
    assert body == replies.rate_limited("3s")
    mangled = replies.mangled(replies.rate_limited("3s")).decode()
    assert '" @type "' in mangled
    with pytest.raises(json.JSONDecodeError):
        json.loads(mangled)


ROWS = [
    (replies.bare_exhausted(), 429, ""),
    (replies.ca_old_quota(), 429, "RATE_LIMIT_EXCEEDED"),
    (replies.ca_quota_exhausted(resets_at=0.0), 429, "QUOTA_EXHAUSTED"),
    (replies.ca_rate_limited("27s", details=False), 429, ""),
    (replies.ca_rate_limited(None), 429, "RATE_LIMIT_EXCEEDED"),
    (replies.capacity(), 429, "MODEL_CAPACITY_EXHAUSTED"),
    (replies.capacity(None, code=503, reason="MODEL_CAPACITY_EXCEEDED"), 503, "MODEL_CAPACITY_EXCEEDED"),
    (replies.credits_gone(), 429, "INSUFFICIENT_G1_CREDITS_BALANCE"),
    (replies.gl_quotas(("rpm", 5), ("rpd", 20)), 429, ""),
    (replies.gl_quota("tpd", 5, tier="PaidTier1", retry=None), 429, ""),
    (replies.rate_limited("1s", form="ca"), 429, "RATE_LIMIT_EXCEEDED"),
    (replies.rate_limited(None, form="vx"), 429, "RATE_LIMIT_EXCEEDED"),
    (replies.spend_limit(), 429, ""),
    (replies.vx_exhausted(), 429, ""),
    (replies.vx_provisioned(), 429, ""),
    (replies.vx_quota(project_number="1", retry="1s"), 429, "RATE_LIMIT_EXCEEDED"),
    (replies.billing_disabled(), 403, "BILLING_DISABLED"),
    (replies.billing_off(), 400, ""),
    (replies.cancelled(), 499, ""),
    (replies.deadline_exceeded(), 504, ""),
    (replies.foreign_file(), 403, ""),
    (replies.internal(), 500, ""),
    (replies.location_unsupported(), 400, ""),
    (replies.overloaded(529), 529, ""),
    (replies.payload_too_large(413), 413, ""),
    (replies.permission_denied(), 403, ""),
    (replies.signature_corrupted(), 400, ""),
    (replies.subscription_required(project="p"), 403, "SUBSCRIPTION_REQUIRED"),
    (replies.tos_violation_old(), 403, ""),
    (replies.unauthenticated("ACCESS_TOKEN_TYPE_UNSUPPORTED"), 401, "ACCESS_TOKEN_TYPE_UNSUPPORTED"),
    (replies.validation_required(links=False), 403, "VALIDATION_REQUIRED"),
]


@pytest.mark.parametrize(("body", "status", "reason"), ROWS)
def test_rows(body: dict, status: int, reason: str) -> None:
    """Every row of Google's refusals has its status and its reason."""
    assert body["error"]["code"] == status
    infos = [each for each in body["error"].get("details", ()) if each["@type"].endswith("ErrorInfo")]
    assert [info["reason"] for info in infos] == ([reason] if reason else [])


async def test_headers_only(asker: Asker) -> None:
    """A delay may stand in the headers alone, in each of their forms."""
    for headers in (
        {"retry-after-ms": "1500"},
        {"Retry-After": "2.5"},
        {"Retry-After": formatdate(0, usegmt=True)},
    ):
        asker.fake.faults.add(Fault.status(429, headers=headers))
        got = await asker.post(ASK, prompt(), KEY)
        assert got.body == b""
        assert headers.items() <= got.headers.items()


async def test_something_happens_in_the_world(asker: Asker, world: World) -> None:
    """A fault can change the world in mid-life: here the key dies with its second call."""

    def kill(call: Call) -> None:
        world.keys[call.headers["x-goog-api-key"]].state = "invalid"

    asker.fake.faults.add(Fault.event("key dies", kill), when=Match(nth=2))
    assert await statuses(asker, 3) == [200, 200, 400]
    asker.fake.faults.add(
        Fault.status(500).and_then(lambda _: setattr(world.key("key-b"), "state", "leaked"))
    )
    assert await statuses(asker, 2, OTHER) == [500, 403]


async def test_delay_is_a_good_answer(asker: Asker) -> None:
    """A delayed answer is an answer."""
    asker.fake.faults.add(Fault.delay(0.001))
    assert await statuses(asker, 1) == [200]
    assert asker.fake.record.last().fault == "delay 0.001 s"


async def test_record(asker: Asker, clock: SetClock) -> None:
    """Headers, body, instant, connection, caller, model and status of every call can be asked for."""
    clock.set(5000.0)
    await statuses(asker, 2)
    await asker.post(ASK, prompt(), OTHER)
    record = asker.fake.record
    assert [record.count(), record.count("generate", credential="key-a"), record.count(status=404)] == [
        3,
        2,
        0,
    ]
    call = record.last("generate")
    assert (call.number, call.at, call.backend, call.model, call.credential) == (
        3,
        5000.0,
        "gl",
        "gemini-2.5-flash",
        "key-b",
    )
    assert call.headers["X-Goog-Api-Key"] == "fake-key-key-b"
    assert json.loads(call.body) == prompt()
    assert len(record.connections()) == 1
    assert (record.in_flight, record.peak_in_flight, record.total("generate", status=200)) == (0, 1, 3)
    record.clear()
    assert (record.count(), record.total()) == (0, 0)


async def test_record_forgets_the_oldest() -> None:
    """Only the newest calls are kept whole; the totals count all of them."""
    world = World()
    world.add_api_key("key-a")
    async with FakeGoogle(world, keep=2) as fake:
        record: Record = fake.record
        for number in range(5):
            record.begin(call := Call(0, 0.0, "GET", f"/{number}", {}, {}, b"", 0))
            record.end(call)
        assert [call.path for call in record.calls] == ["/3", "/4"]
        assert record.total() == 5


def test_populate_has_one_of_each() -> None:
    """The fake on its own begins with keys, a person and a service account."""
    made = populate(World(), keys=2, rpm=5)
    assert set(made["api_keys"]) == {"key-1", "key-2"}
    assert (made["alice"]["type"], made["robot"]["type"]) == ("authorized_user", "service_account")
