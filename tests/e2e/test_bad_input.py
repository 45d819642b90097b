"""Whatever comes in: a clear error that names the place and the remedy, nothing lost, nobody else disturbed."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes.daemon import PATIENCE_S, DaemonProcess, api_key_account, fake_google

from gemini_pool.errors import PoolError
from gemini_poold.fake import FakeGoogle, World

PROMPT = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}
MODEL = "gemini-2.5-flash"


@pytest.fixture
def fake() -> Iterator[FakeGoogle]:
    world = World()
    for name in ("a", "b"):
        world.add_api_key(name)
    with fake_google(world) as google:
        yield google


@pytest.fixture
def daemon(tmp_path: Path, fake: FakeGoogle) -> Iterator[DaemonProcess]:
    with DaemonProcess(tmp_path, fake=fake, accounts=api_key_account("a")) as process:
        yield process


def still_serves(daemon: DaemonProcess) -> None:
    with daemon.pool() as pool:
        assert pool.generate(MODEL, PROMPT)["candidates"]


def ends_with(daemon: DaemonProcess, code: int) -> str:
    """Start a daemon that must not come up; what it said."""
    daemon.start(ready=False)
    assert daemon.process is not None
    assert daemon.process.wait(PATIENCE_S) == code
    return daemon.log


# ---- files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"[gateway]\nlisten = ", ["config.toml:2", "TOML"]),
        (b'[gateway]\nlisten = "127.0.0.1:99999"\n', ["config.toml:2", "listen"]),
        (b"[gateway]\n\nport = 1\n", ["config.toml:3", "port"]),
        (b'[selection]\nstrategy = "luck"\n', ["config.toml:2", "strategy"]),
        (b'[log]\nlevel = "\xff"\n', ["config.toml", "UTF-8"]),
    ],
)
def test_a_bad_configuration_ends_with_78(tmp_path: Path, text: bytes, says: list[str]) -> None:
    """At start a configuration that cannot be taken is exit 78, with file, line and key."""
    daemon = DaemonProcess(tmp_path)
    daemon.config_file.write_bytes(text)
    said = ends_with(daemon, 78)
    for words in says:
        assert words.lower() in said.lower()


def test_a_configuration_others_can_write_is_refused(tmp_path: Path) -> None:
    """Who can write the configuration can send the secrets elsewhere: refused, with the command that mends it."""
    daemon = DaemonProcess(tmp_path)
    daemon.config_file.chmod(0o666)
    assert f"chmod go-w {daemon.config_file}" in ends_with(daemon, 78)


def test_an_open_state_folder_is_refused(tmp_path: Path) -> None:
    """The folder of the secrets must be ours alone; the error has the command that mends it."""
    daemon = DaemonProcess(tmp_path)
    daemon.state_dir.chmod(0o755)
    said = ends_with(daemon, 78)
    assert f"chmod 700 {daemon.state_dir}" in said
    daemon.state_dir.chmod(0o700)
    daemon.start()
    assert daemon.stop() == 0


def test_a_secret_others_can_read_is_refused(tmp_path: Path, fake: FakeGoogle) -> None:
    """A secret with mode 0644 keeps its account out, says how to mend it, and the mend works; others serve on."""
    account = api_key_account("a").replace('{ env = "KEY_A" }', '{ file = "secrets/a.key" }')
    daemon = DaemonProcess(tmp_path, fake=fake, accounts=account + api_key_account("b"))
    path = daemon.write_secret("a.key", "fake-key-a\n", mode=0o644)
    with daemon, daemon.pool() as pool:
        bad = pool.status().accounts[0]
        assert (bad.state, bad.available) == ("secret_missing", False)
        assert f"chmod 600 {path}" in bad.hint
        still_serves(daemon)
        path.chmod(0o600)
        pool.reload()
        assert pool.generate(MODEL, PROMPT, account="a")


def test_a_secret_that_is_a_link_is_refused(tmp_path: Path, fake: FakeGoogle) -> None:
    """A symbolic link could point anywhere: not followed."""
    account = api_key_account("a").replace('{ env = "KEY_A" }', '{ file = "secrets/a.key" }')
    daemon = DaemonProcess(tmp_path, fake=fake, accounts=account)
    real = daemon.write_secret("real.key", "fake-key-a\n")
    (daemon.state_dir / "secrets" / "a.key").symlink_to(real)
    with daemon, daemon.pool() as pool:
        assert "symbolic link" in pool.status().accounts[0].reason


def test_a_missing_variable_names_itself(tmp_path: Path, fake: FakeGoogle) -> None:
    """An environment variable that is not set keeps its account out and says which one it is."""
    daemon = DaemonProcess(tmp_path, fake=fake, accounts=api_key_account("absent") + api_key_account("b"))
    with daemon, daemon.pool() as pool:
        absent = pool.status().accounts[0]
        assert absent.state == "secret_missing"
        assert "KEY_ABSENT" in absent.reason + absent.hint
        with pytest.raises(PoolError, match="KEY_ABSENT"):
            pool.generate(MODEL, PROMPT, account="absent", wait_s=0)
        still_serves(daemon)


def test_a_damaged_database_is_set_aside(daemon: DaemonProcess) -> None:
    """A state file that is no database is kept under another name; the daemon starts afresh and says so."""
    daemon.stop()
    database = daemon.state_dir / "state.db"
    for extra in daemon.state_dir.glob("state.db-*"):
        extra.unlink()
    database.write_bytes(b"this is no database" * 1000)
    daemon.start()
    still_serves(daemon)
    (aside,) = daemon.state_dir.glob("state.db.damaged-*")
    assert aside.read_bytes().startswith(b"this is no database")
    assert aside.name in daemon.log


# ---- sockets ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="a limit for another process is Linux's")
def test_a_disk_that_takes_nothing(daemon: DaemonProcess) -> None:
    """What must be durable is refused, everything else goes on; status and log say why, once; room mends it."""
    assert daemon.process is not None
    limit = lambda size: resource.prlimit(  # noqa: E731
        daemon.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY)
    )
    with daemon.pool() as pool:
        limit(8192)  # less than the database has already, more than the log
        for _ in range(2):
            with pytest.raises(PoolError, match=r"state\.db cannot be written") as caught:
                pool.pause("a")
            assert caught.value.retryable
        (error,) = pool.status().config_errors
        assert error.file == str(daemon.state_dir / "state.db")
        assert error.message.startswith("cannot be written") and error.hint
        assert "state.db: cannot be written" in daemon.command("status").stdout
        limit(resource.RLIM_INFINITY)
        pool.resume("a")
        assert pool.status().config_errors == []
        assert pool.generate(MODEL, PROMPT)["candidates"]
    assert daemon.log.count("what is new is kept in memory") == 1
    assert "state.db is written again" in daemon.log


def test_a_second_daemon_is_refused(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Two daemons on one socket: the second ends with a clear word about the first, which goes on undisturbed."""
    second = DaemonProcess(tmp_path / "second")
    second.env["GEMINI_POOL_SOCKET"] = str(daemon.socket)
    assert daemon.process is not None
    said = ends_with(second, 1)
    assert str(daemon.process.pid) in said
    assert "systemctl --user stop gemini-pool" in said
    still_serves(daemon)


