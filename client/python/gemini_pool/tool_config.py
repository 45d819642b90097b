"""`gemini-pool env --write` and `--undo`: our settings in the tools' own files, and out of them again.

A file is edited in place (comments stay), replaced atomically, and its original kept beside it until it is put back.
What was written where stands in a record in our state folder, so that undoing needs no daemon.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemini_pool import jsonc
from gemini_pool.environment import Gateway, dotenv_quoted
from gemini_pool.errors import PoolError

TOOLS = ("gemini-cli", "opencode")
BACKUP = ".before-gemini-pool"
_LARGEST = 4 << 20
_LINE = re.compile(r"\s*(?:#.*)?|\s*(?:export\s+)?(?P<name>[A-Za-z_][\w.]*)\s*=(?P<value>.*)")

_Members = dict[tuple[str, ...], Any]
# A file, and what became of it: written, unchanged, restored, cleaned, deleted.
Done = tuple[str, str]


@dataclass(frozen=True, slots=True, repr=False)
class Wanted:
    """Members of one file. `form` is "json" (with comments) or "dotenv"; `secret`: nobody else may read it."""

    path: Path
    form: str
    members: Mapping[tuple[str, ...], Any]
    secret: bool = False


@dataclass(slots=True)
class _Entry:
    """One file of the record. `mode` is None where there was no file; `digest` is that of what we wrote."""

    form: str
    members: list[list[str]]
    mode: int | None
    digest: str = ""


def wanted(name: str, gateway: Gateway, env: Mapping[str, str]) -> list[Wanted]:
    """What `--write` puts where for the tool, for a user with this environment."""
    if name not in TOOLS:
        raise PoolError(
            "bad_request",
            f"{name} has no file of its own to write to",
            hint=f'eval "$(gemini-pool env {name})", or --format dotenv',
        )
    home = Path(env.get("HOME") or Path.home())
    if name == "opencode":
        return [_opencode(gateway, env, home)]
    folder = Path(env.get("GEMINI_CLI_HOME") or home) / ".gemini"
    selected: _Members = {("security", "auth", "selectedType"): "gemini-api-key"}
    variables: _Members = {("GEMINI_API_KEY",): gateway.key, ("GOOGLE_GEMINI_BASE_URL",): gateway.url}
    return [
        Wanted(folder / ".env", "dotenv", variables, secret=True),
        Wanted(folder / "settings.json", "json", selected),
    ]


def _opencode(gateway: Gateway, env: Mapping[str, str], home: Path) -> Wanted:
    base = env.get("XDG_CONFIG_HOME", "")
    folder = (Path(base) if base.startswith("/") else home / ".config") / "opencode"
    # The last one that there is goes before the others.
    names = [name for name in ("opencode.jsonc", "opencode.json") if os.path.lexists(folder / name)]
    # A reference keeps the key out of a file that people put under version control.
    key = f"{{file:{gateway.key_file}}}" if gateway.key_file else gateway.key
    options = ("provider", "google", "options")
    members: _Members = {(*options, "baseURL"): f"{gateway.url}/v1beta", (*options, "apiKey"): key}
    if not names:  # opencode would add it at its next start
        members = {("$schema",): "https://opencode.ai/config.json", **members}
    return Wanted(
        folder / (names[0] if names else "opencode.json"), "json", members, secret=not gateway.key_file
    )


# ---- writing and undoing ------------------------------------------------------------------------------------------


def write(name: str, files: Sequence[Wanted], state_dir: Path) -> list[Done]:
    """Put the members into their files. All are read and judged before the first is touched."""
    record = _Record(state_dir, name)
    edits = []
    for file in files:
        old = _read(file.path)
        edits.append((file, old, _edited(file, old)))
    return [
        (str(file.path), "written" if _write_one(record, file, old, new) else "unchanged")
        for file, old, new in edits
    ]


def _write_one(record: _Record, file: Wanted, old: _File | None, new: str) -> bool:
    mode = (old.mode if old else 0o644) & (0o700 if file.secret else 0o7777)
    if old and old.text == new and old.mode == mode:
        return False
    entry = record.entries.get(str(file.path))
    members = [list(path) for path in file.members]
    if entry is None:
        entry = _Entry(file.form, members, old.mode if old else None)
        if old:
            # As private as what it is a copy of; one that an interruption left over is older than what stands now.
            _replace(_backup(file.path), old.text, old.mode)
        record.entries[str(file.path)] = entry
    entry.members += [path for path in members if path not in entry.members]
    entry.digest = _digest(new)
    record.save()
    file.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _replace(file.path, new, mode, unless=old)
    return True


def undo(name: str, state_dir: Path) -> list[Done]:
    """Put the files back as they were: to the byte, or, where somebody changed them since, all but our members."""
    record = _Record(state_dir, name)
    done = []
    for path in [Path(path) for path in record.entries]:
        done.append((str(path), _undo_one(path, record.entries[str(path)])))
        del record.entries[str(path)]
        record.save()
        _backup(path).unlink(missing_ok=True)
    return done


def _undo_one(path: Path, entry: _Entry) -> str:
    now = _read(path)
    original = _read(_backup(path)) if entry.mode is not None else None
    if entry.mode is not None and original is None:
        raise PoolError("not_found", f"what {path} was before is gone: there is no {_backup(path)}")
    if now and _digest(now.text) != entry.digest and (original is None or now.text != original.text):
        before = original.text if original else ""
        try:
            text = _FORMS[entry.form].revert(now.text, before, [tuple(path) for path in entry.members])
        except (jsonc.Unreadable, TypeError) as error:
            raise _refused(path, str(error)) from None
        _replace(path, text, now.mode, unless=now)
        return "cleaned"
    if original is None:
        path.unlink(missing_ok=True)
        return "deleted"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _replace(path, original.text, entry.mode or 0o600, unless=now)
    return "restored"


class _Record:
    """What we wrote for one tool, by file."""

    def __init__(self, state_dir: Path, name: str) -> None:
        self._path = state_dir / "env" / f"{name}.json"
        self.entries: dict[str, _Entry] = {}
        if (file := _read(self._path)) is not None:
            try:
                self.entries = {path: _Entry(**entry) for path, entry in json.loads(file.text).items()}
            except (ValueError, TypeError, AttributeError):
                raise _refused(self._path, "it is no record of ours") from None

    def save(self) -> None:
        if not self.entries:
            self._path.unlink(missing_ok=True)
            return
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        plain = {
            path: {"form": e.form, "members": e.members, "mode": e.mode, "digest": e.digest}
            for path, e in self.entries.items()
        }
        _replace(self._path, json.dumps(plain, indent=2) + "\n", 0o600)


# ---- one file's text ----------------------------------------------------------------------------------------------


def _edited(file: Wanted, old: _File | None) -> str:
    text = old.text if old else ""
    form = _FORMS[file.form]
    try:
        form.check(text)
        for path, value in file.members.items():
            text = form.put(text, path, value)
    except (jsonc.Unreadable, TypeError) as error:
        raise _refused(file.path, str(error)) from None
    return text


def _check_json(text: str) -> None:
    """Whether the file leaves the choice to us."""
    value = jsonc.parse(text) if text.strip() else {}
    if not isinstance(value, dict):
        raise TypeError("the file is no object")
    for name in ("security", "auth"):
        value = value.get(name) if isinstance(value, dict) else None
    enforced = value.get("enforcedType") if isinstance(value, dict) else None
    if enforced not in (None, "gemini-api-key"):
        raise TypeError(f"security.auth.enforcedType allows nothing but {enforced!r}")


def _revert_json(text: str, before: str, paths: Sequence[tuple[str, ...]]) -> str:
    original = jsonc.parse(before) if before.strip() else {}
    for path in paths:
        value: Any = original
        for name in path:
            value = value.get(name, _ABSENT) if isinstance(value, dict) else _ABSENT
        text = jsonc.drop(text, path) if value is _ABSENT else jsonc.put(text, path, value)
    return text


_ABSENT = object()


def _lines(text: str) -> list[tuple[str, str]]:
    """Each line of a .env file and the variable that it sets ("": none)."""
    lines = []
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        found = _LINE.fullmatch(line.rstrip("\r\n"))
        value = found["value"].strip() if found and found["value"] else ""
        if found is None or (value[:1] in ("'", '"', "`") and value.count(value[0]) < 2):
            raise TypeError(f"line {number} is neither a comment nor NAME=VALUE")
        lines.append((line, found["name"] or ""))
    return lines


def _put_dotenv(text: str, path: tuple[str, ...], value: Any) -> str:
    return _put_line(_lines(text), path[0], f"{path[0]}={dotenv_quoted(value)}\n")


def _put_line(lines: list[tuple[str, str]], name: str, wanted_line: str) -> str:
    """The last line that sets `name` is the one that counts."""
    at = max((index for index, (_, other) in enumerate(lines) if other == name), default=len(lines))
    texts = [line for line, _ in lines]
    if at == len(texts) and texts and wanted_line and not texts[-1].endswith("\n"):
        texts[-1] += "\n"
    texts[at : at + 1] = [wanted_line]
    return "".join(texts)


def _revert_dotenv(text: str, before: str, paths: Sequence[tuple[str, ...]]) -> str:
    for (name,) in paths:
        held = [line for line, other in _lines(before) if other == name]
        text = _put_line(_lines(text), name, held[-1] if held else "")
    return text


@dataclass(frozen=True, slots=True)
class _Form:
    check: Callable[[str], object]
    put: Callable[[str, tuple[str, ...], Any], str]
    revert: Callable[[str, str, Sequence[tuple[str, ...]]], str]


_FORMS = {
    "json": _Form(_check_json, jsonc.put, _revert_json),
    "dotenv": _Form(_lines, _put_dotenv, _revert_dotenv),
}


# ---- files --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, repr=False)
class _File:
    text: str
    mode: int


def _read(path: Path) -> _File | None:
    """The file, None where there is none. Raises `PoolError` for what is not simply a file of the user's."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        why = "it is a symbolic link" if path.is_symlink() else str(error.strerror)
        raise _refused(path, why) from None
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        os.close(handle)
        raise _refused(path, "it is no ordinary file")
    with os.fdopen(handle, "rb") as file:
        if found.st_uid != os.geteuid():
            raise _refused(path, "it belongs to somebody else")
        if found.st_size > _LARGEST:
            raise _refused(path, "it is too large")
        try:
            return _File(file.read().decode(), stat.S_IMODE(found.st_mode))
        except UnicodeDecodeError:
            raise _refused(path, "it is not UTF-8") from None


def _replace(path: Path, text: str, mode: int, *, unless: _File | str | None = "") -> None:
    """Atomically; `unless` is what the file must still be (a text: whatever it is)."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode())
            os.fchmod(handle, mode)
            file.flush()
            os.fsync(handle)
        if not isinstance(unless, str) and _read(path) != unless:
            raise _refused(path, "somebody else is changing it now")
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _backup(path: Path) -> Path:
    return path.with_name(path.name + BACKUP)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _refused(path: Path, why: str) -> PoolError:
    return PoolError(
        "config_invalid",
        f"{path} is left alone: {why}",
        hint="put the settings there by hand, or see to it first",
    )
