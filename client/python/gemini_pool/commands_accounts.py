"""The verbs that change which accounts there are: login, import, export, account. Secrets come from a file, from
standard input or from a prompt, never from the command line."""

from __future__ import annotations

import argparse
import getpass
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gemini_pool import signing_in, wire
from gemini_pool.commands import open_pool, render, show
from gemini_pool.errors import PoolError

EXIT_FAILED, EXIT_LOGIN = 1, 4
_WANT_LOGIN = frozenset({"login_required", "client_invalid", "needs_validation"})


# ---- login --------------------------------------------------------------------------------------------------------


def login(options: argparse.Namespace) -> int:
    """Begin, bring the person to Google, finish, and say what the account is good for."""
    params = wire.LoginParams(
        options.account,
        backend=options.backend,
        project=options.project,
        location=options.location,
        login_hint=options.login_hint,
        **_client(options),
    )
    with open_pool(options, waits=True) as pool:
        started = signing_in.consenting(
            lambda risk: pool.login(_accepting(params, risk)), options.accept_terms_risk
        )
        result = signing_in.finish(pool, started, browse=not options.no_browser)
    show(options, result, lambda: render().logged_in(result))
    return _exit_code(result.verdict)


def _exit_code(verdict: wire.AccountVerdict) -> int:
    if verdict.ok:
        return 0
    return EXIT_LOGIN if verdict.state in _WANT_LOGIN else EXIT_FAILED


def _client(options: argparse.Namespace) -> dict[str, Any]:
    """The OAuth client, as parameters."""
    secrets = None
    if options.client_secrets:
        import msgspec

        try:
            secrets = msgspec.json.decode(_read(options.client_secrets))
        except msgspec.DecodeError as error:
            raise PoolError("bad_request", f"{options.client_secrets} is no JSON: {error}") from None
    return {
        "client_secrets": secrets,
        "use_gemini_cli": options.use_gemini_cli,
        "gemini_cli": _installed(options),
        "accept_terms_risk": options.accept_terms_risk,
    }


def _accepting(params: Any, risk: str) -> Any:
    import msgspec

    return msgspec.structs.replace(params, accept_terms_risk=risk)


def _installed(options: argparse.Namespace) -> str:
    """The package folder of the Gemini CLI that this shell finds: the daemon's PATH may be another one."""
    command = shutil.which("gemini")
    if options.gemini_cli or command is None:
        return _absolute(options.gemini_cli)
    for folder in Path(command).resolve().parents:
        if (folder / "package.json").is_file():
            return str(folder)
    return ""


# ---- import, export -----------------------------------------------------------------------------------------------


def import_(options: argparse.Namespace) -> int:
    with open_pool(options, waits=True) as pool:
        if options.source == "archive":
            result = pool.import_archive(_archive_to_open(options))
        else:
            result = _import_logins(options, pool)
    show(options, result, lambda: render().imported(result))
    good = result.logins and all(row.result in ("imported", "known") for row in result.logins)
    return 0 if good else EXIT_FAILED


def _import_logins(options: argparse.Namespace, pool: Any) -> wire.ImportResult:
    params = wire.ImportParams(
        options.source,
        path=_absolute(options.path) or _moved(options.source),
        home=_home(),
        account=options.account,
        project=options.project,
        backend=options.backend,
        location=options.location,
        **_client(options),
    )
    given = options.accept_terms_risk
    result: wire.ImportResult = signing_in.consenting(
        lambda risk: pool.import_logins(_accepting(params, risk)), given
    )
    name = result.accept_terms_risk
    if name and not given and signing_in.confirmed(result.wording, name):
        result = pool.import_logins(_accepting(params, name))
    return result


def _home() -> str:
    """This shell's home folder, where it is not the one that the daemon has, too."""
    import pwd

    home = str(Path.home())
    try:
        return "" if home == pwd.getpwuid(os.getuid()).pw_dir else home
    except KeyError:  # a user id without a name, as in containers
        return home


def _moved(source: str) -> str:
    """Where variables of this shell, which the daemon does not know, have put a program's login."""
    for variable, below in _VARIABLES.get(source, ()):
        if value := os.environ.get(variable):
            return _absolute(str(Path(value) / below))
    return ""


_VARIABLES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "adc": (
        ("GOOGLE_APPLICATION_CREDENTIALS", ""),
        ("CLOUDSDK_CONFIG", "application_default_credentials.json"),
    ),
    "gemini-cli": (("GEMINI_CLI_HOME", ".gemini"),),
}


def export(options: argparse.Namespace) -> int:
    with open_pool(options, waits=True) as pool:
        if options.target == "archive":
            done = _export_archive(options, pool)
        else:
            done = pool.export_opencode(
                wire.ExportOpencodeParams(options.accounts, path=_absolute(options.path), home=_home())
            )
    return show(options, done, lambda: render().exported(done))


def _export_archive(options: argparse.Namespace, pool: Any) -> wire.ExportResult:
    import base64

    path = Path(_absolute(options.path or "gemini-pool.age"))
    if path.exists():
        raise PoolError("bad_request", f"{path} is there already", hint="name another file: --path PATH")
    result = pool.export_archive(wire.ArchiveParams(_passphrase(options, twice=True), options.accounts))
    try:  # never over a file that is there, nor through a link
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(base64.b64decode(result.archive))
            file.flush()
            os.fsync(fd)
    except OSError as error:
        raise PoolError("bad_request", f"{path}: {error.strerror}") from None
    return wire.ExportResult(result.accounts, str(path), result.notes)


