"""Secrets encrypted at rest: the daemon reads and rewrites them sealed, the command seals, opens and recovers folders."""

from __future__ import annotations

import asyncio
import json
import os

import pytest
from tests.credentials.making import TokenEndpoint, context, entry, file, login_file, write_secret

from gemini_poold import files
from gemini_poold.config import SecretRef
from gemini_poold.credentials import registry, sealed
from gemini_poold.credentials.base import CredentialError, Failure
from gemini_poold.credentials.sealer import Sealer
from gemini_poold.credentials.sealing import Scope, recover, seal_all, unseal_all
from gemini_poold.credentials.secret_ref import open_source, sealing_key
from gemini_poold.errors import FileRefused, PoolError

KEY = b"fake-sealing-key"
NEEDLES = (b"fake-refresh", b"fake-access", b"fake-client-secret", b"fake-api-key")


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    monkeypatch.setattr(sealed, "COST", (1 << 10, 8, 1))


@pytest.fixture
def state(tmp_path):
    """A state folder with a login that was rotated before, and a key."""
    tmp_path.chmod(0o700)
    write_secret(tmp_path / "secrets" / "work.json", login_file("fake-refresh-old"))
    files.atomic_write(tmp_path / "secrets" / "work.json", json.dumps(login_file()).encode(), generations=3)
    write_secret(tmp_path / "secrets" / "key", "fake-api-key\n")
    return tmp_path


class Told(list):
    """What was announced."""

    def __call__(self, secret):
        self.append(secret.reveal())


def seal(state, key=KEY, **scope):
    told = Told()
    return seal_all(Scope(state, **scope), key, told), told


def sealer(state, key=KEY):
    environ = {"SEAL": key.decode()}
    return Sealer(state, sealing_key(SecretRef(env="SEAL"), environ=environ, state_dir=state))


def leaks(state):
    """Files that hold a secret in the open."""
    found = []
    for path in state.rglob("*"):
        if path.is_file() and any(needle in path.read_bytes() for needle in NEEDLES):
            found.append(path.name)
    return sorted(found)


def names(paths):
    return [path.name for path in paths]


# ---- whole folders --------------------------------------------------------------------------------------------------


def test_sealing_leaves_nothing_in_the_open(state):
    """Secrets, their earlier contents, shared access tokens; locks and other files of the folder stay as they are."""
    write_secret(state / "tokens" / "ab.json", {"token": "fake-access-1"})
    write_secret(state / "gateway.key", "local")
    report, told = seal(state)
    assert names(report.changed) == ["key", "work.json", "work.json.1", "ab.json"]
    assert (report.failed, len(told)) == ([], 1)
    assert leaks(state) == []
    assert (state / "gateway.key").read_text() == "local"
    assert {path.stat().st_mode & 0o777 for path in state.rglob("*") if path.is_file()} == {0o600}


def test_a_second_sealing_takes_what_is_new_and_tells_no_second_key(state):
    """Idempotent: the recovery key of the first time opens what came later."""
    _, told = seal(state)
    write_secret(state / "secrets" / "new.json", login_file())
    report, again = seal(state)
    assert (names(report.changed), again) == (["new.json"], [])
    assert leaks(state) == []
    recover(Scope(state), told[0])
    assert leaks(state) == ["key", "new.json", "work.json", "work.json.1"]


@pytest.mark.parametrize("way", ["unseal", "recover"])
def test_everything_comes_back_as_it_was(state, way):
    """With the key or, when that is lost, with the recovery key; nothing new is sealed from then on."""
    before = {path: path.read_bytes() for path in Scope(state).files()}
    _, told = seal(state)
    report = unseal_all(Scope(state), KEY) if way == "unseal" else recover(Scope(state), told[0])
    assert (len(report.changed), report.failed) == (3, [])
    assert {path: path.read_bytes() for path in Scope(state).files()} == before
    assert not (state / sealed.INDEX).exists()


@pytest.mark.parametrize(("way", "words"), [("seal", "not the key"), ("unseal", "not the key"), ("recover", "not the recovery key")])  # fmt: skip
def test_a_wrong_key_changes_nothing(state, way, words):
    """Said before the first file is touched."""
    seal(state)
    before = {path: path.read_bytes() for path in state.rglob("*") if path.is_file()}
    run = {
        "seal": lambda: seal(state, b"another key"),
        "unseal": lambda: unseal_all(Scope(state), b"another key"),
        "recover": lambda: recover(Scope(state), "ABCD-EFGH"),
    }
    with pytest.raises(PoolError, match=words):
        run[way]()
    assert {path: path.read_bytes() for path in state.rglob("*") if path.is_file()} == before


