"""The real daemon with one account, in front of a fake Google."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes.daemon import DaemonProcess, api_key_account, fake_google

from gemini_poold.fake import World


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[DaemonProcess]:
    world = World()
    world.add_api_key("a")
    with (
        fake_google(world) as fake,
        DaemonProcess(tmp_path, fake=fake, accounts=api_key_account("a")) as running,
    ):
        yield running
