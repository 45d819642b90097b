"""The token keeper in virtual time: ahead of time, one call for many, stale yes, expired never, dead ones left alone."""

from __future__ import annotations

import asyncio
import contextlib
from math import inf, isinf

import pytest
from tests.credentials.making import TokenEndpoint, context, entry, file, login_file, served, write_secret
from tests.fakes.clock import VirtualClock, run_virtual

from gemini_poold.core.model import AccountState
from gemini_poold.credentials import registry
from gemini_poold.credentials.base import CredentialError, Failure, Secret, Token
from gemini_poold.errors import PoolError
from gemini_poold.fake import Fault, Match, World
from gemini_poold.runtime import tokens as tokens_module
from gemini_poold.runtime.ticker import Ticker
from gemini_poold.runtime.tokens import Need, TokenKeeper

HOUR = 3600.0


class Scripted:
    """A credential whose every renewal does what `script` says: a latency, then a life or an error."""

    kind = "oauth"
    warning = ""

    def __init__(self, clock, name="a", *, life_s=HOUR, latency_s=1.0, client="", warm=None):
        self.clock, self.identity, self.life_s, self.latency_s = clock, name, life_s, latency_s
        self.client, self.warm, self.fingerprint = client, warm, "1"
        self.calls: list[float] = []
        self.error: Exception | None = None
        self.under_way = self.most_under_way = 0

    def warm_nowait(self):
        if isinstance(self.warm, CredentialError):
            raise self.warm
        return self.warm

    async def renew(self, now):
        self.calls.append(now)
        number = len(self.calls)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await asyncio.sleep(self.latency_s)
        finally:
            self.under_way -= 1
        if self.error is not None:
            raise self.error
        return Token(Secret(f"fake-{self.identity}-{number}"), now, now + self.life_s)

    def headers(self, token):
        return {"Authorization": token.value.reveal()}

    def fingerprint_nowait(self):
        return self.fingerprint


def failing(failure=Failure.TRANSIENT, **more):
    return CredentialError(failure, f"account a: {failure}", account="a", hint="do this", **more)


class House:
    """A running keeper in virtual time, and what it told."""

    def __init__(self, *, lead_s=600.0, jitter=0.0, **more):
        self.clock = VirtualClock()
        self.tokens: list[tuple[str, str]] = []
        self.failures: list[tuple[str, CredentialError, float]] = []
        self.keeper = TokenKeeper(
            self.clock,
            lead_s=lead_s,
            rng=lambda: jitter,
            on_token=lambda account, token: self.tokens.append((account, token.value.reveal())),
            on_failure=lambda *told: self.failures.append(told),
            **more,
        )
        self.ticker = Ticker(self.clock, self._jumped, interval_s=15.0)

    def _jumped(self, kind, seconds):
        self.keeper.replan(self.clock.now(), stepped_s=seconds if kind == "step" else 0.0)

    async def __aenter__(self):
        self.tasks = [asyncio.create_task(self.keeper.run()), asyncio.create_task(self.ticker.run())]
        return self

    async def __aexit__(self, *_):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def credential(self, name="a", **more):
        return Scripted(self.clock, name, **more)

    def headers(self, account="a"):
        found = self.keeper.headers_nowait(account)
        return found and found["Authorization"]

    @property
    def told(self):
        return [(account, error.failure) for account, error, _ in self.failures]


def virtual(test):
    """Runs an async test in virtual time."""

    def run():
        run_virtual(test())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@virtual
async def test_warm_before_anybody_asks():
    """A new account is renewed at once, in the background, and told."""
    async with House() as house:
        house.keeper.set_accounts({"a": house.credential()})
        assert house.headers() is None
        await asyncio.sleep(1.5)
        assert house.headers() == "fake-a-1"
        assert house.tokens == [("a", "fake-a-1")]
        assert house.keeper.counters.waited_for_token == 0


