"""systemd's own judgement of the units: nothing to complain of, and nothing left open without a reason."""

from __future__ import annotations

from tests.systemd.session import run_inside

# What keeps the figure up, and why it stays.
WHY = {
    "PrivateNetwork=": "it talks to Google and serves a loopback port",
    "RestrictAddressFamilies=~AF_(INET|INET6)": "it talks to Google and serves a loopback port",
    "RestrictAddressFamilies=~AF_UNIX": "its own sockets, the journal, readiness",
    "RestrictAddressFamilies=~AF_NETLINK": "the kernel tells of the network's changes over it",
    "IPAddressDeny=": "a user's manager may attach no filter: it would do nothing",
    "DeviceAllow=": "a user's manager may attach no filter: it would do nothing",
    "ProtectProc=": "does nothing in a user's manager",
    "ProcSubset=": "does nothing in a user's manager",
    "RootDirectory=/RootImage=": "it is an installation of the user's, wherever that is",
    "ProtectHome=": "accounts, secrets and mostly the program lie in the home",
    "User=/DynamicUser=": "it is the user's",
    "PrivateTmp=": "archives and exports go where the user says",
    "KeyringMode=": "a `command` secret may want the user's kernel keyring",
    "SystemCallFilter=~@resources": "it raises its own limit of open files",
}
SANDBOX = "needs a user namespace: in the drop-in"


def test_the_units_verify_and_are_tight() -> None:
    """`verify` says nothing; every setting left open is on the list above, or closed by the drop-in."""
    found = run_inside("exposure", "hardening.py")
    shipped, sandboxed = found["shipped"], found["sandboxed"]
    for name, seen in found.items():
        print(f"{name}: {seen['exposure']}")
        for setting, weight in sorted(seen["open"].items(), key=lambda item: -item[1]):
            print(f"  {weight} {setting}  {WHY.get(setting, SANDBOX)}")
    assert shipped["verify"] == [0, ""]
    assert sandboxed["verify"] == [0, ""]
    assert shipped["exposure"] <= 6.5
    assert sandboxed["exposure"] <= 2.8
    assert set(sandboxed["open"]) <= set(WHY)
