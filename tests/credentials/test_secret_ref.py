"""Every kind of secret reference: read, written where that is possible, and refused with place and remedy."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
import types

import pytest
from tests.credentials.making import write_secret

from gemini_poold.config import SecretRef
from gemini_poold.credentials import secret_ref
from gemini_poold.credentials.base import CredentialError, Failure
from gemini_poold.credentials.secret_ref import open_source, resolve


def source(ref, state_dir, environ=None, **more):
    return open_source(ref, account="work", environ=environ or {}, state_dir=state_dir, **more)


async def refusal(ref, state_dir, environ=None, **more):
    with pytest.raises(CredentialError) as caught:
        await source(ref, state_dir, environ, **more).read()
    error = caught.value
    assert error.failure is Failure.SECRET
    assert error.account == "work"
    assert error.hint
    return error


async def test_a_file_relative_to_the_state_folder(tmp_path):
    """A relative name counts from the state folder, and the text comes without its line end."""
    write_secret(tmp_path / "secrets" / "a.key", "fake-key-a\n")
    got = await resolve(SecretRef(file="secrets/a.key"), account="work", environ={}, state_dir=tmp_path)
    assert got.reveal() == "fake-key-a"


async def test_a_file_is_replaced_whole_with_its_past_beside_it(tmp_path):
    """Writing keeps the last three contents, private, and the file's own mode."""
    place = source(SecretRef(file=str(write_secret(tmp_path / "a", "0"))), tmp_path)
    for number in range(1, 6):
        await place.write(str(number).encode())
    assert await place.read() == b"5"
    assert [(tmp_path / f"a.{n}").read_bytes() for n in (1, 2, 3)] == [b"4", b"3", b"2"]
    assert not (tmp_path / "a.4").exists()
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("a*")} == {0o600}


async def test_an_open_file_is_refused_with_the_command_that_mends_it(tmp_path):
    """Mode 0644 is refused; the hint is the chmod to type."""
    path = write_secret(tmp_path / "a.key", "fake-key-a", mode=0o644)
    error = await refusal(SecretRef(file=str(path)), tmp_path)
    assert error.hint == f"chmod 600 {path}"
    assert str(path) in error.message


async def test_a_missing_file_names_the_command_that_makes_it(tmp_path):
    """The account, the path, and the next command."""
    error = await refusal(SecretRef(file="secrets/a.json"), tmp_path, hint="gemini-pool login work")
    assert str(tmp_path / "secrets" / "a.json") in error.message
    assert error.hint == "gemini-pool login work"


async def test_a_link_is_refused(tmp_path):
    """A secret behind a symbolic link may lie anywhere."""
    (tmp_path / "link").symlink_to(write_secret(tmp_path / "a.key", "fake-key-a"))
    error = await refusal(SecretRef(file=str(tmp_path / "link")), tmp_path)
    assert "symbolic link" in error.message


def test_a_files_fingerprint_follows_every_mending(tmp_path):
    """Appearing, being replaced and a changed mode all show."""
    place = source(SecretRef(file=str(tmp_path / "a")), tmp_path)
    seen = [place.fingerprint_nowait()]
    write_secret(tmp_path / "a", "1", mode=0o644)
    seen.append(place.fingerprint_nowait())
    (tmp_path / "a").chmod(0o600)
    seen.append(place.fingerprint_nowait())
    write_secret(tmp_path / "b", "1").replace(tmp_path / "a")
    seen.append(place.fingerprint_nowait())
    assert len(set(seen)) == 4


async def test_a_variable(tmp_path):
    """Read from the daemon's environment; a missing or empty one names itself and the way to give it."""
    assert await source(SecretRef(env="KEY"), tmp_path, {"KEY": "fake-key-a"}).read() == b"fake-key-a"
    for environ in ({}, {"KEY": ""}):
        error = await refusal(SecretRef(env="KEY"), tmp_path, environ)
        assert "KEY" in error.message
        assert "systemctl --user edit gemini-pool" in error.hint