@pytest.mark.parametrize(
    ("life_s", "lead_s", "jitter", "renewed_at"),
    [
        (3600, 600, 0.0, 3000),
        (3600, 600, 1.0, 2820),
        (20, 600, 0.0, 10),
        (20, 600, 1.0, 9),
        (3600, 60, 0.0, 3540),
    ],
)
def test_renewed_when_due(life_s, lead_s, jitter, renewed_at):
    """The second call comes exactly when the schedule says."""

    async def main():
        async with House(lead_s=lead_s, jitter=jitter) as house:
            credential = house.credential(life_s=life_s, latency_s=0.0)
            house.keeper.set_accounts({"a": credential})
            await asyncio.sleep(life_s)
            assert credential.calls[1] - credential.calls[0] == pytest.approx(renewed_at, abs=0.01)
            assert house.keeper.counters.ahead >= 1

    run_virtual(main())


@virtual
async def test_fifty_callers_make_one_call():
    """Whoever needs the token joins the renewal that is under way, and all get the same one."""
    async with House() as house:
        credential = house.credential()
        house.keeper.set_accounts({"a": credential})
        tokens = await asyncio.gather(*(house.keeper.renew("a") for _ in range(50)))
        assert len(credential.calls) == 1
        assert len({token.value for token in tokens}) == 1
        assert house.keeper.counters.waited_for_token == 50


@virtual
async def test_a_caller_that_gives_up_stops_nobody():
    """Cancelling one (or all) of the waiting does not cancel the renewal."""
    async with House() as house:
        credential = house.credential(latency_s=5.0)
        house.keeper.set_accounts({"a": credential})
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await house.keeper.renew("a")
        await asyncio.sleep(5.0)
        assert house.headers() == "fake-a-1"
        assert len(credential.calls) == 1


@virtual
async def test_a_renewal_works_without_the_driver():
    """The request path does not depend on `run`."""
    house = House()
    house.keeper.set_accounts({"a": house.credential()})
    assert (await house.keeper.renew("a")).value.reveal() == "fake-a-1"


@virtual
async def test_accounts_of_one_login_share_its_token():
    """One renewal for both; both are told."""
    async with House() as house:
        one, two = house.credential(), house.credential()
        house.keeper.set_accounts({"x": one, "y": two})
        await asyncio.sleep(2)
        assert house.headers("x") == house.headers("y") == "fake-a-1"
        assert len(one.calls) + len(two.calls) == 1
        assert house.tokens == [("x", "fake-a-1"), ("y", "fake-a-1")]


@virtual
async def test_stale_is_served_and_expired_is_not():
    """While renewals fail, the old token serves to its last second and not one more."""
    async with House() as house:
        credential = house.credential(latency_s=0.0)
        house.keeper.set_accounts({"a": credential})
        await asyncio.sleep(1)
        credential.error = failing()
        born = credential.calls[0]
        await asyncio.sleep(born + HOUR - house.clock.now() - 0.01)
        assert house.headers() == "fake-a-1"
        assert house.keeper.info("a").state == "stale"
        await asyncio.sleep(0.02)
        assert house.headers() is None
        assert house.keeper.token_nowait("a", house.clock.now()) is None
        assert house.keeper.info("a").state == "expired"
        with pytest.raises(CredentialError) as caught:
            await house.keeper.renew("a")
        assert caught.value.retry_at > house.clock.now()


@virtual
async def test_failures_back_off_and_a_success_forgets_them():
    """An endpoint that is down for an hour is asked ever more rarely, at most a minute apart, and found back."""
    async with House(jitter=1.0) as house:
        credential = house.credential(latency_s=0.0)
        credential.error = failing()
        house.keeper.set_accounts({"a": credential})
        await asyncio.sleep(HOUR)
        gaps = [after - before for before, after in zip(credential.calls, credential.calls[1:], strict=False)]
        assert gaps[:6] == pytest.approx([2, 4, 8, 16, 32, 60])
        assert max(gaps) <= 60.01
        assert {failure for _, failure in house.told} == {Failure.TRANSIENT}
        assert house.keeper.info("a").last_error
        credential.error = None
        await asyncio.sleep(61)
        assert house.headers()
        assert house.keeper.info("a").last_error == ""


