"""The form of a sealed file: two keys open it, nothing else does, and no changed byte goes unnoticed."""

from __future__ import annotations

import base64
import json

import msgspec
import pytest

from gemini_poold.credentials import sealed
from gemini_poold.credentials.sealed import WrongKey

KEY = b"fake-sealing-key"
CONTENT = b'{"refresh_token": "fake-refresh-1"}'


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    """The real cost is tested once; elsewhere it only takes time."""
    monkeypatch.setattr(sealed, "COST", (1 << 10, 8, 1))


def test_both_keys_open_a_file_that_stands_alone():
    """Content, key and recovery key, with nothing from anywhere else."""
    header, data_key, recovery = sealed.new_header(KEY)
    text = sealed.seal(CONTENT, header, data_key)
    assert sealed.is_sealed(text)
    assert b"fake-refresh" not in text
    found = sealed.header_of(text)
    assert sealed.unseal(text, sealed.unlock(found, KEY)) == CONTENT
    for typed in (recovery, recovery.lower(), recovery.replace("-", " "), f" {recovery}\n"):
        assert sealed.unseal(text, sealed.unlock(found, sealed.normal(typed), recovery=True)) == CONTENT


def test_the_documented_form():
    """Three lines: the magic, a JSON header, base64; written down so that another program can open it."""
    header, data_key, _ = sealed.new_header(KEY)
    magic, line, body, end = sealed.seal(CONTENT, header, data_key).split(b"\n")
    assert (magic, end) == (b"gemini-pool sealed 1", b"")
    slot = json.loads(line)["key"]
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    def raw(name):
        return base64.b64decode(slot[name])

    stretched = Scrypt(salt=raw("salt"), length=32, n=slot["n"], r=slot["r"], p=slot["p"]).derive(KEY)
    opened = AESGCM(stretched).decrypt(raw("nonce"), raw("wrapped"), b"")
    whole = base64.b64decode(body)
    assert AESGCM(opened).decrypt(whole[:12], whole[12:], magic + b"\n" + line + b"\n") == CONTENT


def test_the_cost_of_guessing(monkeypatch):
    """What is written by default: as much work as OWASP asks for (n = 2^15, r = 8, p = 3)."""
    monkeypatch.undo()
    header, data_key, _ = sealed.new_header(KEY)
    assert (header.key.n, header.key.r, header.key.p) == (32768, 8, 3)
    assert sealed.unlock(header, KEY) == data_key


def test_a_recovery_key_has_160_bits_and_no_letters_that_look_alike():
    """Eight groups of four out of 32 letters."""
    keys = {sealed.new_header(KEY)[2] for _ in range(5)}
    assert len(keys) == 5
    for key in keys:
        assert [len(group) for group in key.split("-")] == [4] * 8
        assert not set(key) & set("ILOU")
    assert len(set(sealed.ALPHABET)) == 32
    assert sealed.normal("oil") == b"011"


@pytest.mark.parametrize("recovery", [False, True])
def test_a_wrong_key_opens_nothing(recovery):
    """Neither the other slot's key nor a near miss."""
    header, _, printed = sealed.new_header(KEY)
    wrong = KEY if recovery else sealed.normal(printed)
    for key in (wrong, KEY + b"\n", b""):
        with pytest.raises(WrongKey):
            sealed.unlock(header, key, recovery=recovery)


def test_every_changed_byte_is_noticed():
    """Header, nonce, content: whatever is flipped, cut or appended, nothing is opened."""
    header, data_key, _ = sealed.new_header(KEY)
    text = sealed.seal(CONTENT, header, data_key)
    for index in range(len(text) - 1):  # the last line end is no part of it
        changed = bytearray(text)
        changed[index] ^= 1
        with pytest.raises(WrongKey):
            sealed.unseal(bytes(changed), data_key)
    for changed in (text[:-20], text[: len(sealed.MAGIC)], sealed.MAGIC, b"", text.replace(b"\n", b"")):
        with pytest.raises(WrongKey):
            sealed.unseal(changed, data_key)


@pytest.mark.parametrize("line", [b"", b"{}", b"[]", b"\xff", b'{"id": 1}'])
def test_what_only_looks_sealed(line):
    """A header that is none is no crash."""
    with pytest.raises(WrongKey):
        sealed.header_of(sealed.MAGIC + line + b"\n")


def test_a_header_cannot_make_us_take_gigabytes():
    """Costs beyond reason are refused before they are paid."""
    header, _, _ = sealed.new_header(KEY)
    slot = msgspec.structs.replace(header.key, n=1 << 40)
    with pytest.raises(WrongKey):
        sealed.unlock(msgspec.structs.replace(header, key=slot), KEY)


def test_the_same_content_is_never_sealed_the_same_way():
    """A nonce of its own for each writing."""
    header, data_key, _ = sealed.new_header(KEY)
    assert len({sealed.seal(CONTENT, header, data_key) for _ in range(50)}) == 50
