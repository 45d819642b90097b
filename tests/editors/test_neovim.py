"""The Neovim plugin, run headless: every transcript, and a real daemon with a fake Google behind it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conformance.script import FOLDER, scripts
from tests.editors.staging import VISIT, replayed, restarted, stall
from tests.fakes.daemon import DaemonProcess

from gemini_poold.fake import FakeGoogle

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "client" / "neovim"
MODEL = "gemini-3-flash-preview"

if shutil.which("nvim") is None:
    if os.environ.get("GEMINI_POOL_REQUIRE_EDITORS"):
        pytest.fail("nvim is not installed", pytrace=False)
    pytest.skip("nvim is not installed", allow_module_level=True)


def nvim(socket: Path, file: Path, home: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a Lua file in a Neovim that has nothing but the plugin."""
    command = ["nvim", "--headless", "-u", "NONE", "-i", "NONE", "--cmd", f"set rtp^={PLUGIN}"]
    command += ["-c", f"source {PLUGIN}/plugin/gemini_pool.lua", "-c", f"luafile {file}"]
    given = {"PATH": os.environ["PATH"], "HOME": str(home), "GEMINI_POOL_SOCKET": str(socket), **env}
    return subprocess.run(
        command, env=given, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
    )


@pytest.mark.parametrize("name", [script.name for script in scripts("client")])
def test_transcripts(name: str, tmp_path: Path) -> None:
    """The plugin says what stands in the transcript, and hands on what it gets."""
    player = Path(__file__).with_name("neovim_player.lua")
    with replayed(name, tmp_path) as socket:
        done = nvim(socket, player, tmp_path, PLAY=str(FOLDER / f"{name}.json"))
        assert done.returncode == 0, done.stderr


def run_lua(daemon: DaemonProcess, tmp_path: Path, text: str) -> str:
    """What a piece of Lua wrote with `out(…)`."""
    file = tmp_path / "test.lua"
    written = tmp_path / "out.txt"
    file.write_text(
        f"""
local lines = {{}}
local function out(...)
  local words = {{}}
  for i = 1, select('#', ...) do words[i] = tostring((select(i, ...))) end
  lines[#lines + 1] = table.concat(words, ' ')
end
local function wait(check) assert(vim.wait(15000, check, 5), 'nothing happened') end
local pool, rpc = require('gemini_pool'), require('gemini_pool.rpc')
local ok, why = pcall(function()
{text}
end)
if not ok then out('FAILED', why) end
vim.fn.writefile(lines, '{written}')
vim.cmd('qall!')
""",
        encoding="utf-8",
    )
    done = nvim(daemon.socket, file, tmp_path)
    assert written.exists(), done.stderr
    return written.read_text(encoding="utf-8")


def test_ask_streams_into_a_window(daemon: DaemonProcess, tmp_path: Path) -> None:
    """`:GeminiPool ask` shows the answer as it comes, and the account that gave it is known."""
    out = run_lua(
        daemon,
        tmp_path,
        """
vim.cmd('GeminiPool ask hello there')
wait(function() return pool.last end)
out(table.concat(vim.api.nvim_buf_get_lines(0, 0, -1, false), ' '))
out(pool.last.account, pool.last.finish_reason)
""",
    )
    assert "hello there" in out
    assert "a STOP" in out


def test_verbs_show_what_the_daemon_knows(daemon: DaemonProcess, tmp_path: Path) -> None:
    """status, explain and quota open a window each; pause and resume say what they did."""
    out = run_lua(
        daemon,
        tmp_path,
        f"""
for _, line in ipairs({{'status', 'explain {MODEL}', 'quota'}}) do
  local before = #vim.api.nvim_list_wins()
  vim.cmd('GeminiPool ' .. line)
  wait(function() return #vim.api.nvim_list_wins() > before end)
  out(line, '|', table.concat(vim.api.nvim_buf_get_lines(0, 0, -1, false), ' / '))
end
local said
vim.notify = function(text) said = text end
vim.cmd('GeminiPool pause a')
wait(function() return said end)
out(said)
local err = rpc.wait('pool/generate', {{model = '{MODEL}', request = {{contents = {{}}}}, wait_s = 0}})
out(err and err.code)
vim.cmd('GeminiPool nonsense')
out(said)
out(table.concat(pool.complete("", "GeminiPool pause "), ','))
""",
    )
    assert "status | a " in out
    assert f"{MODEL}: a" in out
    assert "a is paused" in out
    assert "no verb nonsense" in out
    assert "\na\n" in out


