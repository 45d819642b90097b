"""The opencode plugin in the real opencode, from npm: its google provider goes through the daemon's Unix socket."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest
from tests.clients_node.conftest import MODEL
from tests.clients_node.replaying import replay
from tests.conformance.script import scripts
from tests.editors.staging import restarted

from gemini_poold.fake import GENERATION, Fault, Match, replies

CLIENTS = Path(__file__).parents[2] / "client"


class Opencode:
    """opencode with a home of its own and the plugin installed in it. `env` is what the daemon's clients have."""

    def __init__(self, command: Path, home: Path, env: dict[str, str]) -> None:
        self.command = str(command)
        self._home = home
        # As its README says.
        folder = home / "gemini-pool"
        subprocess.run(
            ["npm", "install", "--prefix", str(folder), "--install-links", "--no-package-lock", "--no-audit", "--no-fund",
             str(CLIENTS / "typescript"), str(CLIENTS / "opencode")],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
        self.modules = folder / "node_modules"
        # opencode fetches an SDK for any plugin; ours needs none of it.
        self._env = {
            "PATH": os.environ["PATH"], "HOME": str(home), "GEMINI_POOL_SOCKET": env["GEMINI_POOL_SOCKET"],
            "npm_config_fetch_retries": "0", "OPENCODE_DISABLE_AUTOUPDATE": "1", "OPENCODE_DISABLE_MODELS_FETCH": "1",
            "OPENCODE_CONFIG_CONTENT": json.dumps(
                {
                    "plugin": [(self.modules / "opencode-gemini-pool" / "index.js").as_uri()],
                    "model": f"google/{MODEL}",
                    "small_model": f"google/{MODEL}",
                }
            ),
        }  # fmt: skip
        (home / "work").mkdir()

    def __call__(self, *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.command, *args], env=self._env, cwd=self._home / "work", stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=170, check=False,
        )  # fmt: skip

    def javascript(self, code: str) -> str:
        """Run a module in the plugin's place with opencode's own Bun; what it prints."""
        module = self.modules / "opencode-gemini-pool" / "try.mjs"
        module.write_text(code)
        done = subprocess.run(
            [self.command, str(module)], env={**self._env, "BUN_BE_BUN": "1"}, capture_output=True,
            text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def opencode(packages, daemon, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    return Opencode(packages / ".bin" / "opencode", home, daemon.env)


def test_run(opencode, daemon, google):
    """`opencode run` answers through the pool: no key, no login, and nothing of opencode's reaches Google."""
    done = opencode("run", "what is up")
    assert "you said:" in done.stdout, done.stdout + done.stderr
    assert google.record.count(credential="key-a", status=200) >= 1
    with daemon.pool() as pool:
        assert pool.status().counters.answered >= 1


def test_transcripts(opencode, tmp_path):
    """The client that the plugin was installed with replays them all, in the runtime that opencode itself has."""
    client = opencode.modules / "@gemini-pool" / "client" / "index.js"
    for script in scripts("client"):
        replay(script.name, [opencode.command], tmp_path, BUN_BE_BUN="1", GEMINI_POOL_CLIENT=str(client))


def test_gquota(opencode, google):
    """`/gquota` is a command, which sends the model to the tool `gemini_quota`; the model is offered that tool."""
    done = opencode("run", "--command", "gquota")
    assert "gemini_quota" in done.stdout, done.stdout + done.stderr
    offered = [
        tool["name"]
        for call in google.record.find("stream", status=200)
        for group in json.loads(call.body).get("tools", [])
        for tool in group.get("functionDeclarations", [])
    ]
    assert "gemini_quota" in offered


def test_refused(opencode, google):
    """Everybody is refused: opencode says why, in the daemon's words, rather than hang."""
    body = replies.rate_limited("3600s", model=MODEL)
    google.faults.add(Fault.status(429, body=body), when=Match(kind=GENERATION), times=None)
    code = (
        'import { poolFetch } from "./pool.js"\n'
        f'const answer = await poolFetch()("http://x/v1beta/models/{MODEL}:generateContent", '
        '{ method: "POST", headers: { "x-gemini-pool-wait-s": "0" }, '
        'body: JSON.stringify({ contents: [{ role: "user", parts: [{ text: "hi" }] }] }) })\n'
        "console.log(answer.status, await answer.text())"
    )
    printed = opencode.javascript(code)
    assert printed.startswith("429 ")
    assert "returns first" in printed


STREAM = f"""
import {{ poolFetch }} from "./pool.js"
import {{ existsSync, writeFileSync }} from "node:fs"
const body = JSON.stringify({{ contents: [{{ role: "user", parts: [{{ text: "hi" }}] }}] }})
const ask = (signal) => poolFetch()("http://x/v1beta/models/{MODEL}:streamGenerateContent?alt=sse", {{ method: "POST", body, signal }})
const read = async (answer, seen = () => {{}}) => {{
  let text = ""
  for await (const piece of answer.body) {{ text += new TextDecoder().decode(piece); seen() }}
  return text
}}
"""


def test_cancelled(opencode, daemon, google):
    """opencode stops an answer: the body ends with an error, and nobody is in flight in the pool."""
    google.faults.add(Fault.stall(after=1), when=Match(kind=GENERATION), times=None)
    code = (
        STREAM
        + """
    const stop = new AbortController()
    await read(await ask(stop.signal), () => stop.abort()).catch((error) => console.log(error.name))
    """
    )
    assert opencode.javascript(code).split() == ["AbortError"]
    until = time.monotonic() + 10
    with daemon.pool() as pool:
        while pool.accounts()[0].in_flight and time.monotonic() < until:
            time.sleep(0.02)
        assert pool.accounts()[0].in_flight == 0


def test_the_daemon_dies_under_an_answer(opencode, daemon, google, tmp_path):
    """The answer is cut and does not look whole; the next one comes from the next daemon."""
    google.faults.add(Fault.stall(after=1), when=Match(kind=GENERATION), times=1)
    first, go = tmp_path / "first", tmp_path / "go"
    code = (
        STREAM
        + f"""
    await read(await ask(), () => writeFileSync({json.dumps(str(first))}, "")).then(
      (text) => console.log(text.includes("finishReason") ? "whole" : "cut"), () => console.log("error"))
    while (!existsSync({json.dumps(str(go))})) await new Promise((done) => setTimeout(done, 20))
    console.log((await read(await ask())).includes("finishReason"))
    """
    )
    out = restarted(daemon, first, go, lambda: opencode.javascript(code), kill=True)
    assert out.split() == ["error", "true"]


def test_quota_tool_and_menu(opencode, daemon):
    """The tool lists accounts and quota, the menu offers them and does what was chosen, the command names the tool."""
    code = """
    import { GeminiPool } from "./index.js"
    const plugin = await GeminiPool({})
    console.log(await plugin.tool.gemini_quota.execute({}))
    const [use, manage] = plugin.auth.methods
    console.log(JSON.stringify(manage.prompts[0].options))
    for (const action of ["disable", "enable", "clearCooldown", "verify", "unpin", "pin"])
      await manage.authorize({ account: "key-a", action })
    console.log(JSON.stringify(await use.authorize()))
    const config = {}
    await plugin.config(config)
    console.log(config.command.gquota.template.includes("gemini_quota"), typeof config.provider.google.options.fetch)
    process.exit()
    """
    lines = opencode.javascript(code).splitlines()
    assert lines[0].startswith("key-a  ready")
    text = "\n".join(lines)
    assert '"value":"key-a"' in text
    assert "key-a: disabled" in text
    assert "key-a: pinned" in text
    with daemon.pool() as pool:
        assert [account.pinned for account in pool.accounts()] == [["*"]]
    assert "key-a: 0 cooldowns forgotten" in text
    assert lines[-2:] == ['{"type":"success","key":"gemini-pool"}', "true function"]


def test_without_a_daemon(opencode, daemon):
    """No daemon: opencode starts all the same, and the tool says what to type."""
    daemon.stop()
    code = """
    import { GeminiPool } from "./index.js"
    const plugin = await GeminiPool({})
    console.log(await plugin.tool.gemini_quota.execute({}))
    process.exit()
    """
    assert "gemini-pool" in (printed := opencode.javascript(code))
    assert "no daemon answers" in printed
