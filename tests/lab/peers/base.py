"""What the peers share: their view of the world. Each file beside this one is one peer, from the public description of
its algorithm with its constants; what the description leaves open is said there. Nothing of ours is in them.
"""

from __future__ import annotations

from collections.abc import Generator
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar

from ..traces import Ask

if TYPE_CHECKING:
    from ..world import World

Serve = Generator[Any, Any, Any]


class Peer:
    """`until`: by (key, model), when a key may be used again, as the peer believes."""

    name: ClassVar[str] = ""

    def __init__(self, world: World, rng: Random) -> None:
        self.world = world
        self.rng = rng
        self.keys = [key.id for key in world.trace.keys]
        self.until: dict[tuple[str, str], float] = {}

    @property
    def now(self) -> float:
        return self.world.now

    def serve(self, ask: Ask) -> Serve:
        raise NotImplementedError

    def rest(self, key: str, model: str, seconds: float) -> None:
        self.until[key, model] = self.now + seconds

    def rests_until(self, key: str, model: str) -> float:
        return self.until.get((key, model), 0.0)

    def free(self, model: str) -> list[str]:
        now, until = self.now, self.until
        return [key for key in self.keys if until.get((key, model), 0.0) <= now]

    def soonest_s(self, model: str) -> float:
        """Seconds until the first key is free again."""
        return max(0.0, min(self.rests_until(key, model) for key in self.keys) - self.now)

    def used(self, key: str, model: str) -> float:
        """What a quota poll tells, always fresh here: the used share of the longest window."""
        return self.world.google.used(key, model, self.now)
