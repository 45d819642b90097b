"""Whole answers: served by every backend, refusals absorbed, nothing lost, nothing made up."""

from __future__ import annotations

import asyncio
import json

import pytest
from tests.runtime.rig import HI, MODEL, rig_of

from gemini_poold.config import Gateway
from gemini_poold.core.model import AccountState, Outcome
from gemini_poold.errors import PoolError
from gemini_poold.fake import Fault, Match, replies
from gemini_poold.runtime.attempts import Attempts

WRAPPED = {"model": "x", "project": "x", "user_prompt_id": "p", "request": HI}


async def refused(rig, call):
    with pytest.raises(PoolError) as caught:
        await rig.dispatcher.unary(call)
    return caught.value


@pytest.mark.parametrize("name", ["key-a", "user-a", "robot-a"])
@pytest.mark.parametrize("surface", ["gl", "ca", "vx"])
async def test_every_surface_on_every_backend(name, surface):
    """A request of each dialect is answered by each backend, in the dialect it came in, with its usage."""
    async with rig_of(name) as rig:
        answer = await rig.dispatcher.unary(rig.call(WRAPPED if surface == "ca" else HI, surface=surface))
        body = json.loads(answer.body)
        body = body["response"] if surface == "ca" else body
        assert body["candidates"][0]["content"]["parts"][0]["text"]
        assert (answer.status, answer.account, answer.attempts, answer.finish_reason) == (
            200,
            name,
            1,
            "STOP",
        )
        assert answer.usage.total_tokens == body["usageMetadata"]["totalTokenCount"] > 0
        counter = rig.pool.members[name].counters[MODEL]
        assert (counter.served, counter.input_tokens) == (1, answer.usage.input_tokens)


async def test_own_dialect_is_byte_identical():
    """Where nothing must be touched, Google gets the client's bytes and the client Google's."""
    async with rig_of("key-a") as rig:
        raw = json.dumps(HI, indent=3).encode()
        answer = await rig.dispatcher.unary(rig.call(raw))
        call = rig.fake.record.last("generate")
        assert call.body == raw
        assert json.loads(answer.body)["candidates"]
        assert call.headers["User-Agent"].startswith("gemini-pool/")


@pytest.mark.parametrize(("method", "name", "key"), [
    ("countTokens", "key-a", "totalTokens"), ("countTokens", "user-a", "totalTokens"), ("countTokens", "robot-a", "totalTokens"),
])  # fmt: skip
async def test_count(method, name, key):
    """Tokens are counted by each backend."""
    async with rig_of(name) as rig:
        answer = await rig.dispatcher.unary(rig.call(method=method))
        assert json.loads(answer.body)[key] > 0


@pytest.mark.parametrize("name", ["key-a", "robot-a"])
async def test_embed(name):
    """Embeddings come in the Developer API's form from both backends that have them."""
    async with rig_of("user-x", name) as rig:
        body = {"model": "models/gemini-embedding-001", "content": {"parts": [{"text": "x"}]}}
        answer = await rig.dispatcher.unary(
            rig.call(body, method="embedContent", model="gemini-embedding-001")
        )
        assert answer.account == name
        assert len(json.loads(answer.body)["embedding"]["values"]) > 0


@pytest.mark.parametrize(
    "fault",
    [
        Fault.status(429, body=replies.rate_limited("30s")),
        Fault.status(429, body=replies.gl_quota("rpd", 20)),
        Fault.status(500, body=replies.internal()),
        Fault.status(502, body="<html>bad gateway</html>"),
        Fault.status(504, body=replies.deadline_exceeded()),
        Fault.status(403, body=replies.key_leaked()),
        Fault.status(400, body=replies.api_key_invalid()),
        Fault.status(404, body=replies.gl_model_not_found(MODEL, "v1beta", "generateContent")),
        Fault.status(499, body=replies.cancelled()),
        Fault.reset_connection("before_headers"),
        Fault.reset_connection("after_headers"),
        Fault.cut(0, "torn"),
        Fault.cut(0, "fin"),
        Fault.status(200, body=b'{"candidates": ['),
        Fault.status(200, body=replies.internal()),
        Fault.status(200, body=[replies.rate_limited("30s")]),
    ],
    ids=lambda fault: fault.name,
)
async def test_absorbed(fault):
    """Whatever one account meets before the first byte, another one serves, and the client sees nothing of it."""
    async with rig_of("key-a", "key-b") as rig:
        rig.fake.faults.add(fault, when=Match(credential="key-a"), times=None)
        answer = await rig.dispatcher.unary(rig.call())
        assert (answer.account, answer.attempts) == ("key-b", 2)
        assert (answer.status, answer.finish_reason) == (200, "STOP")
        assert rig.pool.totals["rotations"] == 1


