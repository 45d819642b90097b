"""What the VS Code extension shows and does, without VS Code, on the real daemon with a fake Google behind it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.editors.staging import restarted
from tests.editors.vscode.conftest import CLIENTS, EXTENSION, MODEL, run
from tests.fakes.daemon import DaemonProcess

from gemini_poold.fake import GENERATION, FakeGoogle, Fault, Match, replies


def logic(daemon: DaemonProcess, tmp_path: Path, code: str) -> list[Any]:
    """`run` with the extension's logic at hand."""
    head = (
        f'import {{ Pool }} from "{CLIENTS}/typescript/index.js"\n'
        f'import * as ext from "{EXTENSION}/pool.js"\nimport * as chat from "{EXTENSION}/chat.js"\n'
        f'const pool = new Pool({{ name: "vscode", connectMs: 500 }}), MODEL = "{MODEL}"\n'
        'const ask = (text) => [{ role: "user", parts: [{ text }] }]\n'
    )
    return run(daemon, tmp_path / "program.mjs", head + code)


def test_the_status_bar_has_the_tightest_quota(daemon: DaemonProcess, tmp_path: Path) -> None:
    """The least of all fractions is shown; under a tenth it warns; what is unknown does not count."""
    shown, low, unknown, live = logic(
        daemon, tmp_path, """
        const entry = (account, fraction) => ({ account, model: MODEL, fraction, resets_at: 1800000000 })
        const of = (...accounts) => ({ quota: async () => ({ accounts }), accounts: async () => [{ id: "a" }, { id: "b", pinned: ["*"] }] })
        say(await ext.statusBar(of(entry("a", 0.5), entry("b", 0.25), entry("c", null))))
        say(await ext.statusBar(of(entry("a", 0.05))))
        say(await ext.statusBar(of(entry("a", null))))
        say(await ext.statusBar(pool))
        """,
    )  # fmt: skip
    assert (shown["text"], shown["state"]) == ("gemini 25 %", "ok")
    assert shown["tooltip"].startswith(f"b: 25 % of {MODEL} left, resets ")
    assert shown["tooltip"].endswith("\npinned: b")
    assert (low["text"], low["state"]) == ("gemini 5 %", "low")
    assert unknown["text"] == "gemini ok"
    assert live["state"] == "ok"


def test_without_a_daemon(daemon: DaemonProcess, tmp_path: Path) -> None:
    """The bar says so, and its tooltip what to type; a call fails with that hint."""
    daemon.stop()
    bar, error = logic(
        daemon, tmp_path, """
        say(await ext.statusBar(pool))
        await ext.explainText(pool, MODEL).catch((error) => say(ext.said(error)))
        """,
    )  # fmt: skip
    assert (bar["text"], bar["state"]) == ("gemini off", "off")
    assert "gemini-pool run" in bar["tooltip"]
    assert "gemini-pool run" in error


