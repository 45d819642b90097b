"""What the verbs answer, over a real socket, the real pool and a Google of our own."""

import asyncio
import contextlib
import sqlite3

import msgspec
import pytest
from tests.ipc.harness import MODEL, Rpc

from gemini_poold.config import Config, Models, Selection
from gemini_poold.core.model import Account, AccountState, Backend, Cost, Data, Kind, Outcome, Scope
from gemini_poold.fake import Fault, replies

BODY = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}
QUIET = Config(selection=Selection(max_wait_s=0))
MINUTE = {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "slow down", "details": [
    {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "60s"},
]}}  # fmt: skip


# ---- acquire ------------------------------------------------------------------------------------------------------


async def test_acquire_gives_all_that_a_request_needs(tmp_path):
    """URL and headers are complete: a client that knows nothing of accounts gets its answer with them."""
    async with Rpc(tmp_path) as rpc:
        raw = await rpc.connect()
        lease = (await raw.ask(1, "pool/acquire", model=MODEL))["result"]
        assert (lease["backend"], lease["form"], lease["account"]) == ("developer-api", "gl", "key-a")
        assert lease["url"] == f"{rpc.fake.url}/v1beta/models/{MODEL}:generateContent"
        assert lease["headers"]["x-goog-api-key"] == "fake-key-key-a"
        assert 590 < lease["ttl_s"] <= 600
        assert lease["expires_at"] == pytest.approx(rpc.clock.now() + 600, abs=5)
        assert lease["request"]
        assert lease["decision"]
        again = (await raw.ask(2, "pool/acquire", model=f"models/{MODEL}", stream=True))["result"]
        assert again["account"] == "key-b"
        assert again["url"].endswith(":streamGenerateContent?alt=sse")


async def test_acquire_makes_no_task(tmp_path):
    """A lease that is free is granted within the read that asked for it."""
    async with Rpc(tmp_path) as rpc:
        raw = await rpc.connect()
        await raw.ask(1, "daemon/info")
        before = len(asyncio.all_tasks())
        seen = []
        broker_acquire = rpc.broker.acquire_nowait

        def acquire(*args, **kwargs):
            seen.append(len(asyncio.all_tasks()))
            return broker_acquire(*args, **kwargs)

        rpc.broker.acquire_nowait = acquire
        raw.send(*(raw.request(n, "pool/acquire", model=MODEL) for n in range(2, 10)))
        for n in range(2, 10):
            await raw.reply(n)
        assert set(seen) == {before}


async def test_forms_and_lending(tmp_path):
    """Only accounts whose body the client can write, and whose secret may leave the daemon."""
    accounts = [Account("kept", Backend.DEVELOPER_API), Account("lent", Backend.DEVELOPER_API, lend=True)]
    async with Rpc(tmp_path, *accounts) as rpc:
        raw = await rpc.connect()
        for n in range(3):
            assert (await raw.ask(n, "pool/acquire", model=MODEL))["result"]["account"] == "lent"
        error = (await raw.ask(5, "pool/acquire", model=MODEL, account="kept"))["error"]
        assert error["data"]["code"] == "not_lent"
        error = (await raw.ask(6, "pool/acquire", model=MODEL, forms=["ca", "vx"]))["error"]
        assert error["data"]["code"] == "no_account_for_model"
        error = (await raw.ask(7, "pool/acquire", model=MODEL, account="nobody"))["error"]
        assert error["data"]["code"] == "not_found"


async def test_wishes_are_kept(tmp_path):
    """Excluded accounts, pins, data class and cost are obeyed."""
    accounts = [
        Account("a", Backend.DEVELOPER_API, lend=True, data=Data.MAY_TRAIN),
        Account("b", Backend.DEVELOPER_API, lend=True, data=Data.NO_TRAINING, cost=Cost.PAID),
    ]
    async with Rpc(tmp_path, *accounts, config=QUIET) as rpc:
        raw = await rpc.connect()
        assert (await raw.ask(1, "pool/acquire", model=MODEL, account="b"))["result"]["account"] == "b"
        assert (await raw.ask(2, "pool/acquire", model=MODEL, exclude=["a"]))["result"]["account"] == "b"
        assert (await raw.ask(3, "pool/acquire", model=MODEL, data="no-training"))["result"]["account"] == "b"
        error = (await raw.ask(4, "pool/acquire", model=MODEL, data="no-training", allow_paid=False))["error"]
        assert error["data"]["code"] in ("needs_paid", "no_account_for_model")


