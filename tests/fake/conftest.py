"""A served fake with a standing clock, two keys of one project, a licensed person and a service account."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
from tests.fake.asking import Asker

from gemini_poold.fake import FakeGoogle, SetClock, World


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def world(clock: SetClock) -> World:
    world = World(clock)
    world.add_api_key("key-a", project="shared")
    world.add_api_key("key-b", project="shared")
    world.add_api_key("key-c")
    world.add_client()
    world.add_user("alice", projects=["alice-project"])
    return world


@pytest.fixture
async def asker(world: World) -> AsyncIterator[Asker]:
    async with FakeGoogle(world) as fake, aiohttp.ClientSession() as session:
        yield Asker(fake, session)


@pytest.fixture
def login(world: World) -> dict[str, str]:
    """Alice's `authorized_user` file."""
    return world.authorized_user(world.users["alice"], next(iter(world.clients.values())))


@pytest.fixture
def robot(world: World) -> dict[str, str]:
    """The service account's credential file."""
    return world.add_service_account("robot", project="vx-project")
