"""Exports: opencode's packed form, and what stays untouched in its file."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.transfer.rig import Office, oauth_creds, office_of

from gemini_pool import wire
from gemini_poold.errors import PoolError
from gemini_poold.transfer.opencode import Packed, pack, unpack

PACKED = [
    (Packed("rt"), "rt"),
    (Packed("rt", "shop"), "rt|shop"),
    (Packed("rt", "shop", "managed"), "rt|shop|managed"),
    (Packed("rt", "", "managed"), "rt||managed"),
    (Packed(""), ""),
    (Packed("", "shop", "managed"), ""),
]


@pytest.mark.parametrize(("parts", "text"), PACKED)
def test_packed_strings(parts: Packed, text: str) -> None:
    """Written as the plugin writes, and read back the same."""
    assert pack(parts) == text
    assert unpack(text) == ([parts] if parts.refresh else [])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("rt|projects/shop|", [Packed("rt", "shop")]),
        (" rt | shop ", [Packed("rt", "shop")]),
        ("rt|a|b|c@example.com|more", [Packed("rt", "a", "b")]),
        ("a|x;b;;c||m;", [Packed("a", "x"), Packed("b"), Packed("c", "", "m")]),
        (";|;", []),
    ],
)
def test_packed_strings_of_others(text: str, found: list[Packed]) -> None:
    """Tolerant of everything that was ever written there."""
    assert unpack(text) == found


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    """An office that has imported Gemini CLI's login as `ann`."""
    async with office_of(tmp_path) as office:
        office.put(".gemini/oauth_creds.json", oauth_creds(office.grant().token))
        await office.run("gemini-cli")
        await office.desk.examiner.wait_settled("ann")
        yield office


async def export(office: Office, *accounts: str, **more: str) -> wire.ExportResult:
    return await office.exporter.opencode(wire.ExportOpencodeParams(accounts, **more))


def written(path: str) -> dict[str, dict[str, object]]:
    return json.loads(Path(path).read_bytes())


async def test_export_makes_the_file(office: Office) -> None:
    """Where opencode has no file yet, it gets a private one with the one entry."""
    result = await export(office, "ann")
    path = office.home / ".local/share/opencode/auth.json"
    assert (result.path, result.accounts, result.notes) == (str(path), ["ann"], [])
    assert path.stat().st_mode & 0o777 == 0o600
    token = office.desk.secret("ann.json")["refresh_token"]
    assert written(result.path) == {
        "google": {"type": "oauth", "refresh": f"{token}||shop", "access": "", "expires": 0}
    }


async def test_export_changes_one_entry(office: Office) -> None:
    """Other providers' entries stay, the earlier content is kept beside, and what was exported can be imported."""
    old = {
        "openai": {"type": "api", "key": "fake-openai"},
        "google": {"type": "oauth", "refresh": "fake-refresh-old"},
    }
    path = office.put("oc/auth.json", old)
    await office.desk.keeper.set("ann", {"project": "shop"})
    result = await export(office, "ann", path="~/oc/auth.json")
    token = office.desk.secret("ann.json")["refresh_token"]
    assert written(result.path)["google"]["refresh"] == f"{token}|shop"
    assert written(result.path)["openai"] == old["openai"]
    assert json.loads(path.with_name("auth.json.1").read_bytes()) == old
    assert any("auth.json.1" in note for note in result.notes)
    assert [row.result for row in (await office.run("opencode", path=str(path))).logins] == ["known"]


async def test_export_of_several(office: Office) -> None:
    """Joined by semicolons, with a word about who reads that."""
    await office.desk.log_in("work")
    result = await export(office, "ann", "work")
    assert str(written(result.path)["google"]["refresh"]).count(";") == 1
    assert any("some forks" in note for note in result.notes)
    assert any("work was logged in with an OAuth client of your own" in note for note in result.notes)


@pytest.mark.parametrize("content", ["{", "[]", "", "null"])
async def test_a_file_that_cannot_be_read_is_never_overwritten(office: Office, content: str) -> None:
    """Whatever it is, it may be somebody's only login."""
    path = office.put("oc/auth.json", content)
    with pytest.raises(PoolError, match="stays as it is"):
        await export(office, "ann", path=str(path))
    assert path.read_text() == content


async def test_a_linked_file_is_replaced_where_it_is(office: Office) -> None:
    """A link of somebody's dot-file folder stays a link."""
    real = office.put("dotfiles/auth.json", {"openai": {}})
    link = office.home / "auth.json"
    link.symlink_to(real)
    await export(office, "ann", path=str(link))
    assert link.is_symlink()
    assert "google" in written(str(real))


@pytest.mark.parametrize(
    ("accounts", "code"),
    [
        ((), "bad_request"),
        (("key",), "bad_request"),
        (("nobody",), "not_found"),
        (("gone",), "login_required"),
    ],
)
async def test_what_cannot_be_exported(office: Office, accounts: tuple[str, ...], code: str) -> None:
    """No account, one that is no login, an unknown one, one whose secret is gone: nothing is written."""
    office.desk.write(
        office.desk.text
        + '[[account]]\nid = "key"\nbackend = "developer-api"\ncredential = { type = "api-key", secret = { env = "K" } }\n'
        + '[[account]]\nid = "gone"\nbackend = "code-assist"\ncredential = { type = "oauth", secret = { file = "gone.json" } }\n'
    )
    with pytest.raises(PoolError) as caught:
        await export(office, *accounts)
    assert caught.value.code == code
    assert not (office.home / ".local").exists()