async def test_aliases(tmp_path):
    """An alias of the configuration is resolved; nothing else is swapped."""
    config = Config(models=Models(aliases={"quick": MODEL}))
    async with Rpc(tmp_path, config=config) as rpc:
        raw = await rpc.connect()
        lease = (await raw.ask(1, "pool/acquire", model="quick"))["result"]
        assert f"/models/{MODEL}:" in lease["url"]
        reply = await raw.ask(2, "pool/generate", model="quick", request=BODY)
        assert reply["result"]["candidates"]


async def test_waiting_for_an_account(tmp_path):
    """Nobody is free: the request waits, and is granted when somebody is; `wait_s` 0 is told at once who and when."""
    async with Rpc(tmp_path, "key-a") as rpc:
        raw = await rpc.connect()
        lease = (await raw.ask(1, "pool/acquire", model=MODEL))["result"]["lease"]
        rpc.broker.settle(
            lease, Outcome(Kind.RATE, Scope.ACCOUNT_MODEL, until=rpc.clock.now() + 30, told=True, rotate=True)
        )
        error = (await raw.ask(2, "pool/acquire", model=MODEL, wait_s=0))["error"]
        assert error["data"]["code"] == "all_cooling_down"
        assert error["data"]["account"] == "key-a"
        assert error["data"]["retry_at"] == pytest.approx(rpc.clock.now() + 30, abs=5)
        assert error["data"]["retryable"] is True
        raw.send(raw.request(3, "pool/acquire", model=MODEL, wait_s=60))
        await raw.ask(4, "daemon/info")
        status = (await raw.ask(4, "pool/status"))["result"]
        assert status["queue"]["waiting"] == 1
        rpc.pool.clear_cooldown()
        rpc.broker.changed()
        assert (await raw.reply(3))["result"]["account"] == "key-a"


async def test_cancelled_waiting_leaves_the_queue(tmp_path):
    """Who cancels while waiting is out of the queue, and gets -32800."""
    async with Rpc(tmp_path, "key-a") as rpc:
        raw = await rpc.connect()
        await raw.ask(1, "pool/pause", account="key-a")
        rpc.pool.members["key-a"].paused = False
        rpc.pool.members["key-a"].token_until = 0.0
        rpc.pool.members["key-a"].expected_at = rpc.clock.now() + 50
        raw.send(
            raw.request(2, "pool/acquire", model=MODEL, wait_s=100),
            {"method": "$/cancelRequest", "params": {"id": 2}},
        )
        assert (await raw.reply(2))["error"]["code"] == -32800
        assert rpc.broker.waiting == 0


async def test_a_model_without_a_url_takes_no_lease(tmp_path):
    """A name that could mean something inside a URL is refused, and nothing stays reserved for it."""
    async with Rpc(tmp_path, "key-a") as rpc:
        raw = await rpc.connect()
        for model in ("a/../b", "", "a//b"):
            error = (await raw.ask(1, "pool/acquire", model=model, detach=True))["error"]
            assert error["data"]["code"] == "unknown_model"
        assert len(rpc.pool.leases) == 0
        assert rpc.pool.members["key-a"].in_flight == 0


async def test_cancelled_while_a_token_is_fetched(tmp_path, monkeypatch):
    """The token ended between the choice and the answer: cancelling at once, or in the middle, loses no lease."""
    async with Rpc(tmp_path, "key-a") as rpc:
        raw = await rpc.connect()
        monkeypatch.setattr(rpc.tokens, "headers_nowait", lambda account_id: None)
        asked, never = asyncio.Event(), asyncio.Event()

        async def renew(account_id, *_):
            asked.set()
            await never.wait()

        monkeypatch.setattr(rpc.tokens, "renew", renew)
        cancel = {"method": "$/cancelRequest", "params": {"id": 1}}
        raw.send(raw.request(1, "pool/acquire", model=MODEL), cancel)
        assert (await raw.reply(1))["error"]["code"] == -32800
        assert len(rpc.pool.leases) == 0
        raw.send(raw.request(1, "pool/acquire", model=MODEL))
        await asked.wait()
        raw.send(cancel)
        assert (await raw.reply(1))["error"]["code"] == -32800
        assert len(rpc.pool.leases) == 0


