"""Edits keep what they are not about: comments, order, blank lines; and whatever was meant is what stands there."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemini_poold.accounts import edit
from gemini_poold.accounts.schema import AccountEntry, Credential, Limits, parse
from gemini_poold.accounts.store import AccountsFile
from gemini_poold.config import SecretRef
from gemini_poold.core.model import Backend
from gemini_poold.errors import ConfigInvalid, PoolError

FILE = """\
# my accounts
# kept by hand

# work: the licensed one
[[account]]
id = "work"   # the id
backend = "code-assist"
credential = { type = "oauth", secret = { file = "secrets/work.json" } }
enabled = true  # on

# a key
# of the shop's project
[[account]]
id = "key-a"
backend = "developer-api"
credential = { type = "api-key", secret = { env = "KEY_A" } }
models = [
  "gemini-3*",  # all of them
]

[account.limits]
rpm = 10

[[account]]
id = "key-b"
backend = "developer-api"
credential = { type = "api-key", secret = { env = "KEY_B" } }
# of key-b

# last words
"""

INLINE = """\
account = [
  # the first
  { id = "a", backend = "developer-api", credential = { type = "api-key", secret = { env = "A" } } },
  { id = "b", backend = "developer-api", credential = { type = "api-key", secret = { env = "B" } } },
]
"""


def entry(name: str = "new", **more: object) -> AccountEntry:
    credential = Credential(type="api-key", secret=SecretRef(file=f"secrets/{name}.key"))
    return msgspec.structs.replace(AccountEntry(name, Backend.DEVELOPER_API, credential), **more)


def ids(text: str) -> list[str]:
    return [each.id for each in parse(text, "accounts.toml")]


@pytest.mark.parametrize("text", ["", "# nothing yet\n", FILE, FILE.rstrip("\n"), INLINE, "account = []\n"])
def test_add_comes_last_and_leaves_the_rest(text: str) -> None:
    """A new account is the last one; not a character before it changes."""
    after = edit.add(text, entry())
    assert ids(after) == [*ids(text), "new"]
    if "account = [" not in text:
        assert after.startswith(text)


def test_add_writes_what_is_not_default() -> None:
    """An entry shows its id, backend and credential first, then what differs from the defaults."""
    made = entry(
        priority=3, models=("gemini-3*",), client_origin="foreign", accepted_terms_risk='on "Monday"'
    )
    assert edit.add("", made) == (
        '[[account]]\nid = "new"\nbackend = "developer-api"\n'
        'credential = { type = "api-key", secret = { file = "secrets/new.key" } }\n'
        'priority = 3\nmodels = ["gemini-3*"]\nclient_origin = "foreign"\n'
        'accepted_terms_risk = "on \\"Monday\\""\n'
    )


def test_add_refuses_a_taken_id() -> None:
    """Two accounts never share an id."""
    with pytest.raises(PoolError, match="already"):
        edit.add(FILE, entry("key-a"))


@pytest.mark.parametrize(
    ("name", "gone", "kept"),
    [
        (
            "work",
            ["# work: the licensed one", "work.json"],
            ["# my accounts", "# a key", "# of the shop's project"],
        ),
        (
            "key-a",
            ["# a key", "# of the shop's project", "rpm", "gemini-3"],
            ["# work: the", "key-b", "# last words"],
        ),
        ("key-b", ["KEY_B", "# of key-b"], ["# a key", "rpm = 10", "# last words"]),
    ],
)
def test_remove_takes_the_comment_above_and_no_other(name: str, gone: list[str], kept: list[str]) -> None:
    """What stands right above a removed account goes with it; the comments of its neighbours stay."""
    after = edit.remove(FILE, name)
    assert ids(after) == [each for each in ids(FILE) if each != name]
    assert not [words for words in gone if words in after]
    assert not [words for words in kept if words not in after]


def test_remove_keeps_what_the_file_begins_with() -> None:
    """A comment on the first line may be about the whole file, even when nothing parts it from the first account."""
    text = "# of all\n" + edit.render(entry("only"))
    assert edit.remove(text, "only") == "# of all\n"


@pytest.mark.parametrize("name", ["a", "b"])
def test_remove_from_an_inline_list(name: str) -> None:
    """Accounts written as one array lose the one that is meant."""
    assert ids(edit.remove(INLINE, name)) == [each for each in "ab" if each != name]


def test_add_and_remove_are_inverse() -> None:
    """What was added is removed without a trace."""
    assert edit.remove(edit.add(FILE, entry()), "new") == FILE


def test_remove_of_nobody() -> None:
    """An unknown account is said to be unknown."""
    with pytest.raises(PoolError) as caught:
        edit.remove(FILE, "nobody")
    assert caught.value.code == "not_found"


def test_set_exchanges_a_value_in_its_line() -> None:
    """The comment behind a changed value stays, as does every other line."""
    assert edit.set_keys(FILE, "work", {"enabled": False}) == FILE.replace(
        "enabled = true  # on", "enabled = false  # on"
    )


@pytest.mark.parametrize(
    ("name", "after"),
    [("work", "enabled = true  # on\n"), ("key-a", "]\n"), ("key-b", 'secret = { env = "KEY_B" } }\n')],
)
def test_set_puts_a_new_key_behind_the_last_one(name: str, after: str) -> None:
    """A key that was not there stands with its account's keys, before comments and sub-tables that follow."""
    changed = edit.set_keys(FILE, name, {"priority": 7})
    place = changed.index("priority = 7\n")
    assert changed[:place].endswith(after)
    assert changed.replace("priority = 7\n", "") == FILE