def test_login(daemon: DaemonProcess, ann: str, tmp_path: Path) -> None:
    """The address is shown; the end tells the state that the daemon found, here that of a disabled account."""
    with daemon.pool() as pool:
        pool.disable(ann)
    out = run_lua(
        daemon,
        tmp_path,
        f"""
local said = {{}}
vim.notify = function(text) said[#said + 1] = text end
vim.cmd('GeminiPool login {ann}')
wait(function() return #said == 1 end)
vim.fn.jobstart({{'{sys.executable}', '-c', '{VISIT}', said[1]:match('http%S+')}})
wait(function() return #said == 2 end)
out(said[2])
vim.cmd('GeminiPool login nobody')
wait(function() return #said == 3 end)
out(said[3])
""",
    )
    assert f"{ann} is disabled" in out
    assert "client" in out.split(f"{ann} is")[1]


def test_pin(daemon: DaemonProcess, tmp_path: Path) -> None:
    """pin and unpin reach the daemon, for all models or for those of a glob; status shows them; a wrong account is told."""
    out = run_lua(
        daemon,
        tmp_path,
        """
local said
vim.notify = function(text) said = text end
local function run(line)
  said = nil
  vim.cmd('GeminiPool ' .. line)
  wait(function() return said end)
  local _, found = rpc.wait('account/list', {})
  out(said, '|', table.concat(found.accounts[1].pinned, ' '))
end
run('pin a gemini-3*')
local before = #vim.api.nvim_list_wins()
vim.cmd('GeminiPool status')
wait(function() return #vim.api.nvim_list_wins() > before end)
out(vim.api.nvim_buf_get_lines(0, 0, 1, false)[1])
run('unpin a gemini-3*')
run('pin a')
run('unpin a')
run('pin nobody')
""",
    )
    lines = out.splitlines()
    assert lines[0] == "gemini-pool: a is pinned for gemini-3* | gemini-3*"
    assert lines[1].endswith("pinned for gemini-3*")
    assert lines[2:5] == [
        "gemini-pool: a is not pinned any more for gemini-3* | ",
        "gemini-pool: a is pinned | *",
        "gemini-pool: a is not pinned any more | ",
    ]
    assert "nobody" in lines[5]


def test_an_error_brings_its_hint(daemon: DaemonProcess, tmp_path: Path) -> None:
    """A model that nobody has: the daemon's word, and what to type."""
    out = run_lua(
        daemon,
        tmp_path,
        """
local err = rpc.wait('pool/explain', {decision = 'no-such'})
out(err.code, '|', err.hint)
""",
    )
    assert out.startswith("not_found |")
    assert out.split("|")[1].strip()


def test_a_stream_is_cancelled(daemon: DaemonProcess, google: FakeGoogle, tmp_path: Path) -> None:
    """The handle's cancel ends the request on the daemon's side, too."""
    stall(google)
    out = run_lua(
        daemon,
        tmp_path,
        """
local got
local handle = pool.generate{prompt = 'hi', on_chunk = function() end, on_done = function(err) got = err or {code = 'none'} end}
handle.cancel()
wait(function() return got end)
out(got.code)
local err, status = rpc.wait('pool/status', {})
out('leases', #(status.leases or {}))
""",
    )
    assert out.splitlines() == ["cancelled", "leases 0"]


def test_generate(daemon: DaemonProcess, tmp_path: Path) -> None:
    """A whole answer, as other plugins ask for it; a call without a function for its end tells its error."""
    out = run_lua(
        daemon,
        tmp_path,
        f"""
local answer, failed, said
pool.setup({{model = '{MODEL}'}})
pool.generate{{prompt = 'hello there', on_done = function(err, result) answer, failed = result, err end}}
wait(function() return answer or failed end)
out(failed and failed.message, pool.text(answer))
vim.notify = function(text) said = text end
pool.generate{{prompt = 'hello', model = 'no-such'}}
wait(function() return said end)
out(said)
""",
    )
    whole, said = out.splitlines()[:2]
    assert whole.startswith("nil ")
    assert whole.endswith("you said: hello there")
    assert said.startswith("gemini-pool: ")


