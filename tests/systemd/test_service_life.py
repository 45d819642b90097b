"""The shipped units under a real `systemd --user`: an ordinary user of a machine that user-session.sh makes up.

Each test is one scenario of scenarios.py in a session of its own; here stands what has to come out.
"""

from __future__ import annotations

from tests.systemd.session import EXIT_CONFIG, run_inside


def test_active_means_accepting_without_the_socket_unit() -> None:
    """With the service unit alone the daemon binds its sockets itself, and is active only once both accept."""
    found = run_inside("start_without_sockets")
    assert found["start"]["state"] == "active"
    assert found["start"]["looks"] > 0, "the start was over before it could be watched"
    assert (found["start"]["pool"], found["start"]["gateway"]) == (True, True)
    assert found["answer"] is True
    assert found["ready"] == 200
    assert found["modes"] == ["0700", "0600", "0600"]
    assert set(found["state_modes"]) <= {"0700", "0600"}
    unit = found["unit"]
    assert (unit["Type"], unit["NotifyAccess"], unit["NRestarts"]) == ("notify", "main", "0")
    assert unit["WatchdogUSec"] == "30s"
    assert unit["StatusText"].isascii() and unit["StatusText"]
    assert found["stopped"] == {"ActiveState": "inactive", "Result": "success", "ExecMainStatus": "0"}
    assert found["left"] == [False, False]


def test_the_process_is_confined() -> None:
    """No new privileges, a seccomp filter, no core dump, and nobody of the same user reads its environment."""
    found = run_inside("start_without_sockets")
    assert found["confined"]["NoNewPrivs"] == "1"
    assert found["confined"]["Seccomp"] == "2"
    assert found["core"] == ["0", "0"]
    assert found["environ_readable"] is False


def test_active_means_accepting_with_the_socket_unit() -> None:
    """Starting the service starts its sockets; they outlive it, and stopping them stops it."""
    found = run_inside("start_with_sockets")
    assert found["start"]["state"] == "active"
    assert (found["start"]["pool"], found["start"]["gateway"]) == (True, True)
    assert found["socket"] == "active"
    assert found["modes"] == ["0700", "0600", "0600"]
    assert (found["answer"], found["ready"]) == (True, 200)
    assert found["status_text"].startswith("3 of 3 accounts ready, 3 tokens warm")
    assert found["sockets_stay"] == ["active", True, True]
    assert found["again"] is True
    assert found["both_gone"] == ["inactive", "inactive", False, False]


def test_the_first_connect_starts_the_daemon() -> None:
    """A request to either socket starts the service and is answered."""
    found = run_inside("first_connect_starts")
    assert found["before"] == "inactive"
    assert found["reply"]["protocol"] == 1
    assert found["after"] == "active"
    assert found["by_gateway"] == ["inactive", 200, "active"]


def test_killed_and_back_with_everything_remembered() -> None:
    """After `kill -9` the manager brings it back with cooldowns, account states and counters as they were, and neither
    the spent nor the dead account is asked again."""
    found = run_inside("killed")
    assert found["answered"] == [True] * 6
    assert found["restarts"] == "1"
    before, after = found["before"], found["after"]
    assert before["accounts"]["spent"]["cooldowns"]
    assert before["accounts"]["dead"]["state"] not in {"", "ok", "ready", "new"}
    assert after == before
    assert found["again"] == [True] * 3
    assert found["asked_dead_or_spent"] == []
    assert found["back_s"] < 10


def test_reload_takes_the_good_and_refuses_the_broken() -> None:
    """`systemctl reload` returns when the new accounts serve; it fails on a broken file, which changes nothing and is
    shown with its line."""
    found = run_inside("reloads")
    assert found["start"] == ["first"]
    good, broken, mended, bad_config = (found[name] for name in ("good", "broken", "mended", "bad_config"))
    assert (good[0]["code"], good[1]) == (0, ["first", "second"])
    assert broken[0]["code"] != 0
    assert broken[1] == ["first", "second"]
    assert [(error["file"].rpartition("/")[2], error["line"]) for error in broken[2]] == [
        ("accounts.toml", 9)
    ]
    assert found["serves"] is True
    assert (mended[0]["code"], mended[1], mended[2]) == (0, ["first"], [])
    assert bad_config[0]["code"] != 0
    assert "stratgy" in bad_config[1][0]["message"]
    assert found["same_process"] is True
    assert "accounts.toml" in found["journal"]


def test_a_bad_configuration_is_told_and_not_retried() -> None:
    """Exit 78 with the reason on the status line, no restart; a connection is told why and starts it once, not in a
    loop; once mended, the next connection is served."""
    found = run_inside("bad_config")
    assert found["start"]["code"] != 0
    unit = found["unit"]
    assert (unit["ActiveState"], unit["ExecMainStatus"], unit["NRestarts"]) == (
        "failed",
        str(EXIT_CONFIG),
        "0",
    )
    assert "stratgy" in unit["StatusText"] and "config.toml" in unit["StatusText"]
    assert found["socket"] == "active"
    assert found["refusal"]["error"]["data"]["code"] == "config_invalid"
    assert found["starts"] == 1
    assert found["socket_after"] == "active"
    assert found["mended"] is True


def test_nothing_secret_in_the_journal() -> None:
    """No key, token, prompt or answer in any field of any entry, at level debug, through failures and restarts."""
    found = run_inside("nothing_secret_in_the_journal")
    assert found["renewed_after_401"] == [True, True]
    assert found["secrets"] > 15
    assert found["found"] == []
    assert found["entries"] > 10, found["messages"]
    assert any("dead" in text for text in found["messages"]), found["messages"]


def test_the_watchdog_strikes_only_the_stopped() -> None:
    """A healthy daemon feeds its watchdog; one that stands still is killed and started again."""
    found = run_inside("watchdog")
    assert found["healthy"] == [True, "0"]
    assert int(found["restarts"]) >= 1
    assert found["answer"] is True


def test_a_restart_refuses_nobody() -> None:
    """With systemd's sockets no connect is refused over three restarts: who comes meanwhile waits."""
    outcomes = run_inside("restart_refuses_nobody")["outcomes"]
    assert outcomes[""] > 100
    assert set(outcomes) <= {"", "closed"}, outcomes


def test_stop_lets_a_stream_finish() -> None:
    """A stream that is under way when the service is stopped comes to its end, and the client is told of the drain."""
    found = run_inside("stop_drains")
    assert found["chunks"] > 1
    assert found["draining"] is True
    assert found["final"][0]["result"]["finish_reason"] == "STOP"
    assert found["unit"] == {"ActiveState": "inactive", "Result": "success", "ExecMainStatus": "0"}


def test_a_key_as_systemd_credential() -> None:
    """`{ systemd-credential = … }` finds what LoadCredential= hands over, under the real manager."""
    found = run_inside("a_key_as_systemd_credential")
    assert found == {"state": "ready", "reason": "", "answer": True}
