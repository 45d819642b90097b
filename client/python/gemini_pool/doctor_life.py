"""Doctor's look at the daemon: sockets, who serves them, the unit, the port, versions, and each account's state."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from gemini_pool import service, wire
from gemini_pool.doctor import Finding, Patient, Severity
from gemini_pool.errors import NotRunning
from gemini_pool.service_files import PORT

_LATER = frozenset({"starting", "offline"})


def daemon(p: Patient) -> Iterator[Finding]:
    """Does one answer, and only one."""
    path = shlex.quote(str(p.where.socket))
    if p.info is not None:
        yield Finding("daemon", "ok", f"pid {p.info.pid} serves {p.info.socket}")
    elif not isinstance(p.trouble, NotRunning):
        yield Finding("daemon", "error", f"{p.where.socket}: {p.trouble}", "gemini-pool logs", runs=True)
    elif p.where.socket.is_socket():
        text = f"nobody answers at {p.where.socket}: a daemon was killed"
        yield Finding("daemon", "error", text, f"rm {path}", runs=True)
    elif os.path.lexists(p.where.socket):
        yield Finding("daemon", "error", f"{p.where.socket} is no socket", f"rm {path}", runs=True)
    else:
        yield Finding("daemon", "error", "no daemon runs", _start_words(), runs=True)
    for pid in _daemons():
        if p.info is not None and pid != p.info.pid:
            text = f"pid {pid} is a second daemon of yours: both would renew the same logins"
            yield Finding("daemon", "warning", text, f"kill {pid}", runs=True)


def _start_words() -> str:
    from gemini_pool.connect import start_hint

    found = re.search(r"`([^`]*)`", start_hint())
    return found[1] if found else "gemini-pool run"


def _daemons() -> list[int]:
    """Processes of this user that run a daemon, where /proc tells."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if folder.stat().st_uid not in (os.geteuid(), 0):  # a hidden process's folder is root's
                continue
            words = (folder / "cmdline").read_bytes().split(b"\0")
            uid = re.search(r"^Uid:\s+(\d+)", (folder / "status").read_text(), re.MULTILINE)
        except OSError:
            continue
        if uid and int(uid[1]) == os.geteuid() and b"gemini_poold" in words and b"run" in words:
            found.append(int(folder.name))
    return sorted(found)


def unit(p: Patient) -> Iterator[Finding]:
    """Installed, not failed, and its command still there."""
    manager = service.pick(environ=p.environ)
    state = manager.state()
    if not state["installed"]:
        if manager.name == "none":
            yield Finding("service", "note", "no service manager is here: the daemon is yours to start")
        else:
            severity: Severity = "note" if p.info is not None else "warning"
            text = f"the service is not installed ({manager.name})"
            yield Finding("service", severity, text, "gemini-pool service install", runs=True)
        return
    words = state["command"]
    if words and not shutil.which(words[0]):
        text = f"the unit starts {words[0]}, which is gone (Python or the tool was replaced)"
        yield Finding("service", "error", text, "gemini-pool service install", runs=True)
    elif gone := _interpreter_gone(words):
        text = f"the unit starts {words[0]}, whose interpreter {gone} is gone"
        mend = "install gemini-pool again (`pipx reinstall gemini-pool`), then: gemini-pool service install"
        yield Finding("service", "error", text, mend)
    elif state["active"] == "failed":
        why = state.get("status") or f"exit {state['exit']}"
        mend = (
            "systemctl --user reset-failed gemini-pool.service && systemctl --user start gemini-pool.service"
        )
        yield Finding("service", "error", f"the unit has failed: {why}", mend, runs=True)
    elif state["active"] != "active":
        mend = (
            "systemctl --user start gemini-pool"
            if manager.name == "systemd"
            else "gemini-pool service install"
        )
        yield Finding("service", "warning", "the service is installed and does not run", mend, runs=True)
    elif p.info is not None and p.info.pid != state["pid"]:
        text = f"the service is pid {state['pid']}, and pid {p.info.pid} serves the socket"
        yield Finding("service", "error", text, f"kill {p.info.pid}", runs=True)
    elif state.get("reload_needed"):
        text = "the unit's file is newer than what systemd has read"
        yield Finding("service", "warning", text, "systemctl --user daemon-reload", runs=True)
    else:
        yield Finding("service", "ok", f"{manager.name} runs it as pid {state['pid']}")


