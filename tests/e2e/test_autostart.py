"""A client that starts the daemon itself: only when asked to, and only where no service manager has it."""

import os
import signal

import pytest
from tests.fakes.daemon import DaemonProcess

from gemini_pool import AsyncPool, NotRunning, Pool


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Folders of a daemon that does not run; whatever is started there is ended."""
    daemon = DaemonProcess(tmp_path / "pool")
    for name, value in daemon.env.items():
        monkeypatch.setenv(name, value)
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    yield daemon
    try:
        with Pool(daemon.socket, connect_s=0) as pool:
            pid = pool.info().pid
    except NotRunning:
        return
    os.kill(pid, signal.SIGTERM)


# What a loaded machine takes to start Python is not what is tested here.
PATIENCE_S = 20.0


def test_nothing_is_started_unasked(site):
    """Opt-in: without it a client tells how to start the daemon."""
    with pytest.raises(NotRunning, match="gemini-pool run"):
        Pool(connect_s=0).info()


def test_autostart(site):
    """Asked to, the first call starts the daemon, which serves the next client, too, and is no child of ours."""
    with Pool(autostart=True, connect_s=PATIENCE_S) as pool:
        first = pool.info()
    assert first.socket == str(site.socket)
    with Pool(autostart=True) as pool:
        assert pool.info().pid == first.pid
    with pytest.raises(ChildProcessError):
        os.waitpid(first.pid, os.WNOHANG)


async def test_autostart_asyncio(site, monkeypatch):
    """The same with asyncio, asked for by the environment."""
    monkeypatch.setenv("GEMINI_POOL_AUTOSTART", "1")
    async with AsyncPool(connect_s=PATIENCE_S) as pool:
        assert (await pool.info()).socket == str(site.socket)


def test_a_service_managers_daemon_is_left_to_it(site, tmp_path):
    """Where the unit is installed, its service manager starts the daemon: a second one would be in its way."""
    unit = tmp_path / "home" / "systemd" / "user" / "gemini-pool.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("[Service]\n")
    with pytest.raises(NotRunning, match="systemctl --user start"):
        Pool(autostart=True, connect_s=0).info()
