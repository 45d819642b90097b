"""`gemini-pool service` on a Mac (a LaunchAgent), and where there is no service manager (an autostart entry, or words)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gemini_pool import paths
from gemini_pool import service_files as files
from gemini_pool.errors import PoolError
from gemini_pool.service_command import Command
from gemini_pool.service_systemd import run

PLIST = f"{files.LABEL}.plist"
DESKTOP = "gemini-pool.desktop"


class Launchd:
    """The LaunchAgent of one user."""

    name = "launchd"

    def __init__(self, environ: Mapping[str, str]) -> None:
        home = Path(environ.get("HOME") or Path.home())
        self.files = files.Files(home / "Library" / "LaunchAgents")
        self._where = paths.places(environ, platform="darwin")
        self._environ = environ
        self._domain = f"gui/{os.getuid()}"

    def texts(self, command: Command, listen: str, *, sandbox: bool) -> dict[str, str]:
        del sandbox
        text = files.launchd(command, self._where, listen=listen, environ=self._environ)
        return {PLIST: text.decode()}

    def install(
        self, command: Command, listen: str, *, force: bool, sandbox: bool | None, start: bool
    ) -> list[str]:
        del sandbox
        for folder in (self._where.socket.parent, files.log_file(self._environ).parent):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # launchd makes no folders
        (text,) = self.texts(command, listen, sandbox=False).values()
        changed = self.files.write(PLIST, text, force=force)
        said = [f"wrote {self.files.folder / PLIST}" if changed else "the agent is as it should be"]
        if not start:
            return said
        loaded = run("launchctl", "print", f"{self._domain}/{files.LABEL}").returncode == 0
        if loaded and changed:
            run("launchctl", "bootout", f"{self._domain}/{files.LABEL}")
        if changed or not loaded:
            done = run("launchctl", "bootstrap", self._domain, str(self.files.folder / PLIST))
            if done.returncode:
                why = done.stderr.strip()
                raise PoolError("internal", f"launchctl bootstrap: {why}", hint="gemini-pool service status")
        return [*said, f"it runs: launchctl print {self._domain}/{files.LABEL}"]

    def uninstall(self) -> list[str]:
        run("launchctl", "bootout", f"{self._domain}/{files.LABEL}")
        gone = self.files.remove(PLIST)
        return [f"removed {self.files.folder / PLIST}"] if gone else ["there was nothing to remove"]

    def state(self) -> dict[str, Any]:
        found = run("launchctl", "print", f"{self._domain}/{files.LABEL}")
        pid = re.search(r"^\s*pid = (\d+)", found.stdout, re.MULTILINE)
        code = re.search(r"^\s*last exit code = (\d+)", found.stdout, re.MULTILINE)
        return {
            "manager": self.name,
            "installed": (self.files.folder / PLIST).exists(),
            "enabled": found.returncode == 0,
            "active": "active" if pid else "inactive",
            "pid": int(pid[1]) if pid else 0,
            "exit": int(code[1]) if code else 0,
            "file": str(self.files.folder / PLIST),
            "command": self.command(),
        }

    def command(self) -> list[str]:
        import plistlib

        try:
            return list(plistlib.loads((self.files.folder / PLIST).read_bytes())["ProgramArguments"])
        except (OSError, ValueError, LookupError):
            return []


class Neither:
    """No service manager: a desktop session can start the daemon, else a person or their own supervisor does."""

    name = "none"

    def __init__(self, environ: Mapping[str, str]) -> None:
        home = Path(environ.get("HOME") or Path.home())
        config = environ.get("XDG_CONFIG_HOME", "")
        self.files = files.Files((Path(config) if config.startswith("/") else home / ".config") / "autostart")
        self._desktop = bool(environ.get("XDG_CURRENT_DESKTOP") or environ.get("DISPLAY"))

    def texts(self, command: Command, listen: str, *, sandbox: bool) -> dict[str, str]:
        del listen, sandbox
        return {DESKTOP: files.desktop(command)}

    def install(
        self, command: Command, listen: str, *, force: bool, sandbox: bool | None, start: bool
    ) -> list[str]:
        del listen, sandbox, start
        line = " ".join([*command.words, "run"])
        if not self._desktop:
            return [f"no service manager is here; have your own run this: {line}"]
        changed = self.files.write(DESKTOP, files.desktop(command), force=force)
        said = [
            f"wrote {self.files.folder / DESKTOP}" if changed else "the autostart entry is as it should be"
        ]
        return [*said, f"your desktop starts it at the next login; until then: {line} &"]

    def uninstall(self) -> list[str]:
        gone = self.files.remove(DESKTOP)
        return [f"removed {self.files.folder / DESKTOP}"] if gone else ["there was nothing to remove"]

    def state(self) -> dict[str, Any]:
        there = (self.files.folder / DESKTOP).exists()
        file = str(self.files.folder / DESKTOP) if there else ""
        return {"manager": self.name, "installed": there, "active": "", "pid": 0, "file": file, "command": []}

    def command(self) -> list[str]:
        return []
