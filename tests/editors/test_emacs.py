"""The Emacs package, run in batch: every transcript, and a real daemon with a fake Google behind it."""

from __future__ import annotations

import json
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


def test_a_stream_is_cancelled(daemon: DaemonProcess, google: FakeGoogle, tmp_path: Path) -> None:
    """Cancelling ends the request on the daemon's side, too; id 1 or not."""
    stall(google)
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


def test_generate(daemon: DaemonProcess, tmp_path: Path) -> None:
    """A whole answer, as other packages ask for it; a call without a function for its end tells its error."""
    out = run_lisp(
        daemon,
        tmp_path,
        f"""
{SAID}
(let (got)
  (gemini-pool-generate "hello there" :model "{MODEL}" :on-done (lambda (error result) (setq got (list error result))))
  (wait (lambda () got))
  (out (car got) (gemini-pool-text (cadr got))))
(gemini-pool-generate "hello" :model "no-such")
(wait (lambda () said))
(out (car said))
""",
    )
    assert out[0].startswith("nil ")
    assert out[0].endswith("you said: hello there")
    assert out[1].startswith("gemini-pool: ")


def test_what_is_called_back_is_in_its_buffer(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Chunks are inserted where the question was asked, and nowhere once that buffer was killed."""
    out = run_lisp(
        daemon,
        tmp_path,
        """
(defun ask (kill)
  (let (got (buffer (generate-new-buffer "asked")))
    (with-current-buffer buffer
      (gemini-pool-generate "hello" :on-chunk (lambda (text _) (insert text)) :on-done (lambda (&rest _) (setq got t))))
    (when kill (kill-buffer buffer))
    (wait (lambda () got))
    (prog1 (and (not kill) (with-current-buffer buffer (buffer-string)))
      (unless kill (kill-buffer buffer)))))
(out (ask nil))
(ask t)
(defun told (each) (with-current-buffer each (string-match-p (concat "you " "said") (buffer-string))))
(out (mapcar #'buffer-name (cl-remove-if-not #'told (buffer-list))))
""",
    )
    assert out[0].endswith("you said: hello")
    assert out[1] == "nil"


def test_the_daemon_is_restarted_in_the_middle(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Between two calls the daemon is another one: the second call is answered all the same."""
    first, go = tmp_path / "first", tmp_path / "go"
    program = f"""
(let ((before (plist-get (gemini-pool-request "daemon/info") :pid)))
  (write-region "" nil "{first}" nil 'silent)
  (wait (lambda () (file-exists-p "{go}")))
  (out (/= before (plist-get (gemini-pool-request "daemon/info") :pid))))
"""
    assert restarted(daemon, first, go, lambda: run_lisp(daemon, tmp_path, program)) == ["t"]


def test_the_daemon_dies_under_a_stream(daemon: DaemonProcess, google: FakeGoogle, tmp_path: Path) -> None:
    """What came of the answer is there, its end is an error and no second request, and the next call finds the next daemon."""
    stall(google)
    first, go = tmp_path / "first", tmp_path / "go"
    program = f"""
(let ((text "") got)
  (gemini-pool-generate
   "hello"
   :on-chunk (lambda (more _) (setq text (concat text more)) (write-region "" nil "{first}" nil 'silent))
   :on-done (lambda (error _) (setq got (or error '(:code "none")))))
  (wait (lambda () got))
  (out (> (length text) 0) (plist-get got :code) (plist-get got :retryable) (stringp (plist-get got :hint)))
  (wait (lambda () (file-exists-p "{go}")))
  (out (plist-get (aref (plist-get (gemini-pool-request "account/list") :accounts) 0) :id)))
"""
    out = restarted(daemon, first, go, lambda: run_lisp(daemon, tmp_path, program), kill=True)
    assert out == ["t connection_lost t t", "a"]
    assert google.record.count("stream") == 1


def test_without_a_daemon(daemon: DaemonProcess, tmp_path: Path) -> None:
    """A command is a user error that says what to type, an answer's buffer has the error, the mode line says it is off."""
    daemon.stop()
    out = run_lisp(
        daemon,
        tmp_path,
        f"""
{SAID}
(setq gemini-pool-connect-seconds 0.1)
(condition-case error (gemini-pool-status) (user-error (out (string-replace "\n" " | " (cadr error)))))
(with-current-buffer (gemini-pool-ask "hello")
  (out (string-trim (buffer-string)) (string-replace "\n" " | " (car said))))
(gemini-pool-mode-line-mode 1)
(wait (lambda () (not (equal gemini-pool--mode-line ""))))
(out gemini-pool--mode-line)
""",
    )
    assert out[0].startswith("no daemon answers at ")
    assert "systemctl --user start gemini-pool" in out[0]
    assert out[1].startswith("no daemon answers at ")
    assert "systemctl --user start gemini-pool" in out[1]
    assert out[2] == " gemini:off"


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


GPTEL = Path(__file__).with_name("gptel")


def test_gptel(daemon: DaemonProcess, tmp_path: Path) -> None:
    """A backend for gptel: its models are the pool's, its answers come over the gateway's socket, whole or streamed; an
    error has the daemon's words. gptel itself is stood in for, by what its documentation and its calls of curl are."""
    out = run_lisp(
        daemon,
        tmp_path,
        f"""
(push "{GPTEL}" load-path)
(require 'gemini-pool-gptel)
(setq gptel-backend (gemini-pool-gptel) gptel-model 'gemini-2.5-flash)
(out (mapcar #'car gptel--known-backends) (and (assq 'gemini-2.5-flash (gptel-stand-in-models gptel-backend)) t))
(defun ask (prompt)
  (let (got end)
    (gptel-stand-in-request prompt (lambda (text) (if (stringp text) (push text got) (setq end text))))
    (wait (lambda () end))
    (if (consp end) (out (car end) (string-replace "\n" " " (cdr end)))
      (out (> (length got) 1) (string-join (nreverse got))))))
(ask "hello")
(setq gptel-backend (gemini-pool-gptel "whole" :stream nil :models '(gemini-2.5-flash)))
(ask "hello")
(gemini-pool-pause "a")
(ask "hello")
(let ((gptel-use-curl nil)) (condition-case error (gemini-pool-gptel) (user-error (out (cadr error)))))
""",
    )
    assert out[0] == "(gemini-pool) t"
    assert out[1].startswith("t ")
    assert out[1].endswith("you said: hello")
    assert out[2] == out[1].replace("t ", "nil ", 1)
    status, body = out[3].split(" ", 1)
    assert int(status) >= 400
    assert "a" in json.loads(body)["error"]["message"]
    assert "gptel-use-curl" in out[4]


def test_gptel_is_not_needed(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Without gptel the package loads, and the backend says what is missing; without a daemon, too."""
    out = run_lisp(
        daemon,
        tmp_path,
        f"""
(require 'gemini-pool-gptel)
(condition-case error (gemini-pool-gptel) (user-error (out (cadr error))))
(push "{GPTEL}" load-path)
(setq gemini-pool-socket "{tmp_path}/nobody/pool.sock")
(condition-case error (gemini-pool-gptel) (user-error (out (cadr error))))
""",
    )
    assert out[0] == "Gptel is not installed"
    assert out[1].startswith("The gateway does not answer")


@pytest.mark.parametrize("name", ["gemini-pool.el", "gemini-pool-gptel.el"])
def test_it_compiles_and_is_documented(name: str, tmp_path: Path) -> None:
    """No warning of the compiler's or of checkdoc's, and its autoloads can be made."""
    copy = tmp_path / name
    shutil.copy(PACKAGE / name, copy)
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
    wanted = "gemini-pool-ask" if name == "gemini-pool.el" else "gemini-pool-gptel"
    assert wanted in loads.read_text(encoding="utf-8")
