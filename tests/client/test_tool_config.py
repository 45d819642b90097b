"""Our settings in other programs' files: put in, kept apart from what is the user's, and taken out to the byte."""

import json
import os

import pytest

from gemini_pool import jsonc, tool_config
from gemini_pool.environment import Gateway
from gemini_pool.errors import PoolError

GATEWAY = Gateway("http://127.0.0.1:8790", "gp-key")
OPENCODE = """\
{
  // what I like
  "$schema": "https://opencode.ai/config.json",
  "theme": "dark",
  "provider": {"google": {"options": {"apiKey": "mine", "timeout": 5}}}, // my own
}
"""
DOTENV = "# keys\nexport GEMINI_API_KEY='mine' # mine\r\nOTHER=1"


class Home:
    """A home folder, and the verbs on its tools' files."""

    def __init__(self, folder):
        self.folder = folder
        self.state = folder / "state"
        self.settings = folder / ".gemini" / "settings.json"
        self.dotenv = folder / ".gemini" / ".env"
        self.opencode = folder / ".config" / "opencode" / "opencode.json"
        for file in (self.settings, self.opencode):
            file.parent.mkdir(parents=True)

    def write(self, name, gateway=GATEWAY):
        wanted = tool_config.wanted(name, gateway, {"HOME": str(self.folder)})
        return [what for _, what in tool_config.write(name, wanted, self.state)]

    def undo(self, name):
        return [what for _, what in tool_config.undo(name, self.state)]

    def everything(self):
        files = [file for file in self.folder.rglob("*") if file.is_file()]
        return {str(file): (file.read_bytes(), file.stat().st_mode) for file in files}


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


def test_nothing_was_there(home):
    """Files are made, private where they hold the key, and deleted again."""
    assert home.write("gemini-cli") == ["written", "written"]
    assert home.dotenv.read_text() == "GEMINI_API_KEY=gp-key\nGOOGLE_GEMINI_BASE_URL=http://127.0.0.1:8790\n"
    assert home.dotenv.stat().st_mode & 0o777 == 0o600
    assert json.loads(home.settings.read_text()) == {"security": {"auth": {"selectedType": "gemini-api-key"}}}
    assert home.undo("gemini-cli") == ["deleted", "deleted"]
    assert home.everything() == {}
    assert home.undo("gemini-cli") == []


def test_the_users_own_stays(home):
    """Comments, other members and other lines stay; undoing brings back every byte and the mode."""
    home.opencode.write_text(OPENCODE)
    home.opencode.chmod(0o640)
    home.dotenv.write_text(DOTENV, newline="")
    home.settings.write_text('{"ui": {"theme": "x"}}')
    before = home.everything()
    home.write("opencode")
    home.write("gemini-cli")
    text = home.opencode.read_text()
    assert "// what I like" in text
    assert "// my own" in text
    assert jsonc.parse(text)["provider"]["google"]["options"] == {
        "apiKey": "gp-key", "timeout": 5, "baseURL": "http://127.0.0.1:8790/v1beta",
    }  # fmt: skip
    assert home.opencode.stat().st_mode & 0o777 == 0o600  # it holds a key of ours now
    assert home.dotenv.read_bytes() == (
        b"# keys\nGEMINI_API_KEY=gp-key\nOTHER=1\nGOOGLE_GEMINI_BASE_URL=http://127.0.0.1:8790\n"
    )
    assert home.undo("opencode") == ["restored"]
    assert home.undo("gemini-cli") == ["restored", "restored"]
    assert home.everything() == before


def test_the_key_stays_in_its_file(home):
    """opencode reads the key where it is: its own file, which people share, holds a reference."""
    home.write("opencode", Gateway("http://127.0.0.1:1", "gp-key", "/state/gateway.key"))
    assert "gp-key" not in home.opencode.read_text()
    assert "{file:/state/gateway.key}" in home.opencode.read_text()


def test_again(home):
    """A second time changes nothing; another address is taken over, and the first backup stays the backup."""
    home.opencode.write_text(OPENCODE)
    before = home.everything()
    home.write("opencode")
    after = home.everything()
    assert home.write("opencode") == ["unchanged"]
    assert home.everything() == after
    assert home.write("opencode", Gateway("http://127.0.0.1:9", "gp-other")) == ["written"]
    assert "127.0.0.1:9/" in home.opencode.read_text()
    home.undo("opencode")
    assert home.everything() == before


