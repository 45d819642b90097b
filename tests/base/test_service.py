"""What the service manager hears and hands over: notifications, watchdog, inherited sockets, hardening."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes.clock import ManualClock

from gemini_pool.errors import PoolError
from gemini_poold import service


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The manager's end of NOTIFY_SOCKET."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(path))
        end.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        yield end


def heard(end: socket.socket) -> list[str]:
    messages = []
    while True:
        try:
            messages.append(end.recv(4096).decode("ascii"))
        except BlockingIOError:
            return messages


# ---- Notifier -------------------------------------------------------------------------------------------------


def test_ready_is_alone_in_its_message(manager: socket.socket) -> None:
    """READY travels alone, and each other message holds one assignment."""
    notifier = service.Notifier()
    notifier.status("3 accounts, 2 tokens warm")
    notifier.ready()
    notifier.extend(2.5)
    notifier.stopping()
    notifier.close()
    assert heard(manager) == [
        "STATUS=3 accounts, 2 tokens warm",
        "READY=1",
        "EXTEND_TIMEOUT_USEC=2500000",
        "STOPPING=1",
    ]


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("warming 3 accounts…", "warming 3 accounts?"),
        ("caf\u00e9 key", "caf? key"),
        ("one\ntwo\r\nREADY=1", "one two READY=1"),
        ("", ""),
    ],
)
def test_status_is_one_ascii_line(manager: socket.socket, text: str, sent: str) -> None:
    """A status that `sdnotify` would drop, or that would smuggle in another assignment, arrives as one ASCII line."""
    notifier = service.Notifier()
    notifier.status(text)
    notifier.close()
    assert heard(manager) == [f"STATUS={sent}"]


def test_failing_tells_why_and_errno(manager: socket.socket) -> None:
    """A bad configuration is told as status and ERRNO."""
    notifier = service.Notifier()
    notifier.failing("accounts.toml:3: unknown key")
    notifier.close()
    assert heard(manager) == ["STATUS=accounts.toml:3: unknown key", "ERRNO=22"]


def test_abstract_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that begins with @ is Linux's abstract namespace."""
    if sys.platform != "linux":
        pytest.skip("abstract sockets are Linux only")
    name = f"gemini-pool-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind("\0" + name)
        end.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
        notifier = service.Notifier()
        notifier.ready()
        notifier.close()
        assert heard(end) == ["READY=1"]


def test_without_a_manager_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without NOTIFY_SOCKET every call is a no-op, and no watchdog is on."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    notifier = service.Notifier()
    assert not notifier.enabled
    assert notifier.watchdog_s is None
    notifier.ready()
    notifier.status("hello")
    notifier.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # sdnotify's own open socket
def test_a_manager_that_is_gone_is_logged_and_survived(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A notification socket that does not answer costs a warning, at the start and later."""
    notifier = service.Notifier()
    manager.close()
    notifier.ready()
    assert "did not take READY" in caplog.text
    notifier.close()
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere/at/all")
    assert not service.Notifier().enabled
    assert "does not answer" in caplog.text


def test_children_do_not_inherit_the_manager(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables are gone once the notifier has read them."""
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    notifier = service.Notifier()
    assert notifier.watchdog_s == 30.0
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & set(os.environ)
    notifier.close()


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "2000000"}, 2.0),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_watchdog_interval(environ: dict[str, str], seconds: float | None) -> None:
    """The interval counts only when it is meant for this process."""
    assert service.Notifier(environ).watchdog_s == seconds


# ---- watchdog -------------------------------------------------------------------------------------------------


class Rounds(ManualClock):
    """Ends the feeder after so many sleeps, and keeps how long they were."""

    def __init__(self, rounds: int) -> None:
        super().__init__()
        self.rounds = rounds
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if len(self.slept) == self.rounds:
            raise asyncio.CancelledError
        await super().sleep(seconds)


async def test_watchdog_is_fed_three_times_per_interval(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A healthy daemon pings at a third of the interval."""
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    notifier, clock = service.Notifier(), Rounds(3)
    with pytest.raises(asyncio.CancelledError):
        await service.feed_watchdog(notifier, clock, lambda: "")
    notifier.close()
    assert heard(manager) == ["WATCHDOG=1"] * 3
    assert clock.slept == [10.0] * 3


async def test_watchdog_starves_while_something_is_dead(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What no longer moves is named once in log and status, and the manager hears nothing until it moves again."""
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    ailing = iter(["", "the store does not answer", "the store does not answer", ""])
    notifier = service.Notifier()
    with pytest.raises(asyncio.CancelledError):
        await service.feed_watchdog(notifier, Rounds(4), lambda: next(ailing))
    notifier.close()
    assert heard(manager) == ["WATCHDOG=1", "STATUS=not healthy: the store does not answer", "WATCHDOG=1"]
    assert caplog.text.count("the store does not answer") == 1


async def test_no_watchdog_no_work() -> None:
    """Without a watchdog the feeder returns at once."""
    await service.feed_watchdog(service.Notifier({}), Rounds(1), lambda: "")


# ---- who started us -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "answer"),
    [
        ({"NOTIFY_SOCKET": "/run/user/1000/systemd/notify"}, "systemd"),
        ({"SYSTEMD_EXEC_PID": str(os.getpid())}, "systemd"),
        ({"SYSTEMD_EXEC_PID": "1", "INVOCATION_ID": "abc"}, ""),
        ({}, ""),
    ],
)
def test_supervised(environ: dict[str, str], answer: str) -> None:
    """systemd is our parent when it names this process, not when a terminal hands its variables on."""
    assert service.supervised(environ) == answer


