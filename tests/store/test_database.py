"""The store as the daemon uses it: real files, real threads, real kills."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from tests.store.rows import GONE, NOW, ONE_OF_EACH, FixedClock, account, cooldown, counter

from gemini_poold import __version__
from gemini_poold.core.model import CounterRow, TotalRow
from gemini_poold.errors import FileRefused, StateUnusable
from gemini_poold.store import Store, database, migrations, tables, writer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path / "state.db"


@asynccontextmanager
async def opened(path: Path, *, clock: FixedClock | None = None) -> AsyncIterator[Store]:
    store = Store.open(path, clock or FixedClock())
    try:
        yield store
    finally:
        await store.close()


async def test_what_was_saved_is_there_after_a_restart(path: Path) -> None:
    """Rows of every kind, texts and digests come back."""
    async with opened(path) as store:
        await store.save(ONE_OF_EACH)
        await store.set_last_good("[[account]]")
        await store.set_meta("gateway_port", "8790")
    async with opened(path) as store:
        saved = store.load()
    assert sorted(map(repr, saved.rows)) == sorted(map(repr, ONE_OF_EACH))
    assert saved.accounts == [account()]
    assert saved.last_good_accounts == "[[account]]"
    assert len(saved.last_good_digest) == 64
    assert saved.meta == {"gateway_port": "8790", "written_by": __version__}
    assert saved.warnings == []


async def test_a_fresh_store_is_empty(path: Path) -> None:
    """No rows, and None for a last good text that never was."""
    async with opened(path) as store:
        saved = store.load()
    assert saved.rows == []
    assert saved.last_good_accounts is None
    assert saved.warnings == []


async def test_saving_is_durable_when_it_returns(path: Path) -> None:
    """Another connection sees the row at once, without closing; earlier rows that nobody waited for, too."""
    async with opened(path) as store:
        store.save_nowait([counter(5)])
        await store.save([account()])
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as other:
            assert other.execute("SELECT served FROM counters").fetchall() == [(5,)]
            assert other.execute("SELECT account_id FROM accounts").fetchall() == [("a",)]


async def test_rows_nobody_waits_for_are_written_soon_and_on_closing(path: Path) -> None:
    """`flush` and `close` leave nothing behind, and of one key the last row wins."""
    async with opened(path) as store:
        for number in range(100):
            store.save_nowait([counter(number)])
        await store.flush()
        assert [row.served for row in store.load().counters] == [99]
        store.save_nowait([counter(100), TotalRow("requests", 1)])
    async with opened(path) as store:
        saved = store.load()
    assert [row.served for row in saved.counters] == [100]
    assert saved.totals == [TotalRow("requests", 1)]


async def test_gone_rows_stay_gone(path: Path) -> None:
    """A removed account is not there after a restart, even if it was written and removed before any commit."""
    async with opened(path) as store:
        await store.save(ONE_OF_EACH)
        store.save_nowait([account("b")])
        store.save_nowait([account("b", gone=True)])
        await store.save(GONE)
    async with opened(path) as store:
        assert store.load().rows == [TotalRow("requests", 7)]


async def test_many_savers_share_commits(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes while a commit runs is in the next one: a hundred savers need a handful of commits."""
    commits = 0
    real = tables.write

    def counted(*args: object) -> None:
        nonlocal commits
        commits += 1
        real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(tables, "write", counted)
    async with opened(path) as store:
        await asyncio.gather(*(store.save([TotalRow(f"t{number}", number)]) for number in range(100)))
        assert len(store.load().totals) == 100
    assert commits < 20


async def test_the_files_are_the_owners_alone(path: Path) -> None:
    """Database, log and index are 0600 whatever the umask says."""
    old = os.umask(0)
    try:
        async with opened(path) as store:
            await store.save([account()])
            modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in path.parent.iterdir()}
    finally:
        os.umask(old)
    assert modes == {"state.db": 0o600, "state.db-wal": 0o600, "state.db-shm": 0o600}
    assert [entry.name for entry in path.parent.iterdir()] == ["state.db"]  # a clean end leaves one file


def test_an_open_file_link_or_folder_is_refused(path: Path) -> None:
    """Wrong modes and links are refused with the mending command; nothing is created or changed."""
    path.write_bytes(b"")
    path.chmod(0o644)
    with pytest.raises(FileRefused) as caught:
        Store.open(path, FixedClock())
    assert caught.value.hint == f"chmod 600 {path}"
    path.unlink()
    (path.parent / "elsewhere").touch(mode=0o600)
    path.symlink_to(path.parent / "elsewhere")
    with pytest.raises(FileRefused, match="symbolic link"):
        Store.open(path, FixedClock())
    path.parent.chmod(0o755)
    with pytest.raises(FileRefused) as caught:
        Store.open(path, FixedClock())
    assert caught.value.hint == f"chmod 700 {path.parent}"
    assert (path.parent / "elsewhere").stat().st_size == 0


