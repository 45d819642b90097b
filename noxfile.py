"""The checks, the same at home and in CI: `nox` runs the quick ones, `nox -s NAME` one of the others.

`tests` needs nothing but Python. `package` builds and installs; `systemd` wants root and systemd on the machine,
`clients` wants npm and the network, `bench` and `soak` want a quiet machine.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from pathlib import Path

import nox

nox.needs_version = ">=2024.10"
nox.options.sessions = ["lint", "types", "tests", "package"]
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_external_run = True

HERE = Path(__file__).parent
REQUIREMENTS = {
    "test": ["pyproject.toml", "--extra", "test"],
    "dev": ["pyproject.toml", "--extra", "dev"],
    "build": ["requirements/build.in"],
    "run": ["pyproject.toml", "--constraint", "requirements/test.txt"],
    "clients": ["pyproject.toml", "requirements/clients.in", "--extra", "test"],
}


def pinned(session: nox.Session, name: str) -> None:
    session.install("--quiet", "--require-hashes", "-r", f"requirements/{name}.txt")


def installed(session: nox.Session, name: str = "test") -> None:
    """The pinned requirements and the project itself, as a wheel: what users get is what is tested."""
    pinned(session, name)
    session.install("--quiet", "--no-deps", "--force-reinstall", ".")


@nox.session
def lint(session: nox.Session) -> None:
    """ruff: rules and format."""
    pinned(session, "dev")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """mypy --strict over both packages."""
    pinned(session, "dev")
    session.run("mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """The tests of README's second command."""
    installed(session)
    session.run("pytest", *session.posargs)


@nox.session
def package(session: nox.Session) -> None:
    """Build sdist and wheel, install the wheel elsewhere, delete the source, run what was installed."""
    pinned(session, "build")
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder)
        source, dist, venv, empty = there / "source", there / "dist", there / "venv", there / "empty"
        ignored = shutil.ignore_patterns(".git", ".*_cache", ".venv", ".nox", "__pycache__", "node_modules")
        shutil.copytree(HERE, source, ignore=ignored)
        with session.chdir(source):
            session.run("python", "-m", "hatchling", "build", "-d", str(dist))
        (sdist,), (wheel,) = dist.glob("*.tar.gz"), dist.glob("*.whl")
        second = _wheel_from(session, sdist, there / "second")
        session.run("python", "-m", "zipfile", "-t", str(wheel), silent=True)
        if (first_names := _names(wheel)) != (second_names := _names(second)):
            session.error(f"the sdist builds another wheel: {first_names ^ second_names}")
        session.run("python", "-m", "venv", str(venv))
        pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        session.run(*pip, "--require-hashes", "-r", str(source / "requirements/test.txt"), external=True)
        session.run(*pip, "--no-deps", str(wheel), external=True)
        shutil.rmtree(source)
        empty.mkdir()
        with session.chdir(empty):
            command = str(venv / "bin" / "gemini-pool")
            session.run(command, "--version", external=True)
            session.run(command, "--help", external=True, silent=True)
            session.run(command, "demo", external=True, env={"HOME": str(empty), "TERM": "dumb"})


def _wheel_from(session: nox.Session, sdist: Path, folder: Path) -> Path:
    session.run("python", "-m", "tarfile", "-e", str(sdist), str(folder))
    (source,) = folder.iterdir()
    with session.chdir(source):
        session.run("python", "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "dist"))
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


def _names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@nox.session
def systemd(session: nox.Session) -> None:
    """The service under a real `systemd --user`, as an ordinary user of a machine that this makes up."""
    installed(session, "clients")  # a restart is tried under the load of real ones
    pinned(session, "build")  # a wheel is built and installed in there
    session.run("pytest", "tests/systemd", *session.posargs)


@nox.session
def deb(session: nox.Session) -> None:
    """Build the Debian package; install, upgrade and purge it in a clean root: as root, on Debian, with debootstrap."""
    installed(session)
    pinned(session, "build")
    session.run("pytest", "tests/deb", *session.posargs)


@nox.session
def clients(session: nox.Session) -> None:
    """Real clients from the registries against the gateway: what the tests install is kept in a folder outside the tree."""
    installed(session, "clients")
    session.run("pytest", "tests/clients", *session.posargs)


@nox.session
def editors(session: nox.Session) -> None:
    """The plugins of editors, headless, against every transcript and the real daemon; wants the editors."""
    installed(session)
    session.run("pytest", "tests/editors", "tests/clients_node", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Every benchmark as a ratio to its floor in the same run; fails where a ratio is missed."""
    installed(session)
    for script in sorted((HERE / "tests" / "bench").glob("[!_]*.py")):
        session.run("python", str(script), "--check", *session.posargs)


@nox.session
def lab(session: nox.Session) -> None:
    """Traces of the lab in real time, through the real daemon: as many served as the simulation says. `-- --quick`: 2 min."""
    installed(session)
    session.run("python", "-m", "tests.lab.realtime", *session.posargs)


@nox.session
def properties(session: nox.Session) -> None:
    """The properties of pool and queue, looked at for much longer than `tests` does, and never alike."""
    installed(session)
    session.run("pytest", "tests/core/test_properties.py", *session.posargs, env={"GEMINI_POOL_DEEP": "1"})


@nox.session
def soak(session: nox.Session) -> None:
    """Ten minutes of idling; a thousand slow streams; memory over 100,000 requests. `-- --quick`: a minute of idling."""
    installed(session)
    if session.posargs == ["--quick"]:
        session.run("python", "tests/soak/idle.py", "--check", "--seconds", "60")
        return
    session.run("python", "tests/soak/idle.py", "--check")
    session.run("python", "tests/soak/slow_clients.py", "--check", *session.posargs)
    session.run("python", "tests/bench/gateway.py", "--long", "--check", *session.posargs)


@nox.session
def requirements(session: nox.Session) -> None:
    """Pin requirements/*.txt anew, for the oldest Python upwards and every platform."""
    session.install("uv")
    line = ["uv", "pip", "compile", "--no-config", "--universal", "--python-version", "3.11", "--upgrade"]
    line += ["--generate-hashes", "--no-emit-index-url", "--quiet"]
    line += ["--custom-compile-command", "nox -s requirements"]
    for name, sources in REQUIREMENTS.items():
        session.run(*line, "-o", f"requirements/{name}.txt", *sources, silent=True)
