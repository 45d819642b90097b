"""Installs, upgrades, purges the package beside a running user manager; prints what it saw as JSON. As root.

user-session.sh -u 0 python inside.py OLD.deb NEW.deb
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

COMMAND = "/usr/bin/gemini-pool"
WATCHED = ("/usr", "/etc", "/opt", "/var/lib", "/srv")
# What dpkg, its triggers and Python's own caches keep of any package.
FOREIGN = ("/var/lib/dpkg", "/var/lib/apt", "/usr/share/man/cat", "/var/lib/systemd", "/var/lib/fontconfig")


def run(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    environ = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
    environ |= {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=180)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def files() -> set[str]:
    """Everything that the system holds outside of homes."""
    found = set()
    for top in WATCHED:
        for folder, _, names in os.walk(top):
            if not folder.startswith(FOREIGN):
                found |= {f"{folder}/{name}" for name in names}
    return {name for name in found if "gemini" in name.lower() or "/site-packages/" not in name}


def show(*names: str) -> dict[str, str]:
    text = run("systemctl", "--user", "show", "--property", ",".join(names), "gemini-pool.service").stdout
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def info() -> Any:
    return json.loads(run(COMMAND, "service", "status", "--json").stdout)


def life(old: str, new: str) -> dict[str, Any]:
    home = Path(os.environ["HOME"])
    config = home / ".config" / "gemini-pool"
    config.mkdir(parents=True, mode=0o700)
    (config / "config.toml").write_text('[gateway]\nlisten = "127.0.0.1:28792"\n')
    before = files()
    run("dpkg", "--install", "--force-depends", old)
    out: dict[str, Any] = {"version": run(COMMAND, "--version").stdout.strip()}
    out["active_before_asked"] = show("ActiveState")["ActiveState"]
    out["install"] = run(COMMAND, "service", "install").stdout
    first = info()
    out["first"] = first
    out["written"] = sorted(
        path.name
        for path in (home / ".config/systemd/user").rglob("*")
        if path.is_file() and not path.is_symlink()
    )
    out["serves"] = "accounts" in json.loads(run(COMMAND, "status", "--json").stdout)
    out["man"] = run("man", "-w", "gemini-pool-doctor", check=False).stdout.strip()
    run("dpkg", "--install", "--force-depends", new)
    deadline = time.monotonic() + 20
    while (second := info())["active"] != "active" and time.monotonic() < deadline:
        time.sleep(0.1)
    out["second"] = second
    out["upgraded"] = run(COMMAND, "status", "--json", check=False).returncode
    run(COMMAND, "service", "uninstall")
    homes = {str(path) for path in home.rglob("*")}
    run("dpkg", "--purge", "gemini-pool")
    out["home_touched"] = sorted(homes ^ {str(path) for path in home.rglob("*")})
    out["left"] = sorted(name for name in files() - before if "__pycache__" not in name)[:20]
    out["units"] = run("systemctl", "--user", "list-units", "--all", "--no-legend", "gemini-pool*").stdout
    return out


def purge_while_running(new: str) -> dict[str, Any]:
    """Purged without being uninstalled first: the service ends, nothing of the package stays."""
    run("dpkg", "--install", "--force-depends", new)
    run(COMMAND, "service", "install")
    run("dpkg", "--purge", "gemini-pool")
    return {"state": show("ActiveState")["ActiveState"], "command": Path(COMMAND).exists()}


def main() -> None:
    try:
        found = life(*sys.argv[1:3])
        found["purged"] = purge_while_running(sys.argv[2])
    except Exception as error:  # noqa: BLE001
        found = {"failed": f"{type(error).__name__}: {error}"}
    finally:
        run("dpkg", "--purge", "gemini-pool", check=False)
    print("RESULT " + json.dumps(found))


if __name__ == "__main__":
    main()
