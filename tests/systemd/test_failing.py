"""Crash loops, damaged and foreign state, upgrades: contained, told, and mended, under a real `systemd --user`."""

from __future__ import annotations

from tests.systemd.session import EXIT_CONFIG, run_inside


def test_a_crash_loop_is_contained() -> None:
    """A daemon that crashes at each start is given up after the unit's limit, and then nothing starts any more; the
    status line and the journal say why; once mended, one command brings everything back."""
    found = run_inside("crash_loop", "failing.py", timeout_s=180)
    print(found)
    unit = found["unit"]
    assert unit["ActiveState"] == "failed"
    assert unit["StatusText"].startswith("crashed: ZeroDivisionError")
    assert 2 <= found["starts"] <= 20
    assert found["goes_on"] == 0
    assert found["journal_says"] is True
    assert found["mended"] == [True, "active"]


def test_a_damaged_store_is_set_aside() -> None:
    """One start, no loop: the file is kept under another name, the log says so, and requests are served."""
    found = run_inside("corrupt_store", "failing.py")
    assert (found["unit"]["ActiveState"], found["unit"]["NRestarts"]) == ("active", "0")
    assert any(name.startswith("state.db.damaged-") for name in found["aside"])
    assert (found["told"], found["answer"]) == (True, True)


def test_a_downgrade_is_refused_once() -> None:
    """State of a newer version is not touched, the status line names the version to install, nothing is tried again, and
    a connection is told."""
    found = run_inside("newer_store", "failing.py")
    unit = found["unit"]
    assert found["code"] != 0
    assert (unit["ActiveState"], unit["ExecMainStatus"], unit["NRestarts"]) == (
        "failed",
        str(EXIT_CONFIG),
        "0",
    )
    assert "newer gemini-pool" in unit["StatusText"]
    assert (found["untouched"], found["goes_on"], found["starts"]) == (True, 0, 1)
    assert found["told"]["error"]["data"]["code"] == "state_unusable"
    assert "99.1" in found["told"]["error"]["data"]["hint"]
    assert found["socket"] == "active"


def test_an_upgrade_brings_the_state_along() -> None:
    """State of the schema before this one is backed up, privately, and brought forward with what it knows."""
    found = run_inside("upgraded", "failing.py")
    assert found == {
        "version": True, "backups": ["0600"], "resting": True, "still": True, "counters": True, "told": True,
        "answer": True,
    }  # fmt: skip


def test_leases_subscriptions_and_connections_outlive_a_restart() -> None:
    """On one connection, over two processes: the lease renewed and reported, the subscription still told, and what was
    asked meanwhile answered."""
    found = run_inside("leases_and_connections", "failing.py")
    assert found == {
        "kept": True, "another_process": True, "replies": [True, True], "held": True,
        "reported": {"next": "done", "reason": "", "lease": None, "retry_at": None}, "event": "key-a",
        "counters": {"requests": 1, "answered": 1, "expired": 0},
    }  # fmt: skip
