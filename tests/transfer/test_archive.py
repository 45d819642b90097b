"""Archives: everything in one age file, opened on another machine with the passphrase. Real encryption, so few of them."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pyrage
import pytest
from tests.login.rig import secrets_of
from tests.transfer.rig import Office, office_of

from gemini_pool import wire
from gemini_poold.core.model import AccountState
from gemini_poold.errors import PoolError
from gemini_poold.fake import World

PASSPHRASE = "fake correct horse"

FILE = """\
[[account]]
id = "key-env"
backend = "developer-api"
credential = { type = "api-key", secret = { env = "KEY" } }
priority = 3
models = ["gemini-*"]

[[account]]
id = "key-pass"
backend = "developer-api"
credential = { type = "api-key", secret = { command = ["pass", "gemini/a"] } }

[[account]]
id = "robot"
backend = "vertex"
project = "shop"
location = "us-central1"
credential = { type = "adc" }

[[account]]
id = "lost"
backend = "developer-api"
credential = { type = "api-key", secret = { file = "lost.key" } }
"""


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    async with office_of(tmp_path) as office:
        yield office


async def test_from_one_machine_to_another(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """All accounts with their secrets leave in one file and serve elsewhere; what cannot go along is named; the file
    and whatever is said about it show no secret."""
    caplog.set_level(logging.DEBUG)
    world = World()
    world.add_user("ann", projects=["shop"])
    world.add_api_key("key")
    (tmp_path / "old").mkdir()
    async with office_of(tmp_path / "old", world) as old:
        old.desk.environ["KEY"] = "fake-key-key"
        old.desk.write(FILE)
        await old.desk.log_in("work")
        made = await old.archive.export(wire.ArchiveParams(PASSPHRASE))
        said = [repr(made)]
        login = old.desk.secret("work.json")
    assert made.accounts == ["key-env", "key-pass", "robot", "work"]
    assert [note.split()[0].rstrip(":") for note in made.notes] == ["key-pass", "robot", "lost"]
    sealed = base64.b64decode(made.archive)
    assert sealed.startswith(b"age-encryption.org/v1\n-> scrypt ")
    inside = json.loads(pyrage.passphrase.decrypt(sealed, PASSPHRASE))  # what `age -d` shows
    assert (inside["format"], inside["version"]) == ("gemini-pool-archive", 1)

    (tmp_path / "new").mkdir()
    async with office_of(tmp_path / "new", world) as new:
        new.desk.write(
            FILE.partition("\n\n")[0].replace("key-env", "robot") + "\n"
        )  # a name that is taken here
        result = await new.archive.restore(wire.UnarchiveParams(made.archive, PASSPHRASE))
        said.append(repr(result))
        assert [(row.found, row.result) for row in result.logins] == [
            ("key-env", "imported"), ("key-pass", "refused"), ("robot", "known"), ("work", "imported"),
        ]  # fmt: skip
        assert new.desk.secret("work.json") | {"token_uri": ""} == login | {"token_uri": ""}
        key = next(entry for entry in new.desk.file.read().entries if entry.id == "key-env")
        assert (key.priority, key.models) == (3, ("gemini-*",))
        assert (new.desk.state_dir / "secrets" / "key-env.key").read_text() == "fake-key-key"
        await new.desk.examiner.wait_settled("key-env")
        assert new.desk.pool.members["key-env"].state is AccountState.READY
        assert "command" not in new.desk.text
        found = [*secrets_of(new.desk.fake), "fake-key-key", PASSPHRASE]
        everything = "\n".join([*said, caplog.text, new.desk.text, sealed.decode("latin-1")])
        assert not [secret for secret in found if secret in everything]


async def test_some_accounts_and_a_wrong_passphrase(office: Office) -> None:
    """Only those that are named leave; without the passphrase nothing comes out, and nothing is changed."""
    office.desk.environ["KEY"] = "fake-key-key"
    office.desk.write(FILE)
    made = await office.archive.export(wire.ArchiveParams(PASSPHRASE, ["key-env"]))
    assert made.accounts == ["key-env"]
    text = office.desk.text
    with pytest.raises(PoolError, match="passphrase"):
        await office.archive.restore(wire.UnarchiveParams(made.archive, "fake other horse"))
    assert office.desk.text == text


@pytest.mark.parametrize(
    ("params", "code"),
    [(wire.ArchiveParams("short"), "bad_request"), (wire.ArchiveParams(PASSPHRASE, ["nobody"]), "not_found")],
)
async def test_what_cannot_be_archived(office: Office, params: wire.ArchiveParams, code: str) -> None:
    """A passphrase that is none, an account that is none."""
    with pytest.raises(PoolError) as caught:
        await office.archive.export(params)
    assert caught.value.code == code


@pytest.mark.parametrize("archive", ["not base64!", "bm90IGFuIGFnZSBmaWxl", ""])
async def test_what_is_no_archive(office: Office, archive: str) -> None:
    """Anything else is refused."""
    with pytest.raises(PoolError) as caught:
        await office.archive.restore(wire.UnarchiveParams(archive, PASSPHRASE))
    assert caught.value.code == "bad_request"


def bundle(*accounts: dict[str, Any], **more: Any) -> bytes:
    return msgspec.json.encode(
        {"format": "gemini-pool-archive", "version": 1, "created_at": 1.0, "accounts": accounts} | more
    )


def entry(name: str, **more: Any) -> dict[str, Any]:
    credential = {"type": "api-key", "secret": {"file": "/anywhere/key"}}
    return {"id": name, "backend": "developer-api", "credential": credential, **more}


async def test_what_an_archive_may_not_bring(office: Office) -> None:
    """Entries against the rules, commands, missing and damaged secrets are refused one by one; a secret is always kept
    in our own folder, wherever it was before."""
    command = {"type": "api-key", "secret": {"command": ["rm", "-rf", "/"]}}
    content = bundle(
        {"entry": entry("good"), "secret": base64.b64encode(b"fake-key-x").decode()},
        {"entry": entry("cmd", credential=command), "secret": "eA=="},
        {"entry": entry("none")},
        {"entry": entry("bad"), "secret": "?"},
        {"entry": entry("../evil"), "secret": "eA=="},
        {"entry": entry("odd", colour="red"), "secret": "eA=="},
        {"entry": {}},
    )
    result = await office.archive.take(content)
    assert [row.result for row in result.logins] == ["imported", *["refused"] * 6]
    assert office.desk.text == (
        '[[account]]\nid = "good"\nbackend = "developer-api"\n'
        'credential = { type = "api-key", secret = { file = "secrets/good.key" } }\n'
    )
    for wrong in (b"[]", b"{}", bundle(format="x"), bundle(version=2)):
        with pytest.raises(PoolError, match="archive"):
            await office.archive.take(wrong)


async def test_a_foreign_login_stays_as_accepted_as_it_was(office: Office) -> None:
    """An archive moves the record of the risk along with the account, and invents none."""
    secret = base64.b64encode(b"{}").decode()
    login = {"type": "oauth", "secret": {"file": "x.json"}}
    entries = [
        {"id": "a", "backend": "code-assist", "credential": login, "client_origin": "foreign"},
        {
            "id": "b",
            "backend": "code-assist",
            "credential": login,
            "client_origin": "foreign",
            "accepted_terms_risk": "2026-11-18 x",
        },
    ]
    await office.archive.take(bundle(*({"entry": each, "secret": secret} for each in entries)))
    assert [(e.client_origin, e.accepted_terms_risk) for e in office.desk.file.read().entries] == [
        ("foreign", ""), ("foreign", "2026-11-18 x"),
    ]  # fmt: skip
    assert office.desk.pool.members["a"].state is AccountState.BLOCKED_BY_TERMS
