"""Which way the arrows point: DESIGN.md's chart as a table, and every import of the tree held against it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {"gemini_pool": ROOT / "client/python", "gemini_poold": ROOT / "daemon"}

CLIENT = "client"
BASE = frozenset(
    {
        "accepting",
        "coding",
        "errors",
        "clock",
        "files",
        "config",
        "transport",
        "http1",
        "proxies",
        "log",
        "spool",
        "tomlfile",
        "websocket",
    }
)
SIDE = frozenset({"credentials", "backends", "accounts", "store"})
SURFACES = frozenset({"ipc", "gateway"})
SHELL = SIDE | {"runtime"}

# A room and what it may import of ours. The base is one room: its modules may import each other and the client.
ALLOWED: dict[str, frozenset[str]] = {
    CLIENT: frozenset(),
    "core": frozenset(),
    "base": frozenset({CLIENT}),
    **dict.fromkeys(SIDE, frozenset({CLIENT, "base", "core"})),
    "dialects": frozenset({CLIENT, "base", "backends"}),
    "runtime": frozenset({CLIENT, "base", "core"}) | SIDE,
    "ipc": frozenset({CLIENT, "base", "core"}) | SHELL,
    "gateway": frozenset({CLIENT, "base", "core", "dialects"}) | SHELL,
    "login": frozenset({CLIENT, "base", "core"}) | SHELL,
    "transfer": frozenset({CLIENT, "base", "core", "login"}) | SHELL,
    "service": frozenset({CLIENT, "base"}),
    "handover": frozenset({"base", "service"}),
    "launchd": frozenset(),
    "dump": frozenset(),
    "garbage": frozenset({"base"}),
    "reload": frozenset({CLIENT, "base", "core"}) | SHELL,
    "configcheck": frozenset({CLIENT, "base", "accounts"}),
    "secrets_command": frozenset({CLIENT, "base", "accounts", "credentials"}),
    "app": frozenset({CLIENT, "base", "core", "service", "handover", "launchd", "dump", "garbage", "reload"})
    | {"login", "transfer"}
    | SHELL
    | SURFACES,
    "__main__": frozenset({CLIENT, "base", "app", "configcheck", "demo", "secrets_command"}),
    "fake": frozenset({"base"}),
    "demo": frozenset({CLIENT, "base", "core", "service", "app", "fake"}) | SHELL | SURFACES,
}

# Which rooms may name a library. Its exceptions become ours where it enters, so it enters in few places.
LIBRARIES: dict[str, frozenset[str]] = {
    "msgspec": frozenset(ALLOWED) - {"core"},
    "aiohttp": frozenset({"base", "gateway", "fake", "demo"}),
    "yarl": frozenset({"base", "gateway", "fake", "demo"}),
    "multidict": frozenset({"base", "gateway", "fake", "demo"}),
    "google": frozenset({"credentials"}),
    "cryptography": frozenset({"credentials", "transfer", "fake", "demo"}),
    "jeepney": frozenset({"runtime"}),
    "keyring": frozenset({"credentials"}),
    "pyrage": frozenset({"transfer"}),
    "tomlkit": frozenset({"accounts"}),
    "watchfiles": frozenset({"accounts"}),
    "sdnotify": frozenset({"service"}),
    "opentelemetry": frozenset({"gateway"}),
    "uvloop": frozenset({"app", "__main__"}),
}

# The client's optional bridges to other libraries: each names its own, and nothing else of the client names a bridge.
ADAPTERS = "gemini_pool.adapters"
ADAPTED: dict[str, frozenset[str]] = {
    f"{ADAPTERS}.aiohttp": frozenset({"aiohttp"}),
    f"{ADAPTERS}.genai": frozenset({"google", "httpx"}),
    f"{ADAPTERS}.google_auth": frozenset({"google"}),
    f"{ADAPTERS}.httpx": frozenset({"httpx", "httpx2"}),
    f"{ADAPTERS}.langchain": frozenset({"httpx", "langchain_google_genai"}),
    f"{ADAPTERS}.litellm": frozenset({"httpx", "litellm"}),
}

# The core is given time, chance and everything else: it cannot even name where they come from.
NOT_IN_CORE = frozenset(
    "asyncio concurrent ctypes logging multiprocessing os pathlib queue random secrets select selectors shutil "
    "signal socket sqlite3 ssl subprocess sys tempfile threading time uuid".split()
)
CLOCKS = frozenset({"now", "utcnow", "today"})


class Import(NamedTuple):
    """One import: where it stands, what it names, and whether it runs when its module is loaded."""

    path: Path
    line: int
    module: str
    at_load: bool

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}: imports {self.module}"


def modules() -> list[tuple[str, Path]]:
    """Every module of both packages by its dotted name."""
    found = []
    for package, folder in PACKAGES.items():
        for path in sorted((folder / package).rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            found.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return found


def room(module: str) -> str:
    """The room of a module of ours; an unknown one is its own first name."""
    package, _, rest = module.partition(".")
    if package == "gemini_pool":
        return CLIENT
    first = rest.partition(".")[0]
    return "base" if first in BASE or not first else first


def imports(name: str, path: Path, tree: ast.AST) -> Iterator[Import]:
    """Every import of a module, `from x import y` as x.y where that is a module."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node, inside in _walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(path, node.lineno, alias.name, not inside)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                parents = parents[: len(parents) - node.level + 1]
                base = ".".join([*parents, base]).rstrip(".")
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield Import(path, node.lineno, full if full in NAMES else base, not inside)


