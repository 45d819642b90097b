"""`gemini-pool service` under `systemd --user`: units written, probed, enabled, started; and all of that undone."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gemini_pool import service_files as files
from gemini_pool.errors import PoolError
from gemini_pool.service_command import Command

NAMES = (files.SERVICE, files.SOCKET, files.PORT, files.PORT_CONF, files.SANDBOX_CONF)
PACKAGED = ("/etc/systemd/user", "/usr/local/lib/systemd/user", "/usr/lib/systemd/user")
_PROPERTIES = ("LoadState", "ActiveState", "SubState", "Result", "MainPID", "NRestarts", "ExecMainStatus",
               "StatusText", "UnitFileState", "FragmentPath", "NeedDaemonReload")  # fmt: skip


def run(*words: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    """A command's result; one that does not exist or hangs counts as failed."""
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=timeout_s, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(words, 127, "", str(error))


def systemctl(*words: str) -> subprocess.CompletedProcess[str]:
    return run("systemctl", "--user", *words)


def there() -> bool:
    """Whether a user manager answers."""
    return systemctl("show", "--property=Version").returncode == 0


class Systemd:
    """The units of one user. `say` tells a person what was done and what is left to them."""

    name = "systemd"

    def __init__(self, environ: Mapping[str, str]) -> None:
        home = Path(environ.get("HOME") or Path.home())
        config = environ.get("XDG_CONFIG_HOME", "")
        base = Path(config) if config.startswith("/") else home / ".config"
        self.files = files.Files(base / "systemd" / "user")
        self._environ = environ

    def texts(self, command: Command, listen: str, *, sandbox: bool) -> dict[str, str]:
        """What is to be written; nothing of what a package has put into the system's folder for this very command."""
        wanted = files.systemd(command, listen=listen, environ=self._environ, sandbox=sandbox)
        if self._packaged_for(command):
            for name in (files.SERVICE, files.SOCKET):
                del wanted[name]
        return wanted

    def install(
        self, command: Command, listen: str, *, force: bool, sandbox: bool | None, start: bool
    ) -> list[str]:
        """Idempotent. Sentences for a person. Raises `PoolError` when the service does not come up."""
        confined = self.sandbox_works() if sandbox is None else sandbox
        wanted = self.texts(command, listen, sandbox=confined)
        changed = [name for name, text in wanted.items() if self.files.write(name, text, force=force)]
        for name in NAMES:
            if name not in wanted and name not in (files.SERVICE, files.SOCKET) and self.files.is_ours(name):
                if name == files.PORT:
                    systemctl("disable", "--now", files.PORT)
                changed += [name] * self.files.remove(name)
        self._must("daemon-reload")
        units = [files.SERVICE, files.SOCKET, *([files.PORT] if listen else [])]
        self._must("enable", *units)
        said = [f"wrote {self.files.folder / name}" for name in changed] or [
            "the units are as they should be"
        ]
        if start:
            said += self._start(units, changed=bool(changed))
        if not confined and sandbox is None:
            said.append(
                "no namespace sandbox: this system gives ordinary users none (the seccomp set stays in force)"
            )
        return said + linger_hint(self._environ)

    def _start(self, units: list[str], *, changed: bool) -> list[str]:
        active = self.properties(files.SERVICE).get("ActiveState") == "active"
        systemctl("reset-failed", files.SERVICE, files.SOCKET)
        if active and changed:
            systemctl("stop", files.SERVICE)
            systemctl("stop", *units[1:])
        said = []
        for unit in units[1:]:
            done = systemctl("start", unit)
            if done.returncode and unit == files.PORT:
                said.append(f"the gateway's port is not to be had now: {done.stderr.strip()}")
            elif done.returncode:
                raise self._failed(unit, done)
        done = systemctl("start", files.SERVICE)
        if done.returncode and self.files.remove(files.SANDBOX_CONF):
            said.append("the service does not start in the namespace sandbox: taken away again")
            systemctl("daemon-reload")
            systemctl("reset-failed", files.SERVICE)
            done = systemctl("start", files.SERVICE)
        if done.returncode:
            raise self._failed(files.SERVICE, done)
        return [*said, "gemini-pool.service runs: systemctl --user status gemini-pool"]

    def uninstall(self) -> list[str]:
        """Stop, disable, remove what we wrote. Accounts, secrets and state stay."""
        systemctl("disable", "--now", files.PORT)
        systemctl("disable", "--now", files.SERVICE, files.SOCKET)
        gone = [name for name in NAMES if self.files.remove(name)]
        systemctl("daemon-reload")
        systemctl("reset-failed", files.SERVICE, files.SOCKET, files.PORT)
        return [f"removed {self.files.folder / name}" for name in gone] or ["there was nothing to remove"]

    def state(self) -> dict[str, Any]:
        """For `service status` and doctor."""
        found = self.properties(files.SERVICE)
        sockets = {unit: self.properties(unit).get("ActiveState", "") for unit in (files.SOCKET, files.PORT)}
        return {
            "manager": self.name,
            "installed": found.get("LoadState") == "loaded",
            "enabled": found.get("UnitFileState", "") == "enabled",
            "active": found.get("ActiveState", ""),
            "result": found.get("Result", ""),
            "exit": int(found.get("ExecMainStatus") or 0),
            "pid": int(found.get("MainPID") or 0),
            "restarts": int(found.get("NRestarts") or 0),
            "status": found.get("StatusText", ""),
            "file": found.get("FragmentPath", ""),
            "reload_needed": found.get("NeedDaemonReload") == "yes",
            "command": self.command(),
            "sockets": sockets,
            "sandbox": (self.files.folder / files.SANDBOX_CONF).exists(),
        }

    def command(self) -> list[str]:
        """The words of the installed unit's ExecStart, as systemd understood them."""
        text = systemctl("show", "--property=ExecStart", "--value", files.SERVICE).stdout
        found = re.search(r"path=(.*?) ; argv\[\]=(.*?) ; ignore_errors=", text)
        if not found:
            return []
        path, words = found.groups()  # the words are joined by spaces, unquoted: the path tells where it ends
        return [path, *words.removeprefix(path).split()]

    def properties(self, unit: str) -> dict[str, str]:
        text = systemctl("show", "--property=" + ",".join(_PROPERTIES), unit).stdout
        return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    def sandbox_works(self) -> bool:
        """The very lines of the drop-in, tried on a command that does nothing.

        As a oneshot, whose start ends with it: to --wait for another kind takes a D-Bus, which not every session has.
        """
        lines = [line for line in files.template("sandbox.conf").splitlines() if line and line[0] not in "#["]
        words = [word for line in lines for word in ("-p", self._expanded(line))]
        line = ["systemd-run", "--user", "--quiet", "--collect", "--service-type=oneshot", *words, "true"]
        return run(*line).returncode == 0

    def _expanded(self, line: str) -> str:
        """`systemd-run` of old versions does not know a unit's specifiers."""
        home, runtime = self._environ.get("HOME", ""), self._environ.get("XDG_RUNTIME_DIR", "")
        return line.replace("%h", home).replace("%t", runtime or home)

    def _packaged_for(self, command: Command) -> bool:
        line = f"ExecStart={command.words[0]} run"
        found = [Path(folder) / files.SERVICE for folder in PACKAGED]
        return any(path.exists() and line in path.read_text(encoding="utf-8").splitlines() for path in found)

    @staticmethod
    def _must(*words: str) -> None:
        done = systemctl(*words)
        if done.returncode:
            raise PoolError("internal", f"systemctl --user {' '.join(words)}: {done.stderr.strip()}")

    def _failed(self, unit: str, done: subprocess.CompletedProcess[str]) -> PoolError:
        why = self.properties(unit).get("StatusText") or done.stderr.strip()
        return PoolError("internal", f"{unit} does not start: {why}", hint="gemini-pool doctor")


def linger_hint(environ: Mapping[str, str]) -> list[str]:
    """Without lingering, a user's services end with the last session: told where nobody sits before the machine."""
    if environ.get("WAYLAND_DISPLAY") or environ.get("DISPLAY"):
        return []
    user = environ.get("USER") or str(os.getuid())
    if run("loginctl", "show-user", user, "--property=Linger", "--value").stdout.strip() == "yes":
        return []
    return [f"to keep it running while you are logged out: loginctl enable-linger {user}"]
