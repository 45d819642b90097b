"""`gemini-pool doctor`: every broken set-up is found and its mend named; where that is a command, it is run and works."""

from __future__ import annotations

import contextlib
import email.utils
import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.daemon import DaemonProcess, api_key_account, fake_google

from gemini_pool import cli, doctor_files, doctor_life, doctor_network, doctor_tools, paths, wire
from gemini_pool.doctor import Check, Finding, Patient, examine
from gemini_pool.doctor_bundle import redacted
from gemini_poold.fake import World

ACCOUNT = """
[[account]]
id = "key-a"
backend = "developer-api"
credential = { type = "api-key", secret = { file = "secrets/key-a" } }
"""


class Home:
    """A user's folders, and doctor's look at them with one check."""

    def __init__(self, folder: Path) -> None:
        self.environ = {
            "HOME": str(folder / "home"),
            "PATH": f"{folder / 'bin'}:/usr/bin:/bin",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "GEMINI_POOL_CONFIG_DIR": str(folder / "config"),
            "GEMINI_POOL_STATE_DIR": str(folder / "state"),
            "GEMINI_POOL_SOCKET": str(folder / "run" / "pool.sock"),
        }
        self.where = paths.places(self.environ)
        for path in (
            self.where.config_dir,
            self.where.secrets_dir,
            self.where.socket.parent,
            folder / "home",
        ):
            path.mkdir(parents=True, mode=0o700)
        self.where.state_dir.chmod(0o700)
        self.bin = folder / "bin"
        self.secret = self.where.secrets_dir / "key-a"
        self.secret.touch(mode=0o600)
        self.secret.write_text("fake-key-a\n")
        self.where.accounts_file.write_text(ACCOUNT)

    def patient(self, *, daemon: bool = False) -> Patient:
        patient = Patient(self.environ, self.where)
        if daemon:
            patient.ask_daemon(probe=False)
        return patient

    def patient_findings(self) -> list[Finding]:
        return list(doctor_life.accounts(self.patient(daemon=True)))

    def look(self, check: Check, *, daemon: bool = False) -> list[Finding]:
        return [one for one in check(self.patient(daemon=daemon)) if one.severity in ("error", "warning")]

    def mend(self, check: Check, text: str, *, daemon: bool = False) -> None:
        """The check finds one thing, that says `text`; its command is run; nothing is found any more."""
        (found,) = self.look(check, daemon=daemon)
        assert text in found.text
        assert found.runs
        subprocess.run(["sh", "-c", found.mend], env=self.environ, check=True)
        assert self.look(check, daemon=daemon) == []

    def command(self, name: str, text: str) -> None:
        self.bin.mkdir(exist_ok=True)
        (self.bin / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.bin / name).chmod(0o755)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


# ---- files ----------------------------------------------------------------------------------------------------


def test_a_healthy_home_has_no_findings(home: Home) -> None:
    """Nothing is found where nothing is wrong."""
    for check in doctor_files.CHECKS:
        assert home.look(check) == []


def test_an_open_folder(home: Home) -> None:
    """Folder 0755: closed again."""
    home.where.state_dir.chmod(0o755)
    home.mend(doctor_files.folders, "open to others (mode 0755)")


def test_an_open_secret(home: Home) -> None:
    """Secret 0644: closed again."""
    home.secret.chmod(0o644)
    home.mend(doctor_files.secrets, "open to others (mode 0644)")


def test_a_linked_secret(home: Home, tmp_path: Path) -> None:
    """A link is replaced by what it leads to."""
    (tmp_path / "elsewhere").write_text("fake-key-b\n")
    home.secret.unlink()
    home.secret.symlink_to(tmp_path / "elsewhere")
    home.mend(doctor_files.secrets, "symbolic link")
    assert home.secret.read_text() == "fake-key-b\n"


def test_a_missing_secret(home: Home) -> None:
    """A key has to be written by its owner; a login is made again."""
    home.secret.unlink()
    (found,) = home.look(doctor_files.secrets)
    assert found.account == "key-a" and str(home.secret) in found.mend and "0600" in found.mend
    text = ACCOUNT.replace("api-key", "oauth").replace("developer-api", "code-assist")
    home.where.accounts_file.write_text(text)
    (found,) = home.look(doctor_files.secrets)
    assert (found.mend, found.runs) == ("gemini-pool login key-a", True)


