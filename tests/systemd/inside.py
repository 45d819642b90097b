"""Inside the private user session: a home with the shipped units, a fake Google, and words for what tests do there.

Run as an ordinary user by `scenarios.py`. It speaks to the daemon over bare sockets, as any stranger would.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gemini_poold.fake import FakeGoogle, World

ROOT = Path(__file__).resolve().parent.parent.parent
UNITS = ROOT / "packaging" / "systemd"
SERVICE, SOCKET = "gemini-pool.service", "gemini-pool.socket"
HOME = Path(os.environ["HOME"])
RUNTIME = Path(os.environ["XDG_RUNTIME_DIR"])
CONFIG = HOME / ".config" / "gemini-pool"
STATE = HOME / ".local" / "state" / "gemini-pool"
USER_UNITS = HOME / ".config" / "systemd" / "user"
POOL_SOCK = RUNTIME / "gemini-pool" / "pool.sock"
GATEWAY_SOCK = RUNTIME / "gemini-pool" / "gateway.sock"
MODEL = "gemini-3.5-flash"
PATIENCE_S = 20.0


# ---- the manager ----------------------------------------------------------------------------------------------


def systemctl(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(["systemctl", "--user", *words], capture_output=True, text=True, timeout=60)
    if check and done.returncode:
        raise AssertionError(f"systemctl {' '.join(words)}: {done.stderr}\n{journal_text()[-3000:]}")
    return done


def show(unit: str, *names: str) -> dict[str, str]:
    """Properties of a unit, as systemd prints them."""
    text = systemctl("show", "--property", ",".join(names), unit).stdout
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def state(unit: str = SERVICE) -> str:
    return show(unit, "ActiveState")["ActiveState"]


def main_pid() -> int:
    return int(show(SERVICE, "MainPID")["MainPID"])


def journal() -> list[dict[str, Any]]:
    """Every entry of the service with all of its fields, from the daemon and from systemd about it."""
    subprocess.run(["journalctl", "--user", "--sync"], capture_output=True)
    line = ["journalctl", "--user", "--unit", SERVICE, "--output", "json", "--all", "--no-pager", "--quiet"]
    text = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    return [json.loads(entry) for entry in text.splitlines()]


def journal_text() -> str:
    return "\n".join(str(entry.get("MESSAGE", "")) for entry in journal())


def wait_for(what: str, holds: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
    """What `holds()` returns once it is true; an AssertionError that names `what` after `patience_s`."""
    end = time.monotonic() + patience_s
    while True:
        if found := holds():
            return found
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {patience_s} s\n{journal_text()[-3000:]}")
        time.sleep(0.02)


def install(*, with_socket: bool = True, drop_in: str = "") -> None:
    """Lay the shipped units and the command where a user would have them, and let the manager read them."""
    command = HOME / ".local" / "bin" / "gemini-pool"
    command.parent.mkdir(parents=True, exist_ok=True)
    words = shlex.join(
        [sys.executable, "-c", "import sys; from gemini_pool.cli import main; sys.exit(main())"]
    )
    source = os.environ.get("PYTHONPATH", "")  # set only where the project is not installed
    export = f"export PYTHONPATH={shlex.quote(source)}\n" if source else ""
    command.write_text(f'#!/bin/sh\n{export}exec {words} "$@"\n')
    command.chmod(0o755)
    USER_UNITS.mkdir(parents=True, exist_ok=True)
    for name in (SERVICE, SOCKET) if with_socket else (SERVICE,):
        (USER_UNITS / name).write_bytes((UNITS / name).read_bytes())
    if drop_in:
        folder = USER_UNITS / f"{SERVICE}.d"
        folder.mkdir(exist_ok=True)
        (folder / "test.conf").write_text(drop_in)
    systemctl("daemon-reload")


# ---- the fake Google ------------------------------------------------------------------------------------------


class Google:
    """The fake in a thread with a loop of its own, since everything else here waits for the manager."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.fake = FakeGoogle(world)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Google:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.fake.start(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self.fake.stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def secrets(self) -> list[str]:
        """Every secret that this Google has given out."""
        world = self.world
        found = [*world.keys, *world.grants, *world.tokens]
        found += [client.secret for client in world.clients.values()]
        for account in world.service_accounts.values():
            if account.key is not None:
                found += [line for line in account.key.pem.splitlines() if len(line) > 40]
        return found


# ---- the user's files -----------------------------------------------------------------------------------------


def private(path: Path, text: str) -> None:
    """A secret, as README says to write one: `umask 077` for its folders and itself."""
    before = os.umask(0o077)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.umask(before)


