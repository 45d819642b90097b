"""What is seen of a body on its way to the disk is what is seen of it whole, however the network cut it."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fakes.gateway import ScriptedDispatcher, answered, gateway_site

from gemini_pool.errors import PoolError
from gemini_poold.backends import candidates
from gemini_poold.gateway import beginning, bound, spooling, thinking
from gemini_poold.gateway.meter import Meter
from gemini_poold.gateway.services import Settings
from gemini_poold.runtime.origins import digests

PLAIN = "/v1beta/models/m:generateContent"


@dataclass
class Reading:
    """As much of an exchange as a body on its way needs."""

    services: Any = field(default_factory=lambda: SimpleNamespace(meter=Meter(), settings=Settings()))
    spooled_bytes: int = 0
    held: int = 0

    def hold(self, more: int) -> None:
        self.held += more


TEXTS = st.text(max_size=3000)
PARTS = st.one_of(
    st.builds(lambda text: {"text": text}, TEXTS),
    st.builds(lambda size: {"inlineData": {"data": "QUJD" * size}}, st.integers(0, 20_000)),
    st.builds(lambda name: {"fileData": {"fileUri": f"https://generativelanguage.googleapis.com/v1beta/files/{name}"}},
              st.from_regex(r"[a-z]{3,40}", fullmatch=True)),
    st.builds(lambda text: {"functionCall": {"name": "f"}, "thoughtSignature": text}, st.text("abcd=", min_size=1, max_size=2000)),
)  # fmt: skip
BODIES = st.builds(
    lambda parts, system, count, first: json.dumps(
        dict(
            sorted(
                {
                    "contents": [{"role": "user", "parts": parts}],
                    **({"systemInstruction": {"parts": [{"text": system}]}} if system else {}),
                    **(
                        {"generationConfig": {"candidateCount": count, "thinkingConfig": {}}} if count else {}
                    ),
                }.items(),
                reverse=first,
            )
        )
    ).encode(),
    st.lists(PARTS, min_size=1, max_size=6),
    TEXTS,
    st.integers(0, 3),
    st.booleans(),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(body=BODIES, seed=st.integers(0, 99))
def test_what_is_seen_in_passing_is_what_is_seen_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: bytes, seed: int
) -> None:
    """Names, the conversation's key, candidates, signatures, thinking; and the bytes themselves."""
    monkeypatch.setattr(spooling, "PIECE", 10_000)
    rng = random.Random(seed)

    async def run() -> None:
        reading = Reading()
        large = spooling.LargeBody(reading, tmp_path / "spool")
        rest = body
        while rest:
            cut = rng.randint(1, 9_000)
            await large.add(rest[:cut])
            rest = rest[cut:]
        await large.end()
        assert large.names == bound.named_in(body)
        assert large.signatures == set(digests(body))
        assert large.thinks == thinking.says(body)
        assert large.candidates == max(1, candidates.asked(body))
        if len(body) >= beginning.WORTH_BYTES:
            assert large.key == beginning.key_of(body)
        for _ in range(2):
            assert b"".join([piece async for piece in large.chunks()]) == body
        assert reading.held == 0
        assert await large.whole() == body
        assert await large.whole() is await large.whole()
        assert reading.held == reading.spooled_bytes == large.size == len(body)
        large.close()
        with pytest.raises(ConnectionError):
            _ = [piece async for piece in large.chunks()]

    asyncio.run(run())


def test_the_disk_has_a_limit_of_its_own(tmp_path: Path) -> None:
    """Of all bodies together, whatever the disk would take."""

    async def run() -> None:
        reading = Reading()
        reading.services.settings = Settings(spool_limit=1 << 20)
        large = spooling.LargeBody(reading, tmp_path / "spool")
        with pytest.raises(PoolError, match="on the disk") as caught:
            for _ in range(5):
                await large.add(b"x" * (256 << 10))
        assert caught.value.code == "overloaded"
        large.close()

    asyncio.run(run())


@pytest.mark.parametrize("chunked", [False, True])
async def test_room_is_given_back_however_a_request_ends(tmp_path: Path, chunked: bool) -> None:
    """Answered, refused for its size, failed inside: nothing on the disk stays counted or open."""

    async def pieces():
        for _ in range(20):
            yield b"x" * 1000

    def body() -> Any:
        return pieces() if chunked else b"x" * 20_000

    seen = []

    def look(call):
        seen.append((call.spooled.size, call.body, meter.held_bytes, meter.spooled_bytes))
        if len(seen) == 2:
            raise RuntimeError("inside")
        return answered()

    limits = Settings(spool_above=5000, body_limit=50_000)
    async with gateway_site(ScriptedDispatcher(look), settings=limits) as site:
        site.gateway.services.spool = tmp_path / "spool"
        meter = site.gateway.services.meter
        assert [(await site.post(PLAIN, body())).status for _ in range(2)] == [200, 500]
        assert {size for size, *_ in seen} == {20_000}
        assert all(body == b"" and held <= 5000 and disk == 20_000 for _, body, held, disk in seen)
        if not chunked:
            assert (await site.post(PLAIN, b"x" * 60_000)).status == 413
        assert (meter.held_bytes, meter.spooled_bytes) == (0, 0)


async def test_a_default_belongs_into_a_large_body_as_well(tmp_path: Path) -> None:
    """Then it has to be decoded, and is in the memory; not where it speaks of thinking itself."""
    limits = Settings(spool_above=5000, thinking={"m": {"thinkingLevel": "LOW"}})
    text = "x" * 20_000
    async with gateway_site(settings=limits) as site:
        site.gateway.services.spool = tmp_path / "spool"
        assert (await site.post(PLAIN, json.dumps({"contents": text}).encode())).status == 200
        own = {"contents": text, "generationConfig": {"thinkingConfig": {}}}
        assert (await site.post(PLAIN, json.dumps(own).encode())).status == 200
        first, second = site.dispatcher.calls
        assert first.spooled is None
        assert json.loads(first.body)["generationConfig"] == {"thinkingConfig": {"thinkingLevel": "LOW"}}
        assert second.spooled is not None
