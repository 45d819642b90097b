"""Private files: what is refused and with which mending command, and that a write is whole or not there at all."""

from __future__ import annotations

import os
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from gemini_poold import files
from gemini_poold.errors import FileRefused

ROOT = os.geteuid() == 0


def private(path: Path, data: bytes = b"fake-key-1", mode: int = 0o600) -> Path:
    path.write_bytes(data)
    path.chmod(mode)
    return path


def shell(command: str) -> None:
    subprocess.run(["sh", "-c", command], check=True)


def test_reads_what_is_ours_alone(tmp_path: Path) -> None:
    """A 0600 (or tighter) file of ours is read as it is."""
    assert files.read_private(private(tmp_path / "a", mode=0o600)) == b"fake-key-1"
    assert files.read_private(private(tmp_path / "b", mode=0o400)) == b"fake-key-1"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o620, 0o604, 0o602, 0o601, 0o666, 0o777])
def test_an_open_file_is_refused_and_the_hint_mends_it(tmp_path: Path, mode: int) -> None:
    """Any bit for group or others refuses the file; the hint is a command that makes it readable for us."""
    path = private(tmp_path / "it's a key", mode=mode)
    with pytest.raises(FileRefused) as caught:
        files.read_private(path)
    assert f"{mode:04o}" in caught.value.message
    assert caught.value.hint.startswith("chmod 600 ")
    shell(caught.value.hint)
    assert files.read_private(path) == b"fake-key-1"


def test_a_symbolic_link_is_refused_and_the_hint_mends_it(tmp_path: Path) -> None:
    """A secret that is a link is refused even though its target is fine; the hint puts the file itself there."""
    target = private(tmp_path / "target")
    link = tmp_path / "link"
    link.symlink_to(target)
    with pytest.raises(FileRefused, match="symbolic link") as caught:
        files.read_private(link)
    shell(caught.value.hint)
    link.chmod(0o600)
    assert not link.is_symlink()
    assert files.read_private(link) == b"fake-key-1"


@pytest.mark.skipif(not ROOT, reason="only root can give files away")
def test_a_foreign_owner_is_refused(tmp_path: Path) -> None:
    """A file of another user's is refused for secrets and for configuration, and the owner is named."""
    path = private(tmp_path / "a")
    os.chown(path, 4321, 4321)
    for read in (files.read_private, files.read_trusted, files.check_private):
        with pytest.raises(FileRefused, match="belongs to user id 4321") as caught:
            read(path)
        assert "chown" in caught.value.hint


@pytest.mark.parametrize("read", [files.read_private, files.read_trusted, files.check_private])
def test_a_missing_file_is_told_apart(tmp_path: Path, read: object) -> None:
    """`missing` says that there is nothing, in contrast to something that is refused."""
    with pytest.raises(FileRefused) as caught:
        read(tmp_path / "nothing")  # type: ignore[operator]
    assert caught.value.missing
    assert str(tmp_path / "nothing") in caught.value.message


@pytest.mark.parametrize("read", [files.read_private, files.read_trusted, files.check_private])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, read: object) -> None:
    """A folder or a pipe with nobody at its other end neither hangs us nor counts as a file."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "folder").mkdir(mode=0o700)
    for name in ("pipe", "folder"):
        with pytest.raises(FileRefused, match="not a regular file") as caught:
            read(tmp_path / name)  # type: ignore[operator]
        assert not caught.value.missing


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    """A mistyped path does not fill the memory."""
    with pytest.raises(FileRefused, match="larger than 10 bytes"):
        files.read_private(private(tmp_path / "a", b"x" * 11), limit=10)
    assert files.read_private(private(tmp_path / "b", b"x" * 10), limit=10) == b"x" * 10


def test_a_configuration_file_may_be_a_link_and_readable(tmp_path: Path) -> None:
    """Configuration may be 0644 and reached through a link (stow, Nix)."""
    target = private(tmp_path / "target", mode=0o644)
    (tmp_path / "link").symlink_to(target)
    assert files.read_trusted(tmp_path / "link") == b"fake-key-1"


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_configuration_file_that_others_write_is_refused(tmp_path: Path, mode: int) -> None:
    """Group or world writable configuration is refused; the hint mends it."""
    path = private(tmp_path / "a", mode=mode)
    with pytest.raises(FileRefused, match="writable to others") as caught:
        files.read_trusted(path)
    shell(caught.value.hint)
    assert files.read_trusted(path) == b"fake-key-1"


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
def test_a_private_file_in_a_folder_that_others_write_is_refused_and_the_hint_mends_it(
    tmp_path: Path, mode: int
) -> None:
    """Whoever may write to the folder may put another file there. A sticky one (as for temporary files) is none such."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    path = private(folder / "key", b"x")
    folder.chmod(mode)
    with pytest.raises(FileRefused) as caught:
        files.read_private(path)
    assert f"{mode:04o}" in caught.value.message
    shell(caught.value.hint)
    assert files.read_private(path) == b"x"
    folder.chmod(0o1777)
    assert files.read_private(path) == b"x"


def test_a_link_to_nothing_is_not_a_file_that_nobody_made(tmp_path: Path) -> None:
    """A configuration file whose target has gone (an unmounted share, a half-done stow) is refused, not taken for none."""
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(FileRefused, match="link to what does not exist") as caught:
        files.read_trusted(tmp_path / "link")
    assert not caught.value.missing


