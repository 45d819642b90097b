"""Secrets in a keyring, for real: the `keyring` package with a backend of its own, and the real daemon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.fakes.daemon import PATIENCE_S, DaemonProcess, fake_google

from gemini_poold.fake import World

MODEL = "gemini-2.5-flash"
ACCOUNTS = """
[[account]]
id = "key"
backend = "developer-api"
credential = { type = "api-key", secret = { keyring = "gemini-pool/key" } }

[[account]]
id = "user"
backend = "code-assist"
credential = { type = "oauth", secret = { keyring = "gemini-pool/user" } }
"""


def in_keyring(env: dict[str, str], name: str, text: str | None = None) -> str:
    """Set (or read) an entry from another process, as a person would."""
    code = (
        "import keyring, sys; text = sys.stdin.read()\n"
        "if text: keyring.set_password('gemini-pool', sys.argv[1], text)\n"
        "print(keyring.get_password('gemini-pool', sys.argv[1]) or '')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, name], env=env, input=text or "", text=True, capture_output=True,
        timeout=PATIENCE_S, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def test_a_round_trip_through_a_keyring(tmp_path: Path) -> None:
    """A key and a login are read from the keyring; a rotated refresh token is written back there, and nowhere else."""
    keyring = {
        "PYTHON_KEYRING_BACKEND": "keyrings.alt.file.PlaintextKeyring",
        "XDG_DATA_HOME": str(tmp_path / "data"),
    }
    world = World()
    world.add_api_key("key")
    user = world.add_user("user", projects=["proj"])
    with fake_google(world) as fake:
        daemon = DaemonProcess(tmp_path, fake=fake, accounts=ACCOUNTS, env=keyring)
        login = world.authorized_user(user, world.add_client(), rotates=True)
        env = {**os.environ, **keyring}
        in_keyring(env, "key", world.key("key").key)
        in_keyring(env, "user", json.dumps(login))
        with daemon, daemon.pool() as pool:
            for account in ("key", "user"):
                assert pool.generate(MODEL, "hi", account=account, wait_s=PATIENCE_S)
        kept = json.loads(in_keyring(env, "user"))["refresh_token"]
        assert kept != login["refresh_token"]
        assert world.grants[kept].trouble == ""
        assert not list((daemon.state_dir / "secrets").iterdir())
