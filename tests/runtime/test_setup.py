"""Set-up of Code Assist accounts against the fake Google: licensed, new, refused in every way, and passing faults."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager

import pytest
from tests.fakes.clock import ManualClock

from gemini_poold.config import Endpoints, Network
from gemini_poold.core.model import Account, AccountState, Backend, DiscoveryRow, Kind, Outcome
from gemini_poold.errors import PoolError
from gemini_poold.fake import (
    CodeAssist,
    FakeGoogle,
    Fault,
    Match,
    World,
    ineligible,
    must_validate,
    refusals,
    shut_down,
)
from gemini_poold.runtime.setup import MAX_POLLS, Setup
from gemini_poold.transport import AiohttpTransport

NOW = 1000.0


class Case:
    """One person at the fake Google, and the set-up of an account of theirs."""

    def __init__(self, fake, setup, user, clock):
        self.fake, self.setup, self.user, self.clock = fake, setup, user, clock
        token = fake.world.issue(user)
        self.headers = {"Authorization": f"Bearer {token.token}"}

    async def run(self, project=""):
        return await self.setup.run(Account("work", Backend.CODE_ASSIST, project=project), self.headers)

    def bodies(self, kind):
        return [json.loads(call.body) for call in self.fake.record.find(kind)]


@asynccontextmanager
async def case(assist=None, projects=("p",)):
    world, clock = World(), ManualClock(NOW)
    user = world.add_user("alice", projects=projects, code_assist=assist)
    async with FakeGoogle(world) as fake:
        transport = AiohttpTransport(Network(), environ={})
        try:
            yield Case(fake, Setup(transport, Endpoints(**fake.endpoints()), clock), user, clock)
        finally:
            await transport.aclose()


async def test_a_licensed_account():
    """Tier, project, e-mail and identity; no onboarding."""
    async with case() as it:
        found = await it.run("p")
        assert found == DiscoveryRow("work", "p", "standard-tier", "alice@example.com", it.user.subject, NOW)
        assert it.fake.record.count("onboard") == 0


async def test_we_name_ourselves():
    """No plugin or IDE of somebody else's, our own name, and the project where one is known."""
    async with case() as it:
        await it.run("p")
        await it.run()
        with_project, without = it.bodies("load")
        assert with_project["cloudaicompanionProject"] == with_project["metadata"]["duetProject"] == "p"
        assert "cloudaicompanionProject" not in without
        assert without["metadata"]["ideName"] == "gemini-pool"
        assert without["metadata"]["ideType"] == "IDE_UNSPECIFIED"
        assert without["metadata"]["pluginType"] == "PLUGIN_UNSPECIFIED"


@pytest.mark.parametrize(
    ("server", "as_object", "configured", "sent"),
    [("theirs", False, "", "theirs"), ("theirs", True, "mine", "theirs"), ("", False, "mine", "mine")],
)
async def test_which_project_is_sent(server, as_object, configured, sent):
    """The server's word wins over the configured one, which stands in where there is none."""
    async with case(CodeAssist(project=server, project_as_object=as_object), projects=("mine",)) as it:
        assert (await it.run(configured)).project == sent


async def test_the_paid_tier_is_the_tier():
    """As Google's own client shows it."""
    async with case(CodeAssist(project="p", paid_tier="g1-pro-tier")) as it:
        assert (await it.run()).tier == "g1-pro-tier"


@pytest.mark.parametrize(
    ("tier", "configured", "sent"), [("standard-tier", "p", "p"), ("free-tier", "", None)]
)
async def test_onboarding(tier, configured, sent):
    """Who was never here is onboarded and polled every 5 s; the free tier's request names no project."""
    assist = CodeAssist(tier="", default_tier=tier, project="" if configured else "managed", onboarding=3)
    async with case(assist) as it:
        found = await it.run(configured)
        assert (found.tier, found.project) == (tier, configured or "managed")
        assert it.bodies("onboard")[0]["tierId"] == tier
        assert it.bodies("onboard")[0].get("cloudaicompanionProject") == sent
        assert it.fake.record.count("operation") == 3
        assert it.clock.now() == NOW + 3 * 5.0


async def test_onboarding_that_is_done_at_once():
    """No poll is needed."""
    async with case(CodeAssist(tier="", onboarding=0)) as it:
        assert (await it.run("p")).project == "p"
        assert it.fake.record.count("operation") == 0


async def test_onboarding_without_end_is_given_up_for_now():
    """Bounded polls, then a passing failure: it is tried again later, from the start."""
    async with case(CodeAssist(tier="", onboarding=10_000)) as it:
        with pytest.raises(PoolError, match="did not end"):
            await it.run("p")
        assert it.fake.record.count("operation") == MAX_POLLS


async def test_a_failed_operation():
    """Its message reaches the user, and it is not repeated blindly."""
    async with case(CodeAssist(tier="", operation_error="composed: the project is closed")) as it:
        outcome = await it.run("p")
        assert outcome.state is AccountState.MISCONFIGURED
        assert "the project is closed" in outcome.reason