@virtual
async def test_a_told_pause_is_obeyed():
    """Retry-After of the token endpoint, to the second."""
    async with House() as house:
        credential = house.credential(latency_s=0.0)
        credential.error = failing(retry_after_s=40.0)
        house.keeper.set_accounts({"a": credential})
        await asyncio.sleep(39.9)
        assert len(credential.calls) == 1
        await asyncio.sleep(0.2)
        assert len(credential.calls) == 2


@pytest.mark.parametrize("failure", [failure for failure in Failure if failure.held])
def test_what_is_dead_is_left_alone(failure):
    """No call for a week, neither by itself nor by requests; a person's word tries once more."""

    async def main():
        async with House() as house:
            credential = house.credential(latency_s=0.0)
            credential.error = failing(failure)
            house.keeper.set_accounts({"a": credential})
            await asyncio.sleep(7 * 86400)
            for _ in range(10):
                with pytest.raises(CredentialError) as caught:
                    await house.keeper.renew("a")
                assert caught.value.failure is failure
            assert len(credential.calls) == 1
            assert house.told == [("a", failure)]
            assert isinf(house.failures[0][2])
            credential.error = None
            assert (await house.keeper.retry("a")).value.reveal() == "fake-a-2"
            assert house.headers() == "fake-a-2"

    run_virtual(main())


@pytest.mark.parametrize("failure", [Failure.SECRET, Failure.CONFIG])
def test_what_a_person_mends_elsewhere_is_looked_at_rarely(failure):
    """A missing secret or a missing role: tried again by itself, at most every five minutes."""

    async def main():
        async with House(jitter=1.0) as house:
            credential = house.credential(latency_s=0.0)
            credential.error = failing(failure)
            house.keeper.set_accounts({"a": credential})
            await asyncio.sleep(4 * HOUR)
            assert 45 < len(credential.calls) < 70
            credential.error = None
            await asyncio.sleep(301)
            assert house.headers()

    run_virtual(main())


@pytest.mark.parametrize("failure", [Failure.LOGIN, Failure.SECRET])
def test_a_replaced_secret_is_noticed(failure):
    """Somebody logged in again or put the file there: within half a minute it is tried, without being told."""

    async def main():
        async with House(jitter=1.0) as house:
            credential = house.credential(latency_s=0.0)
            credential.error = failing(failure)
            house.keeper.set_accounts({"a": credential})
            await asyncio.sleep(4 * HOUR)
            before = len(credential.calls)
            credential.error, credential.fingerprint = None, "2"
            await asyncio.sleep(31)
            assert len(credential.calls) == before + 1
            assert house.headers()

    run_virtual(main())


@virtual
async def test_a_refused_client_holds_all_of_its_logins_once():
    """The first refusal tells every account of the client; nobody else asks with it again."""
    async with House() as house:
        shared = [house.credential(name, client="x", latency_s=0.5) for name in ("a", "b", "c")]
        other = house.credential("d", client="y", latency_s=0.0)
        house.keeper.set_accounts({each.identity: each for each in (*shared, other)})
        await asyncio.sleep(1)
        for each in shared:
            each.error = failing(Failure.CLIENT)
        with pytest.raises(CredentialError):
            await house.keeper.renew("b", Need.REFUSED)
        await asyncio.sleep(4 * HOUR)
        assert sum(len(each.calls) for each in shared) == 4  # three first tokens, one refusal
        assert sorted(house.told) == [(name, Failure.CLIENT) for name in ("a", "b", "c")]
        assert house.headers("d")


@virtual
async def test_logins_of_a_refused_client_that_were_under_way_are_told_once():
    """Three refusals in one moment are one message for each account."""
    async with House() as house:
        shared = [house.credential(name, client="x") for name in ("a", "b", "c")]
        for each in shared:
            each.error = failing(Failure.CLIENT)
        house.keeper.set_accounts({each.identity: each for each in shared})
        await asyncio.sleep(HOUR)
        assert [len(each.calls) for each in shared] == [1, 1, 1]
        assert sorted(house.told) == [(name, Failure.CLIENT) for name in ("a", "b", "c")]


