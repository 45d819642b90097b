"""The accounts file on the disk: reading it as a whole and replacing it without losing anybody's change."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from gemini_poold.accounts.store import AccountsFile, digest_of
from gemini_poold.errors import ConfigInvalid, FileRefused, PoolError

ONE = '[[account]]\nid = "one"\nbackend = "developer-api"\ncredential = { type = "api-key", secret = { env = "K" } }\n'
TWO = ONE + ONE.replace("one", "two")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "accounts.toml"


def test_no_file_means_no_accounts(path: Path) -> None:
    """A pool that was never set up starts, empty."""
    assert AccountsFile(path).read() == ([], "", "")


def test_the_file_is_read_as_a_whole(path: Path) -> None:
    """Entries, the text with its comments, and the digest of its bytes."""
    path.write_text("# mine\n" + ONE)
    loaded = AccountsFile(path).read()
    assert [entry.id for entry in loaded.entries] == ["one"]
    assert loaded.text.startswith("# mine")
    assert loaded.digest == digest_of(path.read_bytes())


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"\xff\xfe", "not UTF-8"), (b'[[account]]\nid = "a', "not TOML"), (ONE.encode() * 2, "given twice")],
)
def test_a_bad_file_is_refused_with_its_place(path: Path, content: bytes, words: str) -> None:
    """The error names the file and the line."""
    path.write_bytes(content)
    with pytest.raises(ConfigInvalid, match=words) as caught:
        AccountsFile(path).read()
    assert caught.value.file == str(path)
    assert caught.value.line >= 1


def test_a_file_that_others_write_is_refused(path: Path) -> None:
    """The mending command comes along."""
    path.write_text(ONE)
    path.chmod(0o666)
    with pytest.raises(ConfigInvalid, match="writable to others") as caught:
        AccountsFile(path).read()
    assert caught.value.hint == f"chmod go-w {path}"


def test_replacing_keeps_the_previous_contents(path: Path) -> None:
    """A new file is made, 0600; then each replaced content stays beside it."""
    file = AccountsFile(path)
    first = file.replace(ONE, expected="")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    second = file.replace(TWO, expected=first.digest)
    assert [entry.id for entry in second.entries] == ["one", "two"]
    assert file.read() == second
    assert path.with_name("accounts.toml.1").read_text() == ONE


def test_somebody_elses_change_is_not_overwritten(path: Path) -> None:
    """When the file is not what was read, nothing is written."""
    file = AccountsFile(path)
    path.write_text(ONE)
    with pytest.raises(PoolError, match="changed by somebody else"):
        file.replace(TWO, expected=digest_of(b"something else"))
    with pytest.raises(PoolError, match="changed by somebody else"):
        file.replace(TWO, expected="")
    assert path.read_text() == ONE


def test_a_bad_text_is_never_written(path: Path) -> None:
    """A text that would not be taken is refused before the file is touched."""
    path.write_text(ONE)
    with pytest.raises(ConfigInvalid):
        AccountsFile(path).replace("[[account]]\n", expected=digest_of(ONE.encode()))
    assert os.listdir(path.parent) == ["accounts.toml"]
    assert path.read_text() == ONE


def test_a_refused_file_is_not_replaced(path: Path) -> None:
    """What we would not read, we do not overwrite."""
    path.write_text(ONE)
    path.chmod(0o666)
    with pytest.raises(FileRefused):
        AccountsFile(path).replace(TWO, expected=digest_of(ONE.encode()))
    assert path.read_text() == ONE


def test_a_linked_file_is_replaced_where_it_is(path: Path, tmp_path: Path) -> None:
    """The link of somebody who keeps their configuration elsewhere stays a link."""
    (tmp_path / "dotfiles").mkdir()
    target = tmp_path / "dotfiles" / "accounts.toml"
    target.write_text(ONE)
    path.symlink_to(target)
    AccountsFile(path).replace(TWO, expected=digest_of(ONE.encode()))
    assert path.is_symlink()
    assert target.read_text() == TWO