# ---- report -------------------------------------------------------------------------------------------------------


async def test_report_of_an_answer(tmp_path):
    """A report ends the lease, once; its usage is counted, in Google's words or in ours; it is on the disk."""
    async with Rpc(tmp_path, "key-a") as rpc:
        raw = await rpc.connect()
        for n, usage in enumerate(
            (
                {
                    "promptTokenCount": 3,
                    "candidatesTokenCount": 4,
                    "thoughtsTokenCount": 2,
                    "totalTokenCount": 9,
                },
                {"input_tokens": 3, "output_tokens": 6, "total_tokens": 9},
            )
        ):
            lease = (await raw.ask(1, "pool/acquire", model=MODEL))["result"]["lease"]
            result = (
                await raw.ask(2, "pool/report", lease=lease, status=200, usage=usage, first_byte_s=0.2)
            )["result"]
            assert result == {"next": "done", "reason": "", "lease": None, "retry_at": None}
            counters = (await raw.ask(3, "pool/status"))["result"]["accounts"][0]["counters"]
            assert (counters["served"], counters["input_tokens"], counters["output_tokens"]) == (
                n + 1, 3 * (n + 1), 6 * (n + 1),
            )  # fmt: skip
            error = (await raw.ask(4, "pool/report", lease=lease, status=200))["error"]
            assert error["data"]["code"] == "not_found"
        with contextlib.closing(sqlite3.connect(f"file:{tmp_path}/state.db?mode=ro", uri=True)) as db:
            dump = "\n".join(db.iterdump())
        db.close()
        assert MODEL in dump


async def test_a_reported_refusal_that_quotes_the_key(tmp_path):
    """What Google says goes into the reply, `status` and events; the key that it quotes does not."""
    async with Rpc(tmp_path, "key-a") as rpc:
        raw = await rpc.connect()
        lease = (await raw.ask(1, "pool/acquire", model=MODEL))["result"]
        key = lease["headers"]["x-goog-api-key"]
        text = f"Consumer 'api_key:{key}' may not use this model"
        body = {"error": {"code": 403, "message": text, "status": "PERMISSION_DENIED"}}
        result = await raw.ask(2, "pool/report", lease=lease["lease"], status=403, body=body)
        status = await raw.ask(3, "pool/status")
        assert "api_key:***" in str(result)
        assert key not in f"{result} {status} {rpc.pool.take_rows()}"


@pytest.mark.parametrize(
    ("status", "next_"), [(200, "done"), (429, "retry"), (401, "retry"), (503, "retry"), (400, "give-up")]
)
async def test_a_report_on_a_removed_account(tmp_path, status, next_):
    """An account that left the pool meanwhile: what it refused may be tried with those that are left."""
    async with Rpc(tmp_path) as rpc:
        raw = await rpc.connect()
        lease = (await raw.ask(1, "pool/acquire", model=MODEL))["result"]
        rpc.configure(*[m.account for m in rpc.pool.members.values() if m.id != lease["account"]])
        result = (await raw.ask(2, "pool/report", lease=lease["lease"], status=status, body={}))["result"]
        assert result["next"] == next_
        assert (result["lease"] is not None) == (next_ == "retry")