def _interpreter_gone(words: list[str]) -> str:
    """The interpreter of a script's first line, if it is not there; "" otherwise."""
    try:
        with open(words[0], "rb") as file:  # noqa: PTH123
            first = file.readline(512)
    except (OSError, IndexError):
        return ""
    if not first.startswith(b"#!"):
        return ""
    name = first[2:].split()[0].decode(errors="replace") if first[2:].split() else ""
    return name if name and not os.path.exists(name) else ""  # noqa: PTH110


def port(p: Patient) -> Iterator[Finding]:
    """The gateway's loopback port: served by us, or by whom."""
    mend = 'choose another in config.toml: [gateway] listen = "127.0.0.1:8791"; then: gemini-pool service install'
    if p.info is not None:
        if p.info.gateway_error:
            yield Finding("gateway", "error", f"the gateway has no port: {p.info.gateway_error}", mend)
        elif p.info.gateway_url:
            yield Finding("gateway", "ok", p.info.gateway_url)
        return
    listen = service.gateway_listen(p.where)
    host, _, number = listen.rpartition(":")
    if not number.isdecimal() or _held_by_systemd(p):
        return
    try:
        socket.create_connection((host.strip("[]"), int(number)), timeout=1.0).close()
    except OSError:
        return
    yield Finding("gateway", "error", f"another program listens on {listen}", mend)


def _held_by_systemd(p: Patient) -> bool:
    sockets = service.pick(environ=p.environ).state().get("sockets", {})
    return bool(sockets.get(PORT) == "active")


def versions(p: Patient) -> Iterator[Finding]:
    """Command and daemon of one version: an upgrade takes effect with the next start."""
    if p.info is None:
        return
    if p.info.version == wire.VERSION:
        yield Finding("versions", "ok", f"gemini-pool {wire.VERSION}, Python {sys.version.split()[0]}")
        return
    text = f"this command is {wire.VERSION}, the daemon {p.info.version}"
    words = {"systemd": "systemctl --user restart gemini-pool"}
    words["launchd"] = f"launchctl kickstart -k gui/{os.getuid()}/gemini-pool"
    mend = words.get(p.info.supervised, f"kill {p.info.pid}; gemini-pool run")
    severity: Severity = "warning" if p.info.protocol == wire.PROTOCOL else "error"
    yield Finding("versions", severity, text, mend, runs=True)


def accounts(p: Patient) -> Iterator[Finding]:
    """Each account as the daemon sees it, or as one call has just shown."""
    if p.status is None:
        return
    for error in p.status.config_errors:
        yield Finding("accounts", "error", f"{error.file}:{error.line}: {error.message}", error.hint)
    if not p.status.accounts:
        yield Finding("accounts", "warning", "there are no accounts", "gemini-pool login ID")
    for one in p.status.accounts:
        if one.state in ("ready", "disabled", "paused"):
            yield Finding("accounts", "ok", f"{one.id} is {one.state}", account=one.id)
            continue
        mend = one.hint or "gemini-pool account verify " + shlex.quote(one.id)
        severity: Severity = "warning" if one.state in _LATER else "error"
        text = f"{one.id}: {one.state}" + (f": {one.reason}" if one.reason else "")
        runs = mend.startswith("gemini-pool ") and not re.search(r"[;,(]", mend)
        yield Finding("accounts", severity, text, mend, runs=runs, account=one.id)
    for row in p.verdicts or ():
        verdict = row.verdict
        if verdict.ok:
            yield Finding("probe", "ok", f"{verdict.account} answered", account=verdict.account)
        else:
            text = f"{verdict.account}: {verdict.state}: {verdict.reason}"
            yield Finding("probe", "error", text, verdict.next, account=verdict.account)


CHECKS = [daemon, unit, port, versions, accounts]