def test_an_unset_variable(home: Home) -> None:
    """A secret in a variable that is not there; set, nothing is found."""
    home.where.accounts_file.write_text(ACCOUNT.replace('file = "secrets/key-a"', 'env = "MY_KEY"'))
    (found,) = home.look(doctor_files.secrets)
    assert "MY_KEY" in found.text and "systemctl --user edit" in found.mend
    home.environ["MY_KEY"] = "x"
    assert home.look(doctor_files.secrets) == []


@pytest.mark.parametrize(
    ("name", "text", "line", "said"),
    [
        ("accounts.toml", "[[account]]\nid = \n", 2, ""),
        ("accounts.toml", ACCOUNT + ACCOUNT, 0, "key-a"),
        ("config.toml", "[gateway]\nlistn = ''\n", 2, "listn"),
    ],
    ids=["broken", "duplicate id", "unknown key"],
)
def test_a_broken_file(home: Home, name: str, text: str, line: int, said: str) -> None:
    """The file, the line and what is wrong with it."""
    (home.where.config_dir / name).write_text(text)
    (found, *_) = home.look(doctor_files.configuration)
    assert name in found.text and said in found.text
    assert found.mend.startswith(f"edit {home.where.config_dir / name}" + (f":{line}" if line else ""))


# ---- the daemon -----------------------------------------------------------------------------------------------


def test_a_stale_socket(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed daemon's socket: removed; then there simply is no daemon."""
    monkeypatch.setattr(doctor_life, "_daemons", list)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(home.where.socket))
    (found,) = home.look(doctor_life.daemon, daemon=True)
    assert "was killed" in found.text
    subprocess.run(["sh", "-c", found.mend], check=True)
    (found,) = home.look(doctor_life.daemon, daemon=True)
    assert found.text == "no daemon runs"
    assert found.mend in ("gemini-pool run", "systemctl --user start gemini-pool")


def test_a_taken_port(home: Home) -> None:
    """Another program listens where the gateway would."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        listen = f"127.0.0.1:{other.getsockname()[1]}"
        home.where.config_file.write_text(f'[gateway]\nlisten = "{listen}"\n')
        (found,) = home.look(doctor_life.port)
        assert listen in found.text and "[gateway] listen" in found.mend
        home.where.config_file.write_text('[gateway]\nlisten = "127.0.0.1:0"\n')
        assert home.look(doctor_life.port) == []


def accounts_of(found: list[Finding]) -> dict[str, Finding]:
    return {one.account: one for one in found if one.account}


def _login(world: World, daemon: DaemonProcess, name: str) -> str:
    """A Code Assist login of the fake, with its secret file."""
    user = world.add_user(name, projects=[f"{name}-project"])
    secret = daemon.state_dir / "secrets" / f"{name}.json"
    secret.touch(mode=0o600)
    secret.write_text(json.dumps(world.authorized_user(user, world.add_client(name))))
    return (
        f'[[account]]\nid = "{name}"\nbackend = "code-assist"\nproject = "{name}-project"\n'
        f'credential = {{ type = "oauth", secret = {{ file = "secrets/{name}.json" }} }}\n'
    )


def _replace(world: World, project: str, **changes: Any) -> None:
    found = world.projects[project]
    for name, value in changes.items():
        setattr(found, name, value)


def test_what_ails_accounts(tmp_path: Path) -> None:
    """A dead login, a project without a licence, a switched-off API, a secret that is not there: each is told with what
    mends it; once the cause is gone, the named verb brings the account back."""
    world = World()
    with fake_google(world) as fake:
        for name, project in (("good", "p1"), ("off", "p2")):
            world.add_api_key(name, project=project)
        daemon = DaemonProcess(tmp_path, fake=fake, accounts="")
        keys = api_key_account("good") + api_key_account("off") + api_key_account("unset")
        daemon.accounts_file.write_text(keys + _login(world, daemon, "dead") + _login(world, daemon, "bare"))
        world.revoke("dead")
        _replace(world, "bare-project", licensed=False)
        _replace(world, "p2", disabled=frozenset({"generativelanguage.googleapis.com"}))
        with daemon:
            home = _home_of(daemon, tmp_path)
            with daemon.pool() as pool:
                pool.verify()
            found = accounts_of(list(doctor_life.accounts(home.patient(daemon=True))))
            assert found["good"].severity == "ok"
            assert "secret_missing" in found["unset"].text and found["unset"].mend
            assert "login_required" in found["dead"].text and "gemini-pool login dead" in found["dead"].mend
            assert "unlicensed" in found["bare"].text and "licen" in found["bare"].mend
            assert "project_misconfigured" in found["off"].text and found["off"].mend
            _replace(world, "p2", disabled=frozenset())
            _replace(world, "bare-project", licensed=True)
            patient = Patient(home.environ, home.where)
            patient.ask_daemon(probe=True)
            again = list(doctor_life.accounts(patient))
            probed = {one.account: one.severity for one in again if one.check == "probe"}
            assert (probed["good"], probed["off"], probed["bare"], probed["dead"]) == (
                "ok",
                "ok",
                "ok",
                "error",
            )
            found = accounts_of([one for one in home.patient_findings() if one.check == "accounts"])
            assert (found["off"].severity, found["bare"].severity) == ("ok", "ok")


def test_a_second_daemon_and_an_older_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second daemon is seen and ended by the named command; a command newer than its daemon says what to restart,
    and that ends the old one."""
    with DaemonProcess(tmp_path / "one") as first, DaemonProcess(tmp_path / "two") as second:
        assert first.process is not None and second.process is not None
        home = _home_of(first, tmp_path)
        pid = f"pid {second.process.pid} "
        (other,) = [one for one in home.look(doctor_life.daemon, daemon=True) if pid in one.text]
        subprocess.run(["sh", "-c", other.mend], check=True)
        assert second.process.wait(20) == 0
        assert not [one for one in home.look(doctor_life.daemon, daemon=True) if pid in one.text]
        assert home.look(doctor_life.versions, daemon=True) == []
        monkeypatch.setattr(wire, "VERSION", "99.0")
        (old,) = home.look(doctor_life.versions, daemon=True)
        assert "99.0" in old.text and old.mend == f"kill {first.process.pid}; gemini-pool run"
        subprocess.run(["sh", "-c", old.mend.partition(";")[0]], check=True)
        assert first.process.wait(20) == 0


