"""`gemini-pool service`: the command a unit starts, the texts, and what is written and taken away again."""

from __future__ import annotations

import os
import plistlib
import shlex
import sys
from pathlib import Path

import pytest

from gemini_pool import cli, paths, service, service_files, service_launchd
from gemini_pool.errors import PoolError
from gemini_pool.service_command import Command, this_installation, unit_words
from gemini_pool.service_launchd import Launchd, Neither
from gemini_pool.service_systemd import Systemd

COMMAND = Command(("/opt/a b/gemini-pool",), {}, "venv")


def installation(prefix: Path, home: Path) -> Command:
    (prefix / "bin").mkdir(parents=True, exist_ok=True)
    (prefix / "bin" / "gemini-pool").write_text("#!/bin/sh\n")
    return this_installation({"HOME": str(home)}, prefix=str(prefix), python="/usr/bin/python3")


def test_a_venv_starts_its_own_script(tmp_path: Path) -> None:
    """No link leads to it: the script itself, by the path that it was called by."""
    found = installation(tmp_path / "venv", tmp_path / "home")
    assert found == Command((str(tmp_path / "venv" / "bin" / "gemini-pool"),), {}, "venv")


@pytest.mark.parametrize(
    ("folder", "kind"), [("pipx/venvs/gemini-pool", "pipx"), ("uv/tools/gemini-pool", "uv tool")]
)
def test_tools_that_keep_a_link_are_started_by_it(tmp_path: Path, folder: str, kind: str) -> None:
    """pipx and uv rebuild their folder and keep ~/.local/bin: the link is what lasts."""
    home, prefix = tmp_path, tmp_path / ".local" / "share" / folder
    link = home / ".local" / "bin" / "gemini-pool"
    link.parent.mkdir(parents=True)
    link.symlink_to(prefix / "bin" / "gemini-pool")
    assert installation(prefix, home) == Command((str(link),), {}, kind)


def test_a_link_to_another_installation_is_not_ours(tmp_path: Path) -> None:
    """A venv beside a pipx installation is started as itself."""
    (tmp_path / "other").write_text("")
    link = tmp_path / ".local" / "bin" / "gemini-pool"
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "other")
    found = installation(tmp_path / "venv", tmp_path)
    assert found.words == (str(tmp_path / "venv" / "bin" / "gemini-pool"),)


def test_a_cache_is_refused(tmp_path: Path) -> None:
    """`uvx gemini-pool service install` would leave a unit whose command is swept away."""
    with pytest.raises(PoolError, match="cache") as caught:
        installation(tmp_path / ".cache" / "uv" / "x", tmp_path)
    assert "uv tool install" in caught.value.hint


def test_a_source_tree_takes_its_path_along(tmp_path: Path) -> None:
    """Without a script it is the module, with what made it importable."""
    environ = {"HOME": str(tmp_path), "PYTHONPATH": "/src"}
    found = this_installation(environ, prefix=str(tmp_path / "none"), python="/usr/bin/python3")
    assert found.words == ("/usr/bin/python3", "-m", "gemini_pool.cli")
    assert found.environ == {"PYTHONPATH": "/src"}
    assert (
        "Environment=PYTHONPATH=/src\n"
        in service_files.systemd(found, listen="", environ={}, sandbox=False)[service_files.SERVICE]
    )


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("/a/b", "/a/b"),
        ("/a b/c", '"/a b/c"'),
        ("/50%/$x", "/50%%/$$x"),
        ('/a"b\\c', '"/a\\"b\\\\c"'),
        ("", '""'),
    ],
)
def test_words_of_an_exec_line(word: str, written: str) -> None:
    """systemd's quoting, with its specifiers and variables as themselves."""
    assert unit_words([word]) == written


def test_the_units_are_the_shipped_ones_with_this_command() -> None:
    """Nothing else than the command (and the port, where it is another) differs from the templates."""
    texts = service_files.systemd(COMMAND, listen="127.0.0.1:9999", environ={}, sandbox=True)
    assert set(texts) == {
        "gemini-pool.service", "gemini-pool.socket", "gemini-pool-gateway.socket",
        "gemini-pool.service.d/gateway.conf", "gemini-pool.service.d/sandbox.conf",
    }  # fmt: skip
    text = texts["gemini-pool.service"]
    assert 'ExecStart="/opt/a b/gemini-pool" run\n' in text
    assert 'ExecReload="/opt/a b/gemini-pool" reload\n' in text
    restored = text.replace('"/opt/a b/gemini-pool"', "%h/.local/bin/gemini-pool")
    assert restored == f"# {service_files.MARK}\n" + service_files.template("gemini-pool.service")
    assert "ListenStream=127.0.0.1:9999\n" in texts["gemini-pool-gateway.socket"]
    without = service_files.systemd(COMMAND, listen="", environ={}, sandbox=False)
    assert set(without) == {"gemini-pool.service", "gemini-pool.socket"}


