"""No secret of any account is anywhere but in the files that own it: log, answers, other files, /proc, crash."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import stat
from pathlib import Path

import pytest
from tests.fakes.daemon import DaemonProcess, api_key_account, fake_google

from gemini_pool.errors import PoolError
from gemini_poold.fake import Fault, Match, World

MODEL = "gemini-2.5-flash"
BODY = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}
OWNERS = ("secrets/", "tokens/", "gateway.key")


def everything_written(daemon: DaemonProcess) -> dict[str, bytes]:
    """All files under state and configuration but those that own secrets, and the log."""
    files = {}
    for folder in (daemon.state_dir, daemon.config_dir):
        for path in folder.rglob("*"):
            name = str(path.relative_to(folder))
            if path.is_file() and not path.is_socket() and not name.startswith(OWNERS):
                files[name] = path.read_bytes()
    return files | {"log": daemon.log.encode()}


def raw_rpc(daemon: DaemonProcess, *messages: object) -> bytes:
    """Messages as newline-delimited JSON; whatever comes back until the daemon is silent."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(daemon.socket))
        sock.sendall(b"".join(json.dumps(m).encode() + b"\n" for m in messages))
        sock.shutdown(socket.SHUT_WR)
        received = b""
        while chunk := sock.recv(65536):
            received += chunk
        return received


def through_the_gateway(daemon: DaemonProcess, key: str) -> bytes:
    """Every surface, good and bad, whole and streamed; headers and bodies of the answers."""
    host, port = daemon.url.removeprefix("http://").split(":")
    wrapped = json.dumps({"model": MODEL, "request": BODY})
    calls = [
        ("GET", "/v1beta/models", ""),
        ("GET", "/metrics", ""),
        ("POST", f"/v1beta/models/{MODEL}:generateContent", json.dumps(BODY)),
        ("POST", f"/v1beta/models/{MODEL}:streamGenerateContent?alt=sse", json.dumps(BODY)),
        ("POST", f"/v1beta/models/{MODEL}:streamGenerateContent", "{no json"),
        ("POST", "/v1internal:streamGenerateContent?alt=sse", wrapped),
        ("POST", "/v1internal:loadCodeAssist", "{}"),
        (
            "POST",
            f"/v1/projects/p/locations/l/publishers/google/models/{MODEL}:countTokens",
            json.dumps(BODY),
        ),
        ("POST", "/v1beta/models/nothing:generateContent", json.dumps(BODY)),
        ("GET", "/v1beta/files", ""),
    ]
    seen = b""
    for account in ("", "key", "user", "robot", "dead"):
        for verb, path, body in calls:
            connection = http.client.HTTPConnection(host, int(port), timeout=20)
            headers = {"x-goog-api-key": key, "x-gemini-pool-account": account, "x-gemini-pool-wait-s": "0"}
            connection.request(verb, path, body or None, {k: v for k, v in headers.items() if v})
            answer = connection.getresponse()
            try:
                seen += repr(answer.getheaders()).encode() + answer.read()
            except http.client.IncompleteRead as broken:
                seen += broken.partial
            connection.close()
    return seen


