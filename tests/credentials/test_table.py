"""Every kind of credential in every situation: what the production code did, over real HTTP against the fake Google.

Hours pass in virtual time (client and server share one loop, whose clock jumps when nothing is ready). `pytest -s`
prints the table.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import google.auth.aws
import google.auth.identity_pool
import google.auth.pluggable
import pytest
from tests.credentials.making import read_secret, write_secret
from tests.fakes import clock as clock_module
from tests.fakes.clock import VirtualClock, run_virtual
from tests.runtime.rig import Rows

from gemini_poold.accounts.schema import parse
from gemini_poold.config import Endpoints, Network
from gemini_poold.core.state import Pool
from gemini_poold.credentials.base import Context
from gemini_poold.fake import FakeGoogle, Fault, Match, World
from gemini_poold.fake.signing import JwtRefused, KeyPair, peek, verify
from gemini_poold.runtime.broker import Broker
from gemini_poold.runtime.lifecycle import Lifecycle
from gemini_poold.runtime.setup import Setup
from gemini_poold.runtime.ticker import Ticker
from gemini_poold.transport import AiohttpTransport

assert (
    google.auth.aws and google.auth.identity_pool and google.auth.pluggable
)  # loaded now, not in virtual time

HOUR = 3600.0
LEAD_S = 600.0
TOKEN_CALLS = ("token", "sts", "impersonate")
STS = "https://sts.googleapis.com/v1/token"
HOLD = {"login_required", "account_dead", "client_invalid"}


# ---- kinds ----------------------------------------------------------------------------------------------------------


class Kind:
    """How an account of this kind is written, and how it is harmed. `calls`: token calls for one token."""

    def __init__(
        self, name: str, make: Callable[[Scene], str], *, calls: int = 1, rotates: bool = False
    ) -> None:
        self.name, self.make, self.calls, self.rotates = name, make, calls, rotates

    def __repr__(self) -> str:
        return self.name


def account(kind: str, secret: str, *, backend: str = "vertex", more: str = "", **keys: str) -> str:
    extra = "".join(f", {key} = {value}" for key, value in keys.items())
    lines = [f'id = "a"\nbackend = "{backend}"', f'credential = {{ type = "{kind}"{secret}{extra} }}', more]
    return "[[account]]\n" + "\n".join(lines) + ('\nproject = "p"' if backend == "vertex" else "") + "\n"


FILE = ', secret = { file = "secret.json" }'


def oauth(scene: Scene) -> str:
    scene.write(scene.login())
    return account("oauth", FILE)


def oauth_variable(scene: Scene) -> str:
    scene.environ["LOGIN"] = json.dumps(scene.login())
    return account("oauth", ', secret = { env = "LOGIN" }')


def adc(scene: Scene) -> str:
    scene.environ["GOOGLE_APPLICATION_CREDENTIALS"] = str(scene.write(scene.login()))
    return account("adc", "")


def workforce(scene: Scene) -> str:
    scene.write(
        scene.login()
        | {"type": "external_account_authorized_user", "token_url": "https://sts.googleapis.com/token"}
    )
    return account("external", FILE)


def key(scene: Scene) -> str:
    scene.world.add_api_key("a", project="p")
    scene.write("fake-key-a")
    return account("api-key", FILE, backend="developer-api")


def express(scene: Scene) -> str:
    scene.world.add_api_key("a", project="p")
    scene.write("fake-key-a")
    return account("api-key", FILE)


def robot(scene: Scene) -> str:
    scene.write(scene.world.add_service_account("a", project="p"))
    return account("service-account", FILE)


def signing(scene: Scene) -> str:
    scene.endpoints = {k: v for k, v in scene.endpoints.items() if k != "oauth_token"}
    scene.write(scene.world.add_service_account("a", project="p"))
    return account("service-account", FILE, self_signed="true")


def external(scene: Scene, source: dict[str, Any], subject: str = "jwt") -> str:
    pool = scene.world.add_pool("a", projects=["p"])
    kind = "aws:token-type:aws4_request" if subject == "aws" else "oauth:token-type:jwt"
    scene.write(
        {
            "type": "external_account",
            "audience": pool.audience,
            "subject_token_type": f"urn:ietf:params:{kind}",
            "token_url": STS,
            "credential_source": source,
        }
    )
    return account("external", FILE)


def external_file(scene: Scene) -> str:
    return external(scene, {"file": str(write_secret(scene.folder / "subject", "fake-subject"))})


def external_url(scene: Scene) -> str:
    """The subject token from a URL: any server will do, so Google's own tokeninfo page is it."""
    scene.world.add_user("subject", projects=["p"])
    token = scene.world.issue(scene.world.users["subject"], life_s=1e6).token
    where = {"url": f"{scene.google.url}/tokeninfo?access_token={token}"}
    return external(scene, where | {"format": {"type": "json", "subject_token_field_name": "sub"}})


