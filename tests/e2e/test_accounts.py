"""Accounts by command: the real command, the real daemon, the fake Google."""

from __future__ import annotations

import json
import re
import subprocess
import sys
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
    assert process.returncode in (1, 4)
    assert "access" in err
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


def test_an_import_needs_the_persons_word(daemon: DaemonProcess, fake: FakeGoogle, tmp_path: Path) -> None:
    """A login of another program is refused until its wording is accepted; then it is tested, and counts as foreign."""
    world = fake.world
    login = world.authorized_user(world.users["ann"], next(iter(world.clients.values())))
    home = tmp_path / "home"
    (home / ".gemini").mkdir(parents=True)
    creds = {
        "refresh_token": login["refresh_token"],
        "access_token": "x",
        "expiry_date": 1,
        "token_type": "Bearer",
    }
    (home / ".gemini" / "oauth_creds.json").write_text(json.dumps(creds), encoding="utf-8")
    daemon.env["HOME"] = str(home)
    secrets = str(client_file(fake, tmp_path))
    first = daemon.command("import", "gemini-cli", "--client-secrets", secrets, "--project", "proj")
    assert "Google states" in first.stderr
    assert "blocked" in first.stdout
    with daemon.pool() as pool:
        assert pool.accounts()[1].state == "blocked_by_terms"
    assert fake.record.count("token") == 0  # nothing was asked of Google before the word was given
    again = daemon.command(
        "import", "gemini-cli", "--client-secrets", secrets, "--project", "proj",
        "--accept-terms-risk", "foreign-client-1",
    )  # fmt: skip
    assert again.returncode == 0, again.stdout + again.stderr
    with daemon.pool() as pool:
        assert pool.generate(MODEL, "hi", account=pool.accounts()[1].id, wait_s=10)
    text = daemon.accounts_file.read_text(encoding="utf-8")
    assert 'client_origin = "foreign"' in text
    assert "foreign-client-1" in text


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