def test_private_folders_are_made_and_checked(tmp_path: Path) -> None:
    """Every folder that we make is 0700 whatever the umask; an open one is refused with its mending command."""
    old = os.umask(0)
    try:
        files.ensure_private_dir(tmp_path / "a" / "b")
    finally:
        os.umask(old)
    for folder in (tmp_path / "a", tmp_path / "a" / "b"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (tmp_path / "a").chmod(0o755)
    with pytest.raises(FileRefused, match="open to others") as caught:
        files.ensure_private_dir(tmp_path / "a")
    shell(caught.value.hint)
    files.ensure_private_dir(tmp_path / "a")


def test_a_folder_that_is_something_else_is_refused(tmp_path: Path) -> None:
    """A link or a file in the folder's place is named as what it is."""
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    private(tmp_path / "file")
    with pytest.raises(FileRefused, match="symbolic link"):
        files.ensure_private_dir(tmp_path / "link")
    with pytest.raises(FileRefused, match="not a folder"):
        files.ensure_private_dir(tmp_path / "file")


@pytest.mark.skipif(not ROOT, reason="only root can give folders away")
def test_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    """A folder of another user's is not used."""
    (tmp_path / "a").mkdir(mode=0o700)
    os.chown(tmp_path / "a", 4321, 4321)
    with pytest.raises(FileRefused, match="belongs to user id 4321"):
        files.ensure_private_dir(tmp_path / "a")


def test_writes_replace_the_whole_file(tmp_path: Path) -> None:
    """The new content is there with the asked mode, whatever stood there before, and no temporary file is left."""
    path = private(tmp_path / "a", b"old and longer", mode=0o644)
    files.atomic_write(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    files.atomic_write(path, b"newer", mode=0o640)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert sorted(os.listdir(tmp_path)) == ["a", "a.lock"]


def test_a_link_is_never_written_through(tmp_path: Path) -> None:
    """A symbolic link in the file's or its lock's place is refused and its target left alone."""
    target = private(tmp_path / "target", b"theirs")
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(FileRefused, match="symbolic link"):
        files.atomic_write(tmp_path / "link", b"ours")
    (tmp_path / "b.lock").symlink_to(target)
    with pytest.raises(OSError):
        files.atomic_write(tmp_path / "b", b"ours")
    assert target.read_bytes() == b"theirs"


def test_generations_are_kept(tmp_path: Path) -> None:
    """PATH.1 is the content before the last write, PATH.2 the one before that, and no more than asked."""
    path = tmp_path / "a"
    for number in range(5):
        files.atomic_write(path, b"%d" % number, generations=2)
    names = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path) if name != "a.lock"}
    assert names == {"a": b"4", "a.1": b"3", "a.2": b"2"}
    assert stat.S_IMODE((tmp_path / "a.1").stat().st_mode) == 0o600


def test_generations_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that has no hard links keeps generations by copying."""

    def no_links(*_: object) -> None:
        raise OSError("not supported")

    monkeypatch.setattr(os, "link", no_links)
    for number in range(3):
        files.atomic_write(tmp_path / "a", b"%d" % number, generations=1)
    assert (tmp_path / "a.1").read_bytes() == b"1"


def test_a_killed_writers_leftovers_are_removed(tmp_path: Path) -> None:
    """Temporary files of a writer that died are gone after the next write; others' files stay."""
    private(tmp_path / ".a.tmp-0123456789abcdef")
    private(tmp_path / ".b.tmp-0123456789abcdef")
    files.atomic_write(tmp_path / "a", b"x")
    assert sorted(os.listdir(tmp_path)) == [".b.tmp-0123456789abcdef", "a", "a.lock"]


@pytest.mark.parametrize("step", ["write", "fsync", "fchmod", "replace", "link", "dir fsync"])
def test_a_failing_step_leaves_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Whichever step fails, the file holds its old content or, once renamed, the new one; never a part."""
    path = private(tmp_path / "a", b"old")
    files.atomic_write(path, b"old", generations=1)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    match step:
        case "write":
            monkeypatch.setattr(files, "_write_temporary", full)
        case "fsync" | "fchmod":
            monkeypatch.setattr(os, step, full)
        case "replace":
            monkeypatch.setattr(Path, "replace", full)
        case "link":
            monkeypatch.setattr(files, "_keep_generations", full)
        case "dir fsync":
            monkeypatch.setattr(files, "sync_dir", full)
    with pytest.raises(OSError, match="No space"):
        files.atomic_write(path, b"new", generations=1)
    assert path.read_bytes() == (b"new" if step == "dir fsync" else b"old")
    assert not [name for name in os.listdir(tmp_path) if "tmp-" in name and step != "replace"]


def test_the_lock_is_for_one_at_a_time(tmp_path: Path) -> None:
    """A second holder waits for the first, and gives up with words when the wait is too long."""
    order: list[str] = []
    held, release = threading.Event(), threading.Event()

    def holder() -> None:
        with files.locked(tmp_path / "a"):
            held.set()
            release.wait()
            order.append("first")

    thread = threading.Thread(target=holder)
    thread.start()
    held.wait()
    with (
        pytest.raises(FileRefused, match="held by another process"),
        files.locked(tmp_path / "a", timeout_s=0),
    ):
        pass
    release.set()
    with files.locked(tmp_path / "a"):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]


def test_new_private_files_do_not_overwrite(tmp_path: Path) -> None:
    """`create_private` makes an empty 0600 file and refuses one that is there."""
    files.create_private(tmp_path / "a")
    files.sync_file(tmp_path / "a")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        files.create_private(tmp_path / "a")
