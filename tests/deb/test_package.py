"""The Debian package on this very machine: built, installed, upgraded while it runs, purged.

Root's own user manager is made up by tests/systemd/user-session.sh. Skipped where the machine cannot do it, unless
GEMINI_POOL_REQUIRE_DEB is set.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
CANNOT = 77


def unable(why: str) -> None:
    if os.environ.get("GEMINI_POOL_REQUIRE_DEB"):
        pytest.fail(why)
    pytest.skip(why)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One version and the next."""
    if not shutil.which("dpkg-deb") or not Path("/usr/bin/python3").exists():
        unable("this machine builds no Debian packages")
    if subprocess.run(["/usr/bin/python3", "-c", "import ensurepip, venv"], capture_output=True).returncode:
        unable("python3-venv is not installed")
    folder = tmp_path_factory.mktemp("deb")
    line = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(line, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    done = subprocess.run([ROOT / "packaging/debian/build", wheel, folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (deb,) = folder.glob("*.deb")
    return deb, _next(deb, folder)


def _next(deb: Path, folder: Path) -> Path:
    """The same with a higher version, without building it all again."""
    subprocess.run(["dpkg-deb", "-R", deb, folder / "next"], check=True)
    control = folder / "next" / "DEBIAN" / "control"
    control.write_text(re.sub(r"^(Version: .*)$", r"\1+next", control.read_text(), flags=re.M))
    made = folder / "next.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-b", folder / "next", made], check=True, capture_output=True
    )
    return made


@pytest.fixture(scope="module")
def seen(packages: tuple[Path, Path]) -> dict[str, Any]:
    if os.geteuid():
        unable("needs root")
    if shutil.which("gemini-pool", path="/usr/bin"):
        unable("gemini-pool is installed on this machine already")
    line = [str(ROOT / "tests" / "systemd" / "user-session.sh"), "-u", "0", sys.executable]
    line += [str(Path(__file__).parent / "inside.py"), *map(str, packages)]
    done = subprocess.run(line, cwd="/", capture_output=True, text=True, timeout=400)
    if done.returncode == CANNOT:
        unable(done.stderr.strip())
    results = [text for text in done.stdout.splitlines() if text.startswith("RESULT ")]
    assert results, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(results[-1].removeprefix("RESULT "))
    assert "failed" not in found, found["failed"]
    return found


def test_it_installs_and_serves(seen: dict[str, Any]) -> None:
    """Nobody's service starts unasked; asked, it starts from the package's own unit, by the package's command."""
    assert seen["version"].startswith("gemini-pool ")
    assert seen["active_before_asked"] == "inactive"
    assert seen["first"]["active"] == "active"
    assert seen["first"]["file"] == "/usr/lib/systemd/user/gemini-pool.service"
    assert seen["first"]["command"] == ["/usr/bin/gemini-pool", "run"]
    assert not {"gemini-pool.service", "gemini-pool.socket"} & set(seen["written"])
    assert seen["serves"] is True
    assert seen["man"] in ("", "/usr/share/man/man1/gemini-pool-doctor.1.gz")


def test_it_upgrades_while_it_runs(seen: dict[str, Any]) -> None:
    """Afterwards another process serves, by the same unit."""
    assert seen["second"]["active"] == "active"
    assert seen["second"]["pid"] not in (0, seen["first"]["pid"])
    assert seen["upgraded"] == 0


def test_purged_it_leaves_nothing(seen: dict[str, Any]) -> None:
    """No file outside of homes, nothing changed in one, no unit; also when it was purged while it ran."""
    assert seen["left"] == []
    assert seen["home_touched"] == []
    assert seen["units"] == ""
    assert seen["purged"] == {"state": "inactive", "command": False}


def test_the_package_is_well_formed(packages: tuple[Path, Path]) -> None:
    """Root owns everything, nothing is writable by others, no path of the building machine is in it."""
    text = subprocess.run(
        ["dpkg-deb", "-c", str(packages[0])], capture_output=True, text=True, check=True
    ).stdout
    for line in text.splitlines():
        rights, owner = line.split()[:2]
        assert owner == "root/root", line
        assert rights[0] == "l" or rights[8] == "-", line
    assert "./usr/lib/systemd/user/gemini-pool.socket" in text
    assert "./usr/share/bash-completion/completions/gemini-pool" in text
