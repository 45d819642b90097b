"""Secret references into bytes: a file, a variable, a keyring entry, a command's output, a systemd credential.

`open_source` gives the place, which can be read again and, for files and keyrings, written. What the bytes mean is
each credential kind's business. Everything that may block runs off the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from .. import files
from ..config import SecretRef
from ..errors import FileRefused
from .base import CredentialError, Failure, Secret
from .sealed import is_sealed
from .sealer import KEY, Sealer

T = TypeVar("T")

COMMAND_TIMEOUT_S = 30.0  # a password manager may ask a person for a passphrase
KEYRING_TIMEOUT_S = 3.0  # a locked keyring without anybody at the screen never answers
MAX_SECRET = 1 << 20
GENERATIONS = 3
# A command is no part of our service: it must not talk to our supervisor in our name.
OWN_VARIABLES = (
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
)


class Source(Protocol):
    """A place that holds a secret. Errors are `CredentialError(Failure.SECRET)` with the account, place and remedy."""

    @property
    def described(self) -> str:
        """The place, for people."""
        ...

    @property
    def place(self) -> str:
        """Equal for equal places: part of a credential's identity."""
        ...

    @property
    def can_write(self) -> bool: ...

    def read_nowait(self) -> bytes | None:
        """The content if it can be had at once, None if that takes waiting."""
        ...

    async def read(self) -> bytes: ...

    async def write(self, data: bytes) -> None:
        """Replace the content; durable when it returns. Raises `CredentialError` when that fails."""
        ...

    def fingerprint_nowait(self) -> str: ...

    def changed_at_nowait(self) -> float | None:
        """When the content was put there, if the place knows."""
        ...


def open_source(
    ref: SecretRef,
    *,
    account: str,
    environ: Mapping[str, str],
    state_dir: Path,
    hint: str = "",
    sealer: Sealer | None = None,
) -> Source:
    """The place that `ref` names. `hint` is the command that makes a missing one (default: depends on the kind);
    `sealer` opens and seals files that are encrypted at rest."""
    match ref.kind:
        case "file":
            return FileSource(state_dir / Path(ref.file).expanduser(), account, hint, sealer)
        case "env":
            return EnvSource(ref.env, account, environ)
        case "keyring":
            return KeyringSource(ref.keyring, account)
        case "command":
            return CommandSource(ref.command, account, environ)
        case _:
            return SystemdSource(ref.systemd_credential, account, environ)


def sealing_key(ref: SecretRef | None, *, environ: Mapping[str, str], state_dir: Path) -> Source | None:
    """The place of the key that secret files are sealed with; None when none is configured."""
    return None if ref is None else open_source(ref, account=KEY, environ=environ, state_dir=state_dir)


async def resolve(
    ref: SecretRef, *, account: str, environ: Mapping[str, str], state_dir: Path, hint: str = ""
) -> Secret:
    """The text of a bare secret (a key): one line, outer blanks dropped. Raises `CredentialError`."""
    source = open_source(ref, account=account, environ=environ, state_dir=state_dir, hint=hint)
    return bare(await source.read(), source, account)


def bare(data: bytes, source: Source, account: str) -> Secret:
    """A key out of a place's bytes. Raises `CredentialError` when it is empty or could not stand in a header."""
    text = data.decode("utf-8", "replace").strip()
    if not text:
        raise unreadable(account, f"{source.described} is empty", "put the key there")
    if not text.isascii() or not text.isprintable() or " " in text:
        raise unreadable(
            account, f"{source.described} holds no bare key", "it must be one line, the key alone"
        )
    return Secret(text)


def unreadable(account: str, problem: str, hint: str = "") -> CredentialError:
    return CredentialError(Failure.SECRET, f"account {account}: {problem}", account=account, hint=hint)


class _ReadOnly:
    can_write = False

    def __init__(self, described: str, account: str) -> None:
        self.described = described
        self.place = described
        self.account = account

    def read_nowait(self) -> bytes | None:
        return None

    async def write(self, data: bytes) -> None:  # noqa: ARG002
        raise unreadable(self.account, f"{self.described} cannot be written")

    def fingerprint_nowait(self) -> str:
        return ""

    def changed_at_nowait(self) -> float | None:
        return None