@pytest.mark.parametrize("as_text", [True, False])
async def test_report_of_a_refusal_brings_the_next_lease(tmp_path, as_text):
    """A 429 is read by the daemon: its account rests as long as Google said, and the next lease comes with the reply."""
    async with Rpc(tmp_path) as rpc:
        raw = await rpc.connect()
        first = (await raw.ask(1, "pool/acquire", model=MODEL))["result"]
        body = msgspec.json.encode(MINUTE).decode() if as_text else MINUTE
        headers = {"Content-Type": "application/json"}
        result = (
            await raw.ask(2, "pool/report", lease=first["lease"], status=429, headers=headers, body=body)
        )["result"]
        assert result["next"] == "retry"
        assert result["lease"]["account"] != first["account"]
        assert result["lease"]["request"] == first["request"]
        assert "x-goog-api-key" in result["lease"]["headers"]
        status = (await raw.ask(3, "pool/status"))["result"]
        cooldown = next(a for a in status["accounts"] if a["id"] == first["account"])["cooldowns"][0]
        assert cooldown["told"] is True
        assert cooldown["until"] == pytest.approx(rpc.clock.now() + 60, abs=5)
        result = (await raw.ask(4, "pool/report", lease=result["lease"]["lease"], status=200))["result"]
        assert result["next"] == "done"
        totals = (await raw.ask(5, "pool/status"))["result"]["counters"]
        assert (totals["requests"], totals["answered"], totals["absorbed"]) == (1, 1, 1)


async def test_retry_later_and_giving_up(tmp_path):
    """When nobody is free the reply says when; when that is after the request's deadline, it says to give up."""
    async with Rpc(tmp_path, "key-a") as rpc:
        raw = await rpc.connect()
        lease = (await raw.ask(1, "pool/acquire", model=MODEL, wait_s=120))["result"]
        result = (await raw.ask(2, "pool/report", lease=lease["lease"], status=429, body=MINUTE))["result"]
        assert (result["next"], result["lease"]) == ("retry", None)
        assert result["retry_at"] == pytest.approx(rpc.clock.now() + 60, abs=5)
        raw.send(raw.request(3, "pool/acquire", model=MODEL, request=lease["request"], wait_s=9999))
        await raw.ask(4, "daemon/info")
        rpc.pool.clear_cooldown()
        rpc.broker.changed()
        again = (await raw.reply(3))["result"]
        assert again["request"] == lease["request"]
        assert rpc.pool.leases.get(again["lease"]).attempt == 2
        daily = msgspec.json.decode(msgspec.json.encode(MINUTE).replace(b"60s", b"3600s"))
        result = (await raw.ask(5, "pool/report", lease=again["lease"], status=429, body=daily))["result"]
        assert result["next"] == "give-up"
        assert result["retry_at"] > rpc.clock.now() + 3000
        assert "key-a" in result["reason"]


@pytest.mark.parametrize(
    ("report", "following", "kind"),
    [
        ({}, "done", None),
        ({"error": "cancelled"}, "done", None),
        (
            {"status": 400, "body": {"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": "bad"}}},
            "give-up",
            None,
        ),
        ({"status": 503, "body": "<html>"}, "retry", "transient"),
        ({"error": "ConnectTimeout: no answer"}, "retry", "transient"),
        ({"error": "broke off", "first_byte_s": 0.4}, "give-up", None),
        ({"error": "broke off", "status": 200}, "give-up", None),
    ],
)
async def test_what_reports_mean(tmp_path, report, following, kind):
    """Status and body, an error without them, an error after the first byte, or nothing at all."""
    async with Rpc(tmp_path) as rpc:
        raw = await rpc.connect()
        lease = (await raw.ask(1, "pool/acquire", model=MODEL))["result"]
        result = (await raw.ask(2, "pool/report", lease=lease["lease"], **report))["result"]
        assert result["next"] == following
        cooldowns = (await raw.ask(3, "pool/status"))["result"]["accounts"][0]["cooldowns"]
        assert [c["kind"] for c in cooldowns] == ([kind] if kind else [])


async def test_renew_and_release(tmp_path):
    """A renewed lease lives anew, a released one is gone; unknown ones are not found."""
    async with Rpc(tmp_path) as rpc:
        raw = await rpc.connect()
        lease = (await raw.ask(1, "pool/acquire", model=MODEL))["result"]["lease"]
        assert (await raw.ask(2, "pool/renew", lease=lease))["result"]["ttl_s"] == pytest.approx(600, abs=5)
        assert (await raw.ask(3, "pool/release", lease=lease))["result"] == {}
        for verb in ("pool/renew", "pool/release", "pool/report"):
            assert (await raw.ask(4, verb, lease=lease))["error"]["data"]["code"] == "not_found"


