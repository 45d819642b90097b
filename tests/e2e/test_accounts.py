"""Accounts by command: the real command, the real daemon, the fake Google."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError

import pytest
from tests.fakes.daemon import PATIENCE_S, DaemonProcess, api_key_account, fake_google

from gemini_poold.fake import FakeGoogle, World

MODEL = "gemini-2.5-flash"
HEAD = "# my accounts\n\n"
NOBODY = "# nobody yet\n"


@pytest.fixture
def fake() -> Iterator[FakeGoogle]:
    world = World()
    world.add_api_key("a")
    world.add_api_key("b")
    world.add_user("ann", projects=["proj"])
    world.add_client()
    with fake_google(world) as google:
        yield google


@pytest.fixture
def daemon(tmp_path: Path, fake: FakeGoogle) -> Iterator[DaemonProcess]:
    accounts = HEAD + api_key_account("a") + "# the end\n"
    with DaemonProcess(tmp_path, fake=fake, accounts=accounts) as process:
        yield process


def client_file(fake: FakeGoogle, folder: Path) -> Path:
    path = folder / "client.json"
    path.write_text(
        json.dumps(fake.world.client_file(next(iter(fake.world.clients.values())))), encoding="utf-8"
    )
    return path


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


def consent(url: str) -> str:
    """What a browser does at Google's page: the address it is sent back to."""
    try:
        urllib.request.build_opener(_Stay).open(url, timeout=PATIENCE_S)
    except HTTPError as answer:
        with answer:
            return answer.headers["Location"]
    raise AssertionError("no redirect")


def command(daemon: DaemonProcess, *args: str, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "gemini_pool.cli", *args], env={**daemon.env, **env}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_a_pasted_login(daemon: DaemonProcess, fake: FakeGoogle, tmp_path: Path) -> None:
    """Without a browser the address is printed; the pasted redirect logs in, and the account serves at once."""
    secrets = str(client_file(fake, tmp_path))
    process = command(
        daemon, "login", "ann", "--project", "proj", "--client-secrets", secrets, "--no-browser"
    )
    assert process.stderr is not None
    assert process.stderr.readline().startswith("Open this address")
    back = consent(process.stderr.readline().strip())
    out, err = process.communicate(back + "\n", timeout=PATIENCE_S)
    assert process.returncode == 0, err
    assert "ann: ready (ann@example.com, proj" in out
    assert "serves this account" in out
    with daemon.pool() as pool:
        assert pool.generate(MODEL, "hello", account="ann")
    text = daemon.accounts_file.read_text(encoding="utf-8")
    assert text.startswith(HEAD)
    assert "# the end" in text
    assert 'id = "ann"' in text
    stored = (daemon.state_dir / "secrets" / "ann.json").read_text(encoding="utf-8")
    assert json.loads(stored)["refresh_token"] not in daemon.log + out + err


def test_a_login_with_a_browser(daemon: DaemonProcess, fake: FakeGoogle, tmp_path: Path) -> None:
    """With a browser the daemon listens for the answer itself; nothing is pasted."""
    secrets = str(client_file(fake, tmp_path))
    browser = tmp_path / "browser"  # follows redirects, as browsers do
    browser.write_text(
        f"#!{sys.executable}\nimport sys, urllib.request\nurllib.request.urlopen(sys.argv[1])\n"
    )
    browser.chmod(0o755)
    process = command(
        daemon,
        "login",
        "ann",
        "--client-secrets",
        secrets,
        DISPLAY=":0",
        BROWSER=f"{browser} %s",
        SSH_CONNECTION="",
    )
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    assert "ann: ready" in out


