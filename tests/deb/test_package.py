"""The Debian package in a clean root: built, installed, upgraded while it serves, purged.

Skipped where the machine cannot do it, unless GEMINI_POOL_REQUIRE_DEB is set.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.deb import clean_root
from tests.deb.clean_root import HOME, ROOT, Bootstrap, Root, differences
from tests.fakes.daemon import fake_google

from gemini_poold.fake import World

COMMAND = "/usr/bin/gemini-pool"
SERVICE = "gemini-pool.service"
PORT = 28792
MODEL = "gemini-3.5-flash"
PATIENCE_S = 30.0
STATE = f"{HOME}/.local/state/gemini-pool"


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


# ---- one life of the package, looked at by the tests below -----------------------------------------------------


@dataclass
class Life:
    """What was seen, step by step."""

    version: str = ""
    unasked: str = ""  # the service's state after the package came
    installed: dict[str, Any] = field(default_factory=dict)
    answer: str = ""
    by_socket: str = ""  # the state after the service had ended and somebody came
    said_by_upgrade: str = ""
    upgraded: dict[str, Any] = field(default_factory=dict)
    served_meanwhile: list[str] = field(default_factory=list)  # "" for each answer, else what went wrong
    home_after_upgrade: list[str] = field(default_factory=list)
    units_left: str = ""
    home_after_purge: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    purged_running: dict[str, Any] = field(default_factory=dict)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bootstrap]:
    if why := clean_root.unable():
        unable(why)
    try:
        with clean_root.bootstrapping(tmp_path_factory.mktemp("root")) as coming:
            yield coming
    except clean_root.Unable as error:
        unable(str(error))


@pytest.fixture(scope="module")
def life(bare: Bootstrap, packages: tuple[Path, Path]) -> Life:
    """In this order: the root is made while the package is built."""
    world = World()
    key = world.add_api_key("key-a").key
    try:
        root = bare.root()
        for name, deb in zip(("old.deb", "new.deb"), packages, strict=True):
            shutil.copy(deb, root.folder / "tmp" / name)
        with fake_google(world) as google, root.session():
            return live(root, google.endpoints()["developer_api"], key)
    except clean_root.Unable as error:
        unable(str(error))
        raise


def live(root: Root, google: str, key: str) -> Life:
    seen = Life()
    root.write(
        f"{HOME}/.config/gemini-pool/config.toml",
        f'[gateway]\nlisten = "127.0.0.1:{PORT}"\n[endpoints]\ndeveloper_api = "{google}"\n',
    )
    root.write(
        f"{HOME}/.config/gemini-pool/accounts.toml",
        '[[account]]\nid = "key-a"\nbackend = "developer-api"\n'
        'credential = { type = "api-key", secret = { file = "secrets/key-a" } }\n',
    )
    root.write(f"{STATE}/secrets/key-a", key)
    before = root.system()

    root.run("dpkg", "--install", "/tmp/old.deb")  # all it depends on must be there
    seen.version = root.as_user(COMMAND, "--version").stdout.strip()
    seen.unasked = _active(root)
    root.as_user(COMMAND, "service", "install")
    seen.installed = _status(root)
    seen.answer = root.as_user(COMMAND, "ask", MODEL, "hello").stdout
    root.as_user("systemctl", "--user", "stop", SERVICE)
    root.as_user(COMMAND, "status")
    seen.by_socket = _active(root)

    homes, pid = root.homes(), _status(root)["pid"]
    with _asked_all_the_time(root) as seen.served_meanwhile:
        time.sleep(0.5)
        seen.said_by_upgrade = root.run("dpkg", "--install", "/tmp/new.deb").stderr
        deadline = time.monotonic() + PATIENCE_S
        while (now := _status(root))["pid"] in (0, pid) and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(0.5)
    seen.upgraded = {**now, "before": pid}
    seen.home_after_upgrade = _by_others(homes, root.homes())

    root.as_user(COMMAND, "service", "uninstall")
    seen.units_left = root.as_user(
        "systemctl", "--user", "list-units", "--all", "--no-legend", "gemini-pool*"
    ).stdout
    homes = root.homes()
    root.run("dpkg", "--purge", "gemini-pool")
    seen.home_after_purge = differences(homes, root.homes())
    seen.left = differences(before, root.system())

    root.run("dpkg", "--install", "/tmp/new.deb")
    root.as_user(COMMAND, "service", "install")
    homes = root.homes()
    root.run("dpkg", "--purge", "gemini-pool")
    seen.purged_running = {
        "active": _active(root),
        "home": _by_others(homes, root.homes()),
        "left": differences(before, root.system()),
    }
    return seen


def _active(root: Root) -> str:
    line = ["systemctl", "--user", "show", "--property=ActiveState", "--value", SERVICE]
    return root.as_user(*line).stdout.strip()


def _status(root: Root) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(root.as_user(COMMAND, "service", "status", "--json").stdout)
    return found


def _by_others(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """What changed in homes besides the state that a running daemon keeps itself."""
    return [path for path in differences(before, after) if not path.startswith(f"{STATE}/")]


class _Asking(threading.Thread):
    """Somebody who asks the gateway's port without a pause, on a new connection each time."""

    def __init__(self, key: str) -> None:
        super().__init__(daemon=True)
        self.outcomes: list[str] = []
        self.ended = threading.Event()
        self._key = key

    def run(self) -> None:
        body = json.dumps({"contents": [{"role": "user", "parts": [{"text": "hello"}]}]})
        headers = {"x-goog-api-key": self._key, "Content-Type": "application/json", "Connection": "close"}
        while not self.ended.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=PATIENCE_S)
            try:
                connection.request("POST", f"/v1beta/models/{MODEL}:generateContent", body, headers)
                answer = connection.getresponse()
                answer.read()
                if answer.status != 503:  # "stopping, come again": every SDK does
                    self.outcomes.append("" if answer.status == 200 else f"status {answer.status}")
            except OSError as error:
                self.outcomes.append(repr(error))
            finally:
                connection.close()


