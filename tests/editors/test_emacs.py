"""The Emacs package, run in batch: every transcript, and a real daemon with a fake Google behind it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.conformance.script import FOLDER, scripts
from tests.editors.staging import VISIT, replayed
from tests.fakes.daemon import DaemonProcess

PACKAGE = Path(__file__).parents[2] / "client" / "emacs"
MODEL = "gemini-3-flash-preview"

if shutil.which("emacs") is None:
    if os.environ.get("GEMINI_POOL_REQUIRE_EDITORS"):
        pytest.fail("emacs is not installed", pytrace=False)
    pytest.skip("emacs is not installed", allow_module_level=True)


def emacs(home: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = ["emacs", "-Q", "--batch", "-L", str(PACKAGE), *args]
    given = {"PATH": os.environ["PATH"], "HOME": str(home), "LC_ALL": "C.UTF-8", **env}
    return subprocess.run(
        command, env=given, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
    )


@pytest.mark.parametrize("name", [script.name for script in scripts("client")])
def test_transcripts(name: str, tmp_path: Path) -> None:
    """The package says what stands in the transcript, and hands on what it gets."""
    player = str(Path(__file__).with_name("emacs_player.el"))
    with replayed(name, tmp_path) as socket:
        done = emacs(
            tmp_path, "-l", player, GEMINI_POOL_SOCKET=str(socket), PLAY=str(FOLDER / f"{name}.json")
        )
        assert done.returncode == 0, done.stderr


def run_lisp(daemon: DaemonProcess, tmp_path: Path, text: str) -> list[str]:
    """What a piece of Lisp wrote with `(out …)`, a line each."""
    file = tmp_path / "test.el"
    file.write_text(
        f""";; -*- lexical-binding: t -*-
(require 'gemini-pool)
(defun out (&rest words) (princ (mapconcat (lambda (w) (format "%s" w)) words " ")) (terpri))
(defun wait (check)
  (let ((until (+ (float-time) 15)))
    (while (and (not (funcall check)) (< (float-time) until)) (accept-process-output nil 0.01) (sleep-for 0.001))
    (unless (funcall check) (error "Nothing happened"))))
{text}
""",
        encoding="utf-8",
    )
    done = emacs(tmp_path, "-l", str(file), GEMINI_POOL_SOCKET=str(daemon.socket))
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_ask_streams_into_a_buffer(daemon: DaemonProcess, tmp_path: Path) -> None:
    """`gemini-pool-ask` shows the answer as it comes."""
    out = run_lisp(
        daemon,
        tmp_path,
        """
(let ((buffer (gemini-pool-ask "hello there")))
  (with-current-buffer buffer
    (wait (lambda () (gemini-pool-call-done gemini-pool--answering)))
    (out (buffer-string))))
""",
    )
    assert "hello there" in out[0]


def test_commands_show_what_the_daemon_knows(daemon: DaemonProcess, tmp_path: Path) -> None:
    """status, explain and quota fill a buffer each; pause is felt."""
    out = run_lisp(
        daemon,
        tmp_path,
        f"""
(gemini-pool-status)
(gemini-pool-explain "{MODEL}")
(gemini-pool-quota)
(dolist (name '("status" "explain" "quota"))
  (out name (with-current-buffer (format "*gemini-pool %s*" name) (string-replace "\\n" " / " (buffer-string)))))
(gemini-pool-pause "a")
(condition-case error
    (gemini-pool-request "pool/generate" '(:model "{MODEL}" :request (:contents []) :wait_s 0))
  (gemini-pool-error (out (plist-get (nth 3 error) :code) (nth 2 error))))
""",
    )
    assert out[0].startswith("status a ")
    assert f"explain {MODEL}: a" in out[1]
    assert out[2].startswith("quota ")
    assert out[3].strip()


SAID = """
(defvar said nil)
(advice-add 'message :override (lambda (form &rest args) (push (apply #'format form args) said) nil))
"""


def test_login(daemon: DaemonProcess, ann: str, tmp_path: Path) -> None:
    """The address is opened; the end tells the state that the daemon found, here that of a disabled account."""
    with daemon.pool() as pool:
        pool.disable(ann)
    out = run_lisp(
        daemon,
        tmp_path,
        f"""
{SAID}
(setq browse-url-browser-function
      (lambda (url &rest _) (start-process "browser" nil "{sys.executable}" "-c" "{VISIT}" url)))