# ---- generate, token ----------------------------------------------------------------------------------------------


async def test_generate_rotates_unseen(tmp_path):
    """One account refuses: the client sees its answer only."""
    async with Rpc(tmp_path) as rpc:
        rpc.fake.faults.add(Fault.status(429, body=replies.rate_limited(retry="30s")))
        raw = await rpc.connect()
        assert (await raw.ask(1, "pool/generate", model=MODEL, request=BODY))["result"]["candidates"]
        totals = (await raw.ask(2, "pool/status"))["result"]["counters"]
        assert (totals["answered"], totals["absorbed"], totals["failed"]) == (1, 1, 0)


async def test_googles_refusal_of_the_request_itself(tmp_path):
    """A 400 is the client's: Google's words as the message, its body in the details."""
    async with Rpc(tmp_path) as rpc:
        raw = await rpc.connect()
        for method in ("generateContent", "streamGenerateContent"):
            error = (
                await raw.ask(
                    1, "pool/generate", model=MODEL, method=method, request={"contents": 3}, token=1
                )
            )["error"]
            assert error["data"]["code"] == "bad_request"
            assert error["data"]["details"]["status"] == 400
            assert error["data"]["details"]["body"]["error"]["message"] == error["message"]


async def test_a_cut_stream_is_an_error(tmp_path):
    """A stream that breaks after its first chunk ends as `stream_cut`, never as a result."""
    async with Rpc(tmp_path) as rpc:
        rpc.fake.faults.add(Fault.cut(after=1))
        raw = await rpc.connect()
        reply = await raw.ask(
            1, "pool/generate", model=MODEL, method="streamGenerateContent", request=BODY, token=1
        )
        assert reply["error"]["data"]["code"] == "stream_cut"
        assert raw.messages


async def test_count_tokens_and_embeddings(tmp_path):
    """The other two methods answer, too."""
    async with Rpc(tmp_path) as rpc:
        raw = await rpc.connect()
        reply = await raw.ask(1, "pool/generate", model=MODEL, method="countTokens", request=BODY)
        assert reply["result"]["totalTokens"] > 0
        embed = {"content": {"parts": [{"text": "hello"}]}}
        reply = await raw.ask(
            2, "pool/generate", model="gemini-embedding-001", method="embedContent", request=embed
        )
        assert "embedding" in reply["result"]


async def test_tokens(tmp_path):
    """A named account's token, or a chosen one's; a secret that is not lent stays."""
    accounts = [
        Account("kept", Backend.DEVELOPER_API, priority=9),
        Account("lent", Backend.DEVELOPER_API, lend=True, models=("gemini-3*",)),
        Account("other", Backend.DEVELOPER_API, lend=True, priority=-1),
    ]
    async with Rpc(tmp_path, *accounts) as rpc:
        raw = await rpc.connect()
        expected = {"account": "lent", "token": "fake-key-lent", "token_type": "api-key", "expires_at": None}
        assert (await raw.ask(1, "pool/token", account="lent"))["result"] == expected
        for how in ({}, {"model": MODEL}, {"backend": "developer-api"}):
            assert (await raw.ask(2, "pool/token", **how))["result"] == expected
        assert (await raw.ask(3, "pool/token", model="gemini-2.5-pro"))["result"]["account"] == "other"
        assert (await raw.ask(4, "pool/token", account="kept"))["error"]["data"]["code"] == "not_lent"
        assert (await raw.ask(5, "pool/token", account="nobody"))["error"]["data"]["code"] == "not_found"
        assert (await raw.ask(6, "pool/token", backend="vertex"))["error"]["data"]["code"] == "not_lent"
        scope = "https://www.googleapis.com/auth/cloud-platform"
        assert "result" in await raw.ask(7, "pool/token", account="lent", scopes=[scope])
        error = (await raw.ask(7, "pool/token", account="lent", scopes=[scope, "drive"]))["error"]
        assert error["data"]["code"] == "bad_request"
        await raw.ask(7, "pool/pause", account="lent")
        assert (await raw.ask(8, "pool/token"))["result"]["account"] == "other"
        status = (await raw.ask(9, "pool/status"))["result"]
        assert status["counters"]["requests"] == 0


