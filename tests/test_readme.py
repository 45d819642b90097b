"""README is the contract: its commands are what CI runs, its verbs exist, its examples parse; and nothing in the tree
names a registry, a machine's own folders, or looks like a secret."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = [match.groups() for match in re.finditer(r"^```(\w*)\n(.*?)^```$", README, re.M | re.S)]

DEMO = "python3 -m venv .venv && .venv/bin/pip install --quiet . && .venv/bin/gemini-pool demo"
TESTS = (
    "python3 -m venv .venv && .venv/bin/pip install --quiet --require-hashes -r requirements/test.txt && "
    ".venv/bin/pip install --quiet --no-deps . && .venv/bin/python -m pytest"
)


def blocks(language: str) -> list[str]:
    return [text for name, text in BLOCKS if name == language]


def verbs() -> set[str]:
    """The verbs of the command, from its own parser."""
    from gemini_pool import cli

    for action in cli.build_parser()._actions:
        if isinstance(action.choices, dict):
            return set(action.choices)
    raise AssertionError("the parser has no verbs")


def named_verbs(text: str) -> set[str]:
    """Each VERB of `gemini-pool VERB` in code: what a reader would type."""
    code = "\n".join(
        [*re.findall(r"^```sh\n(.*?)^```$", text, re.M | re.S), *re.findall(r"`([^`\n]+)`", text)]
    )
    return set(re.findall(r"(?:^|[\s(/])gemini-pool ([a-z][a-z-]*)", code, re.M)) - {"gateway"}


# ---- the two commands -----------------------------------------------------------------------------------------


def test_the_two_commands_stand_in_readme() -> None:
    """README's first two shell blocks are the demo and the tests, one line each."""
    assert [text.strip() for text in blocks("sh")[:2]] == [DEMO, TESTS]


