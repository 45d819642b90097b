"""Connections over a restart: what systemd is given to hold, and what the next process makes of it."""

from __future__ import annotations

import array
import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gemini_poold import handover, service


class Manager:
    """systemd's end of NOTIFY_SOCKET: takes descriptors, and lets go of barriers."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(str(path))
        self.sock.setblocking(False)
        self.stored: list[tuple[str, int]] = []
        self.messages: list[str] = []

    def look(self) -> None:
        while select.select([self.sock], [], [], 0)[0]:
            data, ancillary, _, _ = self.sock.recvmsg(4096, 65536)
            fds = array.array("i")
            for _, _, raw in ancillary:
                fds.frombytes(raw)
            text = data.decode()
            self.messages.append(text)
            if text.startswith("FDSTORE=1"):
                name = text.partition("FDNAME=")[2]
                self.stored += [(name, fd) for fd in fds]
            else:
                for fd in fds:
                    os.close(fd)


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    path = tmp_path / "notify"
    manager = Manager(path)
    monkeypatch.setenv("NOTIFY_SOCKET", str(path))
    monkeypatch.setattr(handover, "_SETTLED_S", 0.01)
    yield manager
    manager.sock.close()


def test_what_is_kept_comes_back_with_what_belongs_to_it(manager: Manager) -> None:
    """Each connection is found again with its own state, by whichever number it has now; systemd is then told to let go
    of them, because a connection that somebody else holds too is never seen to end."""
    notifier = service.Notifier()
    keeper = handover.Keeper(notifier, 8)
    assert keeper.possible
    pairs = [socket.socketpair() for _ in range(3)]
    states = [{"owner": "c1", "unread": "e30="}, {}, {"owner": "c2"}]
    for (ours, _), state in zip(pairs, states, strict=True):
        assert keeper.keep(ours, state) is True
    assert keeper.send() == 3
    manager.look()
    assert [name for name, _ in manager.stored].count(handover.CONNECTION) == 3
    assert manager.messages[-1] == "BARRIER=1"

    given = handover.take_up(manager.stored)
    handover.release(notifier)
    assert [state for _, state in given] == states
    for (sock, _), (_, client) in zip(given, pairs, strict=True):
        client.send(b"?")
        assert sock.recv(1) == b"?"
        assert sock.get_inheritable() is False
        sock.close()
        assert client.recv(1) == b""
        client.close()
    manager.look()
    assert manager.messages[-2:] == [f"FDSTOREREMOVE=1\nFDNAME={name}" for name in handover.NAMES]
    assert keeper.send() == 0
    notifier.close()


def test_no_more_than_there_is_room_for(manager: Manager) -> None:
    """What systemd would close unseen is not given to it; one place is for the state."""
    notifier = service.Notifier()
    keeper = handover.Keeper(notifier, 2)
    ours, theirs = socket.socketpair()
    assert keeper.keep(ours, {}) is True
    assert keeper.keep(theirs, {}) is False
    keeper.send()
    theirs.close()
    assert not handover.Keeper(notifier, 0).possible
    notifier.close()
    manager.look()
    for _, fd in manager.stored:
        os.close(fd)


def test_nothing_is_kept_where_nobody_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a manager, or without its word for how many, connections end with the daemon."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not handover.Keeper(service.Notifier(), 100).possible
    environ = {"FDSTORE": "512"}
    assert handover.room(environ) == 512
    assert environ == {}
    assert handover.room({}) == 0
    assert handover.room({"FDSTORE": "many"}) == 0


def test_a_state_that_cannot_be_read_leaves_the_connections() -> None:
    """They are taken up without one, and their surfaces decide what that means."""
    broken = os.memfd_create("state")
    os.write(broken, b"{")
    ours, theirs = socket.socketpair()
    ((sock, state),) = handover.take_up([(handover.STATE, broken), (handover.CONNECTION, ours.detach())])
    assert state == {}
    sock.close()
    theirs.close()


def test_the_unit_gives_the_room_that_it_tells() -> None:
    """The variable for older systemd says what the store really holds."""
    from gemini_pool import service_files

    lines = service_files.template("gemini-pool.service").splitlines()
    (most,) = [line.partition("=")[2] for line in lines if line.startswith("FileDescriptorStoreMax=")]
    assert f"Environment=FDSTORE={most}" in lines