def test_a_second_daemon_on_the_same_state_is_refused(daemon: DaemonProcess, tmp_path: Path) -> None:
    """A session with another runtime folder (cron, su) has another socket, and still the same state: one owner. What
    held it is free with the end of its process, however that ended."""
    second = DaemonProcess(tmp_path / "second")
    second.env["GEMINI_POOL_STATE_DIR"] = str(daemon.state_dir)
    said = ends_with(second, 1)
    assert f"another daemon uses {daemon.state_dir}" in said
    with daemon.pool() as pool:
        assert pool.info().pid == daemon.process.pid  # type: ignore[union-attr]
    daemon.kill()
    with second:
        pass


def test_a_stale_socket_of_a_killed_daemon_is_taken_over(daemon: DaemonProcess) -> None:
    """After kill -9 the socket's file is still there; the next daemon replaces it."""
    daemon.kill()
    assert daemon.socket.exists()
    daemon.start()
    still_serves(daemon)
    assert daemon.stop() == 0
    assert not daemon.socket.exists()


def test_a_taken_port_degrades_the_gateway_alone(tmp_path: Path, fake: FakeGoogle) -> None:
    """A loopback port in use: everything else works, status and log say what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = f'[gateway]\nlisten = "127.0.0.1:{port}"\n'
        with DaemonProcess(tmp_path, fake=fake, accounts=api_key_account("a"), config=config) as daemon:
            still_serves(daemon)
            with daemon.pool() as pool:
                status, info = pool.status(), pool.info()
            assert str(port) in status.gateway_error
            assert status.gateway_url == ""
            assert Path(info.gateway_socket).exists()
            assert "listen" in daemon.log


def test_sockets_and_secrets_are_private(daemon: DaemonProcess) -> None:
    """Folders 0700; sockets, database and keys 0600."""
    with daemon.pool() as pool:
        info = pool.info()
    for path in (daemon.socket, Path(info.gateway_socket), *daemon.state_dir.rglob("*")):
        mode = stat.S_IMODE(path.lstat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


# ---- frames -----------------------------------------------------------------------------------------------------


def exchange(daemon: DaemonProcess, data: bytes) -> tuple[dict, bool]:
    """Send bytes; the first reply, and whether the daemon then closed the connection."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE_S)
        sock.connect(str(daemon.socket))
        with contextlib.suppress(
            BrokenPipeError, ConnectionResetError
        ):  # it may hang up before it took all of it
            sock.sendall(data)
        received = b""
        while True:
            chunk = sock.recv(65536)
            received += chunk
            body = received.partition(b"\r\n\r\n")[2] if received.startswith(b"C") else received
            try:
                reply = json.loads(body)
                break
            except ValueError:
                assert chunk, received
        sock.settimeout(0.3)
        try:
            closed = sock.recv(1) == b""
        except (TimeoutError, ConnectionResetError) as error:
            closed = isinstance(error, ConnectionResetError)
        return reply, closed


