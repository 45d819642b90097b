"""The blocking face against the real server: every verb, streams, errors, threads, forks, a daemon that goes away."""

import os
import socket
import subprocess
import sys
import threading

import msgspec
import pytest
from tests.client.serving import serving
from tests.ipc.harness import MODEL

from gemini_pool import NotRunning, Pool, PoolError, wire
from gemini_pool.errors import Cancelled, ConnectionLost
from gemini_pool.framing import encode
from gemini_poold.fake import Fault, replies


@pytest.fixture
def server(tmp_path):
    with serving(tmp_path) as s:
        yield s


@pytest.fixture
def pool(server):
    with Pool(server.path, name="test", connect_s=0) as p:
        yield p


def test_every_verb(pool, server):
    """Typed results for each verb of the table."""
    assert isinstance(pool.initialize(), wire.InitializeResult)
    lease = pool.acquire(MODEL, session="s", wait_s=1)
    assert isinstance(lease, wire.Lease)
    assert isinstance(pool.renew(lease), wire.RenewResult)
    assert pool.report(lease, status=200, headers={"A": 1}, usage={"totalTokenCount": 3}).next == "done"
    pool.release(pool.acquire(MODEL).lease)
    assert pool.generate(MODEL, "hello")["candidates"]
    assert pool.generate(MODEL, {"contents": [{"parts": [{"text": "hello"}]}]}, method="countTokens")[
        "totalTokens"
    ]
    assert pool.generate(MODEL, b'{"contents":[{"parts":[{"text":"hello"}]}]}')["candidates"]
    assert pool.token("key-a").token == "fake-key-key-a"
    assert [a.id for a in pool.status().accounts] == ["key-a", "key-b"]
    assert [a.id for a in pool.accounts()] == ["key-a", "key-b"]
    assert isinstance(pool.quota(refresh=True), wire.QuotaResult)
    assert pool.explain(MODEL).chosen
    assert pool.info().socket == str(server.path)
    assert pool.reload().unchanged == 2
    pool.pause("key-a")
    assert pool.acquire(MODEL).account == "key-b"
    pool.resume("key-a")
    assert pool.call("pool/status")["state"] == "ready"


def test_one_connection_that_introduces_itself(pool):
    """Calls one after the other use one connection, named as the program says."""
    for _ in range(3):
        status = pool.status()
    assert [(c.name, c.version, c.pid) for c in status.clients] == [("test", wire.VERSION, os.getpid())]


def test_errors_are_pool_errors(pool):
    """What the daemon refuses is raised with word, hint and everything a program needs."""
    with pytest.raises(PoolError) as caught:
        pool.acquire(MODEL, account="nobody")
    assert (caught.value.code, caught.value.hint) == ("not_found", "gemini-pool account list")
    with pytest.raises(PoolError) as caught:
        pool.call("pool/nothing")
    assert (caught.value.code, caught.value.rpc_code) == ("not_found", -32601)
    with pytest.raises(PoolError) as caught:
        pool.acquire(3)
    assert (caught.value.code, caught.value.rpc_code) == ("bad_request", -32602)
    assert "$.model" in caught.value.message


def test_large_requests_are_refused_here(pool):
    """What cannot cross is told before it is sent, with the way that works."""
    with pytest.raises(PoolError, match="gateway"):
        pool.generate(MODEL, b'"' + b"x" * (64 << 20) + b'"')
    assert pool.info()


def test_stream(pool):
    """Chunks in order, the summary at the end, the connection kept."""
    with pool.stream(MODEL, "hello") as stream:
        chunks = list(stream)
    assert stream.result.chunks == len(chunks) > 1
    assert stream.result.finish_reason == "STOP"
    assert "candidates" in chunks[0]
    assert len(pool.status().clients) == 1


def test_closing_a_stream_cancels_it(pool, server):
    """Leaving the loop ends the request in the daemon; the connection, and the leases on it, stay."""
    lease = pool.acquire(MODEL)
    server.rpc.fake.faults.add(Fault.stall(after=1))
    with pool.stream(MODEL, "hello") as stream:
        for _ in stream:
            break
    assert server.leases() == 1
    assert pool.report(lease, status=200).next == "done"
    assert len(pool.status().clients) == 1
    assert list(stream) == []
    stream.close()


def test_a_forgotten_stream_cancels_itself(pool, server):
    """A stream that is dropped while it runs does not go on for nobody."""
    server.rpc.fake.faults.add(Fault.stall(after=1))
    next(pool.stream(MODEL, "hello"))
    assert server.leases() == 0


def test_a_cut_stream_raises(pool, server):
    """A broken stream is an error after its chunks, never an end."""
    server.rpc.fake.faults.add(Fault.cut(after=1))
    stream = pool.stream(MODEL, "hello")
    got = []
    with pytest.raises(PoolError) as caught:
        got.extend(iter(stream))
    assert caught.value.code == "stream_cut"
    assert stream.result is None
    assert pool.generate(MODEL, "hello")


