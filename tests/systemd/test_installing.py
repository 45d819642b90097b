"""`gemini-pool service install` gives a unit that starts and serves, from a venv and from pipx."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.systemd.session import ROOT, run_inside


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as users get it."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    folder.chmod(0o755)  # an ordinary user installs it
    line = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(line, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.mark.parametrize("scenario", ["from_a_venv", "from_pipx"])
def test_the_installed_unit_starts_and_leaves_nothing(wheel: Path, scenario: str) -> None:
    """Installed it runs, with its port held by systemd; twice changes nothing; uninstalled nothing of it is left."""
    found = run_inside(
        scenario, "installing.py", keep=[wheel.parent], extra={"SERVICE_WHEEL": str(wheel)}, timeout_s=300
    )
    if "missing" in found and not os.environ.get("GEMINI_POOL_REQUIRE_SYSTEMD"):
        pytest.skip(f"{found['missing']} is not installed")
    assert found["install"][0] == 0, found["install"]
    assert found["states"] == ["active", "active", "active"]
    assert found["status"]["active"] == "active" and found["status"]["enabled"]
    expected = ".local/bin/gemini-pool" if scenario == "from_pipx" else "a venv/bin/gemini-pool"
    assert " ".join(found["status"]["command"]).endswith(expected + " run")
    assert found["answer"] and found["after_restart"]
    assert found["port"] == "http://127.0.0.1:28790"
    expected = {"drop_in": True, "own_users": True, "root_writable": False, "home_writable": True}
    assert found["sandbox"] == expected
    assert found["again"][0] == 0 and found["again"][2], "a second install restarted the daemon"
    assert "as they should be" in found["again"][1]
    assert found["verify"] == [0, ""]
    assert found["uninstall"][0] == 0
    assert found["left"] == []
    assert found["units_left"] == ""
    assert found["accounts"] is True


def test_no_sandbox_where_the_probe_fails(wheel: Path) -> None:
    """Without user namespaces the drop-in is not written; forced, it is taken away again, and the service runs."""
    found = run_inside(
        "without_namespaces", "installing.py", keep=[wheel.parent], extra={"SERVICE_WHEEL": str(wheel)},
        timeout_s=300, namespaces=False,
    )  # fmt: skip
    for way, said in (("auto", "no namespace sandbox"), ("on", "taken away again")):
        code, out, _ = found[way]["install"]
        assert code == 0 and said in out, found[way]
        assert (found[way]["drop_in"], found[way]["own_users"], found[way]["answer"]) == (False, False, True)


def test_doctor_knows_the_unit_and_mends_it(wheel: Path) -> None:
    """Not installed, its command gone, failed: found, and the command that doctor names brings the service back."""
    found = run_inside(
        "doctor_mends",
        "installing.py",
        keep=[wheel.parent],
        extra={"SERVICE_WHEEL": str(wheel)},
        timeout_s=300,
    )
    said = {"missing": "not installed", "gone": "is gone", "refused": "has failed"}
    for trouble, text in said.items():
        before, code, after = found[trouble]
        assert text in before["text"], before
        assert before["runs"] and code == 0, before
        assert after["severity"] == "ok", (trouble, after)
    assert found["answer"] is True
