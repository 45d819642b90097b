"""Other programs' files as those programs write them, composed here; and a desk with import and export on it."""

from __future__ import annotations

import json
import os
import pwd
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from tests.login.rig import Desk, desk_of

from gemini_pool import wire
from gemini_poold.fake import World
from gemini_poold.transfer.archive import Archive
from gemini_poold.transfer.exporter import Exporter
from gemini_poold.transfer.importer import Importer

CLI_CLIENT = "123456789-fakefakefake.apps.googleusercontent.com"


class Office:
    """A desk, the home folder of its person, and the import and export verbs."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.home = desk.folder / "home"
        self.home.mkdir(exist_ok=True)
        self.importer = Importer(
            desk.keeper, lambda: {m.id: m.sub for m in desk.pool.members.values() if m.sub}
        )
        self.exporter = Exporter(desk.keeper, desk.pool.project_of)
        self.archive = Archive(desk.keeper)

    @property
    def world(self) -> World:
        return self.desk.fake.world

    def cli_client(self) -> Any:
        """Gemini CLI's OAuth client, and its installation on the PATH."""
        if CLI_CLIENT in self.world.clients:
            return self.world.clients[CLI_CLIENT]
        client = self.world.add_client("cli")
        del self.world.clients[client.id]
        client.id = CLI_CLIENT
        self.world.clients[client.id] = client
        root = self.desk.folder / "npm" / "lib" / "node_modules" / "@google" / "gemini-cli"
        (root / "bundle").mkdir(parents=True)
        (root / "package.json").write_text(json.dumps({"name": "@google/gemini-cli"}), encoding="utf-8")
        text = f'var OAUTH_CLIENT_ID = "{client.id}"; var OAUTH_CLIENT_SECRET = "{client.secret}";'
        (root / "bundle" / "gemini.js").write_text(text, encoding="utf-8")
        self.desk.environ["npm_config_prefix"] = str(self.desk.folder / "npm")
        return client

    def grant(self, name: str = "ann", **more: Any) -> Any:
        """A login of a person's made in Gemini CLI."""
        user = self.world.users.get(name) or self.world.add_user(name, projects=["shop"])
        return self.world.login(user, self.cli_client(), **more)

    async def run(self, source: str, *, accept: bool = True, **more: Any) -> wire.ImportResult:
        more |= {"accept_terms_risk": "foreign-client-1"} if accept else {}
        return await self.importer.run(wire.ImportParams(source, **more))  # type: ignore[arg-type]

    def put(self, path: str, content: Any, mode: int = 0o600) -> Path:
        """A file in the person's home."""
        file = self.home / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        file.chmod(mode)
        return file

    def seen(self) -> dict[str, tuple[bytes, int, int, int]]:
        """The home folder as it is, to be compared: content, mode, time of change, inode."""
        return {
            str(path): (path.read_bytes(), path.stat().st_mode, path.stat().st_mtime_ns, path.stat().st_ino)
            for path in self.home.rglob("*")
            if path.is_file()
        }


@asynccontextmanager
async def office_of(folder: Path, world: World | None = None) -> AsyncIterator[Office]:
    if world is None:
        world = World()
        world.add_user("ann", projects=["shop"])
    async with desk_of(folder, world, environ={"PATH": "/usr/bin:/bin"}) as desk:
        yield Office(desk)


# ---- as other programs write ------------------------------------------------------------------------------------


def oauth_creds(refresh: str) -> dict[str, Any]:
    """Gemini CLI's plain file."""
    return {
        "access_token": "fake-access-old",
        "refresh_token": refresh,
        "scope": "https://www.googleapis.com/auth/cloud-platform openid",
        "token_type": "Bearer",
        "id_token": "e30.e30.sig",
        "expiry_date": 1_795_000_000_000,
    }


def stored(refresh: str) -> dict[str, Any]:
    """The value that Gemini CLI keeps in its stores and in the keychain."""
    token = {"accessToken": "fake-access-old", "refreshToken": refresh, "tokenType": "Bearer", "expiresAt": 1}
    return {"serverName": "main-account", "token": token, "updatedAt": 1}


def encrypted(plain: Any, *, host: str = "", user: str = "") -> str:
    """Gemini CLI's encrypted store: Node's scryptSync with its defaults, AES-256-GCM, sixteen bytes of nonce."""
    host = host or socket.gethostname()
    user = user or pwd.getpwuid(os.getuid()).pw_name
    kdf = Scrypt(salt=f"{host}-{user}-gemini-cli".encode(), length=32, n=16384, r=8, p=1)
    key, nonce = kdf.derive(b"gemini-cli-oauth"), secrets.token_bytes(16)
    encryptor = Cipher(algorithms.AES(key), modes.GCM(nonce)).encryptor()
    body = encryptor.update(json.dumps(plain).encode()) + encryptor.finalize()
    return f"{nonce.hex()}:{encryptor.tag.hex()}:{body.hex()}"
