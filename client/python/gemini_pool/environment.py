"""`gemini-pool env`: the variables that point each real tool at the gateway, and the local key they carry.

The variables' names are the tools' own; each set here was seen to work with the unmodified tool. What goes into the
tools' files instead is in `tool_config.py`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gemini_pool import wire
from gemini_pool.errors import PoolError

FORMATS = ("sh", "fish", "json", "dotenv")


@dataclass(frozen=True, slots=True)
class Settings:
    """What one tool needs. `unset`: variables which, left from elsewhere, would make it go past the gateway."""

    note: str
    values: Mapping[str, str]
    unset: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, repr=False)
class Gateway:
    """Where the gateway listens and what it wants to be shown. `key_file` is "" where the key is no file's."""

    url: str
    key: str
    key_file: str = ""
    metadata: bool = False


def gateway_of(info: wire.DaemonInfo) -> Gateway:
    """The running daemon's gateway. Raises `PoolError` when it or its key is not to be had."""
    if not info.gateway_url:
        raise PoolError(
            "not_found",
            f"the gateway has no loopback port: {info.gateway_error or 'it is switched off'}",
            hint="set [gateway] listen in config.toml, then restart the daemon",
        )
    configured = _configured(Path(info.config_file))
    reference = _reference(configured)
    file = str(Path(info.state_dir) / str(reference["file"])) if "file" in reference else ""
    return Gateway(
        info.gateway_url.rstrip("/"), local_key(info), file, metadata=bool(configured.get("metadata_account"))
    )


def settings(name: str, gateway: Gateway) -> Settings:
    """The settings of the tool. Raises `PoolError` for the metadata server when it is off."""
    return _TOOLS[name](gateway)


# ---- the tools ----------------------------------------------------------------------------------------------------

_OTHER_KEYS = ("GOOGLE_API_KEY", "GOOGLE_GENAI_USE_VERTEXAI", "GOOGLE_GENAI_USE_ENTERPRISE")


def _gemini_cli(gateway: Gateway) -> Settings:
    # Whichever way of logging in its settings file names, it comes here: the first three are for none and for
    # "Login with Google", the others for "Use Gemini API key".
    values = {
        "GOOGLE_GENAI_USE_GCA": "true",
        "GOOGLE_CLOUD_ACCESS_TOKEN": gateway.key,
        "CODE_ASSIST_ENDPOINT": gateway.url,
        "GEMINI_API_KEY": gateway.key,
        "GOOGLE_GEMINI_BASE_URL": gateway.url,
    }
    return Settings("gemini-cli; no settings file is needed", values)


def _opencode(gateway: Gateway) -> Settings:
    options = {"baseURL": f"{gateway.url}/v1beta", "apiKey": gateway.key}
    content = json.dumps({"provider": {"google": {"options": options}}})
    return Settings("opencode; models as google/MODEL", {"OPENCODE_CONFIG_CONTENT": content})


def _genai(gateway: Gateway) -> Settings:
    values = {
        "GEMINI_API_KEY": gateway.key,
        "GOOGLE_GEMINI_BASE_URL": gateway.url,
        "GEMINI_API_BASE": f"{gateway.url}/v1beta",  # litellm's, and with it aider's
    }
    return Settings("google-genai for Python and JavaScript, and what is built on them", values, _OTHER_KEYS)


def _openai(gateway: Gateway) -> Settings:
    values = {
        "OPENAI_BASE_URL": f"{gateway.url}/v1",
        "OPENAI_API_BASE": f"{gateway.url}/v1",  # litellm's, and with it aider's
        "OPENAI_API_KEY": gateway.key,
    }
    return Settings("the OpenAI SDKs, and what is built on them", values)


def _vertex(gateway: Gateway) -> Settings:
    values = {
        "GOOGLE_GENAI_USE_VERTEXAI": "true",
        "GOOGLE_VERTEX_BASE_URL": gateway.url,
        "GOOGLE_API_KEY": gateway.key,
    }
    # A project or location goes before the key, and then Google's own login is asked for.
    unset = ("GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_LOCATION", "GOOGLE_GENAI_USE_ENTERPRISE", "GEMINI_API_KEY")
    return Settings("google-genai in its Vertex mode", values, unset)


def _metadata(gateway: Gateway) -> Settings:
    if not gateway.metadata:
        raise PoolError(
            "not_found",
            "the metadata server is off",
            hint="set [gateway] metadata_account in config.toml, then run gemini-pool reload",
        )
    place = urlsplit(gateway.url).netloc
    # Python's google-auth asks the second one whether it runs on Google's machines at all.
    values = {"GCE_METADATA_HOST": place, "GCE_METADATA_IP": place}
    return Settings(
        "every SDK of Google's, with tokens of the pool's", values, ("GOOGLE_APPLICATION_CREDENTIALS",)
    )


_TOOLS: Mapping[str, Callable[[Gateway], Settings]] = {
    "gemini-cli": _gemini_cli,
    "opencode": _opencode,
    "genai": _genai,
    "openai": _openai,
    "vertex": _vertex,
    "metadata": _metadata,
}


# ---- how they are printed -----------------------------------------------------------------------------------------


def printed(found: Settings, form: str) -> str:
    """The settings for a POSIX shell, fish, a program (null: unset it) or a .env file."""
    return _FORMS[form](found)


def _sh(found: Settings) -> str:
    lines = [f"# {found.note}"]
    lines += [f"unset {' '.join(found.unset)}"] if found.unset else []
    return "\n".join(lines + [f"export {name}={shlex.quote(value)}" for name, value in found.values.items()])


def _fish(found: Settings) -> str:
    lines = [f"# {found.note}"] + [f"set -e {name}" for name in found.unset]
    return "\n".join(
        lines + [f"set -gx {name} {_fish_quoted(value)}" for name, value in found.values.items()]
    )


def _fish_quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _json(found: Settings) -> str:
    return json.dumps({**found.values, **dict.fromkeys(found.unset)}, indent=2)


def _dotenv(found: Settings) -> str:
    lines = [f"# {found.note}"] + [f"# not to be set: {name}" for name in found.unset]
    return "\n".join(lines + [f"{name}={dotenv_quoted(value)}" for name, value in found.values.items()])


def dotenv_quoted(value: str) -> str:
    """A value as the dotenv readers agree on it: bare, else in single quotes, which none of them looks into."""
    if re.fullmatch(r"[\w./:@%+,-]+", value, re.ASCII):
        return value
    if "'" in value or "\n" in value:
        raise PoolError("bad_request", "a .env file cannot hold a value with a quote or line break in it")
    return f"'{value}'"


_FORMS: Mapping[str, Callable[[Settings], str]] = {"sh": _sh, "fish": _fish, "json": _json, "dotenv": _dotenv}


# ---- the local key ------------------------------------------------------------------------------------------------


def local_key(info: wire.DaemonInfo) -> str:
    """The gateway's local key, read where the configuration says. Only who may read it anyway can."""
    reference = _reference(_configured(Path(info.config_file)))
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


def _configured(config_file: Path) -> dict[str, Any]:
    """The configuration's [gateway]. The daemon has judged the file already."""
    try:
        gateway = tomllib.loads(config_file.read_text()).get("gateway", {})
    except (OSError, ValueError):
        gateway = {}
    return gateway if isinstance(gateway, dict) else {}


def _reference(configured: dict[str, Any]) -> dict[str, Any]:
    """`key` of [gateway], else its default."""
    key = configured.get("key")
    return key if isinstance(key, dict) and key else {"file": "gateway.key"}