@pytest.mark.parametrize(
    ("state", "code"),
    [(AccountState.BLOCKED_BY_TERMS, "blocked_by_terms"), (AccountState.LOGIN_REQUIRED, "login_required")],
)
async def test_a_token_of_a_held_account(tmp_path, state, code):
    """Who asks for it hears what keeps the account, with the remedy."""
    async with Rpc(tmp_path, Account("held", Backend.CODE_ASSIST, credential="oauth")) as rpc:
        raw = await rpc.connect()
        rpc.tokens.set_accounts({})
        rpc.pool.refuse("held", state, rpc.clock.now(), reason="because", hint="do this")
        error = (await raw.ask(1, "pool/token", account="held"))["error"]
        assert (error["data"]["code"], error["data"]["hint"]) == (code, "do this")
        assert "because" in error["message"]


# ---- looking and managing -----------------------------------------------------------------------------------------


async def test_status_account_list_and_explain(tmp_path):
    """Status holds every account with its parts; explain says who and why, without changing anything."""
    async with Rpc(tmp_path) as rpc:
        raw = await rpc.connect()
        lease = (await raw.ask(1, "pool/acquire", model=MODEL))["result"]
        status = (await raw.ask(2, "pool/status"))["result"]
        assert [a["id"] for a in status["accounts"]] == ["key-a", "key-b"]
        first = status["accounts"][0]
        assert (first["state"], first["available"], first["in_flight"], first["token"]["state"]) == (
            "ready", True, 1, "fresh",
        )  # fmt: skip
        assert status["leases"][0]["lease"] == lease["lease"]
        assert status["clients"][0]["leases"] == 1
        assert "fake-key" not in str(status)
        listed = (await raw.ask(3, "account/list"))["result"]["accounts"]
        assert [a["id"] for a in listed] == ["key-a", "key-b"]
        for _ in range(2):
            why = (await raw.ask(4, "pool/explain", model=MODEL))["result"]
            assert (why["chosen"], why["code"]) == ("key-b", None)
            assert [a["verdict"] for a in why["accounts"]] == ["chosen", "available"]
        then = (await raw.ask(5, "pool/explain", decision=lease["decision"]))["result"]
        assert then["chosen"] == "key-a"
        assert (await raw.ask(6, "pool/explain", decision="x"))["error"]["data"]["code"] == "not_found"
        assert (await raw.ask(7, "pool/explain"))["error"]["data"]["code"] == "bad_request"


async def test_quota_of_refused_accounts(tmp_path):
    """Where Google tells no quota, its daily refusal does: nothing is left until it ends."""
    async with Rpc(tmp_path) as rpc:
        raw = await rpc.connect()
        lease = (await raw.ask(1, "pool/acquire", model=MODEL))["result"]
        until = rpc.clock.now() + 5000
        rpc.broker.settle(
            lease["lease"], Outcome(Kind.DAILY, Scope.BUCKET_MODEL, until=until, told=True, rotate=True)
        )
        for refresh in (False, True):
            result = (await raw.ask(2, "pool/quota", refresh=refresh))["result"]
            entry = result["accounts"][0]
            assert (entry["account"], entry["model"], entry["fraction"], entry["source"]) == (
                "key-a", MODEL, 0.0, "refusal",
            )  # fmt: skip
            assert entry["resets_at"] == until


async def test_pause_and_resume(tmp_path):
    """Nothing new goes out while paused; an unknown account is told."""
    async with Rpc(tmp_path, config=QUIET) as rpc:
        raw = await rpc.connect()
        assert (await raw.ask(1, "pool/pause"))["result"] == {}
        assert (await raw.ask(2, "pool/acquire", model=MODEL))["error"]["data"]["code"] == "overloaded"
        assert (await raw.ask(3, "pool/token"))["error"]["data"]["code"] == "overloaded"
        assert (await raw.ask(4, "pool/resume"))["result"] == {}
        await raw.ask(5, "pool/pause", account="key-a")
        assert (await raw.ask(6, "pool/acquire", model=MODEL))["result"]["account"] == "key-b"
        assert (await raw.ask(7, "pool/pause", account="nobody"))["error"]["data"]["code"] == "not_found"


