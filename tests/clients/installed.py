"""Real clients from the registries, by name and version, each in a folder of its own that is kept between runs.

The folder is `GEMINI_POOL_CLIENTS_CACHE`, else one of the temporary folder's. A client that cannot be had is a skip
with its reason, or a failure where GEMINI_POOL_REQUIRE_CLIENTS or GEMINI_POOL_REQUIRE_EDITORS is set.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import pytest

_PATIENCE_S = 400
seconds: dict[str, float] = {}  # what each installation of this run took


def npm(name: str, *packages: str, scripts: bool = False, then: Sequence[str] = ()) -> Path:
    """A folder with these packages in its node_modules. `scripts`: they may run their own; `then`: a command to run there."""
    if shutil.which("npm") is None:
        unavailable("npm is not installed")

    def install(folder: Path) -> None:
        flags = ["--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"]
        flags += [] if scripts else ["--ignore-scripts"]
        _run(["npm", "install", "--prefix", str(folder), *flags, *packages], folder)
        if then:
            _run(then, folder)

    return _kept(name, packages, install)


def pip(name: str, *packages: str, below: tuple[int, int] = (4, 0)) -> Path:
    """The `bin` of a virtual environment with these packages. `below`: the first Python that is too new for them."""
    python = _python(below)
    if python is None:
        unavailable(f"{name} wants a Python older than {below[0]}.{below[1]}")

    def install(folder: Path) -> None:
        _run([python, "-m", "venv", str(folder)], folder)
        _run([str(folder / "bin" / "pip"), "install", "--quiet", "--no-compile", *packages], folder)

    return _kept(name, (*packages, python), install) / "bin"


def unavailable(reason: str) -> NoReturn:
    """Skip, unless clients or editors are required."""
    if any(os.environ.get(f"GEMINI_POOL_REQUIRE_{what}") for what in ("CLIENTS", "EDITORS")):
        pytest.fail(reason)
    pytest.skip(reason)


def _kept(name: str, wanted: Sequence[str], install: Callable[[Path], None]) -> Path:
    cache = os.environ.get("GEMINI_POOL_CLIENTS_CACHE") or str(
        Path(tempfile.gettempdir()) / "gemini-pool-clients"
    )
    folder, done = Path(cache) / name, Path(cache) / f"{name}.installed"
    if done.exists() and done.read_text() == "\n".join(wanted):
        return folder
    done.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)  # of another version, or half there
    folder.mkdir(parents=True)
    began = time.monotonic()
    install(folder)
    seconds[name] = time.monotonic() - began
    done.write_text("\n".join(wanted))
    return folder


def _run(command: Sequence[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_PATIENCE_S, check=False
        )
    except subprocess.TimeoutExpired:
        unavailable(f"{command[0]} took longer than {_PATIENCE_S} s")
    if done.returncode:
        unavailable(f"{' '.join(command[:3])} failed: {(done.stderr or done.stdout)[-500:]}")


def _python(below: tuple[int, int]) -> str | None:
    if sys.version_info[:2] < below:
        return sys.executable
    names = [f"python3.{minor}" for minor in range(below[1] - 1, 9, -1)]
    return next((found for name in names if (found := shutil.which(name))), None)