async def test_capacity_goes_to_another_backend():
    """A full model is full for every key: one refusal, then another backend, not the next key."""
    async with rig_of("key-a", "key-b", "robot-a") as rig:
        rig.fake.faults.add(
            Fault.status(503, body=replies.overloaded()), when=Match(backend="gl"), times=None
        )
        answer = await rig.dispatcher.unary(rig.call())
        assert (answer.account, answer.attempts) == ("robot-a", 2)
        assert rig.pool.members["key-a"].health.failures == 0


async def test_refused_connection():
    """An endpoint that is down: every account rests for a moment, the error says what happened."""
    async with rig_of("key-a") as rig:
        await rig.fake.down()
        error = await refused(rig, rig.call())
        assert (error.code, error.account) == ("all_cooling_down", "key-a")
        assert error.retry_at is not None


async def test_client_fault_is_an_answer():
    """Google's 400 reaches the client as it is, once, and no account is to blame."""
    async with rig_of("key-a", "key-b") as rig:
        answer = await rig.dispatcher.unary(rig.call({**HI, "nonsense": 1}))
        assert (answer.status, answer.attempts) == (400, 1)
        assert "nonsense" in json.loads(answer.body)["error"]["message"]
        assert rig.cooldowns() == []
        assert rig.pool.members["key-a"].health.success == 1.0


async def test_array_wrapped_client_fault_is_plain():
    """An error in an array, or a page, becomes one error object."""
    async with rig_of("key-a") as rig:
        rig.fake.faults.add(Fault.status(400, body=[replies.invalid_argument("bad")]))
        answer = await rig.dispatcher.unary(rig.call())
        assert json.loads(answer.body)["error"]["message"] == "bad"


async def test_401_renews_and_repeats():
    """An access token that Google refuses is renewed once, and the same account serves."""
    async with rig_of("user-a", "user-b") as rig:
        rig.fake.world.expire_tokens("user-a")
        answer = await rig.dispatcher.unary(rig.call())
        assert (answer.account, answer.attempts, rig.logins["user-a"].renewals) == ("user-a", 2, 1)
        assert rig.cooldowns() == []


async def test_401_twice_rotates():
    """A second 401 with a new token goes to another account; the first rests."""
    async with rig_of("user-a", "user-b") as rig:
        rig.fake.faults.add(
            Fault.status(401, body=replies.unauthenticated()), when=Match(credential="user-a"), times=None
        )
        answer = await rig.dispatcher.unary(rig.call())
        assert (answer.account, answer.attempts, rig.logins["user-a"].renewals) == ("user-b", 3, 1)
        assert rig.cooldowns() == ["user-a"]


async def test_many_401_at_once_renew_once():
    """Twenty requests that meet the same dead token share one renewal."""
    async with rig_of("user-a") as rig:
        rig.fake.world.expire_tokens("user-a")
        answers = await asyncio.gather(*(rig.dispatcher.unary(rig.call()) for _ in range(20)))
        assert {a.status for a in answers} == {200}
        assert rig.logins["user-a"].renewals == 1


@pytest.mark.parametrize(
    ("fault", "state"),
    [
        (replies.subscription_required(), AccountState.UNLICENSED),
        (replies.tos_violation(), AccountState.SUSPENDED),
        (replies.validation_required(), AccountState.NEEDS_VALIDATION),
        (replies.service_disabled(), AccountState.MISCONFIGURED),
    ],
)
async def test_refused_accounts_are_held(fault, state):
    """A refusal that no waiting cures changes the account's state, with a hint; another account serves."""
    async with rig_of("user-a", "user-b") as rig:
        rig.fake.faults.add(Fault.status(403, body=fault), when=Match(credential="user-a"), times=None)
        answer = await rig.dispatcher.unary(rig.call())
        assert answer.account == "user-b"
        member = rig.pool.members["user-a"]
        assert (member.state, bool(member.hint)) == (state, True)


async def test_all_cooling_down_names_the_first_to_return():
    """When nobody can serve in time, the error says who returns first and when, and what Google said last."""
    async with rig_of("key-a", "key-b") as rig:
        for name, retry in (("key-a", "90s"), ("key-b", "60s")):
            rig.fake.faults.add(
                Fault.status(429, body=replies.rate_limited(retry)), when=Match(credential=name), times=None
            )
        error = await refused(rig, rig.call(wait_s=5))
        assert (error.code, error.account) == ("all_cooling_down", "key-b")
        assert error.retry_at - rig.clock.now() == pytest.approx(60, abs=5)
        assert error.details["status"] == 429


