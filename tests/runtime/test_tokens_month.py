"""A month of a laptop with 200 accounts: the production lifecycle, keeper, credentials, clocks and network watch in
virtual time. The machine sleeps for a minute or for days, its clock is set both ways, its network goes, Google's token
endpoint is ill now and then. The figures are printed (`pytest -s`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import random
import socket
import tempfile
import time
from collections import Counter
from email.utils import formatdate
from pathlib import Path

import pytest
from tests.credentials.making import TokenEndpoint, login_file, write_secret
from tests.fakes.clock import VirtualClock, run_virtual
from tests.runtime.rig import Rows

from gemini_poold.accounts.schema import parse
from gemini_poold.clock import SteadyClock
from gemini_poold.config import Endpoints
from gemini_poold.core.state import Pool
from gemini_poold.credentials.base import Context
from gemini_poold.errors import UpstreamFailure
from gemini_poold.fake import World
from gemini_poold.fake.signing import peek
from gemini_poold.runtime import network
from gemini_poold.runtime.broker import Broker
from gemini_poold.runtime.lifecycle import Lifecycle
from gemini_poold.runtime.setup import Setup
from gemini_poold.runtime.ticker import Ticker
from gemini_poold.transport import Fetched

SEED = 20261124
DAY_S, HOUR_S, MINUTE_S = 86_400.0, 3600.0, 60.0
MONTH_S = 30 * DAY_S
LIFE_S, LEAD_S = 3599.0, 600.0
PEOPLE, ROTATING, ROBOTS, KEYS = 150, 15, 30, 20
LOGINS = PEOPLE + ROBOTS
GRACE_S = 5.0
EVERY_S = 4.0  # a request, on average


class Google(TokenEndpoint):
    """A strict token endpoint on true time, behind a network that may be away."""

    def __init__(self, rng: random.Random, clock: VirtualClock) -> None:
        super().__init__()
        self.rng, self.clock = rng, clock
        self.online, self.ill = True, False
        self.sleeps = 0
        self.alive: dict[str, str] = {}
        self.ends: dict[str, float] = {}  # of access tokens, by true time
        self.count = self.dead = self.ill_calls = 0
        self.per_second: Counter[int] = Counter()

    async def fetch(self, method, url, *, headers, body=None, timeout_s=30.0, proxy=""):
        sleeps = self.sleeps
        if not self.online:
            await asyncio.sleep(0.01)
            raise UpstreamFailure("no such name", kind="dns", sent=False)
        self.per_second[int(self.clock.monotonic())] += 1
        self.count += 1
        await asyncio.sleep(self.rng.uniform(0.05, 0.6))
        if sleeps != self.sleeps or not self.online:
            raise UpstreamFailure("the connection broke", kind="reset", sent=True)
        if self.ill:
            self.ill_calls += 1
            if self.rng.random() < 0.5:
                raise UpstreamFailure("reset", kind="reset", sent=True)
            return self._reply(503, b"<html>Error 503</html>")
        from urllib.parse import parse_qsl

        return self._reply(*self._respond(dict(parse_qsl(body.decode()))))

    def _reply(self, status, answer):
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        return Fetched(status, {"Date": formatdate(self.true_time(), usegmt=True)}, data)

    def true_time(self) -> float:
        return 1_795_000_000.0 + self.clock.boottime()

    def _respond(self, form):
        if "assertion" in form:
            claims = peek(form["assertion"])
            if not claims["iat"] - 300 <= self.true_time() <= claims["exp"] + 300:
                text = "Invalid JWT: Token must be a short-lived token and in a reasonable timeframe"
                return 400, {"error": "invalid_grant", "error_description": text}
            return 200, self._token()
        owner = self.alive.get(form["refresh_token"])
        if owner is None:
            self.dead += 1
            return 400, {"error": "invalid_grant", "error_description": "Token has been expired or revoked."}
        answer = self._token()
        if owner.startswith("rotating"):
            del self.alive[form["refresh_token"]]
            answer["refresh_token"] = f"fake-refresh-{owner}-{self.count}"
            self.alive[answer["refresh_token"]] = owner
        return 200, answer

    def _token(self):
        text = f"fake-access-{self.count}"
        self.ends[text] = self.true_time() + LIFE_S
        return {"access_token": text, "expires_in": LIFE_S, "token_type": "Bearer"}


def accounts(folder: Path, google: Google) -> str:
    """150 people (15 of them with rotating logins), 30 robots, 20 keys."""
    entries = []

    def entry(name, kind, secret, backend="vertex"):
        project = 'project = "p"\n' if backend == "vertex" else ""
        credential = f'credential = {{ type = "{kind}", secret = {{ {secret} }} }}'
        entries.append(f'[[account]]\nid = "{name}"\nbackend = "{backend}"\n{credential}\n{project}')

    for n in range(PEOPLE):
        name = f"rotating{n}" if n < ROTATING else f"person{n}"
        google.alive[f"fake-refresh-{name}"] = name
        write_secret(folder / f"{name}.json", login_file(f"fake-refresh-{name}"))
        entry(name, "oauth", f'file = "{name}.json"')
    robot = World().add_service_account("robot", project="p")
    for n in range(ROBOTS):
        write_secret(folder / f"robot{n}.json", robot | {"client_email": f"robot{n}@p.example"})
        entry(f"robot{n}", "service-account", f'file = "robot{n}.json"')
    for n in range(KEYS):
        write_secret(folder / f"key{n}", f"fake-key-{n}")
        entry(f"key{n}", "api-key", f'file = "key{n}"', "developer-api")
    return "\n".join(entries)


class Laptop:
    """The machine: its daemon's parts, its life, and what its requests met."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.rng = rng
        self.real = VirtualClock()
        self.clock = SteadyClock(self.real)
        self.google = Google(rng, self.real)
        self.broker = Broker(Pool(rng=rng.random), self.clock, Rows())
        context = Context(self.google, Endpoints(), self.clock, folder, {}, LEAD_S)
        setup = Setup(self.google, Endpoints(), self.clock)
        self.lifecycle = Lifecycle(self.broker, setup, context, clock=self.clock, rng=rng.random)
        self.tokens = self.lifecycle.tokens
        self.lifecycle.apply(parse(accounts(folder, self.google), "accounts.toml"))
        self.ticker = Ticker(self.clock, self._jumped)
        self.kernel, self._netlink = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._netlink.setblocking(False)
        self.awake_s = self.offline_s = self.longest_sleep_s = 0.0
        self.happened: Counter[str] = Counter()
        self.excused_until = {"start": GRACE_S, "resume": 0.0, "offline": 0.0, "long outage": 0.0}
        self.rush_until = GRACE_S  # when everybody renews at once, by necessity
        self.requests: Counter[str] = Counter()
        self.waited: Counter[str] = Counter()
        self.dead_tokens = 0

    # ---- as app.py does it ---------------------------------------------------------------------------------------

    def _jumped(self, kind: str, seconds: float) -> None:
        self.happened[f"{kind} noticed"] += 1
        self.tokens.replan(self.clock.now(), stepped_s=seconds if kind == "step" else 0.0)
        self.lifecycle.replan()
        self.broker.expire()

    def _network_changed(self) -> None:
        self.tokens.replan(self.clock.now())
        self.lifecycle.replan()

    def parts(self):
        return (
            self.tokens.run(), self.lifecycle.run(), self.ticker.run(),
            network.watch(self._network_changed, self.clock, source=self._netlink),
        )  # fmt: skip

    # ---- life ----------------------------------------------------------------------------------------------------

    async def month(self) -> None:
        """Awake and asleep in turn; while awake, the troubles of a day come when they come."""
        while self.real.boottime() < MONTH_S:
            for _ in range(self.rng.randint(1, 5)):
                await self._awake(self.rng.uniform(10 * MINUTE_S, 2 * HOUR_S))
                await self._sleep(self.rng.uniform(MINUTE_S, 90 * MINUTE_S))
            night = (
                self.rng.uniform(7, 14) * HOUR_S
                if self.rng.random() < 0.8
                else self.rng.uniform(1, 3) * DAY_S
            )
            await self._sleep(night)

    async def _awake(self, seconds: float) -> None:
        self.awake_s += seconds
        ends_at = self.real.monotonic() + seconds
        while (left := ends_at - self.real.monotonic()) > 0:
            pause = self.rng.expovariate(1 / (3 * HOUR_S))
            if pause >= left:
                await asyncio.sleep(left)
                break
            await asyncio.sleep(pause)
            trouble = self.rng.choice(
                (self._offline, self._offline, self._step, self._outage, self._long_outage)
            )
            await trouble(max(1.0, ends_at - self.real.monotonic()))

    async def _sleep(self, seconds: float) -> None:
        """A suspend, and the Wi-Fi that is back a moment after it."""
        self.happened["resumes"] += 1
        self.longest_sleep_s = max(self.longest_sleep_s, seconds)
        self.google.sleeps += 1
        self.google.online = False
        self.real.suspend(seconds)
        self._excuse("resume")
        await asyncio.sleep(self.rng.uniform(0.1, 1.0))
        self._back()

    async def _offline(self, at_most: float) -> None:
        seconds = min(at_most, self.rng.uniform(MINUTE_S, 3 * HOUR_S))
        self.happened["offline"] += 1
        self.offline_s += seconds
        self.google.online = False
        self.kernel.send(b"down")
        self.excused_until["offline"] = math.inf
        await asyncio.sleep(seconds)
        self._back()
        self._excuse("offline")

    def _back(self) -> None:
        self.google.online = True
        self.kernel.send(b"up")

    async def _step(self, _at_most: float) -> None:
        """Somebody sets the clock, wrong by up to a day; NTP sets it right some time later."""
        seconds = self.rng.choice((1, -1)) * 10 ** self.rng.uniform(0.5, 4.9)
        self.happened["clock steps"] += 2
        self.real.step(seconds)
        asyncio.get_running_loop().call_later(self.rng.uniform(1, 2 * HOUR_S), self.real.step, -seconds)

    async def _outage(self, _at_most: float) -> None:
        """Shorter than `lead_s`: nobody may notice."""
        self.happened["outages"] += 1
        self.google.ill = True
        await asyncio.sleep(self.rng.uniform(10, 8 * MINUTE_S))
        self.google.ill = False
        self.rush_until = self.real.monotonic() + GRACE_S

    async def _long_outage(self, _at_most: float) -> None:
        """Longer: tokens run out, and no daemon can help it."""
        self.happened["long outages"] += 1
        self.google.ill = True
        await asyncio.sleep(LEAD_S - MINUTE_S)
        self.excused_until["long outage"] = math.inf
        await asyncio.sleep(self.rng.uniform(10 * MINUTE_S, HOUR_S))
        self.google.ill = False
        self._excuse("long outage")

    def _excuse(self, why: str) -> None:
        self.excused_until[why] = self.rush_until = self.real.monotonic() + GRACE_S

    # ---- requests ------------------------------------------------------------------------------------------------

    async def work(self) -> None:
        """A request now and then, each with an account of its own choice."""
        names = list(self.broker.pool.members)
        tasks: set[asyncio.Task] = set()
        while True:
            await asyncio.sleep(self.rng.expovariate(1 / EVERY_S))
            account, now = self.rng.choice(names), self.real.monotonic()
            why = next((why for why, until in self.excused_until.items() if now < until), "")
            self.requests[why] += 1
            headers = self.tokens.headers_nowait(account)
            if headers is None or not self.broker.pool.members[account].may_serve(self.clock.now()):
                self.waited[why] += 1
                task = asyncio.create_task(self._wait(account))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            elif "Authorization" in headers:
                text = headers["Authorization"].removeprefix("Bearer ")
                self.dead_tokens += self.google.ends[text] <= self.google.true_time()

    async def _wait(self, account: str) -> None:
        with contextlib.suppress(Exception):
            await self.tokens.renew(account)

    def herd(self) -> dict[str, int]:
        """Most token calls in any second: at all, and where nothing made everybody renew at once."""
        calls = self.google.per_second
        return {"at all": max(calls.values()), "ordinarily": max(self.ordinary.values(), default=0)}

    async def watch_herd(self) -> None:
        """Remembers the seconds in which nothing had just ended that everybody had waited for."""
        self.ordinary: Counter[int] = Counter()
        while True:
            await asyncio.sleep(1.0)
            second = int(self.real.monotonic()) - 1
            trouble = (
                self.google.ill or not self.google.online or self.real.monotonic() - 1 < self.rush_until + 10
            )
            if not trouble and (count := self.google.per_second.get(second)):
                self.ordinary[second] = count


