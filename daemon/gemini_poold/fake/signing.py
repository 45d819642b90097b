"""RSA keys made at run time, and reading of the JWTs signed with them. No key is ever written down."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from .envelope import dumps, loads


class KeyPair:
    """One RSA key: its PEM goes into the credential file that the fake hands out, its public half verifies."""

    def __init__(self) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.public: rsa.RSAPublicKey = key.public_key()
        self.pem: str = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()


class JwtRefused(Exception):
    """The assertion is no JWT, is signed by nobody we know, or is out of its time; the message is Google's."""


def b64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unsigned(claims: dict[str, Any]) -> str:
    """An id_token to be read, not verified."""
    return f"{b64url(dumps({'alg': 'none'}))}.{b64url(dumps(claims))}.sig"


def peek(jwt: str) -> dict[str, Any]:
    """The claims, unverified."""
    try:
        claims = loads(_unb64(jwt.split(".")[1]))
    except (IndexError, ValueError, msgspec.DecodeError) as bad:
        raise JwtRefused("Invalid JWT: Failed parsing payload.") from bad
    if not isinstance(claims, dict):
        raise JwtRefused("Invalid JWT: Failed parsing payload.")
    return claims


def verify(jwt: str, key: rsa.RSAPublicKey, now: float) -> dict[str, Any]:
    """The claims of an RS256 token whose signature and times hold at `now` (five minutes of skew are forgiven)."""
    claims = peek(jwt)
    signed, _, signature = jwt.rpartition(".")
    try:
        if loads(_unb64(signed.split(".")[0])).get("alg") != "RS256":
            raise JwtRefused("Invalid JWT Signature.")
        key.verify(_unb64(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    except (InvalidSignature, ValueError, AttributeError, msgspec.DecodeError) as bad:
        raise JwtRefused("Invalid JWT Signature.") from bad
    issued, expires = claims.get("iat", 0), claims.get("exp", 0)
    if not (issued - 300 <= now <= expires + 300) or expires - issued > 3600 + 300:
        words = "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe."
        raise JwtRefused(f"{words} Check your iat and exp values in the JWT claim.")
    return claims


def _unb64(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error as bad:
        raise ValueError(str(bad)) from bad