def test_accounts_and_what_is_done_with_them(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Each account has its state; verify, disable, enable and clearCooldown do what they say; explain tells of all."""
    items, actions, verified, disabled, after, enabled, cleared, why, quota = logic(
        daemon, tmp_path, """
        await ext.act(pool, "b", "pin")
        const items = await ext.accountItems(pool)
        say(items), say(items.flatMap(ext.actionItems).map(({ action }) => action))
        say(await ext.act(pool, "a", "verify")), say(await ext.act(pool, "a", "disable"))
        say((await ext.accountItems(pool))[0])
        say(await ext.act(pool, "a", "enable")), say(await ext.act(pool, "a", "clearCooldown"))
        say(await ext.explainText(pool, MODEL)), say(await ext.quotaText(pool))
        """,
    )  # fmt: skip
    assert [(one["label"], one["description"]) for one in items] == [("a", "ready"), ("b", "ready, pinned")]
    assert actions == [
        *("verify", "login", "pin", "disable", "clearCooldown"),
        *("verify", "login", "unpin", "disable", "clearCooldown"),
    ]
    assert verified.startswith("a: ready")
    assert disabled.startswith("a: disabled")
    assert (after["description"], after["enabled"]) == ("disabled", False)
    assert enabled.startswith("a: ready")
    assert cleared == "a: 0 cooldowns forgotten"
    assert why.startswith(f"{MODEL}: ")
    assert "\n  a  " in why
    assert "\n  b  " in why
    assert quota.strip()


LOGIN = """
import { readFileSync } from "node:fs"
const ui = { remote: false, client: async () => ({ client_secrets: JSON.parse(readFileSync(SECRETS)) }), accept: async () => false }
"""


def client_file(google: FakeGoogle, folder: Path) -> Path:
    path = folder / "client.json"
    client = next(iter(google.world.clients.values()))
    path.write_text(json.dumps(google.world.client_file(client)), encoding="utf-8")
    return path


def test_a_login_with_a_browser(daemon: DaemonProcess, google: FakeGoogle, tmp_path: Path) -> None:
    """The address is opened, the daemon hears from the browser itself, and the verdict is told."""
    line, given_up = logic(
        daemon, tmp_path, LOGIN.replace("SECRETS", json.dumps(str(client_file(google, tmp_path)))) + """
        const open = async (url) => void fetch(url).then((page) => page.text())
        say(await ext.login(pool, "ann", { ...ui, open, paste: () => { throw new Error("asked to paste") } }))
        const stop = new AbortController()
        const turn = ext.login(pool, "ann", { ...ui, open: async () => stop.abort(), signal: stop.signal })
        say(await turn.catch((error) => error.name))
        """,
    )  # fmt: skip
    assert line.startswith("ann: ready")
    assert given_up == "AbortError"
    with daemon.pool() as pool:
        assert pool.generate(MODEL, "hello", account="ann")


def test_a_login_asks_for_the_risk(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Its wording is shown; after a no nothing is sent, after a yes the daemon goes on to what is wrong next."""
    wording, refused, error = logic(
        daemon, tmp_path, """
        const ui = { remote: true, client: async () => ({ use_gemini_cli: true, gemini_cli: "/nonexistent" }) }
        say(await ext.login(pool, "ann", { ...ui, accept: async (wording) => (say(wording), false) }))
        await ext.login(pool, "ann", { ...ui, accept: async () => true }).catch((error) => say(error.code))
        """,
    )  # fmt: skip
    assert len(wording) > 80
    assert refused == ""
    assert error != "blocked_by_terms"


def test_a_pin_holds_for_the_pool(daemon: DaemonProcess, google: FakeGoogle, tmp_path: Path) -> None:
    """Pinned, an account answers every chat; a pin for some models is told as such; unpinned, it is one of two again."""
    pinned, partly, after = logic(
        daemon, tmp_path, """
        say(await ext.act(pool, "b", "pin"))
        for (let n = 0; n < 4; n++) for await (const _ of chat.answer(pool, MODEL, ask("hello")));
        await ext.act(pool, "b", "unpin"), await pool.pin("b", "gemini-3*")
        say((await ext.accountItems(pool)).map(({ description }) => description))
        await ext.act(pool, "b", "unpin"), say((await ext.accountItems(pool)).map(({ description }) => description))
        """,
    )  # fmt: skip
    assert pinned.startswith("b is used before all others")
    assert (google.record.count("stream", credential="b"), google.record.count("stream", credential="a")) == (
        4,
        0,
    )
    assert partly == ["ready", "ready, pinned for gemini-3*"]
    assert after == ["ready", "ready"]


def test_chat_streams(daemon: DaemonProcess, google: FakeGoogle, tmp_path: Path) -> None:
    """Text comes in parts, from the pinned account; the models are those of the pool."""
    names, texts = logic(
        daemon, tmp_path, """
        say((await chat.models(pool)).map(({ id }) => id))
        const texts = []
        for await (const part of chat.answer(pool, MODEL, ask("hello"), { account: "b" })) texts.push(part.text)
        say(texts)
        """,
    )  # fmt: skip
    assert MODEL in names
    assert len(texts) > 1
    assert "".join(texts).endswith("you said: hello")
    assert google.record.count("stream", credential="b", status=200) == 1
    assert google.record.count("stream", credential="a") == 0


def test_chat_calls_tools(daemon: DaemonProcess, google: FakeGoogle, tmp_path: Path) -> None:
    """A call and its result go back to Google with the signature that came, or with what it takes instead."""
    (call,) = logic(
        daemon, tmp_path, """
        const tools = [{ name: "look", description: "looks", inputSchema: { type: "object", properties: {} } }]
        const first = ask("[[call=look]]"), options = { tools, mustCall: true, account: "a" }
        const [{ call }] = await all(chat.answer(pool, MODEL, first, options))
        say(call)
        async function all(parts) { const out = []; for await (const part of parts) out.push(part); return out }
        for (const id of [call.id, "of another day"]) {
          const turns = [{ role: "model", parts: [{ call: { ...call, id } }] }, { role: "user", parts: [{ result: { id, text: "seen" } }] }]
          await all(chat.answer(pool, MODEL, [...ask("look"), ...turns], { tools, account: "a" }))
        }
        """,
    )  # fmt: skip
    assert call["name"] == "look"
    bodies = [json.loads(each.body) for each in google.record.find("stream", status=200)]
    assert bodies[0]["toolConfig"]["functionCallingConfig"]["mode"] == "ANY"
    signed, unsigned = (body["contents"][1]["parts"][0]["thoughtSignature"] for body in bodies[1:])
    assert signed != unsigned == "skip_thought_signature_validator"
    answer = bodies[1]["contents"][2]["parts"][0]["functionResponse"]
    assert answer == {"name": "look", "response": {"result": "seen"}}


def test_chat_is_cancelled(daemon: DaemonProcess, google: FakeGoogle, tmp_path: Path) -> None:
    """Cancelling ends the request in the daemon, too."""
    google.faults.add(Fault.stall(after=1), when=Match(kind=GENERATION), times=None)
    code, in_flight = logic(
        daemon, tmp_path, """
        const stop = new AbortController()
        try { for await (const _ of chat.answer(pool, MODEL, ask("hello"), { account: "a", signal: stop.signal })) stop.abort() }
        catch (error) { say(error.code) }
        say((await pool.accounts())[0].in_flight)
        """,
    )  # fmt: skip
    assert (code, in_flight) == ("cancelled", 0)


def test_the_daemon_dies_under_a_chat(daemon: DaemonProcess, google: FakeGoogle, tmp_path: Path) -> None:
    """What came of the answer is shown, then the error with what to do; the next question is answered by the next daemon."""
    google.faults.add(Fault.stall(after=1), when=Match(kind=GENERATION), times=1)
    first, go = tmp_path / "first", tmp_path / "go"
    program = f"""
        import {{ existsSync, writeFileSync }} from "node:fs"
        const texts = []
        try {{ for await (const part of chat.answer(pool, MODEL, ask("hello"), {{ account: "a" }})) {{ texts.push(part.text); writeFileSync({json.dumps(str(first))}, "") }} }}
        catch (error) {{ say([texts.length, error.code, ext.said(error)]) }}
        while (!existsSync({json.dumps(str(go))})) await new Promise((done) => setTimeout(done, 20))
        const again = []
        for await (const part of chat.answer(pool, MODEL, ask("hello"), {{ account: "a" }})) again.push(part.text)
        say(again.join(""))
        """
    died, again = restarted(daemon, first, go, lambda: logic(daemon, tmp_path, program), kill=True)
    assert died[:2] == [1, "connection_lost"]
    assert died[2].startswith("gemini-pool: ")
    assert died[2].endswith(")")
    assert again.endswith("you said: hello")


def test_chat_is_refused(daemon: DaemonProcess, google: FakeGoogle, tmp_path: Path) -> None:
    """A pinned account that Google refuses: the daemon's words and its hint."""
    body = replies.rate_limited("3600s", model=MODEL)
    google.faults.add(Fault.status(429, body=body), when=Match(kind=GENERATION), times=None)
    (line,) = logic(
        daemon, tmp_path, """
        try { for await (const _ of chat.answer(pool, MODEL, ask("hello"), { account: "a" })); }
        catch (error) { say(ext.said(error)) }
        """,
    )  # fmt: skip
    assert "(gemini-pool " in line


def test_the_daemon_is_restarted_in_the_middle(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Between two looks the daemon is another one: the accounts are there all the same."""
    module = tmp_path / "long.mjs"
    module.write_text(
        f'import {{ Pool }} from "{CLIENTS}/typescript/index.js"\nimport {{ accountItems }} from "{EXTENSION}/pool.js"\n'
        'import { once } from "node:events"\nconst pool = new Pool({ connectMs: 20000 })\n'
        "const say = async () => console.log((await pool.info()).pid, (await accountItems(pool)).length)\n"
        'await say()\nawait once(process.stdin, "data")\nawait say()\nprocess.exit()\n',
        encoding="utf-8",
    )
    with subprocess.Popen(
        ["node", str(module)], env={**daemon.env, "PATH": os.environ["PATH"]}, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True,
    ) as program:  # fmt: skip
        assert program.stdout is not None
        first = program.stdout.readline().split()
        daemon.kill()
        daemon.start()
        second, _ = program.communicate("go\n", timeout=30)
    assert program.returncode == 0
    assert daemon.process is not None
    assert second.split() == [str(daemon.process.pid), "2"]
    assert first[0] != str(daemon.process.pid)