REFUSED = [
    ("shut down for individuals", shut_down(), AccountState.UNSUPPORTED_CLIENT),
    ("must validate", must_validate(), AccountState.NEEDS_VALIDATION),
    ("workspace", CodeAssist(tier="", ineligible=[ineligible("DASHER_USER")]), AccountState.UNLICENSED),
    ("age", CodeAssist(tier="", ineligible=[ineligible("RESTRICTED_AGE")]), AccountState.UNLICENSED),
    (
        "place",
        CodeAssist(tier="", ineligible=[ineligible("UNSUPPORTED_LOCATION")]),
        AccountState.MISCONFIGURED,
    ),
    ("unheard of", CodeAssist(tier="", ineligible=[ineligible("A_NEW_REASON")]), AccountState.UNLICENSED),
    ("licence", CodeAssist(load_refusal=refusals.subscription_required()), AccountState.UNLICENSED),
    (
        "validation by 403",
        CodeAssist(load_refusal=refusals.validation_required()),
        AccountState.NEEDS_VALIDATION,
    ),
    ("suspended", CodeAssist(load_refusal=refusals.tos_violation()), AccountState.SUSPENDED),
    ("API off", CodeAssist(load_refusal=refusals.service_disabled()), AccountState.MISCONFIGURED),
    (
        "wrong project",
        CodeAssist(load_refusal=refusals.consumer_invalid("nobody")),
        AccountState.MISCONFIGURED,
    ),
    (
        "denied project",
        CodeAssist(load_refusal=refusals.user_project_denied("nobody")),
        AccountState.MISCONFIGURED,
    ),
    ("plain 403", CodeAssist(load_refusal=refusals.permission_denied()), AccountState.MISCONFIGURED),
]


@pytest.mark.parametrize(("name", "assist", "state"), REFUSED, ids=[row[0] for row in REFUSED])
async def test_refusals(name, assist, state):
    """Each of Google's refusals is a state of its own, with words for the user."""
    async with case(assist) as it:
        outcome = await it.run("p")
        assert isinstance(outcome, Outcome)
        assert (outcome.kind, outcome.state) == (Kind.ACCOUNT, state)
        assert outcome.reason


async def test_the_page_to_open():
    """A validation's and an appeal's page are handed to the user."""
    for assist in (must_validate(), CodeAssist(load_refusal=refusals.validation_required())):
        async with case(assist) as it:
            assert (await it.run("p")).url.startswith("https://accounts.google.com/")
    async with case(CodeAssist(load_refusal=refusals.tos_violation("https://forms.example/appeal"))) as it:
        assert (await it.run("p")).url == "https://forms.example/appeal"


async def test_a_tier_that_is_allowed_outweighs_one_that_is_not():
    """Refused for the free tier, allowed for the standard one: with a project it goes on, without it is told why."""
    answer = {
        "allowedTiers": [{"id": "standard-tier", "isDefault": True}],
        "ineligibleTiers": [ineligible("UNSUPPORTED_CLIENT")],
    }
    async with case(CodeAssist(tier="")) as it:
        it.fake.faults.add(Fault.status(200, body=answer), when=Match(kind="load"), times=None)
        assert (await it.run("p")).tier == "standard-tier"
        assert (await it.run()).state is AccountState.UNSUPPORTED_CLIENT


async def test_a_perimeter_does_not_end_it():
    """VPC-SC forbids the set-up call: on as standard tier, with the configured project."""
    async with case(CodeAssist(load_refusal=refusals.security_policy())) as it:
        found = await it.run("p")
        assert (found.tier, found.project) == ("standard-tier", "p")
        assert (await it.run()).state is AccountState.MISCONFIGURED


async def test_a_project_is_needed():
    """Neither Google nor the user names one: said before any onboarding."""
    async with case(CodeAssist(tier="")) as it:
        outcome = await it.run()
        assert outcome.state is AccountState.MISCONFIGURED
        assert outcome.hint == "set `project` in accounts.toml"
        assert it.fake.record.count("onboard") == 0


async def test_a_projects_number_is_refused_up_front():
    """Without any call."""
    async with case() as it:
        outcome = await it.run("123456789")
        assert outcome.state is AccountState.MISCONFIGURED
        assert "gcloud projects describe" in outcome.hint
        assert it.fake.record.count("load") == 0


@pytest.mark.parametrize(
    "fault",
    [
        Fault.status(503, body="<html>Sorry</html>"),
        Fault.status(429, body=refusals.internal(429)),
        Fault.status(500, body=refusals.internal()),
        Fault.status(200, body="<html>log in to the wifi</html>"),
        Fault.status(200, body=[]),
        Fault.status(403, body="<html>Sorry...</html>"),
        Fault.reset_connection(),
    ],
    ids=["503", "429", "500", "portal", "array", "captcha", "reset"],
)
@pytest.mark.parametrize("kind", ["load", "onboard", "operation"])
async def test_what_passes_by(fault, kind):
    """At each step: a failure to be repeated, and the next attempt succeeds."""
    async with case(CodeAssist(tier="")) as it:
        # The HTTP client repeats a GET by itself, once, when a kept connection breaks.
        twice = kind == "operation" and fault.reset
        it.fake.faults.add(fault, when=Match(kind=kind), times=2 if twice else 1)
        with pytest.raises(PoolError):
            await it.run("p")
        assert isinstance(await it.run("p"), DiscoveryRow)


@pytest.mark.parametrize(
    "fault",
    [
        Fault.status(401, body={}),
        Fault.status(200, body="<html>"),
        Fault.status(200, body=[]),
        Fault.reset_connection(),
    ],
)
async def test_the_e_mail_is_only_a_label(fault):
    """Userinfo may fail in any way."""
    async with case() as it:
        it.fake.faults.add(fault, when=Match(kind="userinfo"), times=None)
        found = await it.run("p")
        assert (found.project, found.email, found.sub) == ("p", "", "")


async def test_the_configured_endpoint_may_change():
    """A reload replaces `endpoints`; the next set-up goes there."""
    async with case() as it:
        it.setup.endpoints = Endpoints(**{**it.fake.endpoints(), "code_assist": "http://127.0.0.1:9"})
        with pytest.raises(PoolError):
            await it.run("p")
