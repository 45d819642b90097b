"""[log] debug_file: opt-in, private, cut and masked."""

from __future__ import annotations

import stat
from pathlib import Path

from tests.fakes.daemon import DaemonProcess, api_key_account, fake_google

from gemini_poold.fake import World

TOKEN = "ya29" + ".fake-token-in-a-prompt"  # in two pieces: the tree holds nothing of a token's shape


def test_bodies_go_to_the_debug_file_alone(tmp_path: Path) -> None:
    """What is sent and answered is in the file, cut at 2,000 characters, without secrets; the log has none of it."""
    world = World()
    world.add_api_key("a")
    file = tmp_path / "bodies.log"
    with fake_google(world) as fake:
        config = f'[log]\nlevel = "debug"\ndebug_file = "{file}"\n'
        with DaemonProcess(tmp_path, fake=fake, accounts=api_key_account("a"), config=config) as daemon:
            with daemon.pool() as pool:
                pool.generate("gemini-2.5-flash", f"my secret plan, and {TOKEN}")
                pool.generate("gemini-2.5-flash", "x" * 5000)
                list(pool.stream("gemini-2.5-flash", "a streamed plan"))
            text = file.read_text(encoding="utf-8")
            assert "my secret plan" in text
            assert "a streamed plan" in text
            assert TOKEN not in text
            assert world.key("a").key not in text
            assert max(map(len, text.splitlines())) < 2200
            assert "my secret plan" not in daemon.log
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
