"""A search over everything: each kind of credential and place of a secret, variables,
commands, other programs' files, federation, impersonation, self-signed tokens, sealed files, logins, imports, archives.
"""

from __future__ import annotations

import base64
import contextlib
import gc
import json
import signal
import socket
import sys
import traceback
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.credentials.making import entry, file, served, write_secret
from tests.fakes.daemon import PATIENCE_S, DaemonProcess, fake_google

from gemini_poold.config import SecretRef
from gemini_poold.credentials import registry
from gemini_poold.credentials.base import CredentialError
from gemini_poold.fake import FakeGoogle, Fault, Match, World
from gemini_poold.runtime.tokens import TokenKeeper

MODEL = "gemini-2.5-flash"
STS = "https://sts.googleapis.com/v1/token"
PASSPHRASE = "fake-passphrase-of-the-sealing"
ARCHIVE = "fake-passphrase-of-the-archive"


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


def consent(url: str) -> str:
    """What a browser does at Google's page: the address it is sent back to."""
    try:
        urllib.request.build_opener(_Stay).open(url, timeout=PATIENCE_S)
    except urllib.error.HTTPError as answer:
        with answer:
            return str(answer.headers["Location"])
    raise AssertionError("no redirect")


class Everything:
    """A daemon with an account of every kind, and the list of what must not be found."""

    def __init__(self, folder: Path, fake: FakeGoogle) -> None:
        self.folder, self.fake, self.world = folder, fake, fake.world
        self.client = self.world.add_client()
        self.client.secret = "fake-client-secret-of-everything"
        self.needles: dict[str, str] = {"client secret": self.client.secret, "passphrase": PASSPHRASE}
        self.answers: list[bytes] = []
        self.daemon = DaemonProcess(
            folder, fake=fake, accounts="", config=self._config(), env=self._environ()
        )
        self.daemon.accounts_file.write_text(self._accounts(), encoding="utf-8")

    def _config(self) -> str:
        return (
            f'[log]\nlevel = "debug"\ndebug_file = "{self.folder / "bodies.log"}"\n'
            f'[secrets]\nseal = {{ command = ["cat", "{write_secret(self.folder / "seal", PASSPHRASE)}"] }}\n'
        )

    def _login(self, name: str, **more: Any) -> dict[str, Any]:
        user = self.world.users.get(name) or self.world.add_user(name, projects=["p"])
        return self.world.authorized_user(user, self.client, **more)

    def _environ(self) -> dict[str, str]:
        adc = write_secret(self.folder / "adc.json", self._login("adc"))
        return {
            "LOGIN": json.dumps(self._login("variable")),
            "GOOGLE_APPLICATION_CREDENTIALS": str(adc),
            "GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES": "1",
            "HTTPS_PROXY": "",
        }

    def _accounts(self) -> str:
        world, keep = self.world, self.daemon.write_secret
        keep("rotating.json", json.dumps(self._login("rotating", rotates=True)))
        keep("impersonating.json", json.dumps(self._login("impersonating")))
        keep("command.txt", world.add_api_key("command", key="fake-key-of-a-command").key)
        keep("dead.json", json.dumps(self._login("dead")))
        robot = world.add_service_account("robot", project="p")
        keep("robot.json", json.dumps(robot))
        target = world.add_service_account("target", project="p", impersonators=frozenset({"impersonating"}))
        pool = world.add_pool("pool", projects=["p"])
        answer = {
            "version": 1,
            "success": True,
            "id_token": "fake-subject-token",
            "expiration_time": 9_999_999_999,
        }
        answer |= {"token_type": "urn:ietf:params:oauth:token-type:jwt"}
        script = write_secret(self.folder / "subject.py", f"print({json.dumps(answer)!r})")
        external = {"type": "external_account", "audience": pool.audience, "token_url": STS}
        external |= {"subject_token_type": "urn:ietf:params:oauth:token-type:jwt"}
        executable = {"command": f"{sys.executable} -S -E {script}", "timeout_millis": 20_000}
        keep("external.json", json.dumps(external | {"credential_source": {"executable": executable}}))
        self.needles |= {
            "private key": robot["private_key"].splitlines()[1],
            "API key": "fake-key-of-a-command",
            "subject token": "fake-subject-token",
        }
        world.revoke("dead")
        command = f'command = ["cat", "{self.daemon.state_dir / "secrets" / "command.txt"}"]'
        rows = [
            ("rotating", "oauth", 'file = "secrets/rotating.json"', ""),
            ("variable", "oauth", 'env = "LOGIN"', ""),
            ("dead", "oauth", 'file = "secrets/dead.json"', ""),
            ("adc", "adc", "", ""),
            ("robot", "service-account", 'file = "secrets/robot.json"', ""),
            ("external", "external", 'file = "secrets/external.json"', ""),
            ("target", "impersonated", 'file = "secrets/impersonating.json"', f', target = "{target["client_email"]}"'),
        ]  # fmt: skip
        text = (
            '[[account]]\nid = "command"\nbackend = "developer-api"\n'
            f'credential = {{ type = "api-key", secret = {{ {command} }} }}\n'
        )
        for name, kind, secret, more in rows:
            reference = f", secret = {{ {secret} }}" if secret else ""
            text += f'[[account]]\nid = "{name}"\nbackend = "vertex"\nproject = "p"\n'
            text += f'credential = {{ type = "{kind}"{reference}{more} }}\n'
        return text

    # ---- what is asked -------------------------------------------------------------------------------------------

    def rpc(self, *messages: tuple[str, Any]) -> list[dict[str, Any]]:
        """Requests over one connection, answered; every byte is kept for the search."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE_S)
            sock.connect(str(self.daemon.socket))
            for number, (method, params) in enumerate(messages):
                sock.sendall(
                    json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).encode()
                    + b"\n"
                )
            replies, received = [], b""
            while len(replies) < len(messages):
                chunk = sock.recv(65536)
                assert chunk, received
                received += chunk
                replies = [
                    json.loads(line)
                    for line in received.splitlines()
                    if b'"id"' in line and line.endswith(b"}")
                ]
        self.answers.append(received)
        return replies

    def command(self, *args: str, stdin: str = "") -> str:
        done = self.daemon.command(*args, stdin=stdin)
        self.answers.append((done.stdout + done.stderr).encode())
        return done.stdout

    def use(self) -> None:
        """Every account serves, is refused, renews, fails."""
        names = ("command", "rotating", "variable", "adc", "robot", "external", "target")
        with self.daemon.pool() as pool:
            for name in names:
                assert pool.generate(MODEL, "hello", account=name, wait_s=PATIENCE_S), name
            for fault in (Fault.status(401), Fault.status(403), Fault.status(500), Fault.reset_connection()):
                for name in names:
                    self.fake.faults.add(fault, when=Match(kind=("generate", "stream")))
                    with contextlib.suppress(Exception):
                        pool.generate(MODEL, "hello", account=name, wait_s=0)
                    self.fake.faults.clear()
            self.world.expire_tokens()
            for fault in (
                Fault.status(400, body={"error": "invalid_scope"}),
                Fault.status(200, body="<html>"),
            ):
                rule = self.fake.faults.add(
                    fault, when=Match(kind=("token", "sts", "impersonate")), times=None
                )
                for name in names:
                    with contextlib.suppress(Exception):
                        pool.generate(MODEL, "hello", account=name, wait_s=0)
                self.fake.faults.remove(rule)

    def ask_everything(self) -> None:
        """Each method with what it wants, with half of it, and with nonsense that holds secrets."""
        (hello,) = self.rpc(("initialize", {"client": {"name": "search", "version": "1"}}))
        lent = {"pool/acquire", "pool/token"}  # their purpose is a token
        methods = [
            method for method in hello["result"]["methods"] if method not in lent and "export" not in method
        ]
        secret = self._login("typed")["refresh_token"]
        self.needles["what was typed"] = secret
        for params in ({}, {"account": "rotating", "model": MODEL}, {"account": secret, "login": secret, "model": 3}, [secret]):  # fmt: skip
            for method in methods:
                if method not in {"pool/subscribe", "account/loginFinish", "account/remove", "pool/pause"}:
                    replies = self.rpc((method, params))
                    # An unknown account's name is repeated to who asked: that it was a secret, nobody can know.
                    self.answers[-1] = (
                        self.answers[-1].replace(secret.encode(), b"")
                        if isinstance(params, dict)
                        else self.answers[-1]
                    )
                    assert "result" in replies[0] or "error" in replies[0]

    def log_in(self) -> None:
        """By code, with a wrong code first; and an account that is added with its key, imported, archived."""
        self.world.add_user("newcomer", projects=["p"])
        self.world.login_as = self.world.users["newcomer"]
        client = self.world.client_file(self.client)
        ask = {
            "account": "newcomer",
            "client_secrets": client,
            "listen": False,
            "backend": "vertex",
            "project": "p",
        }
        (started,) = self.rpc(("account/login", ask))
        back = consent(started["result"]["url"])
        code = parse_qs(urlsplit(back).query)["code"][0]
        self.needles["code"] = code
        login = started["result"]["login"]
        self.rpc(("account/loginFinish", {"login": login, "code": "4/fake-code-of-an-old-tab"}))
        (done,) = self.rpc(("account/loginFinish", {"login": login, "code": back}))
        assert done["result"]["created"], done
        self.needles["added key"] = self.world.add_api_key("added", key="fake-key-that-was-added").key
        self.rpc(
            (
                "account/add",
                {"account": "added", "backend": "developer-api", "secret_text": "fake-key-that-was-added"},
            )
        )
        self.command(
            "account", "add", "again", "--backend", "developer-api", stdin="fake-key-that-was-added\n"
        )
        for args in (
            ("status",),
            ("account", "list"),
            ("account", "verify"),
            ("config", "show"),
            ("secrets", "status"),
        ):
            self.command(*args)
        self.rpc(("account/remove", {"account": "newcomer", "revoke": True}))

    # ---- what is found -------------------------------------------------------------------------------------------

    def secrets(self) -> dict[str, str]:
        """All that Google ever gave or was shown."""
        found = dict(self.needles)
        found |= {f"access token {text}": text for text in self.world.tokens}
        found |= {f"refresh token {text}": text for text in self.world.grants}
        for call in self.fake.record.calls:
            for name, values in parse_qs(call.body.decode("utf-8", "replace")).items():
                if name in {"assertion", "code", "code_verifier", "subject_token", "client_secret"}:
                    found |= {f"{name} {value[:24]}": value for value in values if len(value) > 8}
        return {name: text for name, text in found.items() if text != "4/fake-code-of-an-old-tab"}

    def places(self) -> dict[str, bytes]:
        """Everything that was written or answered. Files that own secrets are left out, if they are not sealed."""
        places = {f"answer {n}": data for n, data in enumerate(self.answers)} | {
            "log": self.daemon.log.encode()
        }
        owners = {self.folder / name for name in ("adc.json", "seal", "subject.py")}
        owners |= {self.daemon.state_dir / name for name in ("gateway.key",)}
        for path in self.folder.rglob("*"):
            if path.is_file() and not path.is_socket() and path not in owners:
                places[str(path.relative_to(self.folder))] = path.read_bytes()
        places.pop("state/secrets/command.txt", None)  # read by a command, so it is not ours to seal
        return places


def recovery_key(printed: str) -> str:
    return next(line.strip() for line in printed.splitlines() if line.startswith("    "))


def found_in(places: dict[str, bytes], secrets: dict[str, str]) -> list[str]:
    """Which secret is where, as it is or in base64."""
    found = []
    for name, text in secrets.items():
        forms = {text.encode(), *(base64.b64encode(b"x" * n + text.encode())[4:-4] for n in range(3))}
        found += [
            f"{name} in {place}" for place, data in places.items() if any(form in data for form in forms)
        ]
    return found


def test_no_secret_is_found_anywhere(tmp_path: Path) -> None:
    """Sealed at rest, at log level debug, over a kill, a crash and a restart: not even in the files that own them."""
    with fake_google(World()) as fake:
        everything = Everything(tmp_path, fake)
        daemon = everything.daemon
        printed = everything.daemon.command("secrets", "seal")
        assert printed.returncode == 0, printed
        everything.needles["recovery key"] = recovery_key(printed.stdout)
        write_secret(
            daemon.state_dir / "secrets" / "command.txt", "fake-key-of-a-command"
        )  # opened again: `cat` reads it
        with daemon:
            everything.use()
            everything.ask_everything()
            everything.log_in()
            assert daemon.process is not None
            cmdline = Path(f"/proc/{daemon.process.pid}/cmdline").read_bytes()
            daemon.kill()  # the database's log file is still there
            written = everything.places()
            assert any(name.endswith("-wal") for name in written)
            daemon.start()
            everything.use()
            assert daemon.process is not None
            daemon.process.send_signal(signal.SIGABRT)
            daemon.process.wait(PATIENCE_S)
            assert not list(tmp_path.rglob("core*"))
        secrets = everything.secrets()
        places = {
            **{f"{name}, killed": data for name, data in written.items()},
            **everything.places(),
            "cmdline": cmdline,
        }
        print(
            f"\n{len(secrets)} secrets of every kind looked for in {len(places)} places, {sum(map(len, places.values()))} bytes"
        )
        assert len(secrets) > 40
        assert found_in(places, secrets) == []
        assert found_in(
            {"itself": b"x" + next(iter(secrets.values())).encode()}, secrets
        )  # the search can find


@pytest.mark.parametrize("kind", ["oauth", "service-account", "external", "impersonated", "api-key"])
@pytest.mark.parametrize("place", ["file", "variable"])
async def test_no_secret_is_in_a_repr_or_a_traceback(tmp_path: Path, kind: str, place: Any) -> None:
    """Of any object of ours that is alive while a token is got, renewed and refused; nor in what Python prints of an
    error with its causes."""
    world = World()
    client, user = world.add_client(), world.add_user("ann", projects=["p"])
    client.secret = "fake-client-secret-of-a-repr"
    robot = world.add_service_account("robot", project="p", impersonators=frozenset({"ann"}))
    pool = world.add_pool("pool", projects=["p"])
    subject = write_secret(tmp_path / "subject", "fake-subject-of-a-repr")
    external = {
        "type": "external_account", "audience": pool.audience, "token_url": STS,
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt", "credential_source": {"file": str(subject)},
    }  # fmt: skip
    world.add_api_key("key", key="fake-key-of-a-repr")
    secret = {
        "service-account": robot,
        "external": external,
        "api-key": "fake-key-of-a-repr",
    }.get(kind) or world.authorized_user(user, client, rotates=True)
    write_secret(tmp_path / "secrets" / "s", secret)
    more = {"target": robot["client_email"]} if kind == "impersonated" else {}
    told: list[str] = []
    async with served(tmp_path, world) as (google, ctx):
        ctx = replace(ctx, environ={"S": (tmp_path / "secrets" / "s").read_text()})
        place = SecretRef(env="S") if place == "variable" else file("s")
        login = registry.build(entry(kind, place, **more), ctx)
        keeper = TokenKeeper(ctx.clock, lead_s=600, rng=lambda: 0.0)
        keeper.set_accounts({"work": login})
        await keeper.renew("work")
        if kind != "api-key":
            for fault in (
                Fault.status(400, body={"error": "invalid_grant"}),
                Fault.status(500),
                Fault.status(200, body="<"),
            ):
                google.faults.add(fault, when=Match(kind=("token", "sts", "impersonate")))
                with pytest.raises(CredentialError) as caught:
                    await login.renew(0.0)
                told += traceback.format_exception(caught.value)
        # Google's own library keeps what it was given; its objects are not ours to print, and nobody does.
        for found in gc.get_objects():
            module = str(type(found).__module__)
            if module.startswith("gemini_poold") and "fake" not in module:
                told.append(repr(found))
        told.append(repr(keeper.info("work")))
        needles = [
            *world.tokens,
            *world.grants,
            client.secret,
            "fake-key-of-a-repr",
            "fake-subject-of-a-repr",
        ]
        needles.append(robot["private_key"].splitlines()[1])
        leaked = [text for text in told if any(needle in text for needle in needles)]
        assert leaked == []
        assert len(told) > 5


def test_a_command_s_arguments_are_not_shown() -> None:
    """They may name what is private, even hold it."""
    assert "fake-secret" not in SecretRef(command=("pass", "fake-secret")).described