def test_files_of_another_sealing_are_left_and_told(state):
    """Copied from another machine: not opened, not overwritten, named."""
    seal(state, b"the other machine's key")
    (state / sealed.INDEX).unlink()
    before = (state / "secrets" / "key").read_bytes()
    write_secret(state / "secrets" / "mine.json", login_file())
    seal(state)
    report = unseal_all(Scope(state), KEY)
    assert names(report.changed) == ["mine.json"]
    assert names(path for path, _ in report.failed) == ["key", "work.json", "work.json.1"]
    assert (state / "secrets" / "key").read_bytes() == before


def test_every_file_carries_its_own_recovery(state):
    """Without sealing.json, and without the other files."""
    _, told = seal(state)
    (state / sealed.INDEX).unlink()
    assert len(recover(Scope(state), told[0]).changed) == 3
    assert leaks(state) == ["key", "work.json", "work.json.1"]


def test_the_recovery_key_is_told_before_anything_is_written(state, monkeypatch):
    """A crash in between leaves an open folder and a useless key, never a sealed folder without one."""

    def full(*_args, **_more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "atomic_write", full)
    told = Told()
    with pytest.raises(OSError, match="No space"):
        seal_all(Scope(state), KEY, told)
    assert len(told) == 1
    assert leaks(state) == ["key", "work.json", "work.json.1"]


def test_which_files_are_meant(state):
    """Files that accounts name elsewhere in the folder, with their past; never the key itself or the gateway's."""
    write_secret(state / "robot.json", {"private_key": "fake-client-secret"})
    write_secret(state / "robot.json.1", {"private_key": "fake-client-secret"})
    write_secret(state / "robot.jsonx", "other")
    write_secret(state / "secrets" / "seal.key", KEY)
    scope = Scope(
        state,
        also=frozenset({state / "robot.json"}),
        spared=frozenset({state / "secrets" / "seal.key"}),
    )
    assert names(scope.files()) == ["robot.json", "robot.json.1", "key", "work.json", "work.json.1"]


def test_a_file_that_others_could_read_is_refused_and_told(state):
    """It is not sealed silently: it may have been read."""
    (state / "secrets" / "key").chmod(0o644)
    report, _ = seal(state)
    assert names(path for path, _ in report.failed) == ["key"]
    assert "chmod" not in report.failed[0][1]
    assert "open to others" in report.failed[0][1]


def test_a_damaged_index_is_told(state):
    """Nothing is guessed, nothing is overwritten."""
    seal(state)
    write_secret(state / sealed.INDEX, "{")
    with pytest.raises(FileRefused, match="damaged"):
        seal(state)


# ---- the daemon -----------------------------------------------------------------------------------------------------


def rotating(state, google=None, **more):
    google = google or TokenEndpoint()
    google.answer = google.rotating
    return google, context(state, google, **more)


async def test_a_sealed_login_is_used_and_stays_sealed_when_it_rotates(state):
    """Rotation, the earlier content and the shared access token: nothing of them is in the open, and a restart reads
    them all."""
    seal(state)
    google, ctx = rotating(state, sealer=sealer(state))
    login = registry.build(entry("oauth", file("work.json")), ctx)
    await login.renew(0.0)
    await login.renew(0.0)
    assert [call["refresh_token"] for call in google.calls] == ["fake-refresh-0", "fake-refresh-1"]
    assert leaks(state) == []
    _, later = rotating(state, google, sealer=sealer(state))
    token = await registry.build(entry("oauth", file("work.json")), later).renew(0.0)
    assert token.value.reveal() == "fake-access-2"  # the one that lies beside the lock
    assert len(google.calls) == 2


async def test_a_sealed_key_takes_waiting_once(state):
    """Not warm before the key was asked for; from then on it is."""
    seal(state)
    ctx = context(state, TokenEndpoint(), sealer=sealer(state))
    key = registry.build(entry("api-key", file("key")), ctx)
    assert key.warm_nowait() is None
    assert (await key.renew(0.0)).value.reveal() == "fake-api-key"
    assert key.warm_nowait().value.reveal() == "fake-api-key"


