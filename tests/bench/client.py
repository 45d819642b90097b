"""What the Python client costs a program that uses it, as ratios to a floor in the same run.

    python tests/bench/client.py [--check] [--rounds N]

`import`: a process that imports `gemini_pool`, to one that imports msgspec; what its `Pool` costs when it is first used
is shown beside it. `token`: the whole command
`gemini-pool token`, against a real daemon with a fake Google, to a process that imports argparse, msgspec and socket and
has one echo on a Unix socket. Rounds are interleaved and medians compared. `--check` exits with 1 above 1.3 of either, three times.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "daemon"), str(ROOT / "client" / "python")]

from tests.fakes.daemon import DaemonProcess, api_key_account, fake_google  # noqa: E402

from gemini_poold.fake import World  # noqa: E402

MAX_RATIO = 1.3
FLOOR = "import msgspec"
IMPORT = "import gemini_pool"
POOL = "import gemini_pool; gemini_pool.Pool"
ASYNC_FREE = "import sys, gemini_pool; gemini_pool.Pool; sys.exit('asyncio' in sys.modules)"
ECHO = (
    "import argparse, msgspec, socket, sys\n"
    "s = socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\ns.sendall(b'x' * 200)\ns.recv(4096)\n"
)
# What the console script does.
TOKEN = "import sys; from gemini_pool.cli import main; sys.exit(main())"


def run(env: dict[str, str], *command: str) -> float:
    """Seconds that this Python takes for it."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *command], env=env, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def compare(
    name: str, rounds: int, floor: tuple[str, ...], ours: tuple[str, ...], env: dict[str, str]
) -> float:
    """Print both medians in ms and their ratio."""
    run(env, *floor), run(env, *ours)  # byte code is written, pages are in memory
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        times[0].append(run(env, *floor))
        times[1].append(run(env, *ours))
    low, high = (statistics.median(found) for found in times)
    print(f"{name:<28} floor {low * 1e3:7.1f} ms   ours {high * 1e3:7.1f} ms   ratio {high / low:.2f}")
    return high / low


@contextlib.contextmanager
def echo(path: Path) -> Iterator[None]:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(64)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = listener.accept()
                with peer:
                    peer.sendall(peer.recv(4096))

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield
    finally:
        listener.close()


def measured(rounds: int, echoed: tuple[str, ...], env: dict[str, str]) -> float:
    """One table; the worst of the ratios that have a bound."""
    imported = compare("import", rounds, ("-c", FLOOR), ("-c", IMPORT), env)
    compare("import, and its Pool", rounds, ("-c", FLOOR), ("-c", POOL), env)
    return max(imported, compare("gemini-pool token", rounds, echoed, ("-c", TOKEN, "token"), env))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help=f"fail above {MAX_RATIO}")
    parser.add_argument("--rounds", type=int, default=41)
    options = parser.parse_args()
    world = World()
    world.add_api_key("key-a")
    with tempfile.TemporaryDirectory(prefix="gp-") as name, fake_google(world) as google:
        folder = Path(name)
        accounts = api_key_account("key-a", lend=True)
        with DaemonProcess(folder / "pool", fake=google, accounts=accounts) as daemon:
            env = {k: daemon.env[k] for k in daemon.env if not k.startswith("KEY_")}
            subprocess.run([sys.executable, "-c", ASYNC_FREE], env=env, check=True)
            with echo(folder / "echo.sock"):
                floor = ("-c", ECHO, str(folder / "echo.sock"))
                worst = measured(options.rounds, floor, env)
                for _ in range(2):  # a neighbour on the machine is not our slowness
                    if worst > MAX_RATIO:
                        worst = min(worst, measured(options.rounds, floor, env))
    print(f"worst ratio {worst:.2f}, at most {MAX_RATIO} wanted")
    return 1 if options.check and worst > MAX_RATIO else 0


if __name__ == "__main__":
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.exit(main())