def external_executable(scene: Scene) -> str:
    answer = {
        "version": 1,
        "success": True,
        "token_type": "urn:ietf:params:oauth:token-type:jwt",
        "id_token": "fake-subject",
        "expiration_time": 9_999_999_999,
    }
    script = write_secret(scene.folder / "subject.py", f"print({json.dumps(answer)!r})")
    return external(
        scene, {"executable": {"command": f"{sys.executable} -S -E {script}", "timeout_millis": 20_000}}
    )


def external_aws(scene: Scene) -> str:
    url = "https://sts.{region}.amazonaws.example?Action=GetCallerIdentity&Version=2011-06-15"
    return external(scene, {"environment_id": "aws1", "regional_cred_verification_url": url}, "aws")


def impersonated(scene: Scene) -> str:
    user = scene.login()
    made = scene.world.add_service_account("target", project="p", impersonators=frozenset({"a"}))
    scene.write(user)
    return account("impersonated", FILE, target=f'"{made["client_email"]}"')


KINDS = [
    Kind("oauth", oauth, rotates=True),
    Kind("oauth, from a variable", oauth_variable, rotates=True),
    Kind("adc: a login", adc, rotates=True),
    Kind("external: workforce", workforce, rotates=True),
    Kind("impersonated by a login", impersonated, calls=2, rotates=True),
    Kind("service-account", robot),
    Kind("external: file", external_file),
    Kind("external: URL", external_url),
    Kind("external: executable", external_executable),
    Kind("external: AWS", external_aws),
    Kind("service-account, self-signed", signing, calls=0),
    Kind("api-key", key, calls=0),
    Kind("api-key, Vertex express", express, calls=0),
]


# ---- a scene: one account of one kind -------------------------------------------------------------------------------


class Counting:
    """The production transport; while a call is under way the loop gives it real time before it jumps on."""

    def __init__(self, inner: AiohttpTransport) -> None:
        self.inner = inner

    async def fetch(self, *args: Any, **more: Any) -> Any:
        loop: Any = asyncio.get_running_loop()
        loop.jobs += 1
        try:
            return await self.inner.fetch(*args, **more)
        finally:
            loop.jobs -= 1


class Scene:
    def __init__(self, folder: Path, google: FakeGoogle, clock: VirtualClock, *, rotates: bool) -> None:
        self.folder, self.google, self.world, self.clock = folder, google, google.world, clock
        self.endpoints = google.endpoints()
        self.environ = {"HOME": str(folder)}
        self.rotates = rotates
        self.without_s = 0.0  # so long no valid token could be handed out
        self.unserved_s = 0.0  # so long the pool would not have chosen the account
        self.dead_served = 0  # looks at which a token was handed out that Google would refuse for its age

    def login(self) -> dict[str, Any]:
        user = self.world.add_user("a", projects=["p"])
        return self.world.authorized_user(user, self.world.add_client(), rotates=self.rotates)

    def write(self, content: Any) -> Path:
        return write_secret(self.folder / "secret.json", content)

    def begin(self, text: str, transport: Any) -> None:
        pool = Pool(rng=random.Random(1).random)
        self.broker = Broker(pool, self.clock, Rows())
        context = Context(
            transport, Endpoints(**self.endpoints), self.clock, self.folder, self.environ, LEAD_S
        )
        setup = Setup(transport, context.endpoints, self.clock)
        self.lifecycle = Lifecycle(self.broker, setup, context, clock=self.clock, rng=random.Random(2).random)
        self.lifecycle.apply(parse(text, "accounts.toml"))

    @property
    def calls(self) -> int:
        return sum(self.google.record.count(kind) for kind in TOKEN_CALLS)

    @property
    def state(self) -> str:
        return str(self.broker.pool.members["a"].shown_state)

    @property
    def info(self) -> Any:
        return self.lifecycle.tokens.info("a")

    def look(self) -> bool:
        """Whether a token can be handed out now; one that is no longer good is counted."""
        headers = self.lifecycle.tokens.headers_nowait("a")
        if headers is None:
            return False
        self.dead_served += not self._good(headers)
        return True

    def _good(self, headers: dict[str, str]) -> bool:
        if "x-goog-api-key" in headers:
            return headers["x-goog-api-key"] in self.world.keys
        text = headers["Authorization"].removeprefix("Bearer ")
        if text in self.world.tokens:
            return self.world.tokens[text].expires_at > self.clock.now()
        try:
            owner = self.world.service_accounts[peek(text)["iss"]]
            verify(text, owner.key.public, self.clock.now())
        except (JwtRefused, KeyError):
            return False
        return True

    async def pass_time(self, seconds: float, *, step_s: float = 5.0) -> None:
        """Live on, with a request every `step_s`."""
        ends_at = self.clock.monotonic() + seconds
        while self.clock.monotonic() < ends_at:
            await asyncio.sleep(min(step_s, ends_at - self.clock.monotonic()))
            if not self.look():
                self.without_s += step_s
            if not self.broker.pool.members["a"].may_serve(self.clock.now()):
                self.unserved_s += step_s

    async def until(self, holds: Callable[[], bool], *, limit_s: float = 300.0) -> float:
        began = self.clock.monotonic()
        while not holds():
            assert self.clock.monotonic() - began < limit_s, (self.state, self.info)
            await asyncio.sleep(0.25)
        return self.clock.monotonic() - began

    @contextlib.contextmanager
    def trouble(self, fault: Fault):
        rule = self.google.faults.add(fault, when=Match(kind=TOKEN_CALLS), times=None)
        yield
        self.google.faults.remove(rule)