def test_the_daemon_is_restarted_in_the_middle(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Between two calls the daemon is another one: the second call is answered all the same."""
    first, go = tmp_path / "first", tmp_path / "go"
    program = f"""
local _, before = rpc.wait('daemon/info', {{}})
vim.fn.writefile({{}}, '{first}')
wait(function() return vim.fn.filereadable('{go}') == 1 end)
local err, after = rpc.wait('daemon/info', {{}})
out(err and err.code, after and after.pid ~= before.pid)
"""
    out = restarted(daemon, first, go, lambda: run_lua(daemon, tmp_path, program))
    assert out.strip() == "nil true"


def test_the_daemon_dies_under_a_stream(daemon: DaemonProcess, google: FakeGoogle, tmp_path: Path) -> None:
    """What came of the answer is there, its end is an error and no second request, and the next call finds the next daemon."""
    stall(google)
    first, go = tmp_path / "first", tmp_path / "go"
    program = f"""
local text, got = '', nil
local function chunk(more) text = text .. more; vim.fn.writefile({{}}, '{first}') end
pool.generate{{prompt = 'hello', on_chunk = chunk, on_done = function(err) got = err or {{code = 'none'}} end}}
wait(function() return got end)
out(#text > 0, got.code, got.retryable, got.hint ~= nil)
wait(function() return vim.fn.filereadable('{go}') == 1 end)
local err, found = rpc.wait('account/list', {{}})
out(err and err.code, found and found.accounts[1].id)
"""
    out = restarted(daemon, first, go, lambda: run_lua(daemon, tmp_path, program), kill=True)
    assert out.splitlines() == ["true connection_lost true true", "nil a"]
    assert google.record.count("stream") == 1


def test_without_a_daemon(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Every way to ask says so, and what to type; the statusline and :checkhealth, too."""
    daemon.stop()
    out = run_lua(
        daemon,
        tmp_path,
        """
rpc.connect_ms = 100
local said
vim.notify = function(text) said = text end
vim.cmd('GeminiPool status')
wait(function() return said end)
out((said:gsub('\\n', ' | ')))
wait(function() return pool.statusline() ~= '' end)
out(pool.statusline())
vim.cmd('checkhealth gemini_pool')
out(table.concat(vim.api.nvim_buf_get_lines(0, 0, -1, false), ' / '))
""",
    )
    said, line, health = out.splitlines()[:3]
    assert said.startswith("gemini-pool: no daemon answers at ")
    assert "systemctl --user start gemini-pool" in said
    assert line == "gemini: off"
    assert "no daemon answers" in health


def test_health(daemon: DaemonProcess, tmp_path: Path) -> None:
    """:checkhealth says that the daemon answers, and how each account is."""
    out = run_lua(
        daemon,
        tmp_path,
        """
vim.cmd('checkhealth gemini_pool')
out(table.concat(vim.api.nvim_buf_get_lines(0, 0, -1, false), ' / '))
""",
    )
    assert "answers at" in out
    assert "a (developer-api): ready" in out


def test_the_statusline_never_waits(daemon: DaemonProcess, tmp_path: Path) -> None:
    """At first it is empty, then it says something; without a daemon it says that."""
    out = run_lua(
        daemon,
        tmp_path,
        """
out('[' .. pool.statusline() .. ']')
wait(function() return pool.statusline() ~= '' end)
out(pool.statusline())
""",
    )
    assert out.splitlines()[0] == "[]"
    assert "gemini:" in out.splitlines()[1]


def test_help(daemon: DaemonProcess, tmp_path: Path) -> None:
    """The help page has its tags."""
    out = run_lua(
        daemon,
        tmp_path,
        f"""
vim.fn.mkdir('{tmp_path}/rtp/doc', 'p')
vim.fn.writefile(vim.fn.readfile('{PLUGIN}/doc/gemini-pool.txt'), '{tmp_path}/rtp/doc/gemini-pool.txt')
vim.cmd('helptags {tmp_path}/rtp/doc')
vim.opt.rtp:append('{tmp_path}/rtp')
vim.cmd('help gemini_pool.generate()')
out(vim.api.nvim_get_current_line())
""",
    )
    assert "gemini_pool.generate()" in out
