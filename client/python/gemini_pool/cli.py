"""The command `gemini-pool`: its grammar, its errors, its exit codes. What a verb does is in `commands.py`.

Quick to start: nothing but the standard library's argparse is imported before the verb is known, and for `token`,
which scripts call before each request of theirs, not even that.
Exit codes: 0 fine, 1 failed, 2 wrong usage, 3 no daemon, 4 login needed, 5 nothing available now, 78 invalid
configuration.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from gemini_pool.errors import PoolError

if TYPE_CHECKING:
    import argparse

HANDED_OVER = ("run", "demo", "config", "secrets")  # verbs of the daemon's own package, arguments and all
ENV_NAMES = ("gemini-cli", "opencode", "genai", "openai", "vertex", "metadata")
IMPORTS = ("gemini-cli", "opencode", "adc", "cliproxyapi", "archive")
BACKENDS = ("developer-api", "code-assist", "vertex")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    return told(lambda: _main(args), args)


def told(run: Callable[[], int], args: Sequence[str]) -> int:
    """`run()`, with its errors as words on standard error and an exit code; never a traceback for what users may do."""
    _ready_streams("--json" in args)
    try:
        code = run()
        sys.stdout.flush()  # what cannot be written is an error, not a remark at exit
        return code
    except PoolError as error:
        text, hint, code = error.message, error.hint, error.exit_code
    except BrokenPipeError:  # whoever read our output has gone (`| head`): no reason to complain
        text, hint, code = "", "", 1
    except UnicodeError as error:
        text, hint, code = f"not valid UTF-8 text: {error}", "", 2
    except OSError as error:
        text, hint, code = ": ".join(filter(None, (error.filename, error.strerror or str(error)))), "", 1
    except KeyboardInterrupt:
        text, hint, code = "", "", 130
    try:
        sys.stdout.flush()
    except OSError:  # or Python would try again at exit, and say so
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    with contextlib.suppress(OSError):
        if text:
            print(f"gemini-pool: {text}", file=sys.stderr)
        if hint:
            print(f"  hint: {hint}", file=sys.stderr)
    return code


def _ready_streams(as_json: bool) -> None:
    """Streams that were closed before we began become the null device, or the next socket would be in their place.
    JSON is UTF-8; words that the terminal's encoding has no letters for are written as far as it goes."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            if as_json and stream is sys.stdout:
                stream.reconfigure(encoding="utf-8", errors="replace")
            else:
                stream.reconfigure(errors="replace")


def _main(args: list[str]) -> int:
    if args and args[0] in HANDED_OVER:
        from gemini_pool.commands import hand_over

        return hand_over(args)
    return _run(args)


def _run(args: list[str]) -> int:
    if args[:1] == ["token"]:
        options = _token_options(args[1:])
    else:
        parser = build_parser()
        options = parser.parse_args(args)
        if options.verb is None:
            parser.print_help()
            return 0
    from gemini_pool import commands

    if options.verb in HANDED_OVER:  # reached with options before the verb
        if options.socket:
            os.environ["GEMINI_POOL_SOCKET"] = options.socket
        commands.hand_over(args[args.index(options.verb) :])
    return commands.VERBS[options.verb](options)


def _token_options(args: list[str]) -> Any:
    """What `build_parser` makes of `token ARGS`, without the whole grammar, which costs as much as all the rest."""
    if len(args) < 2 and not any(arg.startswith("-") for arg in args):
        from types import SimpleNamespace

        return SimpleNamespace(
            verb="token",
            socket=None,
            json=False,
            account="".join(args),
            model="",
            backend=None,
            min_validity=0.0,
        )
    import argparse

    parser = argparse.ArgumentParser(prog="gemini-pool token", description="Print an access token.")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(verb="token", socket=None)
    _add_token(parser)
    return parser.parse_args(args)


