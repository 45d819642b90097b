"""`gemini-pool logs`: where each manager keeps the log; a level changed at run time; the dump on SIGUSR1."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from tests.fakes.daemon import DaemonProcess

from gemini_pool import cli, logs
from gemini_pool.errors import PoolError


def test_where_the_log_is() -> None:
    """The journal's own words, launchd's file, or the truth that nobody keeps it."""
    journal = logs.command({}, lines=7, follow=True, manager="systemd")
    assert journal[0] == "journalctl" and "gemini-pool.service" in journal and "--follow" in journal
    fields = logs.command({}, lines=7, follow=False, manager="systemd", as_json=True)
    assert fields[-2:] == ["--output", "json"]
    with pytest.raises(PoolError, match="lines of text"):
        logs.command({"HOME": "/Users/me"}, lines=7, follow=False, manager="launchd", as_json=True)
    agent = logs.command({"HOME": "/Users/me"}, lines=7, follow=False, manager="launchd")
    assert agent == ["tail", "-n", "7", "/Users/me/Library/Logs/gemini-pool.log"]
    with pytest.raises(PoolError, match="nobody keeps"):
        logs.command({}, lines=7, follow=False, manager="none")


def test_level_and_dump_of_a_running_daemon(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Debug lines come once they are asked for, and no more when they are not; SIGUSR1 tells tasks and queues, by
    name and line, whatever the level, and the daemon goes on."""
    with DaemonProcess(tmp_path) as daemon:
        line = ["--socket", str(daemon.socket), "logs", "--level"]
        assert cli.main([*line, "error"]) == 0
        assert daemon.process is not None
        os.kill(daemon.process.pid, signal.SIGHUP)
        daemon.wait_logged("reload")  # which sets the configuration's level again
        assert cli.main([*line, "warning"]) == 0
        os.kill(daemon.process.pid, signal.SIGUSR1)
        log = daemon.wait_logged("Ticker.run")
        assert "queues: waiting 0, leases 0" in log
        assert " at " in log and "tasks: " in log
        with daemon.pool() as pool:
            assert pool.info().pid == daemon.process.pid
            with pytest.raises(PoolError):
                pool.call("daemon/logLevel", {"level": "loud"})
    assert "until it is reloaded" in capsys.readouterr().out
