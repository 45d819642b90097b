"""The real daemon with one account, in front of a fake Google."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.editors.staging import visit
from tests.fakes.daemon import DaemonProcess, api_key_account, fake_google

from gemini_pool.wire import LoginParams
from gemini_poold.fake import FakeGoogle, World


@pytest.fixture
def google() -> Iterator[FakeGoogle]:
    world = World()
    world.add_api_key("a")
    world.add_user("ann", projects=["proj"])
    world.add_client()
    with fake_google(world) as fake:
        yield fake


@pytest.fixture
def daemon(google: FakeGoogle, tmp_path: Path) -> Iterator[DaemonProcess]:
    with DaemonProcess(tmp_path, fake=google, accounts=api_key_account("a")) as running:
        yield running


@pytest.fixture
def ann(daemon: DaemonProcess, google: FakeGoogle) -> str:
    """An account that was logged in once, so that an editor may log it in again."""
    client = google.world.client_file(next(iter(google.world.clients.values())))
    with daemon.pool() as pool:
        flow = pool.login(LoginParams("ann", client_secrets=client))
        visit(flow.url)
        assert pool.login_finish(flow.login).verdict.ok
    return "ann"
