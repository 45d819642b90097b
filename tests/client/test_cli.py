"""The command, against the real server: what it prints, where, and with which exit code."""

import io
import json
import os
import shlex
import subprocess
import sys

import pytest
from tests.client.serving import serving
from tests.ipc.harness import MODEL

from gemini_pool import cli, commands
from gemini_poold.core.model import Kind, Outcome, Scope
from gemini_poold.fake import Fault


@pytest.fixture
def server(tmp_path, monkeypatch):
    with serving(tmp_path) as s:
        monkeypatch.setenv("GEMINI_POOL_SOCKET", str(s.path))
        yield s


@pytest.fixture
def run(capsys):
    """Run one command: exit code, standard output, standard error."""

    def run_it(*argv: str):
        code = cli.main(argv)
        out, err = capsys.readouterr()
        return code, out, err

    return run_it


def test_alone_prints_help(run):
    """`gemini-pool` alone is no mistake."""
    code, out, err = run()
    assert (code, err) == (0, "")
    for verb in ("run", "demo", "status", "ask", "token", "exit codes"):
        assert verb in out


@pytest.mark.parametrize(
    "argv",
    [("nothing",), ("ask",), ("token", "--backend", "x"), ("env", "vi"), ("status", "--nope"), ("account",)],
)
def test_wrong_usage(argv, capsys):
    """argparse's own exit code."""
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_version(capsys):
    """The version of the package."""
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == "gemini-pool 0.1.0\n"


def test_every_verb_of_the_grammar_works():
    """What is registered exists, and nothing else."""
    verbs = next(a for a in cli.build_parser()._actions if a.dest == "verb").choices
    assert set(verbs) == set(commands.VERBS) | set(cli.HANDED_OVER)


def test_no_daemon(run, tmp_path):
    """Exit code 3 (after the moment that a restart takes), and the command that starts it."""
    code, out, err = run("--socket", str(tmp_path / "none.sock"), "status")
    assert (code, out) == (3, "")
    first, second = err.splitlines()
    assert first.startswith("gemini-pool: no daemon answers at")
    assert second.startswith("  hint: ")


def test_status(run, server):
    """Accounts, counters and clients; the same as data."""
    code, out, err = run("status")
    assert (code, err) == (0, "")
    assert "key-a" in out
    assert "ready" in out
    assert "\x1b" not in out
    code, out, _ = run("status", "--json")
    assert [a["id"] for a in json.loads(out)["accounts"]] == ["key-a", "key-b"]


def test_looking(run, server):
    """quota, explain, account list: text and data."""
    lease = server.on_loop(lambda: server.rpc.broker.acquire_nowait(_request()))
    until = server.rpc.clock.now() + 7200
    server.on_loop(
        lambda: server.rpc.broker.settle(
            lease.lease.id, Outcome(Kind.DAILY, Scope.ACCOUNT_MODEL, until=until, told=True, source="quotaId")
        )
    )
    assert "0 %" in run("quota")[1]
    assert json.loads(run("quota", "--json", "--refresh")[1])["accounts"][0]["source"] == "refusal"
    code, out, _ = run("explain", MODEL)
    assert code == 0
    assert "key-b" in out.splitlines()[0]
    assert "in 2 h" in out
    assert json.loads(run("explain", MODEL, "--json")[1])["chosen"] == "key-b"
    assert json.loads(run("explain", "--replay", lease.lease.decision, "--json")[1])["chosen"] == "key-a"
    assert "told by Google" in run("account", "list")[1]
    assert [a["id"] for a in json.loads(run("account", "list", "--json")[1])] == ["key-a", "key-b"]
    assert run("explain")[0] == 2
    assert run("explain", "--replay", "unknown")[0] == 1


def _request():
    from gemini_poold.core.model import Request

    return Request("r", MODEL)


