"""`gemini-pool logs`: the daemon's log, from wherever its manager keeps it; and how much the daemon says."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping

from gemini_pool import service, service_files
from gemini_pool.errors import PoolError

LEVELS = ("debug", "info", "warning", "error")


def command(
    environ: Mapping[str, str], *, lines: int, follow: bool, manager: str = "", as_json: bool = False
) -> list[str]:
    """The words that show the log. Raises `PoolError` where nobody keeps one, or not with its fields."""
    found = service.pick(manager, environ)
    if found.name == "systemd":
        # For a root's manager the journal knows the unit by another field.
        unit = (
            ["--user-unit", service_files.SERVICE]
            if os.geteuid() == 0
            else ["--user", "--unit", service_files.SERVICE]
        )
        more = [*(["--follow"] if follow else []), *(["--output", "json"] if as_json else [])]
        return ["journalctl", *unit, "--lines", str(lines), "--no-pager", *more]
    if found.name == "launchd" and as_json:
        raise PoolError("bad_request", "launchd keeps lines of text; JSON is for systemd's journal")
    if found.name == "launchd":
        return ["tail", "-n", str(lines), *(["-F"] if follow else []), str(service_files.log_file(environ))]
    raise PoolError(
        "not_found",
        "no service manager is here, so nobody keeps the daemon's log",
        hint="it goes to standard error of `gemini-pool run`",
    )


def tail(environ: Mapping[str, str], lines: int) -> str:
    """The last lines as text, for the support archive; why there are none, otherwise."""
    from gemini_pool.service_systemd import run

    try:
        done = run(*command(environ, lines=lines, follow=False))
    except PoolError as error:
        return error.message + "\n"
    return done.stdout or done.stderr


def main(options: argparse.Namespace) -> int:
    if options.level:
        from gemini_pool.commands import open_pool

        with open_pool(options) as pool:
            pool.call("daemon/logLevel", {"level": options.level})
        print(f"the daemon logs from {options.level} upwards, until it is reloaded or restarted")
        return 0
    words = command(
        os.environ, lines=options.lines, follow=options.follow, manager=options.manager, as_json=options.json
    )
    try:
        os.execvp(words[0], words)  # noqa: S606
    except OSError as error:
        raise PoolError("not_found", f"{words[0]}: {error.strerror}") from None