@virtual
async def test_a_401_renews_once_for_all():
    """The refused token is out at once; everybody with the same refusal shares one call; a late one gets the new
    token without any."""
    async with House() as house:
        credential = house.credential()
        house.keeper.set_accounts({"a": credential})
        await asyncio.sleep(2)
        generation = house.keeper.generation("a")
        refused = [
            asyncio.create_task(house.keeper.renew("a", Need.REFUSED, generation=generation))
            for _ in range(20)
        ]
        await asyncio.sleep(0.5)
        assert house.headers() is None
        tokens = {token.value.reveal() for token in await asyncio.gather(*refused)}
        assert tokens == {"fake-a-2"}
        late = await house.keeper.renew("a", Need.REFUSED, generation=generation)
        assert late.value.reveal() == "fake-a-2"
        assert len(credential.calls) == 2


@virtual
async def test_a_401_of_a_brand_new_token_does_not_loop():
    """What Google refuses although it is new is not cured by a third one: the caller gets it back and fails."""
    async with House() as house:
        credential = house.credential(latency_s=0.0)
        house.keeper.set_accounts({"a": credential})
        await asyncio.sleep(1)
        for _ in range(50):
            await house.keeper.renew("a", Need.REFUSED, generation=house.keeper.generation("a"))
        assert len(credential.calls) == 2
        await asyncio.sleep(tokens_module.FORCED_GAP_S)
        await house.keeper.renew("a", Need.REFUSED)
        assert len(credential.calls) == 3


@virtual
async def test_a_failed_forced_renewal_does_not_bring_the_refused_token_back():
    """Refused is refused, whatever the clock says."""
    async with House() as house:
        credential = house.credential(latency_s=0.0)
        house.keeper.set_accounts({"a": credential})
        await asyncio.sleep(1)
        credential.error = failing(Failure.LOGIN)
        with pytest.raises(CredentialError):
            await house.keeper.renew("a", Need.REFUSED)
        assert house.headers() is None
        assert house.keeper.info("a").state == "expired"


@virtual
async def test_a_token_that_is_too_short():
    """Valid, but not for long enough: asked for in vain nowait, renewed on request."""
    async with House() as house:
        credential = house.credential(latency_s=0.0)
        house.keeper.set_accounts({"a": credential})
        await asyncio.sleep(100)
        now = house.clock.now()
        assert house.keeper.token_nowait("a", now, min_validity_s=3400) is not None
        assert house.keeper.token_nowait("a", now, min_validity_s=3550) is None
        assert (await house.keeper.renew("a", Need.MISSING)).value.reveal() == "fake-a-1"
        assert (await house.keeper.renew("a", Need.SHORT)).value.reveal() == "fake-a-2"


@virtual
async def test_a_suspend_of_two_hours():
    """After the lid opens, everything due is renewed before the first request a few seconds later."""
    async with House() as house:
        credentials = {name: house.credential(name) for name in "abcdefghijklmnop"}
        house.keeper.set_accounts(credentials)
        await asyncio.sleep(600)
        house.clock.suspend(2 * HOUR)
        assert house.headers() is None  # expired meanwhile, and known to be
        await asyncio.sleep(30)
        assert all(house.headers(name) for name in credentials)
        assert {len(credential.calls) for credential in credentials.values()} == {2}
        assert house.keeper.counters.waited_for_token == 0


@virtual
async def test_a_suspend_ends_the_waiting_for_a_failure():
    """Offline for hours, then awake: tried at once, not when the back-off says."""
    async with House(jitter=1.0) as house:
        credential = house.credential(latency_s=0.0)
        credential.error = failing()
        house.keeper.set_accounts({"a": credential})
        await asyncio.sleep(HOUR)
        credential.error = None
        before = len(credential.calls)
        house.clock.suspend(HOUR)
        await asyncio.sleep(15.1)
        assert len(credential.calls) > before
        assert house.headers()