@contextlib.asynccontextmanager
async def scene_of(kind: Kind, folder: Path, *, rotates: bool = False) -> AsyncIterator[Scene]:
    clock = VirtualClock()
    async with FakeGoogle(World(clock)) as google:
        transport = AiohttpTransport(Network(), environ={})
        scene = Scene(folder, google, clock, rotates=rotates)
        scene.begin(kind.make(scene), Counting(transport))
        tokens = scene.lifecycle.tokens
        ticker = Ticker(clock, lambda *_: tokens.replan(clock.now()))
        tasks = [asyncio.create_task(work) for work in (tokens.run(), scene.lifecycle.run(), ticker.run())]
        try:
            yield scene
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await transport.aclose()
        assert scene.dead_served == 0, "a token left that was dead by its age"


# ---- situations: each returns what its cell says ---------------------------------------------------------------------


async def first_token(scene: Scene, kind: Kind) -> str:
    """The first token, without anybody asking for it."""
    took = await scene.until(scene.look)
    assert (scene.state, scene.calls) == ("ready", kind.calls)
    assert took <= 1.0
    return f"{scene.calls} calls" if scene.calls != 1 else "1 call"


async def renewal(scene: Scene, kind: Kind) -> str:
    """Six hours: renewed ahead of its end each time, at most 5 % of a life earlier than `lead_s` before it."""
    await scene.until(scene.look)
    await scene.pass_time(6 * HOUR)
    counters = scene.lifecycle.tokens.counters
    assert scene.without_s == scene.unserved_s == 0
    assert (counters.waited_for_token, counters.failures) == (0, 0)
    if kind.calls == 0 and kind.name != "service-account, self-signed":
        assert counters.renewals == 0
        return "never due"
    # A life of an hour less 600 s, and up to 180 s of jitter.
    assert 1 + 6 * HOUR / 3000 >= counters.renewals >= 6 * HOUR / (HOUR - LEAD_S) - 1
    assert counters.ahead == counters.renewals - 1
    return f"{counters.renewals} tokens in 6 h"


async def rotated(scene: Scene, kind: Kind) -> str:
    """Each renewal ends the refresh token it was made with: the new one is where it belongs."""
    if not kind.rotates:
        return "-"
    await scene.until(scene.look)
    await scene.pass_time(6 * HOUR)
    assert scene.without_s == 0
    alive = [grant.token for grant in scene.world.grants.values() if not grant.trouble]
    if "variable" in kind.name:
        assert "cannot be written" in scene.info.last_error
        return f"{len(scene.world.grants) - 1}x in memory, told"
    assert [read_secret(scene.folder / "secret.json")["refresh_token"]] == alive
    return f"{len(scene.world.grants) - 1}x kept"


async def revoked(scene: Scene, kind: Kind) -> str:
    """The login (key, subject token) is no longer good; access tokens that are out still are."""
    if kind.calls == 0:
        return "told by the API"
    await scene.until(scene.look)
    await scene.pass_time(10 * 60)
    scene.world.revoke("a", tokens=False)
    for each in scene.world.service_accounts.values():
        each.state = "deleted" if each.name == "a" else each.state
    for pool in scene.world.pools.values():
        pool.subject_tokens = frozenset()
    return await _refused(scene, kind)


async def wrong_client(scene: Scene, kind: Kind) -> str:
    """The OAuth client (the key, the audience) is not the one that Google knows any more."""
    if kind.calls == 0:
        return "-"
    await scene.until(scene.look)
    await scene.pass_time(10 * 60)
    for client in scene.world.clients.values():
        client.secret = "another"
    for each in scene.world.service_accounts.values():
        each.key = KeyPair()
    scene.world.pools.clear()
    return await _refused(scene, kind)


