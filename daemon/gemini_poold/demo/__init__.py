"""`gemini-pool demo`: a daemon, a Google of our own and some traffic in a temporary folder; no account, no root.

This file is the verb: arguments, the order of things, the end of things. The stage is `scene.py`, the two clients are
`load.py`, the daemon's process is `process.py`, what is seen of it all `show.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from gemini_pool import AsyncPool, PoolError
from gemini_poold.fake import FakeGoogle

from . import scene, show
from .load import Editor, Load, Script
from .process import DaemonProcess

SECONDS = 14.0
_SOCKET_PATH_MAX = 90  # the system's limit is a little above 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The demo's arguments, onto `parser`."""
    parser.add_argument(
        "--keep", action="store_true", help="stay up afterwards and print how to point tools here"
    )
    parser.add_argument("--plain", action="store_true", help="lines instead of a display, on a terminal, too")
    parser.add_argument(
        "--seconds",
        type=_seconds,
        default=SECONDS,
        metavar="N",
        help=f"how long to send requests (default: {SECONDS:g})",
    )


def main(args: argparse.Namespace) -> int:
    """Run the demo. 0: every request of every client was answered; 1: not so; 130: stopped by Ctrl-C."""
    try:
        return asyncio.run(_until_stopped(args))
    except asyncio.CancelledError:
        return 130


def _seconds(text: str) -> float:
    value = float(text)
    if not 1 <= value <= 3600:
        raise argparse.ArgumentTypeError("between 1 and 3600")
    return value


async def _until_stopped(args: argparse.Namespace) -> int:
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel)
    folder = _folder()
    try:
        return await run(args, folder, scene.Play(args.seconds))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _folder() -> Path:
    """A private folder whose socket path fits the system's limit."""
    folder = Path(tempfile.mkdtemp(prefix="gp-demo-"))
    if len(str(scene.Places(folder).socket)) > _SOCKET_PATH_MAX:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="gp-demo-", dir="/tmp"))
    return folder


async def run(args: argparse.Namespace, folder: Path, play: scene.Play) -> int:
    """The whole demo in `folder`, as main does it; its exit code."""
    places = scene.Places(folder)
    async with contextlib.AsyncExitStack() as stack:
        google = await stack.enter_async_context(FakeGoogle(play.world))
        places.write(play, google.endpoints())
        view = stack.enter_context(show.view(sys.stdout, plain=args.plain, seconds=args.seconds))
        view.note("a Google of our own answers on " + google.url)
        daemon = await stack.enter_async_context(DaemonProcess(places))
        pool = await stack.enter_async_context(AsyncPool(places.socket, name="demo"))
        try:
            started_s = await daemon.wait_ready(pool)
        except PoolError as error:
            view.note(f"the daemon did not start: {error.message}\n{daemon.last_words()}")
            return 1
        info = await pool.info()
        view.note(f"the daemon is up after {started_s:.1f} s: {places.socket} and {info.gateway_url}")
        clients = (Editor(places.socket), Script(info.gateway_url, places.local_key()))
        try:
            failed = await _perform(play, google, pool, clients, view, args.seconds)
        except PoolError as error:
            view.note(f"the daemon is gone: {error.message}\n{daemon.last_words()}")
            return 1
        if args.keep:
            view.say(show.pointers(info.gateway_url, places))
            await daemon.wait_end()
        return 1 if failed else 0


async def _perform(
    play: scene.Play,
    google: FakeGoogle,
    pool: AsyncPool,
    clients: tuple[Load, ...],
    view: show.View,
    seconds: float,
) -> bool:
    """The play itself; whether a client saw a failure. The curtain falls with the table."""
    begun = time.monotonic()
    watcher = show.Watcher(view, pool, google, clients)
    async with watcher, contextlib.AsyncExitStack() as stack:
        for client in clients:
            await stack.enter_async_context(client)
        play.begin(google, view.note)
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(client.run(until=begun + seconds))
    status = await pool.status()
    view.close()
    failed = sum(client.failed for client in clients)
    view.say(show.table(status, google, clients, elapsed_s=time.monotonic() - begun))
    return bool(failed) or not all(client.answered for client in clients)


__all__ = ["add_arguments", "main"]