def damage_header(path: Path) -> None:
    path.write_bytes(b"this is no database at all, just a text" * 100)


def damage_middle(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)
    path.write_bytes(data)


def damage_by_cutting(path: Path) -> None:
    os.truncate(path, 5000)


def damage_by_exchange(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE cookies (a)")
    path.chmod(0o600)


@pytest.mark.parametrize("damage", [damage_header, damage_middle, damage_by_cutting, damage_by_exchange])
async def test_a_damaged_file_is_set_aside_loudly(path: Path, damage: object) -> None:
    """The daemon starts afresh, says so, and the old file stays under another name, byte for byte."""
    async with opened(path) as store:
        await store.save(ONE_OF_EACH)
    damage(path)  # type: ignore[operator]
    content = path.read_bytes()
    async with opened(path) as store:
        saved = store.load()
        await store.save([account()])
        assert store.load().accounts == [account()]
    aside = path.with_name("state.db.damaged-20261118T110640Z")
    assert aside.read_bytes() == content
    assert saved.rows == []
    assert len(saved.warnings) == 1
    assert str(aside) in saved.warnings[0]


async def test_a_second_damage_overwrites_nothing(path: Path) -> None:
    """Two damaged files in the same second both stay."""
    for _ in range(2):
        path.write_bytes(b"no database" * 100)
        path.chmod(0o600)
        async with opened(path):
            pass
    assert len(list(path.parent.glob("state.db.damaged-*"))) == 2


async def test_an_empty_file_is_a_new_store(path: Path) -> None:
    """A file that was created and never written (a crash at the first start) is no damage."""
    path.touch(mode=0o600)
    async with opened(path) as store:
        assert store.load().warnings == []


async def test_a_newer_database_is_refused_in_words(path: Path) -> None:
    """A downgrade stops with the version that is needed; the file keeps working with that version."""
    async with opened(path) as store:
        await store.save(ONE_OF_EACH)
    with closing(sqlite3.connect(path, isolation_level=None)) as newer:
        newer.execute("PRAGMA user_version = 99")
        newer.execute("UPDATE meta SET value = '9.9.0' WHERE name = 'written_by'")
    with pytest.raises(StateUnusable, match="schema 99") as caught:
        Store.open(path, FixedClock())
    assert "9.9.0" in caught.value.hint
    with closing(sqlite3.connect(path, isolation_level=None)) as newer:
        assert newer.execute("SELECT count(*) FROM accounts").fetchone() == (1,)


async def test_an_older_database_is_migrated_and_told(path: Path) -> None:
    """The rows survive the migration; the warning names the backup."""
    async with opened(path) as store:
        await store.save(ONE_OF_EACH)
    store = Store.open(path, FixedClock(), steps=[*migrations.STEPS, "CREATE TABLE history (a)"])
    saved = store.load()
    await store.close()
    assert len(saved.rows) == len(ONE_OF_EACH)
    assert f"backup-v{len(migrations.STEPS)}-" in saved.warnings[0]
    with pytest.raises(StateUnusable):
        Store.open(path, FixedClock())


async def test_a_migration_that_fails_is_told(path: Path) -> None:
    """It is no damage: the file stays where it is."""
    async with opened(path):
        pass
    with pytest.raises(StateUnusable, match="syntax error"):
        Store.open(path, FixedClock(), steps=[*migrations.STEPS, "NO SQL"])
    assert not list(path.parent.glob("*.damaged-*"))


async def test_a_full_disk_is_told_kept_and_overcome(path: Path) -> None:
    """Savers get the reason and a remedy; the rows are written when there is room; the thread lives on."""
    async with opened(path) as store:
        await store.save([account()])
        connection = store._writer._connection
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
        rows = [TotalRow(f"{number:04}" + "x" * 200, number) for number in range(200)]
        with pytest.raises(StateUnusable, match="full") as caught:
            await store.save(rows)
        assert caught.value.retryable
        assert caught.value.hint == "free some space on its disk"
        assert store.error is not None
        with pytest.raises(StateUnusable):
            await store.save([counter(3)])
        connection.execute("PRAGMA max_page_count = 1073741823")
        await store.save([account("b")])
        assert store.error is None
        saved = store.load()
    assert len(saved.totals) == 200
    assert [row.account_id for row in saved.accounts] == ["a", "b"]
    assert [row.served for row in saved.counters] == [3]


async def test_rows_kept_from_a_failure_are_retried_without_a_new_one(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody needs to save again: after a while the thread tries by itself. A newer row of a key wins over a kept one."""
    monkeypatch.setattr(writer, "RETRY_S", 0.05)
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    real = tables.write
    failures = 3

    def flaky(connection: sqlite3.Connection, rows: object) -> None:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise sqlite3.OperationalError("disk I/O error")
        real(connection, rows)  # type: ignore[arg-type]
        loop.call_soon_threadsafe(done.set)

    monkeypatch.setattr(tables, "write", flaky)
    async with opened(path) as store:
        with pytest.raises(StateUnusable, match="disk I/O"):
            await store.save([counter(1), account()])
        store.save_nowait([counter(2)])
        async with asyncio.timeout(10):
            await done.wait()
        assert failures < 0
        await store.flush()
        saved = store.load()
    assert [row.served for row in saved.counters] == [2]
    assert saved.accounts == [account()]


@pytest.mark.parametrize(
    "bad",
    [
        CounterRow("bad", "m", 1 << 70, 0, 0, 0, 0),  # no SQLite integer
        TotalRow("bad", float("nan")),  # type: ignore[arg-type]  # NaN is NULL there
        TotalRow("bad", object()),  # type: ignore[arg-type]
    ],
)
async def test_one_bad_row_does_not_hold_up_the_others(
    path: Path, bad: object, caplog: pytest.LogCaptureFixture
) -> None:
    """A row that can never be written is dropped and told; its companions and everything later are written."""
    async with opened(path) as store:
        with pytest.raises(StateUnusable, match="a row cannot be written"):
            await store.save([account(), bad, counter(1)])  # type: ignore[list-item]
        assert "lost a row" in caplog.text
        await store.save([account("b")])
        assert store.error is None
        saved = store.load()
    assert [row.account_id for row in saved.accounts] == ["a", "b"]
    assert len(saved.counters) == 1
    assert saved.totals == []


async def test_a_closed_store_takes_nothing(path: Path) -> None:
    """Saving after the end is an error for who waits, and nothing for who does not."""
    async with opened(path) as store:
        assert store.alive
    assert not store.alive
    store.save_nowait([account()])
    with pytest.raises(StateUnusable, match="closed"):
        await store.save([account()])
    assert store.error is not None


async def test_a_saver_that_gives_up_harms_nobody(path: Path) -> None:
    """A cancelled save is written all the same, and the others are answered."""
    async with opened(path) as store:
        impatient = asyncio.ensure_future(store.save([account()]))
        await asyncio.sleep(0)
        impatient.cancel()
        await store.save([account("b")])
        assert len(store.load().accounts) == 2


async def test_cooldowns_long_over_are_forgotten(path: Path) -> None:
    """The table does not grow for ever: what ended a week ago is dropped at the next start, what is younger stays."""
    clock = FixedClock()
    async with opened(path, clock=clock) as store:
        await store.save(
            [cooldown("old", until=NOW - database.OLD_COOLDOWN_S - 1), cooldown("young", until=NOW - 60)]
        )
    async with opened(path, clock=clock) as store:
        assert [row.model for row in store.load().cooldowns] == ["young"]


async def test_a_database_that_somebody_holds_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that another program keeps is an error with a remedy, no damage, and ends with the lock."""
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.05)
    async with opened(path) as store:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StateUnusable, match="locked") as caught:
                await store.save([account()])
            assert caught.value.hint.startswith("another program holds it")
            with pytest.raises(StateUnusable):
                Store.open(path, FixedClock())
            other.execute("ROLLBACK")
        await store.flush()
        assert store.load().accounts == [account()]
    assert not list(path.parent.glob("*.damaged-*"))