def save(path: Path, text: str) -> None:
    """As an editor does: another file, then renamed over the old one."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    new.replace(path)


def write_config(google: Google, extra: str = "") -> None:
    lines = ['gateway = { listen = "127.0.0.1:0" }', 'log = { level = "debug" }', "[endpoints]"]
    lines += [f"{name} = {json.dumps(url)}" for name, url in google.fake.endpoints().items()]
    save(CONFIG / "config.toml", "\n".join([*lines, extra, ""]))


def key_account(google: Google, name: str, **settings: Any) -> str:
    """An API key of the fake, its secret file, and the account's entry."""
    key = google.world.add_api_key(name, **settings)
    private(STATE / "secrets" / name, key.key + "\n")
    return f"""
[[account]]
id = "{name}"
backend = "developer-api"
credential = {{ type = "api-key", secret = {{ file = "secrets/{name}" }} }}
quota_group = "{key.project}"
"""


def login_account(google: Google, name: str) -> str:
    """A Code Assist login of the fake, its secret file, and the account's entry."""
    user = google.world.add_user(name, projects=[f"{name}-project"])
    text = json.dumps(google.world.authorized_user(user, google.world.add_client(name)))
    private(STATE / "secrets" / f"{name}.json", text)
    return f"""
[[account]]
id = "{name}"
backend = "code-assist"
credential = {{ type = "oauth", secret = {{ file = "secrets/{name}.json" }} }}
project = "{name}-project"
"""


def service_account(google: Google, name: str) -> str:
    """A Vertex service account of the fake, its credential file, and the account's entry."""
    text = json.dumps(google.world.add_service_account(name, project=f"{name}-project"))
    private(STATE / "secrets" / f"{name}.json", text)
    return f"""
[[account]]
id = "{name}"
backend = "vertex"
credential = {{ type = "service-account", secret = {{ file = "secrets/{name}.json" }} }}
project = "{name}-project"
"""


def write_accounts(*entries: str) -> None:
    save(CONFIG / "accounts.toml", "".join(entries))


# ---- the daemon, as a stranger sees it ------------------------------------------------------------------------


def connect(path: Path = POOL_SOCK) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(PATIENCE_S)
    try:
        sock.connect(str(path))
    except BaseException:
        sock.close()
        raise
    return sock


def accepts(path: Path = POOL_SOCK) -> bool:
    try:
        connect(path).close()
    except OSError:
        return False
    return True


def messages(sock: socket.socket) -> Iterator[dict[str, Any]]:
    """What comes in, a line each, until the other end closes."""
    with sock.makefile("rb") as lines:
        for line in lines:
            yield json.loads(line)


def call(method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
    """One request on a connection of its own: the whole reply, with `result` or `error`."""
    with connect() as sock:
        sock.sendall(
            json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}}).encode() + b"\n"
        )
        for message in messages(sock):
            if message.get("id") == 1 or "error" in message:
                return message
    raise ConnectionError("closed without an answer")


def ask(prompt: str, **params: Any) -> dict[str, Any]:
    request = {"contents": [{"role": "user", "parts": [{"text": prompt}]}]}
    return call("pool/generate", {"model": MODEL, "request": request, **params})


def status() -> dict[str, Any]:
    result: dict[str, Any] = call("pool/status")["result"]
    return result


def account(name: str, seen: dict[str, Any] | None = None) -> dict[str, Any]:
    seen = status() if seen is None else seen
    found: dict[str, Any] = next(one for one in seen["accounts"] if one["id"] == name)
    return found


def http(path: str, sock_path: Path = GATEWAY_SOCK) -> tuple[int, str]:
    """GET over the gateway's Unix socket: status and body."""
    with connect(sock_path) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while block := sock.recv(65536):
            answer += block
    head, _, body = answer.decode().partition("\r\n\r\n")
    return int(head.split()[1]), body


def mode(path: Path) -> str:
    return f"{path.stat().st_mode & 0o7777:04o}"


def proc_status(pid: int) -> dict[str, str]:
    """Fields of /proc/PID/status that say how a process is confined."""
    text = Path(f"/proc/{pid}/status").read_text()
    return dict(re.findall(r"^(NoNewPrivs|Seccomp|Uid|Umask):\s*(.*)$", text, re.M))


@contextlib.contextmanager
def hammered(path: Path = POOL_SOCK) -> Iterator[list[str]]:
    """Connect and ask without a pause while the block runs; the list gathers what went wrong, "" for each success."""
    outcomes: list[str] = []
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            try:
                outcomes.append("" if "result" in call("daemon/info") else "error")
            except ConnectionRefusedError:
                outcomes.append("refused")
            except FileNotFoundError:
                outcomes.append("no socket")
            except (ConnectionError, json.JSONDecodeError):
                outcomes.append("closed")  # it was accepted before the stop: the client asks again
            time.sleep(0.003)

    threads = [threading.Thread(target=run, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield outcomes
    finally:
        stop.set()
        for thread in threads:
            thread.join(PATIENCE_S)


def run(scenarios: dict[str, Callable[[Google], dict[str, Any]]]) -> None:
    """The scenario that the command line names; prints what it saw."""
    with Google(World()) as google:
        try:
            found = scenarios[sys.argv[1]](google)
        except AssertionError as error:
            found = {"failed": str(error)}
        except Exception as error:
            found = {"failed": f"{error!r}\n{journal_text()[-4000:]}"}
    print("RESULT " + json.dumps(found))
