"""The first program of the Python client's page, as it stands there, in a process of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.fakes.daemon import DaemonProcess, api_key_account, fake_google

from gemini_poold.fake import World

PAGE = (Path(__file__).parents[2] / "client" / "README.md").read_text(encoding="utf-8")
BLOCKS = dict(reversed(re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.M | re.S)))  # the first of each language
GIVEN = "import requests\nbody = {'contents': [{'role': 'user', 'parts': [{'text': 'by hand'}]}]}\n"

# What `nc -UN SOCKET` does, where there is no nc.
NC = f"""#!{sys.executable}
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[2])
s.sendall(sys.stdin.buffer.read())
s.shutdown(socket.SHUT_WR)
while data := s.recv(65536):
    sys.stdout.buffer.write(data)
"""


def test_the_page_s_first_program(tmp_path):
    """It prints an answer and a stream, and sends with a lease that reports by itself; and so does the line for `nc`."""
    world = World()
    world.add_api_key("key-a")
    with fake_google(world) as google:
        accounts = api_key_account("key-a", lend=True)
        with DaemonProcess(tmp_path, fake=google, accounts=accounts) as daemon:
            done = subprocess.run(
                [sys.executable, "-c", GIVEN + BLOCKS["python"]],
                env=daemon.env,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            whole, streamed = done.stdout.split("\n", 1)
            assert "you said: Hello!" in whole
            assert streamed.endswith("you said: Write a haiku about queues")
            with daemon.pool() as pool:
                found = pool.status()
            assert (found.counters.answered, found.leases) == (3, [])
            if shutil.which("nc") is None:
                (tmp_path / "nc").write_text(NC)
                (tmp_path / "nc").chmod(0o755)
            place = tmp_path / "r" / "gemini-pool"
            place.mkdir(parents=True)
            (place / "pool.sock").symlink_to(daemon.socket)
            runtime = {
                "PATH": f"{os.environ['PATH']}{os.pathsep}{tmp_path}",
                "XDG_RUNTIME_DIR": str(place.parent),
            }
            told = subprocess.run(
                ["bash", "-e", "-c", BLOCKS["sh"]],
                env=runtime,
                capture_output=True,
                text=True,
                check=False,
                timeout=20,
            )
            assert '"key-a"' in told.stdout, told.stderr