@pytest.mark.parametrize("step_s", [-86_400.0, -1800.0, 1800.0, 86_400.0])
def test_a_stepped_clock(step_s):
    """The wall clock jumps by an hour or a day, either way: no storm, no expired token served, always a valid one
    soon after."""

    async def main():
        async with House() as house:
            credential = house.credential(latency_s=0.1)
            house.keeper.set_accounts({"a": credential})
            await asyncio.sleep(1900)
            really_ends = house.clock.monotonic() + HOUR - 1900 + 0.1
            house.clock.step(step_s)
            await asyncio.sleep(31)
            assert house.headers()
            assert len(credential.calls) <= 2
            await asyncio.sleep(3 * HOUR)
            assert house.headers()
            assert len(credential.calls) <= 6
            assert house.clock.monotonic() > really_ends

    run_virtual(main())


@virtual
async def test_a_clock_set_back_does_not_prolong_a_token():
    """The renewal comes when the token's real age asks for it."""
    async with House() as house:
        credential = house.credential(latency_s=0.0)
        house.keeper.set_accounts({"a": credential})
        await asyncio.sleep(1500)
        house.clock.step(-1200)
        await asyncio.sleep(1499)
        assert len(credential.calls) == 1
        await asyncio.sleep(3)
        assert len(credential.calls) == 2


@virtual
async def test_parallel_renewals_are_bounded_and_waiting_requests_are_not():
    """A thousand logins start at once, eight at a time; who waits goes past the queue."""
    async with House(max_parallel=8) as house:
        gate = {"now": 0, "most": 0}

        class Counted(Scripted):
            async def renew(self, now):
                gate["now"] += 1
                gate["most"] = max(gate["most"], gate["now"])
                try:
                    return await super().renew(now)
                finally:
                    gate["now"] -= 1

        credentials = {f"l{n}": Counted(house.clock, f"l{n}") for n in range(1000)}
        house.keeper.set_accounts(credentials)
        await asyncio.sleep(0.5)
        assert gate["most"] == 8
        await house.keeper.renew("l999")
        assert house.headers("l999")
        assert gate["most"] == 9
        await asyncio.sleep(130)
        assert all(house.headers(name) for name in credentials)
        assert {len(each.calls) for each in credentials.values()} == {1}


@virtual
async def test_a_herd_is_spread():
    """Tokens of one second are renewed over 5 % of their life, by the injected jitter."""
    import random

    house = House()
    house.keeper = TokenKeeper(house.clock, lead_s=600.0, rng=random.Random(7).random)
    async with house:
        credentials = {f"l{n}": house.credential(f"l{n}", latency_s=0.0) for n in range(200)}
        house.keeper.set_accounts(credentials)
        await asyncio.sleep(3100)
        seconds = [int(each.calls[1]) for each in credentials.values()]
        assert max(seconds.count(second) for second in set(seconds)) <= 10
        assert max(seconds) - min(seconds) > 150


# ---- accounts come, change and go ---------------------------------------------------------------------------------


@virtual
async def test_a_key_is_ready_at_once():
    """No call, no driver, no end."""
    house = House()
    key = house.credential(warm=Token(Secret("fake-key"), 0.0, inf))
    house.keeper.set_accounts({"a": key})
    assert house.headers() == "fake-key"
    assert house.tokens == [("a", "fake-key")]
    assert key.calls == []
    info = house.keeper.info("a")
    assert (info.state, info.expires_at, info.renew_at) == ("fresh", None, None)


@virtual
async def test_a_missing_key_is_told_at_once():
    """And found when it appears."""
    async with House() as house:
        key = house.credential(warm=failing(Failure.SECRET), latency_s=0.0)
        key.error = failing(Failure.SECRET)
        house.keeper.set_accounts({"a": key})
        assert house.told == [("a", Failure.SECRET)]
        assert house.keeper.error_of("a").state is AccountState.SECRET_MISSING
        key.error, key.fingerprint = None, "2"
        await asyncio.sleep(31)
        assert house.headers()


