"""The real daemon as a subprocess in a folder of its own, and a fake Google on a thread, for end-to-end tests.

    with fake_google(world) as fake, DaemonProcess(tmp, fake=fake, accounts=ACCOUNTS) as daemon:
        with daemon.pool() as pool:
            pool.generate(...)

Whatever the daemon wrote to stderr is in `daemon.log`; it is printed when a test fails (pytest shows captured output).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from gemini_pool import Pool
from gemini_pool.errors import PoolError
from gemini_poold.fake import FakeGoogle, World

ROOT = Path(__file__).parents[2]
PATIENCE_S = 20.0


@contextlib.contextmanager
def fake_google(world: World | None = None) -> Iterator[FakeGoogle]:
    """A fake Google on a loop and thread of its own. Change its world, faults and record between requests only."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="fake Google", daemon=True)
    thread.start()

    def on_loop(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(PATIENCE_S)

    fake = FakeGoogle(world)
    on_loop(fake.start())
    fake.on_loop = on_loop  # type: ignore[attr-defined]
    try:
        yield fake
    finally:
        on_loop(fake.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE_S)
        loop.close()


def api_key_account(name: str, **more: Any) -> str:
    """An `[[account]]` with an API key from the variable KEY_<NAME>."""
    lines = [f'id = "{name}"', 'backend = "developer-api"']
    lines.append(f'credential = {{ type = "api-key", secret = {{ env = "{key_variable(name)}" }} }}')
    lines += [f"{key} = {_toml(value)}" for key, value in more.items()]
    return "\n".join(["[[account]]", *lines, ""])


def key_variable(name: str) -> str:
    return "KEY_" + name.upper().replace("-", "_").replace(".", "_")


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else str(value)


class DaemonProcess:
    """`python -m gemini_poold run` with its own folders. `config` is added to a config.toml that points to the fake."""

    def __init__(
        self,
        folder: Path,
        *,
        fake: FakeGoogle | None = None,
        accounts: str = "",
        config: str = "",
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.config_dir = folder / "config"
        self.state_dir = folder / "state"
        for path in (self.config_dir, self.state_dir, self.state_dir / "secrets"):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A socket's path has an end, and pytest's folders are long.
        self._run_dir = Path(tempfile.mkdtemp(prefix="gp-"))
        weakref.finalize(self, shutil.rmtree, self._run_dir, ignore_errors=True)
        self.socket = self._run_dir / "pool.sock"
        self.config_file = self.config_dir / "config.toml"
        self.accounts_file = self.config_dir / "accounts.toml"
        self.config_file.write_text(self._config(fake, config), encoding="utf-8")
        self.accounts_file.write_text(accounts, encoding="utf-8")
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("GEMINI_", "GOOGLE_"))},
            "GEMINI_POOL_CONFIG_DIR": str(self.config_dir),
            "GEMINI_POOL_STATE_DIR": str(self.state_dir),
            "GEMINI_POOL_SOCKET": str(self.socket),
            "PYTHONPATH": os.pathsep.join([str(ROOT / "daemon"), str(ROOT / "client" / "python")]),
            "PYTHONUNBUFFERED": "1",
            **({key_variable(k.name): k.key for k in fake.world.keys.values()} if fake else {}),
            **(env or {}),
        }
        self._log_file = folder / "daemon.log"
        self.process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def _config(fake: FakeGoogle | None, more: str) -> str:
        lines = [] if "[gateway]" in more else ["[gateway]", 'listen = "127.0.0.1:0"', ""]
        if fake is not None:
            lines += ["[endpoints]", *(f'{name} = "{url}"' for name, url in fake.endpoints().items()), ""]
        return "\n".join(lines) + more

    # ---- life ------------------------------------------------------------------------------------------------

    def __enter__(self) -> DaemonProcess:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if kind is not None:
            print(f"---- the daemon said:\n{self.log}----")

    def start(self, *, ready: bool = True) -> None:
        """Start it; by default wait until its socket answers."""
        with self._log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gemini_poold", "run"], env=self.env, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, cwd=self.state_dir,
            )  # fmt: skip
        if ready:
            self.wait_ready()

    def wait_ready(self) -> None:
        """Until the socket answers; raises when the process ends before."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            assert self.process is not None
            code = self.process.poll()
            assert code is None, f"the daemon ended with {code}:\n{self.log}"
            with contextlib.suppress(PoolError), self.pool(connect_s=0.0) as pool:
                pool.info()
                return
            time.sleep(0.02)
        raise AssertionError(f"the daemon did not get ready:\n{self.log}")

    def wait_logged(self, text: str) -> str:
        """Until the log has `text`; the log."""
        deadline = time.monotonic() + PATIENCE_S
        while text not in (log := self.log):
            assert time.monotonic() < deadline, log
            time.sleep(0.02)
        return log

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to end; its exit code."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    # ---- what tests ask --------------------------------------------------------------------------------------

    @property
    def log(self) -> str:
        return self._log_file.read_text(encoding="utf-8", errors="replace") if self._log_file.exists() else ""

    @property
    def key(self) -> str:
        """The gateway's local key."""
        return (self.state_dir / "gateway.key").read_text(encoding="utf-8").strip()

    @property
    def url(self) -> str:
        """The loopback gateway."""
        with self.pool() as pool:
            return pool.info().gateway_url

    def pool(self, **given: Any) -> Pool:
        """A blocking client."""
        return Pool(self.socket, **given)

    def write_secret(self, name: str, text: str, *, mode: int = 0o600) -> Path:
        path = self.state_dir / "secrets" / name
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)
        return path

    def command(self, *args: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run `gemini-pool ARGS` against this daemon."""
        return subprocess.run(
            [sys.executable, "-m", "gemini_pool.cli", *args], env=self.env, input=stdin, text=True,
            capture_output=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