def test_set_several_and_tables() -> None:
    """Keys are set, exchanged and taken out in one edit; a sub-table may become an inline one."""
    credential = {"type": "api-key", "secret": {"file": "secrets/key-a.key"}}
    changes = {"credential": credential, "models": None, "limits": {"rpm": 5}, "project": "shop"}
    changed = edit.set_keys(FILE, "key-a", changes)
    made = parse(changed, "accounts.toml")[1]
    assert made.credential.secret == SecretRef(file="secrets/key-a.key")
    assert (made.models, made.limits.rpm, made.project) == ((), 5, "shop")
    assert "# last words" in changed
    assert "# work: the licensed one" in changed


def test_set_in_an_inline_list() -> None:
    """Accounts written as one array are edited, too."""
    changed = edit.set_keys(INLINE, "b", {"enabled": False})
    assert [each.enabled for each in parse(changed, "x")] == [True, False]


def test_set_what_is_so_already_changes_nothing() -> None:
    """An edit that means nothing leaves the text as it is, defaults included."""
    assert edit.set_keys(FILE, "key-b", {"enabled": True, "priority": 0}) == FILE


def test_set_is_checked_by_the_schema() -> None:
    """What the file's rules forbid is refused before anything is written."""
    with pytest.raises(PoolError, match="location belongs"):
        edit.set_keys(FILE, "key-a", {"location": "us-central1"})


def test_line_ends_stay() -> None:
    """A file with CRLF keeps it, in new lines, too."""
    text = FILE.replace("\n", "\r\n")
    for changed in (
        edit.set_keys(text, "key-b", {"priority": 1}),
        edit.add(text, entry()),
        edit.remove(text, "key-a"),
    ):
        assert "\n" not in changed.replace("\r\n", "")


def test_a_text_that_only_a_person_can_edit_is_left_alone() -> None:
    """When the edited text does not say what was meant, nothing is handed out."""
    tricky = FILE.replace('env = "KEY_B" } }', 'env = """K\n# """ } }')
    with pytest.raises(PoolError, match="cannot be edited"):
        edit.set_keys(tricky, "key-b", {"priority": 1})