@virtual
async def test_a_reload_keeps_warm_tokens():
    """The same credential, or a new object for the same login: no new call, nobody waits."""
    async with House() as house:
        first = house.credential()
        house.keeper.set_accounts({"a": first})
        await asyncio.sleep(2)
        house.keeper.set_accounts({"a": first})
        assert house.tokens == [("a", "fake-a-1")]
        second = house.credential()
        house.keeper.set_accounts({"a": second, "b": second})
        assert house.headers("a") == house.headers("b") == "fake-a-1"
        assert house.tokens[1:] == [("a", "fake-a-1"), ("b", "fake-a-1")]
        await asyncio.sleep(10)
        assert second.calls == []
        await asyncio.sleep(HOUR)
        assert len(second.calls) >= 1


@virtual
async def test_an_edited_account_is_tried_again():
    """A new credential object wakes what had failed for good; the old object does not."""
    async with House() as house:
        dead = house.credential(latency_s=0.0)
        dead.error = failing(Failure.LOGIN)
        house.keeper.set_accounts({"a": dead})
        await asyncio.sleep(1)
        house.keeper.set_accounts({"a": dead})
        await asyncio.sleep(1)
        assert len(dead.calls) == 1
        house.keeper.set_accounts({"a": house.credential(latency_s=0.0)})
        await asyncio.sleep(1)
        assert house.headers()


@virtual
async def test_a_replaced_key_is_read_again_at_a_reload():
    """Keys never fall due, so a reload looks at their place."""
    house = House()
    house.keeper.set_accounts({"a": house.credential(warm=Token(Secret("fake-old"), 0.0, inf))})
    house.keeper.set_accounts({"a": house.credential(warm=Token(Secret("fake-new"), 0.0, inf))})
    assert house.headers() == "fake-new"


@virtual
async def test_a_removed_account_is_forgotten_and_its_renewal_finished():
    """Its headers are gone, nobody is told of it any more, and what Google answers is still received."""
    async with House() as house:
        credential = house.credential(latency_s=5.0)
        house.keeper.set_accounts({"a": credential})
        await asyncio.sleep(1)
        house.keeper.set_accounts({})
        assert house.headers() is None
        assert house.keeper.info("a").state == "none"
        with pytest.raises(PoolError) as caught:
            await house.keeper.renew("a")
        assert caught.value.code == "not_found"
        await asyncio.sleep(86400)
        assert (credential.calls, credential.under_way) == ([credential.calls[0]], 0)


# ---- edges --------------------------------------------------------------------------------------------------------


@virtual
async def test_a_hung_credential_frees_its_place():
    """However long it hangs, it is ended and tried again."""
    async with House() as house:
        credential = house.credential(latency_s=1e9)
        house.keeper.set_accounts({"a": credential})
        await asyncio.sleep(tokens_module.RENEWAL_LIMIT_S + 5)
        assert house.told[0] == ("a", Failure.TRANSIENT)
        credential.latency_s = 0.0
        await asyncio.sleep(300)
        assert house.headers()


@virtual
async def test_a_broken_credential_does_not_break_the_driver():
    """A bug in one kind is that login's failure, told without its text; the others go on."""
    async with House() as house:
        broken, fine = house.credential("a", latency_s=0.0), house.credential("b", latency_s=0.0)
        broken.error = RuntimeError("fake-secret-text")
        house.keeper.set_accounts({"a": broken, "b": fine})
        await asyncio.sleep(5)
        assert house.headers("b")
        assert house.told[0] == ("a", Failure.TRANSIENT)
        assert "fake-secret-text" not in house.keeper.info("a").last_error


@virtual
async def test_stopping_waits_for_an_answer_under_way():
    """A rotated refresh token may come with it; a call that takes too long is ended, and waiters are told."""
    house = House()
    quick, slow = house.credential("a", latency_s=3.0), house.credential("b", latency_s=1e6)
    async with house:
        house.keeper.set_accounts({"a": quick, "b": slow})
        await asyncio.sleep(1)
        waiter = asyncio.create_task(house.keeper.renew("b"))
        await asyncio.sleep(0.1)
    assert house.headers("a") == "fake-a-1"
    assert slow.under_way == 0
    with pytest.raises(PoolError) as caught:
        await waiter
    assert caught.value.code == "shutting_down"


