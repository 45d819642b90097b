"""The verbs that change which accounts there are: login, import, export, account. Secrets come from a file, from
standard input or from a prompt, never from the command line."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gemini_pool import wire
from gemini_pool.commands import open_pool, render, show
from gemini_pool.errors import PoolError

EXIT_FAILED = 1


# ---- login --------------------------------------------------------------------------------------------------------


def login(options: argparse.Namespace) -> int:
    """Begin, bring the person to Google, finish, and say what the account is good for.

    With a browser here the daemon listens for its answer; without one (over SSH, on a server) the address is printed
    and what the person ends up with is pasted.
    """
    listen = not options.no_browser and _has_browser()
    params = wire.LoginParams(
        options.account,
        backend=options.backend,
        project=options.project,
        location=options.location,
        login_hint=options.login_hint,
        listen=listen,
        **_client(options),
    )
    with open_pool(options, waits=True) as pool:
        started = _consenting(lambda risk: pool.login(_accepting(params, risk)), options.accept_terms_risk)
        print(f"Open this address in a browser:\n{started.url}", file=sys.stderr, flush=True)
        if started.port:
            import webbrowser

            webbrowser.open(started.url)
        result = pool.login_finish(started.login, "" if started.port else _pasted())
    show(options, result, lambda: render().verdict(result.verdict))
    return 0 if result.verdict.ok else EXIT_FAILED


def _client(options: argparse.Namespace) -> dict[str, Any]:
    """The OAuth client, as parameters."""
    secrets = None
    if options.client_secrets:
        import msgspec

        try:
            secrets = msgspec.json.decode(_read(Path(options.client_secrets)))
        except msgspec.DecodeError as error:
            raise PoolError("bad_request", f"{options.client_secrets} is no JSON: {error}") from None
    return {
        "client_secrets": secrets,
        "use_gemini_cli": options.use_gemini_cli,
        "gemini_cli": options.gemini_cli,
        "accept_terms_risk": options.accept_terms_risk,
    }


def _accepting(params: Any, risk: str) -> Any:
    import msgspec

    return msgspec.structs.replace(params, accept_terms_risk=risk)


def _consenting(ask: Callable[[str], Any], accepted: str) -> Any:
    """Do it; where the risk of another program's client must be accepted first, show the wording and ask a person."""
    try:
        return ask(accepted)
    except PoolError as error:
        details = error.details if isinstance(error.details, dict) else {}
        if error.code != "blocked_by_terms" or not details.get("wording") or accepted:
            raise
        if not _confirmed(str(details["wording"])):
            hint = f"read it, then: --accept-terms-risk {details.get('accept_terms_risk')}"
            raise PoolError("blocked_by_terms", error.message, hint=hint, details=details) from None
        return ask(str(details.get("accept_terms_risk", "")))


def _confirmed(wording: str) -> bool:
    print(wording, file=sys.stderr)
    if not sys.stdin.isatty():
        return False
    print('Type "yes" to accept this, on record, for this account: ', end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() == "yes"


def _has_browser() -> bool:
    """Whether a browser here would be seen by the person: not over SSH, not without a display."""
    if any(os.environ.get(name) for name in ("SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY")):
        return False
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _pasted() -> str:
    print("Paste the address you end up at, or the code: ", end="", file=sys.stderr, flush=True)
    pasted = sys.stdin.readline().strip()
    if not pasted:
        raise PoolError("login_required", "nothing was pasted", hint="start it again: gemini-pool login ID")
    return pasted


# ---- import, export -----------------------------------------------------------------------------------------------


def import_(options: argparse.Namespace) -> int:
    with open_pool(options, waits=True) as pool:
        if options.source == "archive":
            result = pool.import_archive(_archive_to_open(options))
        else:
            params = wire.ImportParams(
                options.source,
                path=_absolute(options.path),
                home=str(Path.home()),
                account=options.account,
                project=options.project,
                backend=options.backend,
                location=options.location,
                **_client(options),
            )
            result = pool.import_logins(params)
            if result.wording and not options.accept_terms_risk and _confirmed(result.wording):
                result = pool.import_logins(_accepting(params, result.accept_terms_risk))
    show(options, result, lambda: render().imported(result))
    return EXIT_FAILED if not result.logins or any(row.result == "refused" for row in result.logins) else 0


def export(options: argparse.Namespace) -> int:
    with open_pool(options, waits=True) as pool:
        if options.target == "opencode":
            params = wire.ExportOpencodeParams(
                options.accounts, path=_absolute(options.path), home=str(Path.home())
            )
            done = pool.export_opencode(params)
            return show(options, done, lambda: f"written: {done.path} ({', '.join(done.accounts)})")
        return _export_archive(options, pool)


def _export_archive(options: argparse.Namespace, pool: Any) -> int:
    import base64

    path = Path(options.path or "gemini-pool.age")
    result = pool.export_archive(wire.ArchiveParams(_passphrase(options, twice=True), options.accounts))
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)  # never over a file that is there
    with os.fdopen(fd, "wb") as file:
        file.write(base64.b64decode(result.archive))
    done = wire.ExportResult(result.accounts, str(path), result.notes)
    return show(options, done, lambda: f"written: {done.path} ({', '.join(done.accounts)})")


def _archive_to_open(options: argparse.Namespace) -> wire.UnarchiveParams:
    import base64

    if not options.path:
        raise PoolError("bad_request", "import archive needs the archive's PATH")
    data = base64.b64encode(_read(Path(options.path))).decode()
    return wire.UnarchiveParams(data, _passphrase(options))


def _passphrase(options: argparse.Namespace, *, twice: bool = False) -> str:
    if options.passphrase_file:
        return _read(Path(options.passphrase_file)).decode().rstrip("\r\n")
    first = getpass.getpass("Passphrase: ")
    if twice and getpass.getpass("Once more: ") != first:
        raise PoolError("bad_request", "the two passphrases differ")
    return first


# ---- account ------------------------------------------------------------------------------------------------------


def account(options: argparse.Namespace) -> int:
    return ACTIONS[options.action](options)


def _list(options: argparse.Namespace) -> int:
    with open_pool(options) as pool:
        found = pool.accounts()
    return show(options, found, lambda: render().accounts(found))


def _add(options: argparse.Namespace) -> int:
    reference = _reference(options)
    text = ""
    if reference is None and options.credential != "adc":
        text = sys.stdin.read() if not sys.stdin.isatty() else getpass.getpass("The secret: ")
    params = wire.AccountAddParams(
        options.account,
        options.backend,
        credential=options.credential,
        secret=reference,
        secret_text=text,
        target=options.target,
        settings=_settings(options.set),
        accept_terms_risk=options.accept_terms_risk,
    )
    with open_pool(options, waits=True) as pool:
        row = _consenting(lambda risk: pool.add_account(_accepting(params, risk)), options.accept_terms_risk)
    show(options, row, lambda: render().verdict(row.verdict))
    return 0 if row.verdict.ok else EXIT_FAILED


def _reference(options: argparse.Namespace) -> dict[str, str] | None:
    given = {
        name: value
        for name, value in (
            ("file", options.secret_file),
            ("env", options.secret_env),
            ("keyring", options.secret_keyring),
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
    return 0 if verdict.ok or options.action == "disable" else EXIT_FAILED


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


ACTIONS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "list": _list,
    "add": _add,
    "remove": _remove,
    "enable": _switch,
    "disable": _switch,
    "verify": _verify,
    "clear-cooldown": _clear,
}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PoolError("bad_request", f"{path}: {error.strerror}") from None


def _absolute(path: str) -> str:
    return str(Path(path).absolute()) if path else ""
