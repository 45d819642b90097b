"""From entries to credentials: the gate for foreign logins, identities, and what is missing."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
from tests.credentials.making import TokenEndpoint, context, entry, file

from gemini_poold.config import SecretRef
from gemini_poold.core.model import AccountState, Backend, Kind
from gemini_poold.credentials.base import CredentialError, Failure
from gemini_poold.credentials.registry import KINDS, build, gate

CA = Backend.CODE_ASSIST


@pytest.mark.parametrize(
    ("origin", "accepted", "blocked"),
    [("own", "", False), ("foreign", "", True), ("foreign", "  ", True), ("foreign", "2026-11-24 v1", False)],
)
def test_a_foreign_login_needs_a_recorded_yes(origin, accepted, blocked):
    """Refused by default, with the way out; an own client is never asked."""
    outcome = gate(
        entry("oauth", file("a.json"), backend=CA, client_origin=origin, accepted_terms_risk=accepted)
    )
    assert (outcome is not None) == blocked
    if outcome is not None:
        assert (outcome.kind, outcome.state) == (Kind.ACCOUNT, AccountState.BLOCKED_BY_TERMS)
        assert "gemini-pool login work" in outcome.hint


def made(tmp_path, kind, **more):
    secret = more.pop("secret", file("a.json"))
    return build(entry(kind, secret, **more), context(tmp_path, TokenEndpoint()))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_built_without_reading_anything(tmp_path, kind):
    """Whatever is missing shows when the token is asked for, not while the accounts load."""
    more = {"target": "sa@example.com"} if kind == "impersonated" else {}
    credential = made(tmp_path, kind, **more)
    assert credential.kind == kind
    assert credential.identity.startswith(kind)


def test_the_same_login_has_the_same_identity(tmp_path):
    """Name and backend of the account do not matter; place, scopes, proxy, kind and target do."""
    base = made(tmp_path, "oauth").identity
    assert made(tmp_path, "oauth", name="other").identity == base
    assert (
        made(tmp_path, "oauth", secret=SecretRef(file=str(tmp_path / "secrets" / "a.json"))).identity == base
    )
    others = [
        made(tmp_path, "oauth", secret=file("b.json")),
        made(tmp_path, "oauth", scopes=("a",)),
        made(tmp_path, "oauth", proxy="http://proxy:1"),
        made(tmp_path, "service-account"),
        made(tmp_path, "service-account", backend=Backend.DEVELOPER_API),
        made(tmp_path, "impersonated", target="a@example.com"),
        made(tmp_path, "impersonated", target="b@example.com"),
        made(tmp_path, "adc", secret=None),
    ]
    identities = {base, *(credential.identity for credential in others)}
    assert len(identities) == len(others) + 1


@pytest.mark.parametrize(
    ("kind", "words"), [("oauth", "credential.secret is missing"), ("magic", "unknown credential type")]
)
def test_entries_that_lack_what_they_need(tmp_path, kind, words):
    """Named with the account, even if the schema let them through."""
    table = SimpleNamespace(type=kind, secret=None, scopes=(), target="")
    bad = SimpleNamespace(
        id="work", backend=CA, credential=table, client_origin="own", accepted_terms_risk="", proxy=""
    )
    with pytest.raises(CredentialError) as caught:
        build(bad, context(tmp_path, TokenEndpoint()))
    assert caught.value.failure is Failure.SECRET
    assert words in caught.value.message


def test_google_auth_is_not_loaded_for_who_needs_it_not():
    """Neither the library nor its cryptography is in memory after the room was imported."""
    code = (
        "import sys; import gemini_poold.credentials.registry; "
        "print([m for m in sys.modules if m.startswith('google.auth') or m == 'cryptography'])"
    )
    path = ":".join(item for item in sys.path if item)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": path}
    )
    assert done.stdout.strip() == "[]"
