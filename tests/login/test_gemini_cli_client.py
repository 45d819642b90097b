"""Finding an installed Gemini CLI's OAuth client: packages as npm lays them down, made up here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gemini_poold.errors import PoolError
from gemini_poold.login.gemini_cli_client import find, in_text, path_of

ID = "123456789-fakefakefake.apps.googleusercontent.com"
OTHER = "987654321-otherotherother.apps.googleusercontent.com"
SECRET = "fake-client-secret-of-nobody"

SOURCE = f"""
//  OAuth Client ID used to initiate OAuth2Client class.
const OAUTH_CLIENT_ID =
  '{ID}';
// OAuth Secret value used to initiate OAuth2Client class.
// {"why " * 200}
const OAUTH_CLIENT_SECRET = '{SECRET}';
"""
BUNDLE = f'exports2.CLOUD_SDK_CLIENT_ID = "{OTHER}";\n{"x = 1;" * 1000}\nvar OAUTH_CLIENT_ID = "{ID}";\nvar OAUTH_CLIENT_SECRET = "{SECRET}";'
MINIFIED = f'a="{OTHER}";b();{"x=1;" * 100}var c="{ID}",d="{SECRET}",e="https://codeassist.example"'


@pytest.mark.parametrize("text", [SOURCE, BUNDLE, MINIFIED])
def test_the_client_in_a_programs_text(text: str) -> None:
    """Id and secret are those that stand together, with or without their names; the login will be foreign."""
    client = in_text(text)
    assert client is not None
    assert (client.id, client.secret.reveal(), client.origin) == (ID, SECRET, "foreign")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no client here",
        f'x = "{ID}"',
        f'OAUTH_CLIENT_SECRET = "{SECRET}"',
        f'"{ID}" + y; {"z();" * 900} CLIENT_SECRET = "{SECRET}"',
    ],
)
def test_no_client_in_a_text(text: str) -> None:
    """Half a client is none."""
    assert in_text(text) is None


def package(root: Path, name: str, files: dict[str, str]) -> Path:
    root.mkdir(parents=True)
    (root / "package.json").write_text(json.dumps({"name": name}), encoding="utf-8")
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize(
    "files",
    [
        {"bundle/gemini.js": BUNDLE},
        {"bundle/gemini.js": "import './chunk-a.js'", "bundle/chunk-a.js": BUNDLE},
        {
            "node_modules/@google/gemini-cli-core/dist/src/code_assist/oauth2.js": SOURCE,
            "dist/index.js": "run()",
        },
        {"packages/core/src/code_assist/oauth2.ts": SOURCE},
    ],
)
def test_find_by_the_command(tmp_path: Path, files: dict[str, str]) -> None:
    """The `gemini` of the PATH leads to its package, whatever build it is."""
    root = package(tmp_path / "lib/node_modules/@google/gemini-cli", "@google/gemini-cli", files)
    command = root / next(iter(files))
    command.chmod(0o755)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "gemini").symlink_to(command)
    assert find({"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path)}).id == ID


def test_find_beside_a_core_package(tmp_path: Path) -> None:
    """npm may hoist the core package next to the command's."""
    root = package(tmp_path / "@google/gemini-cli", "@google/gemini-cli", {"dist/index.js": "run()"})
    package(
        tmp_path / "@google/gemini-cli-core",
        "@google/gemini-cli-core",
        {"dist/src/code_assist/oauth2.js": SOURCE},
    )
    assert find({}, root).id == ID


def test_find_in_npms_own_folder(tmp_path: Path) -> None:
    """A prefix of npm's counts although its `bin` is not on the PATH."""
    package(
        tmp_path / "lib/node_modules/@google/gemini-cli", "@google/gemini-cli", {"bundle/gemini.js": BUNDLE}
    )
    environ = {"PATH": "/nonexistent", "HOME": str(tmp_path / "home"), "npm_config_prefix": str(tmp_path)}
    assert find(environ).id == ID


def test_find_in_one_file(tmp_path: Path) -> None:
    """A person may name the very file."""
    path = tmp_path / "oauth2.js"
    path.write_text(SOURCE, encoding="utf-8")
    assert find({}, path_of(str(path))).id == ID


@pytest.mark.parametrize("given", ["", "here"])
def test_where_was_looked_is_said(tmp_path: Path, given: str) -> None:
    """Without a Gemini CLI the error names the places, and the way without one."""
    environ = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    with pytest.raises(PoolError) as caught:
        find(environ, tmp_path / given if given else tmp_path)
    assert str(tmp_path) in caught.value.message
    assert "--client-secrets" in caught.value.hint


def test_another_programs_gemini_is_not_taken(tmp_path: Path) -> None:
    """A command of the same name that is no package of Google's is passed by."""
    root = package(tmp_path / "other", "gemini", {"bundle/gemini.js": BUNDLE})
    (root / "bundle/gemini.js").chmod(0o755)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "gemini").symlink_to(root / "bundle/gemini.js")
    with pytest.raises(PoolError):
        find({"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path), "npm_config_prefix": str(tmp_path)})
