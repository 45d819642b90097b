"""Doctor's look at the programs that are to use the pool: whether gemini-cli and opencode point here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gemini_pool.doctor import Finding, Patient

_GEMINI = ("CODE_ASSIST_ENDPOINT", "GOOGLE_GEMINI_BASE_URL")


def gemini_cli(p: Patient) -> Iterator[Finding]:
    """Its endpoint comes from the environment, or from ~/.gemini/.env."""
    home = Path(p.environ.get("HOME") or Path.home())
    if not (home / ".gemini").exists() and not shutil.which("gemini", path=p.environ.get("PATH")):
        return
    settings = {**_dotenv(home / ".gemini" / ".env"), **p.environ}
    urls = {name: settings[name] for name in _GEMINI if settings.get(name)}
    yield _verdict(p, "gemini-cli", next(iter(urls.values()), ""), next(iter(urls), _GEMINI[0]))


def opencode(p: Patient) -> Iterator[Finding]:
    """Its google provider's address, from the environment or its own file."""
    home = Path(p.environ.get("HOME") or Path.home())
    folder = Path(p.environ.get("XDG_CONFIG_HOME") or home / ".config") / "opencode"
    if not folder.exists() and not shutil.which("opencode", path=p.environ.get("PATH")):
        return
    texts = [p.environ.get("OPENCODE_CONFIG_CONTENT", "")]
    texts += [_read(folder / name) for name in ("opencode.json", "opencode.jsonc")]
    urls = [url for text in texts if (url := _base_url(text))]
    yield _verdict(p, "opencode", urls[0] if urls else "", "provider.google.options.baseURL")


def _verdict(p: Patient, tool: str, url: str, where: str) -> Finding:
    ours = p.info.gateway_url.rstrip("/") if p.info is not None else ""
    mend = f'eval "$(gemini-pool env {tool})"'
    if not url:
        return Finding(tool, "note", f"{tool} is here and does not use the pool", mend, runs=True)
    if not ours:
        return Finding(tool, "note", f"{tool} points to {url}; no gateway runs to compare it with")
    if url.startswith(ours):
        return Finding(tool, "ok", f"{tool} points here")
    return Finding(
        tool, "warning", f"{tool} points elsewhere: {where} is {url}, the gateway is {ours}", mend, runs=True
    )


def _dotenv(path: Path) -> dict[str, str]:
    pairs = (line.removeprefix("export ").partition("=") for line in _read(path).splitlines())
    return {name.strip(): value.strip().strip("\"'") for name, found, value in pairs if found}


def _base_url(text: str) -> str:
    try:
        found: Any = json.loads(text)["provider"]["google"]["options"]["baseURL"]
    except (ValueError, LookupError, TypeError):
        return ""
    return found if isinstance(found, str) else ""


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


CHECKS = [gemini_cli, opencode]
