"""Noticing changes of real files, however they are saved. Each wait ends with the event itself."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
import watchfiles

from gemini_poold.accounts.store import digest_of
from gemini_poold.accounts.watch import content_digest, watch

GUARD_S = 10.0  # only so that a broken watch fails instead of hanging


class Watching:
    """A running watch and what it told so far."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.paths = list(paths)
        self.known = {path: content_digest(path) for path in self.paths}
        self.stop = asyncio.Event()
        self.told: asyncio.Queue[set[Path]] = asyncio.Queue()

    async def run(self) -> None:
        async for changed in watch(self.paths, self.stop, known=self.known):
            self.told.put_nowait(changed)

    async def next(self) -> set[Path]:
        async with asyncio.timeout(GUARD_S):
            return await self.told.get()

    async def settle(self, probe: Path) -> None:
        """Returns when the watch has looked after everything that happened so far: `probe` is watched and changes."""
        probe.write_text(probe.read_text() + "x" if probe.exists() else "x")
        while probe not in await self.next():
            pass


@asynccontextmanager
async def watching(*paths: Path) -> AsyncIterator[Watching]:
    running = Watching(paths)
    async with asyncio.TaskGroup() as group:
        group.create_task(running.run())
        try:
            yield running
        finally:
            running.stop.set()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "accounts.toml"


def in_place(path: Path, text: str) -> None:
    path.write_text(text)


def truncated_first(path: Path, text: str) -> None:
    with path.open("w") as file:
        file.flush()
        os.fsync(file.fileno())
        file.write(text)


def replaced(path: Path, text: str) -> None:
    temporary = path.with_name(".accounts.toml.swp")
    temporary.write_text(text)
    temporary.replace(path)


def moved_away_first(path: Path, text: str) -> None:
    path.replace(path.with_name("accounts.toml~"))
    path.write_text(text)


def removed_first(path: Path, text: str) -> None:
    path.unlink()
    path.write_text(text)


@pytest.mark.parametrize("save", [in_place, truncated_first, replaced, moved_away_first, removed_first])
async def test_every_way_of_saving_is_seen_every_time(path: Path, save: Callable[[Path, str], None]) -> None:
    """Five saves in the manner of each kind of editor are five pieces of news."""
    path.write_text("0")
    async with watching(path) as running:
        for number in range(1, 6):
            save(path, str(number))
            assert await running.next() == {path}
            assert path.read_text() == str(number)


async def test_a_file_that_appears_and_vanishes(path: Path) -> None:
    """Creation and removal are changes of content, too."""
    async with watching(path) as running:
        path.write_text("1")
        assert await running.next() == {path}
        path.unlink()
        assert await running.next() == {path}


async def test_a_folder_that_appears_vanishes_and_comes_back(tmp_path: Path) -> None:
    """Neither the file's folder nor the one above it need exist, and a new folder of the same name is watched."""
    folder = tmp_path / "config" / "gemini-pool"
    path = folder / "accounts.toml"
    async with watching(path) as running:
        for number in range(2):
            folder.mkdir(parents=True)
            path.write_text(str(number))
            assert await running.next() == {path}
            path.unlink()
            folder.rmdir()
            folder.parent.rmdir()
            assert await running.next() == {path}


async def test_the_same_content_is_no_news(path: Path, tmp_path: Path) -> None:
    """Saving without a change, touching, and other files in the folder tell nothing."""
    probe = tmp_path / "config.toml"
    path.write_text("same")
    async with watching(path, probe) as running:
        await running.settle(probe)
        path.write_text("same")
        replaced(path, "same")
        os.utime(path, (1, 1))
        (tmp_path / "other").write_text("x")
        await running.settle(probe)
        assert running.told.empty()


async def test_each_half_of_a_slow_save_is_told(path: Path) -> None:
    """A save in two writes, the second after the first was seen, ends with the whole content told."""
    path.write_text("0")
    async with watching(path) as running:
        with path.open("w") as file:
            file.write("[[acc")
            file.flush()
            assert await running.next() == {path}
            file.write("ount]]")
        assert await running.next() == {path}
    assert path.read_text() == "[[account]]"


async def test_changes_of_several_files_are_told_apart(path: Path, tmp_path: Path) -> None:
    """Only the files whose content changed are named."""
    config = tmp_path / "elsewhere" / "config.toml"
    config.parent.mkdir()
    async with watching(path, config) as running:
        config.write_text("a")
        assert await running.next() == {config}
        path.write_text("a")
        assert await running.next() == {path}


async def test_a_links_target_is_watched_and_so_is_the_link(tmp_path: Path, path: Path) -> None:
    """A changed target, an exchanged target and a turned link are seen; the old target is of no interest then."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    old, new = tmp_path / "a" / "x.toml", tmp_path / "b" / "y.toml"
    old.write_text("0")
    new.write_text("1")
    path.symlink_to(old)
    async with watching(path) as running:
        in_place(old, "2")
        assert await running.next() == {path}
        replaced(old, "3")
        assert await running.next() == {path}
        turned = tmp_path / "turned"
        turned.symlink_to(new)
        turned.replace(path)
        assert await running.next() == {path}
        replaced(old, "4")
        replaced(new, "5")
        assert await running.next() == {path}
        assert running.told.empty()


async def test_a_chain_of_links_is_watched(tmp_path: Path, path: Path) -> None:
    """As Nix and stow make them: a link to a link, relative ones included."""
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "real").write_text("0")
    (tmp_path / "profile").mkdir()
    (tmp_path / "profile" / "current").symlink_to("../store/real")
    path.symlink_to(tmp_path / "profile" / "current")
    async with watching(path) as running:
        replaced(tmp_path / "store" / "real", "1")
        assert await running.next() == {path}
        (tmp_path / "store" / "next").write_text("2")
        (tmp_path / "t").symlink_to("../store/next")
        (tmp_path / "t").replace(tmp_path / "profile" / "current")
        assert await running.next() == {path}


async def test_a_mended_mode_is_news(path: Path) -> None:
    """A file that was refused because others could write to it is looked at again once it is mended."""
    path.write_text("0")
    path.chmod(0o666)
    async with watching(path) as running:
        path.chmod(0o644)
        assert await running.next() == {path}


async def test_what_the_caller_knows_is_compared_at_once(path: Path) -> None:
    """A file that changed between its reading and the start of the watch is told without any further event."""
    path.write_text("1")
    stop = asyncio.Event()
    async with (
        asyncio.timeout(GUARD_S),
        aclosing(watch([path], stop, known={path: digest_of(b"0")})) as changes,
    ):  # type: ignore[type-var]
        assert await anext(changes) == {path}


async def test_without_watches_the_files_are_looked_at(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """When the system has no watch left to give, changes are found by looking, and the log says so."""
    real = watchfiles.awatch

    async def none_left(
        *folders: object, force_polling: bool | None, **more: object
    ) -> AsyncIterator[object]:
        if not force_polling:
            raise OSError(28, "OS file watch limit reached")
        async for changes in real(*folders, force_polling=True, **more):  # type: ignore[arg-type]
            yield changes

    monkeypatch.setattr(watchfiles, "awatch", none_left)
    async with watching(path) as running:
        for number in range(2):
            replaced(path, str(number))
            assert await running.next() == {path}
    assert "watch limit" in caplog.text


async def test_stopping_and_cancelling_end_it(path: Path) -> None:
    """The stop event ends the iteration, a cancelled task ends it, too; the caller's event is left alone."""
    async with watching(path):
        pass
    running = Watching([path])
    task = asyncio.create_task(running.run())
    path.write_text("1")
    await running.next()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not running.stop.is_set()
