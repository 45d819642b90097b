"""What systemd itself thinks of the units, with and without the drop-in for user namespaces.

user-session.sh -u 1000 python hardening.py exposure
"""

from __future__ import annotations

import json
import subprocess
from typing import Any

import inside
from inside import SERVICE, SOCKET, USER_UNITS, Google

PORT = "gemini-pool-gateway.socket"
TEMPLATES = inside.ROOT / "client" / "python" / "gemini_pool" / "units"


def exposure(google: Google) -> dict[str, Any]:
    """As shipped; with the port's unit; with the sandbox, too."""
    inside.install()
    out: dict[str, Any] = {"shipped": _looked_at(SERVICE, SOCKET)}
    folder = USER_UNITS / f"{SERVICE}.d"
    folder.mkdir()
    listen = (TEMPLATES / PORT).read_text().replace("@LISTEN@", "127.0.0.1:8790")
    (USER_UNITS / PORT).write_text(listen)
    for name in ("gateway.conf", "sandbox.conf"):
        (folder / name).write_text((TEMPLATES / name).read_text())
    inside.systemctl("daemon-reload")
    out["sandboxed"] = _looked_at(SERVICE, SOCKET, PORT)
    return out


def _looked_at(*units: str) -> dict[str, Any]:
    """What `verify` says, and `security`: each setting that is not as tight as can be, with its weight."""
    line = ["systemd-analyze", "--user", "verify", *units]
    verified = subprocess.run(line, capture_output=True, text=True)
    line = ["systemd-analyze", "--user", "--no-pager", "--json=short", "security", SERVICE]
    rows = json.loads(subprocess.run(line, capture_output=True, text=True, check=True).stdout)
    line.remove("--json=short")
    text = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    overall = next(row for row in text.splitlines() if "Overall exposure level" in row)
    return {
        "verify": [verified.returncode, verified.stdout + verified.stderr],
        "exposure": float(overall.partition(": ")[2].split()[0]),
        "open": {row["name"]: float(row["exposure"]) for row in rows if float(row["exposure"] or 0)},
    }


if __name__ == "__main__":
    inside.run({"exposure": exposure})
