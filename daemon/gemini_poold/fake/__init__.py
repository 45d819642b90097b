"""A Google of our own, for tests and the demo: a real HTTP server on loopback. Nothing of the running daemon imports it.

world = World()
world.add_api_key("key-a", project="p1")
world.limit("p1", rpm=10)
async with FakeGoogle(world) as fake:
    fake.faults.add(Fault.status(429, body=replies.rate_limited(retry="9s")), when=Match(credential="key-a"), times=3)
    ...  # config.toml: [endpoints] = fake.endpoints()
    assert fake.record.count("generate", credential="key-a", status=429) == 3
"""

from __future__ import annotations

from . import replies
from .call import Call
from .clock import RealClock, SetClock, pacific_day_end
from .codeassist import ineligible, must_validate, shut_down
from .faults import ANY, GENERATION, Fault, Faults, Match, Rule
from .limits import Limits
from .record import Record
from .server import FakeGoogle
from .stream import Twist
from .world import CodeAssist, Grant, Model, User, World

__all__ = [
    "ANY",
    "GENERATION",
    "Call",
    "CodeAssist",
    "FakeGoogle",
    "Fault",
    "Faults",
    "Grant",
    "Limits",
    "Match",
    "Model",
    "RealClock",
    "Record",
    "Rule",
    "SetClock",
    "Twist",
    "User",
    "World",
    "ineligible",
    "must_validate",
    "pacific_day_end",
    "replies",
    "shut_down",
]
