"""The person's side of a login at the terminal: the risk to accept, the browser or the address, the answer by redirect or
pasted. Speaks on standard error, so that standard output is the result alone.

While the daemon listens for the browser, an answer may be pasted all the same: over SSH nobody knows beforehand which
way it will come. What was pasted is never printed.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gemini_pool import wire
from gemini_pool.errors import PoolError

TRIES = 5  # pasted texts that are no answer
_MEND = frozenset({"bad_request", "upstream_error"})  # after which another paste may still be the right one
_SETTLE_S = 0.3
_READ = 65_536


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# ---- the risk of another program's client ---------------------------------------------------------------------------


def consenting(ask: Callable[[str], Any], accepted: str) -> Any:
    """Do it; where the risk of another program's client must be accepted first, show its wording and ask a person."""
    try:
        return ask(accepted)
    except PoolError as error:
        details = error.details if isinstance(error.details, dict) else {}
        wording, name = str(details.get("wording", "")), str(details.get("accept_terms_risk", ""))
        if error.code != "blocked_by_terms" or not wording or not name or accepted:
            raise
        if not confirmed(wording, name):
            hint = f"an OAuth client of your own (--client-secrets FILE), or --accept-terms-risk {name}"
            raise PoolError(error.code, error.message, hint=hint, details=details) from None
        return ask(name)


def confirmed(wording: str, name: str) -> bool:
    """Show the wording; whether a person typed yes. Without a terminal nobody is asked, and it is no."""
    say(f"\n  {wording}\n")
    if not sys.stdin.isatty():
        say(f"Whoever has read this and accepts it adds: --accept-terms-risk {name}")
        return False
    print('Type "yes" to accept this, on record: ', end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() == "yes"


# ---- the browser ----------------------------------------------------------------------------------------------------


def is_remote(environ: Mapping[str, str]) -> bool:
    return any(environ.get(name) for name in ("SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY"))


def has_browser(environ: Mapping[str, str], platform: str = sys.platform) -> bool:
    """Whether a browser that is opened here would be seen by who typed the command."""
    seen = platform == "darwin" or environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY")
    return bool(seen) and not is_remote(environ)


def _open(url: str) -> bool:
    """Open a browser; what it says must not get into our standard output."""
    import webbrowser

    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        return webbrowser.open(url)
    except webbrowser.Error:
        return False
    finally:
        os.dup2(kept, 1)
        os.close(kept)


# ---- the answer -----------------------------------------------------------------------------------------------------


def finish(pool: Any, started: wire.LoginStarted, *, browse: bool) -> wire.LoginResult:
    """Bring the person to Google's page and take what comes back, whichever way it comes. Raises PoolError."""
    opened = browse and bool(started.port) and has_browser(os.environ) and _open(started.url)
    _say_where(started, opened=opened)
    waiting = _Waiting(lambda: pool.login_finish(started.login)) if started.port else None
    tries, failed = 0, PoolError("login_required", "nothing was pasted", hint="start the login again")
    # With a browser of our own, standard input is a person's or nobody's: a script's is left alone.
    lines = _lines(waiting.fd if waiting else None) if not opened or sys.stdin.isatty() else iter(())
    for line in lines:
        try:
            result: wire.LoginResult = pool.login_finish(started.login, line)
        except PoolError as error:
            if waiting is not None and waiting.over(
                _SETTLE_S
            ):  # it ended the login, which the wait tells, too
                break
            tries, failed = tries + 1, error
            if error.code not in _MEND or tries == TRIES:
                raise
            say(f"{error.message}{f' ({error.hint})' if error.hint else ''}")
        else:
            return result
    if waiting is None:
        raise failed
    return waiting.result()


def _say_where(started: wire.LoginStarted, *, opened: bool) -> None:
    if opened:
        say("Your browser was sent to this address:")
    else:
        say("Open this address in a browser:")
    say(started.url)
    if opened:
        return
    say("Then paste the address that the browser ends up at (an error page is fine), or the code:")
    if started.port and is_remote(os.environ):
        port, host = started.port, socket.gethostname() or "HOST"
        say(f"(with this tunnel nothing needs to be pasted: ssh -L {port}:127.0.0.1:{port} {host})")


class _Waiting:
    """The wait for the browser, on a thread of its own. `fd` becomes readable when it is over."""

    def __init__(self, ask: Callable[[], wire.LoginResult]) -> None:
        self._ask = ask
        self._result: wire.LoginResult | Exception | None = None
        self.fd, self._end = os.pipe()
        threading.Thread(target=self._run, name="wait for the browser", daemon=True).start()

    def _run(self) -> None:
        try:
            self._result = self._ask()
        except Exception as error:  # noqa: BLE001  (the thread's edge: raised where it is waited for)
            self._result = error
        os.close(self._end)

    def over(self, within_s: float | None) -> bool:
        return bool(select.select([self.fd], [], [], within_s)[0])

    def result(self) -> wire.LoginResult:
        self.over(None)
        if isinstance(self._result, Exception):
            raise self._result
        assert self._result is not None
        return self._result


def _lines(stop: int | None) -> Iterator[str]:
    """What comes on standard input, line by line, until `stop` is readable. Read without a buffer, which would keep
    `select` from seeing what is there."""
    try:
        source = sys.stdin.fileno()
    except (OSError, ValueError, AttributeError):  # closed, or none at all
        return
    kept = b""
    while True:
        ready, _, _ = select.select([source] if stop is None else [source, stop], [], [])
        if stop in ready:
            return
        data = os.read(source, _READ)
        *whole, kept = (kept + data).split(b"\n")
        for line in [*whole, *([] if data else [kept])]:
            if text := line.decode("utf-8", "replace").strip():
                yield text
        if not data:
            return