def test_a_browser_elsewhere(daemon: DaemonProcess, fake: FakeGoogle, tmp_path: Path) -> None:
    """Over SSH the tunnel's command is printed, and a browser that comes through it ends the wait for a paste."""
    process = command(
        daemon, "login", "ann", "--client-secrets", str(client_file(fake, tmp_path)), "--json",
        DISPLAY=":0", SSH_CONNECTION="192.0.2.1 50000 192.0.2.2 22", BROWSER="false",
    )  # fmt: skip
    assert process.stderr is not None
    process.stderr.readline()
    url = process.stderr.readline().strip()
    process.stderr.readline()
    port = re.search(r"redirect_uri=http%3A%2F%2F127.0.0.1%3A(\d+)", url)
    assert port is not None
    assert f"ssh -L {port[1]}:127.0.0.1:{port[1]} " in process.stderr.readline()
    with urllib.request.urlopen(consent(url), timeout=PATIENCE_S) as page:
        assert "ann is logged in" in page.read().decode()
    assert process.wait(PATIENCE_S) == 0  # although its standard input is open still
    assert process.stdout is not None
    assert json.load(process.stdout)["verdict"]["ok"] is True
    process.communicate()


def test_a_slip_of_the_hand(daemon: DaemonProcess, fake: FakeGoogle, tmp_path: Path) -> None:
    """A paste that is no answer is told, and the next one still logs in; nothing of either is repeated."""
    process = command(
        daemon, "login", "ann", "--client-secrets", str(client_file(fake, tmp_path)), "--no-browser"
    )
    assert process.stderr is not None
    process.stderr.readline()
    url = process.stderr.readline().strip()
    back = consent(url)
    out, err = process.communicate(f"{url}\ntwo words\n{back}", timeout=PATIENCE_S)
    assert process.returncode == 0, err
    assert "that is the address to open, not the answer" in err
    assert "neither an address nor a code" in err
    assert "two words" not in out + err
    assert back not in out + err + daemon.log


def test_an_own_login_that_google_refuses(daemon: DaemonProcess, fake: FakeGoogle, tmp_path: Path) -> None:
    """A denied consent ends the login with words; nothing is left behind."""
    fake.world.login_error = "access_denied"
    process = command(
        daemon, "login", "ann", "--client-secrets", str(client_file(fake, tmp_path)), "--no-browser"
    )
    assert process.stderr is not None
    process.stderr.readline()
    back = consent(process.stderr.readline().strip())
    _, err = process.communicate(back + "\n", timeout=PATIENCE_S)
    assert process.returncode == 4, err
    assert "the access was not allowed on Google's page" in err
    assert "ann" not in daemon.accounts_file.read_text(encoding="utf-8")


def test_keys_come_and_go(daemon: DaemonProcess, fake: FakeGoogle) -> None:
    """A key from standard input serves; verify tells each account; disable, enable and remove do what they say."""
    key = fake.world.key("b").key
    done = daemon.command(
        "account", "add", "b", "--backend", "developer-api", "--set", "priority=7", stdin=key + "\n"
    )
    assert done.returncode == 0, done.stderr
    with daemon.pool() as pool:
        assert pool.generate(MODEL, "hi", account="b")
        assert [a.priority for a in pool.accounts()] == [0, 7]
    assert (
        key not in daemon.accounts_file.read_text(encoding="utf-8") + daemon.log + done.stdout + done.stderr
    )

    verified = daemon.command("account", "verify")
    assert verified.returncode == 0, verified.stdout
    assert re.search(r"^a +developer-api +ready", verified.stdout, re.M)
    del fake.world.keys[key]
    verified = daemon.command("account", "verify", "b", "--json")
    assert verified.returncode == 1
    assert json.loads(verified.stdout)["accounts"][0]["verdict"]["ok"] is False

    assert daemon.command("account", "disable", "a").returncode == 0
    with daemon.pool() as pool:
        assert pool.accounts()[0].state == "disabled"
    assert daemon.command("account", "enable", "a").returncode == 0
    removed = daemon.command("account", "remove", "b", "--delete-secret")
    assert removed.returncode == 0, removed.stderr
    assert [p.name for p in (daemon.state_dir / "secrets").glob("b*") if p.suffix != ".lock"] == []
    assert daemon.command("account", "remove", "b").returncode == 1