def test_cancelled(pool, server):
    """A request that another connection's daemon-side cancel ends raises Cancelled."""
    server.rpc.fake.faults.add(Fault.silence())
    errors = []

    def ask():
        try:
            pool.generate(MODEL, "hello")
        except PoolError as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    while not server.leases():
        pass
    connection = server.on_loop(lambda: next(c for c in server.rpc.server._connections.values() if c.busy))
    server.on_loop(lambda: connection._cancel(next(iter(connection._running.values()))))
    thread.join(20)
    assert isinstance(errors[0], Cancelled)


def test_threads_share_a_pool(pool, server):
    """A thread that waits keeps nobody waiting, and results do not get mixed up."""
    server.rpc.fake.faults.add(Fault.silence())
    waiting = threading.Thread(target=lambda: pytest.raises(PoolError, pool.generate, MODEL, "hello"))
    waiting.start()
    wrong = []

    def work(name):
        for n in range(30):
            lease = pool.acquire(MODEL, account=name, session=f"{n}")
            if lease.account != name:
                wrong.append(lease)
            pool.release(lease)

    threads = [threading.Thread(target=work, args=(f"key-{'ab'[n % 2]}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []
    server.on_loop(server.rpc.server._connections["c1"].cancel_all)
    waiting.join(20)
    assert len(pool.status().clients) <= 8


def test_events(pool, server):
    """Notices come as they happen, on a connection of their own."""
    with pool.events("account") as events:
        pool.pause("key-a")
        event = next(events)
        assert (event.kind, event.account, event.text) == ("account", "key-a", "paused")
        assert len(pool.status().clients) == 2
    with pytest.raises(PoolError):
        pool.events("weather")


# ---- with pool.lease() --------------------------------------------------------------------------------------------


class Answered(Exception):
    """What HTTP libraries raise: the answer hangs on it."""

    def __init__(self, status: int, body: str) -> None:
        self.response = type("Response", (), {"status_code": status, "headers": {"a": "b"}, "text": body})()


def test_lease_reports_by_itself(pool, server):
    """A block that ends well has answered; its lease is over."""
    with pool.lease(MODEL) as lease:
        assert lease.url.startswith(server.rpc.fake.url)
        assert lease.headers["x-goog-api-key"] == f"fake-key-{lease.account}"
        assert lease.form == "gl"
        assert lease.renew().ttl_s > 500
        assert server.leases() == 1
    assert server.leases() == 0
    assert pool.status().counters.answered == 1


def test_lease_reads_http_errors(pool, server):
    """An HTTP library's exception is read: the account rests as long as Google said. The exception goes on."""
    body = msgspec.json.encode(replies.rate_limited(retry="50s")).decode()
    with pytest.raises(Answered), pool.lease(MODEL) as lease:
        raise Answered(429, body)
    (account,) = [a for a in pool.accounts() if a.id == lease.account]
    assert account.cooldowns[0].told
    assert server.leases() == 0


def test_lease_of_a_block_that_failed_otherwise_is_given_back(pool, server):
    """A mistake of the program's own is no account's fault."""
    with pytest.raises(ZeroDivisionError), pool.lease(MODEL):
        1 / 0
    assert server.leases() == 0
    status = pool.status()
    assert [a.counters.failed for a in status.accounts] == [0, 0]
    assert status.counters.answered == 0


def test_lease_moves_on_when_told_to_retry(pool, server):
    """After a refusal the block holds the next account's lease, of the same request."""
    body = replies.rate_limited(retry="50s")
    with pool.lease(MODEL) as lease:
        first, request = lease.account, lease.current.request
        assert lease.report(status=429, body=body).next == "retry"
        assert lease.account != first
        assert lease.current.request == request
        assert lease.report(status=200).next == "done"
    assert server.leases() == 0
    assert pool.status().counters.absorbed == 1


def test_lease_waits_for_the_next_account(pool, server):
    """Where none is free now the report waits for one, within the request's deadline."""
    body = replies.rate_limited(retry="40s")
    pool.pause("key-b")
    with pool.lease(MODEL, wait_s=60) as lease:
        seen = []

        def resume():
            while not server.on_loop(lambda: server.rpc.broker.waiting):
                pass
            seen.append("waiting")
            pool.resume("key-b")

        timer = threading.Thread(target=resume)
        timer.start()
        lease.report(status=429, body=body)
        timer.join(20)
        assert seen == ["waiting"]
        assert lease.account == "key-b"
    with pytest.raises(PoolError) as caught, pool.lease(MODEL, wait_s=1, account="key-b") as lease:
        lease.report(status=429, body=body)
        lease.report(status=429, body=body)
    assert caught.value.code in ("all_cooling_down", "not_found")


def test_lease_released_by_hand(pool, server):
    """A released lease is not reported again."""
    with pool.lease(MODEL) as lease:
        lease.release()
    assert pool.status().counters.answered == 0


# ---- the daemon is away -------------------------------------------------------------------------------------------


def test_not_running(tmp_path):
    """Nobody there: a hint names the command that starts the daemon, whatever lies in the socket's place."""
    for place in ("nothing", "stale"):
        path = tmp_path / place
        if place == "stale":
            with socket.socket(socket.AF_UNIX) as sock:
                sock.bind(str(path))
        with pytest.raises(NotRunning) as caught:
            Pool(path, connect_s=0).status()
        assert caught.value.exit_code == 3
        assert "gemini-pool" in caught.value.hint


def test_waits_a_moment_for_a_daemon_that_starts(tmp_path):
    """A daemon that is being restarted is waited for."""
    pool = Pool(tmp_path / "run" / "pool.sock", connect_s=20)
    got = []
    thread = threading.Thread(target=lambda: got.append(pool.info()))
    thread.start()
    with serving(tmp_path):
        thread.join(20)
        pool.close()
    assert got


def test_restart_between_calls(tmp_path):
    """After a restart the next call of any kind just works: its old connection never took a byte of it."""
    with serving(tmp_path) as first:
        pool = Pool(first.path, connect_s=20)
        pool.status()
    with serving(tmp_path):
        assert pool.acquire(MODEL).account
        pool.close()


def test_draining_daemon_is_left_for_its_successor(tmp_path):
    """What a stopping daemon refuses is asked again of the next one."""
    with serving(tmp_path) as first:
        pool = Pool(first.path, connect_s=20)
        pool.status()
        first.on_loop(first.rpc.server.drain, 0.0)
        results = []

        def work():
            results.append(pool.acquire(MODEL).account)
            results.extend(pool.stream(MODEL, "hello"))

        thread = threading.Thread(target=work)
        thread.start()
    with serving(tmp_path):
        thread.join(20)
        pool.close()
    assert len(results) > 2


class Deaf:
    """A server that takes one request and hangs up, then answers the next connection."""

    def __init__(self, path) -> None:
        self.path = path
        self.requests: list[bytes] = []
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.bind(str(path))
        self._sock.listen()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        for answers in (False, True):
            connection, _ = self._sock.accept()
            with connection:
                self.requests.append(connection.recv(65536))
                if answers and self.requests[-1]:
                    number = self.requests[-1].rpartition(b'"id":')[2].partition(b",")[0]
                    result = b'{"token":"t","account":"a","token_type":"Bearer","expires_at":null}'
                    connection.sendall(encode(b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (number, result)))
                    connection.recv(1)

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(str(self.path))
        self._thread.join(20)
        self._sock.close()


def test_lost_in_the_middle(tmp_path):
    """A connection lost after sending: what is harmless is repeated once, what is not raises ConnectionLost."""
    deaf = Deaf(tmp_path / "a")
    with Pool(deaf.path) as pool:
        assert pool.token("a").token == "t"
        assert len(deaf.requests) == 2
    deaf._thread.join(20)
    deaf._sock.close()
    deaf = Deaf(tmp_path / "b")
    with Pool(deaf.path) as pool, pytest.raises(ConnectionLost) as caught:
        pool.acquire(MODEL)
    assert not caught.value.unsent
    assert len(deaf.requests) == 1
    deaf.close()
    assert deaf.requests[1:] == [b""]


def test_not_this_protocol(tmp_path):
    """Another program's socket is told as such."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "x"))
        server.listen()

        def run():
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                connection.recv(100)

        thread = threading.Thread(target=run)
        thread.start()
        with pytest.raises(PoolError) as caught:
            Pool(tmp_path / "x").status()
        assert caught.value.code == "protocol"
        thread.join(20)


def test_silence(tmp_path):
    """A daemon that hangs is given up after `timeout_s`."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "x"))
        server.listen()
        with pytest.raises(PoolError) as caught:
            Pool(tmp_path / "x", timeout_s=0.01).status()
        assert caught.value.code == "deadline"


def test_fork(pool, server):
    """A child opens connections of its own and leaves its parent's alone."""
    lease = pool.acquire(MODEL)
    pid = os.fork()
    if pid == 0:
        try:
            account = pool.acquire(MODEL).account
            pool.close()
            os._exit(0 if account else 1)
        except BaseException:
            os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0
    assert pool.report(lease, status=200).next == "done"


def test_import_is_cheap():
    """Importing the package loads neither face, nor asyncio, nor anything but what the first use needs."""
    script = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "import gemini_pool\n"
        "assert not {'asyncio', 'msgspec', 'socket'} & set(sys.modules)\n"
        "gemini_pool.Pool\n"
        "assert 'asyncio' not in sys.modules\n"
        "assert not [m for m in sys.modules if m.startswith('gemini_poold')]\n"
        "assert set(gemini_pool.__all__) <= set(dir(gemini_pool))\n"
        "try: gemini_pool.nothing\n"
        "except AttributeError: pass\n"
        "else: raise SystemExit(1)\n"
    )
    subprocess.run([sys.executable, "-c", script, *sys.path], check=True)