def test_changed_since(home):
    """What somebody wrote after us stays: only our members go back to what they were."""
    home.opencode.write_text(OPENCODE)
    home.dotenv.write_text(DOTENV, newline="")
    home.write("opencode")
    home.write("gemini-cli")
    home.opencode.write_text(home.opencode.read_text().replace('"dark"', '"light"'))
    home.dotenv.write_text(home.dotenv.read_text() + "NEW=1\n")
    assert home.undo("opencode") == ["cleaned"]
    assert home.undo("gemini-cli") == ["cleaned", "deleted"]
    assert jsonc.parse(home.opencode.read_text()) == jsonc.parse(OPENCODE.replace("dark", "light"))
    assert "// my own" in home.opencode.read_text()
    assert home.dotenv.read_text() == "# keys\nexport GEMINI_API_KEY='mine' # mine\nOTHER=1\nNEW=1\n"


@pytest.mark.parametrize(
    "text",
    ["[]", "{", '{"provider": []}', '{"provider": {"google": 1}}', "\xff", '{"provider":{},"provider":{}}'],
)
def test_other_shapes_are_left_alone(home, text):
    """What we do not understand is not touched, and named."""
    home.opencode.write_bytes(text.encode("latin-1"))
    before = home.everything()
    with pytest.raises(PoolError, match=r"opencode\.json is left alone"):
        home.write("opencode")
    assert home.everything() == before


def test_a_choice_that_is_not_the_users(home):
    """Settings that allow another way of logging in only; a .env file of several lines to a value."""
    home.settings.write_text('{"security": {"auth": {"enforcedType": "oauth-personal"}}}')
    with pytest.raises(PoolError, match="enforcedType"):
        home.write("gemini-cli")
    assert not home.dotenv.exists()  # nothing is half done
    home.settings.unlink()
    home.dotenv.write_text("A='one\ntwo'\n")
    with pytest.raises(PoolError, match="line 1"):
        home.write("gemini-cli")


def test_strange_files(home):
    """A symbolic link, also one to nowhere, a folder and a pipe are refused."""
    real = home.folder / "dotfiles.json"
    real.write_text("{}")
    for make in (
        lambda: home.opencode.symlink_to(real),
        lambda: home.opencode.symlink_to(home.folder / "nowhere"),
        lambda: home.opencode.mkdir(),
        lambda: os.mkfifo(home.opencode),
    ):
        make()
        with pytest.raises(PoolError, match="is left alone"):
            home.write("opencode")
        home.opencode.rmdir() if home.opencode.is_dir() else home.opencode.unlink()
    assert real.read_text() == "{}"


def test_which_file(home):
    """opencode's .jsonc goes before its .json, so that is the one."""
    (home.opencode.parent / "opencode.jsonc").write_text("{} // mine\n")
    home.opencode.write_text("{}")
    home.write("opencode")
    assert home.opencode.read_text() == "{}"
    assert "baseURL" in (home.opencode.parent / "opencode.jsonc").read_text()


def test_a_lost_backup(home):
    """Nothing is made up: it says that the original is gone, and leaves the file."""
    home.opencode.write_text(OPENCODE)
    home.write("opencode")
    backup = home.opencode.with_name(home.opencode.name + tool_config.BACKUP)
    assert backup.read_text() == OPENCODE
    backup.unlink()
    with pytest.raises(PoolError, match="is gone"):
        home.undo("opencode")
    assert "baseURL" in home.opencode.read_text()


@pytest.mark.parametrize("at", range(6))
def test_interrupted(home, monkeypatch, at):
    """Wherever writing is interrupted, undoing puts everything back."""
    home.opencode.write_text(OPENCODE)
    home.dotenv.write_text(DOTENV, newline="")
    before = home.everything()
    real, calls = os.fsync, []

    def dying(handle):
        calls.append(handle)
        if len(calls) > at:
            raise KeyboardInterrupt
        real(handle)

    monkeypatch.setattr(os, "fsync", dying)
    with pytest.raises(KeyboardInterrupt):
        for name in tool_config.TOOLS:
            home.write(name)
    monkeypatch.undo()
    for name in tool_config.TOOLS:
        home.undo(name)
    leftover = {k: v for k, v in home.everything().items() if not k.endswith(tool_config.BACKUP)}
    assert leftover == before