class FileSource:
    """A private file, replaced atomically; the last contents stay beside it as PATH.1 to PATH.3."""

    can_write = True

    def __init__(self, path: Path, account: str, hint: str = "", sealer: Sealer | None = None) -> None:
        self.path = Path(os.path.abspath(path))  # noqa: PTH100  (no links are followed: they are refused later)
        self.account = account
        self.described = str(self.path)
        self.place = f"file {self.path}"
        self._hint = hint
        self._sealer = sealer

    def read_nowait(self) -> bytes | None:
        data = self._read()
        if not is_sealed(data):
            return data
        return self._sealer.open_nowait(data) if self._sealer else None

    def _read(self) -> bytes:
        try:
            return files.read_private(self.path, limit=MAX_SECRET)
        except FileRefused as error:
            hint = error.hint
            if error.missing:
                hint = (
                    self._hint
                    or f"put the secret there: install -m 600 /dev/stdin {shlex.quote(self.described)}"
                )
            raise unreadable(self.account, error.message, hint) from None

    async def read(self) -> bytes:
        data = self._read()  # small, and ours: 0.1 ms
        if not is_sealed(data):
            return data
        sealer = self._sealer or Sealer(self.path.parent)
        return await sealer.wait_open(data, self.described, self.account)

    async def write(self, data: bytes, *, generations: int = GENERATIONS) -> None:
        if self._sealer is not None:
            data = await self._sealer.wait_seal(data, self.path, self.account)
        try:
            await asyncio.to_thread(files.atomic_write, self.path, data, generations=generations)
        except (OSError, FileRefused) as error:
            reason = error.message if isinstance(error, FileRefused) else error.strerror
            hint = getattr(error, "hint", "") or f"see the disk: df {shlex.quote(str(self.path.parent))}"
            raise unreadable(self.account, f"cannot write {self.described}: {reason}", hint) from None

    def fingerprint_nowait(self) -> str:
        try:
            info = self.path.lstat()
        except OSError:
            return "missing"
        return f"{info.st_ino}:{info.st_mtime_ns}:{info.st_size}:{info.st_mode}:{info.st_uid}"

    def changed_at_nowait(self) -> float | None:
        try:
            return self.path.lstat().st_mtime
        except OSError:
            return None


class EnvSource(_ReadOnly):
    """A variable of the daemon's own environment, as it was at start."""

    def __init__(self, name: str, account: str, environ: Mapping[str, str]) -> None:
        super().__init__(f"environment variable {name}", account)
        self._name = name
        self._environ = environ

    def read_nowait(self) -> bytes:
        value = self._environ.get(self._name, "")
        if not value:
            hint = (
                f"give it to the daemon: systemctl --user edit gemini-pool (Environment={self._name}=…), then restart; "
                f"or keep the secret in a file"
            )
            raise unreadable(self.account, f"{self.described} is not set", hint)
        return value.encode("utf-8", "surrogateescape")

    async def read(self) -> bytes:
        return self.read_nowait()


class SystemdSource(_ReadOnly):
    """A credential that systemd put into $CREDENTIALS_DIRECTORY (LoadCredential=, SetCredentialEncrypted=)."""

    def __init__(self, name: str, account: str, environ: Mapping[str, str]) -> None:
        super().__init__(f"systemd credential {name}", account)
        self._name = name
        self._environ = environ

    def read_nowait(self) -> bytes:
        folder = self._environ.get("CREDENTIALS_DIRECTORY", "")
        hint = f"systemctl --user edit gemini-pool (LoadCredential={self._name}:PATH), then restart"
        if not folder:
            raise unreadable(self.account, f"{self.described}: the daemon was given no credentials", hint)
        if "/" in self._name or self._name in {".", ".."}:
            raise unreadable(self.account, f"{self.described}: not a credential's name", hint)
        try:
            return files.read_trusted(Path(folder) / self._name, limit=MAX_SECRET)
        except FileRefused as error:
            hint = hint if error.missing else error.hint
            raise unreadable(self.account, f"{self.described}: {error.message}", hint) from None

    async def read(self) -> bytes:
        return self.read_nowait()


