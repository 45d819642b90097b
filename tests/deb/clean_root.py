"""A bare Debian in a folder, with an ordinary user in it who has a live user manager: for tests as root.

The release is this machine's; packages come from wherever its apt gets them. Nothing outside of the folder is changed.
`Root.session()` runs tests/systemd/user-session.sh in there; meanwhile commands run in the same namespaces, as root
(`run`) or as the user (`as_user`), and every file can be looked at from outside (`path`). The network is the machine's own.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import shlex
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
SESSION = ROOT / "tests" / "systemd" / "user-session.sh"
USER, UID = "dev", 1000
HOME = f"/home/{USER}"
HOME_OF_ROOT = pwd.getpwuid(0).pw_dir
CANNOT = 77
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
# What every package manager's run leaves, and what is no part of the system.
_VOLATILE = ("/home", "/proc", "/sys", "/dev", "/run", "/tmp", "/var/log", "/var/lib/dpkg", "/var/cache",
             "/var/lib/systemd", "/lost+found")  # fmt: skip


class Unable(Exception):
    """This machine cannot do it; the text says why."""


def unable() -> str:
    """Why no clean root can be made here, or ""."""
    if os.geteuid():
        return "needs root"
    missing = [name for name in ("debootstrap", "apt-get", "unshare", "nsenter") if not shutil.which(name)]
    return f"not installed: {', '.join(missing)}" if missing else ""


@contextlib.contextmanager
def bootstrapping(folder: Path) -> Iterator[Bootstrap]:
    """A minimal system with Python and systemd comes into being in `folder`, beside whatever the block does until it
    asks for it. GEMINI_POOL_DEB_ROOT: one that is there already, to be copied."""
    if given := os.environ.get("GEMINI_POOL_DEB_ROOT"):
        line = ["cp", "-a", "--reflink=auto", f"{given}/.", str(folder)]
    else:
        uri, codename = _mirror()
        line = ["debootstrap", "--variant=minbase", "--include=systemd,python3", codename, str(folder), uri]
    log = folder.with_name(f"{folder.name}.log")
    with log.open("wb") as out, subprocess.Popen(line, stdout=out, stderr=out) as process:
        try:
            yield Bootstrap(folder, log, process)
        finally:
            process.terminate()
            process.wait()
            shutil.rmtree(folder, ignore_errors=True)


class Bootstrap(NamedTuple):
    folder: Path
    log: Path
    process: subprocess.Popen[bytes]

    def root(self) -> Root:
        """Waits for it, and gives it a user."""
        if self.process.wait():
            raise Unable(f"no clean root: {self.log.read_text(errors='replace')[-600:]}")
        self.folder.chmod(0o755)  # temporary folders are closed to others
        subprocess.run(
            ["chroot", self.folder, "useradd", "--create-home", "--uid", str(UID), USER], check=True
        )
        if not (self.folder / "etc/machine-id").read_text().strip():
            subprocess.run(
                ["chroot", self.folder, "systemd-machine-id-setup"], check=True, capture_output=True
            )
        return Root(self.folder)


def _mirror() -> tuple[str, str]:
    """The address that this machine's apt has its release from, and the release's name."""
    release = dict(
        line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line
    )
    codename = release.get("VERSION_CODENAME", "").strip('"')
    line = ["apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI)"]
    text = subprocess.run(line, capture_output=True, text=True).stdout
    for name, _, uri in (each.partition(" ") for each in text.splitlines()):
        if name == codename and uri:
            return uri, codename
    raise Unable("apt knows no archive of this machine's release")


class Root:
    """The root in `folder`. `session` is to be entered before anything runs in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._init = 0  # the first process of its PID namespace, by its number outside

    @contextlib.contextmanager
    def session(self) -> Iterator[None]:
        """The user's manager lives for as long as the block runs."""
        shutil.copy(SESSION, self.folder / "tmp" / "session.sh")
        place = shlex.quote(str(self.folder))
        steps = [
            "mount --make-rprivate /",
            f"mount --bind {place} {place}",
            *(f"mount --rbind /{name} {place}/{name}" for name in ("proc", "sys", "dev")),
            # No chroot: in one, the kernel gives nobody a user namespace.
            f"cd {place} && mkdir -p tmp/old && pivot_root . tmp/old && cd / && umount -l /tmp/old && rmdir /tmp/old",
            f"exec env -i PATH={PATH} HOME={HOME} bash /tmp/session.sh -u {UID} -k sh -c 'echo up; exec cat'",
        ]
        line = ["unshare", "--mount", "/bin/bash", "-c", " && ".join(steps)]
        pipe = subprocess.PIPE
        with subprocess.Popen(
            line, stdin=pipe, stdout=pipe, stderr=pipe
        ) as process:  # ends at the end of its input
            assert process.stdout is not None
            assert process.stderr is not None
            if process.stdout.readline() != b"up\n":
                text = process.stderr.read().decode(errors="replace")
                raise Unable(text) if process.wait(60) == CANNOT else RuntimeError(text)
            self._init = _only_child(_only_child(process.pid))
            yield

    def path(self, inside: str) -> Path:
        """A file of the running root, its private /run included, as it is seen from here."""
        return Path(f"/proc/{self._init}/root") / inside.lstrip("/")

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """As root, in there."""
        environ = [f"PATH={PATH}", "DEBIAN_FRONTEND=noninteractive", f"HOME={HOME_OF_ROOT}"]
        line = ["nsenter", "--target", str(self._init), "--mount", "--pid", "--root", "--wd"]
        line += ["env", "-i", *environ, *words]
        done = subprocess.run(line, capture_output=True, text=True, timeout=180)
        if check and done.returncode:
            raise AssertionError(f"{' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def as_user(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """As the ordinary user, with what a login gives to a shell."""
        line = ["setpriv", "--reuid", str(UID), "--regid", str(UID), "--init-groups", "--inh-caps=-all"]
        environ = [f"HOME={HOME}", f"USER={USER}", f"XDG_RUNTIME_DIR=/run/user/{UID}"]
        environ += [f"DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/{UID}/bus"]
        return self.run(*line, "env", *environ, *words, check=check)

    def write(self, inside: str, text: str) -> None:
        """A private file of the user's."""
        path = self.path(inside)
        for folder in reversed([path.parent, *path.parent.parents]):
            if not folder.exists():
                folder.mkdir(mode=0o700)
                os.chown(folder, UID, UID)
        path.write_text(text)
        path.chmod(0o600)
        os.chown(path, UID, UID)

    def system(self) -> dict[str, str]:
        """Everything outside of homes: path → kind, rights, owner and content. Python's caches count, too."""
        return self._files("/", _VOLATILE)

    def homes(self) -> dict[str, str]:
        """The same of every home."""
        return {**self._files("/home", ()), **self._files(HOME_OF_ROOT, ())}

    def _files(self, inside: str, without: tuple[str, ...]) -> dict[str, str]:
        found, top = {}, str(self.path("/")).rstrip("/")
        for folder, folders, names in os.walk(self.path(inside)):
            here = folder[len(top) :].rstrip("/")
            folders[:] = [name for name in folders if f"{here}/{name}" not in without]
            for name in [*folders, *names]:
                found[f"{here}/{name}"] = _digest(f"{folder}/{name}")
        return found


def _digest(path: str) -> str:
    info = os.lstat(path)
    text = f"{stat.filemode(info.st_mode)} {info.st_uid}:{info.st_gid}"
    if stat.S_ISLNK(info.st_mode):
        return f"{text} {os.readlink(path)}"
    if stat.S_ISREG(info.st_mode):
        return f"{text} {hashlib.sha256(Path(path).read_bytes()).hexdigest()}"
    return text


def differences(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """The paths that came, went or changed."""
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))


def _only_child(pid: int) -> int:
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)