async def _refused(scene: Scene, kind: Kind) -> str:
    """What six hours of a refusal look like: served while the token lives, then held; never hammered."""
    before = scene.calls
    await scene.pass_time(6 * HOUR)
    calls, state = scene.calls - before, scene.state
    # The token lived on for its hour, and no longer; an impersonating login's own token may have bought one more.
    assert (4 if "impersonated" in kind.name else 5) * HOUR <= scene.without_s <= 5.3 * HOUR
    assert state in HOLD | {"project_misconfigured"}
    if state in HOLD:
        assert calls <= kind.calls
    else:  # what is mended in Google's console is looked at again: at most every 5 minutes on average
        assert calls <= 6 * HOUR / 120
    member = scene.broker.pool.members["a"]
    assert member.hint
    return f"{state}, {calls} call{'s' * (calls != 1)} in 6 h"


async def down_for_an_hour(scene: Scene, kind: Kind) -> str:
    """Connections are reset for an hour that begins when the token is due."""
    await scene.until(scene.look)
    await scene.pass_time(HOUR - LEAD_S - 4 * 60)
    before = scene.calls
    with scene.trouble(Fault.reset_connection()):
        await scene.pass_time(HOUR)
    tries = scene.calls - before
    back = await scene.until(scene.look, limit_s=65)
    if kind.calls == 0:
        assert (tries, scene.without_s) == (0, 0)
        return "not noticed"
    assert scene.state == "ready"
    # Served for the quarter of an hour that the old token had left; then tried at least every minute, never in a rush.
    assert scene.without_s <= HOUR - 12 * 60
    assert HOUR / 60 / 2 <= tries <= 2 * HOUR / 20
    return f"{tries} tries, back in {back:.0f} s"


async def garbage(scene: Scene, kind: Kind) -> str:
    """A captive portal answers 200 with a page for ten minutes, from when the token is due."""
    await scene.until(scene.look)
    await scene.pass_time(HOUR - LEAD_S - 4 * 60)
    with scene.trouble(Fault.status(200, body="<html>Welcome to the hotel</html>")):
        await scene.pass_time(10 * 60)
        error = scene.info.last_error
    await scene.pass_time(HOUR)
    assert (scene.without_s, scene.unserved_s, scene.state) == (0, 0, "ready")
    if kind.calls == 0:
        return "not noticed"
    assert scene.lifecycle.tokens.counters.failures > 0
    assert error
    return f"nobody waited, {scene.lifecycle.tokens.counters.failures} tries"


async def slow(scene: Scene, kind: Kind) -> str:
    """Every answer takes 15 s for two hours, then 25 s (too long) for ten minutes."""
    await scene.until(scene.look)
    with scene.trouble(Fault.delay(15)):
        await scene.pass_time(2 * HOUR)
    with scene.trouble(Fault.delay(25)):
        await scene.pass_time(10 * 60)
    await scene.pass_time(HOUR)
    assert (scene.without_s, scene.unserved_s, scene.state) == (0, 0, "ready")
    assert scene.lifecycle.tokens.counters.waited_for_token == 0
    return "not noticed" if kind.calls == 0 else "nobody waited"


SITUATIONS = {
    "first token": first_token,
    "renewal": renewal,
    "rotated refresh token": rotated,
    "revoked": revoked,
    "wrong client": wrong_client,
    "down for 1 h": down_for_an_hour,
    "garbage": garbage,
    "slow": slow,
}
TABLE: dict[str, dict[str, str]] = {}


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    """What the AWS and executable sources read from the real environment; no long patience with threads."""
    monkeypatch.setenv("GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES", "1")
    monkeypatch.setenv("AWS_REGION", "eu-example-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "fake-aws-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "fake-aws-secret")
    monkeypatch.setattr(clock_module, "THREAD_PATIENCE_S", 0.02)


@pytest.fixture(scope="module", autouse=True)
def table():
    """Prints what was seen, at the end."""
    yield
    widths = [
        28,
        *(max(len(name), *(len(row.get(name, "")) for row in TABLE.values())) for name in SITUATIONS),
    ]
    print("\n" + " | ".join(word.ljust(width) for word, width in zip(["", *SITUATIONS], widths, strict=True)))
    for name, row in TABLE.items():
        cells = [name, *(row.get(situation, "") for situation in SITUATIONS)]
        print(" | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)))


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("kind", KINDS, ids=repr)
def test_what_the_daemon_did(tmp_path, kind, situation):
    """One cell of the table."""
    tmp_path.chmod(0o700)

    async def main() -> str:
        async with scene_of(kind, tmp_path, rotates=situation == "rotated refresh token") as scene:
            return await SITUATIONS[situation](scene, kind)

    TABLE.setdefault(kind.name, {})[situation] = run_virtual(main())
