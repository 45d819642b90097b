"""@gemini-pool/client under Node and Bun: all transcripts, and the real daemon."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from tests.clients_node.conftest import MODEL
from tests.clients_node.replaying import replay
from tests.conformance.script import scripts
from tests.editors.staging import restarted

from gemini_poold.fake import GENERATION, Fault, Match, replies

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "client" / "typescript"


@pytest.fixture(params=["node", "bun"])
def js(request):
    """The command that runs a module."""
    if request.param == "node":
        return [request.getfixturevalue("node")]
    return [str(request.getfixturevalue("packages") / ".bin" / "bun")]


@pytest.mark.parametrize("name", [script.name for script in scripts("client")])
def test_transcript(name, js, tmp_path):
    """The client says what stands in the transcript, and its program gets what stands there."""
    replay(name, js, tmp_path)


def run(js, daemon, tmp_path, code):
    """Run a module that prints JSON lines; what it printed."""
    module = tmp_path / "program.mjs"
    module.write_text(
        f'import {{ Pool, PoolError }} from "{CLIENT}/index.js"\n'
        f'import {{ gatewayFetch }} from "{CLIENT}/gateway.js"\n'
        f'const MODEL = "{MODEL}"\nconst say = (value) => console.log(JSON.stringify(value))\n{code}'
    )
    done = subprocess.run(
        [*js, str(module)], env={**daemon.env, "PATH": os.environ["PATH"]}, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_generate_and_stream(js, daemon, tmp_path):
    """A whole answer, one in chunks with its result, and who we are in status. The program ends by itself."""
    whole, *chunks, result, names = run(
        js, daemon, tmp_path, """
        const pool = new Pool({ name: "js" })
        say((await pool.generate(MODEL, "hello")).candidates[0].content.parts[0].text)
        const stream = pool.stream(MODEL, "hello")
        for (;;) {
          const { value, done } = await stream.next()
          say(value)
          if (done) break
        }
        say((await pool.status()).clients.map((client) => client.name))
        """,
    )  # fmt: skip
    assert whole.endswith("you said: hello")
    assert len(chunks) == result["chunks"] > 1
    assert result["finish_reason"] == "STOP"
    assert "js" in names


def test_cancel(js, daemon, google, tmp_path):
    """Leaving the loop cancels, as an AbortSignal does; Google's connection is ended, nobody is in flight."""
    google.faults.add(Fault.stall(after=1), when=Match(kind=GENERATION), times=None)
    first, code, in_flight = run(
        js, daemon, tmp_path, """
        const pool = new Pool()
        for await (const chunk of pool.stream(MODEL, "hello")) { say(chunk); break }
        const stop = new AbortController()
        try {
          for await (const chunk of pool.stream(MODEL, "hello", { signal: stop.signal })) stop.abort()
        } catch (error) { say(error.code) }
        say((await pool.accounts())[0].in_flight)
        """,
    )  # fmt: skip
    assert first["candidates"]
    assert (code, in_flight) == ("cancelled", 0)


def test_error_with_hint(js, daemon, google, tmp_path):
    """Nobody is free: the word, the hint, and when somebody returns."""
    google.faults.add(
        Fault.status(429, body=replies.rate_limited("27s", model=MODEL)),
        when=Match(kind=GENERATION),
        times=None,
    )
    (error,) = run(
        js, daemon, tmp_path, """
        try { await new Pool().generate(MODEL, "hello", { wait_s: 0 }) }
        catch (error) { say({ ...error, ours: error instanceof PoolError }) }
        """,
    )  # fmt: skip
    assert error["ours"]
    assert error["code"] == "all_cooling_down"
    assert error["hint"] == f"gemini-pool explain {MODEL}"
    assert error["retryAt"] > 0


def test_restart_in_the_middle(js, daemon, tmp_path):
    """The daemon is killed and comes back between two calls of one Pool."""
    module = tmp_path / "long.mjs"
    module.write_text(
        f'import {{ Pool }} from "{CLIENT}/index.js"\nimport {{ createInterface }} from "node:readline"\n'
        "const pool = new Pool({ connectMs: 20000 })\nconsole.log((await pool.info()).pid)\n"
        "for await (const _ of createInterface({ input: process.stdin })) {\n"
        "  console.log((await pool.info()).pid)\n  break\n}\npool.close()\nprocess.exit()\n"
    )
    pipe = subprocess.PIPE
    program = subprocess.Popen(
        [*js, str(module)], env={**daemon.env, "PATH": os.environ["PATH"]}, stdin=pipe, stdout=pipe, text=True
    )
    first = int(program.stdout.readline())
    daemon.kill()
    daemon.start()
    output, _ = program.communicate("go\n", timeout=30)
    assert program.returncode == 0
    assert int(output) == daemon.process.pid != first


