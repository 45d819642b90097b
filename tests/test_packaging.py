"""What is shipped: the wheel's contents, the console script, the units, the pins."""

from __future__ import annotations

import configparser
import importlib.metadata
import json
import re
import tomllib
from pathlib import Path

import pytest

from gemini_pool import wire

ROOT = Path(__file__).parent.parent
UNITS = ROOT / "packaging" / "systemd"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WHEEL = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]


def unit(name: str) -> dict[str, dict[str, list[str]]]:
    """A unit file as section → key → values, since keys may stand several times."""
    parsed: dict[str, dict[str, list[str]]] = {}
    section = ""
    for line in (UNITS / name).read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            section = line.strip("[]")
            parsed.setdefault(section, {})
        else:
            key, _, value = line.partition("=")
            parsed[section].setdefault(key, []).append(value)
    return parsed


# ---- the distribution -----------------------------------------------------------------------------------------


def installed_files() -> list[str]:
    """What pip put down, by name; skips where the project is not installed as a wheel."""
    try:
        found = importlib.metadata.distribution("gemini-pool")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("gemini-pool is not installed here")
    if json.loads(found.read_text("direct_url.json") or "{}").get("dir_info", {}).get("editable"):
        pytest.skip("gemini-pool is installed in place here")
    return [str(name) for name in found.files or ()]


def test_everything_in_the_tree_is_in_the_wheel() -> None:
    """Each file of both packages is installed, typed markers included."""
    files = set(installed_files())
    for package in WHEEL["packages"]:
        folder = ROOT / package
        wanted = {
            str(path.relative_to(folder.parent))
            for path in folder.rglob("*")
            if path.is_file() and path.suffix not in {".pyc", ".pyo"}
        }
        assert not wanted - files


def test_nothing_else_is_in_the_wheel() -> None:
    """Two packages, the command, the units and the metadata: no tests, no loose modules."""
    names = [re.sub(r"^(\.\./)+", "", name) for name in installed_files()]
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"gemini_pool", "gemini_poold", "bin", "share", f"gemini_pool-{wire.VERSION}.dist-info"}
    assert {name for name in names if name.startswith("share/")} == set(WHEEL["shared-data"].values())


def test_one_version() -> None:
    """The distribution and the wire say the same version."""
    assert PROJECT["project"]["version"] == wire.VERSION


def test_what_pyproject_names_exists() -> None:
    """Packages, licence, README and shared files are where pyproject.toml says."""
    named = [*WHEEL["packages"], *WHEEL["shared-data"], *PROJECT["project"]["license-files"]]
    named.append(PROJECT["project"]["readme"])
    assert not [name for name in named if not (ROOT / name).exists()]
    for package in WHEEL["packages"]:
        assert (ROOT / package / "__init__.py").exists()


def test_the_command_is_there() -> None:
    """The console script's function can be called."""
    module, _, name = PROJECT["project"]["scripts"]["gemini-pool"].partition(":")
    assert callable(getattr(importlib.import_module(module), name))


# ---- the pins -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted((ROOT / "requirements").glob("*.txt")), ids=lambda path: path.name)
def test_pins_have_hashes_and_name_no_place(path: Path) -> None:
    """Every requirement is pinned with hashes, and nothing says where it was fetched from."""
    text = path.read_text(encoding="utf-8")
    requirements = [line for line in text.splitlines() if line and line[0] not in " #"]
    assert requirements
    assert not [
        line for line in requirements if not re.match(r"[a-z0-9._-]+(\[[a-z,]+\])?==[^ ]+ .*\\$", line)
    ]
    assert text.count("--hash=sha256:") >= len(requirements)
    assert not re.search(r"https?:|--(extra-)?index-url|--find-links|file:|@ ", text)