@pytest.fixture
def memory(tmp_path):
    """A folder whose fsync costs nothing, where the system has one: there are tens of thousands of them."""
    shm = Path("/dev/shm")
    if not shm.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=shm) as name:
        yield Path(name)


async def live(folder: Path) -> Laptop:
    laptop = Laptop(folder, random.Random(SEED))
    tasks = [asyncio.create_task(part) for part in (*laptop.parts(), laptop.work(), laptop.watch_herd())]
    await laptop.month()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    laptop.kernel.close()
    return laptop


def test_a_month_of_a_laptop(memory):
    """No request waits for a token outside of offline hours and the 5 s after a resume, no dead token leaves, no login
    is lost, and Google is asked hardly more often than the schedule needs."""
    memory.chmod(0o700)
    began = time.perf_counter()
    laptop = run_virtual(live(memory))
    google, resumes = laptop.google, laptop.happened["resumes"]
    allowed = LOGINS * (1.10 * laptop.awake_s / (LIFE_S - LEAD_S) + resumes)
    schedule = LOGINS * laptop.awake_s / (LIFE_S - LEAD_S)
    seen = {
        "awake_h": round(laptop.awake_s / HOUR_S, 1),
        "longest_sleep_h": round(laptop.longest_sleep_s / HOUR_S, 1),
        "offline_h": round(laptop.offline_s / HOUR_S, 1),
        **laptop.happened,
        "requests": sum(laptop.requests.values()),
        "waited": laptop.waited[""],
        "waited_excused": {why: count for why, count in laptop.waited.items() if why},
        "dead_tokens": laptop.dead_tokens,
        "token_calls": google.count,
        "of_these_in_outages": google.ill_calls,
        "allowed": round(allowed),
        "calls_to_schedule": round(google.count / schedule, 3),
        "max_renewals_in_a_second": laptop.herd(),
        "real_s": round(time.perf_counter() - began, 1),
    }
    print("\n" + json.dumps(seen, indent=1))
    assert seen["waited"] == 0
    assert seen["dead_tokens"] == 0
    assert google.dead == 0
    assert google.count <= allowed
    assert seen["requests"] > 100_000
    assert laptop.herd()["at all"] <= 24 / 0.05
    assert laptop.herd()["ordinarily"] <= 24
    # Everybody still has the refresh token that lives.
    for token, owner in google.alive.items():
        assert json.loads((memory / f"{owner}.json").read_bytes())["refresh_token"] == token