def test_removing_with_revoke(daemon: DaemonProcess, fake: FakeGoogle, tmp_path: Path) -> None:
    """A revoked login is ended at Google, its secret is gone, and the file has its comments still."""
    test_a_pasted_login(daemon, fake, tmp_path)
    done = daemon.command("account", "remove", "ann", "--revoke")
    assert done.returncode == 0, done.stderr
    assert fake.record.count("revoke", status=200) == 1
    assert not (daemon.state_dir / "secrets" / "ann.json").exists()
    assert daemon.accounts_file.read_text(encoding="utf-8").startswith(HEAD)


def gemini_cli(fake: FakeGoogle, folder: Path) -> Path:
    """A Gemini CLI that is installed in a folder of its user's, known to his shell only; its `bin`."""
    client = next(iter(fake.world.clients.values()))
    del fake.world.clients[client.id]
    client.id = "123456789-fakefakefake.apps.googleusercontent.com"
    fake.world.clients[client.id] = client
    package = folder / "node" / "lib" / "node_modules" / "@google" / "gemini-cli"
    (package / "bundle").mkdir(parents=True)
    (package / "package.json").write_text('{"name": "@google/gemini-cli"}', encoding="utf-8")
    program = package / "bundle" / "gemini.js"
    program.write_text(
        f'var OAUTH_CLIENT_ID = "{client.id}"; var OAUTH_CLIENT_SECRET = "{client.secret}";', encoding="utf-8"
    )
    program.chmod(0o755)
    found = folder / "node" / "bin"
    found.mkdir()
    (found / "gemini").symlink_to(program)
    return found


def test_a_foreign_login_is_refused_then_accepted(
    daemon: DaemonProcess, fake: FakeGoogle, tmp_path: Path
) -> None:
    """Without a terminal nobody is asked, and the answer is no; with the wording's id the login is made, on record."""
    path = f"{gemini_cli(fake, tmp_path)}{os.pathsep}{daemon.env['PATH']}"
    asked = ("login", "ann", "--use-gemini-cli", "--no-browser")
    process = command(daemon, *asked, PATH=path)
    _, err = process.communicate("yes\n", timeout=PATIENCE_S)
    assert process.returncode == 1
    assert "Google states that using it" in err
    assert "--accept-terms-risk foreign-client-1" in err
    assert "ann" not in daemon.accounts_file.read_text(encoding="utf-8")

    process = command(daemon, *asked, "--accept-terms-risk", "foreign-client-1", PATH=path)
    assert process.stderr is not None
    process.stderr.readline()
    back = consent(process.stderr.readline().strip())
    out, err = process.communicate(back + "\n", timeout=PATIENCE_S)
    assert process.returncode == 0, err
    assert "another program's OAuth client" in out
    (_, entry) = tomllib.loads(daemon.accounts_file.read_text(encoding="utf-8"))["account"]
    assert entry["client_origin"] == "foreign"
    assert "foreign-client-1: This login uses" in entry["accepted_terms_risk"]


@pytest.mark.parametrize(("answer", "code"), [("yes", 0), ("no", 1)])
def test_a_person_is_asked(
    daemon: DaemonProcess, fake: FakeGoogle, tmp_path: Path, answer: str, code: int
) -> None:
    """At a terminal the wording is shown, and only a yes that was typed accepts it."""
    path = f"{gemini_cli(fake, tmp_path)}{os.pathsep}{daemon.env['PATH']}"
    master, terminal = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "gemini_pool.cli", "login", "ann", "--use-gemini-cli", "--no-browser"],
        env={**daemon.env, "PATH": path}, text=True, stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        os.write(master, f"{answer}\n".encode())
        assert process.stderr is not None
        if answer == "yes":
            lines = iter(process.stderr.readline, "")
            url = next(line.strip() for line in lines if line.startswith("http"))
            os.write(master, f"{consent(url)}\n".encode())
        out, err = process.communicate(timeout=PATIENCE_S)
    finally:
        os.close(master)
        os.close(terminal)
    assert process.returncode == code, out + err
    text = daemon.accounts_file.read_text(encoding="utf-8")
    assert ("foreign-client-1" in text) == (answer == "yes")


