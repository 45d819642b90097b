"""The command `gemini-pool`: its grammar, its errors, its exit codes. What a verb does is in `commands.py`.

Quick to start: nothing but the standard library's argparse is imported before the verb is known.
Exit codes: 0 fine, 1 failed, 2 wrong usage, 3 no daemon, 4 login needed, 5 nothing available now, 78 invalid
configuration.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from gemini_pool.errors import PoolError

HANDED_OVER = ("run", "demo", "config", "secrets")  # verbs of the daemon's own package, arguments and all
ENV_NAMES = ("gemini-cli", "opencode", "genai", "vertex")
BACKENDS = ("developer-api", "code-assist", "vertex")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        if args and args[0] in HANDED_OVER:
            from gemini_pool.commands import hand_over

            return hand_over(args)
        return _run(args)
    except PoolError as error:
        print(f"gemini-pool: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"  hint: {error.hint}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # whoever read our output has gone (`| head`): no reason to complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130


def _run(args: list[str]) -> int:
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
    code = commands.VERBS[options.verb](options)
    sys.stdout.flush()
    return code


def build_parser() -> argparse.ArgumentParser:
    """The grammar. Verbs that are not here do not exist."""
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
    explain = verb("explain", "which account would serve a model now, why, and why not the others", data=True)
    explain.add_argument("model", metavar="MODEL", nargs="?", default="")
    explain.add_argument("--session", default="", help="as a request of this session")
    explain.add_argument(
        "--replay", metavar="DECISION", default="", help="explain a lease's recorded decision instead"
    )
    _add_token(verb("token", "print an access token", data=True))
    _add_managing(verb)
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
    account = verb("account", "the accounts of the pool")
    actions = account.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="every account and its state")
    listing.add_argument("--json", action="store_true", help="print JSON")
    env = verb(
        "env",
        'print shell settings that point a tool at the gateway: eval "$(gemini-pool env NAME)"',
        data=True,
    )
    env.add_argument("name", choices=ENV_NAMES, metavar="{" + ",".join(ENV_NAMES) + "}")


def _version() -> str:
    from gemini_pool import __version__

    return __version__


if __name__ == "__main__":
    sys.exit(main())