NAMES = st.sampled_from(["a", "b", "c", "d"])
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "enabled": st.booleans(),
        "priority": st.integers(-5, 5),
        "project": st.text(max_size=8),
        "models": st.lists(st.text(min_size=1, max_size=5), max_size=3),
        "limits": st.fixed_dictionaries({}, optional={"rpm": st.integers(1, 9), "tpm": st.integers(1, 9)}),
        "accepted_terms_risk": st.text(max_size=20),
    },
)
STEPS = st.lists(st.tuples(st.sampled_from(["add", "remove", "set"]), NAMES, VALUES), max_size=8)


@given(STEPS)
@settings(max_examples=150, deadline=None)
def test_whatever_is_done_the_rest_stays(steps: list[tuple[str, str, dict[str, object]]]) -> None:
    """Any sequence of edits says in the end what was meant, and every comment of the owner's other accounts is there."""
    text = FILE
    expected = {each.id: each for each in parse(FILE, "accounts.toml")}
    for verb, name, values in steps:
        if verb == "add" and name not in expected:
            expected[name] = entry(name, **values_of(values))
            text = edit.add(text, expected[name])
        elif verb == "remove" and name in expected:
            del expected[name]
            text = edit.remove(text, name)
        elif verb == "set" and name in expected:
            text = edit.set_keys(text, name, values)
            expected[name] = msgspec.structs.replace(expected[name], **values_of(values))
    assert {each.id: each for each in parse(text, "accounts.toml")} == expected
    kept = [line for line in FILE.splitlines() if "#" in line and "last words" not in line]
    assert [line for line in text.splitlines() if line in kept] == kept


def values_of(values: dict[str, object]) -> dict[str, object]:
    """The values as an entry holds them."""
    made: dict[str, object] = dict(values)
    if "models" in made:
        made["models"] = tuple(made["models"])  # type: ignore[arg-type]
    if "limits" in made:
        made["limits"] = msgspec.convert(made["limits"], Limits)
    return made


# ---- on the disk ------------------------------------------------------------------------------------------------


def test_apply_replaces_the_file(tmp_path: Path) -> None:
    """The edited text is in the file, the previous one beside it."""
    path = tmp_path / "accounts.toml"
    path.write_text(FILE, encoding="utf-8")
    loaded = edit.apply(AccountsFile(path), lambda text: edit.add(text, entry()))
    assert path.read_text(encoding="utf-8") == loaded.text
    assert path.with_name("accounts.toml.1").read_text(encoding="utf-8") == FILE


def test_apply_starts_anew_when_the_file_was_saved_meanwhile(tmp_path: Path) -> None:
    """An edit by somebody else between reading and writing is not lost."""
    path = tmp_path / "accounts.toml"
    path.write_text(FILE, encoding="utf-8")
    seen = []

    def change(text: str) -> str:
        seen.append(text)
        if len(seen) == 1:
            path.write_text(FILE + "# theirs\n", encoding="utf-8")
        return edit.add(text, entry())

    edit.apply(AccountsFile(path), change)
    assert len(seen) == 2
    assert "# theirs" in path.read_text(encoding="utf-8")
    assert ids(path.read_text(encoding="utf-8"))[-1] == "new"


def test_apply_makes_the_first_file(tmp_path: Path) -> None:
    """Without a file there are no accounts; the first edit makes one."""
    path = tmp_path / "accounts.toml"
    edit.apply(AccountsFile(path), lambda text: edit.add(text, entry()))
    assert ids(path.read_text(encoding="utf-8")) == ["new"]


def test_apply_never_touches_a_broken_file(tmp_path: Path) -> None:
    """A file that does not read well is its owner's to mend."""
    path = tmp_path / "accounts.toml"
    path.write_text("[[account]\n", encoding="utf-8")
    with pytest.raises(ConfigInvalid):
        edit.apply(AccountsFile(path), lambda text: edit.add(text, entry()))
    assert path.read_text(encoding="utf-8") == "[[account]\n"
