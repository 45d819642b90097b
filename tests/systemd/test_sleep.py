"""A daemon hears from logind that the machine woke up: over a real D-Bus, from a small program that plays logind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.fakes.daemon import PATIENCE_S, DaemonProcess, api_key_account, fake_google

from gemini_pool.wire import TokenInfo
from gemini_poold.fake import Fault, Match, World

pytest.importorskip("jeepney")
from jeepney import DBusAddress, new_signal  # noqa: E402
from jeepney.bus_messages import message_bus  # noqa: E402
from jeepney.io.blocking import DBusConnection, open_dbus_connection  # noqa: E402

LOGIND = "org.freedesktop.login1"
MODEL = "gemini-3.5-flash"
LOGIN = """
[[account]]
id = "work"
backend = "code-assist"
project = "p"
credential = { type = "oauth", secret = { file = "secrets/work.json" } }
"""


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[str]:
    """The address of a bus of one's own."""
    if not shutil.which("dbus-daemon"):
        if os.environ.get("GEMINI_POOL_REQUIRE_SYSTEMD"):
            pytest.fail("dbus-daemon is not installed")
        pytest.skip("dbus-daemon is not installed")
    address = f"unix:path={tmp_path / 'bus'}"
    line = ["dbus-daemon", "--session", "--nofork", "--nopidfile", f"--address={address}", "--print-address"]
    with subprocess.Popen(line, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # now it accepts
        yield address
        process.terminate()


class Logind:
    def __init__(self, address: str) -> None:
        self._connection: DBusConnection = open_dbus_connection(address)
        self._connection.send_and_get_reply(message_bus.RequestName(LOGIND))

    def prepare_for_sleep(self, *, about_to: bool) -> None:
        place = DBusAddress("/org/freedesktop/login1", LOGIND, "org.freedesktop.login1.Manager")
        self._connection.send(new_signal(place, "PrepareForSleep", "b", (about_to,)))

    def close(self) -> None:
        self._connection.close()


def until(what: str, holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def test_awake_again_what_failed_is_tried_at_once(bus: str, tmp_path: Path) -> None:
    """Asleep nothing is done. Awake, a renewal that waits out its failures is tried before it was planned, and no
    request goes over a connection of before."""
    world = World()
    user = world.add_user("ann", projects=["p"])
    login = json.dumps(world.authorized_user(user, world.add_client()))
    with fake_google(world) as google:
        key = api_key_account("key")
        world.add_api_key("key")
        down = google.faults.add(Fault.status(503), when=Match(kind="token"), times=None)
        environ = {"DBUS_SYSTEM_BUS_ADDRESS": bus}
        daemon = DaemonProcess(tmp_path, fake=google, accounts=key + LOGIN, env=environ)
        daemon.write_secret("work.json", login)
        logind = Logind(bus)
        with daemon, daemon.pool() as pool, contextlib.closing(logind):

            def token() -> TokenInfo:
                return next(one.token for one in pool.status().accounts if one.id == "work")

            pool.generate(MODEL, "hello")
            until("the renewal failed a few times", lambda: token().failures >= 4)
            logind.prepare_for_sleep(about_to=True)
            daemon.wait_logged("the machine goes to sleep")
            planned = token()
            assert planned.renew_at is not None and planned.renewals == 0
            before = google.record.connections()
            google.faults.remove(down)
            logind.prepare_for_sleep(about_to=False)
            daemon.wait_logged("the machine woke up")
            until("the token is there", lambda: token().renewals > 0)
            renewed = token().renewed_at
            assert renewed is not None and renewed < planned.renew_at
            calls = len(google.record.calls)
            pool.generate(MODEL, "hello again")
            assert {call.connection for call in list(google.record.calls)[calls:]}.isdisjoint(before)