def framed(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


@pytest.mark.parametrize(
    ("data", "code", "closes"),
    [
        (b'{"jsonrpc":"2.0","id":1,"method":"pool/status","params":{},}\n', -32700, True),
        (framed(b"this is no JSON"), -32700, True),
        (b"Content-Length: many\r\n\r\n{}", -32700, True),
        (b"Content-Length: -1\r\n\r\n{}", -32700, True),
        (b"Content-Type: text/plain\r\n\r\n{}", -32700, True),
        (b"Content-Length: 68157440\r\n\r\n{", -32600, True),
        (b"Cookie: " + b"x" * 5000, -32600, True),
        (framed(b'[{"jsonrpc":"2.0","id":1,"method":"pool/status"}]'), -32600, False),
        (framed(b'{"jsonrpc":"2.0","id":1,"method":"pool/frobnicate"}'), -32601, False),
        (framed(b'{"jsonrpc":"2.0","id":1,"method":"pool/acquire","params":{"model":7}}'), -32602, False),
        (framed(b'{"jsonrpc":"2.0","id":1,"method":"pool/acquire"}'), -32602, False),
        (
            framed(b'{"jsonrpc":"2.0","id":1,"method":"pool/acquire","params":{"model":"\xff"}}'),
            -32700,
            True,
        ),
        (framed(b'{"jsonrpc":"2.0","id":1,"method":"pool/\xff"}'), -32700, True),
        (framed(b'{"jsonrpc":"2.0","id":"\xff","method":7}'), -32700, True),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", -32700, True),
    ],
    ids=lambda value: value[:30].decode(errors="replace") if isinstance(value, bytes) else None,
)
def test_bad_frames(daemon: DaemonProcess, data: bytes, code: int, closes: bool) -> None:
    """A malformed frame gets its error and ends its connection; a well-formed message that asks nonsense does not."""
    reply, closed = exchange(daemon, data)
    assert reply["error"]["code"] == code, reply
    assert reply["error"]["message"]
    assert closed is closes
    still_serves(daemon)


def test_a_65_mib_frame(daemon: DaemonProcess) -> None:
    """A frame above 64 MiB is refused with the way around, and does not grow the daemon."""
    reply, closed = exchange(
        daemon, framed(b'{"id":1,"method":"pool/generate","params":"' + b"x" * (65 << 20) + b'"}')
    )
    assert reply["error"]["code"] == -32600
    assert reply["id"] is None
    assert "64 MiB" in reply["error"]["message"]
    assert "gateway" in reply["error"]["message"]
    assert closed
    assert daemon.process is not None
    rss_kib = next(
        int(line.split()[1])
        for line in Path(f"/proc/{daemon.process.pid}/status").read_text().splitlines()
        if line.startswith("VmHWM")
    )
    assert rss_kib < 160 * 1024
    still_serves(daemon)


def test_wrong_types_name_the_field(daemon: DaemonProcess) -> None:
    """The error of wrong parameters says which field and what was expected."""
    reply, _ = exchange(
        daemon, framed(b'{"id":"x","method":"pool/acquire","params":{"model":"m","wait_s":"soon"}}')
    )
    assert reply["id"] == "x"
    assert "wait_s" in reply["error"]["message"]


# ---- others who misbehave ---------------------------------------------------------------------------------------


def test_a_client_that_vanishes_in_mid_stream(daemon: DaemonProcess, fake: FakeGoogle) -> None:
    """A killed client's generation ends upstream, its lease is freed, and others notice nothing."""
    fake.world.models[MODEL].pace_s = 0.2
    fake.world.models[MODEL].chunks = 100
    vanished = socket.socket(socket.AF_UNIX)
    vanished.connect(str(daemon.socket))
    call = {"id": 1, "method": "pool/generate", "params": {
        "model": MODEL, "method": "streamGenerateContent", "token": "t", "request": PROMPT}}  # fmt: skip
    vanished.sendall(json.dumps(call).encode() + b"\n")
    assert b"$/progress" in vanished.recv(65536)
    vanished.close()
    with daemon.pool() as pool:
        until = time.monotonic() + PATIENCE_S
        while pool.status().leases and time.monotonic() < until:
            time.sleep(0.02)
        assert not pool.status().leases
        assert pool.status().counters.failed == 0
        fake.world.models[MODEL].pace_s = 0.0
        still_serves(daemon)


def test_an_upstream_that_is_down_at_start(tmp_path: Path, fake: FakeGoogle) -> None:
    """The daemon is ready without Google; requests fail with words, and work as soon as Google is back."""
    fake.on_loop(fake.down())
    user = fake.world.add_user("user", projects=["proj"])
    account = (
        '[[account]]\nid = "user"\nbackend = "code-assist"\n'
        'credential = { type = "oauth", secret = { file = "secrets/user.json" } }\n'
    )
    daemon = DaemonProcess(tmp_path, fake=fake, accounts=account)
    daemon.write_secret("user.json", json.dumps(fake.world.authorized_user(user, fake.world.add_client())))
    with daemon, daemon.pool() as pool:
        assert pool.status().accounts[0].state in ("starting", "offline")
        with pytest.raises(PoolError) as caught:
            pool.generate(MODEL, PROMPT, wait_s=0)
        assert caught.value.code == "all_cooling_down"
        assert caught.value.retry_at is not None
        fake.on_loop(fake.up())
        assert pool.generate(MODEL, PROMPT, wait_s=PATIENCE_S)


def test_sighup_and_sigterm_in_the_middle_of_work(daemon: DaemonProcess, fake: FakeGoogle) -> None:
    """SIGHUP reloads; SIGTERM lets a running stream finish before the daemon ends with 0."""
    fake.world.models[MODEL].pace_s = 0.1
    chunks: list[object] = []
    with daemon.pool() as pool, pool.stream(MODEL, PROMPT) as stream:
        chunks.append(next(stream))
        assert daemon.process is not None
        os.kill(daemon.process.pid, signal.SIGHUP)
        os.kill(daemon.process.pid, signal.SIGTERM)
        reader = threading.Thread(target=lambda: chunks.extend(stream))
        reader.start()
        reader.join(PATIENCE_S)
    assert daemon.process.wait(PATIENCE_S) == 0
    assert chunks[-1]["candidates"][0]["finishReason"] == "STOP"
    assert "reloaded" in daemon.log
