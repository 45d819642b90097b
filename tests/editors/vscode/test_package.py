"""The VS Code extension as it is installed: its types, its .vsix, and its start with a stand-in for VS Code's API."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from tests.clients_node.replaying import replay
from tests.conformance.script import scripts
from tests.editors.vscode.conftest import CLIENTS, EXTENSION, MODEL, run
from tests.fakes.daemon import DaemonProcess

from gemini_poold.fake import FakeGoogle


def test_types(packages: Path, tmp_path: Path) -> None:
    """Every use of VS Code's API and of the client's holds against their types; a wrong one would be found."""
    for name in ("vscode", "typescript"):
        shutil.copytree(CLIENTS / name, tmp_path / name)
    (tmp_path / "node_modules").symlink_to(packages)
    flags = "--noEmit --strict --checkJs --allowJs --skipLibCheck --target es2023 --module nodenext"
    flags += " --lib es2023,dom,dom.iterable --types node,vscode vscode/extension.js"

    def tsc() -> subprocess.CompletedProcess[str]:
        command = [str(packages / ".bin" / "tsc"), *flags.split()]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)

    right = tsc()
    assert right.returncode == 0, right.stdout
    source = tmp_path / "vscode" / "extension.js"
    source.write_text(source.read_text(encoding="utf-8").replace("createStatusBarItem(", "createStatusItem("))
    assert "createStatusItem" in tsc().stdout


@pytest.fixture
def unpacked(packages: Path, tmp_path: Path) -> Path:
    """The extension out of its .vsix, which is built as its page says, with the stand-in for VS Code beside it."""
    folder = tmp_path / "staged"
    page = (EXTENSION / "README.md").read_text(encoding="utf-8")
    build, install = re.findall(r"^```sh\n(.*?)^(code .*?)\n```$", page, re.M | re.S)[0]
    build = build.replace("/tmp/gemini-pool-vscode", str(folder))
    build = build.replace("npx @vscode/vsce@3", str(packages / ".bin" / "vsce"))
    made = subprocess.run(
        ["bash", "-e", "-c", build],
        cwd=CLIENTS.parent, capture_output=True, text=True, timeout=180, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert made.returncode == 0, made.stdout + made.stderr
    with zipfile.ZipFile(folder / install.split()[-1]) as archive:
        archive.extractall(tmp_path / "vsix")
    extension = tmp_path / "vsix" / "extension"
    stub = extension / "node_modules" / "vscode"
    stub.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("stub.mjs"), stub / "index.mjs")
    (stub / "package.json").write_text('{ "exports": "./index.mjs" }')
    return extension


def test_the_package(unpacked: Path) -> None:
    """It holds the client that replays the transcripts, byte for byte, and nothing that reaches out of it."""
    found = {
        str(path.relative_to(unpacked))
        for path in unpacked.rglob("*")
        if path.is_file() and "node_modules" not in path.parts
    }
    client = {"client/index.js", "client/rpc.js", "client/gateway.js", "client/package.json"}
    assert {each.lower() for each in found} == client | {
        "extension.js", "pool.js", "chat.js", "package.json", "readme.md", "license.txt",
    }  # fmt: skip
    for name in ("index.js", "rpc.js", "gateway.js"):
        assert (unpacked / "client" / name).read_bytes() == (CLIENTS / "typescript" / name).read_bytes()
    for name in ("extension.js", "pool.js", "chat.js"):
        code = "\n".join(
            line
            for line in (unpacked / name).read_text(encoding="utf-8").splitlines()
            if line.startswith("import")
        )
        assert "../" not in code


def test_transcripts(unpacked: Path, tmp_path: Path) -> None:
    """The client that lies in the .vsix replays them all."""
    for script in scripts("client"):
        replay(script.name, ["node"], tmp_path, GEMINI_POOL_CLIENT=str(unpacked / "client" / "index.js"))


def test_the_extension_starts(daemon: DaemonProcess, google: FakeGoogle, unpacked: Path) -> None:
    """Activated, it registers what its manifest names; a person logs in, pins, looks, and chats."""
    head = (
        'import { activate } from "./extension.js"\nimport * as vscode from "vscode"\n'
        f'const {{ seen, answers }} = vscode, MODEL = "{MODEL}"\n'
    )
    secrets = json.dumps(google.world.client_file(next(iter(google.world.clients.values()))))
    manifest = json.loads((unpacked / "package.json").read_text(encoding="utf-8"))["contributes"]
    registered, bar, login, asked, pinned, texts, failed, models, parts, count, stopped, wrong, unpinned = run(
        daemon, unpacked / "program.mjs", head + f"const secrets = {secrets}\n" + """
        const context = { subscriptions: [] }
        const command = (name, ...replies) => (answers.push(...replies), seen.commands[`geminiPool.${name}`]())
        const item = (label) => (items) => items.find((one) => one.label === label || one.action === label)
        await activate(context)
        say([Object.keys(seen.commands), Object.keys(seen.providers)]), say(seen.bars[0].text)

        // In a remote window: what the page led to is pasted.
        const back = async () => (await fetch(seen.opened[0], { redirect: "manual" })).headers.get("location")
        await command("login", () => "ann", () => ({ client: { client_secrets: secrets } }), back)
        say([seen.said.at(-1), ...seen.failed]), say(seen.asked.at(-1).password)

        await command("accounts", item("b"), item("pin"))
        say([seen.said.at(-1), seen.bars[0].tooltip])
        await command("explain", () => MODEL), await command("quota")
        say(seen.documents)
        await command("login", () => "", ), await command("accounts", () => ({ label: "nobody", enabled: true }), item("verify"))
        say(seen.failed)

        const provider = seen.providers["gemini-pool"], parts = []
        const models = await provider.provideLanguageModelChatInformation({ silent: true }, vscode.token())
        say(models.find(({ id }) => id === MODEL))
        const messages = [{ role: 1, content: [new vscode.LanguageModelTextPart("hello")] }]
        const progress = { report: (part) => parts.push(part.value) }
        await provider.provideLanguageModelChatResponse({ id: MODEL }, messages, { toolMode: 1 }, progress, vscode.token())
        say(parts), say(await provider.provideTokenCount({}, "12345"))
        const stopped = vscode.token()
        const stop = { report: () => stopped.cancel() }
        say(await provider.provideLanguageModelChatResponse({ id: MODEL }, messages, { toolMode: 1 }, stop, stopped) ?? "stopped")
        const wrong = provider.provideLanguageModelChatResponse({ id: "no-such" }, messages, { toolMode: 1 }, progress, vscode.token())
        say(await wrong.catch((error) => error.message))
        await command("unpin", item("b"))
        say([seen.said.at(-1), seen.bars[0].tooltip])
        for (const one of context.subscriptions) one.dispose()
        """,
    )  # fmt: skip
    assert registered[0] == [one["command"] for one in manifest["commands"]]
    assert registered[1] == [one["vendor"] for one in manifest["languageModelChatProviders"]]
    assert bar.startswith("$(sparkle) gemini ")
    assert len(login) == 1
    assert login[0].startswith("ann: ready")
    assert asked is True
    assert pinned[0].startswith("b is used before all others")
    assert pinned[1].endswith("\npinned: b")
    assert unpinned[0] == "b is not pinned any more."
    assert "pinned" not in unpinned[1]
    assert texts[0].startswith(f"{MODEL}: ")
    assert len(texts) == 2
    assert len(failed) == 1
    assert "nobody" in failed[0]
    assert models["capabilities"]["toolCalling"] is True
    assert models["maxInputTokens"] > 1000
    assert "".join(parts).endswith("you said: hello")
    assert google.record.count("stream", credential="b") >= 1
    assert google.record.count("stream", credential="a", status=200) == 0
    assert count == 2
    assert stopped == "stopped"
    assert wrong.startswith("gemini-pool: ")
    assert "(" in wrong
