"""`python -m gemini_poold.fake`: the fake on its own, for trying clients by hand. Prints, as JSON, where it is and who lives there."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys

from .envelope import Json, dumps
from .server import FakeGoogle
from .world import World


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m gemini_poold.fake", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="loopback port (default: a free one)")
    parser.add_argument(
        "--keys", type=int, default=2, help="API keys, each with a project of its own (default: 2)"
    )
    parser.add_argument(
        "--rpm", type=int, default=0, help="requests a minute of each project (default: no limit)"
    )
    parser.add_argument("--chunks", type=int, default=4, help="events in a stream (default: 4)")
    parser.add_argument("--pace", type=float, default=0.0, help="seconds between them (default: 0)")
    parser.add_argument("--token-life", type=float, default=3599.0, help="seconds an access token lives")
    asked = parser.parse_args(argv)
    world = World()
    inhabitants = populate(world, keys=asked.keys, rpm=asked.rpm)
    world.token_life_s = asked.token_life
    for model in world.models.values():
        model.chunks, model.pace_s = asked.chunks, asked.pace
    asyncio.run(_serve(world, inhabitants, asked.port))
    return 0


def populate(world: World, *, keys: int, rpm: int = 0) -> Json:
    """Keys `key-1`…, a licensed person `alice` and a service account `robot`; what each of them logs in with."""
    made = [world.add_api_key(f"key-{number}") for number in range(1, keys + 1)]
    alice = world.add_user("alice", projects=["alice-project"])
    login = world.authorized_user(alice, world.add_client())
    robot = world.add_service_account("robot", project="robot-project")
    if rpm:
        world.limit("*", rpm=rpm)
    return {"api_keys": {key.name: key.key for key in made}, "alice": login, "robot": robot}


async def _serve(world: World, inhabitants: Json, port: int) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    fake = FakeGoogle(world, keep=1000)
    await fake.start(port)
    try:
        for name in ("alice", "robot"):
            inhabitants[name]["token_uri"] = world.token_uri
        print(dumps({"endpoints": fake.endpoints(), **inhabitants}).decode(), flush=True)
        await stop.wait()
    finally:
        await fake.stop()


if __name__ == "__main__":
    sys.exit(main())