def test_ci_runs_readme_s_test_command() -> None:
    """CI's first act is README's second command, to the letter."""
    assert (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines().count(TESTS) == 1


def test_ci_can_be_run() -> None:
    """The CI script is executable and stops at the first error."""
    path = ROOT / ".ci" / "run"
    assert path.stat().st_mode & 0o111
    assert "set -euo pipefail" in path.read_text(encoding="utf-8")


def test_allowed_skips_have_reasons() -> None:
    """Each pattern of allowed-skips has a comment above it and is a regular expression."""
    lines = [
        line for line in (ROOT / ".ci" / "allowed-skips").read_text(encoding="utf-8").splitlines() if line
    ]
    for above, line in zip(["", *lines], lines, strict=False):
        if not line.startswith("#"):
            assert above.startswith("# ")
            re.compile(line)


# ---- what README shows ----------------------------------------------------------------------------------------


def test_every_verb_in_readme_exists() -> None:
    """What README tells to type is a verb of the command."""
    assert named_verbs(README) >= {"demo", "run", "status", "ask", "token", "explain"}
    assert not named_verbs(README) - verbs()


# Verbs that are promised: a hint may name one of them only once it is there.
PROMISED = {
    *(
        "run",
        "demo",
        "login",
        "import",
        "export",
        "account",
        "status",
        "quota",
        "top",
        "explain",
        "ask",
        "token",
    ),
    *("env", "pause", "resume", "reload", "service", "doctor", "logs", "config", "secrets"),
}


def test_every_verb_in_a_hint_exists() -> None:
    """What an error tells to type is a verb of the command, too."""
    missing = "|".join(sorted(PROMISED - verbs()))
    unknown = []
    for path in [
        *ROOT.glob("daemon/**/*.py"),
        *ROOT.glob("client/python/**/*.py"),
        *ROOT.glob("packaging/*/*"),
    ]:
        for match in re.finditer(rf"gemini-pool ({missing})\b", path.read_text(encoding="utf-8")):
            unknown.append(f"{path.relative_to(ROOT)}: {match[0]}")
    assert not (missing and unknown)


def test_the_accounts_example_is_a_valid_accounts_file() -> None:
    """README's accounts.toml is read by the daemon's own reader, account by account."""
    from gemini_poold.accounts import schema

    (text,) = blocks("toml")
    entries = schema.parse(text, "accounts.toml")
    assert [entry.id for entry in entries] == [entry["id"] for entry in tomllib.loads(text)["account"]]


def test_the_python_example_compiles() -> None:
    """README's Python is Python."""
    for text in blocks("python"):
        compile(text, "README.md", "exec")


@pytest.mark.parametrize("text", re.findall(r"'(\{\"jsonrpc.*?\})'", README))
def test_json_rpc_examples_name_a_method(text: str) -> None:
    """A JSON-RPC line of README is JSON, and its method is one of the wire's."""
    message = json.loads(text)
    assert message["jsonrpc"] == "2.0"
    assert message["method"] in {"pool/quota", "pool/status"}


def test_links_into_the_tree_lead_somewhere() -> None:
    """A path in README's reading list exists."""
    named = re.findall(r"^- `([^`]*[./][^`]*)`:", README, re.M)
    assert named
    assert not [path for path in named if not (ROOT / path).exists()]


# ---- nothing private in the tree ------------------------------------------------------------------------------

HOSTS = ["pypi" + ".org", "python" + "hosted.org", "registry.npm" + "js.org", "registry.yarn" + "pkg.com"]
HOSTS += ["proxy.go" + "lang.org", "crates" + ".io", "ruby" + "gems.org", "npm.pkg.git" + "hub.com"]
FOLDERS = ["root", "work", "opt/" + "wheels", "opt/" + "pypi", "builds", "github/workspace"]
# A shape with "fake" in it is a test's own: what masks secrets has to be shown some.
FORBIDDEN = {
    "a package registry's host": re.compile("|".join(map(re.escape, HOSTS))),
    "a folder of one machine": re.compile(
        rf"(?<![\w.~$}}*-])/(?:{'|'.join(FOLDERS)})(?=[/\"'`\s:,;)]|$)", re.M
    ),
    "an API key": re.compile(r"AIza(?![\w-]*fake)[\w-]{30,}|\bAQ\.(?![\w-]*fake)[\w-]{20,}"),
    "an access token": re.compile(r"\bya29\.(?![\w-]*fake)[\w-]{20,}"),
    "a refresh token": re.compile(r"\b1//0(?![\w-]*fake)[\w-]{20,}"),
    "an OAuth client's secret": re.compile(r"GOCSPX-(?![\w-]*fake)[\w-]{20,}"),
    "an OAuth client of Google's": re.compile(r"\b\d{9,}-[0-9a-z]{20,}\.apps\.google" + "usercontent"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----\s*\n?[A-Za-z0-9+/=\\n]{60,}"),
}


def tracked() -> list[Path]:
    """The files under version control; outside of a checkout, all that are not built."""
    child = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if child.returncode == 0 and child.stdout:
        return [ROOT / name for name in child.stdout.decode().split("\0") if name and (ROOT / name).is_file()]
    built = {".git", ".venv", ".nox", "node_modules", "__pycache__", "build", "dist"}
    return [
        path for path in ROOT.rglob("*") if path.is_file() and not built & set(path.relative_to(ROOT).parts)
    ]


def text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


@pytest.mark.parametrize("what", FORBIDDEN)
def test_nothing_private_in_the_tree(what: str) -> None:
    """No file names a registry's host or a machine's own folder, or holds what looks like a real secret."""
    found = []
    for path in tracked():
        for match in FORBIDDEN[what].finditer(text := text_of(path)):
            line = text.count("\n", 0, match.start()) + 1
            found.append(f"{path.relative_to(ROOT)}:{line}: {match[0][:24]}")
    assert not found, f"{what}: {found}"


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("a package registry's host", "https://" + "pypi" + ".org/simple"),
        ("a folder of one machine", "see /ro" + "ot/x"),
        ("an API key", "AI" + "za" + "x" * 35),
        ("an access token", "ya" + "29." + "x" * 40),
        ("a refresh token", "1/" + "/0" + "x" * 40),
        ("an OAuth client's secret", "GOC" + "SPX-" + "x" * 28),
        ("an OAuth client of Google's", "681" + "255809395-" + "o" * 32 + ".apps.google" + "usercontent.com"),
        ("a private key", "-----BEGIN " + "PRIVATE KEY-----\n" + "M" * 64),
    ],
)
def test_the_scan_finds_what_it_looks_for(what: str, text: str) -> None:
    """Each pattern matches the real shape."""
    assert FORBIDDEN[what].search(text)
