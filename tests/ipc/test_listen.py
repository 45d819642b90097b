"""Binding: one daemon per socket, nobody else's files touched, nothing left behind."""

import fcntl
import os
import socket
import stat
import subprocess
import sys

import pytest

from gemini_poold.errors import FileRefused
from gemini_poold.ipc import listen


def connects(path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def test_bind_makes_folder_and_socket_private(tmp_path):
    """Folder 0700, socket 0600 from its first instant, whatever the umask; the umask is as before."""
    before = os.umask(0)
    try:
        listening = listen.bind(tmp_path / "a" / "run" / "pool.sock")
        assert os.umask(0) == 0
    finally:
        os.umask(before)
    with listening.sock:
        assert stat.S_IMODE(listening.path.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(listening.path.stat().st_mode) == 0o600
        assert connects(listening.path)
        listening.close()


def test_close_removes_our_own_socket_only(tmp_path):
    """At the end the socket is gone; one that another daemon put there meanwhile stays."""
    path = tmp_path / "run" / "pool.sock"
    first = listen.bind(path)
    first.close()
    assert not path.exists()
    first.close()
    second = listen.bind(path)
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        second.close()
        assert path.exists()


def test_second_daemon_is_refused(tmp_path):
    """The lock is held for life: the second one is told who the first is and how to stop it, and harms nothing."""
    path = tmp_path / "run" / "pool.sock"
    first = listen.bind(path)
    with pytest.raises(listen.AlreadyRunning) as caught:
        listen.bind(path)
    assert caught.value.pid == os.getpid()
    assert f"kill {os.getpid()}" in caught.value.hint
    assert caught.value.exit_code == 1
    assert connects(path)
    first.close()
    listen.bind(path).close()


def test_a_daemon_without_our_lock_is_seen(tmp_path):
    """Somebody who answers on the socket but holds no lock (socket activation elsewhere) is not pushed aside."""
    path = tmp_path / "run" / "pool.sock"
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(listen.AlreadyRunning):
            listen.bind(path)
        assert connects(path)


def test_stale_socket_of_a_killed_daemon(tmp_path):
    """After kill -9 the socket's file stays and nobody answers: the next daemon takes over."""
    path = tmp_path / "run" / "pool.sock"
    script = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from pathlib import Path\n"
        "from gemini_poold.ipc import listen\n"
        "kept = listen.bind(Path(sys.argv[1])); print('bound', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(path), *sys.path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"bound\n"
    with pytest.raises(listen.AlreadyRunning) as caught:
        listen.bind(path)
    assert caught.value.pid == process.pid
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()
    assert path.exists()
    listening = listen.bind(path)
    assert connects(path)
    listening.close()


@pytest.mark.parametrize("kind", ["file", "link", "dangling", "folder"])
def test_what_is_no_socket_is_refused(tmp_path, kind):
    """A file, link or folder in the socket's place is not ours to remove: the command that does is told."""
    path = tmp_path / "run" / "pool.sock"
    path.parent.mkdir(mode=0o700)
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    else:
        target = tmp_path / "elsewhere"
        if kind == "link":
            target.write_text("precious")
        path.symlink_to(target)
    with pytest.raises(FileRefused) as caught:
        listen.bind(path)
    assert caught.value.hint == f"rm {path}"
    assert os.path.lexists(path)


def test_loose_folder_is_refused(tmp_path):
    """A folder open to others is refused with the command that mends it."""
    folder = tmp_path / "run"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    with pytest.raises(FileRefused) as caught:
        listen.bind(folder / "pool.sock")
    assert caught.value.hint == f"chmod 700 {folder}"


def test_linked_folder_is_refused(tmp_path):
    """A folder that is a symbolic link is refused."""
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "run").symlink_to(tmp_path / "real")
    with pytest.raises(FileRefused, match="symbolic link"):
        listen.bind(tmp_path / "run" / "pool.sock")


def test_folder_for_everybody_is_refused(tmp_path):
    """In a sticky folder like /tmp anybody could take the name first: a folder of one's own is asked for."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    with pytest.raises(FileRefused) as caught:
        listen.bind(folder / "pool.sock")
    assert "mkdir -m 700" in caught.value.hint


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")
def test_foreign_folder_or_socket_is_refused(tmp_path):
    """What belongs to another user is refused."""
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    os.chown(folder, 65534, 65534)
    with pytest.raises(FileRefused, match="65534"):
        listen.bind(folder / "pool.sock")
    os.chown(folder, 0, 0)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(folder / "pool.sock"))
    os.chown(folder / "pool.sock", 65534, 65534)
    with pytest.raises(FileRefused, match="65534"):
        listen.bind(folder / "pool.sock")


def test_linked_lock_is_refused(tmp_path):
    """A link in the lock's place would have us open another's file."""
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    (folder / "pool.sock.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileRefused):
        listen.bind(folder / "pool.sock")
    assert not (tmp_path / "elsewhere").exists()


def test_long_path(tmp_path):
    """A path that no system takes is told as such, before anything is made."""
    with pytest.raises(FileRefused, match="103 bytes"):
        listen.bind(tmp_path / ("x" * 120) / "pool.sock")
    assert list(tmp_path.iterdir()) == []


def test_failed_bind_frees_the_lock(tmp_path):
    """A refusal leaves no lock behind for whoever mends it."""
    path = tmp_path / "run" / "pool.sock"
    path.parent.mkdir(mode=0o700)
    path.write_text("")
    with pytest.raises(FileRefused):
        listen.bind(path)
    path.unlink()
    listen.bind(path).close()


def test_inherited_socket_keeps_its_file(tmp_path):
    """A service manager's socket stays when we stop: connections wait there for the next daemon."""
    path = tmp_path / "pool.sock"
    with socket.socket(socket.AF_UNIX) as manager:
        manager.bind(str(path))
        manager.listen()
        listening = listen.inherit(manager.dup(), path)
        assert listening.inherited
        assert not listening.sock.getblocking()
        listening.close()
        assert path.exists()
        assert connects(path)


def test_lock_is_not_inherited_by_children(tmp_path):
    """A child process must not keep the lock when the daemon is gone."""
    path = tmp_path / "run" / "pool.sock"
    listening = listen.bind(path)
    assert fcntl.fcntl(listening._lock_fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    listening.close()