# ---- inherited sockets ----------------------------------------------------------------------------------------

CHILD = """
import json, os, socket, sys
from pathlib import Path
from gemini_poold import service
def listener(path):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(path)
    sock.listen()
    return sock
folder = Path(sys.argv[1])
tcp = socket.create_server(("127.0.0.1", 0))
ours = [listener(str(folder / "pool.sock")), listener(str(folder / "gateway.sock")), tcp]
ours += [socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), open(os.devnull)]
high = [os.dup(one.fileno()) for one in ours for _ in "12345678"][-1] + 20
copies = [os.dup2(one.fileno(), high + index) for index, one in enumerate(ours)]
for index, copy in enumerate(copies):
    os.dup2(copy, 3 + index, inheritable=True)
os.environ.update(LISTEN_FDS="5", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="a:b")
found = service.inherited_sockets()
out = {"fds": [s.fileno() for s in found], "cloexec": not any(s.get_inheritable() for s in found)}
out["blocking"] = any(s.getblocking() for s in found)
out["env"] = [name for name in os.environ if name.startswith("LISTEN_")]
out["again"] = service.inherited_sockets()
(folder / "link").symlink_to(folder)
out["gateway"] = service.take_unix(found, folder / "link" / "gateway.sock").fileno()
out["missing"] = service.take_unix(found, folder / "other.sock")
out["tcp"] = [s.fileno() for s in service.take_tcp(found)]
out["rest"] = [s.fileno() for s in found]
print(json.dumps(out))
os._exit(0)
"""


def run_child(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, "-c", code, *args], env=environ, capture_output=True, text=True, check=True
    )


def test_inherited_sockets_are_adopted_and_told_apart(tmp_path: Path) -> None:
    """Listening sockets come in close-on-exec and non-blocking, others are closed; the two of one unit are told apart
    by path, links resolved; the variables are unset and a second call finds nothing."""
    child = run_child(CHILD, str(tmp_path))
    assert json.loads(child.stdout) == {
        "fds": [3, 4, 5],
        "cloexec": True,
        "blocking": False,
        "env": [],
        "again": [],
        "gateway": 4,
        "missing": None,
        "tcp": [5],
        "rest": [3],
    }
    assert child.stderr.count("no listening socket: closed") == 2
    assert "(unknown)" in child.stderr


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_FDS": "2", "LISTEN_PID": "1"},
        {"LISTEN_FDS": "two", "LISTEN_PID": str(os.getpid())},
        {"LISTEN_FDS": "2"},
    ],
)
def test_descriptors_for_somebody_else_are_left_alone(environ: dict[str, str]) -> None:
    """Variables that are missing, garbled or meant for another process give no sockets, and are unset."""
    assert service.inherited_sockets(environ) == []
    assert environ == {}


# ---- turning away ---------------------------------------------------------------------------------------------

ERROR = PoolError("config_invalid", "config.toml:2: unknown key `gatway`", hint="gemini-pool config check")


@pytest.mark.parametrize(
    ("first", "begins", "holds"),
    [
        (b'{"jsonrpc":"2.0"', b'{"id":null,"error":', b'"config_invalid"'),
        (b"Content-Length: 20\r\n", b"Content-Length: ", b'"config_invalid"'),
        (b"GET /healthz HTTP/1.1\r\n", b"HTTP/1.1 503 ", b"unknown key `gatway` (gemini-pool config check)"),
        (b"", b"", b""),
    ],
)
def test_who_waits_is_told_why(tmp_path: Path, first: bytes, begins: bytes, holds: bytes) -> None:
    """A connection in the backlog is answered in its own manner and closed, so that systemd does not start us again."""
    path = str(tmp_path / "pool.sock")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(path)
        listener.listen()
        listener.setblocking(False)
        client.connect(path)
        client.sendall(first)
        assert service.turn_away([listener], ERROR) == 1
        assert service.turn_away([listener], ERROR) == 0
        answer = b""
        while block := client.recv(4096):
            answer += block
    assert answer.startswith(begins)
    assert holds in answer


# ---- hardening ------------------------------------------------------------------------------------------------

HARDENED = """
import json, os, resource
from gemini_poold import service
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
service.harden()
files = service.raise_file_limit(100)
fd = os.open(os.path.join(os.environ["FOLDER"], "made"), os.O_CREAT | os.O_WRONLY, 0o666)
import ctypes
dumpable = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) if os.uname().sysname == "Linux" else 0
print(json.dumps([resource.getrlimit(resource.RLIMIT_CORE)[0], dumpable, files, os.fstat(fd).st_mode & 0o777]))
"""


def test_hardened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No core dump, no reader of our memory, private files; the limit of open files is lifted as far as asked."""
    monkeypatch.setenv("FOLDER", str(tmp_path))
    assert json.loads(run_child(HARDENED).stdout) == [0, 0, 100, 0o600]


def test_file_limit_is_never_lowered() -> None:
    """Asking for less than there is changes nothing."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert service.raise_file_limit(1) == before[0]
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before
