"""Scenarios in a private user session, for the tests outside.

Where the machine cannot do it (no root, no cgroup v2, no systemd) the tests are skipped, unless
GEMINI_POOL_REQUIRE_SYSTEMD is set.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
UID = 1000
CANNOT = 77  # user-session.sh: this machine cannot do it
EXIT_CONFIG = 78
# The root itself, laid over a folder ($0, whatever is in it) and entered as a chroot.
IN_A_CHROOT = 'mount --make-rprivate / && mount --rbind / "$0" && exec chroot "$0" "$@"'


def run_inside(
    name: str,
    script: str = "scenarios.py",
    *,
    keep: Sequence[Path] = (),
    extra: Mapping[str, str] | None = None,
    timeout_s: float = 120,
    namespaces: bool = True,
) -> dict[str, Any]:
    """What a scenario saw. `keep`: further paths that an ordinary user may read in there; `extra`: environment.

    Without `namespaces` ordinary users get none of their own, as where a security module forbids them: in a chroot,
    the kernel refuses a new user namespace.
    """
    kept = [sys.prefix, sys.base_prefix, str(ROOT), *map(str, keep)]
    line = [str(HERE / "user-session.sh"), "-u", str(UID)]
    line += [word for path in kept for word in ("-p", path)]
    line += [sys.executable, str(HERE / script), name]
    if not namespaces:
        line = ["unshare", "--mount", "bash", "-c", IN_A_CHROOT, str(HERE), *line]
    done = subprocess.run(
        line,
        cwd="/",
        env={**environment(), **(extra or {})},
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    if done.returncode == CANNOT and not os.environ.get("GEMINI_POOL_REQUIRE_SYSTEMD"):
        pytest.skip(done.stderr.strip())
    results = [text for text in done.stdout.splitlines() if text.startswith("RESULT ")]
    assert done.returncode == 0 and results, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    found: dict[str, Any] = json.loads(results[-1].removeprefix("RESULT "))
    assert "failed" not in found, found["failed"]
    return found


def environment() -> dict[str, str]:
    """Ours, with the sources on the path where the project is not installed."""
    environ = {
        name: text for name, text in os.environ.items() if not name.startswith(("GEMINI_", "XDG_", "PYTHON"))
    }
    environ["PYTHONDONTWRITEBYTECODE"] = "1"
    try:
        importlib.metadata.distribution("gemini-pool")
    except importlib.metadata.PackageNotFoundError:
        environ["PYTHONPATH"] = f"{ROOT / 'daemon'}:{ROOT / 'client' / 'python'}"
    return environ