async def test_reload_and_info(tmp_path):
    """Both are the composition root's word."""
    async with Rpc(tmp_path) as rpc:
        raw = await rpc.connect()
        assert (await raw.ask(1, "daemon/reload"))["result"]["unchanged"] == 2
        assert rpc.reloads == 1
        assert (await raw.ask(2, "daemon/info"))["result"]["socket"] == str(rpc.path)


async def test_events(tmp_path):
    """A subscriber gets the kinds it asked for; asking again replaces what it asked before."""
    async with Rpc(tmp_path) as rpc:
        raw = await rpc.connect()
        assert (await raw.ask(1, "pool/subscribe", events=["account"]))["result"] == {}
        lease = (await raw.ask(2, "pool/acquire", model=MODEL))["result"]
        await raw.ask(3, "pool/report", lease=lease["lease"], status=429, body=MINUTE)
        await raw.ask(4, "pool/pause", account="key-b")
        assert [m["params"]["kind"] for m in raw.messages if m.get("method") == "pool/event"] == ["account"]
        event = next(m for m in raw.messages if m.get("method") == "pool/event")["params"]
        assert (event["account"], event["level"], event["dropped"]) == ("key-b", "info", 0)
        error = (await raw.ask(5, "pool/subscribe", events=["weather"]))["error"]
        assert error["code"] == -32602


async def test_who_does_not_come_back_is_counted_as_expired(tmp_path):
    """Told when to try again, a client that does not ends its request with the deadline; one that does is counted once."""
    async with Rpc(tmp_path, "key-a") as rpc:
        raw = await rpc.connect()

        async def told_later(number):
            lease = (await raw.ask(number, "pool/acquire", model=MODEL, wait_s=120))["result"]
            return (await raw.ask(number + 1, "pool/report", lease=lease["lease"], status=429, body=MINUTE))[
                "result"
            ], lease

        result, lease = await told_later(1)
        assert (result["next"], result["lease"], rpc.pool.journal.open) == ("retry", None, 1)
        (entry,) = rpc.services.requests._late.values()
        entry[0].cancel()
        rpc.services.requests._lapse(lease["request"])  # what its timer does at the deadline
        assert (rpc.pool.journal.open, rpc.pool.totals["expired"]) == (0, 1)
        rpc.pool.clear_cooldown()
        rpc.pool.roster.members["key-a"].book.clear()
        result, lease = await told_later(5)
        rpc.pool.clear_cooldown()
        rpc.pool.roster.members["key-a"].book.clear()
        again = (await raw.ask(8, "pool/acquire", model=MODEL, request=lease["request"]))["result"]
        await raw.ask(9, "pool/report", lease=again["lease"], status=200)
        status = (await raw.ask(10, "pool/status"))["result"]
        totals = status["counters"]
        assert (totals["requests"], totals["answered"], totals["expired"], status["in_flight"]) == (
            2,
            1,
            1,
            0,
        )


async def test_a_waiting_retry_that_is_cancelled_is_counted(tmp_path):
    """Its client cancels between two attempts: cancelled, once."""
    async with Rpc(tmp_path, "key-a") as rpc:
        raw = await rpc.connect()
        lease = (await raw.ask(1, "pool/acquire", model=MODEL, wait_s=120))["result"]
        await raw.ask(2, "pool/report", lease=lease["lease"], status=429, body=MINUTE)
        raw.send(raw.request(3, "pool/acquire", model=MODEL, request=lease["request"]))
        await raw.ask(4, "daemon/info")
        raw.send({"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": 3}})
        assert (await raw.reply(3))["error"]["code"] == -32800
        assert (rpc.pool.journal.open, rpc.pool.totals["cancelled"]) == (0, 1)