def test_an_import_needs_the_persons_word(daemon: DaemonProcess, fake: FakeGoogle, tmp_path: Path) -> None:
    """A login of another program is kept but not used until its wording is accepted; then it is tested, and serves."""
    world = fake.world
    login = world.authorized_user(world.users["ann"], next(iter(world.clients.values())))
    home = tmp_path / "home"
    (home / ".gemini").mkdir(parents=True)
    store = home / ".gemini" / "oauth_creds.json"
    creds = {
        "refresh_token": login["refresh_token"],
        "access_token": "x",
        "expiry_date": 1,
        "token_type": "Bearer",
    }
    store.write_text(json.dumps(creds), encoding="utf-8")
    daemon.env["HOME"] = str(home)
    how = ("import", "gemini-cli", "--client-secrets", str(client_file(fake, tmp_path)), "--account", "cli")
    first = daemon.command(*how)
    assert first.returncode == 1
    assert "Google states" in first.stderr
    assert "--accept-terms-risk foreign-client-1" in first.stderr
    assert fake.record.count("token") == 0
    with daemon.pool() as pool:
        assert [a.state for a in pool.accounts() if a.id == "cli"] == ["blocked_by_terms"]

    again = daemon.command(*how, "--accept-terms-risk", "foreign-client-1")
    assert again.returncode == 0, again.stdout + again.stderr
    (_, entry) = tomllib.loads(daemon.accounts_file.read_text(encoding="utf-8"))["account"]
    assert entry["client_origin"] == "foreign"
    assert "foreign-client-1" in entry["accepted_terms_risk"]
    assert daemon.command("account", "verify", "cli").returncode == 0
    assert json.loads(store.read_text(encoding="utf-8")) == creds

    given = daemon.command("export", "opencode", "cli", "--json")
    assert given.returncode == 0, given.stderr
    packed = json.loads(Path(json.loads(given.stdout)["path"]).read_text(encoding="utf-8"))
    assert packed["google"]["refresh"].startswith(login["refresh_token"])
    assert login["refresh_token"] not in given.stdout + again.stdout + first.stdout + daemon.log


def test_an_archive_moves_everything(daemon: DaemonProcess, fake: FakeGoogle, tmp_path: Path) -> None:
    """What one daemon exports under a passphrase, another imports: accounts and secrets."""
    test_keys = daemon.command(
        "account", "add", "b", "--backend", "developer-api", stdin=fake.world.key("b").key
    )
    assert test_keys.returncode == 0
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("a long enough passphrase\n", encoding="utf-8")
    archive = tmp_path / "pool.age"
    out = daemon.command("export", "archive", "--path", str(archive), "--passphrase-file", str(passphrase))
    assert out.returncode == 0, out.stderr
    assert archive.stat().st_mode & 0o777 == 0o600
    assert fake.world.key("b").key.encode() not in archive.read_bytes()
    twice = daemon.command("export", "archive", "--path", str(archive), "--passphrase-file", str(passphrase))
    assert (twice.returncode, "is there already" in twice.stderr) == (2, True)
    nobody = daemon.command("import", "archive", str(archive))
    assert (nobody.returncode, "--passphrase-file" in nobody.stderr) == (2, True)
    (tmp_path / "other").mkdir()
    with DaemonProcess(tmp_path / "other", fake=fake, accounts=NOBODY) as other:
        back = other.command("import", "archive", str(archive), "--passphrase-file", str(passphrase))
        assert back.returncode == 0, back.stdout + back.stderr
        with other.pool() as pool:
            assert {a.id for a in pool.accounts()} == {"a", "b"}
            assert pool.generate(MODEL, "hi", account="b")


def test_clearing_a_cooldown(daemon: DaemonProcess) -> None:
    """A person may end a rest by command."""
    with daemon.pool() as pool:
        pool.pause("a")
        pool.resume("a")
    done = daemon.command("account", "clear-cooldown", "a")
    assert done.returncode == 0, done.stderr
    assert "0 cooldowns cleared" in done.stdout
    assert daemon.command("account", "clear-cooldown", "nobody").returncode == 1
