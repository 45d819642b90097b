"""Eight processes want a token of the same account at the same moment: Google is asked once, for every kind."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import msgspec
import pytest
from tests.credentials.making import read_secret, served, write_secret

from gemini_poold.fake import Fault, Match, World

PROCESSES = 8
TOKEN_CALLS = ("token", "sts", "impersonate")
SCRIPT = """
import asyncio, sys
from pathlib import Path
import msgspec
from gemini_poold.accounts.schema import parse
from gemini_poold.clock import SystemClock
from gemini_poold.config import Endpoints, Network
from gemini_poold.credentials.base import Context
from gemini_poold.credentials.registry import build
from gemini_poold.transport import AiohttpTransport

async def main(endpoints, folder, text):
    transport = AiohttpTransport(Network(), environ={})
    ctx = Context(transport, msgspec.json.decode(endpoints, type=Endpoints), SystemClock(), Path(folder), {})
    (entry,) = parse(text, "accounts.toml")
    credential = build(entry, ctx)
    print("ready", flush=True)
    sys.stdin.readline()  # all at the same moment
    print((await credential.renew(0.0)).value.reveal())
    await transport.aclose()

asyncio.run(main(*sys.argv[1:]))
"""


def account(kind, more=""):
    secret = 'secret = { file = "secrets/work.json" }'
    return f'[[account]]\nid = "work"\nbackend = "vertex"\nproject = "p"\ncredential = {{ type = "{kind}", {secret}{more} }}\n'


def prepare(world, tmp_path, kind):
    """The secret's content, the account, and how many calls one token takes."""
    user = world.add_user("ann", projects=["p"])
    login = world.authorized_user(user, world.add_client(), rotates=True)
    match kind:
        case "oauth":
            return login, account("oauth"), 1
        case "service-account":
            return world.add_service_account("robot", project="p"), account("service-account"), 1
        case "external":
            pool = world.add_pool("pool", projects=["p"])
            source = {"file": str(write_secret(tmp_path / "subject", "fake-subject"))}
            info = {"type": "external_account", "audience": pool.audience, "credential_source": source}
            info |= {"subject_token_type": "urn:ietf:params:oauth:token-type:jwt"}
            return info | {"token_url": "https://sts.googleapis.com/v1/token"}, account("external"), 1
        case _:
            target = world.add_service_account("robot", project="p", impersonators=frozenset({"ann"}))
            return login, account("impersonated", f', target = "{target["client_email"]}"'), 2


@pytest.mark.parametrize("kind", ["oauth", "service-account", "external", "impersonated"])
async def test_one_token_call(tmp_path, kind):
    """A slow endpoint, so that all of them are there before the first has its answer: one token for all, no login lost
    to a refresh token that was used twice."""
    world = World()
    secret, text, calls = prepare(world, tmp_path, kind)
    path = write_secret(tmp_path / "secrets" / "work.json", secret)
    async with served(tmp_path, world) as (google, ctx):
        google.faults.add(Fault.delay(0.5), when=Match(kind=TOKEN_CALLS), times=None)
        environ = {"PYTHONPATH": ":".join(item for item in sys.path if item)}
        arguments = (sys.executable, "-c", SCRIPT, msgspec.json.encode(ctx.endpoints).decode())
        processes = [
            await asyncio.create_subprocess_exec(
                *arguments, str(tmp_path), text, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            for _ in range(PROCESSES)
        ]
        for process in processes:
            assert await process.stdout.readline() == b"ready\n"
        for process in processes:
            process.stdin.write(b"now\n")
        outputs = [(await process.communicate())[0] for process in processes]
        assert len(set(outputs)) == 1
        assert outputs[0].strip().decode() in world.tokens
        asked = sum(google.record.count(name) for name in TOKEN_CALLS)
        print(f"{kind}: {PROCESSES} processes, {asked} call(s) for one token of {calls}")
        assert asked == calls
        if kind in {"oauth", "impersonated"}:
            assert world.grants[read_secret(path)["refresh_token"]].trouble == ""
