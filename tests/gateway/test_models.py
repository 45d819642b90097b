"""The merged list of models."""

import asyncio

import msgspec
import pytest

from gemini_poold.config import Network
from gemini_poold.core.model import Account, Backend
from gemini_poold.fake import FakeGoogle, Fault, World
from gemini_poold.gateway.models import DOCUMENTED, FRESH_S, RETRY_S, Catalogue, developer_api_list, parse
from gemini_poold.transport import AiohttpTransport


class HandClock:
    """A clock that stands until it is moved."""

    def __init__(self):
        self.at = 1000.0

    def now(self):
        return self.at


def account(name, backend=Backend.DEVELOPER_API, **more):
    return Account(id=name, backend=backend, **more)


def catalogue(*accounts, lists=None, named=(), aliases=None, clock=None):
    """A catalogue whose accounts answer with `lists[id]`; `asked` collects who was asked."""
    asked = []

    async def fetch(which):
        asked.append(which.id)
        names = (lists or {}).get(which.id)
        return None if names is None else [{"name": f"models/{name}", "version": "1"} for name in names]

    made = Catalogue(
        accounts=lambda: accounts,
        named=lambda: named,
        aliases=lambda: aliases or {},
        fetch=fetch,
        clock=clock or HandClock(),
    )
    return made, asked


async def names(made):
    return [model["name"].removeprefix("models/") for model in await made.models()]


async def test_googles_own_list():
    """One account is asked, and what it says is the list."""
    made, asked = catalogue(account("a"), account("b"), lists={"a": ["m-2", "m-1"], "b": ["m-3"]})
    assert await names(made) == ["m-1", "m-2"]
    assert asked == ["a"]


async def test_allow_lists():
    """A model is listed when some enabled account may serve it; one that is named in full is listed in any case."""
    made, _ = catalogue(
        account("off", enabled=False),
        account("a", models=("m-*", "special"), exclude_models=("m-2",)),
        lists={"a": ["m-1", "m-2", "other"]},
    )
    assert await names(made) == ["m-1", "special"]


async def test_other_backends_add_what_is_documented_and_seen():
    """Code Assist and Vertex have no list of their own: documented names and those of quota readings."""
    made, asked = catalogue(
        account("work", Backend.CODE_ASSIST), named=["gemini-new", "gemini-2.5-pro_vertex"]
    )
    assert await names(made) == sorted({*DOCUMENTED, "gemini-new", "gemini-2.5-pro"})
    assert asked == []


async def test_an_empty_pool_has_no_models():
    """Nothing is promised that nobody serves."""
    made, _ = catalogue()
    assert await names(made) == []


async def test_aliases_are_listed():
    """An alias of a listed model is an entry of its own."""
    made, _ = catalogue(account("a"), lists={"a": ["m-1"]}, aliases={"fast": "m-1", "dangling": "m-9"})
    assert await names(made) == ["fast", "m-1"]


async def test_the_list_is_kept_for_an_hour_by_one_asker():
    """Many askers, one question; after an hour another."""
    clock = HandClock()
    made, asked = catalogue(account("a"), lists={"a": ["m-1"]}, clock=clock)
    await asyncio.gather(*(made.models() for _ in range(10)))
    assert asked == ["a"]
    clock.at += FRESH_S
    await made.models()
    assert asked == ["a", "a"]


async def test_a_failure_is_repeated_a_minute_later():
    """The next accounts are tried, a few; meanwhile there is the documented list."""
    clock = HandClock()
    lists = {}
    made, asked = catalogue(*(account(f"a{n}") for n in range(9)), lists=lists, clock=clock)
    assert await names(made) == sorted(DOCUMENTED)
    assert asked == ["a0", "a1", "a2"]
    await made.models()
    assert len(asked) == 3
    clock.at += RETRY_S
    lists["a1"] = ["m-1"]
    assert await names(made) == ["m-1"]


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"models":7}', b"<html>"])
def test_what_is_no_list(body):
    """Anything else is nothing."""
    assert parse(body) is None


def test_bad_entries_are_left_out():
    """An entry without a name is no entry."""
    assert parse(msgspec.json.encode({"models": [7, {}, {"name": "models/m"}]})) == [{"name": "models/m"}]


async def test_over_real_http():
    """The Developer API's list, with the account's own key; every failure is a None."""
    world = World()
    world.add_api_key("a", key="fake-key-a")
    async with FakeGoogle(world) as fake:
        transport = AiohttpTransport(Network(), environ={})
        warm = {"a": {"x-goog-api-key": "fake-key-a"}, "bad": {"x-goog-api-key": "fake-key-wrong"}}
        fetch = developer_api_list(transport, lambda: fake.url, warm.get)
        try:
            listed = await fetch(account("a"))
            assert "models/gemini-2.5-pro" in {model["name"] for model in listed}
            assert await fetch(account("cold")) is None
            assert await fetch(account("bad")) is None
            fake.faults.add(Fault.reset_connection(), times=None)
            assert await fetch(account("a")) is None
        finally:
            await transport.aclose()