async def test_the_key_is_asked_for_once(state, tmp_path):
    """A passphrase from a command: one run for all files, however many want it at once."""
    seal(state)
    runs = tmp_path / "runs"
    script = f"echo x >> {runs}; printf '%s\\n' {KEY.decode()}"
    ref = SecretRef(command=("sh", "-c", script))
    both = Sealer(state, sealing_key(ref, environ=os.environ, state_dir=state))
    sources = [
        open_source(file(name), account="a", environ={}, state_dir=state, sealer=both)
        for name in ("key", "work.json") * 5
    ]
    contents = await asyncio.gather(*(source.read() for source in sources))
    assert len(set(contents)) == 2
    assert runs.read_text().count("x") == 1


async def test_nothing_is_sealed_before_somebody_has_a_recovery_key(state):
    """The configuration alone seals nothing; `idle` says so."""
    google, ctx = rotating(state, sealer=sealer(state))
    assert ctx.sealer.idle
    await registry.build(entry("oauth", file("work.json")), ctx).renew(0.0)
    assert b"fake-refresh-1" in (state / "secrets" / "work.json").read_bytes()
    seal(state)
    assert not ctx.sealer.idle
    await registry.build(entry("oauth", file("work.json")), ctx).renew(0.0)
    assert leaks(state) == []
    assert len(google.calls) == 2


async def failure_of(ctx):
    with pytest.raises(CredentialError) as caught:
        await registry.build(entry("oauth", file("work.json")), ctx).renew(0.0)
    return caught.value


@pytest.mark.parametrize(
    ("made", "words", "hint"),
    [
        (lambda state: None, "no key is configured", "[secrets] seal"),
        (lambda state: Sealer(state), "no key is configured", "[secrets] seal"),
        (lambda state: sealer(state, b"another"), "not sealed with the key", "secrets recover"),
        (
            lambda state: Sealer(state, sealing_key(SecretRef(env="GONE"), environ={}, state_dir=state)),
            "its key cannot be had: environment variable GONE is not set",
            "systemctl",
        ),
    ],
)
async def test_why_a_sealed_login_cannot_be_read(state, made, words, hint):
    """A person can mend it, so the account says what and how; Google is not asked."""
    seal(state)
    google = TokenEndpoint()
    error = await failure_of(context(state, google, sealer=made(state)))
    assert error.failure is Failure.SECRET
    assert words in error.message
    assert hint in error.hint
    assert google.calls == []


async def test_a_rotated_token_is_never_put_down_in_the_open_instead(state):
    """The key is gone in the very moment: the new refresh token waits in memory, as for a full disk."""
    seal(state)
    google, ctx = rotating(state, sealer=sealer(state))
    respond = google.rotating

    def loses_the_key(form):
        ctx.sealer.use(sealing_key(SecretRef(env="GONE"), environ={}, state_dir=state))
        return respond(form)

    google.answer = loses_the_key
    error = await failure_of(ctx)
    assert "cannot be had" in error.message
    assert leaks(state) == []
    ctx.sealer.use(sealing_key(SecretRef(env="SEAL"), environ={"SEAL": KEY.decode()}, state_dir=state))
    token = await registry.build(entry("oauth", file("work.json")), ctx).renew(0.0)
    assert (token.value.reveal(), len(google.calls)) == ("fake-access-1", 1)
    unseal_all(Scope(state), KEY)
    assert json.loads((state / "secrets" / "work.json").read_bytes())["refresh_token"] == "fake-refresh-1"


async def test_other_programs_files_are_theirs(state, tmp_path_factory):
    """A file outside of our folder is written as it was read: in the open."""
    elsewhere = tmp_path_factory.mktemp("gcloud")
    path = write_secret(elsewhere / "adc.json", login_file())
    seal(state)
    google, ctx = rotating(state, sealer=sealer(state))
    await registry.build(entry("oauth", SecretRef(file=str(path))), ctx).renew(0.0)
    assert json.loads(path.read_bytes())["refresh_token"] == "fake-refresh-1"


def test_a_sealer_does_not_show_its_key(state):
    """Not in its repr."""
    assert repr(sealer(state)) == "Sealer(***)"
