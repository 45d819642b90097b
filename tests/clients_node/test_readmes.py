"""Install and first lines of the pages of the TypeScript client and of the opencode plugin, done as a new user would."""

import os
import re
import subprocess
from pathlib import Path

from tests.clients_node.conftest import MODEL
from tests.clients_node.test_client import js  # noqa: F401

CLIENTS = Path(__file__).parents[2] / "client"


def blocks(client, language):
    """The blocks of a language on a client's page."""
    text = (CLIENTS / client / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def run(command, cwd, env):
    done = subprocess.run(
        command,
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_typescript(js, daemon, tmp_path):  # noqa: F811
    """Installed into a project, the first program runs: it streams, and an error has its code and hint."""
    (install,), program = blocks("typescript", "sh"), blocks("typescript", "js")[0]
    project = tmp_path / "project"
    project.mkdir()
    (project / "client").symlink_to(CLIENTS)  # npm copies nothing of a folder, it links
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "GEMINI_POOL_SOCKET": daemon.env["GEMINI_POOL_SOCKET"],
    }
    (project / "package.json").write_text('{ "private": true }')
    run(
        ["bash", "-e", "-c", install],
        project,
        {**env, "npm_config_audit": "false", "npm_config_fund": "false"},
    )
    (project / "program.mjs").write_text(program)
    done = subprocess.run(
        [*js, "program.mjs"], cwd=project, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("you said: A haiku about queues")
    assert done.stderr.startswith("not_found gemini-pool account list")


def test_opencode(packages, daemon, google, tmp_path):
    """Installed, and named in opencode's own configuration: a question is answered, and the quota told."""
    (install, use), (configuration,) = blocks("opencode", "sh"), blocks("opencode", "json")
    home = tmp_path / "you"
    (home / ".config" / "opencode").mkdir(parents=True)
    env = {
        "PATH": f"{packages / '.bin'}{os.pathsep}{os.environ['PATH']}", "HOME": str(home),
        "GEMINI_POOL_SOCKET": daemon.env["GEMINI_POOL_SOCKET"], "npm_config_fetch_retries": "0",
        # opencode looks on the net for its own news, of which there are none here
        "OPENCODE_DISABLE_AUTOUPDATE": "1", "OPENCODE_DISABLE_MODELS_FETCH": "1",
    }  # fmt: skip
    run(["bash", "-e", "-c", install.replace("CHECKOUT", str(CLIENTS.parent))], home, env)
    (home / ".config" / "opencode" / "opencode.json").write_text(
        configuration.replace("/home/YOU", str(home))
    )
    ask, quota, _ = (line.split("#")[0] for line in use.strip().splitlines())
    assert "you said:" in run(["bash", "-e", "-c", ask], home, env)
    assert "gemini_quota" in run(["bash", "-e", "-c", f"{quota} -m google/{MODEL}"], home, env)
    assert google.record.count(credential="key-a", status=200) >= 2