CHILD = """
    import asyncio, sys
    from pathlib import Path
    from gemini_poold.clock import SystemClock
    from gemini_poold.core.model import TotalRow
    from gemini_poold.store import Store

    async def main():
        store = Store.open(Path(sys.argv[1]), SystemClock())
        number = max([row.value for row in store.load().totals], default=0)
        while True:
            number += 1
            store.save_nowait([TotalRow("loose", number)])
            await store.save([TotalRow("acknowledged", number)])
            print(number, flush=True)

    asyncio.run(main())
"""


async def test_kill_9_loses_nothing_that_was_acknowledged(path: Path) -> None:
    """A process killed in the middle of its work, ten times over: every acknowledged row is there each time."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    seen = 0
    for round_ in range(10):
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(CHILD), str(path)],
            stdout=subprocess.PIPE,
            text=True,
            env=env,
        )
        assert child.stdout is not None
        for _ in range(1 + round_ * 7):
            seen = int(child.stdout.readline())
        child.kill()
        rest = child.stdout.read().split()
        child.stdout.close()
        child.wait()
        seen = max([seen, *(int(line) for line in rest if line.isdigit())])
        async with opened(path) as store:
            saved = store.load()
        assert saved.warnings == []
        values = {row.name: row.value for row in saved.totals}
        assert values["acknowledged"] >= seen
        assert values["loose"] >= seen