def test_places_of_the_users_choice_reach_the_units() -> None:
    """A manager has an environment of its own: what moves our folders is written down; the socket unit follows."""
    environ = {"GEMINI_POOL_STATE_DIR": "/data/my state", "GEMINI_POOL_SOCKET": "/s/x/p.sock"}
    texts = service_files.systemd(COMMAND, listen="", environ=environ, sandbox=False)
    assert 'Environment="GEMINI_POOL_STATE_DIR=/data/my state"\n' in texts["gemini-pool.service"]
    assert "ListenStream=/s/x/p.sock\nListenStream=/s/x/gateway.sock\n" in texts["gemini-pool.socket"]


def test_the_agent_has_launchds_types(tmp_path: Path) -> None:
    """A property list that plistlib reads back, with integers where launchd wants integers, and absolute paths."""
    where = paths.places({"HOME": str(tmp_path)}, platform="darwin")
    text = service_files.launchd(COMMAND, where, listen="127.0.0.1:8790", environ={"HOME": str(tmp_path)})
    agent = plistlib.loads(text)
    assert agent["Label"] == "gemini-pool"
    assert agent["ProgramArguments"] == ["/opt/a b/gemini-pool", "run"]
    assert agent["KeepAlive"] == {"SuccessfulExit": False}
    assert agent["ProcessType"] == "Standard"
    assert agent["Sockets"]["pool"] == {"SockPathName": str(where.socket), "SockPathMode": 384}
    assert agent["Sockets"]["port"]["SockServiceName"] == "8790"
    assert agent["RunAtLoad"] is True
    assert type(agent["Umask"]) is int and agent["Umask"] == 63
    for key in ("StandardOutPath", "StandardErrorPath"):
        assert Path(agent[key]).is_absolute()
    assert set(agent["Sockets"]) == {"pool", "gateway", "port"}
    assert set(agent) <= {
        "Label", "ProgramArguments", "Sockets", "RunAtLoad", "KeepAlive", "ThrottleInterval", "ExitTimeOut",
        "ProcessType", "Umask", "SoftResourceLimits", "StandardOutPath", "StandardErrorPath",
        "EnvironmentVariables",
    }  # fmt: skip