def test_no_secret_leaves(tmp_path: Path) -> None:
    """Every kind of account, every method, every surface, failures, reloads and a crash, at log level debug: the
    secrets are found in their own files alone."""
    world = World()
    world.add_api_key("key", key="fake-key-that-must-not-leave")
    user = world.add_user("user", projects=["proj"])
    dead = world.add_user("dead", projects=["proj"])
    robot = world.add_service_account("robot", project="vproj")
    client = world.add_client()
    client.secret = "fake-client-secret-that-must-not-leave"
    oauth = 'backend = "code-assist"\ncredential = {{ type = "oauth", secret = {{ file = "secrets/{0}.json" }} }}\n'
    accounts = api_key_account("key", lend=False) + "".join(
        f'[[account]]\nid = "{name}"\n' + oauth.format(name) for name in ("user", "dead")
    )
    accounts += (
        '[[account]]\nid = "robot"\nbackend = "vertex"\nproject = "vproj"\n'
        'credential = { type = "service-account", secret = { file = "secrets/robot.json" } }\n'
    )
    bodies = tmp_path / "bodies.log"
    with fake_google(world) as fake:
        config = f'[log]\nlevel = "debug"\ndebug_file = "{bodies}"\n'
        daemon = DaemonProcess(tmp_path, fake=fake, accounts=accounts, config=config)
        logins = {name: world.authorized_user(who, client) for name, who in (("user", user), ("dead", dead))}
        for name, login in logins.items():
            daemon.write_secret(f"{name}.json", json.dumps(login))
        daemon.write_secret("robot.json", json.dumps(robot))
        world.revoke("dead")
        with daemon:
            answered = drive(daemon, fake)
            process = daemon.process
            assert process is not None
            cmdline = Path(f"/proc/{process.pid}/cmdline").read_bytes()
            limits = Path(f"/proc/{process.pid}/limits").read_text(encoding="utf-8")
            environ = Path(f"/proc/{process.pid}/environ")
            assert environ.stat().st_uid == 0, "PR_SET_DUMPABLE: other processes of the user cannot read it"
            tokens = {t.token for t in world.tokens.values()}
            process.send_signal(signal.SIGABRT)
            process.wait(20)
            assert not list(daemon.state_dir.glob("core*"))
        assert any(line.split()[4:6] == ["0", "0"] for line in limits.splitlines() if "core file" in line)
        secrets = {
            "API key": world.key("key").key,
            "client secret": client.secret,
            "private key": robot["private_key"].splitlines()[1],
            **{f"refresh token of {name}": login["refresh_token"] for name, login in logins.items()},
            **{f"access token {n}": token for n, token in enumerate(sorted(tokens))},
        }
        assert len(secrets) >= 6
        places = everything_written(daemon) | {
            "answers": answered,
            "cmdline": cmdline,
            "bodies": bodies.read_bytes(),
        }
        found = [
            f"{what} in {place}"
            for place, data in places.items()
            for what, s in secrets.items()
            if s.encode() in data
        ]
        print(
            f"{len(secrets)} secrets looked for in {len(places)} places, {sum(map(len, places.values()))} bytes"
        )
        assert found == []
        owned = [
            p for p in daemon.state_dir.rglob("*") if str(p.relative_to(daemon.state_dir)).startswith(OWNERS)
        ]
        assert all(stat.S_IMODE(p.stat().st_mode) in (0o600, 0o700) for p in owned)


def drive(daemon: DaemonProcess, fake) -> bytes:
    """Everything that can be asked; what was answered, but for the one answer whose purpose is a token."""
    seen = b""
    with daemon.pool() as pool:
        pool.generate(MODEL, "hello", account="user", wait_s=10)
        pool.generate(MODEL, "hello", account="robot", wait_s=10)
        list(pool.stream(MODEL, "hello", account="key"))
        for account in ("dead", "nobody"):
            with pytest.raises(PoolError) as caught:
                pool.generate(MODEL, "hello", account=account, wait_s=0)
            seen += repr(caught.value).encode() + str(caught.value.details).encode()
        with pytest.raises(PoolError) as caught:
            pool.token("key")
        seen += repr(caught.value).encode()
        for fault in (Fault.status(401), Fault.status(403), Fault.status(429), Fault.status(500)):
            fake.faults.add(fault, when=Match(kind=("generate", "stream")), times=1)
            try:
                pool.generate(MODEL, "hello", wait_s=0)
            except PoolError as error:
                seen += repr(error).encode() + str(error).encode() + str(error.details).encode()
    methods = (
        "initialize",
        "pool/status",
        "pool/quota",
        "pool/explain",
        "account/list",
        "daemon/info",
        "account/verify",
    )
    seen += raw_rpc(
        daemon,
        *({"id": n, "method": method, "params": {"model": MODEL} if "explain" in method else {}}
          for n, method in enumerate(methods)),
        {"id": 90, "method": "pool/acquire", "params": {"model": MODEL, "account": "key"}},
        {"id": 91, "method": "pool/report", "params": {"lease": "x", "status": 500, "body": "fake"}},
        {"id": 92, "method": "daemon/reload"},
        {"id": 93, "method": "pool/nothing"},
    )  # fmt: skip
    seen += through_the_gateway(daemon, daemon.key)
    for args in (
        ("status",),
        ("quota", "--json"),
        ("explain", MODEL),
        ("account", "verify"),
        ("account", "list", "--json"),
    ):
        done = daemon.command(*args)
        seen += (done.stdout + done.stderr).encode()
    return seen
