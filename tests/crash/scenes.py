"""What is done, killed at every step, and then judged. `python scenes.py NAME` runs one scene's whole matrix and prints
what it saw as a line of JSON; each life and each judgement is in a process of its own, forked from this one.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from tests.crash.tracing import Notes, run

from gemini_poold import files
from gemini_poold.accounts import edit
from gemini_poold.accounts.schema import AccountEntry, Credential, parse
from gemini_poold.accounts.store import AccountsFile
from gemini_poold.clock import SystemClock
from gemini_poold.config import Endpoints, SecretRef
from gemini_poold.core.model import AccountRow, AccountState, Backend
from gemini_poold.credentials import registry, sealed
from gemini_poold.credentials.base import Context
from gemini_poold.credentials.sealing import Scope, recover, seal_all, unseal_all
from gemini_poold.credentials.secret_ref import open_source
from gemini_poold.ipc import listen
from gemini_poold.login.keeping import Keeper
from gemini_poold.store import Store
from gemini_poold.transport import Fetched

CLIENT = {"type": "authorized_user", "client_id": "fake-client", "client_secret": "fake-client-secret"}
ENTRY = AccountEntry(
    id="work",
    backend=Backend.VERTEX,
    project="p",
    credential=Credential(type="oauth", secret=SecretRef(file="secrets/work.json")),
)


class Scene:
    """`prepare` a folder, `act` in it (killed at a step), `judge` what is left. A judgement raises, or returns a word
    that is counted. `notes` outlive the kill: what the world outside saw."""

    def __init__(self, folder: Path, notes: Notes) -> None:
        self.folder = folder
        self.notes = notes

    def prepare(self) -> None:
        (self.folder / "secrets").mkdir(mode=0o700)

    def act(self) -> None:
        raise NotImplementedError

    def judge(self) -> str:
        raise NotImplementedError

    def leftovers(self) -> list[str]:
        """Temporary files that killed writers left."""
        return [path.name for path in self.folder.rglob(".*.tmp-*")]


# ---- a rotation -----------------------------------------------------------------------------------------------------


class Google:
    """A token endpoint that rotates; what it knows is in the notes. `overlaps`: the old refresh token ends when the new
    one is used for the first time, so that a lost answer costs nobody the login."""

    def __init__(self, notes: Notes, *, overlaps: bool) -> None:
        self.notes = notes
        self.overlaps = overlaps

    async def fetch(self, method: str, url: str, *, body: bytes | None = None, **_: Any) -> Fetched:
        asked = dict(parse_qsl((body or b"").decode()))["refresh_token"]
        alive: list[str] = self.notes["alive"]
        self.notes["calls"] = (self.notes["calls"] or 0) + 1
        if asked not in alive:
            return Fetched(400, {}, b'{"error": "invalid_grant"}')
        new = f"fake-refresh-{self.notes['calls']}"
        self.notes["alive"] = [asked, new] if self.overlaps else [new]
        answer = {"access_token": f"fake-access-{new}", "refresh_token": new, "expires_in": 3599}
        return Fetched(200, {}, json.dumps(answer).encode())

    async def open(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    async def aclose(self) -> None:
        pass


class Rotation(Scene):
    overlaps = True

    @property
    def path(self) -> Path:
        return self.folder / "secrets" / "work.json"

    def prepare(self) -> None:
        super().prepare()
        self.notes["alive"] = ["fake-refresh-0"]
        first = json.dumps({**CLIENT, "refresh_token": "fake-refresh-older"}).encode()
        files.atomic_write(self.path, first)
        files.atomic_write(
            self.path, json.dumps({**CLIENT, "refresh_token": "fake-refresh-0"}).encode(), generations=3
        )

    def renew(self) -> str:
        google = Google(self.notes, overlaps=self.overlaps)
        context = Context(google, Endpoints(), SystemClock(), self.folder, {})
        token = asyncio.run(registry.build(ENTRY, context).renew(0.0))
        return token.value.reveal()

    def act(self) -> None:
        token = self.renew()
        self.notes["out"] = token  # from here on somebody uses it

    def kept(self) -> str:
        """The refresh token that the file holds: whole, private, always."""
        login = json.loads(files.read_private(self.path))
        assert login | {"refresh_token": ""} == CLIENT | {"refresh_token": ""}, "a half file"
        return str(login["refresh_token"])

    def judge(self) -> str:
        kept = self.kept()
        for older in sorted(self.path.parent.glob("work.json.[1-9]")):
            json.loads(files.read_private(older))
        if self.notes["out"]:
            assert kept in self.notes["alive"], "a token was handed out before its login was durable"
        lost = kept not in self.notes["alive"]
        if self.overlaps:
            assert not lost, "the login is lost"
        if lost:
            return "lost: killed between Google's answer and the disk"
        before = self.notes["calls"] or 0
        self.renew()  # the next life: no lock is left, and it serves
        assert self.kept() in self.notes["alive"]
        assert (self.notes["calls"] or 0) - before <= 1
        files.atomic_write(self.path, files.read_private(self.path))
        assert not [name for name in self.leftovers() if "work.json" in name], "temporary files stay"
        return "the old login" if kept == "fake-refresh-0" else "the new login"


class HarshRotation(Rotation):
    """With a Google that ends the old refresh token in the moment of its answer."""

    overlaps = False


# ---- an account is added ----------------------------------------------------------------------------------------------


class AccountAdd(Scene):
    OLD = '# mine\n[[account]]\nid = "key"  # the first\nbackend = "developer-api"\ncredential = { type = "api-key", secret = { env = "K" } }\n'

    @property
    def file(self) -> AccountsFile:
        return AccountsFile(self.folder / "accounts.toml")

    def prepare(self) -> None:
        super().prepare()
        files.atomic_write(self.file.path, self.OLD.encode(), mode=0o644)

    def keeper(self) -> Keeper:
        async def reload() -> None:
            return None

        context = Context(Google(self.notes, overlaps=True), Endpoints(), SystemClock(), self.folder, {})
        return Keeper(self.file, lambda: context, reload)

    def act(self) -> None:
        asyncio.run(self.add())
        self.notes["told"] = True

    async def add(self) -> None:
        """A login: its secret first, then the entry that names it."""
        keeper = self.keeper()
        assert ENTRY.credential.secret is not None
        await keeper.write_login(
            ENTRY.credential.secret, "work", {**CLIENT, "refresh_token": "fake-refresh-1"}
        )
        await keeper.put(ENTRY)

    def judge(self) -> str:
        text = self.file.read().text
        names = [entry.id for entry in parse(text, "accounts.toml")]
        assert names in (["key"], ["key", "work"])
        assert text.startswith(self.OLD), "what the user wrote is gone"
        added = "work" in names
        assert added or not self.notes["told"], "it was told that it is done"
        secret = self.folder / "secrets" / "work.json"
        if added:
            assert json.loads(files.read_private(secret))["refresh_token"] == "fake-refresh-1"
        asyncio.run(self.add())  # again: it is not there twice
        assert [entry.id for entry in self.file.read().entries] == ["key", "work"]
        assert not self.leftovers(), "temporary files stay"
        return "added" if added else "as before"


class AccountEdit(AccountAdd):
    """A key of an entry is changed."""

    def act(self) -> None:
        edit.apply(self.file, lambda text: edit.set_keys(text, "key", {"enabled": False}))
        self.notes["told"] = True

    def judge(self) -> str:
        (entry,) = self.file.read().entries
        assert entry.enabled is False or not self.notes["told"]
        for enabled in (False, True):
            edit.apply(self.file, lambda text, to=enabled: edit.set_keys(text, "key", {"enabled": to}))
        assert self.file.read().entries[0].enabled
        assert not self.leftovers(), "temporary files stay"
        return "changed" if not entry.enabled else "as before"


# ---- a state changes --------------------------------------------------------------------------------------------------


def row(state: AccountState) -> AccountRow:
    return AccountRow("work", state, "reason", "hint", "", 1.0, 1.0, None, 0, None, secret="mark")


class StateChange(Scene):
    """A login is found dead, while an older state is in the database."""

    @property
    def path(self) -> Path:
        return self.folder / "state.db"

    def prepare(self) -> None:
        asyncio.run(self.save(AccountState.READY))

    async def save(self, state: AccountState) -> None:
        store = Store.open(self.path, SystemClock())
        await store.save([row(state)])
        self.notes["committed"] = str(state)
        await store.set_last_good("text of accounts.toml")
        await store.close()

    def act(self) -> None:
        asyncio.run(self.save(AccountState.LOGIN_REQUIRED))

    def judge(self) -> str:
        store = Store.open(self.path, SystemClock())
        saved = store.load()
        assert saved.warnings == [], saved.warnings
        (found,) = saved.accounts
        if self.notes["committed"] == "login_required":
            assert found.state is AccountState.LOGIN_REQUIRED, "it was told that it is committed"
        assert saved.last_good_accounts == "text of accounts.toml"
        asyncio.run(store.close())
        return found.state.value


class FirstStart(StateChange):
    """The database is made: a file that is half made is no damage that anybody hears of."""

    def prepare(self) -> None:
        pass

    def judge(self) -> str:
        store = Store.open(self.path, SystemClock())
        saved = store.load()
        assert not [path for path in self.folder.iterdir() if "damaged" in path.name]
        asyncio.run(store.close())
        if self.notes["committed"]:
            assert saved.accounts
        return "made" if saved.accounts else "made anew"


# ---- secrets are sealed -----------------------------------------------------------------------------------------------


class Sealing(Scene):
    KEY = b"fake-key"

    def prepare(self) -> None:
        super().prepare()
        sealed.COST = (1 << 10, 8, 1)
        for number in range(3):
            files.atomic_write(self.folder / "secrets" / f"{number}.json", b"fake-secret-%d" % number)

    def act(self) -> None:
        seal_all(Scope(self.folder), self.KEY, lambda key: self.notes.__setitem__("recovery", key.reveal()))

    def contents(self) -> list[bytes]:
        return [path.read_bytes() for path in Scope(self.folder).files()]

    def judge(self) -> str:
        count = sum(sealed.is_sealed(data) for data in self.contents())
        copy = self.folder.with_name(self.folder.name + "-copy")
        shutil.copytree(self.folder, copy)
        try:
            if count:  # each sealed file can be opened with the key that was printed by then
                recover(Scope(copy), self.notes["recovery"])
                opened = [path.read_bytes() for path in Scope(copy).files()]
                assert opened == [b"fake-secret-%d" % number for number in range(3)]
        finally:
            shutil.rmtree(copy)
        recovery = self.notes["recovery"]
        self.act()  # again, to the end
        assert all(sealed.is_sealed(data) for data in self.contents())
        if sealed.read_index(self.folder) and count:
            assert self.notes["recovery"] == recovery, "a second recovery key"
        unseal_all(Scope(self.folder), self.KEY)
        assert self.contents() == [b"fake-secret-%d" % number for number in range(3)]
        return f"{count} of 3 sealed"


# ---- two owners -------------------------------------------------------------------------------------------------------


class Owner(Scene):
    """A daemon takes its socket; whenever it is killed, the next one gets in, and never a third beside it."""

    def prepare(self) -> None:
        (self.folder / "run").mkdir(mode=0o700)

    @property
    def socket(self) -> Path:
        return self.folder / "run" / "pool.sock"

    def act(self) -> None:
        held = listen.bind(self.socket)
        held.close()

    def judge(self) -> str:
        held = listen.bind(self.socket)
        try:
            listen.bind(self.socket)
        except listen.AlreadyRunning:
            pass
        else:
            raise AssertionError("two owners")
        finally:
            held.close()
        return "one owner"


class Locked(Rotation):
    """Killed while it holds the lock of a renewal: the next process gets it at once, and two do one call."""

    def judge(self) -> str:
        from concurrent.futures import ThreadPoolExecutor

        before = self.notes["calls"] or 0
        with ThreadPoolExecutor(2) as pool:
            tokens = {future.result() for future in [pool.submit(self.renew) for _ in range(2)]}
        calls = (self.notes["calls"] or 0) - before
        assert len(tokens) == 1, "two tokens"
        assert calls <= 1, "two owners of a refresh token"
        return f"{calls} call"


SCENES: dict[str, type[Scene]] = {
    "rotation": Rotation,
    "rotation, harsh": HarshRotation,
    "account added": AccountAdd,
    "account edited": AccountEdit,
    "state changed": StateChange,
    "first start": FirstStart,
    "sealing": Sealing,
    "socket": Owner,
    "renewal lock": Locked,
}


def matrix(name: str) -> dict[str, Any]:
    """Kill the scene at each of its steps; what was killed at, and what the judgements said."""
    steps = _once(name, 0)[0]
    verdicts: Counter[str] = Counter()
    killed = 0
    while True:
        done, word, was_killed = _once(name, killed + 1)
        if not was_killed:
            verdicts[f"whole: {word}"] += 1
            break
        killed += 1
        verdicts[word] += 1
    return {"steps": len(steps), "kinds": Counter(steps), "killed": killed, "verdicts": verdicts}


def _once(name: str, kill_at: int) -> tuple[list[str], str, bool]:
    folder = Path(tempfile.mkdtemp(prefix="gp-", dir=os.environ.get("SCENE_FOLDER")))
    notes = Notes()
    try:
        scene = SCENES[name](folder, notes)
        scene.prepare()
        ran = run(scene.act, kill_at)
        try:
            word = scene.judge()
        except BaseException as error:
            at = f"before step {kill_at} ({ran.steps[-1] if ran.steps else ''}) of {ran.steps}"
            raise AssertionError(f"{name}: killed {at}: {error!r}; notes {notes._load()}") from error
        return ran.steps, word, ran.killed
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main(names: list[str], print_: Callable[[str], None] = print) -> None:
    _ = open_source  # every module that a scene needs is loaded before the first fork
    for name in names:
        print_("RESULT " + json.dumps({"scene": name, **matrix(name)}))


if __name__ == "__main__":
    main(sys.argv[1:])