class CommandSource(_ReadOnly):
    """The standard output of a program, run without a shell each time the secret is needed."""

    def __init__(self, argv: tuple[str, ...], account: str, environ: Mapping[str, str]) -> None:
        super().__init__(
            f"command {argv[0]}", account
        )  # arguments may name what is private: they are not shown
        self.place = f"command {shlex.join(argv)}"
        self._argv = argv
        self._environ = environ

    async def read(self) -> bytes:
        environ = {name: value for name, value in self._environ.items() if name not in OWN_VARIABLES}
        try:
            process = await asyncio.create_subprocess_exec(
                *self._argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,  # it may hold what we must not log
                env=environ,
                start_new_session=True,
            )
        except OSError as error:
            hint = f"see whether it is installed: command -v {shlex.quote(self._argv[0])}"
            raise self._failed(f"cannot run: {error.strerror}", hint) from None
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT_S):
                output, _ = await process.communicate()
        except TimeoutError:
            raise self._failed(f"no answer in {COMMAND_TIMEOUT_S:g} s") from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        if process.returncode:
            raise self._failed(f"exit status {process.returncode}")
        if len(output) > MAX_SECRET:
            raise self._failed(f"more than {MAX_SECRET} bytes of output")
        return output

    def _failed(self, problem: str, hint: str = "") -> CredentialError:
        return unreadable(
            self.account, f"{self.described}: {problem}", hint or "try it by hand, as this user"
        )


class KeyringSource:
    """An entry of the desktop's keyring (Secret Service, Keychain) through the optional `keyring` package."""

    can_write = True

    def __init__(self, name: str, account: str) -> None:
        self._service, _, self._user = name.partition("/")
        self.account = account
        self.described = f"keyring entry {name}"
        self.place = self.described

    def read_nowait(self) -> None:
        return None

    async def read(self) -> bytes:
        value = await self._call("get_password", self._service, self._user)
        if value is None:
            hint = f"put it there: keyring set {shlex.quote(self._service)} {shlex.quote(self._user)}"
            raise unreadable(self.account, f"{self.described} does not exist", hint)
        return str(value).encode()

    async def write(self, data: bytes) -> None:
        await self._call("set_password", self._service, self._user, data.decode())

    def fingerprint_nowait(self) -> str:
        return ""

    def changed_at_nowait(self) -> float | None:
        return None

    async def _call(self, name: str, *arguments: str) -> Any:
        def work() -> Any:
            import keyring  # an extra: 55 ms to find its backend

            return getattr(keyring, name)(*arguments)

        try:
            async with asyncio.timeout(KEYRING_TIMEOUT_S):
                return await _in_daemon_thread(work)
        except TimeoutError:
            problem, hint = (
                "the keyring does not answer",
                "unlock it (log in at the screen), or keep it in a file",
            )
        except ImportError:
            problem, hint = "no keyring support is installed", "pip install 'gemini-pool[keyring]'"
        except Exception as error:  # noqa: BLE001  (every backend of the package has errors of its own)
            problem, hint = f"the keyring failed ({type(error).__name__})", "keyring diagnose"
        raise unreadable(self.account, f"{self.described}: {problem}", hint)


class InlineSource(_ReadOnly):
    """A credential that stands inside another one's file (`source_credentials`)."""

    def __init__(self, data: bytes, described: str, account: str) -> None:
        super().__init__(described, account)
        self._data = data

    def read_nowait(self) -> bytes:
        return self._data

    async def read(self) -> bytes:
        return self._data


async def _in_daemon_thread(work: Callable[[], T]) -> T:
    """Runs what may hang for good in a thread that nobody waits for at exit (an executor's threads are waited for)."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(set_result: Callable[[Any], None], value: Any) -> None:
        if not future.done():
            set_result(value)

    def run() -> None:
        try:
            outcome: tuple[Callable[[Any], None], Any] = (future.set_result, work())
        except BaseException as error:  # noqa: BLE001  (a thread's edge: it goes to the waiting task)
            outcome = (future.set_exception, error)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=run, name="keyring", daemon=True).start()
    return await future