def fake_command(folder: Path, name: str, text: str = "exit 0") -> Path:
    """An executable that notes what it was called with."""
    folder.mkdir(exist_ok=True)
    calls = folder / f"{name}.calls"
    (folder / name).write_text(f'#!/bin/sh\necho "$*" >> {shlex.quote(str(calls))}\n{text}\n')
    (folder / name).chmod(0o755)
    return calls


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith(("GEMINI_POOL_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return tmp_path / "home"


def everything(home: Path) -> list[str]:
    return sorted(str(path.relative_to(home)) for path in home.rglob("*"))


def test_launchd_is_installed_twice_and_leaves_nothing(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent is written and bootstrapped once; a second time changes nothing; uninstalling takes it away."""
    loaded = tmp_path / "loaded"
    calls = fake_command(
        tmp_path / "bin", "launchctl",
        f"case $1 in print) test -e {loaded};; bootstrap) touch {loaded};; bootout) rm -f {loaded};; esac",
    )  # fmt: skip
    manager = service.pick(platform="darwin")
    assert isinstance(manager, Launchd)
    for _ in range(2):
        manager.install(COMMAND, "127.0.0.1:8790", force=False, sandbox=None, start=True)
    assert calls.read_text().count("bootstrap") == 1
    assert manager.state()["installed"] is True
    assert manager.command() == ["/opt/a b/gemini-pool", "run"]
    assert (home / "Library" / "Application Support" / "gemini-pool" / "run").stat().st_mode & 0o777 == 0o700
    manager.uninstall()
    assert not loaded.exists()
    assert not [name for name in everything(home) if name.endswith(".plist")]


def test_without_a_manager_the_desktop_starts_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An autostart entry where a desktop is, else the line to run; uninstalling takes the entry away."""
    monkeypatch.setenv("XDG_CURRENT_DESKTOP", "sway")
    manager = service.pick("none")
    assert isinstance(manager, Neither)
    manager.install(COMMAND, "", force=False, sandbox=None, start=True)
    entry = home / ".config" / "autostart" / service_launchd.DESKTOP
    assert 'Exec="/opt/a b/gemini-pool" run\n' in entry.read_text()
    manager.uninstall()
    assert not entry.exists()
    monkeypatch.delenv("XDG_CURRENT_DESKTOP")
    monkeypatch.delenv("DISPLAY", raising=False)
    (said,) = service.pick("none").install(COMMAND, "", force=False, sandbox=None, start=True)
    assert said.endswith("/opt/a b/gemini-pool run")


def test_files_of_another_are_left_alone(home: Path, tmp_path: Path) -> None:
    """A unit that somebody wrote by hand is neither replaced unasked nor removed."""
    fake_command(tmp_path / "bin", "systemctl")
    manager = Systemd(os.environ)
    unit = manager.files.folder / service_files.SERVICE
    unit.parent.mkdir(parents=True)
    unit.write_text("[Service]\nExecStart=/mine\n")
    with pytest.raises(PoolError, match="was not written by") as caught:
        manager.install(COMMAND, "", force=False, sandbox=False, start=False)
    assert "--force" in caught.value.hint
    manager.uninstall()
    assert unit.exists()


def test_systemd_files_come_and_go(home: Path, tmp_path: Path) -> None:
    """What was installed is gone afterwards, drop-in folder included; a port that is switched off loses its unit."""
    calls = fake_command(tmp_path / "bin", "systemctl")
    fake_command(tmp_path / "bin", "loginctl", "echo no")
    manager = Systemd({**os.environ, "USER": "me"})
    said = manager.install(COMMAND, "127.0.0.1:8790", force=False, sandbox=True, start=False)
    assert len(everything(manager.files.folder)) == 6
    assert "enable gemini-pool.service gemini-pool.socket gemini-pool-gateway.socket" in calls.read_text()
    assert "daemon-reload" in calls.read_text()
    assert any("enable-linger me" in line for line in said)
    manager.install(COMMAND, "", force=False, sandbox=False, start=False)
    assert everything(manager.files.folder) == ["gemini-pool.service", "gemini-pool.socket"]
    manager.uninstall()
    assert everything(manager.files.folder) == []


def test_a_units_command_may_have_spaces(home: Path, tmp_path: Path) -> None:
    """systemd tells a command's words unquoted; the path beside them says where the first one ends."""
    line = "{ path=/a b/gemini-pool ; argv[]=/a b/gemini-pool run ; ignore_errors=no ; start_time=[n/a] }"
    fake_command(tmp_path / "bin", "systemctl", f"echo '{line}'")
    assert Systemd(os.environ).command() == ["/a b/gemini-pool", "run"]


def test_the_sandbox_is_written_only_after_its_probe(home: Path, tmp_path: Path) -> None:
    """Where the system gives no namespaces, the drop-in would keep the service from starting."""
    fake_command(tmp_path / "bin", "systemctl")
    probe = fake_command(tmp_path / "bin", "systemd-run", "exit 1")
    manager = Systemd(os.environ)
    said = manager.install(COMMAND, "", force=False, sandbox=None, start=False)
    assert any("no namespace sandbox" in line for line in said)
    assert "PrivateUsers=yes" in probe.read_text() and "%h" not in probe.read_text()
    assert not (manager.files.folder / service_files.SANDBOX_CONF).exists()
    fake_command(tmp_path / "bin", "systemd-run")
    manager.install(COMMAND, "", force=False, sandbox=None, start=False)
    assert (manager.files.folder / service_files.SANDBOX_CONF).exists()


@pytest.mark.parametrize(
    ("config", "listen"),
    [
        ("", "127.0.0.1:8790"),
        ('[gateway]\nlisten = ""\n', ""),
        ('[gateway]\nlisten = "127.0.0.1:0"\n', ""),
        ('[gateway]\nlisten = "127.0.0.1:9000"\n', "127.0.0.1:9000"),
        ("[gateway\n", ""),
    ],
)
def test_the_port_is_the_configurations(home: Path, config: str, listen: str) -> None:
    """A manager holds the port only where it is a fixed one."""
    where = paths.places()
    where.config_dir.mkdir(parents=True)
    where.config_file.write_text(config)
    assert service.gateway_listen(where) == listen


def test_print_and_status_say_what_there_is(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`print` writes nothing; `status` of what is not installed names the command and exits 3."""
    assert cli.main(["service", "print", "--manager", "systemd"]) == 0
    printed = capsys.readouterr().out
    assert "ExecStart=" in printed and "ListenStream=" in printed
    assert cli.main(["service", "status", "--manager", "none"]) == 3
    assert "gemini-pool service install" in capsys.readouterr().out
    assert everything(home) == []
    assert cli.main(["service", "print", "--manager", "launchd"]) == 0
    assert plistlib.loads(capsys.readouterr().out.encode())["ProgramArguments"][-1] == "run"
    assert sys.executable  # the words of a source tree begin with it
