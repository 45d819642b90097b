"""`gemini-pool secrets` beside a running daemon: sealed, served, rotated, recovered; the passphrase from a command."""

from __future__ import annotations

import json

from tests.fakes.daemon import DaemonProcess, fake_google

from gemini_poold.fake import World

ACCOUNT = """
[[account]]
id = "user"
backend = "vertex"
project = "p"
credential = { type = "oauth", secret = { file = "secrets/user.json" } }
"""
SEAL = '\n[secrets]\nseal = { command = ["printf", "fake-passphrase"] }\n'


def secrets_in_the_open(daemon: DaemonProcess) -> list[str]:
    return sorted(
        path.name
        for path in daemon.state_dir.rglob("*")
        if path.is_file() and any(word in path.read_bytes() for word in (b"fake-refresh", b"fake-access"))
    )


def recovery_key(printed: str) -> str:
    return next(line.strip() for line in printed.splitlines() if line.startswith("    "))


def test_a_life_with_sealed_secrets(tmp_path):
    """From open to sealed under a running daemon, over a restart and rotations, and back with the recovery key."""
    world = World()
    client, user = world.add_client(), world.add_user("user", projects=["p"])
    with fake_google(world) as fake, DaemonProcess(tmp_path, fake=fake, accounts=ACCOUNT) as daemon:
        daemon.write_secret("user.json", json.dumps(world.authorized_user(user, client, rotates=True)))
        with daemon.pool() as pool:
            assert pool.verify("user").accounts[0].verdict.ok  # its secret came late
            assert pool.generate("gemini-2.5-flash", "hi", wait_s=10)
            refused = daemon.command("secrets", "seal")
            assert refused.returncode == 78, refused
            assert "[secrets]" in refused.stderr

            plain = daemon.config_file.read_text()
            daemon.config_file.write_text(plain + SEAL)
            assert pool.reload().config_changed == ["secrets.seal"]
            sealed = daemon.command("secrets", "seal")
            assert sealed.returncode == 0, sealed
            assert secrets_in_the_open(daemon) == []
            world.expire_tokens("user")  # the daemon finds out by a 401, and must rotate
            assert pool.generate("gemini-2.5-flash", "hi", wait_s=10)
        assert daemon.stop() == 0
        assert secrets_in_the_open(daemon) == []

        calls = fake.record.count("token")
        daemon.start()
        with daemon.pool() as pool:
            assert pool.generate("gemini-2.5-flash", "hi", wait_s=10)
        assert fake.record.count("token") == calls  # the sealed access token was still good
        told = json.loads(daemon.command("secrets", "status", "--json").stdout)
        assert told["sealing"] is True
        sealed_files = [file["path"] for file in told["files"] if file["state"] == "sealed"]
        assert str(daemon.state_dir / "secrets" / "user.json") in sealed_files
        status = daemon.command("secrets", "status")
        assert "key: command printf" in status.stdout
        assert "sealed" in status.stdout
        assert "\nopen" not in status.stdout
        daemon.stop()

        daemon.config_file.write_text(plain)  # the passphrase is lost
        daemon.start()
        with daemon.pool() as pool:
            (account,) = pool.status().accounts
            assert account.state in {"starting", "secret_missing"}
        wrong = daemon.command("secrets", "recover", stdin="ABCD-EFGH\n")
        assert wrong.returncode != 0
        back = daemon.command("secrets", "recover", stdin=recovery_key(sealed.stdout) + "\n")
        assert back.returncode == 0, back
        with daemon.pool() as pool:
            pool.reload()
            assert pool.generate("gemini-2.5-flash", "hi", wait_s=20)
        assert recovery_key(sealed.stdout) not in daemon.log
        assert "fake-passphrase" not in daemon.log
