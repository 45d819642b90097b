"""`gemini-pool service {install,uninstall,status,print}`: which manager is here, and what it is told.

Standard library and msgspec; works with the daemon down. Accounts, secrets and state are never touched.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
import tomllib
from collections.abc import Mapping
from typing import Any

from gemini_pool import paths, service_systemd
from gemini_pool.errors import NotRunning, PoolError
from gemini_pool.service_command import this_installation
from gemini_pool.service_launchd import Launchd, Neither
from gemini_pool.service_systemd import Systemd

MANAGERS = ("systemd", "launchd", "none")
Managing = Systemd | Launchd | Neither


def pick(
    name: str = "", environ: Mapping[str, str] | None = None, *, platform: str = sys.platform
) -> Managing:
    """The service manager of this session, or the one that is named."""
    environ = os.environ if environ is None else environ
    if not name:
        name = "launchd" if platform == "darwin" else "systemd" if service_systemd.there() else "none"
    kinds: dict[str, type[Managing]] = {"systemd": Systemd, "launchd": Launchd, "none": Neither}
    return kinds[name](environ)


def gateway_listen(where: paths.Places) -> str:
    """`[gateway] listen` of the configuration for a manager to hold: "" when it is off, or any free port."""
    try:
        gateway = tomllib.loads(where.config_file.read_text(encoding="utf-8")).get("gateway", {})
        listen = gateway.get("listen", paths.GATEWAY_LISTEN)
    except FileNotFoundError:
        return paths.GATEWAY_LISTEN
    except (OSError, ValueError, AttributeError):
        return ""  # the daemon says what is wrong with the file
    return listen if isinstance(listen, str) and not listen.endswith(":0") else ""


def main(options: argparse.Namespace) -> int:
    """One action; its exit code (`status`: 0 runs, 3 does not)."""
    manager = pick(options.manager)
    match options.action:
        case "print":
            return _print(manager)
        case "install":
            _refuse_beside_another(manager)
            sandbox = {"auto": None, "on": True, "off": False}[options.sandbox]
            said = manager.install(
                this_installation(), gateway_listen(paths.places()),
                force=options.force, sandbox=sandbox, start=not options.no_start,
            )  # fmt: skip
            print("\n".join(said))
            return 0
        case "uninstall":
            print("\n".join(manager.uninstall()))
            return 0
        case _:
            return _status(manager, as_json=options.json)


def _print(manager: Managing) -> int:
    texts = manager.texts(this_installation(), gateway_listen(paths.places()), sandbox=True)
    for name, text in texts.items():
        comment = ("<!--", " -->") if name.endswith(".plist") else ("#", "")
        if comment[0] == "#" or len(texts) > 1:
            print(f"{comment[0]} {manager.files.folder / name}{comment[1]}")
        print(text.rstrip() + "\n" * (len(texts) > 1))
    return 0


def _status(manager: Managing, *, as_json: bool) -> int:
    state = manager.state()
    if as_json:
        import msgspec

        print(msgspec.json.format(msgspec.json.encode(state), indent=2).decode())
    else:
        print("\n".join(_lines(state)))
    return 0 if state["active"] in ("active", "reloading") else 3


def _lines(state: Mapping[str, Any]) -> list[str]:
    if not state["installed"]:
        return [f"not installed ({state['manager']}): gemini-pool service install"]
    lines = [f"{state['manager']}: {state['active'] or 'unknown'}, {state['file']}"]
    if state["pid"]:
        lines.append(f"pid {state['pid']}, {state.get('restarts', 0)} restarts")
    if state.get("status"):
        lines.append(str(state["status"]))
    if state["command"]:
        lines.append(shlex.join(state["command"]))
        if not shutil.which(state["command"][0]):
            lines.append(f"{state['command'][0]} is gone: gemini-pool service install")
    lines += [f"{unit}: {word}" for unit, word in state.get("sockets", {}).items()]
    return lines


def _refuse_beside_another(manager: Managing) -> None:
    """A manager's socket would take the path of a daemon that runs by hand, which then serves nobody."""
    if manager.name == "none" or manager.state()["active"] in ("active", "activating", "reloading"):
        return
    if not paths.places().socket.exists():
        return
    from gemini_pool._sync import Pool

    try:
        with Pool(name="gemini-pool", connect_s=0.0, timeout_s=5.0) as pool:
            info = pool.info()
    except NotRunning:
        return
    if info.supervised == "":
        raise PoolError(
            "bad_request",
            f"a daemon that was started by hand (pid {info.pid}) serves {info.socket}",
            hint=f"stop it first: kill {info.pid}",
        )