def _home_of(daemon: DaemonProcess, folder: Path) -> Home:
    home = Home.__new__(Home)
    home.environ = {**daemon.env, "HOME": str(folder)}
    home.where = paths.places(home.environ)
    home.bin = folder / "bin"
    return home


# ---- the network ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def server(offset_s: float) -> Iterator[str]:
    """An endpoint whose clock is off."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(404)
            self.send_header("Date", email.utils.formatdate(time.time() + offset_s, usegmt=True))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{httpd.server_port}"
        finally:
            httpd.shutdown()
            thread.join()


def endpoints(url: str) -> str:
    names = ("oauth_token", "code_assist", "developer_api")
    return "[endpoints]\n" + "".join(f'{name} = "{url}"\n' for name in names)


def test_a_wrong_clock(home: Home) -> None:
    """Ten minutes are an error with the command that sets the clock; a right clock is fine."""
    for offset_s, wanted in ((600.0, 1), (0.0, 0)):
        with server(offset_s) as url:
            home.where.config_file.write_text(endpoints(url))
            found = home.look(doctor_network.endpoints)
            assert len(found) == wanted
    assert all("10 min behind" in one.text and "timedatectl" in one.mend for one in found)


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def test_a_dead_token_endpoint(home: Home) -> None:
    """Which endpoint does not answer, and where it is set."""
    home.where.config_file.write_text(endpoints(f"http://127.0.0.1:{closed_port()}"))
    found = home.look(doctor_network.endpoints)
    assert any("oauth_token" in one.text and "[endpoints]" in one.mend for one in found)


def test_a_dead_proxy(home: Home) -> None:
    """One finding, not one for everything behind it."""
    home.environ["HTTPS_PROXY"] = f"http://127.0.0.1:{closed_port()}"
    (found,) = [*home.look(doctor_network.proxy), *home.look(doctor_network.endpoints)]
    assert "proxy" in found.text and "HTTPS_PROXY" in found.mend


def test_a_missing_ca(home: Home, tmp_path: Path) -> None:
    """A root certificate's file that is not there, or is none."""
    home.where.config_file.write_text(f'[network]\nca_file = "{tmp_path}/ca.pem"\n')
    (found,) = home.look(doctor_network.certificates)
    assert "ca.pem" in found.text and "ca_file" in found.mend


# ---- the tools, and the whole ---------------------------------------------------------------------------------