async def test_gives_up_after_faults():
    """Broken answers from everywhere end in an error with Google's last words."""
    names = [f"key-{i}" for i in range(8)]
    async with rig_of(*names) as rig:
        rig.fake.faults.add(Fault.status(500, body=replies.internal()), times=None)
        error = await refused(rig, rig.call())
        assert (error.code, error.details["status"]) == ("upstream_error", 500)
        assert "INTERNAL" in error.details["body"]
        assert rig.fake.record.count("generate") < len(names)


async def test_unknown_model():
    """A model that no account has ends as such, after each was asked."""
    async with rig_of("key-a", "key-b") as rig:
        error = await refused(rig, rig.call(model="gemini-9-none"))
        assert (error.code, error.details["status"]) == ("unknown_model", 404)


async def test_body_that_one_backend_cannot_take():
    """A body that the preferred backend cannot take goes to one that can; if there is none, the reason is told."""
    body = {**HI, "labels": {"team": "a"}}
    async with rig_of("key-a", "robot-a") as rig:
        answer = await rig.dispatcher.unary(rig.call(body, surface="vx"))
        assert (answer.account, answer.attempts) == ("robot-a", 1)
    async with rig_of("key-a") as rig:
        error = await refused(rig, rig.call(body, surface="vx"))
        assert error.code == "bad_request"
        assert "labels" in error.message
        error = await refused(rig, rig.call(b"nonsense", surface="ca"))
        assert error.code == "bad_request"


async def test_model_that_leaves_the_path():
    """A model's name cannot lead to another URL; nothing is sent."""
    async with rig_of("key-a") as rig:
        error = await refused(rig, rig.call(model="../../upload"))
        assert error.code == "unknown_model"
        assert rig.fake.record.received == 0


async def test_corrupted_signature_is_cured_once():
    """A refused thought signature is taken out and the request repeated, once, on the same account."""
    history = {"contents": [
        *HI["contents"],
        {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {}}, "thoughtSignature": "bm8="}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {}}}]},
    ]}  # fmt: skip
    async with rig_of("key-a") as rig:
        rig.fake.faults.add(Fault.status(400, body=replies.signature_corrupted()))
        answer = await rig.dispatcher.unary(rig.call(history))
        first, second = rig.fake.record.find("generate")
        assert (answer.status, answer.attempts) == (200, 2)
        assert (b"bm8=" in first.body, b"bm8=" in second.body) == (True, False)
        assert b"skip_thought_signature_validator" in second.body
        rig.fake.faults.add(Fault.status(400, body=replies.signature_corrupted()), times=None)
        assert (await rig.dispatcher.unary(rig.call(history))).status == 400


async def test_blocked_prompt_is_an_answer():
    """A blocked prompt is complete: it goes to the client and to no other account."""
    async with rig_of("key-a", "key-b") as rig:
        rig.fake.faults.add(Fault.blocked("SAFETY"))
        answer = await rig.dispatcher.unary(rig.call())
        assert (answer.account, answer.attempts, answer.finish_reason) == ("key-a", 1, "BLOCKED_SAFETY")
        assert rig.pool.members["key-a"].counters[MODEL].served == 1


