"""`gemini-pool env`: the variables that point each real tool at the gateway, and the local key they carry.

The variables' names are the tools' own; each set here was seen to work with the unmodified tool.
"""

from __future__ import annotations

import json
import os
import shlex
import tomllib
from pathlib import Path
from typing import Any

from gemini_pool import wire
from gemini_pool.errors import PoolError

_NOTES = {
    "gemini-cli": "gemini-cli speaks Code Assist to the gateway, which needs no settings file",
    "opencode": "opencode's google provider; models as google/MODEL",
    "genai": "google-genai for Python and JavaScript, and whatever is built on them",
    "vertex": "google-genai in its Vertex mode",
}


def settings(name: str, info: wire.DaemonInfo) -> dict[str, str]:
    """Variables and values for the tool. Raises `PoolError` when the gateway or its key is not to be had."""
    if not info.gateway_url:
        raise PoolError(
            "not_found",
            f"the gateway has no loopback port: {info.gateway_error or 'it is switched off'}",
            hint="set [gateway] listen in config.toml, then restart the daemon",
        )
    url, key = info.gateway_url.rstrip("/"), local_key(info)
    match name:
        case "gemini-cli":
            return {
                "GOOGLE_GENAI_USE_GCA": "true",
                "GOOGLE_CLOUD_ACCESS_TOKEN": key,
                "CODE_ASSIST_ENDPOINT": url,
            }
        case "opencode":
            options = {"baseURL": f"{url}/v1beta", "apiKey": key}
            return {"OPENCODE_CONFIG_CONTENT": json.dumps({"provider": {"google": {"options": options}}})}
        case "vertex":
            return {"GOOGLE_GENAI_USE_VERTEXAI": "true", "GOOGLE_VERTEX_BASE_URL": url, "GOOGLE_API_KEY": key}
        case _:
            return {"GEMINI_API_KEY": key, "GOOGLE_GEMINI_BASE_URL": url}


def as_shell(name: str, values: dict[str, str]) -> str:
    """Lines for a POSIX shell."""
    lines = [f"# {_NOTES[name]}"]
    lines += [f"export {variable}={shlex.quote(value)}" for variable, value in values.items()]
    return "\n".join(lines)


def local_key(info: wire.DaemonInfo) -> str:
    """The gateway's local key, read where the configuration says. Only who may read it anyway can."""
    reference = _reference(Path(info.config_file))
    if "file" in reference:
        path = Path(info.state_dir) / str(reference["file"])
        try:
            return path.read_text().strip()
        except OSError as error:
            raise PoolError(
                "not_found", f"the gateway's key cannot be read: {path}: {error.strerror}"
            ) from None
    if "env" in reference and (key := os.environ.get(str(reference["env"]))):
        return key.strip()
    raise PoolError(
        "not_found",
        f"the gateway's key is kept where this command does not look: {', '.join(reference)}",
        hint="see [gateway] key in config.toml",
    )


def _reference(config_file: Path) -> dict[str, Any]:
    """`[gateway] key` of the configuration, else its default. The daemon has judged the file already."""
    try:
        key = tomllib.loads(config_file.read_text()).get("gateway", {}).get("key", {})
    except (OSError, ValueError, AttributeError):
        key = {}
    return key if isinstance(key, dict) and key else {"file": "gateway.key"}