def test_the_daemon_dies_under_a_stream(js, daemon, google, tmp_path):
    """What came is kept, the end is an error and no second request, and the next call finds the next daemon."""
    google.faults.add(Fault.stall(after=1), when=Match(kind=GENERATION), times=None)
    first, go = tmp_path / "first", tmp_path / "go"
    code = f"""
        import {{ existsSync, writeFileSync }} from "node:fs"
        const pool = new Pool({{ connectMs: 20000 }})
        let chunks = 0
        try {{ for await (const _ of pool.stream(MODEL, "hello")) {{ chunks++; writeFileSync({json.dumps(str(first))}, "") }} }}
        catch (error) {{ say([chunks, error.code, error.retryable, error.hint !== ""]) }}
        while (!existsSync({json.dumps(str(go))})) await new Promise((done) => setTimeout(done, 20))
        say((await pool.accounts())[0].id)
        """
    died, account = restarted(daemon, first, go, lambda: run(js, daemon, tmp_path, code), kill=True)
    assert died == [1, "connection_lost", True, True]
    assert account == "key-a"
    assert google.record.count("stream") == 1


def test_absent(js, daemon, tmp_path):
    """Nobody there: the hint names the command that starts the daemon."""
    daemon.stop()
    (error,) = run(
        js, daemon, tmp_path, """
        try { await new Pool({ connectMs: 50 }).info() } catch (error) { say({ ...error }) }
        """,
    )  # fmt: skip
    assert error["code"] == "not_running"
    assert "gemini-pool" in error["hint"]


def test_lease_and_fetch(js, daemon, tmp_path):
    """A lease used by fetch and reported by itself; and fetch over the gateway's socket, whole and streamed."""
    status, counted, over, streamed = run(
        js, daemon, tmp_path, """
        const pool = new Pool()
        const body = JSON.stringify({ contents: [{ role: "user", parts: [{ text: "hello" }] }] })
        const send = (lease) => fetch(lease.url, { method: "POST", headers: lease.headers, body })
        say((await pool.withLease(MODEL, {}, send)).status)
        const found = await pool.status()
        say([found.leases.length, found.counters.answered])
        const over = gatewayFetch()
        const at = `https://generativelanguage.googleapis.com/v1beta/models/${MODEL}`
        const whole = await over(`${at}:generateContent`, { method: "POST", body })
        say([whole.status, whole.headers.get("x-gemini-pool-account"), (await whole.json()).candidates.length])
        const parts = await over(`${at}:streamGenerateContent?alt=sse`, { method: "POST", body })
        say((await parts.text()).split("data: ").length)
        pool.close()
        """,
    )  # fmt: skip
    assert status == 200
    assert counted == [0, 1]
    assert over == [200, "key-a", 1]
    assert streamed > 2


def test_types(packages, node, tmp_path):
    """The types are those that openrpc.json gives, hold together, and refuse what the wire does."""
    made = subprocess.run(
        [node, str(CLIENT / "generate.js"), str(ROOT / "client" / "openrpc.json")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert made.stdout == (CLIENT / "wire.d.ts").read_text(), "npm run types, in client/typescript"
    (tmp_path / "node_modules").symlink_to(packages)
    (tmp_path / "use.mts").write_text(USE.replace("CLIENT", str(CLIENT)))
    checked = subprocess.run(
        [node, str(packages / ".bin" / "tsc"), "--noEmit", "--strict", "--target", "es2022", "--module", "nodenext",
         "--types", "node", "use.mts"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout


USE = """
import { Pool, PoolError, type Lease } from "CLIENT/index.js"
import { gatewayFetch } from "CLIENT/gateway.js"
const pool = new Pool({ name: "x" })
const lease: Lease = await pool.acquire("m", { forms: ["gl"], wait_s: 1 })
const chosen: string | null = (await pool.call("pool/explain", { model: "m" })).chosen
for await (const chunk of pool.stream("m", "hi")) console.log(chunk.candidates, lease.ttl_s.toFixed(), chosen)
try { await pool.token("a") } catch (e) { if (e instanceof PoolError && e.code === "all_cooling_down") console.log(e.retryAt) }
const over: typeof fetch = gatewayFetch()
// @ts-expect-error
await pool.acquire("m", { forms: ["xx"] })
"""
