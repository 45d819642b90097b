"""The stage: five accounts over three backends, the files that describe them, and what goes wrong and when."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gemini_poold.fake import Call, FakeGoogle, Fault, Match, World

MODEL = "gemini-2.5-flash"
LIMITED, DYING, SHORT = "key-a", "team", "work"
SHORT_LIFE_S = 6.0  # renewed at half-life, so several times in one demo
WINDOW_S = 8.0  # what Google calls a minute, here
RPM = 6


class Cast(NamedTuple):
    """One account: how accounts.toml names it, and the secret that belongs to it."""

    id: str
    backend: str
    credential: str
    secret: str  # the content of its file
    more: Mapping[str, str] = {}

    @property
    def file(self) -> str:
        return f"secrets/{self.id}{'' if self.credential == 'api-key' else '.json'}"


class Play:
    """The world of the demo and its three mishaps: a limit, a death, and a token that runs out."""

    def __init__(self, seconds: float) -> None:
        self.world = World()
        self.cast = _cast(self.world)
        self._seconds = seconds
        model = self.world.models[MODEL]
        model.chunks, model.pace_s, model.think_s = 6, 0.04, 0.05

    def begin(self, google: FakeGoogle, note: Callable[[str], None]) -> None:
        """Arm what will happen while requests run: it hangs on the world's own clock and on the requests."""
        dies_at = self.world.clock.now() + 0.4 * self._seconds

        def die(call: Call) -> None:
            note(f"{DYING}: its owner withdraws the login at Google, in the middle of the work")
            self.world.revoke(DYING)
            del call

        def is_time(call: Call) -> bool:
            return call.at >= dies_at

        google.faults.add(
            Fault.event("the login is withdrawn", die), when=Match(credential=DYING, check=is_time)
        )


class Places:
    """The daemon's folders inside the demo's own; nothing outside of it is read or written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config_dir = folder / "config"
        self.state_dir = folder / "state"
        self.socket = folder / "run" / "pool.sock"
        self.log = folder / "daemon.log"

    def environment(self) -> dict[str, str]:
        """What points a daemon or a client at the demo."""
        return {
            "GEMINI_POOL_CONFIG_DIR": str(self.config_dir),
            "GEMINI_POOL_STATE_DIR": str(self.state_dir),
            "GEMINI_POOL_SOCKET": str(self.socket),
        }

    def write(self, play: Play, endpoints: Mapping[str, str]) -> None:
        """config.toml, accounts.toml and a secret for each account, private to the user."""
        for folder in (self.config_dir, self.state_dir, self.state_dir / "secrets", self.socket.parent):
            folder.mkdir(mode=0o700, parents=True)
        config = {"gateway": {"listen": "127.0.0.1:0"}, "endpoints": endpoints}
        (self.config_dir / "config.toml").write_text(
            "\n".join(_table(f"[{name}]", config[name]) for name in config)
        )
        accounts = (_table("[[account]]", _entry(member)) for member in play.cast)
        (self.config_dir / "accounts.toml").write_text("\n".join(accounts))
        for member in play.cast:
            path = self.state_dir / member.file
            path.touch(mode=0o600)
            path.write_text(member.secret)

    def local_key(self) -> str:
        """The gateway's key, which the daemon made at its start."""
        return (self.state_dir / "gateway.key").read_text().strip()


def _cast(world: World) -> tuple[Cast, ...]:
    client = world.add_client("demo")
    keys = [world.add_api_key(name, project=f"project-of-{name}") for name in (LIMITED, "key-b")]
    world.add_project(f"project-of-{LIMITED}", hints="honest")
    world.limit(f"project-of-{LIMITED}", rpm=RPM, window_s=WINDOW_S)
    people = [world.add_user(name, projects=[f"{name}-project"]) for name in (SHORT, DYING)]
    people[0].token_life_s = SHORT_LIFE_S
    robot = world.add_service_account("cloud", project="cloud-project")
    return (
        *(Cast(key.name, "developer-api", "api-key", key.key) for key in keys),
        *(
            Cast(
                person.name,
                "code-assist",
                "oauth",
                json.dumps(world.authorized_user(person, client)),
                {"project": f"{person.name}-project"},
            )
            for person in people
        ),
        Cast("cloud", "vertex", "service-account", json.dumps(robot), {"project": "cloud-project"}),
    )


def _entry(member: Cast) -> dict[str, Any]:
    credential = {"type": member.credential, "secret": {"file": member.file}}
    return {"id": member.id, "backend": member.backend, "credential": credential, **member.more}


def _table(head: str, entries: Mapping[str, Any]) -> str:
    return "\n".join([head, *(f"{name} = {_value(value)}" for name, value in entries.items()), ""])


def _value(value: Any) -> str:
    """TOML of strings and inline tables of them; JSON's strings are TOML's."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{name} = {_value(entry)}" for name, entry in value.items()) + " }"
    return json.dumps(value)
