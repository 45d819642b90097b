"""What each verb of `gemini-pool` does. Prints to standard output; errors are raised and told by `cli.py`."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from gemini_pool.errors import PoolError

if TYPE_CHECKING:
    import argparse

_SILENCE_S = 30.0  # a daemon that says nothing for so long hangs; calls that may wait for an account are not bound by it


def hand_over(args: list[str]) -> NoReturn:
    """Become `python -m gemini_poold ARGS`, in this very process: a service manager keeps the pid it knows."""
    import importlib.util

    if importlib.util.find_spec("gemini_poold") is None:
        raise PoolError(
            "not_found",
            "the daemon is not installed here, only its client",
            hint="pip install gemini-pool",
        )
    sys.stdout.flush()
    # -P: a folder named like one of our modules, in whatever directory this runs, is none of ours.
    os.execv(sys.executable, [sys.executable, "-P", "-m", "gemini_poold", *args])  # noqa: S606


def open_pool(options: argparse.Namespace, *, waits: bool = False) -> Any:
    from gemini_pool._sync import Pool

    return Pool(options.socket, name="gemini-pool", timeout_s=None if waits else _SILENCE_S)


def show(options: argparse.Namespace, value: Any, text: Callable[[], str]) -> int:
    """Print data: as JSON when asked, else as text."""
    if options.json:
        import msgspec

        print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())
    else:
        print(text())
    return 0


# ---- asking -------------------------------------------------------------------------------------------------------


def ask(options: argparse.Namespace) -> int:
    prompt = " ".join(options.prompt)
    if prompt == "-":
        prompt = sys.stdin.read()
    if not prompt.isascii():  # under a locale that is not UTF-8, letters come as bytes in disguise
        with contextlib.suppress(UnicodeEncodeError):
            prompt = os.fsencode(prompt).decode()
    if not prompt.strip():
        raise PoolError("bad_request", "the prompt is empty")
    how = {"account": options.account, "session": options.session, "wait_s": options.wait}
    with open_pool(options, waits=True) as pool:
        if options.json:
            return show(options, pool.generate(options.model, prompt, **how), str)
        return _print_stream(pool.stream(options.model, prompt, **how))


def _print_stream(stream: Any) -> int:
    printed, ended = False, "\n"
    with stream:
        for chunk in stream:
            if text := _text(chunk):
                print(text, end="", flush=True)
                printed, ended = True, text[-1]
    if ended != "\n":
        print()
    reason = stream.result.finish_reason if stream.result is not None else ""
    if reason not in ("", "STOP"):
        print(f"gemini-pool: the answer ended with {reason}", file=sys.stderr)
    return 0 if printed else 1


def _text(chunk: Any) -> str:
    """What a chunk adds to the answer; thoughts and calls are not part of it."""
    try:
        parts = chunk["candidates"][0]["content"]["parts"]
    except (LookupError, TypeError):
        return ""
    return "".join(part["text"] for part in parts if "text" in part and not part.get("thought"))


def token(options: argparse.Namespace) -> int:
    with open_pool(options) as pool:
        found = pool.token(
            options.account, model=options.model, backend=options.backend, min_validity_s=options.min_validity
        )
    return show(options, found, lambda: str(found.token))


# ---- looking ------------------------------------------------------------------------------------------------------


def status(options: argparse.Namespace) -> int:
    with open_pool(options) as pool:
        found = pool.status()
    return show(options, found, lambda: render().status(found))


def quota(options: argparse.Namespace) -> int:
    with open_pool(options, waits=options.refresh) as pool:
        found = pool.quota(refresh=options.refresh)
    return show(options, found, lambda: render().quota(found))


def explain(options: argparse.Namespace) -> int:
    if not options.model and not options.replay:
        raise PoolError("bad_request", "explain takes a MODEL, or --replay DECISION")
    with open_pool(options) as pool:
        found = pool.explain(options.model, session=options.session, decision=options.replay)
    if options.model and options.replay and found.model != options.model:
        raise PoolError("not_found", f"decision {options.replay} was about {found.model}")
    return show(options, found, lambda: render().explain(found))


def top(options: argparse.Namespace) -> int:
    from gemini_pool.top import Top

    with open_pool(options) as pool:
        return Top(pool, sys.stdout, os.environ, every_s=options.interval).run(
            as_json=options.json, once=options.once
        )


def render() -> Any:
    """A renderer for this terminal (or file)."""
    from gemini_pool.render import Renderer

    return Renderer.of(sys.stdout, os.environ)


# ---- managing -----------------------------------------------------------------------------------------------------


def reload(options: argparse.Namespace) -> int:
    with open_pool(options, waits=True) as pool:
        result = pool.reload()
    show(options, result, lambda: render().reloaded(result))
    for error in result.errors:
        print(f"gemini-pool: {render().problem(error)}", file=sys.stderr)
        if error.hint:
            print(f"  hint: {error.hint}", file=sys.stderr)
    for warning in result.warnings:
        print(f"gemini-pool: warning: {warning}", file=sys.stderr)
    return 78 if result.errors else 0


def pause(options: argparse.Namespace) -> int:
    with open_pool(options) as pool:
        pool.pause(options.account)
    print(f"{options.account or 'the pool'} is paused")
    return 0


def resume(options: argparse.Namespace) -> int:
    with open_pool(options) as pool:
        pool.resume(options.account)
    print(f"{options.account or 'the pool'} is resumed")
    return 0


def env(options: argparse.Namespace) -> int:
    from gemini_pool import environment

    if options.undo:
        return _tool_files(options, None)
    with open_pool(options) as pool:
        gateway = environment.gateway_of(pool.info())
    if options.write:
        return _tool_files(options, gateway)
    found = environment.settings(options.name, gateway)
    print(environment.printed(found, "json" if options.json else options.format))
    return 0


def _tool_files(options: argparse.Namespace, gateway: Any) -> int:
    """Our settings into the tool's own files, or (without a gateway) out of them."""
    from gemini_pool import tool_config
    from gemini_pool.paths import places

    state_dir = places().state_dir
    try:
        if gateway is None:
            done = tool_config.undo(options.name, state_dir)
        else:
            done = tool_config.write(
                options.name, tool_config.wanted(options.name, gateway, os.environ), state_dir
            )
    except OSError as error:
        raise PoolError("not_found", f"{error.filename}: {error.strerror}") from None
    lines = [f"{file}: {what}" for file, what in done] or [f"nothing of ours is in {options.name}'s files"]
    if gateway is not None and any(what == "written" for _, what in done):
        lines.append(f"to take it back: gemini-pool env {options.name} --undo")
    return show(options, dict(done), lambda: "\n".join(lines))


def _accounts(verb: str, options: argparse.Namespace) -> int:
    """One of the verbs that change which accounts there are."""
    from gemini_pool import commands_accounts

    code: int = getattr(commands_accounts, verb)(options)
    return code


def _alone(verb: str, options: argparse.Namespace) -> int:
    """One of the verbs that have a module to themselves."""
    import importlib

    module = importlib.import_module(f"gemini_pool.{verb}")
    code: int = module.main(options)
    return code


VERBS: dict[str, Callable[[argparse.Namespace], int]] = {
    "account": lambda options: _accounts("account", options),
    "ask": ask,
    "completions": lambda options: _alone("completions", options),
    "doctor": lambda options: _alone("doctor", options),
    "env": env,
    "explain": explain,
    "export": lambda options: _accounts("export", options),
    "import": lambda options: _accounts("import_", options),
    "logs": lambda options: _alone("logs", options),
    "login": lambda options: _accounts("login", options),
    "pause": pause,
    "quota": quota,
    "reload": reload,
    "resume": resume,
    "service": lambda options: _alone("service", options),
    "status": status,
    "token": token,
    "top": top,
}
