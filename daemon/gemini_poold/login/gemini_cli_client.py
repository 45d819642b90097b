"""The OAuth client of a Gemini CLI that is installed here, read from its own files.

Nothing of it stands in our source. Call this only after its user's explicit yes (`terms`): the client is another
program's, and a login made with it is foreign.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from ..credentials.base import Secret
from ..errors import PoolError
from .oauth_client import FOREIGN, OAuthClient

PACKAGES = frozenset({"@google/gemini-cli", "@google/gemini-cli-core"})
# Where the constants are: compiled sources of the core package, or the one bundle that releases ship.
PLACES = (
    "dist/src/code_assist/oauth2.js",
    "node_modules/@google/gemini-cli-core/dist/src/code_assist/oauth2.js",
    "../gemini-cli-core/dist/src/code_assist/oauth2.js",
    "packages/core/src/code_assist/oauth2.ts",
    "packages/core/dist/src/code_assist/oauth2.js",
)
BUNDLES = ("bundle/*.js", "dist/*.js", "dist/src/*.js")
MAX_FILE = 128 << 20
NEAR = 2_000  # characters: between the two constants stand comments ...
NEXT = 80  # ... but none in a minified bundle, where their names are gone
HINT = "npm install -g @google/gemini-cli, or use an OAuth client of your own (--client-secrets FILE)"

_ID = re.compile(r"""(?P<quote>["'`])(?P<id>\d[0-9a-z-]{5,100}\.apps\.googleusercontent\.com)(?P=quote)""")
_NAMED = re.compile(
    r"""CLIENT_?SECRET\w*\s*[:=]\s*(?P<quote>["'`])(?P<secret>[\w-]{8,128})(?P=quote)""", re.IGNORECASE
)
_ANY = re.compile(r"""[:=]\s*(?P<quote>["'`])(?P<secret>[\w-]{20,64})(?P=quote)""")


def find(environ: Mapping[str, str], given: Path | None = None) -> OAuthClient:
    """The client, of the installation at `given` or of the `gemini` on the PATH. Blocks for some 0.1 s.

    Raises PoolError "not_found" that says where was looked.
    """
    roots = [given] if given is not None else list(_roots(environ))
    for root in roots:
        for path in _files(root):
            if (client := in_text(_read(path))) is not None:
                return client
    where = ", ".join(str(root) for root in roots) or "the PATH"
    raise PoolError("not_found", f"no Gemini CLI's OAuth client in {where}", hint=HINT)


def path_of(given: str) -> Path | None:
    """A path that a person gave; None for none."""
    return Path(given).expanduser() if given else None


def in_text(text: str) -> OAuthClient | None:
    """The client whose id and secret stand next to each other in a program's text. Where names survived, the secret
    is the constant called so; in a minified bundle it is the next text of its kind."""
    ids = list(_ID.finditer(text))
    for pattern, reach in ((_NAMED, NEAR), (_ANY, NEXT)):
        for match in ids:
            behind = text[match.end() : match.end() + reach]
            if (secret := pattern.search(behind)) is not None:
                return OAuthClient(match["id"], Secret(secret["secret"]), FOREIGN)
    return None


def _roots(environ: Mapping[str, str]) -> Iterator[Path]:
    """Folders of installed packages: where `gemini` on the PATH really is, then npm's usual places."""
    seen: set[Path] = set()
    command = shutil.which("gemini", path=environ.get("PATH", os.defpath))
    starts = [Path(command).resolve()] if command else []
    home = Path(environ.get("HOME") or Path.home())
    modules = "lib/node_modules/@google/gemini-cli"
    prefixes = (environ.get("npm_config_prefix", ""), str(home / ".npm-global"), "/usr/local", "/usr")
    starts += [Path(prefix) / modules / "package.json" for prefix in prefixes if prefix]
    for start in starts:
        root = _package(start)
        if root is not None and root not in seen:
            seen.add(root)
            yield root


def _package(path: Path) -> Path | None:
    """The nearest folder above that is one of the packages."""
    for folder in path.parents:
        manifest = folder / "package.json"
        try:
            name = msgspec.json.decode(manifest.read_bytes()).get("name")
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, AttributeError):
            continue
        if name in PACKAGES:
            return folder
    return None


def _files(root: Path) -> Iterator[Path]:
    if root.is_file():
        yield root
        return
    for name in PLACES:
        yield root / name
    for pattern in BUNDLES:
        yield from sorted(root.glob(pattern))


def _read(path: Path) -> str:
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode) or info.st_size > MAX_FILE:
            return ""
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