async def test_a_commands_output(tmp_path):
    """Run without a shell, with the daemon's environment but for what is the supervisor's business with us."""
    environ = {**os.environ, "FOUND": "fake-key-a", "NOTIFY_SOCKET": "/never"}
    script = "import os; print(os.environ['FOUND'], os.environ.get('NOTIFY_SOCKET'), '$HOME')"
    got = await source(SecretRef(command=(sys.executable, "-c", script)), tmp_path, environ).read()
    assert got == b"fake-key-a None $HOME\n"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("/nowhere/pass", "x"), "cannot run"),
        (
            (sys.executable, "-c", "import sys; print('fake-key-a', file=sys.stderr); sys.exit(3)"),
            "exit status 3",
        ),
    ],
)
async def test_a_failing_command(tmp_path, argv, words):
    """The error names program and exit status, and neither its arguments nor its output."""
    error = await refusal(SecretRef(command=argv), tmp_path, dict(os.environ))
    assert words in error.message
    assert "fake-key-a" not in str(error)


async def test_a_command_that_hangs_is_ended(tmp_path, monkeypatch):
    """After its time the whole process group is killed."""
    monkeypatch.setattr(secret_ref, "COMMAND_TIMEOUT_S", 0.2)
    error = await refusal(SecretRef(command=("/bin/sh", "-c", "sleep 60 & wait")), tmp_path, dict(os.environ))
    assert "no answer" in error.message


async def test_a_systemd_credential(tmp_path):
    """Read from the folder that systemd made; outside of a unit, or by a path, it is refused."""
    write_secret(tmp_path / "gemini", "fake-key-a", mode=0o400)
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    ref = SecretRef(systemd_credential="gemini")
    assert await source(ref, tmp_path, environ).read() == b"fake-key-a"
    for bad, given in (
        (ref, {}),
        (SecretRef(systemd_credential="other"), environ),
        (SecretRef(systemd_credential="../x"), environ),
    ):
        error = await refusal(bad, tmp_path, given)
        assert "LoadCredential" in error.hint


class _Keyring(types.ModuleType):
    """A keyring package whose store is a dictionary."""

    def __init__(self) -> None:
        super().__init__("keyring")
        self.entries = {("gemini", "work"): "fake-key-a"}
        self.hangs = False

    def get_password(self, service, user):
        if self.hangs:
            self.release.wait()
        return self.entries.get((service, user))

    def set_password(self, service, user, value):
        self.entries[service, user] = value


@pytest.fixture
def keyring(monkeypatch):
    module = _Keyring()
    monkeypatch.setitem(sys.modules, "keyring", module)
    return module


async def test_a_keyring_entry(tmp_path, keyring):
    """Read and written off the event loop."""
    place = source(SecretRef(keyring="gemini/work"), tmp_path)
    assert place.read_nowait() is None
    assert await place.read() == b"fake-key-a"
    await place.write(b"fake-key-b")
    assert keyring.entries["gemini", "work"] == "fake-key-b"
    error = await refusal(SecretRef(keyring="gemini/nobody"), tmp_path)
    assert error.hint == "put it there: keyring set gemini nobody"


async def test_a_keyring_that_does_not_answer(tmp_path, keyring, monkeypatch):
    """A locked keyring costs its time limit, not the daemon."""
    import threading

    monkeypatch.setattr(secret_ref, "KEYRING_TIMEOUT_S", 0.05)
    keyring.hangs, keyring.release = True, threading.Event()
    try:
        error = await refusal(SecretRef(keyring="gemini/work"), tmp_path)
    finally:
        keyring.release.set()
    assert "does not answer" in error.message


async def test_no_keyring_package(tmp_path, monkeypatch):
    """The extra's name is the hint."""
    monkeypatch.setitem(sys.modules, "keyring", None)
    error = await refusal(SecretRef(keyring="gemini/work"), tmp_path)
    assert error.hint == "pip install 'gemini-pool[keyring]'"


@pytest.mark.parametrize("content", ["", "\n", "two words", "line\nline", "kéy", "a\x00b"])
async def test_no_bare_key(tmp_path, content):
    """What could not stand in a header is refused before it gets there."""
    write_secret(tmp_path / "a.key", content)
    with pytest.raises(CredentialError) as caught:
        await resolve(SecretRef(file="a.key"), account="work", environ={}, state_dir=tmp_path)
    assert caught.value.failure is Failure.SECRET
    assert not content.strip() or content.strip() not in str(caught.value)


async def test_waiting_for_a_command_can_be_given_up(tmp_path):
    """A cancelled caller leaves no process behind."""
    marker = tmp_path / "pid"
    place = source(
        SecretRef(command=("/bin/sh", "-c", f"echo $$ > {marker}; exec sleep 60")), tmp_path, dict(os.environ)
    )
    task = asyncio.create_task(place.read())
    while not (marker.exists() and marker.read_text().strip()):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(ProcessLookupError):
        os.kill(int(marker.read_text()), 0)