@virtual
async def test_errors_do_not_grow():
    """The same error raised a thousand times keeps no frames alive."""
    async with House() as house:
        credential = house.credential(latency_s=0.0)
        credential.error = failing(Failure.LOGIN)
        house.keeper.set_accounts({"a": credential})
        await asyncio.sleep(1)
        for _ in range(1000):
            with contextlib.suppress(CredentialError):
                await house.keeper.renew("a")
        depth, frame = 0, house.keeper.error_of("a").__traceback__
        while frame is not None:
            depth, frame = depth + 1, frame.tb_next
        assert depth < 10


def test_short_lives_do_not_spin():
    """Tokens that are dead on arrival are asked for twice a second at most."""

    async def main():
        async with House() as house:
            credential = house.credential(life_s=0.1, latency_s=0.0)
            house.keeper.set_accounts({"a": credential})
            await asyncio.sleep(60)
            assert len(credential.calls) <= 121

    run_virtual(main())


def test_a_real_login_through_the_keeper(tmp_path):
    """The production credential: rotation, restart, and the one call for many, in virtual time."""
    write_secret(tmp_path / "secrets" / "a.json", login_file())

    async def main():
        async with House() as house:
            google = TokenEndpoint(latency_s=lambda: 1.0)
            google.answer = google.rotating
            credential = registry.build(
                entry("oauth", file("a.json"), name="a"), context(tmp_path, google, clock=house.clock)
            )
            house.keeper.set_accounts({"a": credential})
            await asyncio.gather(*(house.keeper.renew("a") for _ in range(50)))
            assert len(google.calls) == 1
            await asyncio.sleep(86_400)
            assert 28 <= len(google.calls) <= 30
            assert house.keeper.counters.failures == 0

    run_virtual(main())


async def test_over_http_with_the_fake_google(tmp_path):
    """Real transport, real endpoint, an expired token's 401 and a dead login, as the daemon does it."""
    from gemini_poold.clock import SystemClock

    world = World()
    alice, client = world.add_user("alice"), world.add_client()
    write_secret(tmp_path / "secrets" / "a.json", world.authorized_user(alice, client, rotates=True))
    async with served(tmp_path, world) as (fake, ctx):
        failures = []
        keeper = TokenKeeper(
            SystemClock(), lead_s=600.0, rng=lambda: 0.5, on_failure=lambda *told: failures.append(told)
        )
        driver = asyncio.create_task(keeper.run())
        keeper.set_accounts({"a": registry.build(entry("oauth", file("a.json"), name="a"), ctx)})
        await asyncio.gather(*(keeper.renew("a") for _ in range(20)))
        assert fake.record.count("token") == 1
        fake.faults.add(Fault.status(503, body="<html>"), when=Match(kind="token"), times=1)
        with pytest.raises(CredentialError):
            await keeper.renew("a", Need.REFUSED)
        assert [told[1].failure for told in failures] == [Failure.TRANSIENT]
        world.revoke("alice")
        with pytest.raises(CredentialError) as caught:
            await keeper.retry("a")
        assert caught.value.failure is Failure.LOGIN
        driver.cancel()
        await asyncio.gather(driver, return_exceptions=True)


@virtual
async def test_an_outage_is_probed_by_one_at_a_time():
    """Two hundred logins, expired, and nobody answers: at most one call a second over all of them; the first that
    comes through lets everybody try at once."""
    async with House(jitter=0.5) as house:
        credentials = {f"a{n}": house.credential(f"a{n}", latency_s=0.2) for n in range(200)}
        for credential in credentials.values():
            credential.error = failing()
        house.keeper.set_accounts(credentials)
        await asyncio.sleep(600)
        calls = [at for credential in credentials.values() for at in credential.calls]
        first_minute = sum(at < house.clock.now() - 540 for at in calls)
        assert len(calls) - first_minute <= 540 / 1.0
        assert len(calls) - first_minute >= 540 / 2.0
        began = house.clock.now()
        for credential in credentials.values():
            credential.error = None
        await asyncio.sleep(5)
        assert all(house.headers(name) for name in credentials)
        last = max(credential.calls[-1] for credential in credentials.values())
        assert last - began <= 4
