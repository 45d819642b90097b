"""`gemini-pool doctor`: looks at everything between a program and its answer, and names the command that mends.

Works with the daemon down and, but for the judgement of the configuration, without the daemon's packages. What is
looked at stands in `doctor_*.py`, each check a generator of findings; here they are run, sorted and told.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import msgspec

from gemini_pool import paths, wire
from gemini_pool.errors import PoolError

Severity = Literal["error", "warning", "note", "ok"]
_ORDER: tuple[Severity, ...] = ("error", "warning", "note", "ok")


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing found. `mend` is a command when `runs`, else a sentence, "" where nothing is to be done."""

    check: str
    severity: Severity
    text: str
    mend: str = ""
    runs: bool = False
    account: str = ""


class Patient:
    """What the checks look at, read once. `info` and `status` are None while no daemon answers."""

    def __init__(self, environ: Mapping[str, str], where: paths.Places) -> None:
        self.environ = environ
        self.where = where
        self.config = _toml(where.config_file)
        self.accounts = _toml(where.accounts_file).get("account", [])
        self.info: wire.DaemonInfo | None = None
        self.status: wire.StatusResult | None = None
        self.verdicts: list[wire.VerifyRow] | None = None
        self.trouble: PoolError | None = None

    def ask_daemon(self, *, probe: bool) -> None:
        """What the daemon says of itself; `probe`: with one cheap call for each account."""
        from gemini_pool._sync import Pool

        try:
            with Pool(self.where.socket, name="gemini-pool", connect_s=0.0, timeout_s=30.0) as pool:
                self.info, self.status = pool.info(), pool.status()
                if probe:
                    self.verdicts = pool.verify().accounts
        except PoolError as error:
            self.trouble = error

    def table(self, name: str) -> dict[str, Any]:
        """A section of the configuration, {} where it is not there or not a table."""
        found = self.config.get(name, {})
        return found if isinstance(found, dict) else {}


def _toml(path: os.PathLike[str]) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError), open(path, "rb") as file:  # noqa: PTH123
        return tomllib.load(file)
    return {}


Check = Callable[[Patient], Iterator[Finding]]


def checks() -> list[Check]:
    from gemini_pool import doctor_files, doctor_life, doctor_network, doctor_tools

    return [*doctor_files.CHECKS, *doctor_life.CHECKS, *doctor_network.CHECKS, *doctor_tools.CHECKS]


def examine(patient: Patient) -> list[Finding]:
    """Every finding, the worst first. A check that fails is a finding, too."""
    found: list[Finding] = []
    for check in checks():
        name = check.__name__
        try:
            found += check(patient)
        except Exception as error:  # noqa: BLE001  (one check's surprise must not hide the others' findings)
            found.append(
                Finding(name, "warning", f"this could not be checked: {type(error).__name__}: {error}")
            )
    return sorted(found, key=lambda each: _ORDER.index(each.severity))


def main(options: argparse.Namespace) -> int:
    """0: nothing that keeps requests from being served; 1: something does."""
    if options.socket:
        os.environ["GEMINI_POOL_SOCKET"] = options.socket
    patient = Patient(os.environ, paths.places())
    patient.ask_daemon(probe=options.probe)
    found = examine(patient)
    if options.json:
        print(msgspec.json.format(msgspec.json.encode({"findings": found}), indent=2).decode())
    else:
        print(as_text(found))
    if options.bundle:
        from gemini_pool import doctor_bundle

        doctor_bundle.write(options.bundle, patient, found)
        print(f"wrote {options.bundle}: look into it before you send it to anybody", file=sys.stderr)
    return 1 if any(each.severity == "error" for each in found) else 0


def as_text(found: list[Finding]) -> str:
    """What is wrong with its mend, and one line of what is fine."""
    lines = []
    for each in found:
        if each.severity != "ok":
            lines.append(f"{each.severity}: {each.text}")
            if each.mend:
                lines.append(f"  {'run' if each.runs else 'do'}: {each.mend}")
    fine = ", ".join(dict.fromkeys(each.check for each in found if each.severity == "ok"))
    return "\n".join([*lines, f"fine: {fine}" if fine else "nothing is fine"])