def _archive_to_open(options: argparse.Namespace) -> wire.UnarchiveParams:
    import base64

    if not options.path:
        raise PoolError("bad_request", "import archive needs the archive's PATH")
    data = base64.b64encode(_read(options.path)).decode()
    return wire.UnarchiveParams(data, _passphrase(options))


def _passphrase(options: argparse.Namespace, *, twice: bool = False) -> str:
    if options.passphrase_file:
        try:
            return _read(options.passphrase_file).decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise PoolError("bad_request", f"{options.passphrase_file} is no text") from None
    if not sys.stdin.isatty():
        hint = "--passphrase-file FILE (- is standard input)"
        raise PoolError("bad_request", "nobody is here to be asked for the passphrase", hint=hint)
    first = _ask_hidden("Passphrase: ")
    if twice and _ask_hidden("Once more: ") != first:
        raise PoolError("bad_request", "the two passphrases differ")
    return first


def _ask_hidden(prompt: str) -> str:
    try:
        return getpass.getpass(prompt)
    except EOFError:
        raise PoolError("bad_request", "nothing was typed") from None


# ---- account ------------------------------------------------------------------------------------------------------


def account(options: argparse.Namespace) -> int:
    return ACTIONS[options.action](options)


def _list(options: argparse.Namespace) -> int:
    with open_pool(options) as pool:
        found = pool.accounts()
    return show(options, found, lambda: render().accounts(found))


def _add(options: argparse.Namespace) -> int:
    reference = _reference(options)
    params = wire.AccountAddParams(
        options.account,
        options.backend,
        credential=options.credential,
        secret=reference,
        secret_text=_secret_text(options) if reference is None else "",
        target=options.target,
        settings=_settings(options.set),
        accept_terms_risk=options.accept_terms_risk,
    )
    with open_pool(options, waits=True) as pool:
        row = signing_in.consenting(
            lambda risk: pool.add_account(_accepting(params, risk)), options.accept_terms_risk
        )
    show(options, row, lambda: render().verdict(row.verdict))
    return _exit_code(row.verdict)


def _secret_text(options: argparse.Namespace) -> str:
    """The secret itself: what standard input brings, or a key that a person types unseen."""
    if options.credential in ("adc", "impersonated"):
        return ""  # found by itself
    if not sys.stdin.isatty():
        return sys.stdin.read()
    if options.credential != "api-key":
        hint = "feed it on standard input (< FILE), or name its place (--secret-file PATH)"
        raise PoolError("bad_request", f"a credential of type {options.credential} is a file", hint=hint)
    return _ask_hidden("The API key: ")


def _reference(options: argparse.Namespace) -> dict[str, str] | None:
    given = {
        name: value
        for name, value in (
            ("file", options.secret_file),
            ("env", options.secret_env),
            ("keyring", options.secret_keyring),
            ("systemd-credential", options.secret_systemd_credential),
        )
        if value
    }
    if len(given) > 1:
        raise PoolError("bad_request", "a secret is in one place")
    return given or None


def _settings(pairs: list[str]) -> dict[str, Any]:
    """KEY=VALUE pairs, values as TOML where they are (numbers, lists, …), else as text."""
    import tomllib

    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise PoolError("bad_request", f"--set takes KEY=VALUE, not {pair!r}")
        try:
            settings[key] = tomllib.loads(f"x = {value}")["x"]
        except tomllib.TOMLDecodeError:
            settings[key] = value
    return settings


def _remove(options: argparse.Namespace) -> int:
    with open_pool(options, waits=True) as pool:
        result = pool.remove_account(
            options.account, revoke=options.revoke, delete_secret=options.delete_secret
        )
    return show(options, result, lambda: render().removed(result))


def _switch(options: argparse.Namespace) -> int:
    with open_pool(options, waits=True) as pool:
        verdict = (
            pool.enable(options.account) if options.action == "enable" else pool.disable(options.account)
        )
    show(options, verdict, lambda: render().verdict(verdict))
    return 0 if options.action == "disable" else _exit_code(verdict)


def _verify(options: argparse.Namespace) -> int:
    with open_pool(options, waits=True) as pool:
        result = pool.verify(*options.accounts)
    show(options, result, lambda: render().verified(result))
    return 0 if all(row.verdict.ok for row in result.accounts) else EXIT_FAILED


def _clear(options: argparse.Namespace) -> int:
    with open_pool(options) as pool:
        result = pool.clear_cooldown(options.account, options.model)
    text = f"{result.cleared} cooldowns cleared" + ("; the account is tried again" if result.revived else "")
    return show(options, result, lambda: text)


def _pin(options: argparse.Namespace) -> int:
    with open_pool(options) as pool:
        (pool.pin if options.action == "pin" else pool.unpin)(options.account, options.model)
        (found,) = [a for a in pool.accounts() if a.id == options.account]
    what = "everything" if "*" in found.pinned else ", ".join(found.pinned)
    text = f"pinned, used before all others for {what}" if found.pinned else "not pinned"
    return show(options, found, lambda: f"{options.account}: {text}")


ACTIONS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "list": _list,
    "add": _add,
    "remove": _remove,
    "enable": _switch,
    "disable": _switch,
    "pin": _pin,
    "unpin": _pin,
    "verify": _verify,
    "clear-cooldown": _clear,
}


def _read(path: str) -> bytes:
    """A file that was named; - is standard input."""
    try:
        return sys.stdin.buffer.read() if path == "-" else Path(path).expanduser().read_bytes()
    except OSError as error:
        raise PoolError("bad_request", f"{path}: {error.strerror}") from None


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute()) if path else ""