def test_ask(run, server, monkeypatch):
    """The answer as text with a line's end; a prompt of several words, or from standard input; the answer as data."""
    code, out, err = run("ask", MODEL, "hello", "there")
    assert (code, err) == (0, "")
    assert out.strip()
    assert out.endswith("\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO("from a pipe\n"))
    code, out, _ = run("ask", MODEL, "-")
    assert code == 0
    assert out.strip()
    assert json.loads(run("ask", "--json", MODEL, "hello")[1])["candidates"]
    monkeypatch.setattr(sys, "stdin", io.StringIO(" \n"))
    assert run("ask", MODEL, "-")[0] == 2


def test_ask_tells_how_it_ended(run, server):
    """An answer that Google stopped early is told on standard error; one without any text is a failure."""
    server.rpc.fake.faults.add(Fault.finish("SAFETY"))
    code, out, err = run("ask", MODEL, "hello")
    assert "SAFETY" in err
    assert code == (0 if out.strip() else 1)
    server.rpc.fake.faults.add(Fault.blocked("OTHER"))
    code, out, err = run("ask", MODEL, "hello")
    assert (code, out) == (1, "")
    assert "OTHER" in err


def test_nothing_available(run, server):
    """All cooling down: exit code 5, and who returns first."""
    for account in ("key-a", "key-b"):
        server.on_loop(lambda a=account: server.rpc.pool.members[a].__setattr__("token_until", 0.0))
    code, _, err = run("ask", "--wait", "0", MODEL, "hello")
    assert code == 5
    assert "returns first" in err


def test_token(run, server):
    """The token alone, for `$(…)`; with its life as data."""
    assert run("token", "key-a") == (0, "fake-key-key-a\n", "")
    assert json.loads(run("token", "--json", "--model", MODEL)[1])["token_type"] == "api-key"
    code, out, err = run("token", "nobody")
    assert (code, out) == (1, "")
    assert err.splitlines()[1] == "  hint: gemini-pool account list"


def test_pause_and_resume(run, server):
    """One account, or all."""
    assert run("pause", "key-a") == (0, "key-a is paused\n", "")
    assert "paused" in run("account", "list")[1]
    assert run("resume", "key-a")[0] == 0
    assert run("pause")[1] == "the pool is paused\n"
    assert run("resume")[0] == 0
    assert run("pause", "nobody")[0] == 1


def test_reload(run, server):
    """Returns when it is done, with what changed; errors of the files are exit code 78 and named with their place."""
    from gemini_pool import wire

    assert run("reload") == (0, "nothing has changed\n", "")

    async def broken():
        error = wire.ConfigError("accounts.toml", 3, 7, "not like this", "like that")
        return wire.ReloadResult([], [], [], 2, [], [], [error])

    server.rpc.services.reload = broken
    code, out, err = run("reload")
    assert (code, out) == (78, "nothing was taken over\n")
    assert err == "gemini-pool: accounts.toml:3:7: not like this\n  hint: like that\n"


def test_env(run, server, tmp_path):
    """Shell settings with the gateway's address and key; without a gateway it says what to do."""
    import msgspec

    assert run("env", "genai")[0] == 1
    info = server.rpc.info()
    (tmp_path / "gateway.key").write_text("gp-it's\n")
    server.rpc.services.info = lambda: msgspec.structs.replace(info, gateway_url="http://127.0.0.1:8790")
    code, out, _ = run("env", "genai")
    assert code == 0
    shell = subprocess.run(
        ["sh", "-c", f'{out}\nprintf %s "$GEMINI_API_KEY $GOOGLE_GEMINI_BASE_URL"'],
        capture_output=True,
        check=True,
    )
    assert shell.stdout == b"gp-it's http://127.0.0.1:8790"
    assert run("env", "metadata")[0] == 1
    for name in set(cli.ENV_NAMES) - {"metadata"}:
        values = json.loads(run("env", name, "--json")[1])
        assert run("env", name, "--format", "json")[1] == run("env", name, "--json")[1]
        assert "127.0.0.1:8790" in str(values)
        assert "gp-it" in str(values)
    (tmp_path / "gateway.key").unlink()
    code, _, err = run("env", "genai")
    assert code == 1
    assert "gateway.key" in err


def test_env_files(run, server, tmp_path, monkeypatch):
    """`--write` puts the settings into the tool's files, `--undo` takes them out with no daemon running."""
    import msgspec

    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GEMINI_POOL_STATE_DIR", str(tmp_path / "state"))
    info = server.rpc.info()
    (tmp_path / "gateway.key").write_text("gp-key\n")
    server.rpc.services.info = lambda: msgspec.structs.replace(info, gateway_url="http://127.0.0.1:8790")
    code, out, _ = run("env", "gemini-cli", "--write")
    assert code == 0
    assert f"{home}/.gemini/settings.json: written" in out
    assert "gp-key" not in out
    assert "gp-key" in (home / ".gemini" / ".env").read_text()
    assert set(json.loads(run("env", "gemini-cli", "--write", "--json")[1]).values()) == {"unchanged"}
    assert run("env", "genai", "--write")[0] == 2
    monkeypatch.setenv("GEMINI_POOL_SOCKET", str(tmp_path / "nobody"))
    assert run("env", "gemini-cli", "--undo")[0] == 0
    assert not list((home / ".gemini").iterdir())
    assert "nothing of ours" in run("env", "gemini-cli", "--undo")[1]
    (home / ".gemini").chmod(0o700)
    (home / ".config").write_text("")
    monkeypatch.setenv("GEMINI_POOL_SOCKET", str(server.path))
    code, _, err = run("env", "opencode", "--write")
    assert (code, "Traceback" in err) == (78, False)


def test_output_into_a_closed_pipe(server):
    """`gemini-pool status | head -0` is no traceback."""
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run(
        [sys.executable, "-m", "gemini_pool.cli", "status"],
        stdout=writer, stderr=subprocess.PIPE, env=_environment(), check=False,
    )  # fmt: skip
    os.close(writer)
    assert (process.returncode, process.stderr) == (1, b"")


@pytest.mark.parametrize(
    "verb", [("status",), ("status", "--json"), ("token", "key-a"), ("top", "--once"), ("config", "show")]
)
def test_output_that_goes_nowhere(server, tmp_path, verb):
    """A standard output that was closed is no output; one on a full disk is an error in words. No traceback either way."""
    command = f"{shlex.quote(sys.executable)} -m gemini_pool.cli {' '.join(verb)}"
    env = {
        **_environment(),
        "GEMINI_POOL_CONFIG_DIR": str(tmp_path),
        "GEMINI_POOL_STATE_DIR": str(tmp_path / "state"),
    }
    for into, code, said in (
        (">&-", 0, ""),
        (">/dev/full", 1, "gemini-pool: No space left on device\n"),
        ("| true", 0, ""),
    ):
        done = subprocess.run(
            ["sh", "-c", f"{command} {into}"], env=env, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (code, said), into


@pytest.mark.parametrize(
    ("words", "stdin", "env", "code"),
    [
        (["h\udcff"], b"", {}, 2),
        (["-"], b"h\xff", {}, 2),
        (["-"], None, {}, 2),
        (["h\u00e9"], b"", {}, 0),
        (["h\u00e9"], b"", {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, 0),
        (["-"], "h\u00e9".encode(), {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, 0),
        (["h\u00e9"], b"", {"PYTHONIOENCODING": "ascii"}, 0),
    ],
)  # fmt: skip
def test_letters_beyond_ascii(server, words, stdin, env, code):
    """A prompt is UTF-8 whatever the locale, or wrong usage; an answer is printed as far as the terminal has letters."""
    command = [sys.executable, "-m", "gemini_pool.cli", "ask", MODEL, *words]
    if stdin is None:
        command = ["sh", "-c", 'exec "$@" <&-', "sh", *command]
    done = subprocess.run(
        command, input=stdin, env={**_environment(), **env}, capture_output=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert b"Traceback" not in done.stderr
    if code == 0:
        assert b"you said: h" in done.stdout


def test_json_is_utf8_whatever_the_locale(server):
    """What a program reads does not hang on letters that a terminal has."""
    done = subprocess.run(
        [sys.executable, "-m", "gemini_pool.cli", "ask", MODEL, "h\u00e9", "--json"],
        env={**_environment(), "PYTHONIOENCODING": "ascii"}, capture_output=True, check=True,
    )  # fmt: skip
    assert "h\u00e9" in json.loads(done.stdout)["candidates"][0]["content"]["parts"][0]["text"]


def test_a_directory_that_is_gone(server, tmp_path):
    """Absolute places are found from a directory that was removed."""
    gone = tmp_path / "gone"
    gone.mkdir()
    done = subprocess.run(
        ["sh", "-c", f"rmdir {gone}; exec {shlex.quote(sys.executable)} -P -m gemini_pool.cli status"],
        env=_environment(), cwd=gone, capture_output=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")


def _environment():
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def test_hand_over(tmp_path):
    """`run`, `demo` and `config` become the daemon's own program, arguments and all, in the same process."""
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "GEMINI_POOL_CONFIG_DIR": str(tmp_path),
        "GEMINI_POOL_STATE_DIR": str(tmp_path / "state"),
    }
    (tmp_path / "config.toml").write_text("[gateway]\nlissen = 3\n")
    (tmp_path / "gemini_poold.py").write_text("raise SystemExit('the wrong one')")
    command = [sys.executable, "-m", "gemini_pool.cli"]
    done = subprocess.run(
        [*command, "config", "check"], env=env, cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 78
    assert b"lissen" in done.stderr + done.stdout
    (tmp_path / "config.toml").write_text('[network]\nproxy = "http://me:fake-password@proxy:3128"\n')
    for more in ((), ("--json",)):
        done = subprocess.run(
            [*command, "config", "show", *more], env=env, cwd=tmp_path, capture_output=True, check=True
        )
        assert b"http://***@proxy:3128" in done.stdout
        assert b"fake-password" not in done.stdout
    (tmp_path / "config.toml").write_text(f'[network]\nca_file = "{tmp_path}/gone.pem"\n')
    done = subprocess.run(
        [*command, "config", "check"], env=env, cwd=tmp_path, capture_output=True, check=False
    )
    assert (done.returncode, b"gone.pem" in done.stderr) == (78, True)  # as the daemon's start would end
    done = subprocess.run(
        [*command, "run", "--help"], env=env, cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 0
    assert b"usage" in done.stdout


def test_client_alone(tmp_path, monkeypatch, run):
    """Where only the client is installed, the daemon's verbs say how to get it."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    code, _, err = run("run")
    assert code == 1
    assert "pip install gemini-pool" in err


def test_interrupt(monkeypatch, run):
    """Ctrl-C is the shell's 130, without a traceback."""

    def interrupted(_options):
        raise KeyboardInterrupt

    monkeypatch.setitem(commands.VERBS, "status", interrupted)
    assert run("status") == (130, "", "")


@pytest.mark.parametrize("args", [[], ["work"], [""], ["work", "--json"], ["--model", "m"]])
def test_token_reads_its_options_as_the_whole(args):
    """The short cut for a bare `token`, and the small grammar, give what the whole one gives."""
    whole = vars(cli.build_parser().parse_args(["token", *args]))
    assert vars(cli._token_options(args)) == whole


def test_a_bare_token_imports_no_argparse():
    """Scripts call it all the time: what it does not need it does not load."""
    code = (
        "import sys\nfrom gemini_pool import cli, commands, _sync\ncli._token_options([])\n"
        "sys.exit(bool({'argparse', 'shutil', 'asyncio', 'subprocess'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": os.pathsep.join(sys.path)})


def test_token_has_the_grammar_of_the_whole(capsys):
    """`token` builds its own parser because it is called so often; its help is that of the whole grammar's."""
    with pytest.raises(SystemExit):
        cli.main(["token", "--help"])
    short = capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.build_parser().parse_args(["token", "--help"])
    assert short == capsys.readouterr().out
