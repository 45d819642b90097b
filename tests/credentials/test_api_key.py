"""API keys: warm without a call, never judged by their prefix, read again when renewed."""

from __future__ import annotations

import os
import sys
from math import inf

import pytest
from tests.credentials.making import TokenEndpoint, context, entry, file, write_secret

from gemini_poold.config import SecretRef
from gemini_poold.credentials import registry
from gemini_poold.credentials.base import CredentialError, Failure


def make(tmp_path, secret, environ=None):
    return registry.build(entry("api-key", secret), context(tmp_path, TokenEndpoint(), environ=environ))


async def test_a_key_is_warm_at_once_and_never_expires(tmp_path):
    """No call, no waiting, no end; sent in Google's own header field."""
    key = make(tmp_path, SecretRef(env="KEY"), {"KEY": "any-looks-will-do"})
    token = key.warm_nowait()
    assert token is not None
    assert token.expires_at == inf
    assert key.headers(token) == {"x-goog-api-key": "any-looks-will-do"}


async def test_a_replaced_key_file_is_picked_up(tmp_path):
    """Renewing reads the file again, and its fingerprint tells that there is something new."""
    write_secret(tmp_path / "secrets" / "a.key", "fake-key-a\n")
    key = make(tmp_path, file("a.key"))
    before = key.fingerprint_nowait()
    write_secret(tmp_path / "secrets" / "b.key", "fake-key-b\n").replace(tmp_path / "secrets" / "a.key")
    assert key.fingerprint_nowait() != before
    assert (await key.renew(0.0)).value.reveal() == "fake-key-b"


async def test_a_key_from_a_command_takes_waiting(tmp_path):
    """Nothing blocks while the daemon starts: it comes by a renewal."""
    key = make(tmp_path, SecretRef(command=(sys.executable, "-c", "print('fake-key-a')")), dict(os.environ))
    assert key.warm_nowait() is None
    assert (await key.renew(0.0)).value.reveal() == "fake-key-a"


async def test_a_missing_key(tmp_path):
    """The error names account and place."""
    with pytest.raises(CredentialError) as caught:
        make(tmp_path, SecretRef(env="KEY")).warm_nowait()
    assert caught.value.failure is Failure.SECRET
    assert "account work" in caught.value.message
    assert "KEY" in caught.value.message