class _asked_all_the_time:
    def __init__(self, root: Root) -> None:
        self._thread = _Asking(root.path(f"{STATE}/gateway.key").read_text().strip())

    def __enter__(self) -> list[str]:
        self._thread.start()
        return self._thread.outcomes

    def __exit__(self, *_: object) -> None:
        self._thread.ended.set()
        self._thread.join(PATIENCE_S)


# ---- what has to hold ------------------------------------------------------------------------------------------


def test_it_installs_and_serves(life: Life) -> None:
    """Nobody's service starts unasked; asked, it starts from the package's own unit, by the package's command."""
    assert life.version.startswith("gemini-pool ")
    assert life.unasked == "inactive"
    assert life.installed["active"] == "active" and life.installed["enabled"]
    assert life.installed["file"] == "/usr/lib/systemd/user/gemini-pool.service"
    assert life.installed["command"] == [COMMAND, "run"]
    assert life.installed["sandbox"] is True, "it needs no D-Bus of the user's, which a bare system lacks"
    assert life.answer.strip()
    assert life.by_socket == "active", "the first who came did not start it"


def test_it_upgrades_while_it_serves(life: Life) -> None:
    """Afterwards another process serves; nobody was refused meanwhile, and no home was touched."""
    assert life.upgraded["active"] == "active"
    assert life.upgraded["pid"] not in (0, life.upgraded["before"])
    assert life.said_by_upgrade == ""
    assert len(life.served_meanwhile) > 20
    assert [outcome for outcome in life.served_meanwhile if outcome] == []
    assert life.home_after_upgrade == []


def test_purged_it_leaves_nothing(life: Life) -> None:
    """Outside of homes every file is as it was before; in them nothing changed; also when purged while it ran."""
    assert life.units_left == ""
    assert life.home_after_purge == []
    assert life.left == []
    assert life.purged_running == {"active": "inactive", "home": [], "left": []}


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
