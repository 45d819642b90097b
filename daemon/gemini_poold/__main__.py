"""`python -m gemini_poold VERB`: the verbs of `gemini-pool` that need the daemon's own packages.

Parses, then calls; each verb's work is in its own module, imported only when it is asked for. Exit codes are the
contract's: 0 fine, 1 failed, 2 wrong usage, 78 configuration invalid.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from gemini_pool.cli import told

from . import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)

    def run() -> int:
        args = _parser(words)
        return int(args.call(args))

    return told(run, words)


def _parser(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gemini-pool", description="The gemini-pool daemon.")
    parser.add_argument("--version", action="version", version=f"gemini-pool {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    run = verbs.add_parser("run", help="run the daemon in the foreground")
    run.set_defaults(call=_run)

    demo = verbs.add_parser("demo", help="a daemon, a Google of its own and some traffic; needs no account")
    if argv[:1] == ["demo"]:  # its arguments are its module's, which nobody else needs to load
        from . import demo as demo_module

        demo_module.add_arguments(demo)
        demo.set_defaults(call=demo_module.main)

    secrets = verbs.add_parser("secrets", help="encrypt the secret files at rest, or take that back")
    secrets.add_argument("action", choices=("seal", "unseal", "recover", "status"))
    secrets.add_argument("--json", action="store_true", help="print JSON (status)")
    secrets.set_defaults(call=_secrets)

    config = verbs.add_parser("config", help="show or check the configuration")
    config.add_argument("action", choices=("show", "check"))
    config.add_argument("--json", action="store_true", help="print JSON")
    config.set_defaults(call=_config)
    return parser.parse_args(argv)


def _run(args: argparse.Namespace) -> int:
    del args
    from . import app

    return app.main()


def _secrets(args: argparse.Namespace) -> int:
    from . import secrets_command

    return secrets_command.main(args.action, as_json=args.json)


def _config(args: argparse.Namespace) -> int:
    from . import configcheck

    return configcheck.main(args.action, as_json=args.json)


if __name__ == "__main__":
    sys.exit(main())
