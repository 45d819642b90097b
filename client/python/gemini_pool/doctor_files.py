"""Doctor's look at the disk: folders and their modes, secrets, the two configuration files, free space."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shlex
import shutil
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from gemini_pool.doctor import Finding, Patient, Severity

LOW_BYTES = 100 * 1024 * 1024


def folders(p: Patient) -> Iterator[Finding]:
    """Ours, and closed to others."""
    bad = False
    for path in (p.where.config_dir, p.where.state_dir, p.where.secrets_dir, p.where.socket.parent):
        for finding in _folder(path):
            bad = True
            yield finding
    if not bad:
        yield Finding("folders", "ok", "the folders are private")


def _folder(path: Path) -> Iterator[Finding]:
    try:
        info = path.lstat()
    except FileNotFoundError:
        return
    where = shlex.quote(str(path))
    if stat.S_ISLNK(info.st_mode) or not stat.S_ISDIR(info.st_mode):
        yield Finding(
            "folders", "error", f"{path} is no folder of its own", f"mv {where} {where}.old", runs=True
        )
    elif info.st_uid != os.geteuid():
        mend = f"sudo chown {os.geteuid()} {where}"
        yield Finding("folders", "error", f"{path} belongs to user id {info.st_uid}", mend, runs=True)
    elif info.st_mode & 0o077:
        text = f"{path} is open to others (mode {stat.S_IMODE(info.st_mode):04o})"
        yield Finding("folders", "error", text, f"chmod 700 {where}", runs=True)


def secrets(p: Patient) -> Iterator[Finding]:
    """Each account's secret, as far as it can be looked at without reading it."""
    bad = False
    for account in p.accounts if isinstance(p.accounts, list) else []:
        for finding in _secret(p, account):
            bad = True
            yield finding
    for path in (p.where.state_dir / "gateway.key", p.where.database):
        for finding in _private(path, ""):
            bad = True
            yield finding
    if not bad:
        yield Finding("secrets", "ok", "secrets are where they should be, and private")


def _secret(p: Patient, account: Any) -> Iterator[Finding]:
    try:
        name, credential = str(account["id"]), account["credential"]
        secret = credential.get("secret") or {}
    except (TypeError, LookupError, AttributeError):
        return  # the judgement of the files is another check's
    if "file" in secret:
        path = Path(os.path.expanduser(str(secret["file"])))  # noqa: PTH111  (a path that has no home stays)
        path = path if path.is_absolute() else p.where.state_dir / path
        if not os.path.lexists(path):
            login = credential.get("type") == "oauth"
            mend = f"gemini-pool login {shlex.quote(name)}" if login else f"write it to {path}, mode 0600"
            text = f"{name}: its secret is not there: {path}"
            yield Finding("secrets", "error", text, mend, runs=login, account=name)
        yield from _private(path, name)
    elif "env" in secret and p.info is None and str(secret["env"]) not in p.environ:
        text = (
            f"{name}: the variable {secret['env']} is not set here (a service has an environment of its own)"
        )
        mend = (
            f"set {secret['env']} for the daemon: systemctl --user edit gemini-pool, [Service], Environment=…"
        )
        yield Finding("secrets", "warning", text, mend, account=name)


def _private(path: Path, account: str) -> Iterator[Finding]:
    try:
        info = path.lstat()
    except OSError:
        return
    where, who = shlex.quote(str(path)), f"{account}: " if account else ""
    if stat.S_ISLNK(info.st_mode):
        mend = f"cp {where} {where}.new && chmod 600 {where}.new && mv {where}.new {where}"
        text = f"{who}{path} is a symbolic link, which is refused"
        yield Finding("secrets", "error", text, mend, runs=True, account=account)
    elif info.st_uid != os.geteuid():
        mend = f"sudo chown {os.geteuid()} {where}"
        text = f"{who}{path} belongs to user id {info.st_uid}"
        yield Finding("secrets", "error", text, mend, runs=True, account=account)
    elif info.st_mode & 0o077:
        text = f"{who}{path} is open to others (mode {stat.S_IMODE(info.st_mode):04o})"
        yield Finding("secrets", "error", text, f"chmod 600 {where}", runs=True, account=account)


def configuration(p: Patient) -> Iterator[Finding]:
    """The files as the daemon judges them; without its packages, as TOML."""
    if importlib.util.find_spec("gemini_poold") is None:
        yield from _as_toml(p)
        return
    line = [sys.executable, "-P", "-m", "gemini_poold", "config", "check", "--json"]
    done = subprocess.run(line, env=dict(p.environ), capture_output=True, timeout=30, check=False)
    try:
        errors = msgspec.json.decode(done.stdout, type=list[dict[str, Any]])
    except msgspec.DecodeError:
        why = done.stderr.decode(errors="replace").strip().splitlines()
        yield Finding(
            "configuration", "error", f"the configuration cannot be judged: {why[-1] if why else ''}"
        )
        return
    for error in errors:
        file, number = error["file"], error["line"]
        at = f"{file}:{number}" if number else str(file)
        mend = f"edit {at}" + (f": {error['hint']}" if error["hint"] else "")
        severity: Severity = "warning" if error.get("warning") else "error"
        yield Finding("configuration", severity, f"{at}: {error['message']}", mend)
    if not errors:
        yield Finding("configuration", "ok", "config.toml and accounts.toml are valid")


def _as_toml(p: Patient) -> Iterator[Finding]:
    bad = False
    for path in (p.where.config_file, p.where.accounts_file):
        try:
            with contextlib.suppress(FileNotFoundError):
                tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            bad = True
            yield Finding("configuration", "error", f"{path}: {error}", f"edit {path}")
    if not bad:
        yield Finding("configuration", "ok", "config.toml and accounts.toml are TOML")


def disk(p: Patient) -> Iterator[Finding]:
    """Room for the state; a rotated login that cannot be written is lost."""
    folder = p.where.state_dir
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < LOW_BYTES:
        yield Finding("disk", "error", f"{folder} has {free // 2**20} MiB left", f"make room on {folder}")
    elif not os.access(folder, os.W_OK):
        yield Finding("disk", "error", f"{folder} cannot be written to", f"mount it writable: {folder}")
    else:
        yield Finding("disk", "ok", f"{free // 2**20} MiB left")


CHECKS = [folders, secrets, configuration, disk]