def _walk(tree: ast.AST, inside: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    for node in ast.iter_child_nodes(tree):
        yield node, inside
        yield from _walk(node, inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


MODULES = modules()
NAMES = frozenset(name for name, _ in MODULES)
TREES = {name: ast.parse(path.read_text(encoding="utf-8"), str(path)) for name, path in MODULES}
IMPORTS = {name: list(imports(name, path, TREES[name])) for name, path in MODULES}
CORE = [name for name, _ in MODULES if room(name) == "core"]


def verdict(name: str, found: Import) -> str:
    """Why this import is forbidden, or ""."""
    here = room(name)
    top = found.module.partition(".")[0]
    if found.module.startswith(ADAPTERS) and not name.startswith(ADAPTERS):
        return "adapters are for programs that have their libraries: nothing of ours loads one"
    if top in ADAPTED.get(name, ()):
        return ""
    if top in PACKAGES:
        there = room(found.module)
        if there == here or there in ALLOWED[here]:
            return ""
        if here == CLIENT:
            return "the client never imports the daemon: it is installed with msgspec alone"
        if there == "fake":
            return "only demo and tests may name the fake Google: it must not reach a running daemon"
        if there == "core" or here == "core":
            return "core decides and does nothing else: standard library only"
        if {here, there} <= SIDE or {here, there} <= SURFACES:
            return "rooms side by side do not import each other"
        return f"arrows point upwards only: {here} may import {', '.join(sorted(ALLOWED[here])) or 'nothing'}"
    if top in sys.stdlib_module_names:
        if here == "core" and top in NOT_IN_CORE:
            return "core has no await, clock, randomness, environment or log"
        if top == "sqlite3" and here != "store":
            return "SQLite is the store's"
        return ""
    if here == "core":
        return "core decides and does nothing else: standard library only"
    if here == CLIENT and top != "msgspec":
        return "the client needs msgspec and nothing else"
    if top not in LIBRARIES:
        return f"{top} is no library of ours: LIBRARIES in this file says where one may be named"
    if here not in LIBRARIES[top]:
        return f"{top} enters through {', '.join(sorted(LIBRARIES[top]))} only"
    return ""


@pytest.mark.parametrize("name", sorted(NAMES))
def test_arrows(name: str) -> None:
    """A module imports only what DESIGN.md's chart lets its room import."""
    assert room(name) in ALLOWED, f"{name} is in no room of DESIGN.md's chart: add it there and to ALLOWED"
    bad = [f"{found}: {why}" for found in IMPORTS[name] if (why := verdict(name, found))]
    assert not bad, "\n" + "\n".join(bad)


@pytest.mark.parametrize("name", CORE)
def test_core_neither_waits_nor_reads_clocks(name: str) -> None:
    """Nothing in the core is a coroutine, opens a file or asks a clock."""
    bad = []
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            bad.append(f"line {node.lineno}: waits")
        elif isinstance(node, ast.Attribute) and node.attr in CLOCKS and "date" in ast.unparse(node.value):
            bad.append(f"line {node.lineno}: reads the clock ({ast.unparse(node)})")
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in {
            "open",
            "print",
            "input",
            "exec",
            "eval",
        }:
            bad.append(f"line {node.lineno}: calls {ast.unparse(node.func)}")
    assert not bad, "\n" + "\n".join(bad)


def test_demo_is_loaded_by_its_verb_alone() -> None:
    """Nothing imports the demo, and with it the fake Google, when it is merely loaded."""
    bad = [
        str(found)
        for name in NAMES
        for found in IMPORTS[name]
        if found.at_load
        and room(name) not in {"demo", "fake"}
        and found.module.startswith(("gemini_poold.demo", "gemini_poold.fake"))
    ]
    assert not bad, bad


def test_the_running_daemon_has_no_fake_in_it() -> None:
    """Loading what `gemini-pool run` loads brings in neither the fake Google nor the demo."""
    code = "import sys, gemini_poold.app, gemini_poold.__main__; print('\\n'.join(sys.modules))"
    path = ":".join(str(folder) for folder in PACKAGES.values())
    child = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": path, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = child.stdout.split()
    assert "gemini_poold.app" in loaded
    assert not [name for name in loaded if name.startswith(("gemini_poold.fake", "gemini_poold.demo"))]


@pytest.mark.parametrize(
    ("name", "module", "because"),
    [
        ("gemini_pool.cli", "gemini_poold.app", "the client never imports"),
        ("gemini_pool.cli", "aiohttp", "msgspec and nothing else"),
        ("gemini_poold.core.state", "gemini_poold.errors", "core decides"),
        ("gemini_poold.core.state", "time", "no await, clock"),
        ("gemini_poold.core.state", "msgspec", "standard library only"),
        ("gemini_poold.credentials.oauth_user", "gemini_poold.backends.base", "side by side"),
        ("gemini_poold.ipc.verbs", "gemini_poold.gateway.app", "side by side"),
        ("gemini_poold.store", "gemini_poold.runtime.broker", "upwards only"),
        ("gemini_poold.app", "gemini_poold.fake.google", "the fake Google"),
        ("gemini_poold.runtime.broker", "aiohttp", "enters through"),
        ("gemini_poold.runtime.broker", "sqlite3", "store's"),
        ("gemini_poold.runtime.broker", "requests", "no library of ours"),
    ],
)
def test_a_wrong_import_is_told_with_its_reason(name: str, module: str, because: str) -> None:
    """The table itself: each kind of wrong import is found, and the reason names the rule."""
    assert because in verdict(name, Import(ROOT / "x.py", 1, module, at_load=True))
