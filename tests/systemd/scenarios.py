"""What is done under the user manager, a function a scenario; each prints what it saw as JSON for the test outside.

user-session.sh -u 1000 python scenarios.py NAME
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

import inside
from inside import (
    GATEWAY_SOCK,
    POOL_SOCK,
    SERVICE,
    SOCKET,
    STATE,
    Google,
    ask,
    call,
    key_account,
    login_account,
    service_account,
    show,
    status,
    systemctl,
    wait_for,
    write_accounts,
    write_config,
)

from gemini_poold.fake import Fault, Match

WATCHDOG = "[Service]\nWatchdogSec=1s\n"
SCENARIOS: dict[str, Callable[[Google], dict[str, Any]]] = {}


def scenario(function: Callable[[Google], dict[str, Any]]) -> Callable[[Google], dict[str, Any]]:
    SCENARIOS[function.__name__] = function
    return function


def three_accounts(google: Google) -> list[str]:
    """One account a backend."""
    return [key_account(google, "key-a"), login_account(google, "work"), service_account(google, "cloud")]


def verdict(word: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    return {"code": word.returncode, "text": (word.stdout + word.stderr).strip()}


def watched_start() -> dict[str, Any]:
    """Start without waiting, and look at state and sockets, in this order, until the unit is active."""
    systemctl("start", "--no-block", SERVICE)
    early = looks = 0
    while (now := inside.state()) not in {"active", "failed"}:
        looks += 1
        early += now == "inactive"
        time.sleep(0.005)
    return {
        "state": now,
        "pool": inside.accepts(POOL_SOCK),
        "gateway": inside.accepts(GATEWAY_SOCK),
        "looks": looks,
    }


@scenario
def start_without_sockets(google: Google) -> dict[str, Any]:
    """Only the service unit is installed: the daemon binds both sockets itself."""
    inside.install(with_socket=False)
    write_accounts(*three_accounts(google))
    write_config(google)
    seen = watched_start()
    pid = inside.main_pid()
    answer = ask("Say hello")
    out = {
        "start": seen,
        "answer": "result" in answer,
        "ready": inside.http("/readyz")[0],
        "modes": [inside.mode(path) for path in (POOL_SOCK.parent, POOL_SOCK, GATEWAY_SOCK)],
        "state_modes": [
            inside.mode(path) for path in (STATE, *sorted(STATE.glob("*.db*")), STATE / "gateway.key")
        ],
        "unit": show(SERVICE, "Type", "NotifyAccess", "StatusText", "NRestarts", "WatchdogUSec"),
        "confined": inside.proc_status(pid),
        "core": re.search(r"core file size +(\S+) +(\S+)", _limits(pid)),
        "environ_readable": os.access(f"/proc/{pid}/environ", os.R_OK),
    }
    out["core"] = list(out["core"].groups())
    systemctl("stop", SERVICE)
    out["stopped"] = show(SERVICE, "ActiveState", "Result", "ExecMainStatus")
    out["left"] = [POOL_SOCK.exists(), GATEWAY_SOCK.exists()]
    return out


def _limits(pid: int) -> str:
    with open(f"/proc/{pid}/limits") as file:
        return file.read()


@scenario
def start_with_sockets(google: Google) -> dict[str, Any]:
    """Starting the service brings the sockets with it; each serves its own protocol; stopping them stops it."""
    inside.install()
    write_accounts(*three_accounts(google))
    write_config(google)
    seen = watched_start()
    out = {
        "start": seen,
        "socket": inside.state(SOCKET),
        "modes": [inside.mode(path) for path in (POOL_SOCK.parent, POOL_SOCK, GATEWAY_SOCK)],
        "answer": "result" in ask("Say hello"),
        "ready": inside.http("/readyz")[0],
    }
    wait_for("the tokens are warm", lambda: "3 tokens" in show(SERVICE, "StatusText")["StatusText"])
    out["status_text"] = show(SERVICE, "StatusText")["StatusText"]
    systemctl("stop", SERVICE)
    out["sockets_stay"] = [inside.state(SOCKET), POOL_SOCK.exists(), GATEWAY_SOCK.exists()]
    out["again"] = "result" in call("daemon/info")
    systemctl("stop", SOCKET)
    out["both_gone"] = [
        inside.state(SERVICE),
        inside.state(SOCKET),
        POOL_SOCK.exists(),
        GATEWAY_SOCK.exists(),
    ]
    return out


@scenario
def first_connect_starts(google: Google) -> dict[str, Any]:
    """The sockets alone are started; whoever connects first starts the daemon."""
    inside.install()
    write_accounts(*three_accounts(google))
    write_config(google)
    systemctl("start", SOCKET)
    before = inside.state()
    reply = call("daemon/info")
    out = {"before": before, "reply": reply.get("result", reply), "after": inside.state()}
    systemctl("stop", SERVICE)
    out["by_gateway"] = [inside.state(), inside.http("/healthz")[0], inside.state()]
    return out


@scenario
def killed(google: Google) -> dict[str, Any]:
    """kill -9, and what is remembered."""
    google.world.limit("spent-project", rpd=1)
    spent = key_account(google, "spent", project="spent-project") + "priority = 2\n"
    dead = key_account(google, "dead", state="invalid") + "priority = 1\n"
    inside.install()
    write_accounts(spent, dead, key_account(google, "good"))
    write_config(google)
    systemctl("start", SERVICE)
    answers = [ask(f"Question {number}") for number in range(6)]
    time.sleep(1.5)  # counters may be a second behind on the disk
    before, pid = status(), inside.main_pid()
    began = time.monotonic()
    systemctl("kill", "-s", "KILL", SERVICE)
    wait_for("the daemon is back", lambda: inside.state() == "active" and inside.main_pid() not in {0, pid})
    back_s = time.monotonic() - began
    after = status()
    asked = len(google.fake.record.calls)
    again = [ask(f"Question {number} again") for number in range(3)]
    return {
        "answered": ["result" in answer for answer in answers],
        "before": _remembered(before),
        "after": _remembered(after),
        "restarts": show(SERVICE, "NRestarts")["NRestarts"],
        "back_s": back_s,
        "again": ["result" in answer for answer in again],
        "asked_dead_or_spent": [
            one.caller.name
            for one in list(google.fake.record.calls)[asked:]
            if one.caller is not None and one.caller.name != "good"
        ],
    }


def _remembered(seen: dict[str, Any]) -> dict[str, Any]:
    """What has to survive."""
    accounts = {
        one["id"]: {
            "state": one["state"],
            "reason": one["reason"],
            "cooldowns": sorted(
                [
                    [cool["scope"], cool["key"], cool["model"], cool["until"], cool["told"]]
                    for cool in one["cooldowns"]
                ]
            ),
            "counters": one["counters"],
        }
        for one in seen["accounts"]
    }
    counters = {name: seen["counters"][name] for name in ("requests", "answered", "failed", "rotations")}
    return {"accounts": accounts, "counters": counters}


@scenario
def reloads(google: Google) -> dict[str, Any]:
    """`systemctl reload` with good and broken files."""
    inside.install()
    first = key_account(google, "first")
    write_accounts(first)
    write_config(google)
    systemctl("start", SERVICE)
    pid = inside.main_pid()
    out: dict[str, Any] = {"start": _ids()}
    write_accounts(first, key_account(google, "second"))
    out["good"] = [verdict(systemctl("reload", SERVICE, check=False)), _ids()]
    write_accounts(first, '[[account]]\nid = "third"\nbackend = \n')
    out["broken"] = [verdict(systemctl("reload", SERVICE, check=False)), _ids(), status()["config_errors"]]
    out["serves"] = "result" in ask("Still there?")
    write_accounts(first)
    out["mended"] = [verdict(systemctl("reload", SERVICE, check=False)), _ids(), status()["config_errors"]]
    write_config(google, "[selection]\nstratgy = 'priority'\n")
    out["bad_config"] = [verdict(systemctl("reload", SERVICE, check=False)), status()["config_errors"]]
    out["same_process"] = inside.main_pid() == pid and inside.state() == "active"
    out["journal"] = inside.journal_text()
    return out


def _ids() -> list[str]:
    return sorted(one["id"] for one in status()["accounts"])


@scenario
def bad_config(google: Google) -> dict[str, Any]:
    """A configuration that no start can mend: by hand, then by a connection."""
    inside.install()
    write_accounts(key_account(google, "key-a"))
    write_config(google, "[selection]\nstratgy = 'priority'\n")
    started = verdict(systemctl("start", SERVICE, check=False))
    out = {
        "start": started,
        "unit": show(
            SERVICE, "ActiveState", "SubState", "Result", "ExecMainStatus", "NRestarts", "StatusText"
        ),
        "socket": inside.state(SOCKET),
    }
    before = _starts()
    try:
        out["refusal"] = call("daemon/info")
    except (OSError, ValueError) as error:
        out["refusal"] = repr(error)
    wait_for("it has given up", lambda: inside.state() == "failed")
    time.sleep(1.5)  # three times RestartSec: a loop would show
    out["starts"] = _starts() - before
    out["socket_after"] = inside.state(SOCKET)
    write_config(google)
    out["mended"] = "result" in call("daemon/info")
    return out


def _starts() -> int:
    """How often the manager has started the service so far."""
    return sum(str(entry.get("MESSAGE", "")).startswith("Starting ") for entry in inside.journal())


@scenario
def nothing_secret_in_the_journal(google: Google) -> dict[str, Any]:
    """Every kind of event at the chattiest level; then the journal is searched for all that is secret."""
    inside.install()
    google.world.limit("limited-project", rpm=1)
    entries = [*three_accounts(google), key_account(google, "limited", project="limited-project")]
    entries.append(key_account(google, "dead", state="invalid") + "priority = 3\n")
    write_accounts(*entries)
    write_config(google)
    systemctl("start", SERVICE)
    google.fake.faults.add(Fault.status(503), when=Match(credential="cloud", kind="generate"), times=1)
    google.fake.faults.add(Fault.reset_connection(), when=Match(credential="key-a", kind="generate"), times=1)
    for number in range(8):
        ask(f"prompt-not-to-be-logged {number}")
    tokens = [call("pool/token", {"account": name})["result"]["token"] for name in ("work", "cloud")]
    google.world.expire_tokens()
    renewed = [ask("prompt-not-to-be-logged", account=name, wait_s=5) for name in ("work", "cloud")]
    google.world.revoke("work")
    ask("prompt-not-to-be-logged", account="work", wait_s=1)
    answer = ask("prompt-not-to-be-logged", account="key-a")
    answered = answer["result"]["candidates"][0]["content"]["parts"][0]["text"]
    write_accounts(*entries, "[[account]]\nid = 7\n")
    systemctl("reload", SERVICE, check=False)
    systemctl("restart", SERVICE)
    call("daemon/info")
    gateway_key = (STATE / "gateway.key").read_text().strip()
    secret = [*google.secrets(), *tokens, gateway_key, "prompt-not-to-be-logged", answered]
    entries_seen = inside.journal()
    everything = json.dumps(entries_seen, ensure_ascii=False)
    ours = [entry for entry in entries_seen if entry.get("_SYSTEMD_USER_UNIT") == SERVICE]
    return {
        "renewed_after_401": ["result" in answer for answer in renewed],
        "secrets": len(secret),
        "found": [text for text in secret if text in everything],
        "entries": len(ours),
        "fields": sorted({name for entry in ours for name in entry if name.startswith("GEMINI_POOL_")}),
        "messages": [str(entry.get("MESSAGE")) for entry in ours],
    }


@scenario
def watchdog(google: Google) -> dict[str, Any]:
    """A stopped process is not alive."""
    inside.install(drop_in=WATCHDOG)
    write_accounts(key_account(google, "key-a"))
    write_config(google)
    systemctl("start", SERVICE)
    pid = inside.main_pid()
    time.sleep(2.5)  # two and a half intervals: a healthy daemon feeds it
    healthy = [inside.main_pid() == pid, show(SERVICE, "NRestarts")["NRestarts"]]
    os.kill(pid, signal.SIGSTOP)
    wait_for("the watchdog struck", lambda: inside.state() == "active" and inside.main_pid() not in {0, pid})
    return {
        "healthy": healthy,
        "restarts": show(SERVICE, "NRestarts")["NRestarts"],
        "answer": "result" in ask("Alive?"),
    }


@scenario
def restart_refuses_nobody(google: Google) -> dict[str, Any]:
    """Connects without a pause over three restarts."""
    inside.install()
    write_accounts(key_account(google, "key-a"))
    write_config(google)
    systemctl("start", SERVICE)
    with inside.hammered() as outcomes:
        for _ in range(3):
            systemctl("restart", SERVICE)
            wait_for("it serves", lambda: "result" in call("daemon/info"))
            time.sleep(0.3)  # so that many are under way when the next one comes
    return {"outcomes": {word: outcomes.count(word) for word in set(outcomes)}}


@scenario
def stop_drains(google: Google) -> dict[str, Any]:
    """A stream that is under way is finished before the daemon ends."""
    inside.install()
    write_accounts(key_account(google, "key-a"))
    write_config(google)
    systemctl("start", SERVICE)
    google.fake.faults.add(Fault.stall(after=1, seconds=2.0), when=Match(kind="stream"))
    request = {"contents": [{"role": "user", "parts": [{"text": "Count to ten"}]}]}
    params = {"model": inside.MODEL, "method": "streamGenerateContent", "token": "t", "request": request}
    seen: list[dict[str, Any]] = []
    with inside.connect() as sock:
        line = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "pool/generate", "params": params})
        sock.sendall(line.encode() + b"\n")
        stopper = threading.Thread(target=systemctl, args=("stop", SERVICE))
        for message in inside.messages(sock):
            seen.append(message)
            if not stopper.ident and message.get("method") == "$/progress":
                stopper.start()
    stopper.join(inside.PATIENCE_S)
    final = [message for message in seen if message.get("id") == 1]
    return {
        "chunks": sum(message.get("method") == "$/progress" for message in seen),
        "draining": any(message.get("method") == "daemon/draining" for message in seen),
        "final": final,
        "unit": show(SERVICE, "ActiveState", "Result", "ExecMainStatus"),
    }


@scenario
def a_key_as_systemd_credential(google: Google) -> dict[str, Any]:
    """A secret that systemd hands over with LoadCredential=, in a folder that only the service sees."""
    key = google.world.add_api_key("key-a")
    source = STATE.parent / "key-a.for-systemd"
    inside.private(source, key.key + "\n")
    inside.install(drop_in=f"[Service]\nLoadCredential=key-a:{source}\n")
    write_accounts(
        '[[account]]\nid = "key-a"\nbackend = "developer-api"\n'
        'credential = { type = "api-key", secret = { systemd-credential = "key-a" } }\n'
    )
    write_config(google)
    systemctl("start", SERVICE)
    (account,) = status()["accounts"]
    return {"state": account["state"], "reason": account["reason"], "answer": "result" in ask("hi")}


if __name__ == "__main__":
    inside.run(SCENARIOS)