@pytest.mark.parametrize("fault", [Fault.silence(), Fault.stall(0)], ids=["no headers", "no body"])
async def test_cancelled(fault):
    """A client that leaves ends the request at Google at once; the lease is free, nobody is blamed."""
    async with rig_of("key-a") as rig:
        rig.fake.faults.add(fault)
        task = asyncio.create_task(rig.dispatcher.unary(rig.call()))
        await rig.fake.record.wait_for(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert rig.idle()
        (call,) = await rig.fake.record.wait_for(1, done=True)
        assert call.gone
        assert rig.pool.members["key-a"].health.success == 1.0
        assert rig.cooldowns() == []


async def test_cancelled_while_renewing():
    """Leaving during a token renewal loses no lease."""
    async with rig_of("user-a") as rig:
        rig.fake.world.expire_tokens("user-a")
        started, go = asyncio.Event(), asyncio.Event()

        async def slow(now):
            started.set()
            await go.wait()
            return rig.logins["user-a"].warm_nowait()

        rig.logins["user-a"].renew = slow
        task = asyncio.create_task(rig.dispatcher.unary(rig.call()))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert rig.idle()
        go.set()


async def test_first_byte_timeout():
    """Google's silence before the first byte is a fault of that attempt, not of the request."""
    limits = Gateway(first_byte_timeout_s=0.2)
    async with rig_of("key-a", "key-b", limits=limits) as rig:
        rig.fake.faults.add(Fault.silence(), when=Match(credential="key-a"))
        answer = await rig.dispatcher.unary(rig.call())
        assert (answer.account, answer.attempts) == ("key-b", 2)


async def test_pinned():
    """A pinned request stays with its account."""
    async with rig_of("key-a", "key-b") as rig:
        rig.fake.faults.add(
            Fault.status(429, body=replies.rate_limited("60s")), when=Match(credential="key-b")
        )
        error = await refused(rig, rig.call(pin="key-b"))
        assert (error.code, error.account) == ("all_cooling_down", "key-b")


async def test_client_headers_never_win():
    """What a surface passes on cannot replace the account's own headers."""
    async with rig_of("key-a") as rig:
        call = rig.call()
        call.headers = {
            "X-Goog-Api-Key": "fake-key-thief",
            "authorization": "Bearer fake",
            "X-Server-Timeout": "9",
        }
        assert (await rig.dispatcher.unary(call)).status == 200
        sent = rig.fake.record.last().headers
        assert sent.getall("x-goog-api-key") == ["fake-key-key-a"]
        assert (sent["X-Server-Timeout"], "Authorization" in sent) == ("9", False)


async def test_lease_that_ran_out_meanwhile():
    """A lease that ends while its request runs costs only its outcome; the client is served."""
    async with rig_of("key-a") as rig:
        rig.fake.faults.add(Fault.event("expire", lambda call: rig.pool.expire(rig.clock.now() + 1e6)))
        assert (await rig.dispatcher.unary(rig.call())).status == 200
        rig.fake.faults.add(
            Fault.status(500, body=replies.internal()).and_then(
                lambda call: rig.pool.expire(rig.clock.now() + 1e6)
            )
        )
        assert (await rig.dispatcher.unary(rig.call())).status == 200


@pytest.mark.parametrize("name", ["key-a", "user-a", "robot-a"])
@pytest.mark.parametrize("status", [200, 400, 403, 404, 429, 500])
async def test_a_refusal_that_quotes_the_credential(name, status):
    """Google names the API key of a suspended consumer: no client, no event and no row ever sees it."""
    async with rig_of(name) as rig:
        await rig.dispatcher.unary(rig.call())
        secret = next(iter(rig.tokens.headers_nowait(name).values())).rpartition(" ")[2]
        text = f"Consumer 'api_key:{secret}' has been suspended."
        body = {"error": {"code": max(status, 400), "message": text, "status": "PERMISSION_DENIED"}}
        for method, call in (("generate", rig.call), ("stream", rig.stream_call)):
            rig.fake.faults.clear()
            rig.pool.clear_cooldown()
            rig.fake.faults.add(Fault.status(status, body=body), when=Match(method), times=None)
            told = ""
            try:
                answer = await getattr(rig.dispatcher, "stream" if method == "stream" else "unary")(call())
                told = answer.body.decode()
            except PoolError as error:
                told = f"{error} {error.details} {getattr(error, 'answer', '')}"
            assert "suspended" in told or status in (403, 404, 429)
            assert secret not in told
        assert secret not in f"{rig.events} {rig.pool.take_rows()} {rig.pool.members[name]}"


async def test_an_error_event_that_quotes_the_credential():
    """The same inside a stream that has begun."""
    async with rig_of("key-a") as rig:
        secret = rig.fake.world.key("key-a").key
        body = {
            "error": {"code": 403, "message": f"Consumer 'api_key:{secret}'", "status": "PERMISSION_DENIED"}
        }
        rig.fake.faults.add(Fault.error_event(2, body=body), when=Match("stream"))
        with pytest.raises(PoolError) as caught:
            async with await rig.dispatcher.stream(rig.stream_call()) as stream:
                async for _ in stream:
                    pass
        assert "api_key:***" in str(caught.value.details)
        assert secret not in f"{caught.value} {caught.value.details} {rig.events}"


class Told:
    """A trace that writes down what it is told."""

    def __init__(self) -> None:
        self.steps: list[tuple[object, ...]] = []

    def waited(self, wait_s: float) -> None:
        self.steps.append(("waited",))

    def sending(self, run: Attempts, url: str) -> None:
        self.steps.append(("sending", run.account.id, run.count, url.partition("/v1beta/")[2]))

    def settled(self, outcome: Outcome, status: int) -> None:
        self.steps.append(("settled", outcome.kind.value, status))


async def test_a_trace_is_told_of_each_step():
    """Every lease waited for, every attempt sent and every end: in this order, for whoever wants to know."""
    async with rig_of("key-a", "key-b") as rig:
        rig.fake.faults.add(Fault.status(503), when=Match(credential="key-a"), times=None)
        call = rig.call()
        call.trace = told = Told()
        assert (await rig.dispatcher.unary(call)).account == "key-b"
        path = f"models/{MODEL}:generateContent"
        assert told.steps == [
            ("waited",), ("sending", "key-a", 1, path), ("settled", "transient", 503),
            ("waited",), ("sending", "key-b", 2, path), ("settled", "ok", 200),
        ]  # fmt: skip
