"""`gemini-pool service install` under the user manager, from each kind of installation: a function a scenario.

SERVICE_WHEEL names the wheel.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

import inside
from inside import HOME, SERVICE, SOCKET, USER_UNITS, Google

PORT = "gemini-pool-gateway.socket"
FREE_PORT = 28790


def _lend(prefix: Path) -> None:
    """The requirements, without their download."""
    (site,) = prefix.glob("lib/python*/site-packages")
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")


def in_venv() -> Path:
    prefix = HOME / "a venv"
    venv.create(prefix, with_pip=True)
    _lend(prefix)
    line = [str(prefix / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*line, "--force-reinstall", os.environ["SERVICE_WHEEL"]], check=True)
    return prefix / "bin" / "gemini-pool"


def by_pipx() -> Path:
    """With its requirements from the registry: pipx wants to see them all."""
    line = ["pipx", "install", "--python", sys.executable, os.environ["SERVICE_WHEEL"]]
    environ = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(line, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return HOME / ".local" / "bin" / "gemini-pool"


def command(path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environ = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([str(path), *words], env=environ, capture_output=True, text=True, timeout=90)


def life(google: Google, path: Path) -> dict[str, Any]:
    """Install, serve, install again, restart, uninstall; and what is left."""
    inside.write_accounts(inside.key_account(google, "key-a"))
    inside.write_config(google)
    config = inside.CONFIG / "config.toml"
    config.write_text(config.read_text().replace("127.0.0.1:0", f"127.0.0.1:{FREE_PORT}"))
    before = _files()
    first = command(path, "service", "install")
    out: dict[str, Any] = {"install": [first.returncode, first.stdout, first.stderr]}
    if first.returncode:
        return out
    pid = inside.main_pid()
    status = command(path, "service", "status", "--json")
    out["status"] = json.loads(status.stdout) if status.stdout else status.stderr
    out["states"] = [inside.state(unit) for unit in (SERVICE, SOCKET, PORT)]
    out["answer"] = "result" in inside.ask("Say hello")
    out["port"] = inside.call("daemon/info")["result"]["gateway_url"]
    out["sandbox"] = _sandbox(pid)
    again = command(path, "service", "install")
    out["again"] = [again.returncode, again.stdout, inside.main_pid() == pid]
    line = ["systemd-analyze", "--user", "verify", SERVICE, SOCKET, PORT]
    done = subprocess.run(line, capture_output=True, text=True)
    out["verify"] = [done.returncode, done.stdout + done.stderr]
    inside.systemctl("restart", SERVICE)
    out["after_restart"] = "result" in inside.ask("Say hello again")
    gone = command(path, "service", "uninstall")
    out["uninstall"] = [gone.returncode, gone.stdout]
    out["left"] = sorted(str(name) for name in _files() - before)
    out["units_left"] = inside.systemctl("list-units", "--all", "--no-legend", "gemini-pool*").stdout
    out["accounts"] = (inside.CONFIG / "accounts.toml").exists()
    return out


def _sandbox(pid: int) -> dict[str, Any]:
    """What the running process has of the drop-in, by what the kernel says of it."""
    mounts = [line.split() for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
    writable = {fields[4]: fields[5].split(",")[0] == "rw" for fields in mounts}
    return {
        "drop_in": (USER_UNITS / f"{SERVICE}.d" / "sandbox.conf").exists(),
        "own_users": Path(f"/proc/{pid}/uid_map").read_text() != Path("/proc/self/uid_map").read_text(),
        "root_writable": writable["/"],
        "home_writable": writable.get(str(HOME), writable["/"]),
    }


def without_namespaces(google: Google) -> dict[str, Any]:
    """Installed where the probe has to fail; then the drop-in is forced, and the service comes up all the same."""
    path = in_venv()
    inside.write_accounts(inside.key_account(google, "key-a"))
    inside.write_config(google)
    out: dict[str, Any] = {}
    for way in ("auto", "on"):
        done = command(path, "service", "install", "--sandbox", way)
        out[way] = {"install": [done.returncode, done.stdout, done.stderr], **_sandbox(inside.main_pid())}
        out[way]["answer"] = "result" in inside.ask("Say hello")
    return out


def _files() -> set[Path]:
    """Everything of the user's but the daemon's own state, and folders that systemd keeps."""
    kept = (inside.STATE, HOME / ".cache", inside.CONFIG)
    found = {path for path in HOME.rglob("*") if path.is_symlink() or not path.is_dir()}
    return {path for path in found if not any(path.is_relative_to(folder) for folder in kept)
            and "__pycache__" not in path.parts}  # fmt: skip


def from_a_venv(google: Google) -> dict[str, Any]:
    return life(google, in_venv())


def from_pipx(google: Google) -> dict[str, Any]:
    if not shutil.which("pipx"):
        return {"missing": "pipx"}
    return life(google, by_pipx())


def _service_finding(path: Path) -> dict[str, Any]:
    """What doctor says of the service, and its exit code."""
    done = command(path, "doctor", "--json")
    found = [one for one in json.loads(done.stdout)["findings"] if one["check"] == "service"]
    return {**found[0], "exit": done.returncode}


def _mend(path: Path, words: str) -> int:
    environ = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    environ["PATH"] = f"{path.parent}:{environ['PATH']}"
    return subprocess.run(["sh", "-c", words], env=environ, capture_output=True).returncode


def _failed(found: dict[str, Any]) -> dict[str, Any] | None:
    return found if "has failed" in found["text"] else None


def doctor_mends(google: Google) -> dict[str, Any]:
    """The unit is not installed, then its command is gone, then it has failed; each mend is run as it is told."""
    path = in_venv()
    inside.write_accounts(inside.key_account(google, "key-a"))
    inside.write_config(google)
    out: dict[str, Any] = {}
    for trouble in ("missing", "gone", "refused"):
        if trouble == "gone":
            unit = USER_UNITS / SERVICE
            unit.write_text(unit.read_text().replace("a venv/bin", "a lost venv/bin"))
            inside.systemctl("daemon-reload")
        found = _service_finding(path)
        if trouble == "refused":
            inside.write_config(google, "[selection]\nstratgy = 1\n")
            inside.systemctl("restart", SERVICE, check=False)
            # Looking is connecting, and that has systemd try again: it fails for as long as the cause is there.
            found = inside.wait_for("doctor says so", lambda: _failed(_service_finding(path)))
            inside.write_config(google)
        out[trouble] = [found, _mend(path, found["mend"]), _service_finding(path)]
    out["answer"] = "result" in inside.ask("Say hello")
    return out


if __name__ == "__main__":
    inside.run({each.__name__: each for each in (from_a_venv, from_pipx, without_namespaces, doctor_mends)})