def build_parser() -> argparse.ArgumentParser:
    """The grammar. Verbs that are not here do not exist."""
    import argparse

    parser = argparse.ArgumentParser(
        prog="gemini-pool",
        description="Every way you have into Gemini, kept warm by one daemon and shared by all your tools.",
        epilog="exit codes: 0 fine, 1 failed, 2 wrong usage, 3 no daemon, 4 login needed, 5 nothing available now, "
        "78 invalid configuration",
    )
    parser.add_argument("--version", action="version", version=f"gemini-pool {_version()}")
    parser.add_argument(
        "--socket", metavar="PATH", help="the daemon's socket (default: GEMINI_POOL_SOCKET, or its place)"
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")

    def verb(name: str, text: str, *, data: bool = False) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if data:
            sub.add_argument("--json", action="store_true", help="print JSON")
        return sub

    verb("run", "run the daemon in the foreground")
    verb("demo", "see it work: a daemon, a Google of its own and some traffic; needs no account")
    _add_asking(verb("ask", "ask a model; the answer is printed as it comes", data=True))
    verb("status", "accounts, cooldowns, counters, who is connected", data=True)
    quota = verb("quota", "what is left of each account's quota, as far as it is known", data=True)
    quota.add_argument("--refresh", action="store_true", help="ask Google now")
    top = verb("top", "a live view: accounts, rates, what is under way, quota, the last decisions", data=True)
    top.add_argument("--once", action="store_true", help="one look, then end")
    top.add_argument("--interval", metavar="SECONDS", type=float, default=2.0, help="between two looks")
    explain = verb("explain", "which account would serve a model now, why, and why not the others", data=True)
    explain.add_argument("model", metavar="MODEL", nargs="?", default="")
    explain.add_argument("--session", default="", help="as a request of this session")
    explain.add_argument(
        "--replay", metavar="DECISION", default="", help="explain a lease's recorded decision instead"
    )
    _add_token(verb("token", "print an access token", data=True))
    _add_managing(verb)
    _add_service(verb("service", "run the daemon by systemd or launchd"))
    _add_looking_after(verb)
    verb("config", "show the configuration in force, or check the files: config {show,check}")
    verb("secrets", "encrypt the secret files at rest: secrets {seal,unseal,recover,status}")
    return parser


def _add_asking(ask: argparse.ArgumentParser) -> None:
    ask.add_argument("model", metavar="MODEL")
    ask.add_argument("prompt", metavar="PROMPT", nargs="+", help="the prompt; - reads it from standard input")
    ask.add_argument("--account", default="", help="use this account only")
    ask.add_argument("--session", default="", help="requests of one session stay with one account")
    ask.add_argument("--wait", metavar="SECONDS", type=float, help="how long to wait for a free account")


def _add_token(token: argparse.ArgumentParser) -> None:
    token.add_argument("account", metavar="ACCOUNT", nargs="?", default="")
    token.add_argument("--model", default="", help="of an account that can serve this model now")
    token.add_argument("--backend", choices=BACKENDS, help="of an account of this backend")
    token.add_argument(
        "--min-validity", metavar="SECONDS", type=float, default=0.0, help="valid for at least so long"
    )


def _add_managing(verb: Callable[..., argparse.ArgumentParser]) -> None:
    verb("reload", "read configuration and accounts again; returns when that is done", data=True)
    for name, text in (("pause", "send nothing new"), ("resume", "send again")):
        sub = verb(name, f"{text} (with one account, or at all)")
        sub.add_argument("account", metavar="ACCOUNT", nargs="?", default="")
    _add_login(verb("login", "log an account in with a browser, here or over SSH", data=True))
    _add_import(verb("import", "take over logins of other programs, or an archive", data=True))
    _add_export(verb("export", "write logins for opencode, or an archive for another machine", data=True))
    _add_account(verb("account", "the accounts of the pool"))
    _add_env(verb("env", "print the settings that point a tool at the gateway", data=True))


def _add_service(service: argparse.ArgumentParser) -> None:
    actions = service.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, text in (
        ("install", "write its files for this installation, enable and start it"),
        ("uninstall", "stop it and remove what was written; accounts stay"),
        ("status", "is it installed, does it run, from where"),
        ("print", "print what would be written"),
    ):
        sub = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        managers = ("systemd", "launchd", "none")
        sub.add_argument("--manager", choices=managers, default="", help="not the one that is here")
        if name == "status":
            sub.add_argument("--json", action="store_true", help="print JSON")
        if name == "install":
            sub.add_argument("--force", action="store_true", help="replace files of another's making")
            sub.add_argument("--no-start", action="store_true", help="write and enable only")
            sub.add_argument(
                "--sandbox", choices=("auto", "on", "off"), default="auto", help="the namespace drop-in"
            )


def _add_env(env: argparse.ArgumentParser) -> None:
    env.epilog = 'for this shell: eval "$(gemini-pool env NAME)"'
    env.add_argument("name", choices=ENV_NAMES, metavar="{" + ",".join(ENV_NAMES) + "}")
    env.add_argument("--format", choices=("sh", "fish", "json", "dotenv"), default="sh", help="default: sh")
    files = env.add_mutually_exclusive_group()
    files.add_argument(
        "--write", action="store_true", help="into the tool's own files instead (gemini-cli, opencode)"
    )
    files.add_argument("--undo", action="store_true", help="put those files back as they were")


def _add_looking_after(verb: Callable[..., argparse.ArgumentParser]) -> None:
    doctor = verb("doctor", "look for what is wrong, and name the command that mends it", data=True)
    doctor.add_argument("--probe", action="store_true", help="with one cheap call for each account")
    doctor.add_argument(
        "--bundle", metavar="FILE", default="", help="write a support archive without secrets"
    )
    logs = verb("logs", "the daemon's log", data=True)
    logs.add_argument("-f", "--follow", action="store_true", help="and what comes")
    logs.add_argument("-n", "--lines", metavar="COUNT", type=int, default=100, help="so many (default: 100)")
    levels = ("debug", "info", "warning", "error")
    logs.add_argument("--level", choices=levels, default="", help="have the daemon log from here upwards")
    managers = ("systemd", "launchd", "none")
    logs.add_argument("--manager", choices=managers, default="", help="not the one that is here")
    completions = verb("completions", "print a completion script for a shell")
    completions.add_argument("shell", choices=("bash", "zsh", "fish"), nargs="?", default="bash")
    completions.add_argument("--list", choices=("accounts", "models"), default="", help="==SUPPRESS==")


def _add_login(login: argparse.ArgumentParser) -> None:
    login.add_argument("account", metavar="ID", help="the account; a new one is added")
    login.add_argument("--backend", choices=BACKENDS, help="of a new account (default: code-assist)")
    login.add_argument("--project", default="", help="the Google Cloud project")
    login.add_argument("--location", default="", help="of a new Vertex account")
    login.add_argument("--login-hint", metavar="EMAIL", default="", help="whom Google should offer first")
    login.add_argument("--no-browser", action="store_true", help="print the address, open no browser")
    _add_client(login)


def _add_client(sub: argparse.ArgumentParser) -> None:
    """The OAuth client of a login, and the consent that another program's needs."""
    sub.add_argument("--client-secrets", metavar="FILE", default="", help="the JSON of your own OAuth client")
    sub.add_argument(
        "--use-gemini-cli", action="store_true", help="the client of a Gemini CLI installed here"
    )
    sub.add_argument("--gemini-cli", metavar="FOLDER", default="", help="where that Gemini CLI is")
    sub.add_argument(
        "--accept-terms-risk",
        metavar="WORDING",
        default="",
        help="the id of the wording you have read and accept",
    )


def _add_import(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("source", choices=IMPORTS, metavar="{" + ",".join(IMPORTS) + "}")
    sub.add_argument("path", metavar="PATH", nargs="?", default="", help="where it is not in its usual place")
    sub.add_argument(
        "--account", metavar="ID", default="", help="the new account's id, or what ids begin with"
    )
    sub.add_argument(
        "--backend", choices=BACKENDS, help="of the new accounts (default: what the login is for)"
    )
    sub.add_argument("--project", default="", help="of the new accounts")
    sub.add_argument("--location", default="", help="of new Vertex accounts")
    sub.add_argument(
        "--passphrase-file",
        metavar="FILE",
        default="",
        help="of an archive; - is standard input (default: asked for)",
    )
    _add_client(sub)


def _add_export(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("target", choices=("opencode", "archive"), metavar="{opencode,archive}")
    sub.add_argument("accounts", metavar="ID", nargs="*", help="which accounts (an archive's default: all)")
    sub.add_argument(
        "--path", metavar="PATH", default="", help="opencode's auth.json, or the archive to write"
    )
    sub.add_argument(
        "--passphrase-file",
        metavar="FILE",
        default="",
        help="of the archive; - is standard input (default: asked for)",
    )


def _add_account(account: argparse.ArgumentParser) -> None:
    actions = account.add_subparsers(dest="action", metavar="ACTION", required=True)

    def action(name: str, text: str) -> argparse.ArgumentParser:
        sub = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        sub.add_argument("--json", action="store_true", help="print JSON")
        return sub

    action("list", "every account and its state")
    add = action("add", "add an account; its secret is read from standard input unless it is named")
    add.add_argument("account", metavar="ID")
    add.add_argument("--backend", choices=BACKENDS, required=True)
    add.add_argument(
        "--credential", default="api-key", help="api-key, service-account, oauth, adc, external, …"
    )
    add.add_argument(
        "--secret-file", metavar="PATH", default="", help="a file to refer to, in the state folder"
    )
    add.add_argument(
        "--secret-env", metavar="NAME", default="", help="a variable of the daemon's to refer to"
    )
    add.add_argument(
        "--secret-keyring", metavar="SERVICE/NAME", default="", help="an entry of the keyring to refer to"
    )
    add.add_argument(
        "--secret-systemd-credential",
        metavar="NAME",
        default="",
        help="a credential of the unit's to refer to",
    )
    add.add_argument("--target", default="", help="the service account to act as (impersonated)")
    add.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="a further key of accounts.toml"
    )
    add.add_argument(
        "--accept-terms-risk",
        metavar="WORDING",
        default="",
        help="the id of the wording you have read and accept",
    )
    remove = action("remove", "take an account out of the pool")
    remove.add_argument("account", metavar="ID")
    remove.add_argument(
        "--revoke", action="store_true", help="end its login at Google, and delete its secret"
    )
    remove.add_argument("--delete-secret", action="store_true", help="delete its secret")
    for name, text in (("enable", "use an account (again)"), ("disable", "use an account no more")):
        action(name, text).add_argument("account", metavar="ID")
    pin = action("pin", "use an account before all others for what it can serve, until it is unpinned")
    unpin = action("unpin", "pin it no more")
    for sub in (pin, unpin):
        sub.add_argument("account", metavar="ID")
        sub.add_argument("--model", metavar="GLOB", default="", help="for these models only")
    verify = action("verify", "one cheap real call for each account")
    verify.add_argument("accounts", metavar="ID", nargs="*", help="which accounts (default: all)")
    clear = action("clear-cooldown", "forget cooldowns; a suspended account that is named is tried again")
    clear.add_argument("account", metavar="ID", nargs="?", default="")
    clear.add_argument("--model", default="", help="of this model only")


def _version() -> str:
    from gemini_pool import __version__

    return __version__


if __name__ == "__main__":
    sys.exit(main())