(gemini-pool-login "{ann}")
(wait (lambda () (= 2 (length said))))
(out (car said))
(condition-case error (gemini-pool-login "nobody") (user-error (out (cadr error))))
""",
    )
    assert out[0].startswith(f"gemini-pool: {ann} is disabled")
    assert "client" in " ".join(out[1:])


def test_pin(daemon: DaemonProcess, tmp_path: Path) -> None:
    """pin and unpin reach the daemon, for all models or for those of a glob; status shows them; a wrong account is told."""
    out = run_lisp(
        daemon,
        tmp_path,
        f"""
{SAID}
(defun pinned () (plist-get (aref (plist-get (gemini-pool-request "account/list") :accounts) 0) :pinned))
(gemini-pool-pin "a" "gemini-3*")
(out (car said) (pinned))
(gemini-pool-status)
(out (with-current-buffer "*gemini-pool status*" (string-trim (buffer-string))))
(gemini-pool-unpin "a" "gemini-3*")
(out (car said) (pinned))
(gemini-pool-pin "a")
(out (car said) (pinned))
(gemini-pool-unpin "a")
(out (car said) (pinned))
(condition-case error (gemini-pool-pin "nobody") (user-error (out (cadr error))))
""",
    )
    assert out[0] == "gemini-pool: a is pinned for gemini-3* [gemini-3*]"
    assert "pinned for gemini-3*" in out[1]
    assert out[2:5] == [
        "gemini-pool: a is not pinned any more for gemini-3* []",
        "gemini-pool: a is pinned [*]",
        "gemini-pool: a is not pinned any more []",
    ]
    assert "nobody" in out[5]


def test_an_error_brings_its_hint(daemon: DaemonProcess, tmp_path: Path) -> None:
    """As a signal with the message, the hint and all the rest."""
    out = run_lisp(
        daemon,
        tmp_path,
        """
(condition-case error
    (gemini-pool-request "pool/explain" '(:decision "no-such"))
  (gemini-pool-error (out (plist-get (nth 3 error) :code) "|" (nth 2 error))))
""",
    )
    code, hint = out[0].split("|")
    assert code.strip() == "not_found"
    assert hint.strip() not in ("", "nil")


def test_a_stream_is_cancelled(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Cancelling ends the request on the daemon's side, too; id 1 or not."""
    out = run_lisp(
        daemon,
        tmp_path,
        """
(let* (got (call (gemini-pool-generate "hi" :on-chunk #'ignore :on-done (lambda (error _) (setq got (or error '(:code "none")))))))
  (gemini-pool-cancel call)
  (wait (lambda () got))
  (out (plist-get got :code))
  (out (length (plist-get (gemini-pool-request "pool/status") :leases))))
""",
    )
    assert out == ["cancelled", "0"]


def test_the_daemon_is_restarted_in_the_middle(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Between two calls the daemon is another one: the second call is answered all the same."""
    first, go = tmp_path / "first", tmp_path / "go"
    with ThreadPoolExecutor() as threads:
        running = threads.submit(
            run_lisp,
            daemon,
            tmp_path,
            f"""
(let ((before (plist-get (gemini-pool-request "daemon/info") :pid)))
  (write-region "" nil "{first}" nil 'silent)
  (wait (lambda () (file-exists-p "{go}")))
  (out (/= before (plist-get (gemini-pool-request "daemon/info") :pid))))
""",
        )
        while not first.exists() and not running.done():
            time.sleep(0.02)
        daemon.stop()
        daemon.start()
        go.touch()
        assert running.result() == ["t"]


def test_the_mode_line(daemon: DaemonProcess, tmp_path: Path) -> None:
    """It says something of the quota, and is gone when the mode is switched off."""
    out = run_lisp(
        daemon,
        tmp_path,
        """
(gemini-pool-mode-line-mode 1)
(wait (lambda () (not (equal gemini-pool--mode-line ""))))
(out gemini-pool--mode-line (and (memq 'gemini-pool--mode-line global-mode-string) t))
(gemini-pool-mode-line-mode -1)
(out (memq 'gemini-pool--mode-line global-mode-string))
""",
    )
    assert out[0].startswith(" gemini:")
    assert out == [out[0], "nil"]
    assert out[0].endswith(" t")


def test_it_compiles_and_is_documented(tmp_path: Path) -> None:
    """No warning of the compiler's or of checkdoc's, and its autoloads can be made."""
    copy = tmp_path / "gemini-pool.el"
    shutil.copy(PACKAGE / "gemini-pool.el", copy)
    made = emacs(
        tmp_path, "--eval", "(setq byte-compile-error-on-warn t)", "-f", "batch-byte-compile", str(copy)
    )
    assert made.returncode == 0, made.stderr
    checked = emacs(tmp_path, "--eval", f'(checkdoc-file "{copy}")')
    assert checked.stderr == ""
    loads = tmp_path / "loaddefs.el"
    emacs(
        tmp_path,
        "--eval",
        f'(progn (require \'autoload) (let ((generated-autoload-file "{loads}")) (update-file-autoloads "{copy}" t)))',
    )
    assert "gemini-pool-ask" in loads.read_text(encoding="utf-8")