def test_tools_that_point_elsewhere(tmp_path: Path) -> None:
    """gemini-cli's and opencode's addresses are compared with the gateway's; the named command points them here."""
    with DaemonProcess(tmp_path / "d") as daemon:
        home = _home_of(daemon, tmp_path)
        (tmp_path / ".gemini").mkdir()
        (tmp_path / ".gemini" / ".env").write_text('CODE_ASSIST_ENDPOINT="https://elsewhere.example"\n')
        folder = tmp_path / ".config" / "opencode"
        folder.mkdir(parents=True)
        options = {"options": {"baseURL": "http://127.0.0.1:1/v1beta"}}
        (folder / "opencode.json").write_text(json.dumps({"provider": {"google": options}}))
        home.environ.pop("XDG_CONFIG_HOME", None)
        (found,) = home.look(doctor_tools.gemini_cli, daemon=True)
        assert "elsewhere.example" in found.text
        home.command("gemini-pool", f'exec {sys.executable} -m gemini_pool.cli "$@"')
        home.environ["PATH"] = f"{home.bin}:{home.environ['PATH']}"
        line = ["sh", "-c", found.mend + '; echo "$CODE_ASSIST_ENDPOINT"']
        done = subprocess.run(line, env=home.environ, capture_output=True, text=True, check=True)
        home.environ["CODE_ASSIST_ENDPOINT"] = done.stdout.strip()
        assert home.look(doctor_tools.gemini_cli, daemon=True) == []
        (found,) = home.look(doctor_tools.opencode, daemon=True)
        assert "127.0.0.1:1" in found.text and found.mend == 'eval "$(gemini-pool env opencode)"'


def test_a_check_that_fails_hides_no_other(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A surprise in one check is told, and the others are still made."""

    def surprise(_p: Patient) -> Iterator[Finding]:
        raise ValueError("surprise")
        yield

    monkeypatch.setattr(doctor_files, "CHECKS", [surprise, *doctor_files.CHECKS])
    monkeypatch.setattr(doctor_network, "CHECKS", [])
    found = examine(home.patient())
    assert any("surprise" in one.text for one in found)
    assert any(one.check == "folders" for one in found)


def test_the_command_and_its_archive(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """JSON on request, 1 where something is wrong; the archive is private and holds no secret and no address."""
    for name, value in home.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", os.environ["PATH"] + ":/usr/bin:/bin")
    with server(0.0) as url:
        home.where.config_file.write_text(
            endpoints(url)
            + '[network]\nproxy = "http://me:hunter2secret@127.0.0.1:1"\n# mail someone@example.com\n'
        )
        archive = tmp_path / "bundle.tar.gz"
        assert cli.main(["doctor", "--json", "--bundle", str(archive)]) == 1
    found = json.loads(capsys.readouterr().out)["findings"]
    assert {"check", "severity", "text"} <= set(found[0])
    assert archive.stat().st_mode & 0o777 == 0o600
    with tarfile.open(archive) as opened:
        names = [Path(name).name for name in opened.getnames()]
        text = "".join(opened.extractfile(one).read().decode() for one in opened.getmembers())  # type: ignore[union-attr]
    assert {"findings.json", "config.toml", "accounts.toml", "log.txt", "status.json"} <= set(names)
    for secret in ("fake-key-a", "hunter2secret", "someone@example.com", home.environ["HOME"]):
        assert secret not in text
    assert shutil.which("sh")


GOOGLES = "GOCSPX"  # how its client secrets begin; no shape of a secret stands in the tree whole


def pem(text: str) -> str:
    """What a private key looks like, put together here."""
    line = "PRIVATE KEY-----"
    return f"-----BEGIN {line}\n{text}\n-----END {line}"


@pytest.mark.parametrize(
    "secret",
    [
        "Authorization: Bearer abcdefgh12345",
        f"{GOOGLES}-abcdefgh1234",
        "x?key=abcdefgh1234",
        '"client_secret": "abcdefgh1234"',
        'secret={command=["pass", "abcdefgh1234"]}',
        "secret = { command = ['a]b', \"\\\"]\", 'abcdefgh1234'] }",
        'key = { command = [\n  "pass",  # it\'s there\n  "abcdefgh1234",\n] }',
        pem("abcdefgh1234"),
    ],
)
def test_what_looks_like_a_secret_is_taken_out(secret: str) -> None:
    """Whatever brought it into a log or a configuration."""
    text = redacted(f"before {secret} after")
    assert "abcdefgh1234" not in text and text.startswith("before") and text.endswith("after")