def test_pins_cover_what_the_project_needs() -> None:
    """Each dependency of pyproject.toml stands in each file that is installed before `pip install --no-deps .`."""
    names = {re.split(r"[<>=\[; ]", line)[0] for line in PROJECT["project"]["dependencies"]}
    for name in ("run", "test", "dev", "clients"):
        text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
        assert not {wanted for wanted in names if not re.search(rf"^{re.escape(wanted)}==", text, re.M)}


# ---- other packages -------------------------------------------------------------------------------------------


def test_the_containers_recipe_runs_as_nobody_with_pinned_requirements() -> None:
    """No root, no unpinned requirement, an exec-form command so that SIGTERM reaches the daemon."""
    lines = (ROOT / "packaging" / "Containerfile").read_text(encoding="utf-8").splitlines()
    assert "USER gemini-pool" in lines
    assert 'ENTRYPOINT ["gemini-pool"]' in lines and 'CMD ["run"]' in lines
    installs = [line for line in lines if "pip install" in line]
    assert installs and all("--require-hashes" in line or "--no-deps" in line for line in installs)


def test_every_recipe_takes_the_same_pins() -> None:
    """Debian's, Homebrew's and the container's: requirements/run.txt, which has all that the project needs."""
    for name in ("Containerfile", "gemini-pool.rb", "debian/build"):
        assert "requirements/run.txt" in (ROOT / "packaging" / name).read_text(encoding="utf-8"), name


# ---- the units ------------------------------------------------------------------------------------------------


def test_the_service_is_what_the_contract_says() -> None:
    """Type=notify with a watchdog, a reload that returns when done, 78 does not restart, no folders of systemd's."""
    service = unit("gemini-pool.service")["Service"]
    assert service["Type"] == ["notify"]
    assert service["NotifyAccess"] == ["main"]
    assert service["ExecStart"] == ["%h/.local/bin/gemini-pool run"]
    assert service["ExecReload"] == ["%h/.local/bin/gemini-pool reload"]
    assert service["Restart"] == ["on-failure"]
    assert service["RestartPreventExitStatus"] == ["78"]
    assert service["WatchdogSec"] == ["30s"]
    assert service["TimeoutStopSec"] == ["15s"]
    assert service["UMask"] == ["0077"]
    assert service["LimitCORE"] == ["0"]
    assert not [key for key in service if key.endswith("Directory")]


def test_the_service_needs_no_user_namespace() -> None:
    """What needs one does nothing in older user managers, or stops the service from starting: it is not shipped."""
    service = unit("gemini-pool.service")["Service"]
    forbidden = (
        r"Protect.*|Private.*|.*Paths|CapabilityBoundingSet|TemporaryFileSystem|DynamicUser|IPAddress.*"
    )
    assert not [key for key in service if re.fullmatch(forbidden, key)]
    assert {"NoNewPrivileges", "RestrictNamespaces", "SystemCallFilter", "MemoryDenyWriteExecute"} <= set(
        service
    )


def test_the_service_works_without_the_socket_unit() -> None:
    """The socket unit is wanted and not required; stopping it stops the service."""
    section = unit("gemini-pool.service")["Unit"]
    assert "Requires" not in section
    assert section["Wants"] == section["After"] == section["PartOf"] == ["gemini-pool.socket"]


def test_the_socket_unit_owns_both_sockets() -> None:
    """Both Unix sockets are systemd's, private, and gone when it stops."""
    sockets = unit("gemini-pool.socket")["Socket"]
    assert sockets["ListenStream"] == ["%t/gemini-pool/pool.sock", "%t/gemini-pool/gateway.sock"]
    assert (sockets["SocketMode"], sockets["DirectoryMode"]) == (["0600"], ["0700"])
    assert sockets["RemoveOnStop"] == ["yes"]


def test_units_are_clean_ini() -> None:
    """No key stands outside of a section, and no section twice."""
    for path in UNITS.iterdir():
        parser = configparser.ConfigParser(strict=False, interpolation=None)
        parser.read_string(path.read_text(encoding="utf-8"))
        text = path.read_text(encoding="utf-8")
        assert len(re.findall(r"^\[", text, re.M)) == len(parser.sections())
