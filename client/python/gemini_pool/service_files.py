"""What `gemini-pool service` writes: text made from the templates in `units/`, and files that are known again by a mark.

Pure text in and out, but for `Files`, which writes, compares and removes.
"""

from __future__ import annotations

import contextlib
import importlib.resources
import os
import plistlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gemini_pool import paths
from gemini_pool.errors import PoolError
from gemini_pool.service_command import Command, unit_words

SERVICE, SOCKET, PORT = "gemini-pool.service", "gemini-pool.socket", "gemini-pool-gateway.socket"
PORT_CONF, SANDBOX_CONF = f"{SERVICE}.d/gateway.conf", f"{SERVICE}.d/sandbox.conf"
LABEL = "gemini-pool"  # of the LaunchAgent; its file's name, too
MARK = "Written by `gemini-pool service install`; `gemini-pool service uninstall` removes it."
_SHIPPED_COMMAND = "%h/.local/bin/gemini-pool"


def template(name: str) -> str:
    """A shipped file, as it is."""
    return (importlib.resources.files("gemini_pool") / "units" / name).read_text(encoding="utf-8")


def systemd(command: Command, *, listen: str, environ: Mapping[str, str], sandbox: bool) -> dict[str, str]:
    """Name → text, for the folder of the user's units. `listen`: the loopback port, "" for none."""
    service = template(SERVICE).replace(_SHIPPED_COMMAND, unit_words(command.words))
    given = {**{name: environ[name] for name in KEPT if environ.get(name)}, **command.environ}
    lines = [f"Environment={unit_words([f'{name}={value}'])}" for name, value in sorted(given.items())]
    if lines:
        service = service.replace("[Service]\n", "[Service]\n" + "\n".join(lines) + "\n", 1)
    written = {SERVICE: service, SOCKET: _socket(environ)}
    if listen:
        written[PORT] = template(PORT).replace(paths.GATEWAY_LISTEN, listen)
        written[PORT_CONF] = template("gateway.conf")
    if sandbox:
        written[SANDBOX_CONF] = template("sandbox.conf")
    return {name: f"# {MARK}\n{text}" for name, text in written.items()}


# Where the user has put things; a service manager has an environment of its own.
KEPT = ("GEMINI_POOL_CONFIG_DIR", "GEMINI_POOL_STATE_DIR", "GEMINI_POOL_SOCKET")


def _socket(environ: Mapping[str, str]) -> str:
    text = template(SOCKET)
    if given := environ.get("GEMINI_POOL_SOCKET"):
        folder = str(Path(given).absolute().parent).replace("%", "%%")
        name = Path(given).name.replace("%", "%%")
        text = text.replace("%t/gemini-pool/pool.sock", f"{folder}/{name}").replace("%t/gemini-pool", folder)
    return text


def launchd(command: Command, where: paths.Places, *, listen: str, environ: Mapping[str, str]) -> bytes:
    """The LaunchAgent. Absolute paths alone: launchd expands nothing. Numbers are decimal (384 = 0600, 63 = 0077)."""
    sockets: dict[str, Any] = {
        "pool": {"SockPathName": str(where.socket), "SockPathMode": 0o600},
        "gateway": {"SockPathName": str(where.gateway_socket), "SockPathMode": 0o600},
    }
    if listen:
        host, _, port = listen.rpartition(":")
        sockets["port"] = {
            "SockNodeName": host.strip("[]"),
            "SockServiceName": port,
            "SockType": "stream",
            "SockFamily": "IPv6" if ":" in host else "IPv4",
        }
    logs = str(log_file(environ))
    agent: dict[str, Any] = {
        "Label": LABEL,
        "ProgramArguments": [*command.words, "run"],
        "Sockets": sockets,
        "RunAtLoad": True,  # warm before the first request
        # On failure only: a deliberate end stays one. 78 (a configuration that no start mends) is held back by
        # ThrottleInterval alone; launchd has no word for it.
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 10,
        "ExitTimeOut": 15,
        "ProcessType": "Standard",
        "Umask": 0o077,
        "SoftResourceLimits": {"NumberOfFiles": 8192, "Core": 0},
        "StandardOutPath": logs,
        "StandardErrorPath": logs,
    }
    given = {**{name: environ[name] for name in KEPT if environ.get(name)}, **command.environ}
    if given:
        agent["EnvironmentVariables"] = given
    return plistlib.dumps(agent, sort_keys=False).replace(b"<plist ", f"<!-- {MARK} -->\n<plist ".encode(), 1)


def log_file(environ: Mapping[str, str]) -> Path:
    """launchd's log of us."""
    return Path(environ.get("HOME") or Path.home()) / "Library" / "Logs" / "gemini-pool.log"


def desktop(command: Command) -> str:
    """The entry that starts the daemon with a desktop session, where nothing better is there."""
    quoted = " ".join(_desktop_word(word) for word in (*_with_environ(command), "run"))
    return f"# {MARK}\n" + template("gemini-pool.desktop").replace("gemini-pool run", quoted)


def _with_environ(command: Command) -> tuple[str, ...]:
    if not command.environ:
        return command.words
    return ("env", *(f"{name}={value}" for name, value in command.environ.items()), *command.words)


def _desktop_word(word: str) -> str:
    """The Desktop Entry Specification's quoting: a string's escapes around an Exec word's."""
    text = word.replace("%", "%%")
    if not set(text) & set(" \t\n\"'\\><~|&;$*?#()`"):
        return text
    for char in '\\"`$':
        text = text.replace(char, "\\" + char)
    return '"' + text.replace("\\", "\\\\") + '"'


class Files:
    """The files of one folder that are ours: by their mark, or by being a shipped file unchanged."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, text: str | bytes, *, force: bool = False) -> bool:
        """Whether anything changed. Raises `PoolError` for a file that somebody else wrote there."""
        data, path = text.encode() if isinstance(text, str) else text, self.folder / name
        before = self._read(path)
        if before == data:
            return False
        if before is not None and not self.is_ours(name) and not force:
            raise PoolError(
                "bad_request",
                f"{path} was not written by `gemini-pool service install`",
                hint="look at it; `gemini-pool service install --force` replaces it",
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        fd, new = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(data)
            Path(new).chmod(0o644)
            Path(new).replace(path)
        except BaseException:
            Path(new).unlink(missing_ok=True)
            raise
        return True

    def remove(self, name: str) -> bool:
        """Whether it was there. Folders of drop-ins go with their last file; what is another's stays."""
        path = self.folder / name
        if not self.is_ours(name):
            return False
        path.unlink()
        if path.parent != self.folder:
            with contextlib.suppress(OSError):
                path.parent.rmdir()
        return True

    def is_ours(self, name: str) -> bool:
        found = self._read(self.folder / name)
        if found is None:
            return False
        shipped = name in (SERVICE, SOCKET) and found == template(name).encode()
        return shipped or MARK.encode() in found[:1024]

    @staticmethod
    def _read(path: Path) -> bytes | None:
        try:
            return path.read_bytes()
        except OSError:
            return None
