"""Install and first lines of the editors' own pages, done as a new user would: a home with nothing in it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.fakes.daemon import DaemonProcess

ROOT = Path(__file__).parents[2]
GPTEL = Path(__file__).with_name("gptel")
PATIENT = "(defun wait (check) (let ((until (+ (float-time) 15))) (while (and (not (funcall check)) (< (float-time) until)) (accept-process-output nil 0.01) (sleep-for 0.001))))"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def blocks(client: str, language: str) -> list[str]:
    """The blocks of a language on a client's page, for this checkout."""
    text = (ROOT / "client" / client / "README.md").read_text(encoding="utf-8")
    found = re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)
    return [block.replace("CHECKOUT", str(ROOT)) for block in found]


def run(command: list[str], home: Path, daemon: DaemonProcess) -> subprocess.CompletedProcess[str]:
    if shutil.which(command[0]) is None:
        if os.environ.get("GEMINI_POOL_REQUIRE_EDITORS"):
            pytest.fail(f"{command[0]} is not installed", pytrace=False)
        pytest.skip(f"{command[0]} is not installed")
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "LC_ALL": "C.UTF-8",
        "GEMINI_POOL_SOCKET": str(daemon.socket),
    }
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_neovim(daemon: DaemonProcess, home: Path, tmp_path: Path) -> None:
    """Linked, the plugin is there in the next Neovim: its commands, its Lua, its page of help's worth of health."""
    (install,), (commands,), (lua,) = (blocks("neovim", language) for language in ("sh", "vim", "lua"))
    run(["bash", "-e", "-c", install], home, daemon)
    (tmp_path / "lines.lua").write_text(lua, encoding="utf-8")
    (tmp_path / "drive.lua").write_text(
        f"""
local function wait(check) assert(vim.wait(15000, check, 5), 'nothing happened') end
for _, line in ipairs(vim.split([[{commands}]], '\\n', {{ trimempty = true }})) do
  local before = #vim.api.nvim_list_bufs()
  vim.cmd(line)
  wait(function() return #vim.api.nvim_list_bufs() > before end)
  wait(function() return #table.concat(vim.api.nvim_buf_get_lines(0, 0, -1, false)) > 0 end)
  vim.wait(200)
  io.stdout:write(line, ' => ', table.concat(vim.api.nvim_buf_get_lines(0, 0, -1, false), ' / '), '\\n')
end
local real, ended = print, false
print = function(...) real(...); ended = true end
dofile('{tmp_path}/lines.lua')
wait(function() return ended end)
io.stdout:write('\\n', vim.o.statusline, '\\n')
vim.cmd('qall!')
""",
        encoding="utf-8",
    )
    done = run(["nvim", "--headless", "-i", "NONE", "-c", f"luafile {tmp_path}/drive.lua"], home, daemon)
    status, asked, why, health, answer, line = done.stdout.splitlines()[:6]
    assert status.startswith(":GeminiPool status => a ")
    assert "you said: Why is the sky blue?" in asked
    assert "gemini-3-flash-preview: a" in why
    assert "a (developer-api): ready" in health
    assert answer.endswith("you said: A haiku about queues")
    assert done.stderr.rstrip().endswith("a")
    assert line.endswith("statusline()}")


def test_emacs(daemon: DaemonProcess, home: Path, tmp_path: Path) -> None:
    """Installed as a package, it is there in the next Emacs, autoloads and all; likewise from the load path."""
    install, init, lines, gptel = blocks("emacs", "elisp")
    run(
        ["emacs", "--batch", "--eval", f"(progn (require 'package) (package-initialize) {install})"],
        home,
        daemon,
    )
    file = tmp_path / "use.el"
    file.write_text(
        f""";; -*- lexical-binding: t -*-
{PATIENT}
(defvar said nil)
(advice-add 'message :before (lambda (form &rest args) (push (apply #'format form args) said)))
{init}
(with-temp-buffer
{lines}
  (wait (lambda () (member "a" said)))
  (princ (format "%s\\n" (buffer-string))))
(wait (lambda () (not (equal gemini-pool--mode-line ""))))
(princ (format "%s %s\\n" gemini-pool--mode-line (key-binding (kbd "C-c g"))))
(push "{GPTEL}" load-path)
(require 'gptel)
{gptel}
(princ (format "%s\\n" (gptel-stand-in-name gptel-backend)))
""",
        encoding="utf-8",
    )
    ways = (
        ["--eval", "(package-initialize)"],
        ["-L", str(ROOT / "client" / "emacs"), "-l", "gemini-pool-gptel"],
    )
    for way in ways:
        done = run(["emacs", "--batch", *way, "-l", str(file)], home, daemon)
        answer, line, backend = done.stdout.splitlines()
        assert answer.endswith("you said: A haiku about queues")
        assert line.startswith(" gemini:")
        assert line.endswith(" gemini-pool")
        assert backend == "gemini-pool"
